package liveperson

import (
	"crypto"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/gorilla/websocket"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/fault"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/feed"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/jsonhttp"
)

const (
	// MaxFrame is the maximum size in bytes of a frame from a client.
	MaxFrame = 1 << 20
	// writeTimeout bounds the writing of one frame, closeTimeout the wait for the peer's close frame.
	writeTimeout = 10 * time.Second
	closeTimeout = time.Second

	// Close codes: closeAuthenticate asks the client for a new token, closeExtend asks an anonymous client to extend its identity.
	closeAuthenticate = 4401
	closeExtend       = 4407
	closeGoingAway    = 1001
)

// A dialect is one of the two protocols on sockets.
type dialect string

const (
	consumerDialect dialect = "consumer"
	brandDialect    dialect = "brand"
)

// role returns the role of those who use the dialect, for messages.
func (d dialect) role() string {
	if d == brandDialect {
		return "agent"
	}
	return "consumer"
}

// A Frame is one text frame of a socket.
type Frame struct {
	// FromClient reports whether the client sent the frame.
	FromClient bool
	// Dialect is "consumer" or "brand".
	Dialect string
	// Data is the frame's text. The receiver must not change it.
	Data []byte
}

// A Brand is the identity provider of an account.
type Brand struct {
	// Issuer is the "iss" of its JWTs.
	Issuer string
	// Key is the *rsa.PublicKey that verifies its JWTs.
	Key crypto.PublicKey
}

// A caller is the person who makes a request, on a socket or by the Connector API.
type caller struct {
	s       *Service
	account *account
	dialect dialect

	// Guarded by Service.mu. The field who stays nil until the caller has an identity, and does not change afterwards.
	who        *person
	properties json.RawMessage // client properties
}

// A socket is one open WebSocket. A request that is still delayed when its socket ends is never processed.
//
// One goroutine reads it, one writes it, and a third runs delayed requests, if there are any. Frames are sent through the outbox,
// which never blocks, so sending is allowed while Service.mu is held.
type socket struct {
	caller
	number int64 // identifies the socket in the feed
	conn   *websocket.Conn
	bearer string // an agent's
	out    *outbox
	later  *timeline
	opened time.Time
	heard  atomic.Int64 // when the last frame arrived, as a duration since opened
	muted  atomic.Bool  // nothing more is sent
	ended  atomic.Bool  // nothing that arrives or is delayed is processed any more

	// Used by the reader and by the jobs that it has scheduled.
	order order

	identity sync.Mutex // guards expires and anon, which endExpiredSockets reads; Service.mu guards the rest of the identity
	expires  time.Time
	anon     bool

	// Guarded by Service.mu.
	convSubs   map[string]*convSubscription
	dialogSubs map[*dialog]bool
	stateSubs  map[string]bool
	ringSubs   map[string]bool
}

// order prevents requests from overtaking each other where clients could notice.
type order struct {
	mu         sync.Mutex
	floor      time.Time // when the last InitConnection is due; later requests are not processed before it
	publishes  time.Time // when the last publish is due; later publishes are not processed before it
	waiting    int       // scheduled InitConnections
	publishing int       // scheduled publishes
}

// upgradeConsumer serves a consumer's socket.
func (s *Service) upgradeConsumer(w http.ResponseWriter, r *http.Request) {
	f, ok := s.upgradeFault(w, r)
	if !ok {
		return
	}
	if v := r.URL.Query().Get("v"); v != "2" && v != "3" {
		jsonhttp.Fail(w, http.StatusNotFound, "v must be 2 or 3")
		return
	}
	acct := s.account(r.PathValue("account"))
	if acct == nil {
		jsonhttp.Fail(w, http.StatusUnauthorized, "no such account")
		return
	}
	var claims *consumerClaims
	if token, given := upgradeToken(r); given {
		var err error
		if claims, err = s.consumerOf(acct, token); err != nil {
			s.log.Info("consumer socket refused", "account", acct.id, "expired", errors.Is(err, jwt.ErrTokenExpired))
			jsonhttp.Fail(w, http.StatusUnauthorized, "the token is missing, invalid or expired")
			return
		}
	}
	s.converse(w, r, f, &socket{caller: caller{
		account: acct, dialect: consumerDialect, properties: clientProperties(r),
	}}, claims, nil)
}

