package connector

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lpfileshare/lpfileshare/internal/ledger"
	"github.com/lpfileshare/lpfileshare/internal/lprest"
	"github.com/lpfileshare/lpfileshare/internal/rejections"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/test/lpfake"
	"github.com/lpfileshare/lpfileshare/test/wire"
)

// watched checks the exchanges of all sandboxes here against the schemas of test/wire.
var watched = wire.NewSuite("connector")

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) { os.Exit(watched.Exit(code)) }))
}

func wantKind(t *testing.T, what string, err error, kind share.Kind) {
	t.Helper()
	if share.KindOf(err) != kind || (kind == "") != (err == nil) {
		t.Errorf("%s: %v, want %q", what, err, kind)
	}
}

// A clock is set by the test.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newClient(t *testing.T, cfg lprest.Config) *lprest.Client {
	t.Helper()
	c, err := lprest.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// An env is a Messenger between a sandbox, which plays LivePerson, and an event log in memory.
type env struct {
	t    *testing.T
	sb   *sandbox.Sandbox
	log  *ledger.Events
	m    *Messenger
	hook string // URL of its webhooks

	mu  sync.Mutex
	app App
}

func newEventLog(t testing.TB) *ledger.Events {
	t.Helper()
	kv, err := ledger.Open(t.Context(), ledger.Config{
		TTL: time.Hour, MaxBytes: 16 << 20, Timeout: time.Minute, StartTimeout: time.Minute, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = kv.Close() })
	log := kv.Events(ledger.EventsConfig{TTL: time.Hour, MaxBytes: 64 << 20})
	t.Cleanup(log.Close)
	return log
}

func newEnv(t *testing.T, opts sandbox.Options, webhooks bool, change ...func(*Config)) *env {
	t.Helper()
	tap, also := watched.Watch(t), opts.OnExchange
	opts.OnExchange = func(x sandbox.Exchange) {
		tap.CheckExchange(wire.Exchange(x))
		if also != nil {
			also(x)
		}
	}
	sb, err := sandbox.Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sb.Close() })
	h := &env{t: t, sb: sb, log: newEventLog(t), app: App{ID: sandbox.DefaultAppID, Secret: sandbox.DefaultAppSecret, Webhooks: webhooks}}
	h.m = h.messenger(newClient(t, lprest.Config{DomainAPI: sb.URL(), PlainHTTP: true, Timeout: time.Minute, Now: opts.Now}), change...)
	hooks := httptest.NewServer(h.m.Webhook())
	t.Cleanup(hooks.Close)
	h.hook = hooks.URL + "/webhooks"
	if webhooks {
		if err := sb.SetWebhooks("", "", sandbox.Webhooks{Endpoints: sandbox.AllEvents(h.hook), Retention: time.Minute}); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func (h *env) messenger(client *lprest.Client, change ...func(*Config)) *Messenger {
	h.t.Helper()
	rejected := rejections.New(client.Logger())
	h.t.Cleanup(rejected.Close)
	cfg := Config{
		Rejections: rejected,
		Client:     client, Log: h.log, GapWait: 300 * time.Millisecond, KeepFor: time.Hour,
		App: func(account string) (App, bool) {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.app, account == lpfake.Account
		},
	}
	for _, f := range change {
		f(&cfg)
	}
	m, err := New(cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	return m
}

func external(id string) share.Credential {
	return share.Credential{Scheme: share.ExternalConsumerID, Account: lpfake.Account, Secret: id, Caller: "shop"}
}

func (h *env) session(id string) *Session {
	h.t.Helper()
	s, err := h.m.Session(h.t.Context(), external(id))
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

func (h *env) conversation(s *Session) string {
	h.t.Helper()
	c, err := s.CreateConversation(h.t.Context(), share.NewConversation{})
	if err != nil {
		h.t.Fatal(err)
	}
	return c.ID
}

// store puts an object into the sandbox's store, and returns its path.
func (h *env) store(s *Session) string {
	h.t.Helper()
	u, err := s.UploadURL(h.t.Context(), 4, share.PNG)
	if err != nil {
		h.t.Fatal(err)
	}
	req, _ := http.NewRequest(http.MethodPut, h.sb.URL()+u.Path+"?temp_url_sig="+u.Sig+"&temp_url_expires="+u.Expires, strings.NewReader("data"))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if resp.StatusCode != http.StatusCreated {
		h.t.Fatal(resp.Status)
	}
	return u.Path
}

// stopped is the context of a process that was stopped and continues: its deadline has passed, but its timer has not fired.
type stopped struct{ context.Context }

func (stopped) Deadline() (time.Time, bool) { return time.Now().Add(-time.Second), true }
