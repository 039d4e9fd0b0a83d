package service

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/lpfileshare/lpfileshare/internal/chunkcodec"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A sender sends the messages of one server stream. One goroutine at a time may use it.
//
// gRPC's SendMsg cannot be interrupted: it blocks while 64 KiB of the stream or more are not written, as long as the client's window does not
// allow it. So a sender calls it only when what was sent before has been written to the connection. Then SendMsg returns at once, and
// the time in which the client reads nothing passes in wait.
type sender struct {
	stream  grpc.ServerStream
	stall   time.Duration
	timer   *time.Timer   // of wait; nil: not used yet
	written chan struct{} // has a value when the latest message of send has been written
	pending bool          // it has not been received from written
}

func (s *Server) sender(stream grpc.ServerStream) *sender {
	return &sender{stream: stream, stall: s.ReadStall, written: make(chan struct{}, 1)}
}

// send sends a message when the one before has been written.
func (s *sender) send(ctx context.Context, m proto.Message) error {
	if err := s.flush(ctx); err != nil {
		return err
	}
	s.pending = true
	return s.stream.SendMsg(&chunkcodec.Tracked{Message: m, Written: s.written})
}

// flush waits until the latest message of send has been written to the connection.
func (s *sender) flush(ctx context.Context) error {
	if !s.pending {
		return nil
	}
	err := s.wait(ctx, s.written)
	s.pending = err != nil
	return err
}

// wait waits for progress: gRPC has written something, because the client has read something. It fails if the client reads nothing for
// the stall time, which frees the store's connection, or if ctx ends.
func (s *sender) wait(ctx context.Context, progress <-chan struct{}) error {
	select {
	case <-progress: // mostly
		return nil
	default:
	}
	if s.timer == nil {
		s.timer = time.NewTimer(s.stall)
	} else {
		s.timer.Reset(s.stall)
	}
	defer s.timer.Stop()
	select {
	case <-progress:
		return nil
	case <-s.timer.C:
		return share.Reject(share.WatchTooSlow, "the client read nothing for %s; continue after the last message", s.stall)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
