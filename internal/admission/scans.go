package admission

import (
	"context"
	"sync"
)

// Scans limits the connections to a malware scanner. Each caller has a share of them, and accounts and callers that wait take turns.
//
// Files that are still arriving use at most half of the connections, so that files that have arrived never wait for slow clients.
type Scans struct {
	mostArriving int

	mu       sync.Mutex
	shares   *Shares
	arriving int
	queue    turns
}

// NewScans returns Scans over connections that are all free.
func NewScans(connections int) *Scans {
	return &Scans{mostArriving: connections / 2, shares: NewShares(int64(connections), ByAccount), queue: newTurns()}
}

// BeginArriving takes a connection for a file that is still arriving. ok is false if it must wait until it has arrived. The caller
// calls end once.
func (s *Scans) BeginArriving(h Holder) (end func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.queue.waiting > 0 || s.arriving >= s.mostArriving || !s.shares.Fits(h, 1) {
		return nil, false
	}
	s.arriving++
	s.shares.Take(h, 1)
	return func() { s.end(h, 1) }, true
}

// Begin waits for a connection for a file that has arrived, and returns the cause of ctx's end if there is none until then. The caller
// calls end once.
//
// The queue has no limit of its own: whatever waits has reserved memory for its file.
func (s *Scans) Begin(ctx context.Context, h Holder) (end func(), err error) {
	w := &waiter{holder: h, admitted: make(chan struct{})}
	s.mu.Lock()
	s.queue.push(w)
	s.admit()
	s.mu.Unlock()
	end = func() { s.end(h, 0) }
	select {
	case <-w.admitted:
		return end, nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	left := !w.isAdmitted()
	if left {
		s.queue.remove(w)
	}
	s.mu.Unlock()
	if !left {
		end()
	}
	return nil, context.Cause(ctx)
}

// InUse returns the number of connections in use, and of files that wait for one.
func (s *Scans) InUse() (connections, waiting int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.shares.callers {
		connections += int(n)
	}
	return connections, s.queue.waiting
}

func (s *Scans) end(h Holder, arriving int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arriving -= arriving
	s.shares.Take(h, -1)
	s.admit()
}

// admit gives free connections to files that wait. s is locked.
func (s *Scans) admit() {
	for s.queue.next(func(w *waiter) decision {
		switch {
		case s.shares.Free() < 1:
			return stop
		case !s.shares.Within(w.holder, 1):
			return pass
		}
		s.shares.Take(w.holder, 1)
		return admitted
	}) {
	}
}
