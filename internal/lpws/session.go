package lpws

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A link is a session as all of its callers share it: one credential, and one connection after another. It is opened once. A
// connection that is lost is replaced while anybody holds the link; otherwise the link leaves the pool with it.
type link struct {
	p    *Pool
	key  [sha256.Size]byte
	cred share.Credential
	d    dialect
	// under names the settings that it was opened under.
	under string
	tag   string // names the session in the log

	refs      int       // guarded by Pool.mu
	idleSince time.Time // guarded by Pool.mu

	opened   chan struct{}   // closed when the first opening has succeeded or failed
	ended    chan struct{}   // closed when the link has ended
	accepted bool            // the first opening has succeeded; set before opened is closed
	who      share.Principal // likewise; written once, under mu

	nextRefresh time.Time // touched only by the keeper

	inFrame  bool        // the credential goes in a frame; touched only by the goroutine that opens
	openOnly atomic.Bool // all conversations would be more than a frame holds

	opening sync.Mutex // held by who opens a connection once the link is open; taken before mu

	mu   sync.Mutex    // may be held when Pool.mu is taken
	err  error         // why it ended
	conn *conn         // nil: there is none now
	up   chan struct{} // closed when there is a conn, or will never be
	book book

	renewal renewal // of a held identity
}

// open opens the link for the first time.
func (l *link) open() {
	ctx, cancel := context.WithTimeoutCause(l.p.ctx, l.p.cfg.OpenTimeout, errOpenTimeout)
	defer cancel()
	c, err := l.connect(ctx)
	if err == nil {
		// Now LivePerson has accepted the credential, and what it says is true.
		var who share.Principal
		if who, err = l.d.principal(); err == nil {
			l.mu.Lock()
			l.who = who
			l.mu.Unlock()
			if l.expired(l.p.cfg.Now()) {
				err = errExpired()
			}
		}
		if err != nil {
			l.discard(c, err)
		}
	}
	if err != nil {
		l.p.forget(l)
		l.log("a session could not be opened", slog.Any("error", err))
		l.finish(err)
		close(l.opened)
		return
	}
	l.p.mu.Lock()
	if l.refs == 0 {
		l.idleSince = l.p.cfg.Now() // all who waited have gone
	}
	l.p.mu.Unlock()
	l.accepted = true
	l.adopt(c)
	l.log("a session was opened")
	close(l.opened)
}

// adopt makes c the link's connection, unless the link has ended or c has died already.
func (l *link) adopt(c *conn) bool {
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		l.discard(c, l.err)
		return false
	}
	select {
	case <-c.dying:
		// Its reader has buried it, or is about to, and has not found it here.
		l.mu.Unlock()
		<-c.done
		l.lost(c)
		return false
	default:
	}
	l.conn = c
	close(l.up)
	l.book.connected(l)
	l.mu.Unlock()
	return true
}

// discard closes a connection that is not the link's.
func (l *link) discard(c *conn, why error) {
	c.end(&death{kind: deathOurs, text: why})
	<-c.done
}

// usable says whether the link serves callers: if not, why, and whether a new one may.
func (l *link) usable() (again bool, err error) {
	select {
	case <-l.ended:
		l.mu.Lock()
		defer l.mu.Unlock()
		// Before it was open, its end is the answer. Later, it is the end of something that this caller had no part in.
		return l.accepted, l.endError(l.err)
	default:
	}
	if l.expired(l.p.cfg.Now()) {
		l.end(errIdentityEnded(nil))
		return false, errExpired()
	}
	return false, nil
}

// expired reports whether the credential's time is up. Only for a link that was opened.
func (l *link) expired(now time.Time) bool {
	return !l.who.Expires.IsZero() && !now.Before(l.who.Expires)
}

