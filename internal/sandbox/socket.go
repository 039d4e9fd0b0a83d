package sandbox

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/gorilla/websocket"
)

const (
	// maxFrame is the largest frame that a client may send.
	maxFrame = 1 << 20
	// writeTimeout is how long a frame may take to be written, and closeTimeout how long the peer may take to close its side.
	writeTimeout = 10 * time.Second
	closeTimeout = time.Second

	// closeAuthenticate asks an identified client for a fresh token, closeExtend an anonymous one for an extended identity.
	closeAuthenticate = 4401
	closeExtend       = 4407
	closeGoingAway    = 1001
)

// dialect is which of the two protocols a socket speaks.
type dialect string

const (
	consumerDialect dialect = "consumer"
	brandDialect    dialect = "brand"
)

// A caller is who asks for something: by a socket, or by the Connector API.
type caller struct {
	s       *Sandbox
	account *account
	dialect dialect
	version string

	// Guarded by Sandbox.mu. who is nil until the caller has an identity, and never changes then.
	who        *person
	properties json.RawMessage // client properties
}

// A socket is one open WebSocket. A request that has come but is still delayed when its socket ends is never processed.
//
// One goroutine reads it, one writes it, and a third runs what was delayed, if anything ever is. Whoever has something to send
// puts it in the outbox, which never blocks, so sending is allowed under Sandbox.mu.
type socket struct {
	caller
	conn   *websocket.Conn
	bearer string // an agent's
	out    *outbox
	later  *timeline
	opened time.Time
	heard  atomic.Int64 // when something last came, since opened
	gagged atomic.Bool  // nothing may leave any more
	ended  atomic.Bool  // nothing that comes, or is still delayed, counts any more

	// Touched by the reader, and by jobs that it has scheduled.
	order order
	pace  pace

	identity sync.Mutex // guards expires and anonymous, which patrol reads; the rest of an identity is guarded by Sandbox.mu
	expires  time.Time
	anon     bool

	// Guarded by Sandbox.mu.
	convSubs   map[string]*convSubscription
	dialogSubs map[*dialog]bool
	routeSubs  map[string]bool
	stateSubs  map[string]bool
}

// order keeps requests from overtaking one another where that would show.
type order struct {
	mu         sync.Mutex
	floor      time.Time // no request is processed before the InitConnection that came before it
	publishes  time.Time // nor a publish before the publish that came before it
	waiting    int       // scheduled and not yet processed: InitConnections
	publishing int       // and publishes
}

// upgradeConsumer opens a consumer's socket.
func (s *Sandbox) upgradeConsumer(w http.ResponseWriter, r *http.Request) {
	f, ok := s.upgradeFault(w, r)
	if !ok {
		return
	}
	if r.URL.Query().Get("v") != "3" {
		fail(w, http.StatusNotFound, "v must be 3")
		return
	}
	acct := s.account(r.PathValue("account"))
	if acct == nil {
		fail(w, http.StatusUnauthorized, "no such account")
		return
	}
	var claims *consumerClaims
	if r.Header.Get("Authorization") != "" {
		token, ok := schemeToken(r, "jwt")
		err := errForeignToken
		if ok {
			claims, err = s.consumerOf(acct, token)
		}
		if err != nil {
			s.log.Info("consumer socket refused", "account", acct.id, "expired", errors.Is(err, jwt.ErrTokenExpired))
			fail(w, http.StatusUnauthorized, "the token is missing, wrong or expired")
			return
		}
	}
	s.converse(w, r, f, &socket{caller: caller{
		account: acct, dialect: consumerDialect, version: "3", properties: clientProperties(r),
	}}, claims, nil)
}

// upgradeBrand opens an agent's socket.
func (s *Sandbox) upgradeBrand(w http.ResponseWriter, r *http.Request) {
	f, ok := s.upgradeFault(w, r)
	if !ok {
		return
	}
	v := r.URL.Query().Get("v")
	if v != "2" && v != "2.1" {
		fail(w, http.StatusNotFound, "v must be 2 or 2.1")
		return
	}
	s.mu.Lock()
	in := s.sessionByBearer(r.PathValue("account"), r.PathValue("bearer"))
	s.mu.Unlock()
	if in == nil {
		s.log.Info("agent's socket refused", "account", r.PathValue("account"))
		fail(w, http.StatusUnauthorized, "the bearer is wrong or expired")
		return
	}
	s.converse(w, r, f, &socket{bearer: in.bearer, caller: caller{
		account: in.account, dialect: brandDialect, version: v, properties: clientProperties(r),
	}}, nil, in)
}

