package sandbox

import (
	"container/heap"
	"sync"
	"time"
)

// maxQueued is how many bytes may wait for a client that does not read; beyond it the socket is cut.
const maxQueued = 16 << 20

// An outbox is the queue of frames that wait to be written to a socket. Putting one in never blocks.
type outbox struct {
	mu     sync.Mutex
	frames [][]byte
	size   int
	limit  int
	code   int // close code, after the last frame
	reason string
	closed bool // nothing more goes in
	wake   chan struct{}
}

func newOutbox(limit int) *outbox { return &outbox{limit: limit, wake: make(chan struct{}, 1)} }

// put queues frames and reports whether there was room. A closed outbox swallows them.
func (o *outbox) put(frames ...[]byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return true
	}
	for _, f := range frames {
		o.size += len(f)
		o.frames = append(o.frames, f)
	}
	o.rouse()
	return o.size <= o.limit
}

// close ends the queue: what is in it is still written, then a close frame if code is not 0.
func (o *outbox) close(code int, reason string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		o.closed, o.code, o.reason = true, code, reason
	}
	o.rouse()
}

// take returns what waits, and whether that is all there will ever be.
func (o *outbox) take() (frames [][]byte, last bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	frames, o.frames, o.size = o.frames, nil, 0
	return frames, o.closed
}

func (o *outbox) rouse() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// A timeline runs jobs when they are due, one at a time, those due together in the order in which they were added. It costs
// nothing until the first one.
type timeline struct {
	mu      sync.Mutex
	jobs    jobHeap
	added   uint64
	running bool
	stopped bool
	wake    chan struct{}
	work    sync.WaitGroup
}

type job struct {
	due time.Time
	n   uint64
	run func()
}

type jobHeap []job

func (h jobHeap) Len() int { return len(h) }
func (h jobHeap) Less(i, j int) bool {
	if h[i].due.Equal(h[j].due) {
		return h[i].n < h[j].n
	}
	return h[i].due.Before(h[j].due)
}
func (h jobHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *jobHeap) Push(x any)   { *h = append(*h, x.(job)) }
func (h *jobHeap) Pop() any {
	last := len(*h) - 1
	j := (*h)[last]
	(*h)[last] = job{}
	*h = (*h)[:last]
	return j
}

func newTimeline() *timeline { return &timeline{wake: make(chan struct{}, 1)} }

// at runs run when due. After stop it does nothing.
func (t *timeline) at(due time.Time, run func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return
	}
	t.added++
	heap.Push(&t.jobs, job{due: due, n: t.added, run: run})
	if !t.running {
		t.running = true
		t.work.Go(t.loop)
	}
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// stop forgets all jobs and waits for the one that runs.
func (t *timeline) stop() {
	t.mu.Lock()
	t.stopped = true
	t.jobs = nil
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
	t.work.Wait()
}

func (t *timeline) loop() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		t.mu.Lock()
		if t.stopped {
			t.mu.Unlock()
			return
		}
		var run func()
		wait := time.Hour
		if len(t.jobs) > 0 {
			if wait = time.Until(t.jobs[0].due); wait <= 0 {
				run = heap.Pop(&t.jobs).(job).run
			}
		}
		t.mu.Unlock()
		if run != nil {
			run()
			continue
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-t.wake:
		}
	}
}
