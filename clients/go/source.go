package lpfileshare

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// castagnoli is the table of CRC-32C, which never changes.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A source is the bytes of an upload. One that can be read twice is measured first and rewound for each attempt; of any
// other, the bytes taken are counted, since no further attempt is possible after the first.
type source struct {
	reader io.Reader
	rewind func() error  // nil: it can be read only once
	size   int64         // -1: not known
	sums   *pb.Checksums // nil: not known
	head   []byte        // the first bytes, for the type
	taken  int64         // since the last rewind
}

// newSource looks at what r can do. Of a reader that can be read only once it reads the first bytes into a buffer if needHead.
func newSource(ctx context.Context, r io.Reader, needHead bool) (*source, error) {
	s := &source{size: -1}
	switch r := r.(type) {
	case nil:
		s.reader = bytes.NewReader(nil)
		return s, nil
	case *bytes.Buffer:
		s.seekable(bytes.NewReader(r.Next(r.Len())), 0)
	case io.ReadSeeker:
		// A pipe is an *os.File as well, and says only here that it cannot seek.
		if start, err := r.Seek(0, io.SeekCurrent); err == nil {
			s.seekable(r, start)
		}
	case io.ReaderAt:
		s.seekable(io.NewSectionReader(r, 0, math.MaxInt64), 0)
	}
	if s.rewind != nil {
		return s, s.measure(ctx)
	}
	if !needHead {
		s.reader = r
		return s, nil
	}
	buffered := bufio.NewReaderSize(r, 4096)
	head, err := buffered.Peek(sniffBytes)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read source: %w", err)
	}
	s.reader, s.head = buffered, head
	return s, nil
}

func (s *source) seekable(r io.ReadSeeker, start int64) {
	s.reader = r
	s.rewind = func() error {
		_, err := r.Seek(start, io.SeekStart)
		s.taken = 0
		return err
	}
}

// measure reads the source to its end for size, sums and first bytes, and rewinds it.
func (s *source) measure(ctx context.Context) error {
	crc, sha := crc32.New(castagnoli), sha256.New()
	var head bytes.Buffer
	n, err := io.Copy(io.MultiWriter(crc, sha, &headWriter{&head}), &contextReader{ctx, s.reader})
	if err == nil {
		err = s.rewind()
	}
	if err != nil {
		return fmt.Errorf("read source: %w", err)
	}
	s.size, s.head = n, head.Bytes()
	s.sums = &pb.Checksums{Crc32C: new(crc.Sum32()), Sha256: sha.Sum(nil)}
	return nil
}

// Read reads from the source and counts.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.reader.Read(p)
	s.taken += int64(n)
	return n, err
}

// begin makes the source ready for an attempt, and says why it cannot be if so.
func (s *source) begin() error {
	switch {
	case s.taken == 0:
		return nil
	case s.rewind == nil:
		return fmt.Errorf("the source can be read only once, and %d bytes of it were read; "+
			"give one that can seek, or send the whole file again under the same request id", s.taken)
	default:
		if err := s.rewind(); err != nil {
			return fmt.Errorf("the source cannot be rewound: %w", err)
		}
		return nil
	}
}

// A headWriter keeps the first bytes.
type headWriter struct{ head *bytes.Buffer }

func (w *headWriter) Write(p []byte) (int, error) {
	w.head.Write(p[:min(len(p), sniffBytes-w.head.Len())])
	return len(p), nil
}

// A contextReader ends reading when its context ends: the source may be endless.
type contextReader struct {
	ctx context.Context // of the one pass that this reader lives for
	r   io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