// renewLogin keeps an agent's login alive, when it is time to.
func (l *link) renewLogin(mono time.Time) {
	d, isAgent := l.d.(agent)
	cfg := &l.p.cfg
	if !isAgent || cfg.RefreshAgent == nil || d.grant.CSRF == "" {
		return
	}
	every := cfg.RefreshEvery
	if life := time.Duration(d.grant.Lifetime) * time.Second; life > 0 {
		every = min(every, life/3)
	}
	if l.nextRefresh.IsZero() {
		l.nextRefresh = mono.Add(every)
	}
	if mono.Before(l.nextRefresh) {
		return
	}
	l.nextRefresh = mono.Add(every)
	l.p.spawn(func() {
		ctx, cancel := context.WithTimeout(l.p.ctx, cfg.CallTimeout)
		defer cancel()
		switch err := cfg.RefreshAgent(ctx, d.grant); {
		case share.Is(err, share.TokenInvalid):
			l.end(errIdentityEnded(nil))
		case err != nil:
			l.p.log.Info("an agent's login could not be refreshed", "session", l.tag, "error", plain(err))
		}
	})
}

// inspect is the keeper's look at a link: now by the clock of expiries, mono by that of sockets.
func (l *link) inspect(now, mono time.Time) {
	select {
	case <-l.opened:
	default:
		return
	}
	if l.expired(now) {
		l.end(errIdentityEnded(nil))
		return
	}
	l.renewLogin(mono)
	l.renewToken(now)
	l.mu.Lock()
	c := l.conn
	l.book.expire(now)
	l.mu.Unlock()
	if c != nil && mono.UnixNano() >= c.nextPing.Load() {
		c.nextPing.Store(mono.Add(l.p.cfg.KeepAlive).UnixNano())
		c.ping()
	}
}

// end ends the link: its calls, its watches, its connection. Only the first end counts.
func (l *link) end(why error) {
	l.p.forget(l)
	if c := l.finish(why); c != nil {
		c.end(&death{kind: deathOurs, text: why})
	}
}

// finish notes the link's end, and returns the connection that it had.
func (l *link) finish(why error) *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return nil
	}
	l.err = why
	c := l.conn
	if c == nil {
		close(l.up)
	}
	l.conn = nil
	close(l.ended)
	l.book.ended(why)
	return c
}

// lost is called when a connection has died: by its reader, or by who was about to make it the link's.
func (l *link) lost(c *conn) {
	d := c.whyDead()
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return
	}
	rejected := false
	if h, ok := l.d.(*held); ok && h.consumer.endsIdentity(d.code) {
		rejected = !l.struck(h, c)
	}
	if l.conn == c {
		l.conn = nil
		l.up = make(chan struct{})
		l.book.disconnected()
	}
	l.mu.Unlock()
	l.log("a connection was lost", slog.Any("cause", d.text), slog.Int("closeCode", d.code))
	switch {
	case d.kind == deathIdentity:
		l.end(errIdentityEnded(d.text))
	case rejected:
		l.end(errRejected)
	case !l.p.wanted(l):
		l.end(errIdle)
	default:
		if d.kind == deathTooBig {
			// The same question would bring the same answer.
			l.mu.Lock()
			l.book.endWatches(d.asError())
			l.mu.Unlock()
		}
		if !l.p.spawn(l.reopen) {
			l.end(errDraining)
		}
	}
}

// buried is what a connection's reader calls at its end.
func (l *link) buried(c *conn) {
	l.mu.Lock()
	mine := l.conn == c
	l.mu.Unlock()
	if mine { // else it has not been adopted, and who opens it will see
		l.lost(c)
	}
}

