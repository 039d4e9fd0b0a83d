package lpws

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// TestSecrets_NotInLogsOrErrors provokes many kinds of failures, and searches the debug log and every error for secrets.
func TestSecrets_NotInLogsOrErrors(t *testing.T) {
	t.Parallel()
	h := newHarness(t, sandbox.Options{})
	consumer, agent := h.consumer(), h.agent("ann")
	grant, err := share.ParseAgentToken(agent.Secret)
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{consumer.Secret, consumer.Secret[strings.LastIndexByte(consumer.Secret, '.')+1:], agent.Secret, grant.Bearer, "ws://", "wss://", "/ws_api", "made on demand"}
	logged := h.logs
	log := slog.New(slog.NewTextHandler(logged, nil))
	record := func(err error) {
		for e := err; e != nil; e = errors.Unwrap(e) {
			log.Error("error", slog.Any("error", e), slog.String("go", fmt.Sprintf("%v %+v %#v", e, e, e)))
		}
	}
	ctx := ctxOf(t)
	for _, cred := range []share.Credential{consumer, agent} {
		for _, f := range []sandbox.Fault{
			{Status: 401}, {Status: 500}, {Status: 404}, {Status: 302}, {Status: 400}, {Drop: true}, {Mute: true}, {Garbage: true}, {CloseCode: 4401}, {CloseCode: 1011}, {DropAfter: true},
		} {
			h.sb.ClearFaults()
			f.On, f.Count = "ws:upgrade", 2
			h.sb.Inject(f)
			_, err := h.newPool(func(c *Config) { c.OpenTimeout = 300 * time.Millisecond }).Session(ctx, cred)
			record(err)
		}
		h.sb.ClearFaults()
		for _, base := range []string{"ws://127.0.0.1:1", "wss://" + strings.TrimPrefix(h.sb.URL(), "http://"), "http://x", ":", "ws://%zz", "ws://user@host", "ws://no.such.host.invalid"} {
			p := h.newPool(func(c *Config) {
				c.SocketURL = func(context.Context, string, share.Scheme) (string, error) { return base, nil }
				c.OpenTimeout = 300 * time.Millisecond
			})
			_, err := p.Session(ctx, cred)
			if err == nil {
				t.Errorf("%s could be opened", base)
			}
			record(err)
		}
		p := h.newPool(func(c *Config) {
			c.SocketURL = func(context.Context, string, share.Scheme) (string, error) {
				return "", errors.New("failed with " + cred.Secret)
			}
		})
		_, err := p.Session(ctx, cred)
		record(err)
		log.Info("credential", slog.Any("credential", cred), slog.String("go", fmt.Sprintf("%v %+v %#v %#v", cred, cred, cred, grant)))

		s := h.session(cred)
		u, err := s.UploadURL(ctx, 5, share.PNG)
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, u.Sig)
		log.Info("url", slog.Any("url", u), slog.String("go", fmt.Sprintf("%v %+v %#v", u, u, u)))
		for _, f := range []sandbox.Fault{{Status: 403}, {Status: 500}, {Garbage: true}, {Mute: true}, {Drop: true}, {CloseCode: 1001}} {
			h.sb.ClearFaults()
			for _, f.On = range []string{"ms.GenerateURLForUploadFile", "ms.PublishEvent", "ms.SubscribeMessagingEvents", "ms.QueryMessages"} {
				h.sb.Inject(f)
			}
			for _, call := range []func(context.Context) error{
				func(ctx context.Context) error { _, err := s.UploadURL(ctx, 5, share.PNG); return err },
				func(ctx context.Context) error { _, err := s.PublishFile(ctx, "c", "", hosted(u.Path, "")); return err },
				func(ctx context.Context) error { _, _, err := s.s.files(ctx, "c", "c"); return err },
			} {
				short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
				record(call(short))
				cancel()
			}
		}
		h.sb.ClearFaults()
		if _, err := s.UploadURL(ctx, 5, share.PNG); err != nil { // the connection works
			t.Fatal(err)
		}
		h.sb.DropSockets(4401)
		eventually(t, "the session has ended", func() bool { return h.pool.Len() == 0 })
		_, err = s.UploadURL(ctx, 5, share.PNG)
		record(err)
	}
	text := logged.String()
	if len(text) < 10_000 {
		t.Errorf("only %d bytes of log, which proves nothing", len(text))
	}
	for _, secret := range secrets {
		if i := strings.Index(text, secret); i >= 0 {
			t.Errorf("%.8s... is in the log: %s", secret, text[max(0, i-200):i])
		}
	}
}
