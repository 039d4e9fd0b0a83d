package upload

import (
	"context"
	"io"
	"math/bits"
	"sort"
	"sync"

	"github.com/lpfileshare/lpfileshare/internal/admission"
)

const blockBytes = admission.BlockBytes

// partsOfBlock is the number of parts that a block of a file usually has: its pages, of which it may begin and end within one.
const partsOfBlock = blockBytes/admission.PageBytes + 1

func wholeBlocks(size int64) int64 { return admission.WholeBlocks(size) }

// A spool holds a whole file in memory while it arrives and until the store has confirmed it. One goroutine adds bytes. Any number
// of readers follow it: a PUT that is repeated is a new reader.
//
// The bytes lie in the buffers that they arrived in, if these are as good as full, and otherwise in pages, so that the file never
// occupies more than whole blocks of its size, which are reserved for it.
//
// Readers get the last byte only after release: the store commits an object when its last byte has arrived, so a file that fails
// its checks is never committed.
type spool struct {
	memory *admission.Memory

	mu        sync.Mutex
	runs      []run             // all bytes, in order
	pages     []*admission.Page // that runs lie in
	free      int               // bytes of the last page that no run has
	slack     int64             // what kept buffers may occupy in addition to their bytes
	n         int64
	size      int64         // as declared; -1: not known before seal
	sealed    bool          // all bytes are here
	released  bool          // readers may get the last byte
	discarded bool          // the memory is returned
	changed   chan struct{} // closed and replaced at each change that readers wait for
	waiting   bool          // a reader waits for changed
}

// A run is consecutive bytes of a file. Bytes before its end do not change until discard.
type run struct {
	at     int64 // offset of the first byte
	bytes  []byte
	buffer Buffer // that the run keeps; nil: the bytes are in a page
}

func newSpool(memory *admission.Memory, declared int64) *spool {
	s := &spool{memory: memory, size: declared, changed: make(chan struct{})}
	if declared >= 0 {
		s.slack = wholeBlocks(declared) - declared
	}
	return s
}

// add adds the bytes of a chunk, and frees its buffers when they are not needed any more. The caller has checked that the bytes fit in the
// reservation. After discard it only frees.
func (s *spool) add(c Chunk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.runs == nil && s.size > 0 {
		s.runs = make([]run, 0, s.size/admission.PageBytes+2)
	}
	for _, b := range c.Data {
		switch p := b.ReadOnlyData(); {
		case s.discarded || len(p) == 0:
			b.Free()
		case c.Whole || s.keeps(p):
			s.runs = append(s.runs, run{s.n, p, b})
			s.n += int64(len(p))
		default:
			s.pack(p)
			b.Free()
		}
	}
	s.wake()
}

// keeps reports whether the spool keeps the buffer of p: if p is most of it, and the spool has slack for the rest. What precedes p in the
// buffer is unknown, but little does if the rest looks like a page: see the sizes of package bufpool.
func (s *spool) keeps(p []byte) bool {
	const most = admission.PageBytes / 16 * 15
	occupied := 1 << bits.Len(uint(cap(p)-1))
	unused := int64(occupied - len(p))
	if len(p) < most || unused > admission.PageBytes-most || unused > s.slack {
		return false
	}
	s.slack -= unused
	return true
}

// pack copies p into pages.
func (s *spool) pack(p []byte) {
	for len(p) > 0 {
		if s.free == 0 {
			s.pages = append(s.pages, s.memory.GetPage())
			s.free = admission.PageBytes
		}
		used := admission.PageBytes - s.free
		page := s.pages[len(s.pages)-1]
		n := copy(page[used:], p)
		if last := len(s.runs) - 1; used > 0 && s.runs[last].buffer == nil {
			r := &s.runs[last]
			r.bytes = r.bytes[:len(r.bytes)+n]
		} else {
			s.runs = append(s.runs, run{at: s.n, bytes: page[used : used+n]})
		}
		s.free -= n
		s.n += int64(n)
		p = p[n:]
	}
}

// Write adds p. It never fails.
func (s *spool) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.discarded {
		s.pack(p)
	}
	s.wake()
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

// discard returns the memory. Nothing may read any more. A reader goroutine may still add: that is dropped, because the reservation is
// released too.
func (s *spool) discard() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.runs {
		if r.buffer != nil {
			r.buffer.Free()
		}
	}
	for _, p := range s.pages {
		s.memory.PutPage(p)
	}
	s.runs, s.pages, s.free, s.n, s.discarded = nil, nil, 0, 0, true
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

