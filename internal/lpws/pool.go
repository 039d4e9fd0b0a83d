package lpws

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Config says how a Pool behaves. Only SocketURL is required.
type Config struct {
	// SocketURL returns where an account's sockets are: "wss://host" or "ws://host", without a path. It is asked before each
	// opening. Its errors are passed on if they are *share.Error, and are LPUnavailable otherwise.
	SocketURL func(ctx context.Context, account string, scheme share.Scheme) (base string, err error)
	// Under names the settings that sessions of an account are opened under now, if they can change. A session that was opened under
	// others goes on for those who hold it, is given to nobody else, and is closed as soon as nobody holds it. It is asked often.
	// Default: they never change.
	Under func(account string) string
	// Unreachable is told when a host that SocketURL gave does not answer, so that it can be looked up anew. Default: nothing.
	Unreachable func(account string, scheme share.Scheme)
	// Token gets a consumer token for an lp-external-consumer-id: of a consumer for whom the server's own credentials vouch. One that
	// lives will do, but for instead, which is not wanted any more, or is empty. Such sessions get the next token before it ends, and
	// outlive it. Default: there are none, and the identity is MethodNotImplemented.
	Token func(ctx context.Context, cred share.Credential, instead string) (share.SignIn, error)
	// RefreshAgent keeps an agent's login alive; it is called every RefreshEvery (default 10 min) for each agent's session that is
	// open, and ends the session by TokenInvalid. Default: logins end when they end.
	RefreshAgent func(ctx context.Context, grant share.AgentGrant) error
	RefreshEvery time.Duration
	// TLS is for "wss"; nil: the system's roots.
	TLS *tls.Config
	// Logger hears of sessions by a short hash and their account. Default: silent.
	Logger *slog.Logger
	// CallTimeout bounds each question to LivePerson, waiting for a lost connection included. Default 10 s.
	CallTimeout time.Duration
	// OpenTimeout bounds the opening of a session. Default 15 s.
	OpenTimeout time.Duration
	// KeepAlive is how often a socket is pinged. A peer that is silent for two and a half times as long is given up. Default 30 s.
	KeepAlive time.Duration
	// IdleClose is how long a session stays open that nobody holds. Default 5 min.
	IdleClose time.Duration
	// MaxSessions is how many sessions there may be, idle ones included; beyond it there is SessionLimit. Default 10,000.
	MaxSessions int
	// BackoffMin and BackoffMax bound the wait before a lost connection is opened again: the first wait is between half of
	// BackoffMin and BackoffMin, and it doubles with each failure. Defaults 1 s and 30 s.
	BackoffMin, BackoffMax time.Duration
	// MaxFrame is the largest frame that LivePerson may send, in bytes; a larger one ends the connection. LivePerson sends the
	// messages of a dialog in one frame, with previews of up to 30 KB each, so this bounds how long a dialog can be listed.
	// Default 4 MiB.
	MaxFrame int64
	// MaxConversations is how many conversations are known of each session, the newest first. Default 2,000.
	MaxConversations int
	// Grace is how long the messages of a dialog may lag behind the answer that announces them. It is waited only where messages
	// are known to be missing, so that it costs time only where some are hidden from the caller. Default 400 ms.
	Grace time.Duration
	// InitConnection sends a consumer's token in the first frame rather than in a header. Without it that is done only where
	// the opening is answered 400 or 431, as by proxies that do not pass such a header.
	InitConnection bool
	// Now is the clock for expiries. Default time.Now.
	Now func() time.Time
}

// A Pool keeps the sessions of all callers. It is safe for concurrent use.
type Pool struct {
	cfg    Config
	log    *slog.Logger
	ctx    context.Context // ends with Close; the parent of everything that no caller waits for
	cancel context.CancelFunc
	wg     sync.WaitGroup
	// Buffers are shared by all sockets, since most are idle.
	writeBuffers, readBuffers sync.Pool

	mu     sync.Mutex // a link's may be held when it is taken, never the other way round
	closed bool
	links  map[[sha256.Size]byte]*link
}

// New returns a Pool without sessions. Who makes one closes it.
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
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Under == nil {
		cfg.Under = func(string) string { return "" }
	}
	p := &Pool{cfg: cfg, log: cfg.Logger, links: make(map[[sha256.Size]byte]*link)}
	p.readBuffers.New = func() any { return new(bytes.Buffer) }
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.wg.Go(p.keep)
	return p
}