// upgradeToken returns the token with which a consumer opens a socket: the last element of the path, as older clients send it, or the
// Authorization header. Without either, the socket is identified by InitConnection.
func upgradeToken(r *http.Request) (token string, given bool) {
	if token := r.PathValue("token"); token != "" {
		return token, true
	}
	token, _ = schemeToken(r, "jwt")
	return token, r.Header.Get("Authorization") != ""
}

// upgradeBrand serves an agent's socket.
func (s *Service) upgradeBrand(w http.ResponseWriter, r *http.Request) {
	f, ok := s.upgradeFault(w, r)
	if !ok {
		return
	}
	if v := r.URL.Query().Get("v"); v != "2" && v != "2.1" {
		jsonhttp.Fail(w, http.StatusNotFound, "v must be 2 or 2.1")
		return
	}
	s.mu.Lock()
	in := s.sessionByBearer(r.PathValue("account"), r.PathValue("bearer"))
	s.mu.Unlock()
	if in == nil {
		s.log.Info("agent socket refused", "account", r.PathValue("account"))
		jsonhttp.Fail(w, http.StatusUnauthorized, "the bearer is invalid or expired")
		return
	}
	s.converse(w, r, f, &socket{bearer: in.bearer, caller: caller{
		account: in.account, dialect: brandDialect, properties: clientProperties(r),
	}}, nil, in)
}

// upgradeFault applies the fault for the opening of a socket and reports whether the upgrade continues.
func (s *Service) upgradeFault(w http.ResponseWriter, r *http.Request) (fault.Fault, bool) {
	f, _ := s.opts.Faults.Take("ws:upgrade")
	if !fault.Sleep(r.Context(), f.Delay) {
		return f, false
	}
	switch {
	case f.Drop:
		fault.ResetHTTP(w)
	case f.Status != 0:
		failOnDemand(w, f)
	case f.Mute:
		<-r.Context().Done()
	case f.Garbage:
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_, _ = conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\xff\xff\xff\xff"))
			_ = conn.Close()
		}
	default:
		return f, fault.Sleep(r.Context(), f.AnswerDelay)
	}
	return f, false
}

// converse upgrades the connection and serves the socket until it ends. A socket without claims or session must identify itself by
// InitConnection.
func (s *Service) converse(w http.ResponseWriter, r *http.Request, f fault.Fault, k *socket, claims *consumerClaims, in *session) {
	upgrader := websocket.Upgrader{
		HandshakeTimeout: writeTimeout,
		CheckOrigin:      func(*http.Request) bool { return true }, // LivePerson's window runs on its customers' pages
	}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // answered by the upgrader
	}
	conn.SetReadLimit(MaxFrame)
	k.s, k.conn, k.out, k.later = s, conn, newOutbox(s.opts.MaxQueued), newTimeline()
	k.opened = time.Now()
	k.convSubs, k.dialogSubs = map[string]*convSubscription{}, map[*dialog]bool{}
	k.stateSubs, k.ringSubs = map[string]bool{}, map[string]bool{}
	conn.SetPingHandler(k.pinged)
	conn.SetPongHandler(func(string) error { return k.frameFault() })

	s.sockets.add(k)
	defer s.sockets.remove(k)
	s.log.Debug("socket opened", "dialect", k.dialect, "account", k.account.id)
	var writer sync.WaitGroup
	writer.Go(k.write)

	s.mu.Lock()
	revoked := in != nil && s.sessions[in.bearer] != in // since the upgrade, when end did not see this socket yet
	switch {
	case claims != nil:
		k.identify(claims)
	case in != nil:
		k.who = in.agent
		k.setExpiry(in.expires)
		k.account.enter(k)
	}
	s.mu.Unlock()
	switch {
	case s.ctx.Err() != nil: // CloseSockets may have run before this socket was added
		k.shut(closeGoingAway, "the sandbox closes")
	case revoked:
		k.shut(closeAuthenticate, "the login ended")
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

// identify makes the token's consumer the owner of the socket. Service.mu is held.
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

// setExpiry sets when the socket's token expires.
func (k *socket) setExpiry(expires time.Time) {
	k.identity.Lock()
	defer k.identity.Unlock()
	k.expires = expires
}

// forget removes the ended socket from its account.
func (s *Service) forget(k *socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k.who == nil || !k.account.leave(k) {
		return
	}
	var b batch
	if k.who.agent {
		s.setAgentState(&b, k.account, k.who, offline)
	} else {
		s.consumerPresence(&b, k.account, k.who, "BACKGROUND")
	}
	b.send()
}

// endIfExpired closes the socket if it is idle, not identified in time, or its token has expired. Idle time is measured by the real
// clock, expiry by Options.Now.
func (k *socket) endIfExpired(now time.Time) {
	k.identity.Lock()
	expires, anon := k.expires, k.anon
	k.identity.Unlock()
	alive := time.Since(k.opened)
	switch {
	case expires.IsZero() && alive > k.s.opts.InitTimeout:
		k.shut(closeAuthenticate, "InitConnection is missing")
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

// read handles frames until the socket ends.
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
		if !k.ended.Load() { // frames that cross a close frame are lost
			k.arrive(data)
		}
	}
}

// garbage is the frame that Fault.Garbage sends. It is not JSON; test/wire recognizes it by its text.
const garbage = `{"kind":`

// errCut reports that a fault has reset the socket.
var errCut = errors.New("sandbox: cut on demand")

// frameFault records that a frame arrived and applies the fault "ws:idle".
func (k *socket) frameFault() error {
	k.heard.Store(int64(time.Since(k.opened)))
	f, hit := k.s.opts.Faults.Take("ws:idle")
	switch {
	case !hit:
	case f.CloseCode != 0:
		k.shut(f.CloseCode, "made on demand")
	case f.Garbage:
		k.send([]byte(garbage))
	case f.Mute:
		k.muted.Store(true)
	default:
		k.cut()
		return errCut
	}
	return nil
}

// pinged answers a ping. Control frames may be written concurrently with the writer.
func (k *socket) pinged(data string) error {
	if err := k.frameFault(); err != nil {
		return err
	}
	if !k.muted.Load() {
		_ = k.conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(writeTimeout))
	}
	return nil
}

