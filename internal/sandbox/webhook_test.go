package sandbox

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/connector"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/journal"
)

// A notice is a received webhook.
type notice struct {
	header http.Header
	body   []byte
	at     time.Time
}

func (n notice) dict(t *testing.T) dict {
	t.Helper()
	var d dict
	if err := json.Unmarshal(n.body, &d); err != nil {
		t.Fatalf("%v: %s", err, n.body)
	}
	return d
}

// An endpoint receives webhooks.
type endpoint struct {
	*httptest.Server
	elsewhere string // a Location, for answers that have one
	mu        sync.Mutex
	got       []notice
	answer    func(n int, body string) int // the status for the n-th, from 1 on; nil: 200
}

func listen(t *testing.T, answer func(n int, body string) int) *endpoint {
	t.Helper()
	e := &endpoint{answer: answer}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		e.mu.Lock()
		e.got = append(e.got, notice{r.Header.Clone(), body, time.Now()})
		n := len(e.got)
		e.mu.Unlock()
		status := 200
		if e.answer != nil {
			status = e.answer(n, string(body))
		}
		if e.elsewhere != "" {
			w.Header().Set("Location", e.elsewhere)
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(e.Close)
	return e
}

func (e *endpoint) notices() []notice {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.got)
}

// texts returns the received messages in order.
func (e *endpoint) texts(t *testing.T) []string {
	t.Helper()
	var texts []string
	for _, n := range e.notices() {
		if text := n.dict(t).text("body.changes.0.event.message"); text != "" {
			texts = append(texts, text)
		}
	}
	return texts
}

// await waits for n webhooks.
func (e *endpoint) await(t *testing.T, n int) []notice {
	t.Helper()
	eventually(t, fmt.Sprint(n, " webhooks"), func() bool { return len(e.notices()) >= n })
	return e.notices()
}

// quick shortens a second of the retry schedule to a few milliseconds.
func quick(o Options) Options {
	o.WebhookUnit = 5 * time.Millisecond
	return o
}

func (p *patron) say(conv, text string) {
	p.t.Helper()
	p.ok("ms.PublishEvent", textEvent(conv, text))
}

// settle waits until every webhook is delivered or abandoned.
func settle(t *testing.T, s *Sandbox) {
	t.Helper()
	eventually(t, "no webhook waits", func() bool { return s.WebhooksWaiting() == 0 })
}

func setWebhooks(t *testing.T, s *Sandbox, hooks Webhooks) {
	t.Helper()
	if err := s.SetWebhooks("", "", hooks); err != nil {
		t.Fatal(err)
	}
}

