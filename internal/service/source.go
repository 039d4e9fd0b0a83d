package service

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/chunkcodec"
	"github.com/lpfileshare/lpfileshare/internal/crc32c"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/internal/upload"
)

// A streamSource is the bytes of an Upload: it checks the order of the messages and each chunk.
type streamSource struct {
	stream  grpc.ServerStream
	header  metadata.MD
	message chunkcodec.UploadRequest // the latest one
	first   bool                     // it is the first one, whose chunk Next has not returned
	next    int64                    // offset of the next chunk
	finish  *lpfilesharev1.UploadFinish
	chunk   []upload.Buffer // of the latest Next
}

// receiveSpec waits for message 1, which must carry the spec, for at most IdleTimeout.
func (s *Server) receiveSpec(ctx context.Context, source *streamSource) (*lpfilesharev1.UploadSpec, error) {
	received := make(chan error, 1)
	s.drain.Go(func() { // Recv ends with the call at the latest
		received <- source.recvFirst()
	})
	idle := time.NewTimer(s.IdleTimeout)
	defer idle.Stop()
	select {
	case err := <-received:
		switch {
		case errors.Is(err, io.EOF):
			return nil, violation("the stream ended before its first message; send spec first")
		case err != nil:
			return nil, err
		case source.message.GetSpec() == nil:
			return nil, violation("the first message must carry spec")
		}
		return source.message.GetSpec(), nil
	case <-idle.C:
		return nil, share.Reject(share.UploadIdle, "the first message did not arrive within %s", s.IdleTimeout)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-s.drain.Stopping():
		return nil, s.drain.Err()
	}
}

// recvFirst receives message 1. Its bytes are copied: it may wait for long, and the buffers that gRPC received it in may be much larger.
func (u *streamSource) recvFirst() error {
	if err := u.recv(); err != nil {
		return err
	}
	u.first = true
	if received := u.message.Data; len(received) > 0 {
		u.message.Data = mem.BufferSlice{mem.SliceBuffer(received.Materialize())}
		received.Free()
	}
	return nil
}

func (u *streamSource) QueuedBytes() int64 {
	if !u.first {
		return 0
	}
	return int64(u.message.Data.Len())
}

func (u *streamSource) begin(spec upload.Spec) error {
	u.header = metadata.MD{RequestIDHeader: {spec.RequestID}}
	if u.QueuedBytes() > MaxChunkBytes {
		return chunkTooLarge()
	}
	return nil
}

// Accept sends the response header.
func (u *streamSource) Accept() error { return u.stream.SendHeader(u.header) }

// replay delays the header to the response, so a client that waits for it sends no chunk.
func (u *streamSource) replay() error { return u.stream.SetHeader(u.header) }

// Next returns the data of the next chunk.
func (u *streamSource) Next() (upload.Chunk, error) {
	for u.finish == nil {
		m := &u.message
		if !u.first {
			if err := u.recv(); err != nil {
				return upload.Chunk{}, u.ended(err)
			}
			if err := checkOrder(m); err != nil {
				m.Data.Free()
				return upload.Chunk{}, err
			}
		}
		u.first = false
		if u.finish = m.GetFinish(); u.finish != nil {
			var v violations
			checkChecksums(&v, "finish.checksums", u.finish.GetChecksums())
			if err := v.err(); err != nil {
				m.Data.Free()
				return upload.Chunk{}, err
			}
		}
		if m.GetChunk() != nil {
			return u.take()
		}
	}
	// Only when the client has closed its side it is certain that nothing follows the finish. Generated clients close it when they
	// ask for the response.
	if err := u.recv(); err != nil {
		return upload.Chunk{}, err
	}
	u.message.Data.Free()
	return upload.Chunk{}, violation("a message after finish")
}

// Finish returns the checksums in the finish.
func (u *streamSource) Finish() share.Checksums { return checksumsFromProto(u.finish.GetChecksums()) }

