package upload

import (
	"bytes"
	"io"
	"math/bits"
	"testing"

	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/crc32c"
)

// unpooled is a Buffer without a pool.
type unpooled []byte

func (b unpooled) ReadOnlyData() []byte { return b }
func (b unpooled) Free()                {}

// A poisoning pool overwrites buffers that are freed, and knows what those occupy that are not.
type poisoning struct{ occupied int64 }

type poisoned struct {
	pool *poisoning
	root []byte // all of the buffer
	data []byte
}

func (b *poisoned) ReadOnlyData() []byte { return b.data }

func (b *poisoned) Free() {
	b.pool.occupied -= int64(cap(b.root))
	for i := range b.root {
		b.root[i] = 0xdb
	}
	b.root, b.data = nil, nil
}

// buffer returns a buffer for size bytes with data after what precedes it.
func (p *poisoning) buffer(size, before int, data []byte) Buffer {
	root := make([]byte, size, 1<<bits.Len(uint(size-1)))
	p.occupied += int64(cap(root))
	copy(root[before:], data)
	return &poisoned{p, root, root[before : before+len(data)]}
}

// frames returns data as gRPC receives it, in frames of at most 16 KiB of which the first one has something else before the data.
func (p *poisoning) frames(data []byte, before int) (frames []Buffer) {
	for len(data) > 0 {
		n := min(len(data), 16<<10-before)
		frames = append(frames, p.buffer(before+n, before, data[:n]))
		data, before = data[n:], 0
	}
	return frames
}

// TestSpool_OccupiesWhatIsReserved adds chunks of all sizes. The spool never occupies more than is reserved for its bytes, and large chunks
// stay in their buffers.
func TestSpool_OccupiesWhatIsReserved(t *testing.T) {
	whole := pattern(20*blockBytes - 5000)
	for name, c := range map[string]struct {
		chunk, before int
		undeclared    bool
		kept          int // runs, at least
	}{
		"1 byte":                  {chunk: 1, before: 16<<10 - 1},
		"1,000 bytes":             {chunk: 1000, before: 27},
		"16 KiB":                  {chunk: 16 << 10, before: 27, kept: 70},
		"16 KiB without a header": {chunk: 16 << 10, kept: 79},
		"64 KiB":                  {chunk: 64 << 10, before: 27, kept: 78},
		"64 KiB, undeclared":      {chunk: 64 << 10, before: 27, undeclared: true, kept: 57},
		"64 KiB, much before":     {chunk: 64 << 10, before: 4000, kept: 57},
		"100,000 bytes":           {chunk: 100_000, before: 27, kept: 76},
		"1 MiB":                   {chunk: 1 << 20, before: 30, kept: 78},
	} {
		t.Run(name, func(t *testing.T) {
			file := whole[:min(len(whole), 500*c.chunk)]
			size := len(file)
			declared := int64(size)
			if c.undeclared {
				declared = -1
			}
			s, pool := newSpool(testMemory(), declared), new(poisoning)
			for off := 0; off < size; {
				n := min(c.chunk, size-off)
				s.add(Chunk{Data: pool.frames(file[off:off+n], c.before)})
				off += n
				reserved := wholeBlocks(int64(off))
				if !c.undeclared {
					reserved = wholeBlocks(declared)
				}
				if occupied := pool.occupied + int64(len(s.pages))*admission.PageBytes; occupied > reserved {
					t.Fatalf("%d bytes occupy %d, %d are reserved", off, occupied, reserved)
				}
			}
			s.seal()
			kept := 0
			for _, r := range s.runs {
				if r.buffer != nil {
					kept++
				}
			}
			if kept < c.kept {
				t.Errorf("%d buffers are kept, want at least %d", kept, c.kept)
			}
			if got, err := io.ReadAll(s.reader()); err != nil || !bytes.Equal(got, file) {
				t.Errorf("the spool has other bytes, %v", err)
			}
			if s.discard(); pool.occupied != 0 {
				t.Errorf("buffers of %d bytes were not freed", pool.occupied)
			}
		})
	}
}

// TestSpool_SmallPartOfLargeBuffer keeps no buffer of which most has something else, wherever it is.
func TestSpool_SmallPartOfLargeBuffer(t *testing.T) {
	const kib = 1 << 10
	for _, c := range []struct{ size, before, data int }{
		{16 * kib, 15 * kib, kib}, {16 * kib, 0, kib}, {16 * kib, 2 * kib, 14 * kib}, {30 * kib, 15 * kib, 15 * kib}, {30 * kib, 0, 16 * kib}, {64 * kib, 0, 33 * kib},
	} {
		s, pool := newSpool(testMemory(), 4*blockBytes+1), new(poisoning) // almost a block of slack
		if s.add(Chunk{Data: []Buffer{pool.buffer(c.size, c.before, pattern(c.data))}}); pool.occupied != 0 {
			t.Errorf("%+v: the buffer is kept", c)
		}
	}
}

func TestAddCRC32C(t *testing.T) {
	data := pattern(300_000)
	whole := crc32c.Update(0, data)
	for _, n := range []int{0, 1, 65_536, 299_999, 300_000} {
		first, second := data[:n], data[n:]
		sum := crc32c.Update(0, second)
		for _, c := range []Chunk{{Data: []Buffer{unpooled(second)}}, {Data: []Buffer{unpooled(second)}, CRC32C: &sum}} {
			if got := addCRC32C(crc32c.Update(0, first), c); got != whole {
				t.Errorf("a chunk of %d bytes after %d: got %x, want %x", len(second), len(first), got, whole)
			}
		}
	}
}
