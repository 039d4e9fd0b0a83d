package chunkcodec

import (
	"encoding/binary"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// A cursor reads a message that lies in several buffers. After it has failed its results are meaningless, but its methods may be called.
type cursor struct {
	data   mem.BufferSlice
	buffer int // index of the current buffer
	off    int // offset in it
	at     int // offset in the message
	left   int // bytes that follow
	failed bool
}

// next returns the following bytes of the current buffer: at most n, and none if n is 0 or the message has fewer bytes.
func (c *cursor) next(n int) []byte {
	if c.failed = c.failed || n < 0 || n > c.left; c.failed || n == 0 {
		return nil
	}
	for c.off == c.data[c.buffer].Len() {
		c.buffer, c.off = c.buffer+1, 0
	}
	p := c.data[c.buffer].ReadOnlyData()[c.off:]
	p = p[:min(len(p), n)]
	c.off += len(p)
	c.at += len(p)
	c.left -= len(p)
	return p
}

func (c *cursor) byte() byte {
	if p := c.next(1); len(p) == 1 {
		return p[0]
	}
	return 0
}

func (c *cursor) varint() uint64 {
	var encoded [binary.MaxVarintLen64]byte
	for n := range encoded {
		if encoded[n] = c.byte(); encoded[n] < 1<<7 {
			v, used := protowire.ConsumeVarint(encoded[:n+1])
			c.failed = c.failed || used < 0
			return v
		}
	}
	c.failed = true
	return 0
}

// size returns a length that precedes so many bytes.
func (c *cursor) size() int {
	v := c.varint()
	if c.failed = c.failed || v > uint64(c.left); c.failed {
		return 0
	}
	return int(v)
}

func (c *cursor) fixed32() uint32 {
	var encoded [4]byte
	return binary.LittleEndian.Uint32(c.appendTo(encoded[:0], 4))
}

// appendTo appends the next n bytes to p.
func (c *cursor) appendTo(p []byte, n int) []byte {
	for end := c.at + n; c.at < end; {
		next := c.next(end - c.at)
		if c.failed {
			return append(p, make([]byte, end-c.at)...)
		}
		p = append(p, next...)
	}
	return p
}

func (c *cursor) skip(n int) {
	for end := c.at + n; c.at < end && !c.failed; {
		c.next(end - c.at)
	}
}

// A span is a part of a message.
type span struct{ from, size int }

// appendTo appends references to the span's buffers to parts.
func (s span) appendTo(parts, message mem.BufferSlice) mem.BufferSlice {
	for _, b := range message {
		if s.size == 0 {
			break
		}
		if n := b.Len(); s.from >= n {
			s.from -= n
			continue
		}
		to := min(b.Len(), s.from+s.size)
		part := b.Slice(s.from, to) // takes a reference
		s.size -= to - s.from
		s.from = 0
		parts = append(parts, part)
	}
	return parts
}