// signWebhook returns the expected value of x-liveperson-signature.
func signWebhook(name string, sum func() hash.Hash, body []byte) string {
	mac := hmac.New(sum, []byte(DefaultAppSecret))
	mac.Write(body)
	return name + "=" + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func TestWebhooks(t *testing.T) {
	s := start(t, quick(Options{}))
	e := listen(t, nil)
	setWebhooks(t, s, Webhooks{Endpoints: AllEvents(e.URL + "/hook"), Retention: time.Minute, Signature: "sha256"})
	joe := patronOf(t, s, "joe")
	conv := joe.conversation()
	n := e.await(t, 1)[0].dict(t)
	n.want(t, "kind", "notification")
	n.want(t, "type", "cqm.ExConversationChangeNotification")
	n.want(t, "body.changes.0.type", "UPSERT")
	n.want(t, "body.changes.0.result.convId", conv)
	n.want(t, "body.changes.0.result.conversationDetails.state", "OPEN")
	n.want(t, "body.changes.0.result.conversationDetails.participants.0.id", joe.id())
	n.want(t, "body.subscriptionId", nil)

	ann := agent(t, s, logIn(t, s, "ann"))
	ann.ok("cm.UpdateConversationField", fmt.Sprintf(`{"conversationId":%q,"conversationField":[{"field":"ParticipantsChange","type":"ADD","role":"ASSIGNED_AGENT"}]}`, conv))
	path := joe.upload("JPEG", jpeg)
	joe.ok("ms.PublishEvent", fileEvent(conv, path, "JPEG"))
	ann.publishText(conv, "thanks")
	ann.ok("ms.PublishEvent", fmt.Sprintf(`{"dialogId":%q,"event":{"type":"AcceptStatusEvent","status":"READ","sequenceList":[0]}}`, conv))
	ann.ok("ms.PublishEvent", fmt.Sprintf(`{"dialogId":%q,"event":{"type":"ChatStateEvent","chatState":"COMPOSING"}}`, conv))
	ann.ok("ms.PublishEvent", fmt.Sprintf(`{"dialogId":%q,"messageAudience":"AGENTS_AND_MANAGERS","event":{"type":"ContentEvent","contentType":"text/plain","message":"between us"}}`, conv))
	ann.ok("ms.PublishEvent", fmt.Sprintf(`{"dialogId":%q,"event":{"type":"RichContentEvent","content":{"type":"vertical","elements":[{"type":"text","text":"rich"}]}}}`, conv))
	joe.ok("cm.UpdateConversationField", fmt.Sprintf(`{"conversationId":%q,"conversationField":{"field":"ConversationStateField","conversationState":"CLOSE"}}`, conv))

	all := e.await(t, 8)
	for i, want := range []struct {
		typ, event string
		sequence   any
	}{
		{typ: "cqm.ExConversationChangeNotification"},
		{typ: "cqm.ExConversationChangeNotification"},
		{events, "ContentEvent", 0}, // the consumer's own
		{events, "ContentEvent", 1},
		{events, "AcceptStatusEvent", 2},
		{events, "ChatStateEvent", nil},
		{events, "RichContentEvent", 4},
		{typ: "cqm.ExConversationChangeNotification"},
	} {
		d := all[i].dict(t)
		d.want(t, "type", want.typ)
		if want.event != "" {
			d.want(t, "body.changes.0.event.type", want.event)
			d.want(t, "body.changes.0.sequence", want.sequence)
			d.want(t, "body.changes.0.dialogId", conv)
		}
		h := all[i].header
		if h.Get("x-liveperson-account-id") != acct || h.Get("x-liveperson-client-id") != DefaultAppID ||
			h.Get("x-liveperson-signature") != signWebhook("sha256", sha256.New, all[i].body) || h.Get("Content-Type") != "application/json" {
			t.Errorf("headers %v", h)
		}
	}
	file := all[2].dict(t)
	file.want(t, "body.changes.0.originatorId", joe.id())
	file.want(t, "body.changes.0.originatorMetadata.role", "CONSUMER")
	file.want(t, "body.changes.0.event.contentType", "hosted/file")
	file.want(t, "body.changes.0.event.message.relativePath", path)
	all[3].dict(t).want(t, "body.changes.0.originatorMetadata.role", "ASSIGNED_AGENT")
	all[7].dict(t).want(t, "body.changes.0.result.conversationDetails.state", "CLOSE")

	// There are no webhooks for conversations that no app created.
	w := consumer(t, s, signUp(t, s))
	w.publishText(w.conversation(), "by a socket")
	settle(t, s)
	if n := len(e.notices()); n != 8 {
		t.Errorf("%d webhooks, want 8", n)
	}
	for _, d := range s.Journal().Delivered {
		if d.Outcome != journal.HookDelivered || d.Status != 200 || d.Try != 1 || d.Account != acct || d.App != DefaultAppID || d.Conversation != conv {
			t.Errorf("journal: %+v", d)
		}
	}
	if n := len(s.Journal().Delivered); n != 8 {
		t.Errorf("%d tries in the journal, want 8", n)
	}
}

func TestWebhooks_EndpointPerType(t *testing.T) {
	s := start(t, quick(Options{}))
	content, changes := listen(t, nil), listen(t, nil)
	setWebhooks(t, s, Webhooks{Endpoints: map[string]Webhook{
		connector.WebhookContent: {Endpoint: content.URL}, connector.WebhookConversation: {Endpoint: changes.URL},
	}})
	joe := patronOf(t, s, "joe")
	conv := joe.conversation()
	joe.ok("ms.PublishEvent", fmt.Sprintf(`{"dialogId":%q,"event":{"type":"ChatStateEvent","chatState":"COMPOSING"}}`, conv))
	joe.say(conv, "hello")
	content.await(t, 1)
	changes.await(t, 1)
	settle(t, s)
	if a, b := len(content.notices()), len(changes.notices()); a != 1 || b != 1 {
		t.Errorf("%d and %d webhooks, want 1 and 1", a, b)
	}
	setWebhooks(t, s, Webhooks{})
	joe.say(conv, "nobody hears")
	settle(t, s)
	if n := len(content.notices()); n != 1 {
		t.Errorf("%d webhooks after they were taken away", n)
	}
}

// TestWebhooks_RepeatByCount has an endpoint that redirects, which is a failure like any other. TestDeliveries_Schedule has the times
// and the order of the attempts.
func TestWebhooks_RepeatByCount(t *testing.T) {
	s := start(t, quick(Options{}))
	e := listen(t, func(int, string) int { return 307 })
	trap := listen(t, nil)
	e.elsewhere = trap.URL
	two := 2
	setWebhooks(t, s, Webhooks{Endpoints: map[string]Webhook{connector.WebhookContent: {Endpoint: e.URL, MaxRetries: &two}}})
	joe := patronOf(t, s, "joe")
	joe.say(joe.conversation(), "bad")
	settle(t, s)
	if got := e.texts(t); len(got) != 3 {
		t.Errorf("the endpoint received %q, want three attempts", got)
	}
	delivered := s.Journal().Delivered
	if last := delivered[len(delivered)-1]; last.Outcome != journal.HookAbandoned || last.Try != 3 || last.Status != 307 {
		t.Errorf("journal: %+v", last)
	}
	if len(trap.notices()) > 0 {
		t.Error("a redirect was followed")
	}
}

func TestWebhooks_Timeout(t *testing.T) {
	s := start(t, quick(Options{WebhookTimeout: 500 * time.Millisecond}))
	repeated := make(chan struct{})
	release := sync.OnceFunc(func() { close(repeated) })
	e := listen(t, func(n int, _ string) int {
		if n == 1 {
			<-repeated // the first answer comes after the timeout has caused a second attempt
		} else {
			release()
		}
		return 200
	})
	t.Cleanup(release)
	setWebhooks(t, s, Webhooks{Endpoints: map[string]Webhook{connector.WebhookContent: {Endpoint: e.URL}}, Retention: time.Hour})
	joe := patronOf(t, s, "joe")
	joe.say(joe.conversation(), "slow")
	e.await(t, 2)
	settle(t, s)
	if d := s.Journal().Delivered; len(d) != 2 || d[0].Outcome != journal.HookFailed || d[0].Status != 0 || d[1].Outcome != journal.HookDelivered {
		t.Errorf("journal: %+v", d)
	}
}

// TestWebhooks_EndpointStartsLater expects the missed events in order when a server listens again.
func TestWebhooks_EndpointStartsLater(t *testing.T) {
	s := start(t, quick(Options{}))
	reserved, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := reserved.Addr().String()
	_ = reserved.Close()
	setWebhooks(t, s, Webhooks{Endpoints: map[string]Webhook{connector.WebhookContent: {Endpoint: "http://" + addr}}, Retention: time.Hour})
	joe := patronOf(t, s, "joe")
	conv := joe.conversation()
	joe.say(conv, "early")
	joe.say(conv, "late")
	eventually(t, "one delivery has failed", func() bool { return len(s.Journal().Delivered) > 0 })
	if d := s.Journal().Delivered[0]; d.Outcome != journal.HookFailed || d.Status != 0 {
		t.Errorf("journal: %+v", d)
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 10)
	later := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		got <- string(body)
	}))
	_ = later.Listener.Close()
	later.Listener = listener
	later.Start()
	defer later.Close()
	for _, want := range []string{"early", "late"} {
		select {
		case body := <-got:
			if !strings.Contains(body, want) {
				t.Errorf("%s came, want %q", body, want)
			}
		case <-time.After(patience):
			t.Fatalf("%q never came", want)
		}
	}
}

