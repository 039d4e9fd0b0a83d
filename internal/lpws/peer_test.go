package lpws

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/test/wire"
)

// A peer is a LivePerson that behaves as the sandbox does not: odd forms, late and hidden events, lies. It has one consumer, "me",
// and one conversation, "c".
type peer struct {
	t      *testing.T
	server *httptest.Server
	work   sync.WaitGroup
	// answer, if not nil, is asked first; "" leaves the request to the peer.
	answer func(k *peerSocket, typ string, id string, body map[string]any) bool

	mu      sync.Mutex
	details string              // more members of the conversation's details, beginning with a comma
	last    string              // more members of the conversation's result, likewise
	events  map[string][]string // visible events, by dialog
	lag     time.Duration       // how long the backlog comes behind the answer to the request after it
	sockets []*peerSocket
	got     []string // types of requests
}

type peerSocket struct {
	p    *peer
	mu   sync.Mutex
	conn *websocket.Conn
}

func (k *peerSocket) send(format string, args ...any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	_ = k.conn.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, format, args...))
}

// madeUp begins the name of a request that LivePerson does not have.
const madeUp = "test."

func newPeer(t *testing.T) *peer {
	p := &peer{t: t, events: map[string][]string{}}
	tap := watched.Watch(t) // of what is sent to the peer: what the peer sends is odd on purpose
	p.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		k := &peerSocket{p: p, conn: conn}
		dialect := "consumer"
		if strings.Contains(r.URL.Path, "/brand/") {
			dialect = "brand"
		}
		p.mu.Lock()
		p.sockets = append(p.sockets, k)
		p.work.Add(1)
		p.mu.Unlock()
		defer p.work.Done()
		defer conn.Close()
		for {
			_, data, err := conn.ReadMessage()
			if err != nil {
				return
			}
			if f := (wire.Frame{FromClient: true, Dialect: dialect, Data: data}); strings.Contains(string(data[:min(len(data), 64)]), madeUp) {
				tap.Exempt(f)
			} else {
				tap.Check(f)
			}
			k.serve(data)
		}
	}))
	t.Cleanup(func() {
		p.server.Close()
		p.work.Wait()
	})
	return p
}

func (k *peerSocket) serve(data []byte) {
	var r struct {
		Kind, ID, Type string
		Body           map[string]any
	}
	if err := json.Unmarshal(data, &r); err != nil || r.Kind != "req" || r.ID == "" {
		k.p.t.Errorf("the frame is %s", data)
	}
	p := k.p
	p.mu.Lock()
	p.got = append(p.got, r.Type)
	lag := p.lag
	details, last := p.details, p.last
	p.mu.Unlock()
	if p.answer != nil && p.answer(k, r.Type, r.ID, r.Body) {
		return
	}
	switch r.Type {
	case reqSubscribeConvs:
		k.send(`{"kind":"resp","reqId":%q,"code":200,"type":"x","body":{"subscriptionId":"s%s"}}`, r.ID, r.ID)
		k.send(`{"kind":"notification","type":"cqm.ExConversationChangeNotification","body":{"subscriptionId":"s%s","changes":[%s]}}`,
			r.ID, upsert("OPEN", 100, details, last))
	case reqSubscribeEvents:
		k.send(`{"kind":"resp","reqId":%q,"code":200}`, r.ID)
		from := int64(r.Body["fromSeq"].(float64))
		var backlog []string
		p.mu.Lock()
		for _, e := range p.events[r.Body["dialogId"].(string)] {
			var v lpwire.Event
			if json.Unmarshal([]byte(e), &v) == nil && v.Sequence.N >= from {
				backlog = append(backlog, e)
			}
		}
		p.mu.Unlock()
		if len(backlog) > 0 {
			if lag == 0 {
				k.push(backlog...)
			} else {
				time.AfterFunc(lag, func() { k.push(backlog...) })
			}
		}
	case reqClock:
		k.send(`{"kind":"resp","reqId":%q,"code":"200","body":{"currentTime":1}}`, r.ID)
	default:
		k.send(`{"kind":"resp","reqId":%q,"code":400,"body":"no such request"}`, r.ID)
	}
}

func (k *peerSocket) push(events ...string) {
	k.send(`{"kind":"notification","type":"ms.MessagingEventNotification","body":{"changes":[%s]}}`, strings.Join(events, ","))
}

