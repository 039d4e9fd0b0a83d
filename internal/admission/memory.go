package admission

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// BlockBytes is the unit in which upload memory is reserved and held.
const BlockBytes = 64 << 10

// A Block is one unit of upload memory.
type Block = [BlockBytes]byte

// Limits are the limits of upload memory. Every field is required.
type Limits struct {
	// Budget is the memory for all uploads, in bytes.
	Budget int64
	// UploadsPerCaller is the maximum number of uploads of one caller at once, which together may reserve half of Budget. As many
	// again may queue.
	UploadsPerCaller int
	// QueueLength is the maximum number of queued uploads of all callers, QueueTimeout how long each may queue.
	QueueLength  int
	QueueTimeout time.Duration
	// Now is the clock.
	Now func() time.Time
}

// Memory limits the memory that uploads may use: one budget for all uploads, with a bounded queue (docs/adr/0016). Memory is
// reserved in whole blocks, whatever the size of the chunks that fill them.
//
// In the queue each caller has a line of its own, first come, first served, and the callers take turns. So a caller that sends
// many uploads waits behind its own. Smaller uploads do not overtake a large one whose turn it is. A caller that has reached its
// limit is passed over until one of its uploads has ended.
type Memory struct {
	Limits
	perCaller holding
	blocks    sync.Pool // *Block, returned by ended uploads

	mu     sync.Mutex
	free   int64              // bytes of the budget
	places int                // left in the queue
	lines  map[Caller]*line   // of callers that have uploads, running or queued
	turns  []*line            // lines with queued uploads, in the order of their turns
	proven map[Caller]holding // by principal, whatever tokens the uploads came with
	spread retrySpread
}

// A line is the uploads of one caller.
type line struct {
	caller Caller
	holds  holding
	queue  []*waiter
}

// A waiter is a queued upload. admitted is closed when its memory is reserved.
type waiter struct {
	bytes    int64
	admitted chan struct{}
}

// A holding is a number of uploads and the bytes that they have reserved.
type holding struct {
	uploads int
	bytes   int64
}

func (h holding) plus(uploads int, bytes int64) holding {
	return holding{h.uploads + uploads, h.bytes + bytes}
}

// fits reports whether one more upload stays within limit. The first one always does: no file is larger than the budget.
func (h holding) fits(bytes int64, limit holding) bool {
	return h.uploads == 0 || h.uploads < limit.uploads && h.bytes+bytes <= limit.bytes
}

// NewMemory returns Memory with nothing reserved.
func NewMemory(l Limits) *Memory {
	return &Memory{
		Limits:    l,
		perCaller: holding{l.UploadsPerCaller, l.Budget / 2},
		blocks:    sync.Pool{New: func() any { return new(Block) }},
		free:      l.Budget,
		places:    l.QueueLength,
		lines:     make(map[Caller]*line),
		proven:    make(map[Caller]holding),
	}
}

// Usage is what is reserved and queued now.
type Usage struct {
	// FreeBytes is what is left of the budget.
	FreeBytes int64
	// Queued is the number of queued uploads, Callers that of callers with uploads, by credential and by principal.
	Queued, Callers int
}

// Usage returns what is reserved and queued now.
func (m *Memory) Usage() Usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := Usage{FreeBytes: m.free, Callers: len(m.lines) + len(m.proven)}
	for _, l := range m.turns {
		u.Queued += len(l.queue)
	}
	return u
}

// A Reservation is permission to hold a number of bytes in blocks. Release it when all blocks have been returned; releasing it
// again has no effect.
type Reservation struct {
	from      *Memory
	bytes     int64
	line      *line
	principal Caller // zero until Prove
	released  bool
}

// Values of the metadata "limit" of TooManyUploads: the limit that was reached.
const (
	limitBudget = "budget"
	limitQueue  = "queue"
	limitCaller = "caller"
)

