package lpws

import (
	"cmp"
	"container/list"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/filecache"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// maxSessionAttempts is how often a session may end between its opening and its first use before Pool.Session fails.
const maxSessionAttempts = 3

// Config configures a Pool. Only SocketURL is required.
type Config struct {
	// SocketURL returns the base URL of an account's sockets: "wss://host" or "ws://host", without a path. It is called before each
	// connection is opened. Errors that are *share.Error are returned to callers; others become LPUnavailable.
	SocketURL func(ctx context.Context, account string, scheme share.Scheme) (base string, err error)
	// SettingsKey identifies the current settings of an account, if they can change. A session that was opened with other settings is
	// kept for the callers that use it, is not given to further ones, and is closed when it is idle. It is called often. Default: the
	// settings never change.
	SettingsKey func(account string) string
	// Unreachable is called if a host from SocketURL does not answer, so that the host can be looked up again. Default: no call.
	Unreachable func(account string, scheme share.Scheme)
	// Token obtains a consumer token for an lp-external-consumer-id, with the server's own credentials. It may return a valid token
	// again, but not instead, which LivePerson has rejected; instead may be empty. Sessions with such tokens obtain the next one before
	// the current one expires. Default: such identities fail with MethodNotImplemented.
	Token func(ctx context.Context, cred share.Credential, instead string) (share.SignIn, error)
	// RefreshAgent keeps an agent's login valid. It is called every RefreshEvery (10 min) for each open session of an agent, and sooner
	// after a failure. If it fails with TokenInvalid, the session continues until LivePerson closes it, or until it fails so after the
	// lifetime of the login. Default: logins are not refreshed.
	RefreshAgent func(ctx context.Context, grant share.AgentGrant) error
	RefreshEvery time.Duration
	// TLS configures "wss" connections. Default: the system's root certificates.
	TLS *tls.Config
	// Logger logs sessions, by a short hash and their account. Default: no log.
	Logger *slog.Logger
	// CallTimeout bounds each request to LivePerson, including the wait for a lost connection (10 s).
	CallTimeout time.Duration
	// OpenTimeout bounds the opening of a connection (15 s).
	OpenTimeout time.Duration
	// KeepAlive is the interval between pings. A peer that sends nothing for 2.5 intervals counts as lost (30 s).
	KeepAlive time.Duration
	// IdleClose is how long an idle session stays open: one that no caller uses (5 min).
	IdleClose time.Duration
	// MaxSessions is the maximum number of sessions that LivePerson has accepted (10,000). For a further one, the session that has been
	// idle longest is closed; if none is idle, Pool.Session fails with SessionLimit. It also fails if the principal, or its account,
	// uses more than its share of sessions: see admission.Shares. Idle sessions do not count.
	MaxSessions int
	// Begin waits until a session with a credential may be opened. The pool calls end once, with whether LivePerson has accepted the
	// credential. Default: openings are not limited.
	Begin func(ctx context.Context, cred share.Credential) (end func(accepted bool), err error)
	// BackoffMin and BackoffMax bound the pause before a lost connection is reopened (1 s, 30 s). The first pause is between half of
	// BackoffMin and BackoffMin. It doubles each time, until a connection has lasted for BackoffMax. A longer Retry-After of
	// LivePerson takes precedence.
	BackoffMin, BackoffMax time.Duration
	// MaxFrame is the maximum size of one message or conversation from LivePerson, and of a frame with anything else, in bytes (4 MiB).
	// Frames with all messages of a dialog, or with all conversations, are decoded as they arrive, and may have up to 1 GiB.
	MaxFrame int64
	// Cache is the memory for the files of dialogs, which other messengers may share. Default: one of 64 MiB.
	Cache *filecache.Cache
	// MaxConversations is the maximum number of conversations that a session knows (2,000). The newest ones are kept.
	MaxConversations int
	// Grace is how long the events of a dialog may follow the answer that announces them (400 ms). The wait ends as soon as all known
	// events have arrived, so it is used only if some are hidden from the caller.
	Grace time.Duration
	// InitConnection sends a consumer's token in the first frame instead of a header. By default, that is done only if the upgrade
	// fails with 400 or 431, with which proxies reject long headers.
	InitConnection bool
	// Now is the clock for expiries. Default: time.Now.
	Now func() time.Time

	dial func(ctx context.Context, network, addr string) (net.Conn, error) // set by tests
}

// Pool keeps the sessions of all callers. It is safe for concurrent use.
type Pool struct {
	cfg    Config
	tls    atomic.Pointer[tls.Config] // Config.TLS, or what SetTLS has replaced it by
	log    *slog.Logger
	ctx    context.Context // canceled by Close; parent of all work that no single caller waits for
	cancel context.CancelFunc
	wg     sync.WaitGroup
	// All sockets share buffers, since most are idle.
	writeBuffers, readBuffers sync.Pool
	lastTransport             atomic.Uint64 // id of the newest transport

	mu       sync.Mutex // may be locked with a session's mu held, not the other way round
	closed   bool
	sessions map[[sha256.Size]byte]*sharedSession
	accepted int               // of sessions, those that LivePerson has accepted
	idle     *list.List        // of accepted sessions that no caller uses, the one that has been idle longest first
	used     *admission.Shares // of the others
}

// SetTLS replaces Config.TLS for sockets that are opened later. Open ones stay open.
func (p *Pool) SetTLS(config *tls.Config) { p.tls.Store(config) }

// New returns a Pool without sessions. The caller must close it.
func New(cfg Config) *Pool {
	cfg.RefreshEvery = cmp.Or(cfg.RefreshEvery, 10*time.Minute)
	cfg.CallTimeout = cmp.Or(cfg.CallTimeout, 10*time.Second)
	cfg.OpenTimeout = cmp.Or(cfg.OpenTimeout, 15*time.Second)
	cfg.KeepAlive = cmp.Or(cfg.KeepAlive, 30*time.Second)
	cfg.IdleClose = cmp.Or(cfg.IdleClose, 5*time.Minute)
	cfg.MaxSessions = cmp.Or(cfg.MaxSessions, 10_000)
	cfg.BackoffMin = cmp.Or(cfg.BackoffMin, time.Second)
	cfg.BackoffMax = max(cmp.Or(cfg.BackoffMax, 30*time.Second), cfg.BackoffMin)
	cfg.MaxFrame = cmp.Or(cfg.MaxFrame, 4<<20)
	cfg.MaxConversations = cmp.Or(cfg.MaxConversations, 2000)
	cfg.Grace = cmp.Or(cfg.Grace, 400*time.Millisecond)
	if cfg.Cache == nil {
		cfg.Cache = filecache.New(64 << 20)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.SettingsKey == nil {
		cfg.SettingsKey = func(string) string { return "" }
	}
	if cfg.Begin == nil {
		cfg.Begin = func(context.Context, share.Credential) (func(bool), error) { return func(bool) {}, nil }
	}
	if cfg.dial == nil {
		cfg.dial = (&net.Dialer{}).DialContext
	}
	p := &Pool{
		cfg: cfg, log: cfg.Logger, sessions: make(map[[sha256.Size]byte]*sharedSession),
		idle: list.New(), used: admission.NewShares(int64(cfg.MaxSessions), admission.ByAccount),
	}
	p.tls.Store(cfg.TLS)
	p.readBuffers.New = func() any { return new(frameBuffer) }
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.wg.Go(p.maintain)
	return p
}

// Session returns the session of a credential, and opens it if necessary. Callers with the same credential share one session, and
// concurrent callers one opening. It returns when LivePerson has accepted the credential. ctx bounds the wait, not the session. The
// caller must release the session.
//
// It fails with TokenInvalid if LivePerson does not accept the credential or if it has expired, with NotAllowed for a credential of
// another account, without asking LivePerson if the credential says so itself, with SessionLimit, LPUnavailable, LPRateLimited, LPProtocolError or ServerDraining, or with the cause of ctx's
// end. All callers that waited for an opening share its failure; the next caller tries again.
func (p *Pool) Session(ctx context.Context, cred share.Credential) (*Session, error) {
	d, err := newDialect(cred)
	if err != nil {
		return nil, err
	}
	if _, ok := d.(*issuedConsumer); ok && p.cfg.Token == nil {
		return nil, share.Errorf(share.MethodNotImplemented, "this server cannot obtain consumer tokens; call with lp-consumer-token", nil)
	}
	settings := p.cfg.SettingsKey(cred.Account)
	key := keyOf(cred, settings)
	for attempt := 1; ; attempt++ {
		s, err := p.use(key, cred, d, settings)
		if err != nil {
			return nil, err
		}
		select {
		case <-s.opened:
		case <-ctx.Done():
			p.release(s)
			return nil, context.Cause(ctx)
		}
		replaceable, err := s.usable()
		if err == nil {
			return &Session{s: s, caller: cred.Caller}, nil
		}
		p.release(s)
		if !replaceable || attempt == maxSessionAttempts {
			if share.Is(err, share.LPIdentityExpired) {
				err = d.rejected()
			}
			return nil, err
		}
		// The session ended between two calls. It is no longer in the pool, so the next attempt opens another one.
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
}

// Opened reports whether LivePerson has accepted the credential, so that Session waits for nothing.
func (p *Pool) Opened(cred share.Credential) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sessions[keyOf(cred, p.cfg.SettingsKey(cred.Account))]
	return s != nil && s.counted
}

func keyOf(cred share.Credential, settings string) [sha256.Size]byte {
	var buf [1024]byte // most tokens fit
	text := append(append(buf[:0], cred.Scheme...), 0)
	text = append(append(text, cred.Account...), 0)
	text = append(append(text, cred.Secret...), 0)
	return sha256.Sum256(append(text, settings...))
}

// End ends the session of a credential, if there is one. Its calls and watches fail with LPIdentityExpired. Sessions with earlier
// settings end too.
func (p *Pool) End(cred share.Credential) {
	var ending []*sharedSession
	p.mu.Lock()
	for _, s := range p.sessions {
		if c := &s.cred; c.Scheme == cred.Scheme && c.Account == cred.Account && c.Secret == cred.Secret {
			ending = append(ending, s)
		}
	}
	p.mu.Unlock()
	for _, s := range ending {
		s.end(errSignedOut)
	}
}

// use returns the session with that key, and creates it if there is none. The caller must release it.
func (p *Pool) use(key [sha256.Size]byte, cred share.Credential, d dialect, settings string) (*sharedSession, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errDraining
	}
	s := p.sessions[key]
	if s == nil {
		if err := d.check(p.cfg.Now()); err != nil {
			return nil, err
		}
		s = newSession(p, key, cred, d, settings)
		p.sessions[key] = s
		p.wg.Go(s.open)
	} else if s.refs == 0 && s.counted {
		if err := p.occupy(s); err != nil {
			return nil, err
		}
	}
	s.refs++
	return s, nil
}

// accept counts a session that LivePerson has just accepted. For one too many the session that has been idle longest is closed.
func (p *Pool) accept(s *sharedSession) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sessions[s.key] != s {
		return errIdle // it was ended meanwhile, for a reason that it has already
	}
	s.holder = admission.HolderOf(s.principal)
	if s.refs > 0 && !p.used.Within(s.holder, 1) && p.used.Free() > 0 { // before another session is evicted
		return errSessionShare()
	}
	if p.accepted >= p.cfg.MaxSessions && !p.evict() {
		return errSessionLimit()
	}
	if s.refs == 0 { // its callers have given up meanwhile
		p.rest(s)
	} else if err := p.occupy(s); err != nil {
		return err
	}
	s.counted = true
	p.accepted++
	return nil
}

