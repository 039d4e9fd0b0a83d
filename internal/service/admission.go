package service

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// blockBytes is the unit in which upload memory is reserved and held.
const blockBytes = 64 << 10

// admission is the door to upload memory: one budget for all uploads, and a bounded queue before it (docs/adr/0016).
// What is reserved is memory, not bytes of data: blocks, whole ones, whatever the size of the chunks that fill them.
//
// In the queue each caller has a line of its own, first come first served, and the callers take turns: who sends much waits
// behind itself. A large upload whose turn it is is not overtaken by smaller ones. A caller who has as much as one may have is
// passed over until one of its own has ended.
type admission struct {
	budget int64
	wait   time.Duration
	most   holding // that one caller may have at once
	now    func() time.Time
	blocks sync.Pool // *[blockBytes]byte, given back by ended uploads

	mu     sync.Mutex
	free   int64              // bytes of the budget
	places int                // for uploads that may yet begin to wait
	lines  map[caller]*line   // of callers who have uploads, or wait
	turns  []*line            // those with somebody waiting, in the order of their turns
	proven map[caller]holding // what each principal has, whatever the tokens that it came with
	crowd  crowd
}

// A line is one caller at the door.
type line struct {
	who     caller
	has     holding
	waiting []*waiter
}

// A waiter is an upload in the queue. admitted is closed when it has its room.
type waiter struct {
	bytes    int64
	admitted chan struct{}
}

// A holding is how many uploads there are, and how many bytes of the budget they have.
type holding struct {
	uploads int
	bytes   int64
}

func (h holding) plus(uploads int, bytes int64) holding {
	return holding{h.uploads + uploads, h.bytes + bytes}
}

// roomFor tells whether one more upload stays within most. A first one always does: no file is larger than the budget.
func (h holding) roomFor(bytes int64, most holding) bool {
	return h.uploads == 0 || h.uploads < most.uploads && h.bytes+bytes <= most.bytes
}

// newAdmission makes a door before a budget of so many bytes. One caller may have perCaller uploads at once and half of the
// budget, and as many again may wait; all together places may.
func newAdmission(budget int64, perCaller, places int, wait time.Duration, now func() time.Time) *admission {
	return &admission{
		wait:   wait,
		budget: budget,
		most:   holding{perCaller, budget / 2},
		now:    now,
		blocks: sync.Pool{New: func() any { return new([blockBytes]byte) }},
		free:   budget,
		places: places,
		lines:  make(map[caller]*line),
		proven: make(map[caller]holding),
	}
}

// A reservation is leave to hold so many blocks. Release it when all of them have been given back; again does nothing.
type reservation struct {
	from  *admission
	bytes int64
	who   *line
	as    caller // the principal that it is counted for; zero before there is one
	done  bool
}

// What kept an upload out: the metadata "limit" of TooManyUploads.
const (
	limitBudget = "budget"
	limitQueue  = "queue"
	limitCaller = "caller"
)

// reserve waits in the queue for room for size bytes; TooManyUploads if there is none in time, or no place to wait. Who holds
// much already may not wait: that would be memory outside the budget.
func (a *admission) reserve(ctx context.Context, who caller, size int64, mayWait bool) (*reservation, error) {
	w := &waiter{bytes: wholeBlocks(size), admitted: make(chan struct{})}
	r, err := a.join(who, w, mayWait)
	if err != nil {
		return nil, err
	}
	patience := time.NewTimer(a.wait)
	defer patience.Stop()
	select {
	case <-w.admitted:
		return r, nil
	case <-ctx.Done():
		if !a.leave(r, w) {
			r.release()
		}
		return nil, context.Cause(ctx)
	case <-patience.C:
		return a.giveUp(r, w)
	}
}

// wholeBlocks is the memory that so many bytes are held in.
func wholeBlocks(size int64) int64 { return (size + blockBytes - 1) / blockBytes * blockBytes }

// shrink gives back what is not needed to hold size bytes.
func (r *reservation) shrink(size int64) {
	a := r.from
	a.mu.Lock()
	defer a.mu.Unlock()
	over := r.bytes - wholeBlocks(size)
	if over <= 0 || r.done {
		return
	}
	r.bytes -= over
	a.free += over
	r.who.has = r.who.has.plus(0, -over)
	if r.as != (caller{}) {
		a.proven[r.as] = a.proven[r.as].plus(0, -over)
	}
	a.admit()
}

// giveUp is what comes of an upload whose time in the queue is over: it may have been admitted just now.
func (a *admission) giveUp(r *reservation, w *waiter) (*reservation, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w.isAdmitted() {
		return r, nil
	}
	limit := a.obstacle(r.who, w)
	a.drop(r.who, w)
	return nil, a.refuse(limit, "no room came in time")
}