// Reserve reserves memory for size bytes, and queues for it if mayQueue. TooManyUploads if there is none in time, or the queue is
// full. A caller that already holds a large first chunk must not queue, because that chunk is outside the budget.
func (m *Memory) Reserve(ctx context.Context, c Caller, size int64, mayQueue bool) (*Reservation, error) {
	w := &waiter{bytes: WholeBlocks(size), admitted: make(chan struct{})}
	r, err := m.join(c, w, mayQueue)
	if err != nil {
		return nil, err
	}
	timeout := time.NewTimer(m.QueueTimeout)
	defer timeout.Stop()
	select {
	case <-w.admitted:
		return r, nil
	case <-ctx.Done():
		if !m.leave(r, w) {
			r.Release()
		}
		return nil, context.Cause(ctx)
	case <-timeout.C:
		return m.giveUp(r, w)
	}
}

// WholeBlocks returns the memory that size bytes are held in.
func WholeBlocks(size int64) int64 { return (size + BlockBytes - 1) / BlockBytes * BlockBytes }

// Shrink returns what is not needed to hold size bytes.
func (r *Reservation) Shrink(size int64) {
	m := r.from
	m.mu.Lock()
	defer m.mu.Unlock()
	over := r.bytes - WholeBlocks(size)
	if over <= 0 || r.released {
		return
	}
	r.bytes -= over
	m.free += over
	r.line.holds = r.line.holds.plus(0, -over)
	if r.principal != (Caller{}) {
		m.proven[r.principal] = m.proven[r.principal].plus(0, -over)
	}
	m.admit()
}

// giveUp ends the wait of an upload whose time in the queue is over. It may have been admitted in the meantime.
func (m *Memory) giveUp(r *Reservation, w *waiter) (*Reservation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.isAdmitted() {
		return r, nil
	}
	limit := m.obstacle(r.line, w)
	m.drop(r.line, w)
	return nil, m.reject(limit, "no memory became free in time")
}

// join appends an upload to its caller's line. If there is memory and it is the line's turn, the upload is admitted at once.
func (m *Memory) join(c Caller, w *waiter, mayQueue bool) (*Reservation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.bytes > m.Budget { // the others would queue behind it in vain
		return nil, m.reject(limitBudget, "the file is larger than all of it")
	}
	l := m.lines[c]
	if l == nil {
		l = &line{caller: c}
		m.lines[c] = l
	}
	l.queue = append(l.queue, w)
	if len(l.queue) == 1 {
		m.turns = append(m.turns, l)
	}
	m.places--
	m.admit()
	r := &Reservation{from: m, bytes: w.bytes, line: l}
	var limit, why string
	switch {
	case w.isAdmitted():
		return r, nil
	case !mayQueue:
		limit, why = m.obstacle(l, w), "an upload whose first message is large is not queued"
	case m.places < 0:
		limit, why = limitQueue, "the queue is full"
	case len(l.queue) > m.perCaller.uploads:
		limit, why = limitCaller, "the caller's part of the queue is full"
	default:
		return r, nil
	}
	m.drop(l, w)
	return nil, m.reject(limit, why)
}