// occupy counts a session that a caller begins to use. It must be called with mu held, as all functions down to forget.
func (p *Pool) occupy(s *sharedSession) error {
	if !p.used.Fits(s.holder, 1) {
		return errSessionShare()
	}
	p.used.Take(s.holder, 1)
	if s.idleAt != nil {
		p.idle.Remove(s.idleAt)
		s.idleAt = nil
	}
	return nil
}

// rest begins the idle time of a session.
func (p *Pool) rest(s *sharedSession) {
	s.idleSince = p.cfg.Now()
	s.idleAt = p.idle.PushBack(s)
}

// evict removes the session that has been idle longest, and reports whether there was one.
func (p *Pool) evict() bool {
	oldest := p.idle.Front()
	if oldest == nil {
		return false
	}
	s := oldest.Value.(*sharedSession)
	p.removeLocked(s)
	p.wg.Go(func() { s.end(errIdle) })
	return true
}

// release ends the use of a session by one caller.
func (p *Pool) release(s *sharedSession) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.refs--; s.refs == 0 && s.counted {
		p.used.Take(s.holder, -1)
		p.rest(s)
	}
}

// retain adds a use of a session that the caller uses already.
func (p *Pool) retain(s *sharedSession) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.refs++
}

// inUse reports whether a caller uses the session.
func (p *Pool) inUse(s *sharedSession) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return s.refs > 0
}