// write sends the frames of the outbox until it is closed.
func (k *socket) write() {
	for range k.out.wake {
		frames, last := k.out.take()
		for _, f := range frames {
			if k.muted.Load() {
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
			k.writeClose()
			return
		}
	}
}

// writeClose writes the close frame, if there is one, and bounds the wait for the peer's answer.
func (k *socket) writeClose() {
	k.out.mu.Lock()
	code, reason := k.out.code, k.out.reason
	k.out.mu.Unlock()
	if code == 0 {
		return
	}
	_ = k.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(writeTimeout))
	_ = k.conn.SetReadDeadline(time.Now().Add(closeTimeout))
}

// send queues frames for the client. A client that does not read its frames is disconnected.
func (k *socket) send(frames ...[]byte) {
	if !k.out.put(frames...) {
		k.s.log.Warn("client does not read; disconnected", "dialect", k.dialect, "account", k.account.id)
		k.cut()
	}
}

// shut closes the socket with a close code, after the queued frames.
func (k *socket) shut(code int, reason string) {
	k.ended.Store(true)
	k.out.close(code, reason)
}

// cut resets the connection.
func (k *socket) cut() {
	k.ended.Store(true)
	k.out.close(0, "")
	k.muted.Store(true)
	fault.Reset(k.conn.NetConn())
}

// observe reports a frame to the feed and to Options.OnFrame.
func (k *socket) observe(fromClient bool, data []byte) {
	if k.s.opts.Feed != nil {
		k.s.opts.Feed.Add("frame", feed.Frame{
			Socket: k.number, Account: k.account.id, Dialect: string(k.dialect), FromClient: fromClient, Text: feed.Cut(data),
		})
	}
	if k.s.opts.OnFrame != nil {
		k.s.opts.OnFrame(Frame{FromClient: fromClient, Dialect: string(k.dialect), Data: data})
	}
}

// clientProperties returns the client properties in the header or, if there is none, in the query parameters.
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
	return asClientProperties(jsonhttp.Encode(known))
}

// asClientProperties adds the type that client properties have in notifications; it returns nil if raw is not a JSON object.
func asClientProperties(raw []byte) json.RawMessage {
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil || members == nil {
		return nil
	}
	members["type"] = json.RawMessage(`".ClientProperties"`)
	return jsonhttp.Encode(members)
}

// A batch collects notifications, so that the answer to a request can be sent before them.
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
