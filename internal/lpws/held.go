package lpws

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A held identity is a consumer's for whom the server's own credentials vouch, so that the server gets the token itself, and the
// next one before it ends. Its session does not end with a token: it goes on over another connection.
type held struct {
	consumer                        // without its token
	token    atomic.Pointer[string] // nil: none was got yet
}

func newHeld(cred share.Credential) *held { return &held{consumer: consumer{account: cred.Account}} }

// now is the consumer with the token that holds.
func (h *held) now() consumer {
	c := h.consumer
	if t := h.token.Load(); t != nil {
		c.token = *t
	}
	return c
}

func (h *held) socket(inFrame bool) (string, http.Header) { return h.now().socket(inFrame) }
func (h *held) initHeaders() ([]any, bool)                { return h.now().initHeaders() }

// principal is without an expiry, since the session has none. What is wrong with a token of ours is none of the caller's making.
func (h *held) principal() (share.Principal, error) {
	p, err := h.now().principal()
	if err != nil {
		return p, lpwire.Unreadable("a consumer's token")
	}
	p.Expires = time.Time{}
	return p, nil
}

// errRejected says that LivePerson does not accept a token that it has just given out. Callers cannot mend that.
var errRejected error = share.Errorf(share.LPCredentialsRejected, "LivePerson does not accept the tokens that it gives out for the server's own credentials; "+
	"the operator checks the account's identity settings, there and here", nil)

func (*held) refused() error { return errRejected }

// endsIdentity is never: another token comes.
func (*held) endsIdentity(int) bool { return false }

const (
	// strikeTime is how long a connection must have lasted for its end by an expiry to be no strike.
	strikeTime = 10 * time.Second
	// lingerTime is how long a connection that was replaced stays at least: for who has just got it, and for what is on its way.
	lingerTime = time.Second
	// renewalPause is about the wait before a renewal that failed is tried again; it doubles each time, up to Config.BackoffMax.
	renewalPause = time.Second
)

// A renewal is what a link with a held identity knows of its token. Guarded by link.mu.
type renewal struct {
	next    time.Time // when to get the next token; zero: not known
	running bool
	pause   time.Duration // before the next try, if this one fails
	unfit   string        // a token that LivePerson no longer accepts
	strikes int           // connections, one after another, that were ended soon for their token
}

// getToken gets the token for the next connection: another than instead, unless that is empty.
func (l *link) getToken(ctx context.Context, h *held, instead string) error {
	in, err := l.p.cfg.Token(ctx, l.cred, instead)
	if err != nil {
		return err
	}
	if err := checkToken(in.Token); err != nil {
		return lpwire.Unreadable("a consumer's token")
	}
	now := l.p.cfg.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if claims, ok := readClaims(in.Token); l.who.ID != "" && (!ok || claims.Subject != l.who.ID) {
		return share.Errorf(share.LPCredentialsRejected, "LivePerson gives out tokens of another consumer than before; repeat the call", nil)
	}
	h.token.Store(&in.Token)
	l.renewal.next = time.Time{}
	if left := in.Expires.Sub(now); !in.Expires.IsZero() {
		// Not all at once, and early enough for several tries.
		l.renewal.next = now.Add(left*6/10 + rand.N(max(left*15/100, 1)))
	}
	return nil
}

// connectHeld is connect with a token that is got first, another than instead. One that LivePerson does not accept is replaced
// once.
func (l *link) connectHeld(ctx context.Context, h *held, instead string) (*conn, error) {
	for try := 1; ; try++ {
		if err := l.getToken(ctx, h, instead); err != nil {
			return nil, l.openError(ctx, err)
		}
		c, err := l.connectOnce(ctx)
		if err != errRejected || try == 2 {
			if err == nil {
				l.mu.Lock()
				l.renewal.unfit = ""
				l.mu.Unlock()
			}
			return c, err
		}
		instead = h.now().token
	}
}

// struck notes that LivePerson ended a connection for its token, and reports whether another token is worth a try. Call with mu
// held.
func (l *link) struck(h *held, c *conn) bool {
	if time.Since(c.begun) >= strikeTime {
		l.renewal.strikes = 0
	}
	l.renewal.strikes++
	l.renewal.unfit = h.now().token
	return l.renewal.strikes < 2
}

// identityOver deals with an answer on c that says that LivePerson does not accept the identity any more. Mostly that ends the
// session. A held identity gives up the connection alone, and again tells that the next one may answer otherwise.
func (l *link) identityOver(c *conn, err error) (again bool) {
	if _, ok := l.d.(*held); !ok {
		l.end(err)
		return false
	}
	c.end(&death{kind: deathReplaced, code: closeAuthenticate, text: err})
	<-c.done
	return true
}

// renewToken has a held identity's next token got when it is time to, while anybody holds the session.
func (l *link) renewToken(now time.Time) {
	h, ok := l.d.(*held)
	if !ok || !l.p.isHeld(l) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &l.renewal
	if l.err != nil || l.conn == nil || r.running || r.next.IsZero() || now.Before(r.next) {
		return
	}
	r.running = l.p.spawn(func() { l.replaceConn(h) }) // Pool.mu may be taken under mu
}

// replaceConn opens a connection with the next token, puts it in the place of the one that there is, and lets that one finish
// what it has begun.
func (l *link) replaceConn(h *held) {
	l.opening.Lock()
	ctx, cancel := context.WithTimeoutCause(l.p.ctx, l.p.cfg.OpenTimeout, errOpenTimeout)
	c, err := l.connectHeld(ctx, h, h.now().token)
	cancel()
	var old *conn
	if err == nil {
		old, err = l.swap(c)
	}
	l.mu.Lock()
	l.renewal.running = false
	if err != nil {
		// The connection that there is may last yet.
		pause := max(l.renewal.pause, renewalPause)
		l.renewal.next = l.p.cfg.Now().Add(pause/2 + rand.N(pause))
		l.renewal.pause = min(2*pause, max(l.p.cfg.BackoffMax, renewalPause))
	} else {
		l.renewal.pause = 0
	}
	l.mu.Unlock()
	l.opening.Unlock()
	if err != nil {
		l.p.log.Warn("the next token of a session could not be got; it is tried again", slog.String("session", l.tag),
			slog.String("account", l.cred.Account), slog.Any("error", err))
		return
	}
	l.log("a session goes on with its next token")
	if old != nil {
		l.finishOff(old)
	}
}

// swap makes c the link's connection, and returns the one that it had, if any.
func (l *link) swap(c *conn) (old *conn, err error) {
	l.mu.Lock()
	old = l.conn
	if l.err != nil || old == nil {
		l.mu.Unlock()
		l.adopt(c)
		return nil, nil
	}
	select {
	case <-c.dying:
		l.mu.Unlock()
		<-c.done
		return nil, c.death
	default:
	}
	l.conn = c
	l.book.disconnected()
	l.book.connected(l)
	l.mu.Unlock()
	return old, nil
}

// finishOff ends a connection that is not the link's any more, when nobody waits for anything on it.
func (l *link) finishOff(c *conn) {
	begin := time.Now()
	tick := time.NewTicker(lingerTime / 10)
	defer tick.Stop()
	for done := false; !done; {
		select {
		case <-tick.C:
			so := time.Since(begin)
			done = so >= l.p.cfg.CallTimeout || so >= lingerTime && c.waiters() == 0
		case <-l.ended:
			done = true
		case <-c.done:
			return
		}
	}
	c.end(&death{kind: deathReplaced, text: errReplaced})
	<-c.done
}