// next appends the bytes from off on to parts, as far as they are here, and at most limit of them. They do not change until discard.
// holdBack withholds the last byte until release. more is closed when there may be more; end reports that off is the end of the file.
func (s *spool) next(parts [][]byte, off, limit int64, holdBack bool) (_ [][]byte, end bool, more <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	upTo := s.n
	if holdBack && !s.released && s.size >= 0 {
		upTo = min(upTo, s.size-1)
	}
	if off < upTo {
		upTo = min(upTo, off+limit)
		first := sort.Search(len(s.runs), func(i int) bool { return s.runs[i].at > off }) - 1
		for _, r := range s.runs[first:] {
			if r.at >= upTo {
				break
			}
			parts = append(parts, r.bytes[max(0, off-r.at):min(int64(len(r.bytes)), upTo-r.at)])
		}
		return parts, false, nil
	}
	if s.sealed && off == s.n && (s.released || !holdBack) {
		return parts, true, nil
	}
	s.waiting = true
	return parts, false, s.changed
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
	return s.await(ctx, func() bool { return s.released })
}

// awaitSeal returns when all bytes are here, or with the cause of ctx's end.
func (s *spool) awaitSeal(ctx context.Context) error {
	return s.await(ctx, func() bool { return s.sealed })
}

// await returns when a condition is met, which is checked with s locked, or with the cause of ctx's end.
func (s *spool) await(ctx context.Context, met func() bool) error {
	for {
		s.mu.Lock()
		done, next := met(), s.changed
		s.waiting = true
		s.mu.Unlock()
		if done {
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
func (s *spool) body(ctx context.Context) io.ReadCloser { return s.follow(ctx, true) }

// follow is body with a choice: without holdBack the last byte is readable before release.
func (s *spool) follow(ctx context.Context, holdBack bool) *spoolBody {
	b := &spoolBody{s: s, holdBack: holdBack, ctx: ctx, closed: make(chan struct{})}
	b.parts = b.usual[:0]
	return b
}

type spoolBody struct {
	s        *spool
	holdBack bool
	off      int64
	parts    [][]byte
	usual    [partsOfBlock][]byte // which parts uses, as long as it is large enough
	ctx      context.Context      // ends the body, because Read has no context
	once     sync.Once            // for closing closed
	closed   chan struct{}
}

// ReadBuffers returns the next bytes, at least one and at most limit, without copying them. They are valid until the PUT or the scan has
// ended, and the slice of them until the next call. io.EOF: there are no more.
func (b *spoolBody) ReadBuffers(limit int64) ([][]byte, error) {
	for {
		select {
		case <-b.closed:
			return nil, io.ErrClosedPipe
		default:
		}
		if b.ctx.Err() != nil {
			return nil, context.Cause(b.ctx)
		}
		parts, end, more := b.s.next(b.parts[:0], b.off, limit, b.holdBack)
		if b.parts = parts; len(parts) > 0 {
			for _, p := range parts {
				b.off += int64(len(p))
			}
			return parts, nil
		}
		if end {
			return nil, io.EOF
		}
		select {
		case <-more:
		case <-b.closed:
		case <-b.ctx.Done():
		}
	}
}

// Read copies the next bytes.
func (b *spoolBody) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	parts, err := b.ReadBuffers(int64(len(p)))
	return gather(p, parts), err
}

func (b *spoolBody) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

// gather copies parts into p, which is long enough.
func gather(p []byte, parts [][]byte) (n int) {
	for _, part := range parts {
		n += copy(p[n:], part)
	}
	return n
}

// reader reads a sealed spool without waiting.
func (s *spool) reader() io.Reader { return &sealedReader{s: s} }

type sealedReader struct {
	s     *spool
	off   int64
	parts [][]byte
}

func (r *sealedReader) Read(p []byte) (int, error) {
	r.parts, _, _ = r.s.next(r.parts[:0], r.off, int64(len(p)), false)
	n := gather(p, r.parts)
	if r.off += int64(n); n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// ReadAt reads from a sealed spool.
func (s *spool) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, io.ErrUnexpectedEOF
	}
	return io.ReadFull(&sealedReader{s: s, off: off}, p)
}
