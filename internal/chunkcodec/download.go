package chunkcodec

import (
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// A DownloadChunk is a message of type lpfilesharev1.DownloadResponse with a chunk. SendMsg of a stream sends Data without copying it.
type DownloadChunk struct {
	Offset int64
	CRC32C uint32
	// Data is not empty. gRPC frees its buffers when it has written them to the connection.
	Data mem.BufferSlice
}

// tagResponseChunk is the tag of DownloadResponse.chunk.
const tagResponseChunk = 2<<3 | byte(protowire.BytesType)

// marshal encodes the message. data comes last, so that one buffer precedes it.
func (c *DownloadChunk) marshal() mem.BufferSlice {
	size := c.Data.Len()
	var fields [32]byte
	inner := fields[:0]
	if c.Offset != 0 {
		inner = protowire.AppendVarint(append(inner, tagOffset), uint64(c.Offset))
	}
	inner = protowire.AppendFixed32(append(inner, tagCRC32C), c.CRC32C)
	inner = protowire.AppendVarint(append(inner, tagData), uint64(size))

	head := append(make([]byte, 0, 32), tagResponseChunk)
	head = append(protowire.AppendVarint(head, uint64(len(inner)+size)), inner...)
	message := make(mem.BufferSlice, 0, 1+len(c.Data))
	return append(append(message, mem.SliceBuffer(head)), c.Data...)
}