// take checks the chunk of the latest message, and returns it.
func (u *streamSource) take() (upload.Chunk, error) {
	chunk, data := u.message.GetChunk(), u.message.Data
	size := data.Len()
	if err := u.checkChunk(chunk, data, size); err != nil {
		data.Free()
		return upload.Chunk{}, err
	}
	u.next += int64(size)
	factsOf(u.stream.Context()).transferred(size)
	u.chunk = slices.Grow(u.chunk[:0], len(data))
	for _, b := range data {
		u.chunk = append(u.chunk, b)
	}
	return upload.Chunk{Data: u.chunk, CRC32C: chunk.Crc32C}, nil
}

func checkOrder(m *chunkcodec.UploadRequest) error {
	switch {
	case m.GetFirstMessage() != nil:
		return violation("a second spec; only the first message may carry one")
	case m.GetChunk() == nil && m.GetFinish() == nil:
		return violation("a message with neither chunk nor finish")
	}
	return nil
}

func (u *streamSource) checkChunk(c *lpfilesharev1.DataChunk, data mem.BufferSlice, size int) error {
	switch {
	case size == 0:
		return violation("an empty chunk")
	case size > MaxChunkBytes:
		return chunkTooLarge()
	case c.GetOffset() != u.next:
		return share.Reject(share.OffsetMismatch, "a chunk has offset %d, but %d bytes came before it", c.GetOffset(), u.next).
			With("expectedOffset", share.Itoa(u.next))
	case c.Crc32C != nil && sumOf(data) != c.GetCrc32C():
		return share.Reject(share.ChunkChecksumMismatch, "the chunk at offset %d was damaged in transit; retry with the same request_id from byte 0", u.next)
	}
	return nil
}

func sumOf(data mem.BufferSlice) (sum uint32) {
	for _, b := range data {
		sum = crc32c.Update(sum, b.ReadOnlyData())
	}
	return sum
}

func (u *streamSource) ended(err error) error {
	if !errors.Is(err, io.EOF) {
		return err
	}
	return share.Reject(share.UploadIncomplete, "the stream ended after %d bytes without finish; nothing was stored", u.next).
		With("receivedBytes", share.Itoa(u.next))
}

// recv receives the next message. If gRPC itself rejects a message, because it is too large or cannot be decoded, it has already sent its own status
// and ended the stream's context by now.
func (u *streamSource) recv() error {
	err := u.stream.RecvMsg(&u.message)
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	if cause := context.Cause(u.stream.Context()); cause != nil {
		return cause
	}
	return err
}

func violation(what string) error {
	e := share.Reject(share.StreamProtocolViolation, "the messages of the upload are out of order: %s", what)
	e.Violations = []share.Violation{{Field: "(stream)", Description: what}}
	return e
}

func chunkTooLarge() error {
	return share.Reject(share.MessageTooLarge, "a chunk may carry at most %d bytes; send smaller chunks", MaxChunkBytes).
		With("maxBytes", share.Itoa(MaxChunkBytes))
}

// A wholeSource is the bytes of an UploadSmallFile.
type wholeSource struct {
	ctx    context.Context // of the call, for its header
	header metadata.MD
	data   []byte
	sent   bool
}

func (u *wholeSource) QueuedBytes() int64 { return int64(len(u.data)) }

func (u *wholeSource) begin(spec upload.Spec) error {
	u.header = metadata.MD{RequestIDHeader: {spec.RequestID}}
	if limit := spec.Limits.MaxInputBytes; u.QueuedBytes() > limit {
		return upload.TooLarge(limit, u.QueuedBytes())
	}
	return nil
}

// Accept sets the response header. It is sent with the response: the client of a unary call waits for nothing else.
func (u *wholeSource) Accept() error { return grpc.SetHeader(u.ctx, u.header) }

func (u *wholeSource) replay() error { return u.Accept() }

// Next returns the whole file.
func (u *wholeSource) Next() (upload.Chunk, error) {
	if u.sent || len(u.data) == 0 {
		return upload.Chunk{}, io.EOF
	}
	u.sent = true
	factsOf(u.ctx).transferred(len(u.data))
	return upload.Chunk{Data: []upload.Buffer{mem.SliceBuffer(u.data)}, Whole: true}, nil
}

// Finish returns nothing: an UploadSmallFileRequest has all checksums in its spec.
func (u *wholeSource) Finish() share.Checksums { return share.Checksums{} }