// removeUnused removes the session if no caller uses it or the pool is closed, and reports whether it did.
func (p *Pool) removeUnused(s *sharedSession) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.refs > 0 && !p.closed {
		return false
	}
	p.removeLocked(s)
	return true
}

// remove removes a session, so that no further caller gets it.
func (p *Pool) remove(s *sharedSession) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.removeLocked(s)
}

func (p *Pool) removeLocked(s *sharedSession) {
	if p.sessions[s.key] == s {
		delete(p.sessions, s.key)
	}
	if !s.counted {
		return
	}
	s.counted = false
	p.accepted--
	if s.refs > 0 { // they notice when they use it
		p.used.Take(s.holder, -1)
	} else {
		p.idle.Remove(s.idleAt)
		s.idleAt = nil
	}
}

// spawn runs f on a goroutine that Close waits for. It reports false if the pool is closed.
func (p *Pool) spawn(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.wg.Go(f)
	return true
}

// Len returns the number of sessions, including those that are being opened.
func (p *Pool) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.sessions)
}

// Close ends all sessions and watches with ServerDraining, and waits for all goroutines of the pool. That takes about a second at
// most, unless a function of Config ignores its context. It may be called more than once.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	all := p.appendSessions(nil)
	p.mu.Unlock()
	for _, s := range all {
		s.end(errDraining)
	}
	p.cancel()
	p.wg.Wait()
}

