package liveperson

import (
	"container/heap"
	"sync"
	"time"
)

// An outbox queues frames to be written to a socket. put never blocks.
type outbox struct {
	mu      sync.Mutex
	frames  [][]byte
	size    int
	largest int // size of the largest frame
	limit   int
	code    int // close code, after the last frame
	reason  string
	closed  bool // put discards frames
	wake    chan struct{}
}

func newOutbox(limit int) *outbox { return &outbox{limit: limit, wake: make(chan struct{}, 1)} }

// put queues frames and reports whether the queue is within its limit. The largest frame does not count: all messages of a dialog are
// one frame, however many there are. A closed outbox discards frames.
func (o *outbox) put(frames ...[]byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return true
	}
	for _, f := range frames {
		o.size += len(f)
		o.largest = max(o.largest, len(f))
		o.frames = append(o.frames, f)
	}
	o.signal()
	return o.size-o.largest <= o.limit
}

// close ends the queue. Queued frames are still written, then a close frame if code is not 0.
func (o *outbox) close(code int, reason string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		o.closed, o.code, o.reason = true, code, reason
	}
	o.signal()
}

// take removes and returns the queued frames. last reports whether the outbox is closed.
func (o *outbox) take() (frames [][]byte, last bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	frames, o.frames, o.size, o.largest = o.frames, nil, 0, 0
	return frames, o.closed
}

// signal wakes the writer.
func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// A timeline runs jobs when they are due, one at a time; jobs with the same due time run in the order in which they were added. It
// starts a goroutine with the first job.
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

// at schedules run for due. After stop it does nothing.
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

// stop discards all jobs and waits for the running one.
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
