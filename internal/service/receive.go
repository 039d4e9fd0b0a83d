package service

import (
	"context"
	"errors"
	"hash/crc32"
	"io"
	"sync/atomic"
	"time"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Bounds of what one message may carry.
const (
	// MaxChunkBytes is the largest data of a chunk.
	MaxChunkBytes = 1 << 20
	// MaxRecvMessageBytes is the receive limit that the gRPC server must have: the largest UploadSmallFileRequest fits in it. gRPC
	// itself rejects larger messages, without an ErrorInfo. It holds for every method; internal/recvlimit bounds what the unfinished
	// messages of all calls hold together.
	MaxRecvMessageBytes = 5 << 20
)

// A receiver is the only caller of Recv on an upload's stream. Its goroutine ends when the stream does, which is at the latest
// when the handler returns: Recv cannot be interrupted otherwise.
type receiver struct {
	stream   uploadStream
	maxChunk int64
	now      func() time.Time
	first    chan received // message 1, once
	accepted chan intake   // the handler's leave to go on, once
	ended    chan received // the finish, or what went wrong, once
	begun    time.Time
	lastByte atomic.Int64 // when the latest byte came, in nanoseconds after begun: no step of the wall clock counts
}

type received struct {
	req    *lpfilesharev1.UploadRequest
	finish *lpfilesharev1.UploadFinish
	err    error
}

// An intake says where the bytes go and how many there may be.
type intake struct {
	spool *spool
	// declared is the size as declared, or -1; limit is the most in any case.
	declared, limit int64
}

func (s *Server) startReceiver(stream uploadStream, maxChunk int64) *receiver {
	r := &receiver{
		stream:   stream,
		maxChunk: maxChunk,
		now:      s.Now,
		begun:    s.Now(),
		first:    make(chan received, 1),
		accepted: make(chan intake, 1),
		ended:    make(chan received, 1),
	}
	s.goroutines.Go(r.run)
	return r
}

func (r *receiver) run() {
	req, err := r.recv()
	if errors.Is(err, io.EOF) {
		err = violation("the stream ended before its first message; send spec first")
	}
	r.first <- received{req: req, err: err}
	if err != nil {
		return
	}
	select {
	case in := <-r.accepted:
		finish, err := r.rest(req, in)
		r.ended <- received{finish: finish, err: err}
	case <-r.stream.Context().Done():
	}
}

// rest takes in the bytes, from the first message on, until the stream is closed behind the finish.
func (r *receiver) rest(req *lpfilesharev1.UploadRequest, in intake) (*lpfilesharev1.UploadFinish, error) {
	for n := int64(0); ; {
		if c := req.GetChunk(); c != nil {
			if err := in.check(c, n, r.maxChunk); err != nil {
				return nil, err
			}
			in.spool.append(c.GetData())
			n += int64(len(c.GetData()))
			r.lastByte.Store(int64(r.now().Sub(r.begun)))
		}
		if req.GetFinish() != nil {
			in.spool.seal()
			return req.GetFinish(), r.closed()
		}
		var err error
		if req, err = r.recv(); err != nil {
			if errors.Is(err, io.EOF) {
				err = with(refuse(share.UploadIncomplete, "the stream ended after %d bytes without finish; nothing was stored", n),
					"receivedBytes", itoa(n))
			}
			return nil, err
		}
		switch {
		case req.GetFirstMessage() != nil:
			return nil, violation("a second spec; only the first message may carry one")
		case req.GetChunk() == nil && req.GetFinish() == nil:
			return nil, violation("a message with neither chunk nor finish")
		}
	}
}

// closed waits for the caller to close its side, which a generated client does when it asks for the response. Only then it is
// certain that nothing follows the finish.
func (r *receiver) closed() error {
	switch _, err := r.recv(); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	}
	return violation("a message after finish")
}

func (in intake) check(c *lpfilesharev1.DataChunk, n, maxChunk int64) error {
	size := int64(len(c.GetData()))
	switch {
	case size == 0:
		return violation("an empty chunk")
	case size > maxChunk:
		return messageTooLarge()
	case c.GetOffset() != n:
		return with(refuse(share.OffsetMismatch, "a chunk has offset %d, and %d bytes came before it; repeat under the same request_id from byte 0", c.GetOffset(), n),
			"expectedOffset", itoa(n))
	case c.Crc32C != nil && crc32.Checksum(c.GetData(), castagnoli) != c.GetCrc32C():
		return refuse(share.ChunkChecksumMismatch, "the chunk at %d was damaged on the way; repeat under the same request_id from byte 0", n)
	case in.declared >= 0 && n+size > in.declared:
		return with(refuse(share.SizeExceeded, "more than the declared %d bytes came", in.declared), "declaredBytes", itoa(in.declared))
	case n+size > in.limit:
		return tooLarge(in.limit, n+size)
	}
	return nil
}

// recv is Recv. A message that gRPC itself refuses, as over its limit or not decodable, it has answered by itself by now: with
// its own status, and with the end of the stream's context. Recv cannot put that in the contract's words any more.
func (r *receiver) recv() (*lpfilesharev1.UploadRequest, error) {
	req, err := r.stream.Recv()
	if err == nil || errors.Is(err, io.EOF) {
		return req, err
	}
	if cause := context.Cause(r.stream.Context()); cause != nil {
		return nil, cause
	}
	return nil, err
}

func violation(what string) error {
	return &share.Error{
		Kind:       share.StreamProtocolViolation,
		Message:    "the upload's stream is out of order: " + what,
		Violations: []share.Violation{{Field: "(stream)", Description: what}},
	}
}

// errChunkTooLarge is the error for a first message with too many bytes: of UploadSmallFile they are the whole file.
func errChunkTooLarge(limits uploadLimits, size int64) error {
	if limits.chunk == limits.file {
		return tooLarge(limits.file, size)
	}
	return messageTooLarge()
}

func messageTooLarge() error {
	return with(refuse(share.MessageTooLarge, "a message may carry %d bytes of data at the most; send smaller chunks", MaxChunkBytes),
		"maxBytes", itoa(MaxChunkBytes))
}