// appendSessions must be called with mu held.
func (p *Pool) appendSessions(to []*sharedSession) []*sharedSession {
	for _, s := range p.sessions {
		to = append(to, s)
	}
	return to
}

// maintain pings connections, renews tokens, ends idle and expired sessions, and drops cached state. One goroutine for all sessions
// saves several kilobytes for each.
func (p *Pool) maintain() {
	period := min(max(min(p.cfg.KeepAlive, p.cfg.IdleClose)/8, time.Millisecond), time.Second)
	tick := time.NewTicker(period)
	defer tick.Stop()
	var all []*sharedSession
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-tick.C:
		}
		now := p.cfg.Now()
		p.mu.Lock()
		all = p.appendSessions(all[:0])
		p.mu.Unlock()
		for _, s := range all {
			if p.removeIdle(s, now) {
				s.end(errIdle)
				continue
			}
			s.maintain(now, time.Now())
		}
		clear(all)
	}
}

// removeIdle removes a session that has been idle for IdleClose, or that is idle and has outdated settings. It reports whether it
// did.
func (p *Pool) removeIdle(s *sharedSession, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.idleAt == nil {
		return false
	}
	if now.Sub(s.idleSince) < p.cfg.IdleClose && s.settingsKey == p.cfg.SettingsKey(s.cred.Account) {
		return false
	}
	p.removeLocked(s)
	return true
}