// admit reserves memory for queued uploads in the order of their turns, as long as there is some. m is locked, here and in the
// functions below.
func (m *Memory) admit() {
	for i := 0; i < len(m.turns); {
		l := m.turns[i]
		w := l.queue[0]
		switch {
		case !l.holds.fits(w.bytes, m.perCaller):
			i++ // it waits for the caller's own uploads
			continue
		case w.bytes > m.free:
			return // nothing overtakes it
		}
		m.free -= w.bytes
		m.places++
		m.spread.admitted(m.Now())
		l.holds = l.holds.plus(1, w.bytes)
		l.queue = slices.Delete(l.queue, 0, 1)
		m.turns = slices.Delete(m.turns, i, i+1)
		if len(l.queue) > 0 {
			m.turns = append(m.turns, l)
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

// leave removes an upload from the queue. It returns false if the upload has been admitted in the meantime.
func (m *Memory) leave(r *Reservation, w *waiter) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.isAdmitted() {
		return false
	}
	m.drop(r.line, w)
	return true
}

// drop removes a waiter from its line, and admits those behind it.
func (m *Memory) drop(l *line, w *waiter) {
	l.queue = slices.DeleteFunc(l.queue, func(x *waiter) bool { return x == w })
	m.places++
	if len(l.queue) == 0 {
		m.turns = slices.DeleteFunc(m.turns, func(x *line) bool { return x == l })
	}
	m.forget(l)
	m.admit()
}

func (m *Memory) forget(l *line) {
	if l.holds.uploads == 0 && len(l.queue) == 0 {
		delete(m.lines, l.caller)
	}
}

// obstacle returns the limit that a waiter waits for.
func (m *Memory) obstacle(l *line, w *waiter) string {
	if !l.holds.fits(w.bytes, m.perCaller) {
		return limitCaller
	}
	return limitBudget
}

// Prove counts the reservation for a principal too. All uploads of a principal together stay within the limits of one caller,
// whatever tokens they came with. TooManyUploads if this one exceeds them.
func (r *Reservation) Prove(p share.Principal) error {
	m := r.from
	m.mu.Lock()
	defer m.mu.Unlock()
	principal := ByPrincipal(p)
	holds := m.proven[principal]
	if !holds.fits(r.bytes, m.perCaller) {
		return m.reject(limitCaller, "the uploads came with several tokens")
	}
	m.proven[principal] = holds.plus(1, r.bytes)
	r.principal = principal
	return nil
}

// Release returns the reservation to the budget.
func (r *Reservation) Release() {
	m := r.from
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.released {
		return
	}
	r.released = true
	m.free += r.bytes
	r.line.holds = r.line.holds.plus(-1, -r.bytes)
	if r.principal != (Caller{}) {
		if left := m.proven[r.principal].plus(-1, -r.bytes); left.uploads > 0 {
			m.proven[r.principal] = left
		} else {
			delete(m.proven, r.principal)
		}
	}
	m.forget(r.line)
	m.admit()
}

// reject returns the error for a rejected upload. m is locked.
func (m *Memory) reject(limit, why string) error {
	what := "the server's upload memory is in use"
	if limit == limitCaller {
		what = "this caller's uploads have reached the limit of one caller"
	}
	e := share.Reject(share.TooManyUploads, "%s, and %s; retry with the same request_id", what, why).With("limit", limit)
	e.RetryAfter = m.spread.rejected()
	return e
}

// GetBlock returns a block of any content. Its bytes must be part of a reservation.
func (m *Memory) GetBlock() *Block { return m.blocks.Get().(*Block) }

// PutBlock returns a block that nothing refers to any more.
func (m *Memory) PutBlock(b *Block) { m.blocks.Put(b) }

// A retrySpread gives each rejected caller a different Retry-After, spread over the time that admitting all of them takes.
type retrySpread struct {
	waiting int           // rejected, less those admitted since
	last    time.Time     // of the latest admission
	gap     time.Duration // recent average between two admissions
}

// Bounds of Retry-After.
const (
	// MinRetryAfter is the shortest delay that a rejected caller is given.
	MinRetryAfter = 2 * time.Second
	maxRetryAfter = 30 * time.Second
)

func (s *retrySpread) admitted(now time.Time) {
	s.waiting = max(0, s.waiting-1)
	if !s.last.IsZero() {
		s.gap += (min(max(now.Sub(s.last), 0), time.Second) - s.gap) / 8
	}
	s.last = now
}

func (s *retrySpread) rejected() time.Duration {
	s.waiting++
	spread := min(time.Second+time.Duration(s.waiting)*s.gap, maxRetryAfter-MinRetryAfter)
	return MinRetryAfter + rand.N(spread)
}
