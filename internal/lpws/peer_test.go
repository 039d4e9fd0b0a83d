package lpws

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/test/wire"
)

// inBubble runs a test with a fake clock, which advances when all goroutines wait. Its result does not depend on the machine's load.
func inBubble(t *testing.T, test func(t *testing.T)) {
	t.Parallel()
	synctest.Test(t, test)
}

// peer imitates LivePerson for tests that the sandbox cannot serve: it sends unusual forms, late and hidden events, and wrong data. It
// has one consumer, "me", and one conversation, "c". Connections to it are in memory, so it works with a fake clock.
type peer struct {
	t    *testing.T
	conn memoryListener
	work sync.WaitGroup
	// answer, if set, is called for each request, and reports whether it has handled the request.
	answer func(k *peerSocket, typ string, id string, body map[string]any) bool
	// upgrade, if set, is called for each upgrade, and reports whether it has answered the upgrade.
	upgrade func(w http.ResponseWriter, r *http.Request) bool
	// expire makes the peer reject expired tokens, and close a socket by 4401 when its token expires.
	expire bool

	mu      sync.Mutex
	details string              // more members of the conversation's details, beginning with a comma
	last    string              // more members of the conversation's result, likewise
	events  map[string][]string // visible events, by dialog
	lag     time.Duration       // delay of events behind the answer to the request that follows
	mute    bool                // do not answer pings
	sockets []*peerSocket
	got     []string    // types of requests
	opened  []time.Time // times of the upgrades, rejected ones included
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

// close closes the socket with a code.
func (k *peerSocket) close(code int) {
	_ = k.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(time.Second))
	_ = k.conn.Close()
}

// memoryListener is a net.Listener for connections in memory.
type memoryListener struct {
	accepted chan net.Conn
	closed   chan struct{}
}

func (l memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accepted:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l memoryListener) Close() error   { close(l.closed); return nil }
func (l memoryListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func (l memoryListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.accepted <- server:
		return client, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fictional begins the type of a request that LivePerson does not have.
const fictional = "test."

func newPeer(t *testing.T) *peer {
	p := &peer{t: t, events: map[string][]string{}, conn: memoryListener{make(chan net.Conn), make(chan struct{})}}
	tap := checked.Watch(t) // of requests only: the peer's own frames are unusual on purpose
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(tap, w, r) })}
	p.work.Go(func() { _ = server.Serve(p.conn) })
	t.Cleanup(func() {
		_ = server.Close()
		p.work.Wait()
	})
	return p
}

// serve serves one socket.
func (p *peer) serve(tap *wire.Tap, w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.opened = append(p.opened, time.Now())
	p.mu.Unlock()
	if p.upgrade != nil && p.upgrade(w, r) {
		return
	}
	expires := time.Time{}
	if p.expire {
		c, _ := lpwire.ReadClaims(strings.TrimPrefix(r.Header.Get("Authorization"), "jwt "))
		if expires = c.Expires; !time.Now().Before(expires) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
	}
	conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
	if err != nil {
		return
	}
	answer := conn.PingHandler()
	conn.SetPingHandler(func(data string) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.mute {
			return nil
		}
		return answer(data)
	})
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
	if !expires.IsZero() {
		defer time.AfterFunc(time.Until(expires), func() { k.close(closeAuthenticate) }).Stop()
	}
	for {
		_, data, err := conn.ReadMessage()
		if err != nil {
			return
		}
		if f := (wire.Frame{FromClient: true, Dialect: dialect, Data: data}); strings.Contains(string(data[:min(len(data), 64)]), fictional) {
			tap.Exempt(f)
		} else {
			tap.Check(f)
		}
		k.serve(data)
	}
}

func (k *peerSocket) serve(data []byte) {
	var r struct {
		Kind, ID, Type string
		Body           map[string]any
	}
	if err := json.Unmarshal(data, &r); err != nil || r.Kind != "req" || r.ID == "" {
		k.p.t.Errorf("malformed request: %s", data)
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
	case reqUploadURL:
		k.send(`{"kind":"resp","reqId":%q,"code":200,"body":{"relativePath":"%sx.PNG","queryParams":{"temp_url_sig":"%040d","temp_url_expires":"4102444800"}}}`,
			r.ID, folder, 7)
	case reqClock:
		k.send(`{"kind":"resp","reqId":%q,"code":"200","body":{"currentTime":1}}`, r.ID)
	default:
		k.send(`{"kind":"resp","reqId":%q,"code":400,"body":"unknown request"}`, r.ID)
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

// fileEvent returns an event with a file of that name.
func fileEvent(dialog string, seq int, name string) string {
	return fmt.Sprintf(`{"sequence":%d,"originatorId":"her","originatorMetadata":{"id":"her","role":"ASSIGNED_AGENT"},"serverTimestamp":1000,"dialogId":%q,
		"conversationId":"c","event":{"type":"ContentEvent","contentType":"hosted/file","message":{"relativePath":%q,"fileType":"JPEG"}}}`,
		seq, dialog, folder+name)
}

// textEvent returns an event without a file.
func textEvent(seq int) string {
	return fmt.Sprintf(`{"sequence":%d,"originatorId":"me","dialogId":"c","event":{"type":"ContentEvent","contentType":"text/plain","message":"x"}}`, seq)
}

// add adds events without reporting them.
func (p *peer) add(dialog string, events ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events[dialog] = append(p.events[dialog], events...)
}

// publish adds events and reports them on the newest socket.
func (p *peer) publish(events ...string) {
	p.add("c", events...)
	k := p.socket()
	for _, e := range events {
		k.push(e)
	}
}

// requests returns the number of requests of a type.
func (p *peer) requests(typ string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.got {
		if t == typ {
			n++
		}
	}
	return n
}

// tokenOf returns a consumer's token with that payload.
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
			return "ws://127.0.0.1:1/", nil
		},
		BackoffMin: 5 * time.Millisecond, CallTimeout: 2 * time.Second, Grace: 100 * time.Millisecond, dial: p.conn.dial,
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

// broadcast adds an event and reports it on all sockets.
func (p *peer) broadcast(event string) {
	p.add("c", event)
	p.mu.Lock()
	sockets := slices.Clone(p.sockets)
	p.mu.Unlock()
	for _, k := range sockets {
		k.push(event)
	}
}

// socket returns the newest socket.
func (p *peer) socket() *peerSocket {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sockets[len(p.sockets)-1]
}

// times returns the times of the upgrades, rejected ones included.
func (p *peer) times() []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.opened)
}

// upgrades returns the number of upgrades, rejected ones included.
func (p *peer) upgrades() int { return len(p.times()) }
