package admission

import (
	"context"
	"sync"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// OpeningLimits are the limits of Openings. Every field is required.
type OpeningLimits struct {
	// InFlight is the maximum number of openings at once, Queue that of those that wait. Each address has Shares of both.
	InFlight, Queue int
	// Timeout is how long an opening may wait.
	Timeout time.Duration
	// FirstBytes is the memory for the first messages of calls whose identity is not proved. Each address has Shares of it.
	FirstBytes int64
	// Now is the clock.
	Now func() time.Time
}

// Openings limit what callers use before LivePerson has accepted their identity: openings of sessions, and other exchanges that prove
// an identity (docs/adr/0021). Such callers are known by their credential and the address of their connection (share.Credential.Peer)
// only. In the queue the addresses take turns, and for each address its credentials, because many callers may share the address of a
// proxy. Credentials that LivePerson has accepted before, and sign-ins, are groups of their own, so that a flood of invented credentials
// through the same proxy does not keep known callers and new ones from their turn.
type Openings struct {
	OpeningLimits

	mu       sync.Mutex
	inFlight *Shares
	places   *Shares // of Queue
	messages *Shares // of FirstBytes
	queue    turns
	spread   retrySpread
	known    [2]map[Caller]struct{} // credentials that were accepted; the second map has earlier ones
}

// maxKnown is the number of credentials in each map of Openings.known: 1 MiB.
const maxKnown = 1 << 14

// NewOpenings returns Openings without any.
func NewOpenings(l OpeningLimits) *Openings {
	return &Openings{
		OpeningLimits: l,
		inFlight:      NewShares(int64(l.InFlight), ByPeer),
		places:        NewShares(int64(l.Queue), ByPeer),
		messages:      NewShares(l.FirstBytes, ByPeer),
		queue:         newTurns(),
	}
}

// holder returns the Holder of a credential, in a group of its peer.
func (o *Openings) holder(c share.Credential) Holder {
	h := Holder{c.Peer, ByCredential(c)}
	if c.Secret == "" {
		h.Group += " sign-in"
		return h
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, known := range o.known {
		if _, ok := known[h.Caller]; ok {
			h.Group += " known"
			break
		}
	}
	return h
}

// Know notes that LivePerson has accepted, or issued, a credential.
func (o *Openings) Know(c share.Credential) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.known[0] == nil || len(o.known[0]) >= maxKnown {
		o.known = [2]map[Caller]struct{}{make(map[Caller]struct{}), o.known[0]}
	}
	o.known[0][ByCredential(c)] = struct{}{}
}

// Begin waits until an opening with a credential may begin; without a secret it is a sign-in. SessionLimit if it may not in time, or the queue is full. The caller calls
// end once, when the opening has ended.
func (o *Openings) Begin(ctx context.Context, c share.Credential) (end func(accepted bool), err error) {
	w := &waiter{holder: o.holder(c), admitted: make(chan struct{})}
	if err := o.join(w); err != nil {
		return nil, err
	}
	end = func(accepted bool) {
		if accepted {
			o.Know(c)
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		o.inFlight.Take(w.holder, -1)
		o.admit()
	}
	timeout := time.NewTimer(o.Timeout)
	defer timeout.Stop()
	select {
	case <-w.admitted:
		return end, nil
	case <-ctx.Done():
		if !o.leave(w) {
			end(false)
		}
		return nil, context.Cause(ctx)
	case <-timeout.C:
		if !o.leave(w) {
			return end, nil
		}
		return nil, o.reject("none could begin in time")
	}
}

// Hold counts the bytes of a call's first message, for a call whose identity is not proved. SessionLimit if the callers of its address
// hold too much already. The caller calls release once, when the identity is proved or the call has ended.
func (o *Openings) Hold(c share.Credential, bytes int64) (release func(), err error) {
	h := o.holder(c)
	o.mu.Lock()
	ok := o.messages.Fits(h, bytes)
	if ok {
		o.messages.Take(h, bytes)
	}
	o.mu.Unlock()
	if !ok {
		return nil, o.reject("too many callers wait for one")
	}
	return sync.OnceFunc(func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.messages.Take(h, -bytes)
	}), nil
}

// OpeningsUsage is what is in use now.
type OpeningsUsage struct {
	InFlight, Queued int
	HeldBytes        int64
}

// Usage returns what is in use now.
func (o *Openings) Usage() OpeningsUsage {
	o.mu.Lock()
	defer o.mu.Unlock()
	return OpeningsUsage{o.InFlight - int(o.inFlight.Free()), o.queue.waiting, o.FirstBytes - o.messages.Free()}
}

// join appends an opening to the queue, or lets it begin at once.
func (o *Openings) join(w *waiter) error {
	o.mu.Lock()
	o.queue.push(w)
	o.admit()
	fits := w.isAdmitted()
	if !fits && o.places.Fits(w.holder, 1) {
		w.queued, fits = true, true
		o.places.Take(w.holder, 1)
	}
	if !fits {
		o.queue.remove(w)
	}
	o.mu.Unlock()
	if !fits {
		return o.reject("too many wait for one")
	}
	return nil
}

// leave removes an opening from the queue. It returns false if the opening may begin.
func (o *Openings) leave(w *waiter) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if w.isAdmitted() {
		return false
	}
	o.queue.remove(w)
	o.places.Take(w.holder, -1)
	return true
}

// admit lets openings begin in the order of their turns. o is locked.
func (o *Openings) admit() {
	for o.queue.next(func(w *waiter) decision {
		switch {
		case o.inFlight.Free() == 0:
			return stop
		case !o.inFlight.Fits(w.holder, 1):
			return passGroup
		}
		o.inFlight.Take(w.holder, 1)
		if w.queued {
			o.places.Take(w.holder, -1)
		}
		o.spread.admitted(o.Now())
		return admitted
	}) {
	}
}

func (o *Openings) reject(why string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	e := share.Reject(share.SessionLimit, "the server opens as many LivePerson sessions at once as it may, and %s; retry later", why).
		With("limit", "openings")
	e.RetryAfter = o.spread.rejected()
	return e
}
