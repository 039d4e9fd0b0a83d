package lpws

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/test/wire"
)

// checked validates the frames of all tests against the schemas of test/wire.
var checked = wire.NewSuite("lpws")

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) { os.Exit(checked.Exit(code)) }))
}

// patience is how long a test waits for an event that must happen.
const patience = time.Minute

const account = "12345678"

// harness is a sandbox and a pool that uses it, with the frames of the one and the log of the other.
type harness struct {
	t    *testing.T
	sb   *sandbox.Sandbox
	pool *Pool
	logs *logBuffer

	mu     sync.Mutex
	frames []sandbox.Frame
}

// newHarness starts both; they end with the test. The pool reopens sooner than by default, and
// waits longer for answers and events, which a busy machine needs.
func newHarness(t *testing.T, opts sandbox.Options, changes ...func(*Config)) *harness {
	t.Helper()
	h := &harness{t: t, logs: &logBuffer{}}
	tap := checked.Watch(t)
	opts.OnFrame = func(f sandbox.Frame) {
		tap.Check(wire.Frame(f))
		h.mu.Lock()
		defer h.mu.Unlock()
		h.frames = append(h.frames, f)
	}
	sb, err := sandbox.Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sb.Close() })
	h.sb = sb
	h.pool = h.newPool(changes...)
	return h
}

func (h *harness) newPool(changes ...func(*Config)) *Pool {
	cfg := Config{
		SocketURL: func(context.Context, string, share.Scheme) (string, error) {
			return "ws" + strings.TrimPrefix(h.sb.URL(), "http"), nil
		},
		Logger:     slog.New(slog.NewTextHandler(h.logs, &slog.HandlerOptions{Level: slog.LevelDebug - 8})),
		BackoffMin: 20 * time.Millisecond, BackoffMax: 100 * time.Millisecond,
		Grace: 5 * time.Second, CallTimeout: patience, OpenTimeout: patience,
	}
	for _, change := range changes {
		change(&cfg)
	}
	p := New(cfg)
	h.t.Cleanup(p.Close)
	return p
}

// logBuffer collects log lines.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// ctxOf returns a context that ends with the test, or after a long time.
func ctxOf(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	t.Cleanup(cancel)
	return ctx
}

// post sends JSON to the sandbox and decodes the JSON answer.
func (h *harness) post(path, body string) map[string]any {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, h.sb.URL()+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		h.t.Fatalf("POST %s: %s %s %v", path, resp.Status, data, err)
	}
	var d map[string]any
	if err := json.Unmarshal(data, &d); err != nil {
		h.t.Fatal(err)
	}
	return d
}

// consumer signs up a new consumer.
func (h *harness) consumer() share.Credential {
	h.t.Helper()
	token, _ := h.post("/api/account/"+account+"/signup", "")["jwt"].(string)
	return share.Credential{Scheme: share.ConsumerToken, Account: account, Secret: token}
}

// agent logs in an agent.
func (h *harness) agent(name string) share.Credential {
	h.t.Helper()
	d := h.post("/api/account/"+account+"/login?v=1.3", fmt.Sprintf(`{"username":%q,"password":"sandbox"}`, name))
	config, _ := d["config"].(map[string]any)
	g := share.AgentGrant{Account: account}
	g.Bearer, _ = d["bearer"].(string)
	g.UserID, _ = config["userId"].(string)
	g.UserPID, _ = config["userPid"].(string)
	return share.Credential{Scheme: share.AgentToken, Account: account, Secret: g.Token()}
}

// session opens a session and releases it at the end of the test.
func (h *harness) session(cred share.Credential) *Session {
	h.t.Helper()
	s, err := h.pool.Session(ctxOf(h.t), cred)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(s.Release)
	return s
}

