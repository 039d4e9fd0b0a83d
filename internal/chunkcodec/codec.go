// Package chunkcodec is the codec of a gRPC server that receives and sends the data of chunks without copying them. proto.Unmarshal would
// copy every chunk into a new slice, which is most of the memory that an upload allocates, and proto.Marshal into another buffer.
package chunkcodec

import (
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers gRPC's codec
	"google.golang.org/grpc/mem"
)

// A Codec is gRPC's codec, and also decodes into an *UploadRequest, and encodes a *DownloadChunk and a *Tracked. Its results are those of
// gRPC's codec, errors included.
type Codec struct{ encoding.CodecV2 }

// New returns a Codec.
func New() Codec { return Codec{encoding.GetCodecV2("proto")} }

// Unmarshal implements encoding.CodecV2.
func (c Codec) Unmarshal(data mem.BufferSlice, v any) error {
	if m, ok := v.(*UploadRequest); ok {
		return m.unmarshal(data, c.CodecV2)
	}
	return c.CodecV2.Unmarshal(data, v)
}

// Marshal implements encoding.CodecV2.
func (c Codec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case *DownloadChunk:
		return m.marshal(), nil
	case *Tracked:
		return m.marshal()
	}
	return c.CodecV2.Marshal(v)
}
