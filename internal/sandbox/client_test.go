package sandbox

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	schemas "github.com/lpfileshare/lpfileshare/test/wire"
)

// patience is how long a test waits for an event that must happen.
const patience = 30 * time.Second

const acct = "12345678"

// frames checks what the sandbox sends in all tests against the schemas of test/wire.
var frames = schemas.NewSuite("sandbox")

func TestMain(m *testing.M) { os.Exit(frames.Exit(m.Run())) }

// start starts a sandbox that ends with the test.
func start(t *testing.T, opts Options) *Sandbox {
	t.Helper()
	tap, also := frames.Watch(t), opts.OnFrame
	opts.OnFrame = func(f Frame) {
		tap.CheckForeign(schemas.Frame(f))
		if also != nil {
			also(f)
		}
	}
	s, err := Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// A dict is a JSON object.
type dict map[string]any

// at returns the value at a path like "body.changes.0.type", or nil.
func (d dict) at(path string) any {
	var v any = map[string]any(d)
	for name := range strings.SplitSeq(path, ".") {
		switch in := v.(type) {
		case map[string]any:
			v = in[name]
		case []any:
			var i int
			if _, err := fmt.Sscan(name, &i); err != nil || i >= len(in) {
				return nil
			}
			v = in[i]
		default:
			return nil
		}
	}
	return v
}

// text returns the string at path, or "".
func (d dict) text(path string) string {
	s, _ := d.at(path).(string)
	return s
}

// want fails the test unless the value at path prints as want.
func (d dict) want(t *testing.T, path string, want any) {
	t.Helper()
	if got := d.at(path); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s = %v, want %v, in %s", path, got, want, d)
	}
}

func (d dict) String() string {
	data, err := json.Marshal(map[string]any(d))
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// ask sends an HTTP request, and returns the answer and its body as JSON.
func ask(t *testing.T, method, url, body string, header ...string) (*http.Response, dict) {
	t.Helper()
	resp, data := fetch(t, method, url, body, header...)
	var d dict
	if err := json.Unmarshal(data, &d); err != nil && len(data) > 0 && data[0] == '{' {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return resp, d
}

// fetch sends an HTTP request. header is a list of names and values.
func fetch(t *testing.T, method, url, body string, header ...string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, data
}

// signUp returns a new consumer's token.
func signUp(t *testing.T, s *Sandbox) string {
	t.Helper()
	resp, d := ask(t, "POST", s.URL()+"/api/account/"+acct+"/signup", "")
	if resp.StatusCode != 200 || d.text("jwt") == "" {
		t.Fatalf("sign-up: %s %s", resp.Status, d)
	}
	return d.text("jwt")
}

// logIn returns the answer to a login with that user name.
func logIn(t *testing.T, s *Sandbox, name string) dict {
	t.Helper()
	resp, d := ask(t, "POST", s.URL()+"/api/account/"+acct+"/login?v=1.3", fmt.Sprintf(`{"username":%q,"password":"sandbox"}`, name))
	if resp.StatusCode != 200 {
		t.Fatalf("login: %s %s", resp.Status, d)
	}
	return d
}

// A wire is the client's end of a socket.
type wire struct {
	t    *testing.T
	conn *websocket.Conn
	next int
	done chan struct{} // closed when the socket has ended

	mu     sync.Mutex
	frames []dict // received and not yet taken
	news   chan struct{}
	err    error // the reason for the end
}

// dial opens a socket and fails the test if that fails.
func dial(t *testing.T, s *Sandbox, path string, header ...string) *wire {
	t.Helper()
	w, resp, err := tryDial(t, s, path, header...)
	if err != nil {
		t.Fatalf("dial %s: %v (%v)", path, err, resp)
	}
	return w
}

func tryDial(t *testing.T, s *Sandbox, path string, header ...string) (*wire, *http.Response, error) {
	t.Helper()
	return dialURL(t, "ws"+strings.TrimPrefix(s.URL(), "http")+path, nil, header...)
}

// dialURL opens a socket at a URL with the scheme ws or wss.
func dialURL(t *testing.T, url string, config *tls.Config, header ...string) (*wire, *http.Response, error) {
	t.Helper()
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	conn, resp, err := (&websocket.Dialer{HandshakeTimeout: patience, TLSClientConfig: config}).DialContext(t.Context(), url, h)
	if err != nil {
		return nil, resp, err
	}
	w := &wire{t: t, conn: conn, done: make(chan struct{}), news: make(chan struct{}, 1)}
	go w.read()
	t.Cleanup(func() {
		_ = conn.Close()
		<-w.done
	})
	return w, resp, nil
}

const consumerPath = "/ws_api/account/" + acct + "/messaging/consumer?v=3"

// consumer opens a consumer's socket.
func consumer(t *testing.T, s *Sandbox, token string, header ...string) *wire {
	t.Helper()
	return dial(t, s, consumerPath, append([]string{"Authorization", "jwt " + token}, header...)...)
}

// agent opens an agent's socket.
func agent(t *testing.T, s *Sandbox, login dict) *wire {
	t.Helper()
	return dial(t, s, "/ws_api/account/"+acct+"/messaging/brand/"+login.text("bearer")+"?v=2.1")
}

func (w *wire) read() {
	defer close(w.done)
	for {
		_, data, err := w.conn.ReadMessage()
		w.mu.Lock()
		if err != nil {
			w.err = err
			w.mu.Unlock()
			return
		}
		var d dict
		if json.Unmarshal(data, &d) != nil {
			d = dict{"garbage": string(data)}
		}
		w.frames = append(w.frames, d)
		w.mu.Unlock()
		select {
		case w.news <- struct{}{}:
		default:
		}
	}
}

// send writes a frame.
func (w *wire) send(text string) {
	w.t.Helper()
	if err := w.conn.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		w.t.Fatal(err)
	}
}

// expect waits for a frame that fits and removes it.
func (w *wire) expect(what string, fits func(dict) bool) dict {
	w.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		if d := w.take(fits); d != nil {
			return d
		}
		select {
		case <-w.news:
		case <-w.done:
			if d := w.take(fits); d != nil {
				return d
			}
			w.t.Fatalf("no %s: the socket has ended: %v", what, w.err)
		case <-deadline.C:
			w.t.Fatalf("no %s within %v; waiting: %v", what, patience, w.frames)
		}
	}
}