// Session returns the session of a credential, opening it if need be; callers with the same credential share one, and one
// opening however many come at once. It returns when LivePerson has accepted the credential. ctx bounds the wait, not the
// session. The caller releases what it gets.
//
// It fails with TokenInvalid where LivePerson does not accept the credential, or where that has expired since; NotAllowed where it
// is of another account; SessionLimit, LPUnavailable, LPRateLimited, LPProtocolError, ServerDraining, and with ctx's cause.
// A failure is shared by those who waited for it, and the next caller tries anew.
func (p *Pool) Session(ctx context.Context, cred share.Credential) (*Session, error) {
	d, err := newDialect(cred)
	if err != nil {
		return nil, err
	}
	if _, ok := d.(*held); ok && p.cfg.Token == nil {
		return nil, share.Errorf(share.MethodNotImplemented, "this server gets no tokens for consumers by their ids; call with lp-consumer-token", nil)
	}
	under := p.cfg.Under(cred.Account)
	key := keyOf(cred, under)
	for try := 1; ; try++ {
		l, err := p.hold(key, cred, d, under)
		if err != nil {
			return nil, err
		}
		select {
		case <-l.opened:
		case <-ctx.Done():
			p.release(l)
			return nil, context.Cause(ctx)
		}
		again, err := l.usable()
		if err == nil {
			return &Session{l: l, caller: cred.Caller}, nil
		}
		p.release(l)
		if !again || try == maxSessionTries {
			if share.Is(err, share.LPIdentityExpired) {
				err = d.refused()
			}
			return nil, err
		}
		// It ended between two calls. It has left the pool, so the next round begins a new one.
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
}

func keyOf(cred share.Credential, under string) [sha256.Size]byte {
	return sha256.Sum256([]byte(string(cred.Scheme) + "\x00" + cred.Account + "\x00" + cred.Secret + "\x00" + under))
}

// End ends the session of a credential, if there is one, with all that runs on it: calls and watches fail with LPIdentityExpired.
// Sessions that were opened under earlier settings are ended too.
func (p *Pool) End(cred share.Credential) {
	var ending []*link
	p.mu.Lock()
	for _, l := range p.links {
		if c := &l.cred; c.Scheme == cred.Scheme && c.Account == cred.Account && c.Secret == cred.Secret {
			ending = append(ending, l)
		}
	}
	p.mu.Unlock()
	for _, l := range ending {
		l.end(errSignedOut)
	}
}

// maxSessionTries is how often a session may end between its opening and its use before the caller is told.
const maxSessionTries = 3

// hold returns the link of key, held once more, and begins one if there is none.
func (p *Pool) hold(key [sha256.Size]byte, cred share.Credential, d dialect, under string) (*link, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errDraining
	}
	l := p.links[key]
	if l == nil {
		if len(p.links) >= p.cfg.MaxSessions {
			return nil, &share.Error{
				Kind: share.SessionLimit, Message: "the server holds as many sessions with LivePerson as it may", RetryAfter: time.Second,
			}
		}
		l = &link{
			p: p, key: key, cred: cred, d: d, under: under, tag: hex.EncodeToString(key[:4]),
			opened: make(chan struct{}), ended: make(chan struct{}), up: make(chan struct{}),
		}
		l.inFrame = p.cfg.InitConnection
		p.links[key] = l
		p.wg.Go(l.open)
	}
	l.refs++
	return l, nil
}

// release gives a link back.
func (p *Pool) release(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.refs--; l.refs == 0 {
		l.idleSince = p.cfg.Now()
	}
}

// retain holds a link that the caller holds already.
func (p *Pool) retain(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.refs++
}

// isHeld reports whether anybody holds the link.
func (p *Pool) isHeld(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return l.refs > 0
}

// wanted reports whether anybody holds the link; if nobody does, it leaves the pool.
func (p *Pool) wanted(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.refs > 0 && !p.closed {
		return true
	}
	p.drop(l)
	return false
}

// forget takes a link out of the pool.
func (p *Pool) forget(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(l)
}

// drop is forget under mu.
func (p *Pool) drop(l *link) {
	if p.links[l.key] == l {
		delete(p.links, l.key)
	}
}

// spawn runs f in a goroutine that Close waits for, unless the pool is closed.
func (p *Pool) spawn(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.wg.Go(f)
	return true
}

// Len is how many sessions there are, those that are being opened included.
func (p *Pool) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// Close ends all sessions and watches with ServerDraining, and returns when nothing of the pool runs any more: within about a
// second, unless Config.SocketURL does not heed its context. It may be called more than once.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	all := p.appendLinks(nil)
	p.mu.Unlock()
	for _, l := range all {
		l.end(errDraining)
	}
	p.cancel()
	p.wg.Wait()
}

func (p *Pool) appendLinks(to []*link) []*link {
	for _, l := range p.links {
		to = append(to, l)
	}
	return to
}

// keep is the keeper: it pings sockets, ends sessions that are idle or have expired, and forgets what was cached. One goroutine
// for all sessions is a few kilobytes less for each.
func (p *Pool) keep() {
	period := min(max(min(p.cfg.KeepAlive, p.cfg.IdleClose)/8, time.Millisecond), time.Second)
	tick := time.NewTicker(period)
	defer tick.Stop()
	var all []*link
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-tick.C:
		}
		now := p.cfg.Now()
		p.mu.Lock()
		all = p.appendLinks(all[:0])
		p.mu.Unlock()
		for _, l := range all {
			if p.endIdle(l, now) {
				l.end(errIdle)
				continue
			}
			l.inspect(now, time.Now())
		}
		clear(all)
	}
}

// endIdle takes a link out of the pool that nobody has held for long enough, or that nobody can get any more.
func (p *Pool) endIdle(l *link, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.refs > 0 || l.idleSince.IsZero() {
		return false
	}
	if now.Sub(l.idleSince) < p.cfg.IdleClose && l.under == p.cfg.Under(l.cred.Account) {
		return false
	}
	p.drop(l)
	return true
}

// A Session is LivePerson as one caller sees it. It is safe for concurrent use; each call ends on its answer, its context, the
// call time-out, or the end of the session. Its errors are *share.Error, or the cause of the context's end.
type Session struct {
	l        *link
	caller   string
	released atomic.Bool
}

// Principal is who LivePerson accepted.
func (s *Session) Principal() share.Principal {
	who := s.l.who
	if s.l.cred.Scheme == share.ExternalConsumerID {
		who.Caller = s.caller
	}
	return who
}

// Release gives the session back. No call may follow; another Release has no effect.
func (s *Session) Release() {
	if !s.released.Swap(true) {
		s.l.p.release(s.l)
	}
}