// reopen replaces a connection that was lost, for as long as anybody holds the link.
func (l *link) reopen() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for wait := l.p.cfg.BackoffMin; ; wait = min(2*wait, l.p.cfg.BackoffMax) {
		timer.Reset(wait/2 + rand.N(wait/2+1))
		select {
		case <-timer.C:
		case <-l.ended:
			return
		}
		if !l.p.wanted(l) {
			l.end(errIdle)
			return
		}
		again, err := l.reconnect()
		switch {
		case !again:
			return
		case share.Is(err, share.TokenInvalid):
			l.end(errIdentityEnded(err))
			return
		case share.Is(err, share.NotAllowed), share.Is(err, share.LPCredentialsRejected) && l.cred.Scheme == share.ExternalConsumerID:
			l.end(err)
			return
		}
		l.log("a session could not be reopened", slog.Any("error", err))
	}
}

// reconnect makes one try to open a lost connection again. again is false when there is nothing left to do.
func (l *link) reconnect() (again bool, err error) {
	l.opening.Lock()
	defer l.opening.Unlock()
	l.mu.Lock()
	has := l.conn != nil
	l.mu.Unlock()
	if has { // a renewal was there first
		return false, nil
	}
	ctx, cancel := context.WithTimeoutCause(l.p.ctx, l.p.cfg.OpenTimeout, errOpenTimeout)
	defer cancel()
	c, err := l.connect(ctx)
	if err != nil {
		return true, err
	}
	if l.adopt(c) {
		l.log("a session was reopened")
	}
	return false, nil
}

// errRefusedUpgrade is an HTTP answer other than 101.
type errRefusedUpgrade struct {
	status     int
	retryAfter time.Duration
}

func (e *errRefusedUpgrade) Error() string {
	return fmt.Sprintf("the upgrade was answered %d", e.status)
}

// connect opens a connection on which LivePerson has accepted the credential and told the caller's conversations.
func (l *link) connect(ctx context.Context) (*conn, error) {
	if h, ok := l.d.(*held); ok {
		l.mu.Lock()
		unfit := l.renewal.unfit
		l.mu.Unlock()
		return l.connectHeld(ctx, h, unfit)
	}
	return l.connectOnce(ctx)
}

// connectOnce is connect with the token that there is.
func (l *link) connectOnce(ctx context.Context) (*conn, error) {
	c, err := l.greet(ctx)
	if d, ok := errors.AsType[*death](err); ok && d.kind == deathTooBig && !l.openOnly.Load() {
		l.openOnly.Store(true)
		l.log("all conversations do not fit in a frame; only the open ones are asked for")
		c, err = l.greet(ctx)
	}
	if _, has := l.d.initHeaders(); has && !l.inFrame {
		if e, ok := errors.AsType[*errRefusedUpgrade](err); ok && (e.status == http.StatusBadRequest || e.status == http.StatusRequestHeaderFieldsTooLarge) {
			// Something before LivePerson does not let the header through.
			l.inFrame = true
			if c, err = l.greet(ctx); err != nil {
				l.inFrame = false
			}
		}
	}
	return c, l.openError(ctx, err)
}

// openError is err for those who wait for the session.
func (l *link) openError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*errRefusedUpgrade](err); ok {
		switch {
		case e.status == http.StatusUnauthorized || e.status == http.StatusForbidden:
			return l.d.refused()
		case e.status == http.StatusNotFound:
			return share.Errorf(share.NotAllowed, "LivePerson has no messaging for this account", e)
		case e.status == http.StatusTooManyRequests:
			return &share.Error{
				Kind: share.LPRateLimited, Message: "LivePerson asks for fewer sessions", RetryAfter: max(e.retryAfter, lpwire.ThrottledWait), Cause: e,
			}
		case e.status >= 500:
			unavailable := errUnavailable(e)
			unavailable.RetryAfter = max(e.retryAfter, lpwire.UnavailableWait)
			return unavailable
		}
		return share.Errorf(share.LPProtocolError, "LivePerson did not open a WebSocket; please report it", e)
	}
	if d, ok := errors.AsType[*death](err); ok {
		if _, ok := l.d.(*held); d.kind == deathIdentity || ok && (consumer{}).endsIdentity(d.code) {
			return l.d.refused()
		}
		return d.asError()
	}
	if ctx.Err() != nil {
		if l.p.ctx.Err() != nil {
			return errDraining
		}
		return context.Cause(ctx)
	}
	if share.Is(err, share.LPIdentityExpired) {
		return l.d.refused()
	}
	if share.KindOf(err) != "" {
		return err
	}
	return errUnavailable(plain(err))
}