// upgradeFault applies the fault in force at opening and reports whether the upgrade goes on.
func (s *Sandbox) upgradeFault(w http.ResponseWriter, r *http.Request) (Fault, bool) {
	f, _ := s.faults.take("ws:upgrade")
	if !sleep(r.Context(), f.Delay) {
		return f, false
	}
	switch {
	case f.Drop:
		resetHTTP(w)
	case f.Status != 0:
		if f.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(f.RetryAfter))
		}
		fail(w, f.Status, "made on demand")
	case f.Mute:
		// The server watches for the client's leaving only where it has taken the whole request, and here it has.
		<-r.Context().Done()
	case f.Garbage:
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_, _ = conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\xff\xff\xff\xff"))
			_ = conn.Close()
		}
	default:
		return f, sleep(r.Context(), f.AnswerDelay)
	}
	return f, false
}

// converse upgrades the connection and serves the socket until it ends. A socket without claims or session must name itself.
func (s *Sandbox) converse(w http.ResponseWriter, r *http.Request, f Fault, k *socket, claims *consumerClaims, in *session) {
	upgrader := websocket.Upgrader{
		HandshakeTimeout: writeTimeout,
		CheckOrigin:      func(*http.Request) bool { return true }, // LivePerson's window lives on its customers' pages
	}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // answered by the upgrader
	}
	conn.SetReadLimit(maxFrame)
	k.s, k.conn, k.out, k.later = s, conn, newOutbox(s.maxQueued), newTimeline()
	k.opened = time.Now()
	k.convSubs, k.dialogSubs = map[string]*convSubscription{}, map[*dialog]bool{}
	k.routeSubs, k.stateSubs = map[string]bool{}, map[string]bool{}
	conn.SetPingHandler(k.pinged)
	conn.SetPongHandler(func(string) error { return k.frameFault() })

	s.sockets.add(k)
	defer s.sockets.remove(k)
	s.log.Debug("socket opened", "dialect", k.dialect, "account", k.account.id)
	var writer sync.WaitGroup
	writer.Go(k.write)

	s.mu.Lock()
	switch {
	case claims != nil:
		k.identify(claims)
	case in != nil:
		k.who = in.agent
		k.renew(in.expires)
		k.account.enter(k)
	}
	s.mu.Unlock()
	switch {
	case s.ctx.Err() != nil: // Close may have looked for open sockets before this one was among them
		k.shut(closeGoingAway, "the sandbox closes")
	case f.CloseCode != 0:
		k.shut(f.CloseCode, "made on demand")
	case f.DropAfter:
		k.cut()
	}

	k.read()

	k.out.close(0, "")
	k.later.stop()
	_ = conn.Close()
	writer.Wait()
	s.forget(k)
	s.log.Debug("socket closed", "dialect", k.dialect, "account", k.account.id)
}

// identify makes the socket that of the token's consumer. Call with Sandbox.mu held.
func (k *socket) identify(claims *consumerClaims) {
	k.who = &person{id: claims.Subject, oldID: claims.Subject}
	k.identity.Lock()
	k.expires, k.anon = claims.ExpiresAt.Time, claims.Kind == anonymousKind
	k.identity.Unlock()
	k.account.enter(k)
	var b batch
	k.s.consumerPresence(&b, k.account, k.who, "ACTIVE")
	b.send()
}

// renew sets until when the socket's token is good.
func (k *socket) renew(expires time.Time) {
	k.identity.Lock()
	defer k.identity.Unlock()
	k.expires = expires
}

// forget takes the ended socket out of everything that knows it.
func (s *Sandbox) forget(k *socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k.who == nil || !k.account.leave(k) {
		return
	}
	var b batch
	if k.who.agent {
		s.setAgentState(&b, k.account, k.who, "OFFLINE")
	} else {
		s.consumerPresence(&b, k.account, k.who, "BACKGROUND")
	}
	b.send()
}

// inspect closes the socket if its time is up. Idleness is measured by the real clock, validity by the sandbox's.
func (k *socket) inspect(now time.Time) {
	k.identity.Lock()
	expires, anon := k.expires, k.anon
	k.identity.Unlock()
	alive := time.Since(k.opened)
	switch {
	case expires.IsZero() && alive > k.s.opts.InitTimeout:
		k.shut(closeAuthenticate, "no InitConnection came")
	case !expires.IsZero() && !now.Before(expires):
		code := closeAuthenticate
		if anon {
			code = closeExtend
		}
		k.shut(code, "the token has expired")
	case alive-time.Duration(k.heard.Load()) > k.s.opts.IdleTimeout:
		k.shut(closeGoingAway, "idle")
	}
}

// read takes frames until the socket ends.
func (k *socket) read() {
	for {
		kind, data, err := k.conn.ReadMessage()
		if err != nil {
			return
		}
		if k.frameFault() != nil {
			return
		}
		if kind != websocket.TextMessage {
			k.shut(websocket.CloseUnsupportedData, "text frames only")
			continue
		}
		k.observe(true, data)
		if !k.ended.Load() { // what a client sends across a close frame is lost
			k.arrive(data)
		}
	}
}

