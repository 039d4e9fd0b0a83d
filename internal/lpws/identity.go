package lpws

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/retry"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

const (
	// shortLived is the age below which a connection that ends because of its token counts as a rejection of that token.
	shortLived = 10 * time.Second
	// renewalPause bounds the first pause after a failed renewal; it doubles each time, up to Config.BackoffMax.
	renewalPause = time.Second
)

// issuedConsumer is the dialect of a consumer whose tokens the server obtains itself, with the account's credentials. Its session
// outlives each token and continues on another connection.
type issuedConsumer struct {
	consumer                        // with an empty token
	token    atomic.Pointer[string] // nil until the first token is obtained
}

func newIssuedConsumer(cred share.Credential) *issuedConsumer {
	return &issuedConsumer{consumer: consumer{account: cred.Account}}
}

// current returns the consumer with its current token.
func (d *issuedConsumer) current() consumer {
	c := d.consumer
	if t := d.token.Load(); t != nil {
		c.token = *t
	}
	return c
}

func (d *issuedConsumer) endpoint(inFrame bool) (string, http.Header) {
	return d.current().endpoint(inFrame)
}
func (d *issuedConsumer) initHeaders() ([]any, bool) { return d.current().initHeaders() }

// check accepts all: the server obtains the token itself.
func (*issuedConsumer) check(time.Time) error { return nil }

// principal has no expiry, since the session has none. The caller is not responsible for a malformed token.
func (d *issuedConsumer) principal() (share.Principal, error) {
	p, err := d.current().principal()
	if err != nil {
		return p, lpwire.Unreadable("a consumer's token")
	}
	p.Expires = time.Time{}
	return p, nil
}

func (*issuedConsumer) rejected() error { return errTokensRejected }

// endsIdentity is always false: another token follows. See [issuedConsumer.endsToken].
func (*issuedConsumer) endsIdentity(int) bool { return false }

// endsToken reports whether a close code means that LivePerson no longer accepts the current token.
func (d *issuedConsumer) endsToken(code int) bool { return d.consumer.endsIdentity(code) }

// renewal obtains the tokens of an issuedConsumer, and decides when the next one is due. It is safe for concurrent use.
type renewal struct {
	identity *issuedConsumer
	cred     share.Credential
	issue    func(ctx context.Context, cred share.Credential, instead string) (share.SignIn, error) // Config.Token
	now      func() time.Time

	mu         sync.Mutex
	subject    string    // the consumer that LivePerson accepted; empty until then
	next       time.Time // when to obtain the next token; zero if unknown
	running    bool
	backoff    retry.Backoff
	rejected   string // the token that LivePerson no longer accepts; empty if it accepts the current one
	rejections int    // consecutive short-lived connections that ended because of their token
}

// newRenewal returns nil for a dialect whose tokens the server does not obtain.
func newRenewal(d dialect, cred share.Credential, cfg *Config) *renewal {
	identity, ok := d.(*issuedConsumer)
	if !ok {
		return nil
	}
	return &renewal{
		identity: identity, cred: cred, issue: cfg.Token, now: cfg.Now,
		backoff: retry.Backoff{First: renewalPause, Max: max(cfg.BackoffMax, renewalPause), Spread: true},
	}
}

// obtain gets the token for the next connection. The token differs from instead, unless instead is empty.
func (r *renewal) obtain(ctx context.Context, instead string) error {
	in, err := r.issue(ctx, r.cred, instead)
	if err != nil {
		return err
	}
	if err := checkToken(in.Token); err != nil {
		return lpwire.Unreadable("a consumer's token")
	}
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if claims, err := lpwire.ReadClaims(in.Token); r.subject != "" && (err != nil || claims.Subject != r.subject) {
		return share.Errorf(share.LPCredentialsRejected, "LivePerson issued a token of another consumer than before; retry the call", nil)
	}
	r.identity.token.Store(&in.Token)
	r.next = time.Time{}
	if left := in.Expires.Sub(now); !in.Expires.IsZero() {
		// Spread over time, and early enough for several attempts.
		r.next = now.Add(left/10*6 + rand.N(max(left/100*15, 1))) // divided first: a long time must not overflow
	}
	return nil
}

// accept notes that LivePerson accepted the current token.
func (r *renewal) accept() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rejected = ""
}

// bind fixes the consumer: tokens of another one are errors from now on.
func (r *renewal) bind(subject string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.subject = subject
}

// reject notes that LivePerson ended a connection of that age because of its token. It reports whether that has happened
// repeatedly, so that another token is useless.
func (r *renewal) reject(age time.Duration) (repeatedly bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if age >= shortLived {
		r.rejections = 0
	}
	r.rejections++
	r.rejected = r.identity.current().token
	return r.rejections > 1
}

// rejectedToken returns the token that must not be used again; empty if there is none.
func (r *renewal) rejectedToken() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rejected
}

