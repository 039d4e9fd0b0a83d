package chunkcodec

import (
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// A Tracked is a message that reports when gRPC has written it to the connection, or dropped it with its stream. gRPC drops some of a
// connection that ends without a report.
type Tracked struct {
	Message proto.Message
	// Written gets a value. It must not block.
	Written chan<- struct{}
}

// marshal encodes the message. gRPC reports only that it frees buffers of more than 1 KiB.
func (m *Tracked) marshal() (mem.BufferSlice, error) {
	const reported = 2 << 10
	pool := reportingPool{mem.DefaultBufferPool(), m.Written}
	buf := pool.Get(max(reported, proto.Size(m.Message)))
	data, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend((*buf)[:0], m.Message)
	if err != nil {
		return nil, err
	}
	*buf = data
	return mem.BufferSlice{mem.NewBuffer(buf, pool)}, nil
}

// A reportingPool reports that a buffer is not used any more.
type reportingPool struct {
	mem.BufferPool
	written chan<- struct{}
}

// Put implements mem.BufferPool.
func (p reportingPool) Put(b *[]byte) {
	p.BufferPool.Put(b)
	p.written <- struct{}{}
}
