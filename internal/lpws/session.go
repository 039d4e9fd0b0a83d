package lpws

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/retry"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

const (
	// retireTime is the minimum time that a replaced connection stays open, for calls that have just chosen it.
	retireTime = time.Second
	// concurrentFetches is how many dialogs of one session are read at the same time. LivePerson limits concurrent requests.
	concurrentFetches = 8
)

// sharedSession is the session of one credential, shared by all callers with that credential. It is opened once, and then has one
// connection after another. A lost connection is replaced while a caller uses the session; otherwise the session ends.
type sharedSession struct {
	p           *Pool
	key         [sha256.Size]byte
	cred        share.Credential
	dialect     dialect
	settingsKey string // Config.SettingsKey when the session was created
	tag         string // identifies the session in the log

	// Guarded by Pool.mu.
	refs      int              // callers that use the session
	counted   bool             // LivePerson has accepted it, and it is in the pool
	holder    admission.Holder // of its principal; set before counted
	idleAt    *list.Element    // in Pool.idle; nil while a caller uses it or it is not counted
	idleSince time.Time        // when it was put there

	opened    chan struct{}   // closed when the first opening has succeeded or failed
	accepted  bool            // the first opening succeeded; set before opened is closed
	principal share.Principal // likewise
	ended     chan struct{}   // closed when the session has ended

	renewal *renewal      // nil for a credential with its own token
	login   *loginRefresh // nil unless the credential is an agent's login that can be refreshed
	book    book
	fetches chan struct{} // limits concurrent fetches
	streams atomic.Int64  // large frames that are arriving

	opening sync.Mutex // held while a connection is opened after the first one; locked before mu
	opener  opener     // used by the first opening, and then with opening locked

	mu        sync.Mutex    // may be held when the locks of Pool and book are taken
	err       error         // why the session ended
	transport *transport    // nil while there is no connection
	connected chan struct{} // closed when transport is set or the session has ended
	backoff   retry.Backoff // of reopening; kept over short-lived connections
	retryAt   time.Time     // when the next attempt to reopen begins
}

// newSession returns a session that is not open yet.
func newSession(p *Pool, key [sha256.Size]byte, cred share.Credential, d dialect, settingsKey string) *sharedSession {
	s := &sharedSession{
		p: p, key: key, cred: cred, dialect: d, settingsKey: settingsKey, tag: hex.EncodeToString(key[:4]),
		opened: make(chan struct{}), ended: make(chan struct{}), connected: make(chan struct{}),
		renewal: newRenewal(d, cred, &p.cfg), login: newLoginRefresh(d, &p.cfg), fetches: make(chan struct{}, concurrentFetches),
		backoff: retry.Backoff{First: p.cfg.BackoffMin, Max: p.cfg.BackoffMax, Spread: true},
	}
	s.book.init(p.cfg.MaxConversations, p.cfg.Cache, s.opener.openOnly.Load, p.cfg.Now)
	s.opener.p, s.opener.cred, s.opener.dialect, s.opener.renewal = p, cred, d, s.renewal
	s.opener.inFrame.Store(p.cfg.InitConnection)
	s.opener.start, s.opener.streams = s.start, &s.streams
	s.opener.log = func(message string) { s.log(message) }
	return s
}

// open opens the session for the first time.
func (s *sharedSession) open() {
	if err := s.openFirst(); err != nil {
		s.p.remove(s)
		s.log("could not open a session", slog.Any("error", err))
		s.finish(err)
	}
	close(s.opened)
}

func (s *sharedSession) openFirst() error {
	end, err := s.p.cfg.Begin(s.p.ctx, s.cred)
	if err != nil {
		if s.p.ctx.Err() != nil {
			return errDraining
		}
		return err
	}
	if s.p.removeUnused(s) { // its callers have given up meanwhile
		end(false)
		return errIdle
	}
	ctx, cancel := context.WithTimeoutCause(s.p.ctx, s.p.cfg.OpenTimeout, errOpenTimeout)
	defer cancel()
	t, err := s.opener.open(ctx)
	end(err == nil)
	if err != nil {
		return err
	}
	if err = s.identify(); err == nil {
		err = s.p.accept(s)
	}
	if err != nil {
		s.discard(t, err)
		return err
	}
	s.accepted = true
	s.adopt(t)
	s.log("opened a session")
	return nil
}