// start reports whether the next token is due. If so, the caller must call finish.
func (r *renewal) start(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running || r.next.IsZero() || now.Before(r.next) {
		return false
	}
	r.running = true
	return true
}

// finish ends a renewal. After a failure another attempt follows, while the current connection may still work.
func (r *renewal) finish(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = false
	if err == nil {
		r.backoff.Reset()
		return
	}
	r.next = r.now().Add(r.backoff.Next(nil))
}

// refreshPause is the first pause after a failed refresh of an agent's login; it doubles each time.
const refreshPause = 5 * time.Second

// loginRefresh keeps an agent's login valid. Times are those of the clock of connections. It is safe for concurrent use.
type loginRefresh struct {
	lifetime time.Duration // of the login after a refresh; 0 if unknown
	every    time.Duration

	mu        sync.Mutex
	next      time.Time // when to refresh; zero before the first call of start
	running   bool
	backoff   retry.Backoff
	refreshed time.Time // when LivePerson last refreshed the login
}

// newLoginRefresh returns nil for a dialect whose login cannot be refreshed.
func newLoginRefresh(d dialect, cfg *Config) *loginRefresh {
	login, isAgent := d.(agent)
	if !isAgent || cfg.RefreshAgent == nil || login.grant.CSRF == "" {
		return nil
	}
	l := &loginRefresh{lifetime: time.Duration(login.grant.Lifetime) * time.Second, every: cfg.RefreshEvery}
	if l.lifetime > 0 {
		l.every = min(l.every, l.lifetime/3)
	}
	l.backoff = retry.Backoff{First: min(refreshPause, l.every), Max: l.every, Spread: true}
	return l
}

// start reports whether the login must be refreshed. If so, the caller must call finish.
func (l *loginRefresh) start(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next.IsZero() { // the session has just been opened
		l.next = now.Add(l.every)
	}
	if l.running || now.Before(l.next) {
		return false
	}
	l.running = true
	return true
}

// finish ends a refresh, and reports whether the login has ended: LivePerson rejects it after its lifetime. An earlier rejection
// proves nothing, since LivePerson may still accept the login on its socket: another attempt follows. begun is when the refresh
// began, and opened when LivePerson accepted the login for the current connection.
func (l *loginRefresh) finish(opened, begun time.Time, err error) (ended bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running = false
	if err == nil {
		l.backoff.Reset()
		l.refreshed, l.next = begun, time.Now().Add(l.every)
		return false
	}
	l.next = time.Now().Add(l.backoff.Next(nil))
	if l.refreshed.After(opened) {
		opened = l.refreshed
	}
	return share.Is(err, share.TokenInvalid) && l.lifetime > 0 && !begun.Before(opened.Add(l.lifetime))
}

// refreshLogin refreshes an agent's login if that is due, and ends the session if the login has ended. now is the clock of
// connections.
func (s *sharedSession) refreshLogin(now time.Time) {
	if s.login == nil || !s.login.start(now) {
		return
	}
	refresh := func() {
		ctx, cancel := context.WithTimeout(s.p.ctx, s.p.cfg.CallTimeout)
		defer cancel()
		err := s.p.cfg.RefreshAgent(ctx, s.dialect.(agent).grant)
		opened := now // without a connection LivePerson checks the login when the next one is opened
		s.mu.Lock()
		if s.transport != nil {
			opened = s.transport.opened
		}
		s.mu.Unlock()
		if s.login.finish(opened, now, err) {
			s.end(errIdentityEnded(err))
		} else if err != nil {
			s.p.log.Info("could not refresh the login of an agent; retrying", "session", s.tag, "error", err)
		}
	}
	if !s.p.spawn(refresh) {
		s.login.finish(now, now, errDraining)
	}
}

// renewToken moves the session to a connection with the next token, if that is due and a caller uses the session.
func (s *sharedSession) renewToken(now time.Time) {
	if s.renewal == nil || !s.p.inUse(s) {
		return
	}
	s.mu.Lock()
	connected := s.transport != nil
	s.mu.Unlock()
	if !connected || !s.renewal.start(now) {
		return
	}
	if !s.p.spawn(s.replaceTransport) {
		s.renewal.finish(errDraining)
	}
}

// replaceTransport opens a connection with the next token, makes it the session's, and closes the previous one when its calls have
// ended.
func (s *sharedSession) replaceTransport() {
	s.opening.Lock()
	ctx, cancel := context.WithTimeoutCause(s.p.ctx, s.p.cfg.OpenTimeout, errOpenTimeout)
	t, err := s.opener.openInstead(ctx, s.renewal.identity.current().token)
	cancel()
	var old *transport
	if err == nil {
		old, err = s.swap(t)
	}
	s.renewal.finish(err)
	s.opening.Unlock()
	if err != nil {
		s.p.log.Warn("could not renew the token of a session; retrying", slog.String("session", s.tag),
			slog.String("account", s.cred.Account), slog.Any("error", err))
		return
	}
	s.log("renewed the token of a session")
	if old != nil {
		s.retire(old)
	}
}