func TestWebhooks_Faults(t *testing.T) {
	s := start(t, quick(Options{}))
	e := listen(t, nil)
	setWebhooks(t, s, Webhooks{Endpoints: map[string]Webhook{connector.WebhookContent: {Endpoint: e.URL}}, Retention: time.Minute})
	joe := patronOf(t, s, "joe")
	conv := joe.conversation()
	// run publishes one text under a fault and returns the received webhooks.
	run := func(text string, f Fault) []notice {
		t.Helper()
		before := len(e.notices())
		f.Count = max(f.Count, 1)
		s.Inject(f)
		joe.say(conv, text)
		settle(t, s)
		return e.notices()[before:]
	}
	good := func(n notice) bool {
		return n.header.Get("x-liveperson-signature") == signWebhook("sha1", sha1.New, n.body) && json.Valid(n.body)
	}
	const on = "webhook:ContentEvent"
	if got := run("twice", Fault{On: on, Twice: true}); len(got) != 2 || string(got[0].body) != string(got[1].body) || !good(got[1]) {
		t.Errorf("twice: %d", len(got))
	}
	if got := run("dropped", Fault{On: "webhook:POST", Drop: true}); len(got) != 0 {
		t.Errorf("dropped: %d", len(got))
	}
	if d := s.Journal().Delivered; d[len(d)-1].Outcome != journal.HookLost {
		t.Errorf("dropped: %+v", d[len(d)-1])
	}
	if got := run("answer lost", Fault{On: on, DropAfter: true}); len(got) != 2 || !good(got[0]) || !good(got[1]) {
		t.Errorf("answer lost: %d", len(got))
	}
	if got := run("forged", Fault{On: on, WrongSignature: true}); len(got) != 1 || good(got[0]) || !json.Valid(got[0].body) {
		t.Errorf("forged: %d", len(got))
	}
	if got := run("garbage", Fault{On: on, Garbage: true}); len(got) != 1 || json.Valid(got[0].body) {
		t.Errorf("garbage: %d", len(got))
	}
	if got := run("corrupt", Fault{On: on, Corrupt: true}); len(got) != 1 || good(got[0]) {
		t.Errorf("corrupt: %d", len(got))
	}
	if got := run("refused", Fault{On: on, Status: 503}); len(got) != 1 || !good(got[0]) {
		t.Errorf("refused: %d", len(got))
	}
	if d := s.Journal().Delivered; d[len(d)-2].Status != 503 || d[len(d)-2].Outcome != journal.HookFailed || d[len(d)-1].Try != 2 {
		t.Errorf("refused: %+v", d[len(d)-2:])
	}
	begun := time.Now()
	if got := run("late", Fault{On: on, Delay: 80 * time.Millisecond}); len(got) != 1 || got[0].at.Sub(begun) < 80*time.Millisecond {
		t.Errorf("late: %d", len(got))
	}
	if got := run("after all that", Fault{On: "webhook:ChatStateEvent", Drop: true}); len(got) != 1 || !good(got[0]) {
		t.Errorf("another type's: %d", len(got))
	}
}

