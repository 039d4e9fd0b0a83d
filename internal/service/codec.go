package service

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/lpfileshare/lpfileshare/internal/chunkcodec"
)

// Codec returns the codec that the gRPC server must have (grpc.ForceServerCodecV2): gRPC's own, which also receives
// and sends chunks without a copy, and reports when messages of watches are written.
func Codec() encoding.CodecV2 { return codec{chunkcodec.New()} }

type codec struct{ chunkcodec.Codec }

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case *dataChunk:
		return m.encode(), nil
	case *trackedMessage:
		return m.encode()
	}
	return c.Codec.Marshal(v)
}

// A trackedMessage is a message of which written gets a value when gRPC has written it to the connection, or dropped it with its stream.
type trackedMessage struct {
	message proto.Message
	written chan<- struct{}
}

// encode returns the message. gRPC reports only that it frees buffers of more than 1 KiB.
func (m *trackedMessage) encode() (mem.BufferSlice, error) {
	const reported = 2 << 10
	data, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 0, max(reported, proto.Size(m.message))), m.message)
	if err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.NewBuffer(&data, writtenPool{m.written})}, nil
}

// A writtenPool reports that a buffer is not used any more.
type writtenPool struct{ written chan<- struct{} }

// Put implements mem.BufferPool.
func (p writtenPool) Put(*[]byte) { p.written <- struct{}{} }

// Get implements mem.BufferPool. gRPC only returns buffers to this pool.
func (p writtenPool) Get(int) *[]byte { panic("service: the pool gives out no buffers") }
