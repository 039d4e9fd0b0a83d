package upload

import (
	"context"
	"io"
	"sync"

	"github.com/lpfileshare/lpfileshare/internal/admission"
)

const blockBytes = admission.BlockBytes

func wholeBlocks(size int64) int64 { return admission.WholeBlocks(size) }

// A spool holds a whole file in memory while it arrives and until the store has confirmed it. One goroutine appends. Any number
// of readers follow it: a PUT that is repeated is a new reader.
//
// Readers get the last byte only after release: the store commits an object when its last byte has arrived, so a file that fails
// its checks is never committed.
type spool struct {
	memory *admission.Memory

	mu        sync.Mutex
	blocks    []*admission.Block
	adopted   []byte // the whole file, in place of blocks
	n         int64
	size      int64         // as declared; -1: not known before seal
	sealed    bool          // all bytes are here
	released  bool          // readers may get the last byte
	discarded bool          // the blocks are returned
	changed   chan struct{} // closed and replaced at each change that readers wait for
	waiting   bool          // a reader waits for changed
}

func newSpool(memory *admission.Memory, declared int64) *spool {
	return &spool{memory: memory, size: declared, changed: make(chan struct{})}
}

// append copies p. The caller has checked that it fits in the reservation. After discard it does nothing.
func (s *spool) append(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(p) > 0 && !s.discarded {
		at := int(s.n % blockBytes)
		if at == 0 {
			s.blocks = append(s.blocks, s.memory.GetBlock())
		}
		n := copy(s.blocks[len(s.blocks)-1][at:], p)
		s.n += int64(n)
		p = p[n:]
	}
	s.wake()
}

// adopt makes p the whole file without copying it. The spool must be empty, and p must not change.
func (s *spool) adopt(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.discarded {
		s.adopted, s.n = p, int64(len(p))
	}
	s.wake()
}

// Write appends p. It never fails.
func (s *spool) Write(p []byte) (int, error) {
	s.append(p)
	return len(p), nil
}

// seal marks the end: all bytes are here.
func (s *spool) seal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealed, s.size = true, s.n
	s.wake()
}

// release lets readers get the last byte: every check has passed.
func (s *spool) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.released = true
	s.wake()
}

// discard returns the blocks. Nothing may read any more. A reader goroutine may still append: that is dropped, because the
// reservation is released too.
func (s *spool) discard() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.blocks {
		s.memory.PutBlock(b)
	}
	s.blocks, s.adopted, s.n, s.discarded = nil, nil, 0, true
}

func (s *spool) isReleased() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.released
}

func (s *spool) len() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

// at returns bytes from off on, up to the end of their block. They do not change until discard. holdBack withholds the last byte
// until release. next is closed when there may be more; end reports that off is the end of the file.
func (s *spool) at(off int64, holdBack bool) (p []byte, end bool, next <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	upTo := s.n
	if holdBack && !s.released && s.size >= 0 {
		upTo = min(upTo, s.size-1)
	}
	if off < upTo {
		from := off % blockBytes
		to := min(blockBytes, from+upTo-off)
		if s.adopted != nil {
			return s.adopted[off : off+to-from], false, nil
		}
		return s.blocks[off/blockBytes][from:to], false, nil
	}
	if s.sealed && off == s.n && (s.released || !holdBack) {
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

// awaitRelease returns when the spool is released, or with the cause of ctx's end.
func (s *spool) awaitRelease(ctx context.Context) error {
	for {
		s.mu.Lock()
		released, next := s.released, s.changed
		s.waiting = true
		s.mu.Unlock()
		if released {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// body reads the file for a PUT, waiting for bytes to arrive and for release of the last one. Close, or the end of ctx, ends a
// waiting Read.
func (s *spool) body(ctx context.Context) io.ReadCloser {
	ctx, cancel := context.WithCancelCause(ctx)
	return &spoolBody{s: s, ctx: ctx, cancel: cancel}
}

type spoolBody struct {
	s      *spool
	off    int64
	ctx    context.Context // ends the body, because Read has no context
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

// reader reads a sealed spool without waiting.
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

// ReadAt reads from a sealed spool.
func (s *spool) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, io.ErrUnexpectedEOF
	}
	return io.ReadFull(&sealedReader{s: s, off: off}, p)
}