// TestWebhooks_ShuffledAndTwice expects every event at least once, in any order.
func TestWebhooks_ShuffledAndTwice(t *testing.T) {
	s := start(t, quick(Options{}))
	e := listen(t, nil)
	setWebhooks(t, s, Webhooks{Endpoints: map[string]Webhook{connector.WebhookContent: {Endpoint: e.URL}}, Retention: time.Minute})
	s.Inject(Fault{On: "webhook:ContentEvent", Shuffle: true, Twice: true, Delay: 200 * time.Millisecond})
	joe := patronOf(t, s, "joe")
	conv := joe.conversation()
	const n = 30
	var want []string
	for i := range n {
		want = append(want, fmt.Sprintf("%02d", i), fmt.Sprintf("%02d", i))
		joe.say(conv, fmt.Sprintf("%02d", i))
	}
	e.await(t, 2*n)
	got := e.texts(t)
	if slices.IsSorted(got) {
		t.Errorf("in order: %v", got)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestWebhooks_QueueLimit has an endpoint that does not answer.
func TestWebhooks_QueueLimit(t *testing.T) {
	s := start(t, Options{maxWebhooks: 5})
	block := make(chan struct{})
	e := listen(t, func(int, string) int { <-block; return 200 })
	defer close(block)
	setWebhooks(t, s, Webhooks{Endpoints: map[string]Webhook{connector.WebhookContent: {Endpoint: e.URL}}, Retention: time.Hour})
	joe := patronOf(t, s, "joe")
	conv := joe.conversation()
	for i := range 8 {
		joe.say(conv, fmt.Sprint(i))
	}
	lost := 0
	for _, d := range s.Journal().Delivered {
		if d.Outcome == journal.HookLost {
			lost++
		}
	}
	if lost != 3 {
		t.Errorf("%d lost, want 3", lost)
	}
}

func TestWebhooks_Invalid(t *testing.T) {
	s := start(t, Options{})
	six := 6
	for name, hooks := range map[string]Webhooks{
		"another host":   {Endpoints: AllEvents("http://example.com/hook")},
		"no URL":         {Endpoints: AllEvents("hook")},
		"another scheme": {Endpoints: AllEvents("ftp://127.0.0.1/hook")},
		"another type":   {Endpoints: map[string]Webhook{"ms.Coffee": {Endpoint: "http://127.0.0.1:1/"}}},
		"retries":        {Endpoints: map[string]Webhook{connector.WebhookContent: {Endpoint: "http://127.0.0.1:1/", MaxRetries: &six}}},
		"retention":      {Retention: 73 * time.Hour},
		"signature":      {Signature: "md5"},
	} {
		if s.SetWebhooks("", "", hooks) == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if s.SetWebhooks("1", "", Webhooks{}) == nil || s.SetWebhooks("", "x", Webhooks{}) == nil {
		t.Error("an app that is not installed is taken")
	}
}

func TestWebhooks_Admin(t *testing.T) {
	s := start(t, quick(Options{}))
	e := listen(t, nil)
	admin := s.URL() + "/_sandbox/webhooks"
	put := func(want int, query, body string) {
		t.Helper()
		if resp, data := fetch(t, "PUT", admin+query, body); resp.StatusCode != want {
			t.Errorf("%s: %s %s, want %d", body, resp.Status, data, want)
		}
	}
	put(204, "?account="+acct+"&app="+DefaultAppID, fmt.Sprintf(`{"retry":{"retention_time":86400},"signature":"sha256","endpoint":%q,
		"ms.MessagingEventNotification.ContentEvent":{"endpoint":"%s/content","max_retries":0}}`, e.URL, e.URL))
	_, d := ask(t, "GET", admin, "")
	hooks := map[string]any(d)
	if hooks[connector.WebhookContent].(map[string]any)["endpoint"] != e.URL+"/content" || hooks[connector.WebhookChatState].(map[string]any)["endpoint"] != e.URL || hooks["signature"] != "sha256" {
		t.Errorf("set as %s", d)
	}
	d.want(t, "retry.retention_time", 86400)
	joe := patronOf(t, s, "joe")
	joe.conversation()
	e.await(t, 1)
	for _, bad := range []string{
		`{"endpoint":"http://example.com/"}`, `{"ms.MessagingEventNotification.Content":{"endpoint":"http://127.0.0.1:1/"}}`, `{"retry":{"retention":5}}`,
		`{"retry":{"retention_time":1}}`, `{"retry":{"retention_time":-1}}`, `{"retry":{"retention_time":99999999999999}}`, `x`, `[]`, ``,
		`{"ms.MessagingEventNotification.ContentEvent":{"endpoint":"http://127.0.0.1:1/","maxRetries":1}}`, `{"signature":"md5"}`,
	} {
		put(400, "", bad)
	}
	put(404, "?app=x", `{}`)
	if resp, data := fetch(t, "POST", s.URL()+"/_sandbox/faults", `{"on":"webhook:Content","drop":true}`); resp.StatusCode != 400 || !strings.Contains(string(data), "webhook:ContentEvent") {
		t.Errorf("a fault in no place: %s %s", resp.Status, data)
	}
	put(204, "", `{}`)
	if _, d := ask(t, "GET", admin, ""); len(d) != 0 {
		t.Errorf("left: %s", d)
	}
	if resp, _ := fetch(t, "GET", admin+"?app=x", ""); resp.StatusCode != 404 {
		t.Errorf("no such app: %s", resp.Status)
	}
}

// TestWebhooks_OwnAppOnly expects that only the app that created a conversation gets its events.
func TestWebhooks_OwnAppOnly(t *testing.T) {
	const other = "87654321"
	endpoints := map[string]*endpoint{}
	apps := []AppInstall{{ID: DefaultAppID, Secret: DefaultAppSecret}, {ID: "second", Secret: "s2"}, {Account: other, ID: DefaultAppID, Secret: "s3"}}
	for i, app := range apps {
		e := listen(t, nil)
		endpoints[app.Account+app.ID] = e
		apps[i].Webhooks = Webhooks{Endpoints: AllEvents(e.URL), Retention: time.Minute}
	}
	s := start(t, quick(Options{Accounts: []string{acct, other}, AppInstalls: apps}))
	joe := patronOf(t, s, "joe")
	conv := joe.conversation()
	joe.say(conv, "hello")
	settle(t, s)
	for app, want := range map[string]int{DefaultAppID: 2, "second": 0, other + DefaultAppID: 0} {
		if got := len(endpoints[app].notices()); got != want {
			t.Errorf("%s: %d webhooks, want %d", app, got, want)
		}
	}

	// A conversation that an agent starts belongs to the app that speaks for the consumer.
	ann := agent(t, s, logIn(t, s, "ann"))
	begun := ann.ok("cm.AgentRequestConversation", fmt.Sprintf(`{"consumerId":%q,"channelType":"MESSAGING"}`, joe.id())).text("body.conversationId")
	ann.publishText(begun, "how are you?")
	settle(t, s)
	if got := endpoints[DefaultAppID].texts(t); strings.Join(got, " ") != "hello how are you?" {
		t.Errorf("the app received %q", got)
	}
	joe.say(begun, "fine")
}

// TestWebhooks_TLS delivers to an https endpoint only if its certificate is trusted.
func TestWebhooks_TLS(t *testing.T) {
	got := make(chan uint16, 10)
	e := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.TLS.Version }))
	e.Config.ErrorLog = log.New(io.Discard, "", 0)
	defer e.Close()
	for _, trusted := range []bool{true, false} {
		opts := quick(Options{})
		if trusted {
			roots := x509.NewCertPool()
			roots.AddCert(e.Certificate())
			opts.WebhookTLS = &tls.Config{RootCAs: roots}
		}
		s := start(t, opts)
		setWebhooks(t, s, Webhooks{Endpoints: map[string]Webhook{connector.WebhookContent: {Endpoint: e.URL, MaxRetries: new(int)}}})
		joe := patronOf(t, s, "joe")
		joe.say(joe.conversation(), "hello")
		settle(t, s)
		want := journal.HookAbandoned
		if trusted {
			want = journal.HookDelivered
			if v := <-got; v < tls.VersionTLS12 {
				t.Errorf("TLS version %x", v)
			}
		}
		if d := s.Journal().Delivered; len(d) != 1 || d[0].Outcome != want {
			t.Errorf("trusted %v: %+v", trusted, d)
		}
	}
}

