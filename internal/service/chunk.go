package service

import (
	"context"
	"hash/crc32"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/download"
	"github.com/lpfileshare/lpfileshare/internal/upload"
)

// chunks sends the bytes of an object in chunks.
type chunks struct {
	sender sender
	stream grpc.ServerStream
	object *download.Reader
	memory *admission.Download
	sums   *upload.Sums
	turns  *admission.Transfer
}

// sendNext reads the next bytes of the object into blocks, and sends them in chunks of at most size bytes: in one chunk, except that a
// block is divided into several if size is smaller.
func (c *chunks) sendNext(ctx context.Context, size int64) error {
	read := size // at most so many bytes
	if size < admission.BlockBytes {
		read = admission.BlockBytes / size * size
	}
	offset := c.object.Offset()
	data, failed := c.read(ctx, min(read, c.object.End-offset))
	defer func() { data.Free() }() // what was not sent
	for len(data) > 0 {
		chunk := &dataChunk{offset: offset}
		chunk.data, data = cut(data, size)
		for _, b := range chunk.data {
			chunk.crc32c = crc32.Update(chunk.crc32c, castagnoli, b.ReadOnlyData())
		}
		n := chunk.data.Len()
		offset += int64(n)
		if err := c.sender.send(ctx, c.stream, chunk); err != nil {
			return err
		}
		factsOf(ctx).transferred(n)
	}
	return failed
}

// read reads the next bytes: size, or fewer if the download gets fewer blocks. If it fails, data has the blocks that it had filled: the
// position in the error counts on their being sent.
func (c *chunks) read(ctx context.Context, size int64) (data mem.BufferSlice, err error) {
	blocks := make([]*admission.Block, 0, 4)
	for {
		if blocks = c.memory.Take(blocks, int((size+admission.BlockBytes-1)/admission.BlockBytes)); len(blocks) > 0 {
			break
		}
		if err := c.sender.wait(ctx, c.memory.Returned()); err != nil {
			return nil, err
		}
	}
	pool := blockPool{c.memory}
	for i, block := range blocks {
		buf := block[:min(admission.BlockBytes, size)]
		read := func() error { return c.object.Read(ctx, buf) }
		if err := c.turns.Work(read, func() { _, _ = c.sums.Write(buf) }); err != nil {
			for _, unused := range blocks[i:] {
				c.memory.Put(unused)
			}
			return data, err
		}
		size -= int64(len(buf))
		data = append(data, mem.NewBuffer(&buf, pool))
	}
	return data, nil
}

// cut divides data, whose buffers are all longer than size unless it is all of data, after at most size bytes.
func cut(data mem.BufferSlice, size int64) (first, rest mem.BufferSlice) {
	if int64(data.Len()) <= size {
		return data, nil
	}
	left, right := mem.SplitUnsafe(data[0], int(size))
	return mem.BufferSlice{left}, mem.BufferSlice{right}
}

// A dataChunk is a DownloadResponse with a chunk whose data lies in blocks. Codec sends the blocks as they are, so a byte of a file
// is in memory once between the store and the connection. proto.Marshal would copy it into a buffer of gRPC's pool, of 1 MiB for
// any chunk of more than 32 KiB.
type dataChunk struct {
	offset int64
	crc32c uint32
	data   mem.BufferSlice // owned by what Marshal returns
}

// Fields of the messages that encode writes. TestCodec compares it with proto.Marshal.
const (
	fieldResponseChunk = 2 // DownloadResponse.chunk
	fieldChunkOffset   = 1 // DataChunk.offset
	fieldChunkData     = 2 // DataChunk.data
	fieldChunkCRC32C   = 3 // DataChunk.crc32c
)

// encode returns the message. data comes last, so that the blocks need no copy.
func (c *dataChunk) encode() mem.BufferSlice {
	size := c.data.Len()
	inner := make([]byte, 0, 32)
	if c.offset != 0 {
		inner = protowire.AppendTag(inner, fieldChunkOffset, protowire.VarintType)
		inner = protowire.AppendVarint(inner, uint64(c.offset))
	}
	inner = protowire.AppendTag(inner, fieldChunkCRC32C, protowire.Fixed32Type)
	inner = protowire.AppendFixed32(inner, c.crc32c)
	inner = protowire.AppendTag(inner, fieldChunkData, protowire.BytesType)
	inner = protowire.AppendVarint(inner, uint64(size))

	head := make([]byte, 0, 48)
	head = protowire.AppendTag(head, fieldResponseChunk, protowire.BytesType)
	head = protowire.AppendVarint(head, uint64(len(inner)+size))
	return append(mem.BufferSlice{mem.SliceBuffer(append(head, inner...))}, c.data...)
}

// A blockPool takes back the blocks of a download when gRPC has sent them.
type blockPool struct{ download *admission.Download }

// Put implements mem.BufferPool.
func (p blockPool) Put(data *[]byte) {
	p.download.Put((*admission.Block)((*data)[:admission.BlockBytes]))
}

// Get implements mem.BufferPool. gRPC only returns buffers to this pool.
func (p blockPool) Get(int) *[]byte { panic("service: a block pool gives out no buffers") }
