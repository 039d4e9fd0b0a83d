package lpapi

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// hookSecret and its sums are a vector of LivePerson's way to sign.
const hookSecret = "example-secret"

func signed(secret string, body []byte) string {
	mac := hmac.New(sha1.New, []byte(secret))
	mac.Write(body)
	return "sha1=" + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// A hooked is a Connector that is told by webhook, with a conversation "c" of the consumer "lp-anna" in its log.
type hooked struct {
	*connectorHouse
	url string
}

func newHooked(t *testing.T, change ...func(*ConnectorConfig)) *hooked {
	h := &hooked{connectorHouse: &connectorHouse{t: t, log: newEventLog(t), app: ConnectorApp{ID: "app", Secret: hookSecret, Webhooks: true}}}
	h.c = h.connector(newClient(t, Config{}), change...)
	s := httptest.NewServer(h.c.Webhook())
	t.Cleanup(s.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	h.url = s.URL + "/webhooks"
	h.tell(conversationNews("c", "OPEN", 1000))
	return h
}

// anna is a session without a LivePerson behind it.
func (h *hooked) anna() *ConnectorSession {
	return &ConnectorSession{c: h.c, account: testAccount, app: h.app, who: share.Principal{Account: testAccount, ID: "lp-anna", Role: share.RoleConsumer}}
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

// tell delivers a notification as LivePerson does.
func (h *hooked) tell(n any) {
	h.t.Helper()
	body, _ := json.Marshal(n)
	got := post(h.t, h.url, body, map[string]string{
		"x-liveperson-account-id": testAccount, "x-liveperson-client-id": "app", "x-liveperson-signature": signed(h.app.Secret, body),
	})
	if got != http.StatusOK {
		h.t.Errorf("a delivery was answered with %d", got)
	}
}

type object = map[string]any

func millis() int64 { return time.Now().UnixMilli() }

func conversationNews(id, state string, updated int64, dialogs ...string) object {
	ds := []any{}
	for _, d := range append([]string{id}, dialogs...) {
		ds = append(ds, object{"dialogId": d, "dialogType": "MAIN", "state": state})
	}
	return object{"kind": "notification", "type": "cqm.ExConversationChangeNotification", "body": object{"changes": []any{object{"type": "UPSERT", "result": object{
		"convId": id, "conversationDetails": object{
			"state": state, "brandId": testAccount, "startTs": millis(), "metaDataLastUpdateTs": millis() - 10_000 + updated, "dialogs": ds,
			"participants": []any{object{"id": "lp-anna", "role": "CONSUMER"}, object{"id": "agent", "role": "ASSIGNED_AGENT"}},
		}}}}}}
}

func path(seq int) string { return fmt.Sprintf("/v1/AUTH_x/%s/%d.PNG", testAccount, seq) }

func eventNews(dialog string, seq int, event object) object {
	return object{"kind": "notification", "type": "ms.MessagingEventNotification", "body": object{"changes": []any{object{
		"sequence": seq, "originatorId": "agent", "originatorMetadata": object{"id": "agent", "role": "ASSIGNED_AGENT"}, "serverTimestamp": millis(),
		"event": event, "conversationId": "c", "dialogId": dialog,
	}}}}
}

func fileNews(seq int) object {
	return eventNews("c", seq, object{"type": "ContentEvent", "contentType": "hosted/file", "message": object{
		"caption": "", "relativePath": path(seq), "fileType": "PNG", "preview": "data:image/png;base64,AAAA",
	}})
}

func textNews(seq int) object {
	return eventNews("c", seq, object{"type": "ContentEvent", "contentType": "text/plain", "message": "hi"})
}

func (h *hooked) places() (last uint64) {
	h.t.Helper()
	_, last, err := h.log.Bounds(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return last
}

func TestASignatureIsWhatLivePersonMakesIt(t *testing.T) {
	h := newHooked(t)
	for _, sig := range []string{"sha1=TCzexuF9aNZl2WNZEW4Kk8so3HY=", "sha256=5s6sdS2g/mmI+lD3EYf0MfxQmD1lvlr5rzZgajo9skg="} {
		for _, url := range []string{h.url, h.url + "/" + testAccount} {
			header := map[string]string{"x-liveperson-signature": sig, "x-liveperson-account-id": testAccount}
			if got := post(t, url, []byte(`{"kind":"notification"}`), header); got != http.StatusOK {
				t.Errorf("%s: %d", sig, got)
			}
		}
	}
}

func TestWhatIsNotLivePersonsChangesNothing(t *testing.T) {
	h := newHooked(t)
	h.tell(textNews(0))
	before := h.places()
	body, _ := json.Marshal(fileNews(1))
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
		"no signature":               {"", body, nil, 401},
		"an empty one":               {"", body, map[string]string{"x-liveperson-signature": ""}, 401},
		"another secret's":           {"", body, map[string]string{"x-liveperson-signature": signed("other", body)}, 401},
		"an empty secret's":          {"", body, map[string]string{"x-liveperson-signature": signed("", body)}, 401},
		"of another body":            {"", body, map[string]string{"x-liveperson-signature": signed(hookSecret, append(body, ' '))}, 401},
		"of half a body":             {"", body[:len(body)/2], map[string]string{"x-liveperson-signature": good}, 401},
		"in hex":                     {"", body, map[string]string{"x-liveperson-signature": hexed}, 401},
		"cut short":                  {"", body, map[string]string{"x-liveperson-signature": "sha1=" + good[5:len(good)-4]}, 401},
		"no sum":                     {"", body, map[string]string{"x-liveperson-signature": "sha1="}, 401},
		"the wrong name":             {"", body, map[string]string{"x-liveperson-signature": "sha256=" + good[5:]}, 401},
		"a sum of its own name":      {"", body, map[string]string{"x-liveperson-signature": "sha1=" + base64.StdEncoding.EncodeToString(long)}, 401},
		"an unknown name":            {"", body, map[string]string{"x-liveperson-signature": "md5=" + good[5:]}, 401},
		"an unknown account":         {"", body, map[string]string{"x-liveperson-signature": good, "x-liveperson-account-id": "99"}, 401},
		"no account":                 {"", body, map[string]string{"x-liveperson-signature": good, "x-liveperson-account-id": ""}, 401},
		"another account's path":     {"/99", body, map[string]string{"x-liveperson-signature": good}, 401},
		"another install":            {"", body, map[string]string{"x-liveperson-signature": good, "x-liveperson-client-id": "other"}, 401},
		"no JSON":                    {"", []byte("x"), map[string]string{"x-liveperson-signature": signed(hookSecret, []byte("x"))}, 400},
		"another path":               {"/" + testAccount + "/x", body, map[string]string{"x-liveperson-signature": good}, 404},
		"too long":                   {"", make([]byte, maxDelivery+1), map[string]string{"x-liveperson-signature": signed(hookSecret, make([]byte, maxDelivery+1))}, 413},
		"an event that is forgotten": {"", nil, nil, 200},
		"what has no place":          {"", nil, map[string]string{"kind": "typing"}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			if x.body == nil { // signed well, and nothing to keep
				old := fileNews(2)
				old["body"].(object)["changes"].([]any)[0].(object)["serverTimestamp"] = time.Now().Add(-2 * time.Hour).UnixMilli()
				if x.header != nil {
					change := old["body"].(object)["changes"].([]any)[0].(object)
					delete(change, "sequence")
					delete(change, "serverTimestamp")
				}
				x.body, _ = json.Marshal(old)
				x.header = map[string]string{"x-liveperson-signature": signed(hookSecret, x.body)}
			}
			header := map[string]string{"x-liveperson-account-id": testAccount}
			for k, v := range x.header {
				header[k] = v
			}
			if got := post(t, h.url+x.url, x.body, header); got != x.want {
				t.Errorf("answered with %d, want %d", got, x.want)
			}
			if now := h.places(); now != before {
				t.Errorf("the log went from place %d to %d", before, now)
			}
		})
	}
	if got := post(t, h.url, body, map[string]string{"x-liveperson-account-id": testAccount, "x-liveperson-signature": good}); got != 200 || h.places() != before+1 {
		t.Errorf("the true one: %d", got)
	}
	// A replay, as it was.
	for range 3 {
		if got := post(t, h.url, body, map[string]string{"x-liveperson-account-id": testAccount, "x-liveperson-signature": good}); got != 200 || h.places() != before+1 {
			t.Errorf("a replay: %d, at place %d after %d", got, h.places(), before+1)
		}
	}
	if n := h.c.Counts(); n.Repeated != 4 || n.Kept != 2 || n.Refused < 15 {
		t.Errorf("counted %+v", n)
	}
	h.mu.Lock()
	h.app.Webhooks = false
	h.mu.Unlock()
	if got := post(t, h.url, body, map[string]string{"x-liveperson-account-id": testAccount, "x-liveperson-signature": good}); got != 401 {
		t.Errorf("an account without webhooks: %d", got)
	}
}

// Before its body is here nobody knows whose a delivery is: who sends one slowly must not hold the place of LivePerson's for long.
func TestADeliveryThatDoesNotComeIsLetGo(t *testing.T) {
	t.Parallel()
	h := newHooked(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(strings.TrimSuffix(h.url, "/webhooks"), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(deliveryTimeout + 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST /webhooks HTTP/1.1\r\nHost: h\r\nX-Liveperson-Account-Id: %s\r\nX-Liveperson-Signature: %s\r\nContent-Length: 1000\r\n\r\n{",
		testAccount, signed("other", nil))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("a delivery of which one byte came: %v", err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("answered with %s", resp.Status)
	}
}

func TestADeliveryIsAnsweredOnlyOnceItIsKept(t *testing.T) {
	h := newHooked(t)
	h.log.Close() // nothing can be kept any more
	body, _ := json.Marshal(fileNews(1))
	got := post(t, h.url, body, map[string]string{"x-liveperson-account-id": testAccount, "x-liveperson-signature": signed(hookSecret, body)})
	if got != http.StatusServiceUnavailable {
		t.Errorf("answered with %d", got)
	}
}

func TestNewsOfAConversationMayComeInAnyOrder(t *testing.T) {
	h := newHooked(t)
	s := h.anna()
	h.tell(conversationNews("c", "CLOSE", 3000, "survey"))
	h.tell(conversationNews("c", "OPEN", 2000))
	c, err := s.Conversation(t.Context(), "c")
	if err != nil || c.Open || len(c.Dialogs) != 2 || len(c.Participants) != 2 {
		t.Errorf("%+v %v", c, err)
	}
	undated := conversationNews("c", "OPEN", 0)
	details := undated["body"].(object)["changes"].([]any)[0].(object)["result"].(object)["conversationDetails"].(object)
	delete(details, "metaDataLastUpdateTs")
	h.tell(undated)
	foreign := conversationNews("d", "OPEN", 1)
	foreign["body"].(object)["changes"].([]any)[0].(object)["result"].(object)["conversationDetails"].(object)["brandId"] = "99"
	h.tell(foreign)
	if c, _ := s.Conversation(t.Context(), "c"); c.Open {
		t.Error("news without a date has opened a closed conversation")
	}
	if _, err := s.Conversation(t.Context(), "d"); !share.Is(err, share.ConversationNotFound) {
		t.Errorf("another brand's: %v", err)
	}
}

// next waits for a file, and says which it was; -1: none came in time.
func nextSeq(t *testing.T, w *ConnectorWatch, within time.Duration) (int, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	e, err := w.Next(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return -1, nil
	}
	return int(e.Sequence), err
}

func wantFiles(t *testing.T, w *ConnectorWatch, want ...int) {
	t.Helper()
	for _, seq := range want {
		if got, err := nextSeq(t, w, 5*time.Second); err != nil || got != seq {
			t.Fatalf("file %d came (%v), want %d of %v", got, err, seq, want)
		}
	}
	if got, err := nextSeq(t, w, 50*time.Millisecond); err != nil || got != -1 {
		t.Fatalf("file %d came (%v) behind %v", got, err, want)
	}
}

func watchAll(t *testing.T, s *ConnectorSession, conversation string, after share.Cursor) *ConnectorWatch {
	t.Helper()
	w, err := s.WatchFiles(t.Context(), conversation, after)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

func TestAWatchGivesEachFileOnceAndInOrder(t *testing.T) {
	h := newHooked(t, func(c *ConnectorConfig) { c.GapWait = time.Minute })
	s := h.anna()
	const n = 400
	watches := []*ConnectorWatch{watchAll(t, s, "c", nil), watchAll(t, s, "", nil)}
	work := rand.Perm(2 * n)
	var wg sync.WaitGroup
	defer wg.Wait()
	for lane := range 16 {
		wg.Go(func() {
			for i := lane; i < len(work); i += 16 {
				seq := work[i] / 2
				news := fileNews(seq)
				if seq%3 == 0 {
					news = textNews(seq)
				}
				h.tell(news)
			}
		})
	}
	var want []int
	for seq := range n {
		if seq%3 != 0 {
			want = append(want, seq)
		}
	}
	wantFiles(t, watches[0], want...)
	wg.Wait()
	wantFiles(t, watches[1], want...)
	// What came while nobody looked: from any place on, the rest.
	for _, at := range []int{0, 1, 57, 399} {
		i := slices.IndexFunc(want, func(seq int) bool { return seq > at })
		rest := []int{}
		if i >= 0 {
			rest = want[i:]
		}
		place := watches[0].Cursor()
		place["c"] = int64(at)
		wantFiles(t, watchAll(t, s, "c", place), rest...)
	}
	files, behind, err := s.ListFiles(t.Context(), "c")
	if err != nil || len(files) != len(want) || behind["c"] != n-1 {
		t.Errorf("%d files up to %d, %v", len(files), behind["c"], err)
	}
	wantFiles(t, watchAll(t, s, "c", behind))
}

func TestAWatchWaitsForWhatIsMissingAndThenGoesOn(t *testing.T) {
	h := newHooked(t, func(c *ConnectorConfig) { c.GapWait = 400 * time.Millisecond })
	s := h.anna()
	w := watchAll(t, s, "c", nil)
	h.tell(fileNews(0))
	h.tell(fileNews(2))
	wantFiles(t, w, 0)
	h.tell(textNews(1))
	wantFiles(t, w, 2)
	place := w.Cursor()

	begun := time.Now()
	h.tell(fileNews(4))
	h.tell(fileNews(5))
	if got, err := nextSeq(t, w, 200*time.Millisecond); err != nil || got != -1 {
		t.Fatalf("file %d came (%v) before what is missing", got, err)
	}
	wantFiles(t, w, 4, 5)
	if took := time.Since(begun); took < 400*time.Millisecond {
		t.Errorf("the gap was waited for %s", took)
	}
	passed := w.Cursor()
	h.tell(textNews(3)) // late, and nothing of interest
	wantFiles(t, w)
	wantFiles(t, watchAll(t, s, "c", place), 4, 5)

	// A file that comes late cannot be given in order, and must not be lost.
	h.tell(fileNews(7))
	wantFiles(t, w, 7)
	behind := w.Cursor()
	h.tell(fileNews(6))
	if _, err := nextSeq(t, w, 5*time.Second); !errors.Is(err, share.ErrWatchReset) {
		t.Errorf("after a late file: %v", err)
	}
	if n := h.c.Counts().Late; n != 1 {
		t.Errorf("%d late files were counted", n)
	}
	if _, err := s.WatchFiles(t.Context(), "c", behind); !errors.Is(err, share.ErrWatchReset) {
		t.Errorf("a watch from behind a late file: %v", err)
	}
	wantFiles(t, watchAll(t, s, "c", passed), 6, 7) // it had not passed them
	files, after, err := s.ListFiles(t.Context(), "c")
	if err != nil || len(files) != 6 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	again := watchAll(t, s, "c", after)
	h.tell(fileNews(8))
	wantFiles(t, again, 8)
}

func TestAWatchKnowsItsLog(t *testing.T) {
	h := newHooked(t)
	s := h.anna()
	h.tell(fileNews(0))
	_, behind, err := s.ListFiles(t.Context(), "c")
	if err != nil {
		t.Fatal(err)
	}
	for name, place := range map[string]share.Cursor{
		"another messenger's":    {"c": 0},
		"of a log with more":     {"c": 0, share.LogPlace: behind[share.LogPlace] + 1},
		"of no log that can be ": {"c": 0, share.LogPlace: -1},
	} {
		if _, err := s.WatchFiles(t.Context(), "c", place); !errors.Is(err, share.ErrWatchReset) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.WatchFiles(t.Context(), "d", nil); !share.Is(err, share.ConversationNotFound) {
		t.Errorf("an unknown conversation: %v", err)
	}
	// Another dialog of the conversation, which only its events tell of.
	w := watchAll(t, s, "", behind)
	news := fileNews(0)
	change := news["body"].(object)["changes"].([]any)[0].(object)
	change["dialogId"] = "survey"
	h.tell(news)
	wantFiles(t, w, 0)
	if c, err := s.Conversation(t.Context(), "c"); err != nil || len(c.Dialogs) != 2 {
		t.Errorf("the dialog is not known: %+v %v", c, err)
	}
	change["messageAudience"] = "AGENTS_AND_MANAGERS"
	change["sequence"] = 1
	h.tell(news)
	wantFiles(t, w)
	// A conversation that is told of after its events.
	late := fileNews(0)
	change = late["body"].(object)["changes"].([]any)[0].(object)
	change["conversationId"], change["dialogId"] = "e", "e"
	h.tell(late)
	h.tell(conversationNews("e", "OPEN", 1))
	wantFiles(t, w, 0)
}

func TestNoSecretOfAConnectorIsPrinted(t *testing.T) {
	app := ConnectorApp{ID: "app", Secret: "s3cr3t"}
	for _, s := range []string{fmt.Sprint(app), fmt.Sprintf("%+v", app), fmt.Sprintf("%#v", app), app.LogValue().String()} {
		if strings.Contains(s, "s3cr3t") {
			t.Errorf("it prints %s", s)
		}
	}
}
