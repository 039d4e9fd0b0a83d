package service

import (
	"context"

	"google.golang.org/grpc/mem"

	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/chunkcodec"
	"github.com/lpfileshare/lpfileshare/internal/crc32c"
	"github.com/lpfileshare/lpfileshare/internal/download"
	"github.com/lpfileshare/lpfileshare/internal/upload"
)

// maxTogether is the maximum number of bytes in small chunks that are sent without waiting until each has been written: with what
// precedes their data, less than the 64 KiB of a stream for which SendMsg does not block.
const maxTogether = 60 << 10

// chunks sends the bytes of an object in chunks.
type chunks struct {
	out    *sender
	object *download.Reader
	memory *admission.Download
	sums   *upload.Sums
	turns  *admission.Transfer

	// Made once, not for each block: buf is the block that readBlock reads and sumBlock sums.
	buf       []byte
	readBlock func() error
	sumBlock  func()
	blocks    []*[]byte
	data      mem.BufferSlice
	chunk     chunkcodec.DownloadChunk
}

func newChunks(ctx context.Context, out *sender, object *download.Reader, memory *admission.Download, sums *upload.Sums, turns *admission.Transfer) *chunks {
	c := &chunks{out: out, object: object, memory: memory, sums: sums, turns: turns}
	c.readBlock = func() error { return c.object.Read(ctx, c.buf) }
	c.sumBlock = func() { _, _ = c.sums.Write(c.buf) }
	return c
}

// sendNext reads the next bytes of the object into blocks while the ones before are written, and then sends them: in one chunk, or in several
// of size bytes if a block has several.
func (c *chunks) sendNext(ctx context.Context, size int64) error {
	offset, before := c.object.Offset(), c.sums.CRC32C()
	data, failed := c.read(ctx, min(max(maxTogether/size, 1)*size, c.object.End-offset))
	defer func() { data.Free() }() // what was not sent
	if len(data) > 0 {
		if err := c.written(ctx, len(data)); err != nil {
			return err
		}
	}
	n := int64(data.Len())
	sum, divided := crc32c.Combine(before, c.sums.CRC32C(), n), n > size
	for len(data) > 0 {
		chunk := &c.chunk
		chunk.Offset, chunk.CRC32C = offset, sum
		chunk.Data, data = cut(data, size)
		if divided {
			chunk.CRC32C = crc32c.Update(0, chunk.Data[0].ReadOnlyData())
		}
		n := chunk.Data.Len()
		offset += int64(n)
		if err := c.out.stream.SendMsg(chunk); err != nil {
			return err
		}
		factsOf(ctx).transferred(n)
	}
	return failed
}

// written waits until gRPC has written everything but the latest blocks.
func (c *chunks) written(ctx context.Context, latest int) error {
	if err := c.out.flush(ctx); err != nil {
		return err
	}
	for c.memory.Held() > latest {
		if err := c.out.wait(ctx, c.memory.Returned()); err != nil {
			return err
		}
	}
	return nil
}

// read reads the next bytes: size, or fewer if the download gets fewer blocks. If it fails, data has the blocks that it had filled: the
// position in the error counts on their being sent.
func (c *chunks) read(ctx context.Context, size int64) (data mem.BufferSlice, err error) {
	for c.blocks = c.blocks[:0]; ; {
		if c.blocks = c.memory.Take(c.blocks, int((size+admission.BlockBytes-1)/admission.BlockBytes)); len(c.blocks) > 0 {
			break
		}
		if err := c.out.wait(ctx, c.memory.Returned()); err != nil {
			return nil, err
		}
	}
	lease := c.memory.Lease()
	c.data = c.data[:0]
	for i, block := range c.blocks {
		c.buf = (*block)[:min(admission.BlockBytes, size)]
		if err := c.turns.Work(c.readBlock, c.sumBlock); err != nil {
			for _, unused := range c.blocks[i:] {
				lease.Put(unused)
			}
			return c.data, err
		}
		*block = c.buf // nothing else of it may be sent: it has the bytes of another file
		size -= int64(len(c.buf))
		c.data = append(c.data, mem.NewBuffer(block, blockPool{lease}))
	}
	return c.data, nil
}

// cut divides data, whose buffers are all longer than size unless it is all of data, after at most size bytes.
func cut(data mem.BufferSlice, size int64) (first, rest mem.BufferSlice) {
	if int64(data.Len()) <= size {
		return data, nil
	}
	left, right := mem.SplitUnsafe(data[0], int(size))
	return mem.BufferSlice{left}, mem.BufferSlice{right}
}

// A blockPool takes back the blocks of a download when gRPC has sent them.
type blockPool struct{ *admission.Lease }

// Get implements mem.BufferPool. gRPC only returns buffers to this pool.
func (p blockPool) Get(int) *[]byte { panic("service: a block pool gives out no buffers") }