func upsert(state string, ts int, details, more string) string {
	if !strings.Contains(details, `"participants`) {
		details += `,"participants":[{"id":"me","role":"CONSUMER"}]`
	}
	return fmt.Sprintf(`{"type":"UPSERT","result":{"convId":"c","conversationDetails":{"state":%q,"startTs":5,"metaDataLastUpdateTs":%d%s}%s}}`,
		state, ts, details, more)
}

const folder = "/v1/AUTH_async-images/12345678/"

// showing is an event that shows a file of that name.
func showing(dialog string, seq int, name string) string {
	return fmt.Sprintf(`{"sequence":%d,"originatorId":"her","originatorMetadata":{"id":"her","role":"ASSIGNED_AGENT"},"serverTimestamp":1000,"dialogId":%q,
		"conversationId":"c","event":{"type":"ContentEvent","contentType":"hosted/file","message":{"relativePath":%q,"fileType":"JPEG"}}}`,
		seq, dialog, folder+name)
}

func words(seq int) string {
	return fmt.Sprintf(`{"sequence":%d,"originatorId":"me","dialogId":"c","event":{"type":"ContentEvent","contentType":"text/plain","message":"x"}}`, seq)
}

func (p *peer) keeps(dialog string, events ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events[dialog] = append(p.events[dialog], events...)
}

// live keeps and pushes events.
func (p *peer) live(events ...string) {
	p.keeps("c", events...)
	p.mu.Lock()
	k := p.sockets[len(p.sockets)-1]
	p.mu.Unlock()
	for _, e := range events {
		k.push(e)
	}
}

func (p *peer) asked(typ string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.got {
		if t == typ {
			n++
		}
	}
	return n
}

// tokenOf is a consumer's token that says what payload says.
func tokenOf(payload string) share.Credential {
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	return share.Credential{
		Scheme: share.ConsumerToken, Account: account, Secret: part(`{"alg":"RS256"}`) + "." + part(payload) + "." + part("signature"),
	}
}

const mine = `{"sub":"me","aud":["acc:12345678","x"]}`

func (p *peer) pool(changes ...func(*Config)) *Pool {
	cfg := Config{
		SocketURL: func(context.Context, string, share.Scheme) (string, error) {
			return "ws" + strings.TrimPrefix(p.server.URL, "http") + "/", nil
		},
		BackoffMin: 5 * time.Millisecond, CallTimeout: 2 * time.Second, Grace: 100 * time.Millisecond,
	}
	for _, change := range changes {
		change(&cfg)
	}
	pool := New(cfg)
	p.t.Cleanup(pool.Close)
	return pool
}

func (p *peer) session(changes ...func(*Config)) *Session {
	p.t.Helper()
	s, err := p.pool(changes...).Session(ctxOf(p.t), tokenOf(mine))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(s.Release)
	return s
}

func names(files []share.FileEvent) string {
	var out []string
	for _, f := range files {
		out = append(out, strings.TrimPrefix(f.File.StoragePath, folder)+"@"+strconv.FormatInt(f.Sequence, 10))
	}
	return strings.Join(out, " ")
}