// greet opens a socket and has the first exchange on it. It returns no error that may be shown: see openError.
func (l *link) greet(ctx context.Context) (*conn, error) {
	base, err := l.p.cfg.SocketURL(ctx, l.cred.Account, l.socketScheme())
	if err != nil {
		return nil, err
	}
	ws, err := l.dial(ctx, strings.TrimRight(base, "/"))
	if err != nil {
		if tell := l.p.cfg.Unreachable; tell != nil && ctx.Err() == nil && (share.KindOf(err) == "" || share.Is(err, share.LPUnavailable)) {
			tell(l.cred.Account, l.socketScheme())
		}
		return nil, err
	}
	keepAlive := l.p.cfg.KeepAlive
	c := newConn(ws, l.p, keepAlive*5/2)
	c.ends, c.notify, c.buried = l.d.endsIdentity, l.notified, l.buried
	c.nextPing.Store(time.Now().Add(keepAlive/2 + rand.N(keepAlive/2+1)).UnixNano()) // not all at once after an outage
	l.p.wg.Go(c.read)
	if err := l.introduce(ctx, c); err != nil {
		l.discard(c, errIdle)
		return nil, err
	}
	return c, nil
}

// introduce has the credential accepted on a new socket.
func (l *link) introduce(ctx context.Context, c *conn) error {
	if headers, has := l.d.initHeaders(); has && l.inFrame {
		// Nothing else may be sent before the answer.
		answer, _, err := c.do(ctx, request{Type: reqInit, Headers: headers})
		if err != nil {
			return err
		}
		if answer.failed() {
			if answer.Code == 400 || answer.Code == 403 {
				return l.d.refused()
			}
			return answerError(lpwire.StepOpen, &answer)
		}
	}
	answer, _, err := c.do(ctx, request{Type: l.d.name(reqSubscribeConvs), Body: l.d.subscription(l.openOnly.Load())})
	if err != nil {
		return err
	}
	if answer.failed() {
		if answer.Code == 403 {
			return share.Errorf(share.NotAllowed, "LivePerson does not let the identity read its conversations", nil)
		}
		return answerError(lpwire.StepOpen, &answer)
	}
	l.mu.Lock()
	l.book.subscription = subscriptionID(&answer)
	l.mu.Unlock()
	select {
	case <-c.snapshot:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.done:
		return c.death
	}
}

// socketScheme says whose socket it is: a held identity is a consumer.
func (l *link) socketScheme() share.Scheme {
	if l.cred.Scheme == share.ExternalConsumerID {
		return share.ConsumerToken
	}
	return l.cred.Scheme
}

// dial opens the socket.
func (l *link) dial(ctx context.Context, base string) (*websocket.Conn, error) {
	path, header := l.d.socket(l.inFrame)
	var stop func() bool
	dialer := websocket.Dialer{
		Proxy:           http.ProxyFromEnvironment,
		TLSClientConfig: l.p.cfg.TLS,
		ReadBufferSize:  1 << 10,  // held by each socket for its life
		WriteBufferSize: 64 << 10, // borrowed for each frame; a message with its preview stays one frame
		WriteBufferPool: &l.p.writeBuffers,
		NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err == nil {
				// The dialer itself heeds a cancelled context only until it is connected.
				stop = context.AfterFunc(ctx, func() { _ = nc.Close() })
			}
			return nc, err
		},
	}
	ws, resp, err := dialer.DialContext(ctx, base+path, header)
	if stop != nil && !stop() && err == nil {
		_ = ws.Close()
		return nil, context.Cause(ctx)
	}
	if err == nil {
		return ws, nil
	}
	if resp != nil && errors.Is(err, websocket.ErrBadHandshake) {
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return nil, &errRefusedUpgrade{resp.StatusCode, time.Duration(min(max(seconds, 0), 3600)) * time.Second}
	}
	return nil, plain(err)
}