// join puts an upload behind the others of its caller, where it is admitted at once if there is room and its turn.
func (a *admission) join(who caller, w *waiter, mayWait bool) (*reservation, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w.bytes > a.budget { // the others would wait behind it in vain
		return nil, a.refuse(limitBudget, "the file is larger than all of that")
	}
	l := a.lines[who]
	if l == nil {
		l = &line{who: who}
		a.lines[who] = l
	}
	l.waiting = append(l.waiting, w)
	if len(l.waiting) == 1 {
		a.turns = append(a.turns, l)
	}
	a.places--
	a.admit()
	r := &reservation{from: a, bytes: w.bytes, who: l}
	var limit, why string
	switch {
	case w.isAdmitted():
		return r, nil
	case !mayWait:
		limit, why = a.obstacle(l, w), "an upload whose first message has a large chunk does not wait"
	case a.places < 0:
		limit, why = limitQueue, "the queue is full"
	case len(l.waiting) > a.most.uploads:
		limit, why = limitCaller, "as many again wait"
	default:
		return r, nil
	}
	a.drop(l, w)
	return nil, a.refuse(limit, why)
}

// admit lets in whoever's turn it is, as long as there is room. a is locked, here and in the functions below.
func (a *admission) admit() {
	for i := 0; i < len(a.turns); {
		l := a.turns[i]
		w := l.waiting[0]
		switch {
		case !l.has.roomFor(w.bytes, a.most):
			i++ // it waits for its own
			continue
		case w.bytes > a.free:
			return // nobody overtakes
		}
		a.free -= w.bytes
		a.places++
		a.crowd.admitted(a.now())
		l.has = l.has.plus(1, w.bytes)
		l.waiting = slices.Delete(l.waiting, 0, 1)
		a.turns = slices.Delete(a.turns, i, i+1)
		if len(l.waiting) > 0 {
			a.turns = append(a.turns, l)
		}
		close(w.admitted)
		i = 0
	}
}

func (w *waiter) isAdmitted() bool {
	select {
	case <-w.admitted:
		return true
	default:
		return false
	}
}

// leave takes an upload out of the queue, and tells whether it still was there: it may have been admitted just now.
func (a *admission) leave(r *reservation, w *waiter) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w.isAdmitted() {
		return false
	}
	a.drop(r.who, w)
	return true
}

// drop takes a waiter out of its line, and lets in who stood behind it.
func (a *admission) drop(l *line, w *waiter) {
	l.waiting = slices.DeleteFunc(l.waiting, func(x *waiter) bool { return x == w })
	a.places++
	if len(l.waiting) == 0 {
		a.turns = slices.DeleteFunc(a.turns, func(x *line) bool { return x == l })
	}
	a.forget(l)
	a.admit()
}

func (a *admission) forget(l *line) {
	if l.has.uploads == 0 && len(l.waiting) == 0 {
		delete(a.lines, l.who)
	}
}

// obstacle is what a waiter waits for.
func (a *admission) obstacle(l *line, w *waiter) string {
	if !l.has.roomFor(w.bytes, a.most) {
		return limitCaller
	}
	return limitBudget
}

// prove says who the caller has turned out to be. All uploads of a principal together stay within what one caller may have,
// whatever the tokens that they came with; TooManyUploads where there is one too many.
func (r *reservation) prove(p share.Principal) error {
	a := r.from
	a.mu.Lock()
	defer a.mu.Unlock()
	as := callerOfPrincipal(p)
	has := a.proven[as]
	if !has.roomFor(r.bytes, a.most) {
		return a.refuse(limitCaller, "they came with several tokens")
	}
	a.proven[as] = has.plus(1, r.bytes)
	r.as = as
	return nil
}

func (r *reservation) release() {
	a := r.from
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.done {
		return
	}
	r.done = true
	a.free += r.bytes
	r.who.has = r.who.has.plus(-1, -r.bytes)
	if r.as != (caller{}) {
		if left := a.proven[r.as].plus(-1, -r.bytes); left.uploads > 0 {
			a.proven[r.as] = left
		} else {
			delete(a.proven, r.as)
		}
	}
	a.forget(r.who)
	a.admit()
}

// refuse is the error for who is not let in. a is locked.
func (a *admission) refuse(limit, why string) error {
	what := map[string]string{
		limitBudget: "the server holds as many uploads as it may",
		limitQueue:  "the server holds as many uploads as it may",
		limitCaller: "this caller has as many uploads as one may have at once",
	}[limit]
	e := with(refuse(share.TooManyUploads, "%s, and %s; repeat under the same request_id", what, why), "limit", limit)
	e.RetryAfter = a.crowd.refused()
	return e
}

func (a *admission) block() *[blockBytes]byte     { return a.blocks.Get().(*[blockBytes]byte) }
func (a *admission) giveBack(b *[blockBytes]byte) { a.blocks.Put(b) }

// A crowd is those who were sent away and will come back: each is told another time, spread over as long as the door takes to
// let so many in.
type crowd struct {
	away int           // sent away, less those let in since
	last time.Time     // of the latest admission
	gap  time.Duration // between two of them, lately
}

// How long who is refused is told to stay away.
const (
	leastAway = 2 * time.Second
	mostAway  = 30 * time.Second
)

func (c *crowd) admitted(now time.Time) {
	c.away = max(0, c.away-1)
	if !c.last.IsZero() {
		c.gap += (min(max(now.Sub(c.last), 0), time.Second) - c.gap) / 8
	}
	c.last = now
}

// refused tells one more when to come back.
func (c *crowd) refused() time.Duration {
	c.away++
	spread := min(time.Second+time.Duration(c.away)*c.gap, mostAway-leastAway)
	return leastAway + rand.N(spread)
}