// garbage is the frame that Fault.Garbage sends: no JSON. Whoever checks frames knows it by its text.
const garbage = `{"kind":`

// errCut says that a fault cut the socket.
var errCut = errors.New("sandbox: cut on demand")

// frameFault notes that something came, and applies the fault for that.
func (k *socket) frameFault() error {
	k.heard.Store(int64(time.Since(k.opened)))
	f, hit := k.s.faults.take("ws:idle")
	switch {
	case !hit:
	case f.CloseCode != 0:
		k.shut(f.CloseCode, "made on demand")
	case f.Garbage:
		k.send([]byte(garbage))
	case f.Mute:
		k.gagged.Store(true)
	default:
		k.cut()
		return errCut
	}
	return nil
}

// pinged answers a ping. Control frames may be written beside the writer.
func (k *socket) pinged(data string) error {
	if err := k.frameFault(); err != nil {
		return err
	}
	if !k.gagged.Load() {
		_ = k.conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(writeTimeout))
	}
	return nil
}

// write sends what is put in the outbox until that is closed.
func (k *socket) write() {
	for range k.out.wake {
		frames, last := k.out.take()
		for _, f := range frames {
			if k.gagged.Load() {
				break
			}
			_ = k.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
			if k.conn.WriteMessage(websocket.TextMessage, f) != nil {
				_ = k.conn.Close() // wakes the reader
				return
			}
			k.observe(false, f)
		}
		if last {
			k.sayGoodbye()
			return
		}
	}
}

// sayGoodbye writes the close frame, if there is one to write, and gives the peer a moment to answer it.
func (k *socket) sayGoodbye() {
	k.out.mu.Lock()
	code, reason := k.out.code, k.out.reason
	k.out.mu.Unlock()
	if code == 0 {
		return
	}
	_ = k.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(writeTimeout))
	_ = k.conn.SetReadDeadline(time.Now().Add(closeTimeout))
}

// send queues frames for the client. Who does not read what it is sent is cut off.
func (k *socket) send(frames ...[]byte) {
	if !k.out.put(frames...) {
		k.s.log.Warn("a client does not read: cut off", "dialect", k.dialect, "account", k.account.id)
		k.cut()
	}
}

// shut closes the socket with a close code, after what is queued.
func (k *socket) shut(code int, reason string) {
	k.ended.Store(true)
	k.out.close(code, reason)
}

// cut breaks the connection.
func (k *socket) cut() {
	k.ended.Store(true)
	k.out.close(0, "")
	k.gagged.Store(true)
	reset(k.conn.NetConn())
}

func (k *socket) observe(fromClient bool, data []byte) {
	if k.s.opts.OnFrame != nil {
		k.s.opts.OnFrame(Frame{FromClient: fromClient, Dialect: string(k.dialect), Data: data})
	}
}

// pace counts requests per second.
type pace struct {
	begun time.Time
	count int
}

// admit reports whether one more request fits in this second.
func (p *pace) admit(limit int) bool {
	if limit <= 0 {
		return true
	}
	if now := time.Now(); now.Sub(p.begun) >= time.Second {
		p.begun, p.count = now, 0
	}
	p.count++
	return p.count <= limit
}

// clientProperties reads what a client says of itself when it opens its socket: in a header, or as query parameters.
func clientProperties(r *http.Request) json.RawMessage {
	if header := r.Header.Get("Client-Properties"); header != "" {
		return asClientProperties([]byte(header))
	}
	known := map[string]any{}
	for _, name := range []string{
		"appId", "appVersion", "ipAddress", "deviceFamily", "os", "osVersion", "osName", "integration", "integrationVersion",
		"browser", "browserVersion", "timeZone", "deviceManufacture", "deviceModel",
	} {
		if v := r.URL.Query().Get(name); v != "" {
			known[name] = v
		}
	}
	if features := r.URL.Query()["features"]; len(features) > 0 {
		known["features"] = features
	}
	if len(known) == 0 {
		return nil
	}
	return asClientProperties(frame(known))
}

// asClientProperties gives client properties the type that they have in notifications; nil if they are no JSON object.
func asClientProperties(raw []byte) json.RawMessage {
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil || members == nil {
		return nil
	}
	members["type"] = json.RawMessage(`".ClientProperties"`)
	return frame(members)
}

// batch collects frames for sockets, so that an answer can go before what its request brought about.
type batch []delivery

type delivery struct {
	to    *socket
	frame []byte
}

func (b *batch) add(to *socket, f []byte) { *b = append(*b, delivery{to, f}) }

func (b *batch) send() {
	for _, d := range *b {
		d.to.send(d.frame)
	}
	*b = nil
}
