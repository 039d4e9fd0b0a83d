package admission

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// A Reservation is permission to hold a number of bytes in blocks. Release it when all blocks have been returned; releasing it
// again has no effect.
type Reservation struct {
	from     *Memory
	holder   Holder
	bytes    int64
	most     int64 // what it may grow to
	growing  bool  // it may still grow, and most is counted in growth
	released bool
}

// growth is the uploads that reserve memory as their bytes arrive. Uploads that wait for each other's memory would never end, so
// growth keeps enough free for the largest of them. One upload at a time, the privileged one, may use what is kept, and so can always
// end. Then the next one becomes privileged. Stated as an invariant, with Memory locked:
//
//	free >= largest - bytes of the privileged reservation
//
// When the privileged upload ends, its bytes are free too, which is enough for any other.
type growth struct {
	most       map[int64]int // how many growing reservations have each maximum: there are as many as accounts have limits
	largest    int64         // of the keys of most
	privileged *Reservation  // nil: none; until it is released
	waiting    []*grower     // in the order in which they began to wait
}

// A grower is a reservation that waits for n more bytes. done is closed when it has them, or is released.
type grower struct {
	r    *Reservation
	n    int64
	done chan struct{}
}

// kept returns how much of what is free only the privileged reservation may take.
func (g *growth) kept(largest int64) int64 {
	if g.privileged != nil {
		largest -= g.privileged.bytes
	}
	return max(0, largest)
}

// admit reports whether r may take its first bytes, and counts it if it may grow.
func (g *growth) admit(r *Reservation, free int64) bool {
	grows, largest := r.most > r.bytes, g.largest
	if grows {
		largest = max(largest, r.most)
	}
	switch {
	case r.bytes+g.kept(largest) <= free:
	case grows && g.privileged == nil && largest <= free:
		g.privileged = r
	default:
		return false
	}
	if grows {
		r.growing, g.largest = true, largest
		g.most[r.most]++
	}
	return true
}

// end stops counting a reservation that does not grow any more. It stays privileged, if it is, until it is released.
func (g *growth) end(r *Reservation) {
	if !r.growing {
		return
	}
	r.growing = false
	if g.most[r.most]--; g.most[r.most] > 0 {
		return
	}
	delete(g.most, r.most)
	g.largest = 0
	for most := range g.most {
		g.largest = max(g.largest, most)
	}
}

// remove removes the grower of a reservation.
func (g *growth) remove(r *Reservation) {
	g.waiting = slices.DeleteFunc(g.waiting, func(w *grower) bool { return w.r == r })
}

// Grow reserves memory so that the reservation is enough for size bytes in all, which must be within its maximum. It waits for memory
// for at most timeout. TooManyUploads if there is none in time. waits is called before it waits. One goroutine at a time may call Grow.
func (r *Reservation) Grow(ctx context.Context, size int64, timeout time.Duration, waits func()) error {
	m := r.from
	m.mu.Lock()
	n := WholeBlocks(size) - r.bytes
	if n <= 0 || r.released {
		m.mu.Unlock()
		return nil
	}
	g := &grower{r, n, make(chan struct{})}
	m.growth.waiting = append(m.growth.waiting, g)
	m.admit()
	m.mu.Unlock()
	select {
	case <-g.done:
		return nil
	default:
	}
	waits()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-g.done:
		return nil
	case <-ctx.Done():
	case <-timer.C:
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-g.done:
		return nil
	default:
	}
	limit := limitBudget
	if !m.mayGrow(g) {
		limit = limitCaller
	}
	m.growth.remove(r)
	m.admit()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return m.reject(limit, "no memory became free in time for a file whose size was not declared")
}

// grow gives memory to uploads that wait to grow. It returns false if one that is within its share still waits: then nobody else may
// take memory. m is locked.
func (m *Memory) grow() bool {
	g := &m.growth
	if len(g.waiting) == 0 {
		return true
	}
	blocked := false
	g.waiting = slices.DeleteFunc(g.waiting, func(w *grower) bool {
		switch {
		case w.r == g.privileged:
		case !m.mayGrow(w):
			return false // it waits for uploads of its own caller to end
		case w.n+g.kept(g.largest) > m.shares.Free():
			blocked = true
			return false
		}
		m.enlarge(w)
		return true
	})
	if g.privileged == nil && len(g.waiting) > 0 {
		next := slices.MinFunc(g.waiting, func(a, b *grower) int {
			return cmp.Compare(m.shares.Held(a.r.holder), m.shares.Held(b.r.holder))
		})
		g.privileged = next.r
		return m.grow()
	}
	return !blocked
}

// mayGrow reports whether a caller stays within its share with what a grower waits for. Its only upload may always grow, as it could
// have had all its memory at once. m is locked.
func (m *Memory) mayGrow(w *grower) bool {
	return m.uploads[w.r.holder] == 1 || m.shares.Within(w.r.holder, w.n)
}

// enlarge gives a grower what it waits for. m is locked.
func (m *Memory) enlarge(w *grower) {
	m.shares.Take(w.r.holder, w.n)
	w.r.bytes += w.n
	close(w.done)
}

// Shrink returns what is not needed to hold size bytes. The reservation does not grow any more.
func (r *Reservation) Shrink(size int64) {
	m := r.from
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.released {
		return
	}
	m.growth.end(r)
	if over := r.bytes - WholeBlocks(size); over > 0 {
		r.bytes -= over
		m.shares.Take(r.holder, -over)
	}
	m.admit()
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
	m.shares.Take(r.holder, -r.bytes)
	if m.uploads[r.holder]--; m.uploads[r.holder] == 0 {
		delete(m.uploads, r.holder)
	}
	m.growth.end(r)
	if m.growth.privileged == r {
		m.growth.privileged = nil
	}
	m.growth.waiting = slices.DeleteFunc(m.growth.waiting, func(w *grower) bool {
		if w.r == r {
			close(w.done)
		}
		return w.r == r
	})
	m.admit()
}

// Bytes returns how much is reserved.
func (r *Reservation) Bytes() int64 {
	r.from.mu.Lock()
	defer r.from.mu.Unlock()
	return r.bytes
}
