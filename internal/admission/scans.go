package admission

import (
	"context"
	"sync"
)

// Scans limits the connections to a malware scanner. Each caller has a share of them, and accounts and callers that wait take turns.
//
// Files that are still arriving use at most half of the connections, and have shares of their own. So files that have arrived wait neither
// for slow clients nor for other files of their caller that are still arriving.
type Scans struct {
	mu       sync.Mutex
	arriving *Shares // of the half that files may use while they arrive
	arrived  *Shares // of all connections
	inUse    int     // by both
	total    int
	queue    turns // of files that have arrived
}

// NewScans returns Scans over connections that are all free.
func NewScans(connections int) *Scans {
	return &Scans{
		arriving: NewShares(int64(connections/2), ByAccount), arrived: NewShares(int64(connections), ByAccount),
		total: connections, queue: newTurns(),
	}
}

// BeginArriving takes a connection for a file that is still arriving. ok is false if it must wait until it has arrived. The caller
// calls end once.
//
// It overtakes only files whose caller has its whole share: any other gets a free connection before this does.
func (s *Scans) BeginArriving(h Holder) (end func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inUse == s.total || !s.arriving.Fits(h, 1) {
		return nil, false
	}
	s.take(s.arriving, h)
	return func() { s.end(s.arriving, h) }, true
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
	end = func() { s.end(s.arrived, h) }
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
	return s.inUse, s.queue.waiting
}

// take takes a connection. s is locked.
func (s *Scans) take(shares *Shares, h Holder) {
	s.inUse++
	shares.Take(h, 1)
}

func (s *Scans) end(shares *Shares, h Holder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inUse--
	shares.Take(h, -1)
	s.admit()
}

// admit gives free connections to files that wait. s is locked.
func (s *Scans) admit() {
	for s.queue.next(func(w *waiter) decision {
		switch {
		case s.inUse == s.total:
			return stop
		case !s.arrived.Within(w.holder, 1):
			return pass
		}
		s.take(s.arrived, w.holder)
		return admitted
	}) {
	}
}
