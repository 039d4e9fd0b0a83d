package admission

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// BlockBytes is the unit in which the memory of uploads and of downloads is reserved.
const BlockBytes = 64 << 10

// PageBytes is the unit in which small chunks of uploads are packed. It is also the size of gRPC's receive buffers, so that the memory of a
// file is a whole number of pages, wherever its bytes lie.
const PageBytes = BlockBytes / 4

// A Page is a part of reserved upload memory.
type Page = [PageBytes]byte

// Limits are the limits of upload memory. Every field but Draining is required.
type Limits struct {
	// Budget is the memory for all uploads, in bytes. Callers have Shares of it.
	Budget int64
	// UploadsPerCaller is the maximum number of uploads of one caller at once. As many again may queue.
	UploadsPerCaller int
	// QueueLength is the maximum number of queued uploads of all callers, of which callers have Shares too. QueueTimeout is how long
	// each may queue.
	QueueLength  int
	QueueTimeout time.Duration
	// Draining ends the queue when it is closed: Reserve returns ErrDraining to uploads that wait.
	Draining <-chan struct{}
	// Now is the clock.
	Now func() time.Time
}

// ErrDraining is the error of uploads that waited for memory when the server began to drain.
var ErrDraining = errors.New("the server began to drain before there was memory")

// Memory limits the memory that uploads may use: one budget for all uploads, with a bounded queue (docs/adr/0021). Memory is
// reserved in whole blocks, whatever the size of the chunks that fill them.
//
// In the queue the accounts take turns, and within an account its callers. Smaller uploads do not overtake a large one whose turn it
// is. A caller that has reached its share is passed over until one of its uploads has ended.
//
// An upload whose size is not known reserves memory as its bytes arrive: see Reservation.Grow.
type Memory struct {
	Limits
	pages sync.Pool // *Page, returned by ended uploads

	mu      sync.Mutex
	shares  *Shares        // of Budget
	places  *Shares        // of QueueLength
	uploads map[Holder]int // admitted
	queue   turns
	growth  growth
	spread  retrySpread

	starving bool      // an upload waits for the budget, not for uploads of its own caller
	starved  time.Time // when one did last
}

// NewMemory returns Memory with nothing reserved.
func NewMemory(l Limits) *Memory {
	return &Memory{
		Limits:  l,
		pages:   sync.Pool{New: func() any { return new(Page) }},
		shares:  NewShares(l.Budget, ByAccount),
		places:  NewShares(int64(l.QueueLength), ByAccount),
		uploads: make(map[Holder]int),
		queue:   newTurns(),
		growth:  growth{most: make(map[int64]int)},
	}
}

// Usage is what is reserved and queued now.
type Usage struct {
	// FreeBytes is what is left of the budget.
	FreeBytes int64
	// Queued is the number of queued uploads and of those that wait for memory to grow, Callers that of callers with uploads.
	Queued, Callers int
}

// Usage returns what is reserved and queued now.
func (m *Memory) Usage() Usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Usage{FreeBytes: m.shares.Free(), Callers: m.shares.Callers(), Queued: m.queue.waiting + len(m.growth.waiting)}
}

// Contended reports whether an upload has waited for the budget within the last d. Those that wait for uploads of their own caller do
// not count.
func (m *Memory) Contended(d time.Duration) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.starving || !m.starved.IsZero() && m.Now().Sub(m.starved) <= d
}

// Values of the metadata "limit" of TooManyUploads: the limit that was reached.
const (
	limitBudget = "budget"
	limitQueue  = "queue"
	limitCaller = "caller"
)

// Reserve reserves memory for size bytes, which may Grow to most bytes, and queues for it if mayQueue. TooManyUploads if there is none
// in time, or the queue is full. A caller that already holds a large first chunk must not queue, because that chunk is outside the
// budget.
func (m *Memory) Reserve(ctx context.Context, h Holder, size, most int64, mayQueue bool) (*Reservation, error) {
	r := &Reservation{from: m, holder: h, bytes: WholeBlocks(size), most: WholeBlocks(max(size, most))}
	w := &waiter{holder: h, reservation: r, admitted: make(chan struct{})}
	err := m.join(w, mayQueue)
	if err != nil {
		return nil, err
	}
	select {
	case <-w.admitted: // nearly always: without a timer
		return r, nil
	default:
	}
	timeout := time.NewTimer(m.QueueTimeout)
	defer timeout.Stop()
	select {
	case <-w.admitted:
		return r, nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-m.Draining:
		err = ErrDraining
	case <-timeout.C:
		return m.giveUp(w)
	}
	if !m.leave(w) {
		r.Release()
	}
	return nil, err
}