func TestWatch_SkipsHiddenEvents(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	p.keeps("c", showing("c", 0, "a"), words(2), showing("c", 5, "b"))
	s := p.session()
	w, err := s.WatchFiles(ctxOf(t), "c", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if e := next(t, w); e.Sequence != 0 || e.SenderID != "her" || e.SenderRole != share.RoleAssignedAgent || !e.Time.Equal(time.UnixMilli(1000)) {
		t.Errorf("%+v", e)
	}
	if e := next(t, w); e.Sequence != 5 || w.Cursor()["c"] != 5 {
		t.Errorf("%+v %v", e, w.Cursor())
	}
	p.live(showing("c", 6, "live"))
	if e := next(t, w); e.Sequence != 6 {
		t.Errorf("%+v", e)
	}
	p.live(showing("c", 9, "late"))
	if e := next(t, w); e.Sequence != 9 {
		t.Errorf("%+v", e)
	}
	files, cursor, err := s.ListFiles(ctxOf(t), "c")
	if err != nil || names(files) != "a@0 b@5 live@6 late@9" || cursor["c"] != 9 {
		t.Errorf("%s %v %v", names(files), cursor, err)
	}
}

func TestWatch_OrdersEvents(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	s := p.session()
	w, err := s.WatchFiles(ctxOf(t), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	eventually(t, "the dialog is known to be empty", func() bool { return w.Cursor()["c"] == -1 && len(w.Cursor()) == 1 })
	var events []string
	for i := range 30 {
		events = append(events, showing("c", i, fmt.Sprint(i)))
	}
	p.keeps("c", events...)
	p.mu.Lock()
	k := p.sockets[0]
	p.mu.Unlock()
	for i := range 30 { // backwards in threes, each one twice
		e := events[i/3*3+2-i%3]
		k.push(e, e)
	}
	for i := range 30 {
		if e := next(t, w); e.Sequence != int64(i) {
			t.Fatalf("%d came as %d", e.Sequence, i)
		}
	}
	nothing(t, w)
}

func TestFindFile_WaitsForLateEvents(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	p.lag = 60 * time.Millisecond
	p.last = `,"lastContentEventNotification":{"sequence":1,"dialogId":"c"}`
	p.keeps("c", words(0), showing("c", 1, "a"))
	s := p.session(func(c *Config) { c.Grace = 2 * time.Second })
	if e, err := s.FindFile(ctxOf(t), "c", "", folder+"a"); err != nil || e.Sequence != 1 {
		t.Errorf("%+v %v", e, err)
	}
	unknown := newPeer(t) // old, and not said to have any messages
	unknown.lag = 10 * time.Millisecond
	unknown.keeps("c", words(0), showing("c", 1, "a"))
	if e, err := unknown.session(func(c *Config) { c.Grace = time.Second }).FindFile(ctxOf(t), "c", "", folder+"a"); err != nil || e.Sequence != 1 {
		t.Errorf("%+v %v", e, err)
	}
	// Nothing is missing now, so nothing is waited for.
	begun := time.Now()
	_, err := s.FindFile(ctxOf(t), "c", "", folder+"z")
	want(t, err, share.FileNotFound)
	if took := time.Since(begun); took > time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestSession_AcceptsUnusualForms(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	p.details = `,"participantsPId":{"CONSUMER":"me","ASSIGNED_AGENT":["her"]},"participants":{"ASSIGNED_AGENT":["12345678.1"]},"skillId":7,
		"dialogs":{"dialogId":"survey","dialogType":"POST_SURVEY","state":"OPEN"},"unknown":[{}]`
	p.answer = func(k *peerSocket, typ, id string, body map[string]any) bool {
		switch typ {
		case reqUploadURL: // a number for an id, odd types, numbers for strings
			k.send(`{"kind":"resp","reqId":%s,"code":"OK","type":7,"body":{"relativePath":"%sx.PNG","queryParams":{"temp_url_sig":"%040d","temp_url_expires":1523947094}}}`,
				id, folder, 7)
		case reqPublish:
			k.send(`{"reqId":%q,"body":{"sequence":"4"}}`, id)
		case reqSubscribeConvs:
			k.send(`{"kind":"resp","reqId":%q,"code":202,"body":{"subscriptionId":9}}`, id)
			k.send(`{"kind":"notification","type":"unheard.Of","body":{}}`)
			k.send(`{"kind":"other"}`)
			k.send(`{"kind":"resp","reqId":"nobody's","code":200}`)
			k.send(`{"kind":"notification","type":"ms.MessagingEventNotification","body":[]}`)
			k.send(`{"kind":"notification","type":".ams.aam.ExConversationChangeNotification","body":{"changes":%s}}`, upsert("OPEN", 100, p.details, ""))
		default:
			return false
		}
		return true
	}
	p.keeps("survey", `{"sequence":"0","originatorPId":"her","originatorId":"12345678.1","dialogId":"survey","event":{"type":"ContentEvent",
		"contentType":"hosted/file","message":{"relativePath":"`+folder+`s","fileType":"IMG"}}}`)
	p.keeps("c", `{"sequence":0,"dialogId":"c","event":"not an object"}`,
		`{"sequence":1,"dialogId":"c","event":{"type":"ContentEvent","contentType":"hosted/file","message":"no object"}}`,
		showing("c", 2, "../87654321/stolen"),
		strings.Replace(showing("c", 3, "ok"), `"fileType"`, `"caption":null,"preview":"`+strings.Repeat("x", lpwire.MaxPreview+1)+`","fileType"`, 1))
	s := p.session()
	c, err := s.Conversation(ctxOf(t), "c")
	if err != nil || c.SkillID != "7" || len(c.Participants) != 2 || len(c.Dialogs) != 1 || c.Dialogs[0].ID != "survey" {
		t.Errorf("%+v %v", c, err)
	}
	u, err := s.UploadURL(ctxOf(t), 1, share.PNG)
	if err != nil || u.Path != folder+"x.PNG" || u.ExpireTime.Unix() != 1523947094 || u.Expires != "1523947094" {
		t.Errorf("%+v %v", u, err)
	}
	if seq, err := s.PublishFile(ctxOf(t), "c", "survey", hosted(u.Path, "")); err != nil || seq != 4 {
		t.Errorf("%d %v", seq, err)
	}
	k := p.sockets[0]
	k.send(`{"kind":"notification","type":".ams.ms.OnlineEventDistribution","body":%s}`, showing("c", 4, "one"))
	p.keeps("c", showing("c", 4, "one"))
	files, cursor, err := s.ListFiles(ctxOf(t), "c")
	if err != nil || names(files) != "ok@3 one@4 s@0" || cursor["c"] != 4 || cursor["survey"] != 0 {
		t.Errorf("%s %v %v", names(files), cursor, err)
	}
	if e := files[2]; e.SenderID != "her" || e.SenderRole != share.RoleAssignedAgent || e.Dialog != "survey" || e.Conversation != "c" {
		t.Errorf("%+v", e)
	}
	if files[0].File.Preview != "" {
		t.Error("an endless preview is kept")
	}
	// Old news changes nothing; a dialog that speaks before it is announced is believed.
	k.send(`{"kind":"notification","type":"cqm.ExConversationChangeNotification","body":{"subscriptionId":9,"changes":[%s]}}`, upsert("CLOSE", 99, p.details, ""))
	p.keeps("second", showing("second", 0, "t"))
	k.push(showing("second", 0, "t"))
	eventually(t, "the dialog is known", func() bool { c, err = s.Conversation(ctxOf(t), "c"); return len(c.Dialogs) == 2 })
	if !c.Open {
		t.Error("old news was believed")
	}
	if e, err := s.FindFile(ctxOf(t), "c", "second", folder+"t"); err != nil || e.Sequence != 0 {
		t.Errorf("%+v %v", e, err)
	}
	k.send(`{"kind":"notification","type":"cqm.ExConversationChangeNotification","body":{"subscriptionId":9,"changes":{"type":"DELETE","result":{"convId":"c"}}}}`)
	eventually(t, "it is gone", func() bool { all, _ := s.ListConversations(ctxOf(t)); return len(all) == 0 })
}

func TestUploadURL_RejectsOtherAccounts(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	var body string
	p.answer = func(k *peerSocket, typ, id string, _ map[string]any) bool {
		if typ == reqUploadURL || typ == reqDownloadURL {
			p.mu.Lock()
			defer p.mu.Unlock()
			k.send(`{"kind":"resp","reqId":%q,"code":200,"body":%s}`, id, body)
			return true
		}
		return false
	}
	s := p.session()
	const sig = "0cff08d2d5618d100bc1353f32872c002180711f"
	for _, b := range []string{
		`{}`, `null`, `"text"`, `[]`,
		`{"relativePath":"` + folder + `x"}`,
		`{"relativePath":"` + folder + `x","queryParams":{"temp_url_sig":"","temp_url_expires":"1"}}`,
		`{"relativePath":"` + folder + `x","queryParams":{"temp_url_sig":"` + sig + `&x=y","temp_url_expires":"1"}}`,
		`{"relativePath":"` + folder + `x","queryParams":{"temp_url_sig":"` + sig + `","temp_url_expires":"soon"}}`,
		`{"relativePath":"/v1/AUTH_async-images/87654321/x","queryParams":{"temp_url_sig":"` + sig + `","temp_url_expires":"1"}}`,
		`{"relativePath":"http://example.com/x","queryParams":{"temp_url_sig":"` + sig + `","temp_url_expires":"1"}}`,
		`{"relativePath":"` + folder + `../x","queryParams":{"temp_url_sig":"` + sig + `","temp_url_expires":"1"}}`,
	} {
		p.mu.Lock()
		body = b
		p.mu.Unlock()
		_, err := s.UploadURL(ctxOf(t), 1, share.PNG)
		want(t, err, share.LPProtocolError)
	}
	p.mu.Lock()
	body = `{"relativePath":"` + folder + `x","queryParams":{"temp_url_sig":"` + sig + `","temp_url_expires":"1"}}`
	p.mu.Unlock()
	_, err := s.DownloadURL(ctxOf(t), folder+"y")
	want(t, err, share.LPProtocolError)
	if _, err = s.DownloadURL(ctxOf(t), folder+"x"); err != nil {
		t.Error(err)
	}
}

func TestPoolSession_ReadsIdentityAfterAcceptance(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	pool := p.pool()
	for payload, kind := range map[string]share.Kind{
		`{"sub":"me","aud":"acc:87654321"}`:         share.NotAllowed,
		`{"sub":"me","aud":["acc:87654321"]}`:       share.NotAllowed,
		`{"sub":"me"}`:                              share.NotAllowed,
		`{"aud":"acc:12345678"}`:                    share.TokenInvalid,
		`{"sub":"me","aud":"acc:12345678","exp":1}`: share.TokenInvalid,
		`no JSON`: share.TokenInvalid,
	} {
		_, err := pool.Session(ctxOf(t), tokenOf(payload))
		want(t, err, kind)
	}
	s, err := pool.Session(ctxOf(t), tokenOf(`{"sub":"me","aud":"acc:12345678","exp":4102444800}`))
	if err != nil {
		t.Fatal(err)
	}
	if at := s.Principal(); at.ID != "me" || at.Expires.Unix() != 4102444800 {
		t.Errorf("%+v", at)
	}
	s.Release()
	// Accepted is: answered with success, and told.
	for _, answer := range []string{`"code":401,"body":{"errorCode":40102}`, `"code":403,"body":"no"`, `"code":429`, `"code":500`, `"code":400`} {
		kind := map[string]share.Kind{"1": share.TokenInvalid, "3": share.NotAllowed, "9": share.LPRateLimited, "0": share.LPUnavailable}[answer[9:10]]
		if strings.HasSuffix(answer, "400") {
			kind = share.LPProtocolError
		}
		p := newPeer(t)
		p.answer = func(k *peerSocket, typ, id string, _ map[string]any) bool {
			k.send(`{"kind":"resp","reqId":%q,%s}`, id, answer)
			return true
		}
		_, err := p.pool().Session(ctxOf(t), tokenOf(mine))
		want(t, err, kind)
	}
	p = newPeer(t)
	p.answer = func(k *peerSocket, typ, id string, _ map[string]any) bool {
		k.send(`{"kind":"resp","reqId":%q,"code":200,"body":{"subscriptionId":"s"}}`, id)
		return true // and never told
	}
	_, err = p.pool(func(c *Config) { c.OpenTimeout = 100 * time.Millisecond }).Session(ctxOf(t), tokenOf(mine))
	want(t, err, share.LPUnavailable)
}

func TestSession_FramesOverTheLimit(t *testing.T) {
	t.Parallel()
	small := func(c *Config) { c.MaxFrame = 10_000 }
	p := newPeer(t)
	p.answer = func(k *peerSocket, typ, id string, body map[string]any) bool {
		if typ == reqSubscribeConvs && len(body["convState"].([]any)) == 2 {
			k.send(`{"kind":"resp","reqId":%q,"code":200,"body":{"subscriptionId":"s"}}`, id)
			k.send(`{"kind":"notification","type":"cqm.ExConversationChangeNotification","body":{"changes":[],"x":%q}}`, strings.Repeat("x", 10_000))
			return true
		}
		return false
	}
	s := p.session(small)
	if _, err := s.Conversation(ctxOf(t), "c"); err != nil {
		t.Errorf("the open conversations are not known: %v", err)
	}
	w, err := s.WatchFiles(ctxOf(t), "c", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	eventually(t, "the watch is up", func() bool { return w.Cursor()["c"] == -1 })
	p.keeps("c", strings.Replace(showing("c", 0, "a"), `"fileType"`, `"preview":"`+strings.Repeat("x", 10_000)+`","fileType"`, 1))
	_, _, err = s.ListFiles(ctxOf(t), "c")
	want(t, err, share.LPProtocolError)
	_, err = w.Next(ctxOf(t))
	want(t, err, share.LPProtocolError)
	if _, err = s.Conversation(ctxOf(t), "c"); err != nil {
		t.Errorf("the session is gone: %v", err)
	}
}

func TestCreateConversation_BeforeLivePersonReportsIt(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	p.answer = func(k *peerSocket, typ, id string, _ map[string]any) bool {
		if typ == reqNewConversation {
			k.send(`{"kind":"resp","reqId":%q,"code":200,"body":{"conversationId":"new"}}`, id)
			return true
		}
		if typ == reqUpdate {
			k.send(`{"kind":"resp","reqId":%q,"code":200,"body":"OK"}`, id)
			return true
		}
		return false
	}
	s := p.session()
	ctx, cancel := context.WithTimeout(ctxOf(t), 50*time.Millisecond)
	defer cancel()
	c, err := s.CreateConversation(ctx, share.NewConversation{SkillID: "9"})
	if err != nil || c.ID != "new" || !c.Open || c.SkillID != "9" || c.Start.IsZero() {
		t.Errorf("%+v %v", c, err)
	}
	if _, err := s.Conversation(ctxOf(t), "unknown"); !share.Is(err, share.ConversationNotFound) { // a fresh list does not have it
		t.Error(err)
	}
	if _, err := s.Conversation(ctxOf(t), "new"); err != nil {
		t.Error(err)
	}
	ctx, cancel = context.WithTimeout(ctxOf(t), 50*time.Millisecond)
	defer cancel()
	if c, err = s.CloseConversation(ctx, "new"); err != nil || c.Open || c.End.IsZero() {
		t.Errorf("%+v %v", c, err)
	}
}

func TestListConversations_IsLimited(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	p.answer = func(k *peerSocket, typ, id string, _ map[string]any) bool {
		if typ != reqSubscribeConvs {
			return false
		}
		var all []string
		for i := range 50 {
			state := "CLOSE"
			if i%10 == 0 {
				state = "OPEN"
			}
			all = append(all, fmt.Sprintf(`{"type":"UPSERT","result":{"convId":"c%d","conversationDetails":{"state":%q,"startTs":%d,"participants":{"id":"me","role":"CONSUMER"}}}}`, i, state, 1000+i))
		}
		k.send(`{"kind":"resp","reqId":%q,"code":200,"body":{"subscriptionId":"s"}}`, id)
		k.send(`{"kind":"notification","type":"cqm.ExConversationChangeNotification","body":{"subscriptionId":"s","changes":[%s]}}`, strings.Join(all, ","))
		return true
	}
	s := p.session(func(c *Config) { c.MaxConversations = 10 })
	all, err := s.ListConversations(ctxOf(t))
	if err != nil || len(all) != 10 || all[0].ID != "c49" || all[9].ID != "c0" {
		t.Errorf("%d %v %v", len(all), all, err)
	}
}

func TestSession_ShowsOwnConversationsOnly(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	p.details = `,"participants":[{"id":"somebody","role":"CONSUMER"},{"id":"her","role":"ASSIGNED_AGENT"}]`
	p.keeps("c", showing("c", 0, "a"))
	s := p.session()
	_, err := s.Conversation(ctxOf(t), "c")
	want(t, err, share.ConversationNotFound)
	_, err = s.FindFile(ctxOf(t), "c", "c", folder+"a")
	want(t, err, share.ConversationNotFound)
	w, err := s.WatchFiles(ctxOf(t), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	p.live(showing("c", 1, "b"))
	nothing(t, w)
	files, cursor, err := s.ListFiles(ctxOf(t), "")
	if err != nil || len(files) != 0 || len(cursor) != 0 {
		t.Errorf("%v %v %v", files, cursor, err)
	}
	all, err := s.ListConversations(ctxOf(t))
	if err != nil || len(all) != 0 || p.asked(reqSubscribeEvents) != 0 {
		t.Errorf("%v %v, asked %d times", all, err, p.asked(reqSubscribeEvents))
	}
	// Once let in, all of it.
	p.sockets[0].send(`{"kind":"notification","type":"cqm.ExConversationChangeNotification","body":{"changes":[%s]}}`,
		upsert("OPEN", 101, `,"dialogs":[{"dialogId":"c","participantsDetails":[{"id":"me","role":"CONSUMER"}]}],"participants":[{"id":"me","role":"CONSUMER"}]`, ""))
	if e := next(t, w); e.Sequence != 0 {
		t.Errorf("%+v", e)
	}
	if e := next(t, w); e.Sequence != 1 {
		t.Errorf("%+v", e)
	}
}