// identify reads the identity from the credential, which LivePerson has accepted.
func (s *sharedSession) identify() error {
	who, err := s.dialect.principal()
	if err != nil {
		return err
	}
	s.principal = who
	s.book.identify(who, s.dialect.ids(who))
	if s.renewal != nil {
		s.renewal.bind(who.ID)
	}
	if s.expired(s.p.cfg.Now()) {
		return errExpired()
	}
	return nil
}

// start starts the reader of a transport. Frames go to the book.
func (s *sharedSession) start(t *transport) {
	s.p.wg.Go(func() {
		t.read(bookkeeper{s, t})
		s.mu.Lock()
		current := s.transport == t
		s.mu.Unlock()
		if current { // otherwise it was not adopted, and the goroutine that opened it notices
			s.lost(t)
		}
		close(t.done)
	})
}

// bookkeeper is the receiver of a session's connection.
type bookkeeper struct {
	s *sharedSession
	t *transport
}

func (k bookkeeper) notification(f *frame) {
	e := k.s.book.apply(f)
	if e.listed {
		close(k.t.listed)
	}
	k.s.startFetches(e.fetches)
}

func (k bookkeeper) event(e *lpwire.Event) (more bool) {
	k.s.startFetches(k.s.book.applyEvents([]lpwire.Event{*e}).fetches)
	return true
}

// discarded ends a connection whose list of conversations is too large: the opener then asks for the open ones only.
func (k bookkeeper) discarded(dialog string) *closeReason {
	select {
	case <-k.t.listed:
		k.s.startFetches(k.s.book.discarded(dialog))
		return nil
	default:
		return &closeReason{kind: closedTooLarge, cause: errElement}
	}
}

// adopt makes t the session's connection, unless the session or t has ended.
func (s *sharedSession) adopt(t *transport) bool {
	s.mu.Lock()
	if err := s.err; err != nil {
		s.mu.Unlock()
		s.discard(t, err)
		return false
	}
	select {
	case <-t.closing:
		// Its reader did not find it to be the session's.
		s.mu.Unlock()
		<-t.done
		s.lost(t)
		return false
	default:
	}
	s.transport = t
	close(s.connected)
	fetches := s.book.connect(t.id, t.subscription)
	s.mu.Unlock()
	s.startFetches(fetches)
	return true
}

// swap makes t the session's connection, and returns the one that it replaces, if any.
func (s *sharedSession) swap(t *transport) (old *transport, err error) {
	s.mu.Lock()
	old = s.transport
	if s.err != nil || old == nil {
		s.mu.Unlock()
		s.adopt(t)
		return nil, nil
	}
	select {
	case <-t.closing:
		s.mu.Unlock()
		<-t.done
		return nil, t.closeReason()
	default:
	}
	s.transport = t
	fetches := s.book.connect(t.id, t.subscription)
	s.mu.Unlock()
	s.startFetches(fetches)
	return old, nil
}

// retire closes a replaced connection when its calls have ended.
func (s *sharedSession) retire(t *transport) {
	begun := time.Now()
	tick := time.NewTicker(retireTime / 10)
	defer tick.Stop()
	for done := false; !done; {
		select {
		case <-tick.C:
			age := time.Since(begun)
			done = age >= s.p.cfg.CallTimeout || age >= retireTime && t.calls() == 0
		case <-s.ended:
			done = true
		case <-t.done:
			return
		}
	}
	t.close(&closeReason{kind: closedReplaced, cause: errReplaced})
	<-t.done
}

// discard closes a connection that is not the session's.
func (s *sharedSession) discard(t *transport, why error) {
	t.close(&closeReason{kind: closedLocally, cause: why})
	<-t.done
}

// usable returns why callers cannot use the session. replaceable reports whether a new session may work.
func (s *sharedSession) usable() (replaceable bool, err error) {
	select {
	case <-s.ended:
		s.mu.Lock()
		defer s.mu.Unlock()
		// An error of the opening is the answer for those that waited for it. An open session that ended meanwhile is replaced.
		return s.accepted, withKind(s.err)
	default:
	}
	if s.expired(s.p.cfg.Now()) {
		s.end(errIdentityEnded(nil))
		return false, errExpired()
	}
	return false, nil
}

// expired reports whether the credential has expired. It must be called only after the session is open.
func (s *sharedSession) expired(now time.Time) bool {
	return lpwire.Expired(s.principal.Expires, now)
}