// WholeBlocks returns the memory that size bytes are held in.
func WholeBlocks(size int64) int64 { return (size + BlockBytes - 1) / BlockBytes * BlockBytes }

// join appends an upload to its caller's line. If there is memory and it is the line's turn, the upload is admitted at once.
func (m *Memory) join(w *waiter, mayQueue bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.reservation.most > m.Budget { // the others would queue behind it in vain
		return m.reject(limitBudget, "the file is larger than all of it")
	}
	if m.queue.waiting == 0 && m.mayAdmit() && m.decide(w) == admitted { // nearly always: it need not queue
		m.starving = false
		close(w.admitted)
		return nil
	}
	queued := m.queue.length(w.holder)
	m.queue.push(w)
	m.admit()
	if w.isAdmitted() {
		return nil
	}
	limit, why := "", ""
	switch {
	case !mayQueue:
		limit, why = m.obstacle(w), "an upload whose first message is large is not queued"
	case m.places.Free() == 0:
		limit, why = limitQueue, "the queue is full"
	case queued >= m.UploadsPerCaller || !m.places.Fits(w.holder, 1):
		limit, why = limitCaller, "the caller's part of the queue is full"
	default:
		w.queued = true
		m.places.Take(w.holder, 1)
		return nil
	}
	m.queue.remove(w)
	m.admit()
	return m.reject(limit, why)
}

// giveUp ends the wait of an upload whose time in the queue is over. It may have been admitted in the meantime.
func (m *Memory) giveUp(w *waiter) (*Reservation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.isAdmitted() {
		return w.reservation, nil
	}
	limit := m.obstacle(w)
	m.drop(w)
	return nil, m.reject(limit, "no memory became free in time")
}

// leave removes an upload from the queue. It returns false if the upload has been admitted in the meantime.
func (m *Memory) leave(w *waiter) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.isAdmitted() {
		return false
	}
	m.drop(w)
	return true
}

// drop removes a queued upload, and admits those behind it. m is locked, here and in the functions below.
func (m *Memory) drop(w *waiter) {
	m.queue.remove(w)
	m.places.Take(w.holder, -1)
	m.admit()
}

// mayAdmit reserves memory for uploads that have begun and wait for more of it, as long as there is some. It reports whether all got
// theirs, so that others may begin.
func (m *Memory) mayAdmit() bool {
	if m.starving {
		m.starved = m.Now()
	}
	m.starving = !m.grow()
	return !m.starving
}

// admit reserves memory for uploads that wait, as long as there is some: those that have begun come first.
func (m *Memory) admit() {
	if !m.mayAdmit() {
		return
	}
	for m.queue.next(m.decide) {
		m.starving = false // unless it still is without the one that was admitted
	}
}

// decide reserves memory for a queued upload whose turn it is, if there is some.
func (m *Memory) decide(w *waiter) decision {
	r := w.reservation
	switch count := m.uploads[w.holder]; {
	case count >= m.UploadsPerCaller || !m.shares.Within(w.holder, r.bytes):
		m.starving = m.starving || count == 0
		return pass // it waits for the caller's own uploads, or those of its account
	case !m.growth.admit(r, m.shares.Free()):
		m.starving = true
		return stop
	}
	m.shares.Take(w.holder, r.bytes)
	m.uploads[w.holder]++
	if w.queued {
		m.places.Take(w.holder, -1)
	}
	m.spread.admitted(m.Now())
	return admitted
}

// obstacle returns the limit that a queued upload waits for.
func (m *Memory) obstacle(w *waiter) string {
	if count := m.uploads[w.holder]; count > 0 && (count >= m.UploadsPerCaller || !m.shares.Within(w.holder, w.reservation.bytes)) {
		return limitCaller
	}
	return limitBudget
}

// reject returns the error for a rejected upload.
func (m *Memory) reject(limit, why string) error {
	what := "the server's upload memory is in use"
	if limit == limitCaller {
		what = "this caller's uploads have reached the share of one caller"
	}
	e := share.Reject(share.TooManyUploads, "%s, and %s; retry with the same request_id", what, why).With("limit", limit)
	e.RetryAfter = m.spread.rejected()
	return e
}

// GetPage returns a page of any content. Its bytes must be part of a reservation.
func (m *Memory) GetPage() *Page { return m.pages.Get().(*Page) }

// PutPage returns a page that nothing refers to any more.
func (m *Memory) PutPage(p *Page) { m.pages.Put(p) }
