package connector

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lprest"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/test/lpfake"
)

// hookSecret and the sums in TestWebhook_Signature are a test vector of LivePerson's signatures.
const hookSecret = "example-secret"

func signed(secret string, body []byte) string {
	mac := hmac.New(sha1.New, []byte(secret))
	mac.Write(body)
	return "sha1=" + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// newWebhookEnv returns an env without a sandbox, whose webhooks the test calls. The consumer "lp-anna" takes part in the conversation "c".
func newWebhookEnv(t *testing.T, change ...func(*Config)) *env {
	h := &env{t: t, log: newEventLog(t), app: App{ID: "app", Secret: hookSecret, Webhooks: true}}
	h.m = h.messenger(newClient(t, lprest.Config{}), change...)
	s := httptest.NewServer(h.m.Webhook())
	t.Cleanup(s.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	h.hook = s.URL + "/webhooks"
	h.deliver(conversationUpdate("c", "OPEN", 1000))
	return h
}

// anna returns a session without a LivePerson.
func (h *env) anna() *Session {
	return &Session{m: h.m, account: lpfake.Account, app: h.app, principal: share.Principal{Account: lpfake.Account, ID: "lp-anna", Role: share.RoleConsumer}}
}

func post(t *testing.T, url string, body []byte, header map[string]string) int {
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return 0
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// deliver sends a notification as LivePerson does.
func (h *env) deliver(n any) {
	h.t.Helper()
	body, _ := json.Marshal(n)
	got := post(h.t, h.hook, body, map[string]string{
		"x-liveperson-account-id": lpfake.Account, "x-liveperson-client-id": "app", "x-liveperson-signature": signed(h.app.Secret, body),
	})
	if got != http.StatusOK {
		h.t.Errorf("a delivery was answered with %d", got)
	}
}

type object = map[string]any

func millis() int64 { return time.Now().UnixMilli() }

func conversationUpdate(id, state string, updated int64, dialogs ...string) object {
	ds := []any{}
	for _, d := range append([]string{id}, dialogs...) {
		ds = append(ds, object{"dialogId": d, "dialogType": "MAIN", "state": state})
	}
	return object{"kind": "notification", "type": "cqm.ExConversationChangeNotification", "body": object{"changes": []any{object{"type": "UPSERT", "result": object{
		"convId": id, "conversationDetails": object{
			"state": state, "brandId": lpfake.Account, "startTs": millis(), "metaDataLastUpdateTs": millis() - 10_000 + updated, "dialogs": ds,
			"participants": []any{object{"id": "lp-anna", "role": "CONSUMER"}, object{"id": "agent", "role": "ASSIGNED_AGENT"}},
		}}}}}}
}

func path(seq int) string { return fmt.Sprintf("/v1/AUTH_x/%s/%d.PNG", lpfake.Account, seq) }

func dialogEvent(dialog string, seq int, event object) object {
	return object{"kind": "notification", "type": "ms.MessagingEventNotification", "body": object{"changes": []any{object{
		"sequence": seq, "originatorId": "agent", "originatorMetadata": object{"id": "agent", "role": "ASSIGNED_AGENT"}, "serverTimestamp": millis(),
		"event": event, "conversationId": "c", "dialogId": dialog,
	}}}}
}

func fileEvent(seq int) object {
	return dialogEvent("c", seq, object{"type": "ContentEvent", "contentType": "hosted/file", "message": object{
		"caption": "", "relativePath": path(seq), "fileType": "PNG", "preview": "data:image/png;base64,AAAA",
	}})
}

func textEvent(seq int) object {
	return dialogEvent("c", seq, object{"type": "ContentEvent", "contentType": "text/plain", "message": "hi"})
}

func (h *env) lastPosition() (last uint64) {
	h.t.Helper()
	_, last, err := h.log.Bounds(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return last
}

func TestWebhook_Signature(t *testing.T) {
	h := newWebhookEnv(t)
	for _, sig := range []string{"sha1=TCzexuF9aNZl2WNZEW4Kk8so3HY=", "sha256=5s6sdS2g/mmI+lD3EYf0MfxQmD1lvlr5rzZgajo9skg="} {
		for _, url := range []string{h.hook, h.hook + "/" + lpfake.Account} {
			header := map[string]string{"x-liveperson-signature": sig, "x-liveperson-account-id": lpfake.Account}
			if got := post(t, url, []byte(`{"kind":"notification"}`), header); got != http.StatusOK {
				t.Errorf("%s: %d", sig, got)
			}
		}
	}
}

func TestWebhook_Rejected(t *testing.T) {
	h := newWebhookEnv(t)
	h.deliver(textEvent(0))
	before := h.lastPosition()
	body, _ := json.Marshal(fileEvent(1))
	good := signed(hookSecret, body)
	hexed := fmt.Sprintf("sha1=%x", hmac.New(sha1.New, []byte(hookSecret)).Sum(nil))
	mac := hmac.New(sha256.New, []byte(hookSecret))
	mac.Write(body)
	long := mac.Sum(nil)
	for name, x := range map[string]struct {
		url    string
		body   []byte
		header map[string]string
		want   int
	}{
		"no signature":                      {"", body, nil, 401},
		"an empty one":                      {"", body, map[string]string{"x-liveperson-signature": ""}, 401},
		"another secret's":                  {"", body, map[string]string{"x-liveperson-signature": signed("other", body)}, 401},
		"an empty secret's":                 {"", body, map[string]string{"x-liveperson-signature": signed("", body)}, 401},
		"of another body":                   {"", body, map[string]string{"x-liveperson-signature": signed(hookSecret, append(body, ' '))}, 401},
		"of half a body":                    {"", body[:len(body)/2], map[string]string{"x-liveperson-signature": good}, 401},
		"in hex":                            {"", body, map[string]string{"x-liveperson-signature": hexed}, 401},
		"cut short":                         {"", body, map[string]string{"x-liveperson-signature": "sha1=" + good[5:len(good)-4]}, 401},
		"no sum":                            {"", body, map[string]string{"x-liveperson-signature": "sha1="}, 401},
		"the wrong name":                    {"", body, map[string]string{"x-liveperson-signature": "sha256=" + good[5:]}, 401},
		"a sum of its own name":             {"", body, map[string]string{"x-liveperson-signature": "sha1=" + base64.StdEncoding.EncodeToString(long)}, 401},
		"an unknown name":                   {"", body, map[string]string{"x-liveperson-signature": "md5=" + good[5:]}, 401},
		"an unknown account":                {"", body, map[string]string{"x-liveperson-signature": good, "x-liveperson-account-id": "99"}, 401},
		"no account":                        {"", body, map[string]string{"x-liveperson-signature": good, "x-liveperson-account-id": ""}, 401},
		"another account's path":            {"/99", body, map[string]string{"x-liveperson-signature": good}, 401},
		"another install":                   {"", body, map[string]string{"x-liveperson-signature": good, "x-liveperson-client-id": "other"}, 401},
		"no JSON":                           {"", []byte("x"), map[string]string{"x-liveperson-signature": signed(hookSecret, []byte("x"))}, 400},
		"another path":                      {"/" + lpfake.Account + "/x", body, map[string]string{"x-liveperson-signature": good}, 404},
		"too long":                          {"", make([]byte, maxDelivery+1), map[string]string{"x-liveperson-signature": signed(hookSecret, make([]byte, maxDelivery+1))}, 413},
		"an event that the log has dropped": {"", nil, nil, 200},
		"an event without sequence":         {"", nil, map[string]string{"kind": "typing"}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			if x.body == nil { // signed correctly, but nothing to keep
				old := fileEvent(2)
				old["body"].(object)["changes"].([]any)[0].(object)["serverTimestamp"] = time.Now().Add(-2 * time.Hour).UnixMilli()
				if x.header != nil {
					change := old["body"].(object)["changes"].([]any)[0].(object)
					delete(change, "sequence")
					delete(change, "serverTimestamp")
				}
				x.body, _ = json.Marshal(old)
				x.header = map[string]string{"x-liveperson-signature": signed(hookSecret, x.body)}
			}
			header := map[string]string{"x-liveperson-account-id": lpfake.Account}
			for k, v := range x.header {
				header[k] = v
			}
			if got := post(t, h.hook+x.url, x.body, header); got != x.want {
				t.Errorf("answered with %d, want %d", got, x.want)
			}
			if now := h.lastPosition(); now != before {
				t.Errorf("the log's last position went from %d to %d", before, now)
			}
		})
	}
	if got := post(t, h.hook, body, map[string]string{"x-liveperson-account-id": lpfake.Account, "x-liveperson-signature": good}); got != 200 || h.lastPosition() != before+1 {
		t.Errorf("the signed one: %d", got)
	}
	// A replay, as it was.
	for range 3 {
		if got := post(t, h.hook, body, map[string]string{"x-liveperson-account-id": lpfake.Account, "x-liveperson-signature": good}); got != 200 || h.lastPosition() != before+1 {
			t.Errorf("a replay: %d, position %d after %d", got, h.lastPosition(), before+1)
		}
	}
	if n := h.m.Counts(); n.Repeated != 4 || n.Kept != 2 || n.Rejected < 15 {
		t.Errorf("counted %+v", n)
	}
	h.mu.Lock()
	h.app.Webhooks = false
	h.mu.Unlock()
	if got := post(t, h.hook, body, map[string]string{"x-liveperson-account-id": lpfake.Account, "x-liveperson-signature": good}); got != 401 {
		t.Errorf("an account without webhooks: %d", got)
	}
}

// A blockedBody reports the first Read, and blocks until release is closed.
type blockedBody struct {
	reading chan<- struct{}
	release <-chan struct{}
}

func (b blockedBody) Read([]byte) (int, error) {
	b.reading <- struct{}{}
	<-b.release
	return 0, io.ErrUnexpectedEOF
}

// slowDeliveries begins n deliveries with a wrong signature from the address of deliver. It returns when size bytes of each body have
// arrived; end ends them.
func (h *env) slowDeliveries(n, size int) (end func()) {
	handler := h.m.Webhook()
	reading, release, ended := make(chan struct{}), make(chan struct{}), make(chan struct{}, n)
	var slow sync.WaitGroup
	for range n {
		body := io.MultiReader(strings.NewReader(strings.Repeat("x", size)), blockedBody{reading, release})
		r := httptest.NewRequest(http.MethodPost, "/webhooks/"+lpfake.Account, body)
		r.RemoteAddr = "127.0.0.1:1"
		r.Header.Set("X-Liveperson-Signature", signed("another secret", nil))
		slow.Go(func() {
			handler.ServeHTTP(httptest.NewRecorder(), r)
			ended <- struct{}{}
		})
		select {
		case <-reading:
		case <-ended:
			h.t.Error("a delivery was rejected before its body was read")
		}
	}
	return func() {
		close(release)
		slow.Wait()
	}
}

// Deliveries that are not verified do not keep LivePerson's own out, however many there are.
func TestWebhook_UnverifiedDeliveries(t *testing.T) {
	h := newWebhookEnv(t)
	end := h.slowDeliveries(maxKeeping+44, 0)
	h.deliver(fileEvent(1))
	end()
}

func TestWebhook_Limits(t *testing.T) {
	h := newWebhookEnv(t)
	body, _ := json.Marshal(fileEvent(1))
	deliver := func(want int) {
		t.Helper()
		header := map[string]string{"x-liveperson-account-id": lpfake.Account, "x-liveperson-signature": signed(hookSecret, body)}
		if got := post(t, h.hook, body, header); got != want {
			t.Errorf("answered with %d, want %d", got, want)
		}
	}
	for range maxKeeping {
		h.m.keeping <- struct{}{}
	}
	deliver(http.StatusServiceUnavailable)
	<-h.m.keeping
	deliver(http.StatusOK)
	if held, peers := h.m.bodies.held, len(h.m.bodies.peers); held != 0 || peers != 0 {
		t.Errorf("%d bytes of %d peers are still counted", held, peers)
	}
	if n := h.m.Counts(); n.Failed != 1 || n.Rejected != 0 {
		t.Errorf("counted %+v", n)
	}
	if n := h.m.cfg.Rejections.Counts(); n[limitDeliveries] != 1 {
		t.Errorf("counted %v", n)
	}
}

// pipeListener accepts one connection.
type pipeListener chan net.Conn

func (l pipeListener) Accept() (net.Conn, error) {
	conn, ok := <-l
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}

func (l pipeListener) Close() error   { return nil }
func (l pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

func TestWebhook_SlowBody(t *testing.T) {
	client := newClient(t, lprest.Config{})
	synctest.Test(t, func(t *testing.T) {
		h := &env{t: t, app: App{ID: "app", Secret: hookSecret, Webhooks: true}}
		h.m = h.messenger(client, func(c *Config) { c.Log = struct{ EventLog }{} })
		listener := make(pipeListener, 1)
		server := &http.Server{Handler: h.m.Webhook()}
		var serving sync.WaitGroup
		serving.Go(func() { _ = server.Serve(listener) })
		conn, theirs := net.Pipe()
		listener <- theirs
		begun := time.Now()
		fmt.Fprintf(conn, "POST /webhooks HTTP/1.1\r\nHost: h\r\nX-Liveperson-Account-Id: %s\r\nX-Liveperson-Signature: %s\r\nContent-Length: 1000\r\n\r\n{",
			lpfake.Account, signed("other", nil))
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("a delivery with one byte of its body: %v", err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestEntityTooLarge || time.Since(begun) != deliveryTimeout {
			t.Errorf("answered with %s after %s", resp.Status, time.Since(begun))
		}
		conn.Close()
		close(listener)
		server.Close()
		serving.Wait()
	})
}

func TestWebhook_LogUnavailable(t *testing.T) {
	h := newWebhookEnv(t)
	h.log.Close() // nothing can be added any more
	body, _ := json.Marshal(fileEvent(1))
	got := post(t, h.hook, body, map[string]string{"x-liveperson-account-id": lpfake.Account, "x-liveperson-signature": signed(hookSecret, body)})
	if got != http.StatusServiceUnavailable {
		t.Errorf("answered with %d", got)
	}
}

func TestWebhook_ConversationUpdates(t *testing.T) {
	h := newWebhookEnv(t)
	s := h.anna()
	h.deliver(conversationUpdate("c", "CLOSE", 3000, "survey"))
	h.deliver(conversationUpdate("c", "OPEN", 2000))
	c, err := s.Conversation(t.Context(), "c")
	if err != nil || c.Open || len(c.Dialogs) != 2 || len(c.Participants) != 2 {
		t.Errorf("%+v %v", c, err)
	}
	undated := conversationUpdate("c", "OPEN", 0)
	details := undated["body"].(object)["changes"].([]any)[0].(object)["result"].(object)["conversationDetails"].(object)
	delete(details, "metaDataLastUpdateTs")
	h.deliver(undated)
	foreign := conversationUpdate("d", "OPEN", 1)
	foreign["body"].(object)["changes"].([]any)[0].(object)["result"].(object)["conversationDetails"].(object)["brandId"] = "99"
	h.deliver(foreign)
	if c, _ := s.Conversation(t.Context(), "c"); c.Open {
		t.Error("an update without a time reopened a closed conversation")
	}
	if _, err := s.Conversation(t.Context(), "d"); !share.Is(err, share.ConversationNotFound) {
		t.Errorf("another brand's: %v", err)
	}
}

func TestApp_String(t *testing.T) {
	app := App{ID: "app", Secret: "s3cr3t"}
	for _, s := range []string{fmt.Sprint(app), fmt.Sprintf("%+v", app), fmt.Sprintf("%#v", app), app.LogValue().String()} {
		if strings.Contains(s, "s3cr3t") {
			t.Errorf("it prints %s", s)
		}
	}
}
