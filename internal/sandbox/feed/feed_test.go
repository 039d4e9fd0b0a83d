package feed

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// A reader reads the events of one connection.
type reader struct {
	t     *testing.T
	lines *bufio.Scanner
	id    string // of the last event that had one
}

func listen(t *testing.T, url, last string) *reader {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || got != "text/event-stream" {
		t.Fatalf("%s, %s", resp.Status, got)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	return &reader{t: t, lines: lines}
}

func (r *reader) next() Event {
	r.t.Helper()
	for r.lines.Scan() {
		if id, ok := strings.CutPrefix(r.lines.Text(), "id: "); ok {
			r.id = id
		}
		if data, ok := strings.CutPrefix(r.lines.Text(), "data: "); ok {
			var e Event
			if err := json.Unmarshal([]byte(data), &e); err != nil {
				r.t.Fatalf("%v: %s", err, data)
			}
			return e
		}
	}
	r.t.Fatalf("the connection ended: %v", r.lines.Err())
	return Event{}
}

func serve(t *testing.T, f *Feed) string {
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	t.Cleanup(f.Close)
	return server.URL
}

func TestFeed_ContinuesAfterAnID(t *testing.T) {
	f := New(time.Now)
	url := serve(t, f)
	f.Add("signed", 1)
	r := listen(t, url, "")
	for want := range int64(3) {
		f.Add("stored", want)
		if e := r.next(); e.ID != want+1 {
			t.Fatalf("%+v, want id %d", e, want+1)
		}
	}
	f.Add("published", "x")
	again := listen(t, url, r.id)
	if e := again.next(); e.ID != 4 || e.Kind != "stored" {
		t.Errorf("%+v, want the event after %s", e, r.id)
	}
	for _, id := range []string{"another-1", f.run + "-99", f.run + "-x", "nonsense"} {
		restarted := listen(t, url, id)
		if e := restarted.next(); e.Kind != "restart" {
			t.Errorf("after the id %q: %+v, want a restart", id, e)
		}
		if e := restarted.next(); e.ID != 1 {
			t.Errorf("after the restart: %+v, want the first event", e)
		}
	}
}

func TestFeed_ReportsAGap(t *testing.T) {
	f := New(time.Now)
	url := serve(t, f)
	for i := range maxEvents + 10 {
		f.Add("stored", i)
	}
	r := listen(t, url, f.run+"-3")
	if e := r.next(); e.Kind != "gap" || fmt.Sprint(e.Data) != "map[missed:7]" {
		t.Errorf("%+v, want a gap of 7", e)
	}
	if e := r.next(); e.ID != 11 {
		t.Errorf("%+v, want event 11", e)
	}
}

func TestFeed_LimitsItsTexts(t *testing.T) {
	f := New(time.Now)
	data := make([]byte, 1<<20)
	for range 2 * maxText / maxTextBytes {
		f.Add("frame", Frame{Text: Cut(data)})
	}
	if n := len(f.events) * maxTextBytes; n > maxText || f.text != n {
		t.Errorf("%d bytes of texts are kept and %d counted, want at most %d", n, f.text, maxText)
	}
}

func TestFeed_LimitsItsListeners(t *testing.T) {
	f := New(time.Now)
	url := serve(t, f)
	for range maxListeners {
		listen(t, url, "")
	}
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one listener too many: %s", resp.Status)
	}
}

func TestMask(t *testing.T) {
	const jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjb25zdW1lciJ9.c2lnbmF0dXJl"
	for _, text := range []string{
		`{"kind":"req","body":{"headers":[{"type":".ams.headers.ConsumerAuthentication","jwt":"` + jwt + `SECRET"}]}}`,
		`{"text":"{\"jwt\":\"` + jwt + `SECRET\"}"}`,
		`{"text":"cut in a token ` + jwt + `SECRET`,
		`{"text":"` + jwt[:25] + `SECRET`,
		`{"queryParams":{"temp_url_sig":"SECRET","temp_url_expires":"1700000000"}}`,
		`{"text":"{\"temp_url_sig\":\"SECRET\"}"}`,
		`https://127.0.0.1/v1/AUTH_x/y?temp_url_sig=SECRET&temp_url_expires=1`,
		`{"access_token":"SECRET","token_type":"bearer"}`,
		`{"password" : "SECRET"}`, `{"text":"{\n\t\"secret\":\n\"SECRET\"}"}`, `{"password":"p\u0026SECRET"}`, `{"password":"p\\/SECRET"}`,
		`{"text":"{\"body\":\"{\\\"bearer\\\":\\\"SECRET\\\"}\"}"}`,
		`{"accessToken":"SECRET"}`, `{"appSecret": "SECRET"}`, `{"password":"SECRET"}`, `{"client_secret":"SECRET"}`,
		`client_id=sandbox-app&client_secret=SECRET`,
		`ws://127.0.0.1:1/ws_api/account/1/messaging/brand/SECRET?v=2.1`,
	} {
		if got := Mask(text); strings.Contains(got, "SECRET") || !strings.Contains(got, Masked) {
			t.Errorf("%s\nis masked as\n%s", text, got)
		}
	}
	for _, text := range []string{
		`{"kind":"req","type":"ms.PublishEvent","body":{"dialogId":"c","event":{"caption":"the token is here"}}}`,
		`{"path":"/v1/AUTH_async-images/12345678/x.jpg","status":201}`,
		`{"code":200,"type":"GenerateURLResponse"}`,
	} {
		if got := Mask(text); got != text {
			t.Errorf("%s\nis changed to\n%s", text, got)
		}
	}
}
