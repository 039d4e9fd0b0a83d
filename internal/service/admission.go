package service

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// blockBytes is the unit in which upload memory is reserved and held.
const blockBytes = 64 << 10

// admission is the door to upload memory: one budget for all uploads, and a bounded queue, first come first served, before it.
// What is reserved is memory, not bytes of data: blocks, whole ones, whatever the size of the chunks that fill them.
type admission struct {
	budget *semaphore.Weighted
	places chan struct{} // one for each upload that may wait
	wait   time.Duration
	blocks sync.Pool // *[blockBytes]byte, given back by ended uploads
}

func newAdmission(budget int64, places int, wait time.Duration) *admission {
	return &admission{
		budget: semaphore.NewWeighted(budget),
		places: make(chan struct{}, places),
		wait:   wait,
		blocks: sync.Pool{New: func() any { return new([blockBytes]byte) }},
	}
}

// A reservation is leave to hold so many blocks. Release it when all of them have been given back; again does nothing.
type reservation struct {
	from  *admission
	bytes int64
	once  sync.Once
}

// reserve waits in the queue for room for size bytes; TooManyUploads if there is none in time, or no place to wait. Who holds
// much already may not wait: that would be memory outside the budget.
func (a *admission) reserve(ctx context.Context, size int64, mayWait bool) (*reservation, error) {
	r := &reservation{from: a, bytes: wholeBlocks(size)}
	if a.budget.TryAcquire(r.bytes) {
		return r, nil
	}
	full := func(why string) error {
		return refuse(share.TooManyUploads, "the server holds as many uploads as it may, and %s; repeat under the same request_id", why)
	}
	if !mayWait {
		return nil, full("an upload whose first message has a large chunk does not wait")
	}
	select {
	case a.places <- struct{}{}:
		defer func() { <-a.places }()
	default:
		return nil, full("the queue is full")
	}
	waiting, cancel := context.WithTimeout(ctx, a.wait)
	defer cancel()
	if a.budget.Acquire(waiting, r.bytes) != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, full("none ended in time")
	}
	return r, nil
}

// wholeBlocks is the memory that so many bytes are held in.
func wholeBlocks(size int64) int64 { return (size + blockBytes - 1) / blockBytes * blockBytes }

// shrink gives back what is not needed to hold size bytes. It and release have one caller.
func (r *reservation) shrink(size int64) {
	if over := r.bytes - wholeBlocks(size); over > 0 {
		r.bytes -= over
		r.from.budget.Release(over)
	}
}

func (r *reservation) release() { r.once.Do(func() { r.from.budget.Release(r.bytes) }) }

func (a *admission) block() *[blockBytes]byte     { return a.blocks.Get().(*[blockBytes]byte) }
func (a *admission) giveBack(b *[blockBytes]byte) { a.blocks.Put(b) }