func (w *wire) take(fits func(dict) bool) dict {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, d := range w.frames {
		if fits(d) {
			w.frames = slices.Delete(w.frames, i, i+1)
			return d
		}
	}
	return nil
}

// note waits for a notification of that type.
func (w *wire) note(typ string) dict {
	w.t.Helper()
	return w.expect(typ, func(d dict) bool { return d["kind"] == "notification" && d["type"] == typ })
}

// quiet fails the test if a notification of that type has arrived. It makes a request first: frames sent before its answer have
// arrived with the answer.
func (w *wire) quiet(typ string) {
	w.t.Helper()
	w.ok("GetClock", "")
	if d := w.take(func(d dict) bool { return d["type"] == typ }); d != nil {
		w.t.Errorf("unexpected %s", d)
	}
}

// ask sends a request without waiting, and returns its id.
func (w *wire) ask(typ, body string) string {
	w.t.Helper()
	w.next++
	id := fmt.Sprint(w.next)
	if body != "" {
		body = `,"body":` + body
	}
	w.send(fmt.Sprintf(`{"kind":"req","id":%q,"type":%q%s}`, id, typ, body))
	return id
}

// answer waits for the answer to the request of that id.
func (w *wire) answer(id string) dict {
	w.t.Helper()
	return w.expect("answer to "+id, func(d dict) bool { return d["kind"] == "resp" && d["reqId"] == id })
}

// call sends a request and waits for its answer.
func (w *wire) call(typ, body string) dict {
	w.t.Helper()
	return w.answer(w.ask(typ, body))
}

// ok is a call that must succeed.
func (w *wire) ok(typ, body string) dict {
	w.t.Helper()
	d := w.call(typ, body)
	if code, _ := d["code"].(float64); code < 200 || code > 299 {
		w.t.Fatalf("%s %s: %s", typ, body, d)
	}
	return d
}

// refused is a call that must fail with that error code.
func (w *wire) refused(errorCode int, typ, body string) {
	w.t.Helper()
	d := w.call(typ, body)
	d.want(w.t, "code", errorCode/100)
	d.want(w.t, "body.errorCode", errorCode)
	d.want(w.t, "type", ".ReqBody$ErrorResp")
}

// unanswered fails the test if the request of that id has been answered.
func (w *wire) unanswered(id string) {
	w.t.Helper()
	w.ok("GetClock", "")
	if d := w.take(func(d dict) bool { return d["reqId"] == id }); d != nil {
		w.t.Errorf("answered: %s", d)
	}
}

// closed waits for the end of the socket and returns its close code, or 0 after a reset.
func (w *wire) closed() int {
	w.t.Helper()
	select {
	case <-w.done:
	case <-time.After(patience):
		w.t.Fatal("the socket is still open")
	}
	var ce *websocket.CloseError
	if errors.As(w.err, &ce) && ce.Code != websocket.CloseAbnormalClosure {
		return ce.Code
	}
	return 0
}

// conversation creates a conversation and returns its id.
func (w *wire) conversation() string {
	w.t.Helper()
	return w.ok("cm.ConsumerRequestConversation", "").text("body.conversationId")
}

// upload requests an upload URL, uploads data, and returns the path.
func (w *wire) upload(s *Sandbox, fileType string, data []byte) string {
	w.t.Helper()
	d := w.ok("ms.GenerateURLForUploadFile", fmt.Sprintf(`{"fileSize":"%d","fileType":%q}`, len(data), fileType))
	resp, body := fetch(w.t, "PUT", fileURL(s, d), string(data))
	if resp.StatusCode != http.StatusCreated {
		w.t.Fatalf("PUT: %s %s", resp.Status, body)
	}
	return d.text("body.relativePath")
}

// fileURL returns the URL in the answer to a request for a signed URL.
func fileURL(s *Sandbox, d dict) string {
	return s.URL() + d.text("body.relativePath") + "?temp_url_sig=" + d.text("body.queryParams.temp_url_sig") +
		"&temp_url_expires=" + d.text("body.queryParams.temp_url_expires")
}

// publishText publishes a message and returns its sequence.
func (w *wire) publishText(dialog, text string) int {
	w.t.Helper()
	d := w.ok("ms.PublishEvent", textEvent(dialog, text))
	return int(d.at("body.sequence").(float64))
}

func textEvent(dialog, text string) string {
	return fmt.Sprintf(`{"dialogId":%q,"event":{"type":"ContentEvent","contentType":"text/plain","message":%q}}`, dialog, text)
}

func fileEvent(dialog, path, fileType string) string {
	return fmt.Sprintf(`{"dialogId":%q,"event":{"type":"ContentEvent","contentType":"hosted/file","message":{"caption":"c","relativePath":%q,"fileType":%q}}}`,
		dialog, path, fileType)
}

// eventually waits until ok returns true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	timeout := time.After(patience)
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for !ok() {
		select {
		case <-poll.C:
		case <-timeout:
			t.Fatalf("did not happen: %s", what)
		}
	}
}

// clock is a clock that a test sets.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Now()} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

var jpeg = append([]byte{0xff, 0xd8, 0xff, 0xe0}, bytes.Repeat([]byte("picture "), 1000)...)