// maintain does what is due at a time: now by the clock of expiries, mono by the clock of connections. The pool's keeper calls it.
func (s *sharedSession) maintain(now, mono time.Time) {
	select {
	case <-s.opened:
	default:
		return
	}
	if s.expired(now) {
		s.end(errIdentityEnded(nil))
		return
	}
	s.refreshLogin(mono)
	s.renewToken(now)
	s.book.expire()
	s.mu.Lock()
	t := s.transport
	s.mu.Unlock()
	if t != nil && mono.UnixNano() >= t.nextPing.Load() {
		t.nextPing.Store(mono.Add(s.p.cfg.KeepAlive).UnixNano())
		t.ping()
	}
}

// end ends the session with its calls, watches and connection, unless it has ended before.
func (s *sharedSession) end(why error) {
	s.p.remove(s)
	if t := s.finish(why); t != nil {
		t.close(&closeReason{kind: closedLocally, cause: why})
	}
}

// finish stores why the session ended, and returns the connection that it had.
func (s *sharedSession) finish(why error) *transport {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil
	}
	s.err = why
	t := s.transport
	if t == nil {
		close(s.connected)
	}
	s.transport = nil
	close(s.ended)
	s.book.end(withKind(why))
	return t
}

// lost ends the session or reopens it after a connection has ended. The connection's reader calls it, or the goroutine that was
// about to adopt the connection.
func (s *sharedSession) lost(t *transport) {
	r, age := t.closeReason(), time.Since(t.opened)
	rejected := s.renewal != nil && s.renewal.identity.endsToken(r.code) && s.renewal.reject(age)
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	if age >= s.backoff.Max { // a connection that ends sooner is no reason to reopen the next one faster
		s.backoff.Reset()
	}
	if s.transport == t {
		s.transport = nil
		s.connected = make(chan struct{})
		s.book.disconnect()
	}
	s.mu.Unlock()
	s.log("lost a connection", slog.Any("cause", r.cause), slog.Int("closeCode", r.code))
	switch {
	case r.kind == closedIdentity:
		s.end(errIdentityEnded(r.cause))
	case rejected:
		s.end(errTokensRejected)
	case s.p.removeUnused(s):
		s.end(errIdle)
	default:
		if r.kind == closedTooLarge {
			// The same request would get the same answer.
			s.book.endWatches(r.callError())
		}
		if !s.p.spawn(s.reopen) {
			s.end(errDraining)
		}
	}
}

// reopen replaces a lost connection, for as long as a caller uses the session.
func (s *sharedSession) reopen() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var failure error
	for {
		s.mu.Lock()
		pause := s.backoff.Next(nil)
		if wait := requestedWait(failure); wait > 0 {
			pause += wait // a longer one than Backoff.Max is honored too, as no caller waits for this loop
		}
		s.retryAt = time.Now().Add(pause)
		s.mu.Unlock()
		timer.Reset(pause)
		select {
		case <-timer.C:
		case <-s.ended:
			return
		}
		if s.p.removeUnused(s) {
			s.end(errIdle)
			return
		}
		failure = s.reconnect()
		switch {
		case failure == nil:
			return
		case share.Is(failure, share.TokenInvalid):
			s.end(errIdentityEnded(failure))
			return
		case share.Is(failure, share.NotAllowed), share.Is(failure, share.LPCredentialsRejected) && s.renewal != nil:
			s.end(failure)
			return
		}
		s.log("could not reopen a session", slog.Any("error", failure))
	}
}