// TestClose_EndsWebhooks closes a sandbox while webhooks are being sent, wait for others, and wait for a repeat.
func TestClose_EndsWebhooks(t *testing.T) {
	before := runtime.NumGoroutine()
	s, err := Start(Options{WebhookUnit: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	hang, arrived := make(chan struct{}), make(chan struct{}, 10)
	e := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), "bad") {
			w.WriteHeader(500)
			return
		}
		arrived <- struct{}{}
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}))
	setWebhooks(t, s, Webhooks{Endpoints: map[string]Webhook{connector.WebhookContent: {Endpoint: e.URL}}, Retention: time.Hour})
	joe := patronOf(t, s, "joe")
	stuck, failing := joe.conversation(), joe.conversation()
	joe.say(stuck, "stuck")
	joe.say(stuck, "behind it")
	joe.say(failing, "bad")
	<-arrived
	eventually(t, "one delivery has failed", func() bool { return len(s.Journal().Delivered) > 0 })
	begun := time.Now()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if d := time.Since(begun); d > patience {
		t.Errorf("took %v", d)
	}
	close(hang)
	e.Close()
	http.DefaultClient.CloseIdleConnections()
	eventually(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
}

// TestWebhooks_OrderPerConversation expects the order of events in each of many concurrent conversations.
func TestWebhooks_OrderPerConversation(t *testing.T) {
	s := start(t, quick(Options{}))
	e := listen(t, func(n int, _ string) int {
		if n%7 == 0 {
			return 503
		}
		return 200
	})
	setWebhooks(t, s, Webhooks{Endpoints: map[string]Webhook{connector.WebhookContent: {Endpoint: e.URL}}, Retention: time.Hour})
	const conversations, messages = 8, 12
	var work sync.WaitGroup
	for i := range conversations {
		p := patronOf(t, s, fmt.Sprint("consumer ", i))
		conv := p.conversation()
		work.Go(func() {
			for n := range messages {
				if resp, data := p.post(sendPath, fmt.Sprintf(`{"kind":"req","id":"x","type":"ms.PublishEvent","body":%s}`, textEvent(conv, fmt.Sprint(n)))); resp.StatusCode != 200 {
					t.Errorf("%s %s", resp.Status, data)
				}
			}
		})
	}
	work.Wait()
	settle(t, s)
	next := map[string]int{}
	for _, d := range s.Journal().Delivered {
		if *d.Sequence != next[d.Conversation] {
			t.Fatalf("sequence %d of %s, want %d", *d.Sequence, d.Conversation, next[d.Conversation])
		}
		if d.Outcome == journal.HookDelivered {
			next[d.Conversation]++
		}
	}
	for conv, n := range next {
		if n != messages {
			t.Errorf("%s: %d delivered", conv, n)
		}
	}
	if len(next) != conversations {
		t.Errorf("%d conversations, want %d", len(next), conversations)
	}
}
