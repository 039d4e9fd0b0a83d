package download

import (
	"context"
	"io"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A BlockPool keeps blocks that are not in use.
type BlockPool interface {
	// Get returns a block of the given length, in bytes, with any content.
	Get(length int) *[]byte
	// Put takes back a block that nothing refers to any more.
	Put(block *[]byte)
}

// holdBlock is the size of the blocks in which Hold keeps an object, in bytes.
const holdBlock = 64 << 10

// held is an object in memory.
type held struct {
	pool   BlockPool
	blocks []*[]byte
}

// Hold reads the object into memory, of which it needs Stored.Size bytes, rounded up to 64 KiB. The object must have been opened as a whole.
// Afterwards Read reads from memory, and Close returns the blocks. work runs each read from the store.
func (r *Reader) Hold(ctx context.Context, pool BlockPool, work func(read func() error) error) error {
	h := &held{pool: pool}
	for !r.Done() {
		block := pool.Get(holdBlock)
		*block = (*block)[:min(holdBlock, r.End-r.at)]
		h.blocks = append(h.blocks, block)
		if err := work(func() error { return r.Read(ctx, *block) }); err != nil {
			h.free()
			return err
		}
	}
	r.Close()
	r.held = h
	return nil
}

// Part makes Read read a part of the object that Hold has read, as Open would have opened it.
func (r *Reader) Part(offset, limit int64) error {
	start, end, err := share.PartOf(r.Stored.Size, offset, limit)
	if err != nil {
		return err
	}
	r.Start, r.at, r.End = start, start, end
	return nil
}

// Content returns the object that Hold has read, from its first byte on. It may be used until Close.
func (r *Reader) Content() share.ScanReader { return &contentReader{held: r.held} }

// read copies bytes from offset at on.
func (h *held) read(buf []byte, at int64) {
	for len(buf) > 0 {
		n := copy(buf, (*h.blocks[at/holdBlock])[at%holdBlock:])
		buf, at = buf[n:], at+int64(n)
	}
}

func (h *held) free() {
	for _, block := range h.blocks {
		h.pool.Put(block)
	}
	h.blocks = nil
}

// contentReader implements share.ScanReader.
type contentReader struct {
	held *held
	at   int64
}

func (c *contentReader) ReadBuffers(limit int64) ([][]byte, error) {
	if c.at/holdBlock >= int64(len(c.held.blocks)) {
		return nil, io.EOF
	}
	left := (*c.held.blocks[c.at/holdBlock])[c.at%holdBlock:]
	if len(left) == 0 { // the last block, which is shorter
		return nil, io.EOF
	}
	left = left[:min(limit, int64(len(left)))]
	c.at += int64(len(left))
	return [][]byte{left}, nil
}

func (c *contentReader) Close() error { return nil }
