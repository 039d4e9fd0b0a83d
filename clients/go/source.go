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

// A source is the bytes of an upload. A source that can be read twice is measured first and rewound for each attempt. Of any other,
// the bytes read are counted, because no attempt is possible once some were read.
type source struct {
	reader io.Reader
	rewind func() error  // nil: the source can be read only once
	size   int64         // -1: not known
	sums   *pb.Checksums // nil: not known
	head   []byte        // the first bytes, for the type
	taken  int64         // number of bytes read since the last rewind
}

// newSource returns a source for r. If r can be read only once and needHead is set, it reads the first bytes into a buffer.
func newSource(ctx context.Context, r io.Reader, needHead bool) (*source, error) {
	s := &source{size: -1}
	switch r := r.(type) {
	case nil:
		s.reader = bytes.NewReader(nil)
		return s, nil
	case *bytes.Buffer:
		s.seekable(bytes.NewReader(r.Next(r.Len())), 0)
	case io.ReadSeeker:
		// A pipe is an *os.File too. Only this call shows that it cannot seek.
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

// measure reads the whole source for its size, checksums and first bytes, and rewinds it.
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

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.reader.Read(p)
	s.taken += int64(n)
	return n, err
}

// begin prepares the source for another attempt. The error says why that is not possible.
func (s *source) begin() error {
	switch {
	case s.taken == 0:
		return nil
	case s.rewind == nil:
		return fmt.Errorf("the source can be read only once, and %d bytes of it were read; "+
			"use a source that can seek, or send the whole file again under the same request id", s.taken)
	default:
		if err := s.rewind(); err != nil {
			return fmt.Errorf("the source cannot be rewound: %w", err)
		}
		return nil
	}
}

// A headWriter keeps the first sniffBytes bytes.
type headWriter struct{ head *bytes.Buffer }

func (w *headWriter) Write(p []byte) (int, error) {
	w.head.Write(p[:min(len(p), sniffBytes-w.head.Len())])
	return len(p), nil
}

// A contextReader stops when its context ends, because the source may be endless.
type contextReader struct {
	ctx context.Context // of the one pass that the reader is used for
	r   io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
