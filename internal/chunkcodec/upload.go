package chunkcodec

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// An UploadRequest receives messages of type lpfilesharev1.UploadRequest, one after the other, with RecvMsg of a stream. Receiving the next
// message overwrites it, except what spec and finish refer to.
type UploadRequest struct {
	// UploadRequest is the message, except that chunk.data is empty: Data has it. Do not copy it.
	lpfilesharev1.UploadRequest
	// Data is chunk.data, in the buffers that gRPC received. Callers own the buffers, and must free each of them some time. They must have
	// taken them over from the slice before they receive the next message.
	Data mem.BufferSlice

	chunk  lpfilesharev1.DataChunk // of the latest message, and its crc32c
	crc32c uint32
}

// Fields of the contract, as tags of one byte.
const (
	tagSpec   = 1<<3 | byte(protowire.BytesType) // of UploadRequest
	tagChunk  = 3<<3 | byte(protowire.BytesType)
	tagFinish = 4<<3 | byte(protowire.BytesType)

	tagOffset = 1<<3 | byte(protowire.VarintType) // of DataChunk
	tagData   = 2<<3 | byte(protowire.BytesType)
	tagCRC32C = 3<<3 | byte(protowire.Fixed32Type)
)

// unmarshal decodes a message. What a generated client sends is decoded in place. Anything else, valid or not, is left to gRPC's codec:
// repeated and unknown fields, and other encodings of tags.
func (m *UploadRequest) unmarshal(wire mem.BufferSlice, standard encoding.CodecV2) error {
	if m.inPlace(wire) {
		return nil
	}
	m.Data = nil
	err := standard.Unmarshal(wire, &m.UploadRequest)
	if chunk := m.Chunk; err == nil && chunk != nil && len(chunk.Data) > 0 {
		m.Data = mem.BufferSlice{mem.SliceBuffer(chunk.Data)}
		chunk.Data = nil
	}
	return err
}

// inPlace decodes a message that has each field once at most, and no unknown ones. It reports whether the message is one.
func (m *UploadRequest) inPlace(wire mem.BufferSlice) bool {
	var others []byte // the fields without data
	var data span
	hasChunk := false
	c := cursor{data: wire, left: wire.Len()}
	for c.left > 0 {
		tag := c.byte()
		switch tag {
		case tagSpec, tagFinish:
			size := c.size()
			others = append(others, tag)
			others = protowire.AppendVarint(others, uint64(size))
			others = c.appendTo(others, size)
		case tagChunk:
			if hasChunk {
				return false
			}
			hasChunk = true
			data = m.readChunk(&c, c.size())
		default:
			return false
		}
		if c.failed {
			return false
		}
	}
	if proto.Unmarshal(others, &m.UploadRequest) != nil {
		return false
	}
	if hasChunk {
		m.Chunk = &m.chunk
	}
	m.Data = data.appendTo(m.Data[:0], wire)
	return true
}

// readChunk decodes the next size bytes into m.chunk, and returns where its data is. The cursor fails at anything unusual.
func (m *UploadRequest) readChunk(c *cursor, size int) (data span) {
	proto.Reset(&m.chunk)
	var seen byte
	for end := c.left - size; c.left > end && !c.failed; {
		tag := c.byte()
		switch tag {
		case tagOffset:
			m.chunk.Offset = int64(c.varint())
		case tagData:
			data.size = c.size()
			data.from = c.at
			c.skip(data.size)
		case tagCRC32C:
			m.crc32c = c.fixed32()
			m.chunk.Crc32C = &m.crc32c
		default:
			c.failed = true
		}
		field := byte(1) << (tag >> 3 & 7)
		if seen&field != 0 || c.left < end {
			c.failed = true
		}
		seen |= field
	}
	return data
}
