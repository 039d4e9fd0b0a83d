package service

import (
	"context"
	"io"
	"sync"
)

// A spool holds the whole of a file in memory while it comes in and until the store has confirmed it. One goroutine appends;
// any number of readers follow it. A PUT that has to be repeated is a new reader.
//
// The last byte is held back from readers until release: the store commits an object when the last byte has come, so a file
// that fails its checks is never committed.
type spool struct {
	pool *admission

	mu      sync.Mutex
	blocks  []*[blockBytes]byte
	n       int64
	size    int64         // as declared; -1: not known until seal
	sealed  bool          // all bytes are here
	free    bool          // the last byte may go out
	gone    bool          // discarded
	changed chan struct{} // closed, and made anew, at each change: readers wait on it
	waiting bool          // somebody waits on changed
}

func newSpool(pool *admission, declared int64) *spool {
	return &spool{pool: pool, size: declared, changed: make(chan struct{})}
}

// append copies p into blocks. The caller has checked that it fits what was reserved. After discard it does nothing.
func (s *spool) append(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(p) > 0 && !s.gone {
		at := int(s.n % blockBytes)
		if at == 0 {
			s.blocks = append(s.blocks, s.pool.block())
		}
		n := copy(s.blocks[len(s.blocks)-1][at:], p)
		s.n += int64(n)
		p = p[n:]
	}
	s.wake()
}

// Write is append, for what is made here. It never fails.
func (s *spool) Write(p []byte) (int, error) {
	s.append(p)
	return len(p), nil
}

// seal says that all bytes are here.
func (s *spool) seal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealed, s.size = true, s.n
	s.wake()
}

// release lets the last byte out: every check has passed.
func (s *spool) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = true
	s.wake()
}

// discard gives the blocks back. Nobody may read any more; the receiver may still be at a chunk, which is then dropped, since
// the room for it is given back too.
func (s *spool) discard() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.blocks {
		s.pool.giveBack(b)
	}
	s.blocks, s.n, s.gone = nil, 0, true
}

func (s *spool) released() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.free
}

func (s *spool) len() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

// at gives bytes from off on, as many as lie in one block; they stay as they are until discard. held says whether the last
// byte may be held back from this reader; next is closed when there may be more, and end reports that off is the file's end.
func (s *spool) at(off int64, held bool) (p []byte, end bool, next <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	upTo := s.n
	if held && !s.free && s.size >= 0 {
		upTo = min(upTo, s.size-1)
	}
	if off < upTo {
		from := off % blockBytes
		return s.blocks[off/blockBytes][from:min(blockBytes, from+upTo-off)], false, nil
	}
	if s.sealed && off == s.n && (s.free || !held) {
		return nil, true, nil
	}
	s.waiting = true
	return nil, false, s.changed
}

func (s *spool) wake() {
	if s.waiting {
		close(s.changed)
		s.changed = make(chan struct{})
		s.waiting = false
	}
}

// await returns once the spool is released, or with ctx's error.
func (s *spool) await(ctx context.Context) error {
	for {
		s.mu.Lock()
		free, next := s.free, s.changed
		s.waiting = true
		s.mu.Unlock()
		if free {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// body reads the file for a PUT, waiting for bytes to come; the last byte waits for release. Close, or the end of ctx, ends a
// waiting Read.
func (s *spool) body(ctx context.Context) io.ReadCloser {
	ctx, cancel := context.WithCancelCause(ctx)
	return &spoolBody{s: s, ctx: ctx, cancel: cancel}
}

type spoolBody struct {
	s      *spool
	off    int64
	ctx    context.Context // ends the body: a Read has none of its own
	cancel context.CancelCauseFunc
}

func (b *spoolBody) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if b.ctx.Err() != nil {
			return 0, context.Cause(b.ctx)
		}
		from, end, next := b.s.at(b.off, true)
		if len(from) > 0 {
			n := copy(p, from)
			b.off += int64(n)
			return n, nil
		}
		if end {
			return 0, io.EOF
		}
		select {
		case <-next:
		case <-b.ctx.Done():
		}
	}
}

func (b *spoolBody) Close() error {
	b.cancel(io.ErrClosedPipe)
	return nil
}

// reader reads a sealed spool, without waiting.
func (s *spool) reader() io.Reader { return &sealedReader{s: s} }

type sealedReader struct {
	s   *spool
	off int64
}

func (r *sealedReader) Read(p []byte) (int, error) {
	from, _, _ := r.s.at(r.off, false)
	if len(from) == 0 {
		return 0, io.EOF
	}
	n := copy(p, from)
	r.off += int64(n)
	return n, nil
}