// begin opens a conversation.
func (h *harness) begin(s *Session) share.Conversation {
	h.t.Helper()
	c, err := s.CreateConversation(ctxOf(h.t), share.NewConversation{})
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// store uploads a small file and returns its storage path.
func (h *harness) store(s *Session) string {
	h.t.Helper()
	u, err := s.UploadURL(ctxOf(h.t), 5, share.PNG)
	if err != nil {
		h.t.Fatal(err)
	}
	url := h.sb.URL() + u.Path + "?temp_url_sig=" + u.Sig + "&temp_url_expires=" + u.Expires
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodPut, url, strings.NewReader("bytes"))
	if err != nil {
		h.t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		h.t.Fatalf("PUT: %s", resp.Status)
	}
	return u.Path
}

func hosted(path, caption string) share.HostedFile {
	return share.HostedFile{StoragePath: path, FileType: "PNG", Caption: caption}
}

// send uploads and publishes a file, and returns its storage path and sequence.
func (h *harness) send(s *Session, conversation, caption string) (string, int64) {
	h.t.Helper()
	path := h.store(s)
	seq, err := s.PublishFile(ctxOf(h.t), conversation, "", hosted(path, caption))
	if err != nil {
		h.t.Fatal(err)
	}
	return path, seq
}

// sendText publishes a message without a file.
func (h *harness) sendText(s *Session, conversation, words string) {
	h.t.Helper()
	event := map[string]string{"type": "ContentEvent", "contentType": "text/plain", "message": words}
	if _, err := s.publish(ctxOf(h.t), lpwire.StepReceipt, conversation, "", event); err != nil {
		h.t.Fatal(err)
	}
}

// join adds an agent to a conversation.
func (h *harness) join(s *Session, conversation, role string) {
	h.participate(s, conversation, "ADD", role)
}

func (h *harness) participate(s *Session, conversation, change, role string) {
	h.t.Helper()
	body := map[string]any{"conversationId": conversation, "conversationField": []map[string]string{
		{"field": "ParticipantsChange", "type": change, "role": role, "userId": s.s.dialect.(agent).oldID()},
	}}
	if _, err := s.s.call(ctxOf(h.t), lpwire.StepClose, request{Type: reqUpdate, Body: body}); err != nil {
		h.t.Fatal(err)
	}
}

// sent returns the number of requests of a type that the sandbox has received.
func (h *harness) sent(typ string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, f := range h.frames {
		var r request
		if f.FromClient && json.Unmarshal(f.Data, &r) == nil && strings.HasSuffix(r.Type, typ) {
			n++
		}
	}
	return n
}

// want fails the test unless err is of kind. It may be called by any goroutine.
func want(t *testing.T, err error, kind share.Kind) *share.Error {
	t.Helper()
	e, ok := errors.AsType[*share.Error](err)
	if !ok || e.Kind != kind {
		t.Errorf("error is %v, want %s", err, kind)
		return &share.Error{}
	}
	return e
}

// eventually polls until a condition holds. It is for conditions of the sandbox, which reports no events for them.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !so(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("timed out waiting until %s", what)
		}
	}
}

// next returns the next file of a watch.
func next(t *testing.T, w *Watch) share.FileEvent {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	e, err := w.Next(ctx)
	if err != nil {
		t.Fatalf("Next: %v", err)
	}
	return e
}

// nothing fails the test if a watch delivers a file within a short time.
func nothing(t *testing.T, w *Watch) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if e, err := w.Next(ctx); err == nil {
		t.Fatalf("unexpected %+v", e)
	}
}

// listFiles lists the files of a conversation ("": of all), complete and in one list.
func listFiles(s *Session, ctx context.Context, conversation string) ([]share.FileEvent, share.Cursor, error) {
	list, err := s.ListFiles(ctx, conversation, nil)
	if err != nil {
		return nil, nil, err
	}
	var files []share.FileEvent
	for _, d := range list.Dialogs {
		files = append(files, d.Files...)
	}
	_, err = s.Complete(ctx, files)
	return files, list.Cursor, err
}
