package lpapi

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lpfileshare/lpfileshare/test/wire"
)

// watched are the exchanges of all sandboxes here, held against the schemas of test/wire.
var watched = wire.NewSuite("lpapi")

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) { os.Exit(watched.Exit(code)) }))
}

const testAccount = "12345678"

// A request is what a fake LivePerson was asked.
type request struct {
	method, target string
	header         http.Header
	body           string
}

// A fakeLP is a LivePerson made of one answer per path, behind a real socket.
type fakeLP struct {
	*httptest.Server
	mu       sync.Mutex
	answers  map[string]http.HandlerFunc // by path
	requests []request
}

// newFakeLP serves plain HTTP, and names itself as the host of every service.
func newFakeLP(t *testing.T) *fakeLP {
	f := &fakeLP{answers: map[string]http.HandlerFunc{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fakeLP) host() string { return f.Listener.Addr().String() }

// on sets the answer of a path behind /api/account/{testAccount}.
func (f *fakeLP) on(path string, answer http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers["/api/account/"+testAccount+path] = answer
}

// says answers with a status and a body.
func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func (f *fakeLP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	f.mu.Lock()
	f.requests = append(f.requests, request{r.Method, r.URL.RequestURI(), r.Header, string(body)})
	answer := f.answers[r.URL.Path]
	f.mu.Unlock()
	service, isLookup := strings.CutSuffix(r.URL.Path, "/baseURI.json")
	switch {
	case answer != nil:
		answer(w, r)
	case isLookup:
		fmt.Fprintf(w, `{"service":%q,"account":%q,"baseURI":%q}`, service[strings.LastIndex(service, "/")+1:], testAccount, f.host())
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// asked returns what was asked so far, look-ups left out, and forgets it.
func (f *fakeLP) asked() []request {
	f.mu.Lock()
	defer f.mu.Unlock()
	var rest []request
	for _, r := range f.requests {
		if !strings.Contains(r.target, "/baseURI.json") {
			rest = append(rest, r)
		}
	}
	f.requests = nil
	return rest
}

// lookups counts the look-ups of a service.
func (f *fakeLP) lookups(service string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.requests {
		if strings.Contains(r.target, "/service/"+service+"/baseURI.json?version=1.0") {
			n++
		}
	}
	return n
}

// A clock is moved by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

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

// newClient makes a client of f, closed at the end of the test.
func newClient(t *testing.T, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func clientOf(t *testing.T, f *fakeLP) *Client {
	t.Helper()
	return newClient(t, Config{DomainAPI: f.URL, PlainHTTP: true})
}

// testJWT is a token as LivePerson's, with a signature that means nothing.
func testJWT(claims map[string]any) string {
	body, _ := json.Marshal(claims)
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"kid":"k","typ":"JWT","alg":"RS256"}`)) + "." + enc(body) + "." + enc([]byte("signature"))
}

// A logBook keeps what was logged.
type logBook struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *logBook) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.String()
}

func (b *logBook) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
