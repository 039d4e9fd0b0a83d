// Package bufpool keeps the buffers of gRPC's messages and frames for reuse.
//
// gRPC's own pool has no sizes between 32 KiB and 1 MiB and clears each buffer it hands out, all of its capacity. So a message of
// 40 KiB takes, and clears, 1 MiB.
package bufpool

import (
	"slices"
	"sync"
)

// sizes are the capacities of the buffers. 4 and 16 KiB are those of gRPC's pool for frames, which package recvlimit counts. gRPC collects
// tiny frames, and the one after them, in a buffer of up to 37 KiB. With 48 KiB, and not 32, no part of 15 KiB or more that ends such
// a buffer looks like a whole buffer of 16 KiB, so package upload sees what a part occupies. The largest message is a little longer
// than 5 MB.
var sizes = [...]int{4 << 10, 16 << 10, 48 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20, 6 << 20}

// A Pool implements gRPC's mem.BufferPool. It does not clear buffers: they contain bytes of other messages, so users must not
// read or send more of a buffer than they have written. Unused buffers are garbage after two collections. The zero Pool is ready to use.
type Pool struct{ pools [len(sizes)]sync.Pool }

// Get returns a buffer of the given length, in bytes, with any content. Buffers of more than 6 MiB are not reused.
func (p *Pool) Get(length int) *[]byte {
	for i, size := range sizes {
		if length > size {
			continue
		}
		if b, ok := p.pools[i].Get().(*[]byte); ok {
			*b = (*b)[:length]
			return b
		}
		b := make([]byte, length, size)
		return &b
	}
	b := make([]byte, length)
	return &b
}

// Put takes back a buffer that nothing refers to any more. b must begin where the buffer from Get begins.
func (p *Pool) Put(b *[]byte) {
	if i := slices.Index(sizes[:], cap(*b)); i >= 0 {
		p.pools[i].Put(b)
	}
}