// acquire waits for a connection.
func (l *link) acquire(ctx context.Context) (*conn, error) {
	for {
		l.mu.Lock()
		c, up, err := l.conn, l.up, l.err
		l.mu.Unlock()
		switch {
		case err != nil:
			return nil, l.endError(err)
		case c != nil && l.expired(l.p.cfg.Now()):
			l.end(errIdentityEnded(nil))
			continue
		case c != nil:
			return c, nil
		}
		select {
		case <-up:
		case <-ctx.Done():
			if cause := context.Cause(ctx); cause != errTimeout {
				return nil, cause
			}
			return nil, errUnavailable(errors.New("the connection was lost and is not back yet"))
		}
	}
}

// endError is the link's end as a call sees it.
func (l *link) endError(err error) error {
	if share.KindOf(err) == "" {
		return errUnavailable(err)
	}
	return err
}

// ask asks a question that may be asked twice: over a fresh connection if the first one is lost. Its answer is a success.
func (l *link) ask(ctx context.Context, s lpwire.Step, r request) (frame, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, l.p.cfg.CallTimeout, errTimeout)
	defer cancel()
	r.Type = l.d.name(r.Type)
	for try := 1; ; try++ {
		c, err := l.acquire(ctx)
		if err != nil {
			return frame{}, err
		}
		answer, _, err := c.do(ctx, r)
		if d, ok := errors.AsType[*death](err); ok {
			if d.again() && try == 1 {
				continue
			}
			return frame{}, l.deathError(d)
		}
		if err == nil && answer.failed() {
			err = answerError(s, &answer)
			if share.Is(err, share.LPIdentityExpired) && l.identityOver(c, err) {
				if try == 1 {
					continue
				}
				err = l.overAndOver()
			}
		}
		return answer, err
	}
}

// deathError is a connection's death for the caller of a call that it ended, once another connection has not helped.
func (l *link) deathError(d *death) error {
	if h, ok := l.d.(*held); ok && h.consumer.endsIdentity(d.code) {
		return errRejected
	}
	return d.asError()
}

// overAndOver is the condition of a held identity that LivePerson does not accept in spite of a fresh token.
func (l *link) overAndOver() error {
	l.end(errRejected)
	return errRejected
}

// tell has something done that must not be done twice. It is sent at most once: again only where it was certainly never
// written. sent is false if nothing was done.
func (l *link) tell(ctx context.Context, r request) (answer frame, sent bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, l.p.cfg.CallTimeout, errTimeout)
	defer cancel()
	r.Type = l.d.name(r.Type)
	for try := 1; ; try++ {
		c, err := l.acquire(ctx)
		if err != nil {
			return frame{}, false, err
		}
		answer, sent, err := c.do(ctx, r)
		if d, ok := errors.AsType[*death](err); ok {
			if !sent && d.again() && try == 1 {
				continue
			}
			err = l.deathError(d)
		}
		if err == nil && answer.failed() {
			// It says no, so nothing was done, and it may be done over another connection.
			if e := answerError(lpwire.StepOpen, &answer); share.Is(e, share.LPIdentityExpired) && l.identityOver(c, e) {
				if try == 1 {
					continue
				}
				return frame{}, false, l.overAndOver()
			}
		}
		return answer, sent, err
	}
}

// log writes a line about the session.
func (l *link) log(message string, attrs ...slog.Attr) {
	attrs = append(attrs, slog.String("session", l.tag), slog.String("account", l.cred.Account))
	l.p.log.LogAttrs(l.p.ctx, slog.LevelDebug, message, attrs...)
}
