package service

import (
	"google.golang.org/grpc/encoding"

	"github.com/lpfileshare/lpfileshare/internal/chunkcodec"
)

// Codec returns the codec that the gRPC server must have (grpc.ForceServerCodecV2): gRPC's own, which also receives
// and sends chunks without a copy, and reports when messages are written.
func Codec() encoding.CodecV2 { return chunkcodec.New() }