// reconnect makes one attempt to open a connection. It succeeds at once if there is one.
func (s *sharedSession) reconnect() error {
	s.opening.Lock()
	defer s.opening.Unlock()
	s.mu.Lock()
	connected := s.transport != nil
	s.mu.Unlock()
	if connected { // a renewal was faster
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(s.p.ctx, s.p.cfg.OpenTimeout, errOpenTimeout)
	defer cancel()
	t, err := s.opener.open(ctx)
	if err != nil {
		return err
	}
	if s.adopt(t) {
		s.log("reopened a session")
	}
	return nil
}

// acquire returns the connection, and waits for one if there is none.
func (s *sharedSession) acquire(ctx context.Context) (*transport, error) {
	for {
		s.mu.Lock()
		t, connected, retryAt, err := s.transport, s.connected, s.retryAt, s.err
		s.mu.Unlock()
		switch {
		case err != nil:
			return nil, withKind(err)
		case t != nil && s.expired(s.p.cfg.Now()):
			s.end(errIdentityEnded(nil))
			continue
		case t != nil:
			return t, nil
		}
		select {
		case <-connected:
		case <-ctx.Done():
			if cause := context.Cause(ctx); cause != errTimeout {
				return nil, cause
			}
			unavailable := errUnavailable(errNoConnection)
			unavailable.RetryAfter = max(unavailable.RetryAfter, time.Until(retryAt).Round(time.Second))
			return nil, unavailable
		}
	}
}

// callContext limits ctx to the time of one call, unless it ends before that anyway.
func (s *sharedSession) callContext(ctx context.Context) (context.Context, context.CancelFunc) {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= s.p.cfg.CallTimeout {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, s.p.cfg.CallTimeout, errTimeout)
}

// call makes a request that may be repeated: on another connection if the first one is lost. It returns only successful answers.
func (s *sharedSession) call(ctx context.Context, step lpwire.Step, r request) (answer frame, err error) {
	ctx, end := s.p.cfg.Step.Begin(ctx, share.SystemLivePerson, string(step))
	defer func() { end(err) }()
	ctx, cancel := s.callContext(ctx)
	defer cancel()
	r.Type = s.dialect.requestType(r.Type)
	for attempt := 1; ; attempt++ {
		t, err := s.acquire(ctx)
		if err != nil {
			return frame{}, err
		}
		answer, _, err := t.roundTrip(ctx, r)
		if reason, ok := errors.AsType[*closeReason](err); ok {
			if reason.retryable() && attempt == 1 {
				continue
			}
			return frame{}, s.callError(reason)
		}
		if err == nil && answer.failed() {
			err = answerError(step, &answer)
			if share.Is(err, share.LPIdentityExpired) && s.identityRejected(t, err) {
				if attempt == 1 {
					continue
				}
				err = s.endTokensRejected()
			}
		}
		return answer, err
	}
}

// callOnce makes a request that must not be repeated. It is sent at most once: on another connection only if nothing was written
// on the first. It is not sent after the deadline of ctx by the wall clock, even if ctx has not ended yet. sent is false if nothing
// was done. The answer may be a failure.
func (s *sharedSession) callOnce(ctx context.Context, step lpwire.Step, r request) (answer frame, sent bool, err error) {
	ctx, end := s.p.cfg.Step.Begin(ctx, share.SystemLivePerson, string(step))
	defer func() {
		if err == nil && answer.failed() {
			end(answerError(step, &answer))
			return
		}
		end(err)
	}()
	ctx, cancel := s.callContext(ctx)
	defer cancel()
	r.Type = s.dialect.requestType(r.Type)
	r.deadline, _ = ctx.Deadline()
	for attempt := 1; ; attempt++ {
		t, err := s.acquire(ctx)
		if err != nil {
			return frame{}, false, err
		}
		answer, sent, err := t.roundTrip(ctx, r)
		if reason, ok := errors.AsType[*closeReason](err); ok {
			if !sent && reason.retryable() && attempt == 1 {
				continue
			}
			err = s.callError(reason)
		}
		if err == nil && answer.failed() {
			// LivePerson did nothing, so the request may be repeated with another token.
			if e := answerError(lpwire.StepOpen, &answer); share.Is(e, share.LPIdentityExpired) && s.identityRejected(t, e) {
				if attempt == 1 {
					continue
				}
				return frame{}, false, s.endTokensRejected()
			}
		}
		return answer, sent, err
	}
}

// callError returns the error for a call that the end of a connection has ended.
func (s *sharedSession) callError(r *closeReason) error {
	if s.renewal != nil && s.renewal.identity.endsToken(r.code) {
		return errTokensRejected
	}
	return r.callError()
}

// identityRejected handles an answer on t that LivePerson no longer accepts the identity. That ends the session, unless the server
// can obtain another token: then it ends the connection only, and another may work.
func (s *sharedSession) identityRejected(t *transport, err error) (retry bool) {
	if s.renewal == nil {
		s.end(err)
		return false
	}
	t.close(&closeReason{kind: closedReplaced, code: closeAuthenticate, cause: err})
	<-t.done
	return true
}

// endTokensRejected ends a session whose fresh tokens LivePerson rejects.
func (s *sharedSession) endTokensRejected() error {
	s.end(errTokensRejected)
	return errTokensRejected
}

// log writes a debug line about the session.
func (s *sharedSession) log(message string, attrs ...slog.Attr) {
	attrs = append(attrs, slog.String("session", s.tag), slog.String("account", s.cred.Account))
	s.p.log.LogAttrs(s.p.ctx, slog.LevelDebug, message, attrs...)
}
