package bufpool

import (
	"bytes"
	"testing"

	"google.golang.org/grpc/mem"
)

var _ mem.BufferPool = (*Pool)(nil)

func TestPool_ReturnsBuffersOfTheLength(t *testing.T) {
	var p Pool
	for _, c := range []struct{ length, capacity int }{
		{0, 4 << 10}, {1, 4 << 10}, {4 << 10, 4 << 10}, {4<<10 + 1, 16 << 10}, {16 << 10, 16 << 10}, {16<<10 + 1, 48 << 10}, {48<<10 + 1, 64 << 10},
		{1 << 20, 1 << 20}, {1<<20 + 1, 2 << 20}, {6 << 20, 6 << 20}, {6<<20 + 1, 6<<20 + 1},
	} {
		for range 2 { // the second one may be the first again
			b := p.Get(c.length)
			if len(*b) != c.length || c.length <= 6<<20 && cap(*b) != c.capacity {
				t.Errorf("Get(%d) returned %d bytes with a capacity of %d, want %d", c.length, len(*b), cap(*b), c.capacity)
			}
			*b = (*b)[:c.length/2] // gRPC shortens buffers
			p.Put(b)
		}
	}
	p.Put(new(make([]byte, 10))) // of another pool
	if b := p.Get(10); cap(*b) != 4<<10 {
		t.Errorf("a buffer has a capacity of %d, want 4 KiB", cap(*b))
	}
}

// TestPool_ReusesWithoutClearing is the reason for the pool, and the danger of it.
func TestPool_ReusesWithoutClearing(t *testing.T) {
	var p Pool
	full := bytes.Repeat([]byte{7}, 40<<10)
	for range 100 { // under the race detector sync.Pool drops some buffers
		b := p.Get(len(full))
		copy(*b, full)
		p.Put(b)
		if b := p.Get(len(full)); bytes.Equal(*b, full) {
			return
		}
	}
	t.Error("no buffer was reused as it was")
}
