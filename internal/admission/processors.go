package admission

import (
	"container/list"
	"sync"
	"time"
)

const (
	// readLease is how long a read may take before it counts as blocked. A read whose bytes have arrived takes 0.1 ms or less.
	readLease = time.Millisecond
	// activeTime is how long a caller counts as one after its latest block: it may have its next in a moment.
	activeTime = 100 * time.Millisecond
)

// Processors divides the processors equally between the callers that transfer files. A caller's transfers work on as many blocks at a
// time as the caller has processors, at least one, and take turns. They wait for each other, never for those of another caller.
//
// Without turns each transfer would have the same part of the processors, and 250 of one caller 250 times as much as the only one of
// another. A caller alone loses nothing: more blocks at a time than processors are no faster, because no turn is held while its
// transfer waits for the store or the client.
type Processors struct {
	n   int
	now func() time.Time // time.Now, except in tests

	mu      sync.Mutex
	workers map[Caller]*worker
	active  *list.List // of *worker, by the time of their latest block
}

// A worker is an active caller. Processors.mu guards it.
type worker struct {
	caller Caller
	latest time.Time // when a turn of its transfers began or ended
	place  *list.Element
	busy   int             // turns in use
	queue  []chan struct{} // of transfers that wait for a turn, which is given by closing the channel
}

// NewProcessors returns n Processors.
func NewProcessors(n int) *Processors {
	return &Processors{n: n, now: time.Now, workers: make(map[Caller]*worker), active: list.New()}
}

// Transfer returns a Transfer of a caller, which is active from now on.
func (p *Processors) Transfer(c Caller) *Transfer {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.worker(c)
	t := &Transfer{p: p, caller: c}
	t.turn = &t.first
	return t
}

// worker returns a caller's worker, which becomes the latest. p is locked, here and in the functions below.
func (p *Processors) worker(c Caller) *worker {
	w := p.workers[c]
	if w == nil {
		w = &worker{caller: c}
		w.place = p.active.PushBack(w)
		p.workers[c] = w
	}
	p.touch(w)
	return w
}

// touch notes that a caller is active, and forgets those that are not any more. It reads the clock once: if that advanced in between, w
// itself would be forgotten.
func (p *Processors) touch(w *worker) {
	now := p.now()
	w.latest = now
	p.active.MoveToBack(w.place)
	for {
		oldest := p.active.Front().Value.(*worker)
		switch {
		case now.Sub(oldest.latest) <= activeTime: // w at the latest
			return
		case oldest.busy > 0:
			oldest.latest = now
			p.active.MoveToBack(oldest.place)
		default:
			p.active.Remove(oldest.place)
			delete(p.workers, oldest.caller)
		}
	}
}

// admit gives turns to transfers of a caller that wait for one. One that waits is always admitted in the end, because a caller with a
// queue has a turn in use.
func (p *Processors) admit(w *worker) {
	for len(w.queue) > 0 && w.busy < p.perCaller() {
		close(w.queue[0])
		w.queue = w.queue[1:]
		w.busy++
	}
}

// perCaller returns how many turns a caller may have at a time.
func (p *Processors) perCaller() int { return (p.n + len(p.workers) - 1) / len(p.workers) }

// A Transfer is one file on its way. One goroutine at a time may use it.
type Transfer struct {
	p       *Processors
	caller  Caller
	blocked bool // the latest read took longer than its lease
	// turn is the latest turn, and lease the timer that ends it. Both are used again, unless the timer has fired.
	turn  *turn
	first turn // the turn of a Transfer that was never blocked
	lease *time.Timer
}

// A turn is permission to work on one block.
type turn struct {
	worker *worker
	ended  bool
}

// Work waits for a turn, reads the next block, and computes on what was read, unless the read failed. read may block: after a
// millisecond it has no turn any more, compute waits for another, and the next read begins without one.
func (t *Transfer) Work(read func() error, compute func()) error {
	if t.blocked {
		begun := time.Now()
		err := read()
		t.blocked = time.Since(begun) > readLease
		if err == nil {
			t.Compute(compute)
		}
		return err
	}
	held := t.begin()
	if t.lease == nil {
		t.lease = time.AfterFunc(readLease, func() { t.p.end(held) })
	} else {
		t.lease.Reset(readLease)
	}
	err := read()
	if t.blocked = !t.lease.Stop(); t.blocked {
		t.p.end(held)
		t.turn, t.lease = nil, nil // the timer may end this turn later
		if err == nil {
			t.Compute(compute)
		}
		return err
	}
	defer t.p.end(held)
	if err == nil {
		compute()
	}
	return err
}

// Compute waits for a turn, and computes. compute must not block.
func (t *Transfer) Compute(compute func()) {
	defer t.p.end(t.begin())
	compute()
}

// begin waits for a turn. It cannot be interrupted, because it takes only as long as the caller's other transfers compute.
func (t *Transfer) begin() *turn {
	p := t.p
	p.mu.Lock()
	w := p.worker(t.caller)
	var granted chan struct{}
	if len(w.queue) == 0 && w.busy < p.perCaller() {
		w.busy++
	} else {
		granted = make(chan struct{})
		w.queue = append(w.queue, granted)
	}
	if t.turn == nil {
		t.turn = new(turn)
	}
	*t.turn = turn{worker: w}
	p.mu.Unlock()
	if granted != nil {
		<-granted
	}
	return t.turn
}

// end ends a turn, unless it has ended.
func (p *Processors) end(t *turn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.ended {
		return
	}
	t.ended = true
	t.worker.busy--
	p.touch(t.worker)
	p.admit(t.worker)
}
