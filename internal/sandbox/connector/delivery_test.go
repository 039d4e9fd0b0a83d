package connector

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/fault"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/journal"
)

// TestSignWebhook has the examples of the documentation.
func TestSignWebhook(t *testing.T) {
	for digest, want := range map[string]string{
		"":       "sha1=TCzexuF9aNZl2WNZEW4Kk8so3HY=",
		"sha1":   "sha1=TCzexuF9aNZl2WNZEW4Kk8so3HY=",
		"sha256": "sha256=5s6sdS2g/mmI+lD3EYf0MfxQmD1lvlr5rzZgajo9skg=",
	} {
		if got := signWebhook(digest, "example-secret", []byte(`{"kind":"notification"}`)); got != want {
			t.Errorf("%q: %s, want %s", digest, got, want)
		}
	}
}

// deliver puts webhooks with the bodies into a queue and returns the attempts, as "SECONDS BODY OUTCOME", when all are delivered or
// abandoned. answer is the endpoint's status for each body.
func deliver(t *testing.T, hook Webhook, retention time.Duration, answer map[string]int, bodies ...string) []string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	begin := time.Now()
	recorder := journal.NewRecorder(time.Now, nil)
	d := newDeliveries(ctx, Options{
		WebhookUnit: time.Second, WebhookTimeout: 5 * time.Second, Faults: &fault.Set{}, Journal: recorder, MaxWaiting: 100,
	})
	var sent []string
	d.client.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		sent = append(sent, string(body))
		return &http.Response{StatusCode: answer[string(body)], Body: http.NoBody, Request: r}, nil
	})
	hook.Endpoint = "http://127.0.0.1:9/"
	for _, body := range bodies {
		d.put(&install{account: "12345678", id: "app"}, "conversation", WebhookContent, nil, hook, Webhooks{Retention: retention}, []byte(body))
	}
	for d.count() > 0 {
		synctest.Wait()
		<-time.After(time.Second) // of the fake clock
	}
	cancel()
	d.wait()
	var attempts []string
	for i, a := range recorder.Snapshot().Delivered {
		attempts = append(attempts, fmt.Sprintf("%v %s %s", a.At.Sub(begin).Seconds(), sent[i], a.Outcome))
	}
	return attempts
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestDeliveries_Schedule(t *testing.T) {
	none, one := 0, 1
	answer := map[string]int{"good": 200, "bad": 500}
	for name, c := range map[string]struct {
		hook      Webhook
		retention time.Duration
		want      []string
	}{
		"by retention, in order": {Webhook{}, 20 * time.Second, []string{
			"0 bad failed", "2 bad failed", "6 bad failed", "14 bad abandoned", "14 good delivered",
		}},
		"by retention, once": {Webhook{MaxRetries: &none}, 20 * time.Second, []string{"0 bad abandoned", "0 good delivered"}},
		"by count":           {Webhook{}, 0, []string{"0 bad failed", "0 good delivered", "30 bad failed", "60 bad failed", "90 bad abandoned"}},
		"by count, once":     {Webhook{MaxRetries: &none}, 0, []string{"0 bad abandoned", "0 good delivered"}},
		"by count, twice":    {Webhook{MaxRetries: &one}, 0, []string{"0 bad failed", "0 good delivered", "30 bad abandoned"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if got := deliver(t, c.hook, c.retention, answer, "bad", "good"); !slices.Equal(got, c.want) {
					t.Errorf("attempts %q, want %q", got, c.want)
				}
			})
		})
	}
}

func TestDeliveries_MaximumBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := deliver(t, Webhook{}, 30*time.Minute, map[string]int{"bad": 500}, "bad")
		if want := []string{"510 bad failed", "810 bad failed", "1110 bad failed", "1410 bad failed", "1710 bad abandoned"}; !slices.Equal(got[len(got)-5:], want) {
			t.Errorf("last attempts %q, want %q", got[len(got)-5:], want)
		}
	})
}
