package service

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/lpfileshare/lpfileshare/internal/drain"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A sender sends the messages of server streams.
type sender struct {
	stall time.Duration
	drain *drain.Drain
}

// send sends a message. It fails if the client reads nothing for the stall time, which frees the store's connection. The goroutine is
// needed: gRPC's SendMsg can be interrupted only by the end of the handler, and a cancelled stream could not report why it ended.
func (s sender) send(ctx context.Context, stream grpc.ServerStream, m any) error {
	done := make(chan struct{}, 1)
	var err error
	s.drain.Go(func() { // ends with the handler at the latest
		err = stream.SendMsg(m)
		done <- struct{}{}
	})
	if stalled := s.wait(ctx, done); stalled != nil {
		return stalled
	}
	return err
}

// sendWritten is send, and waits until the message has been written to the connection, which the client's window allows. So gRPC never
// keeps more than one message of the stream.
func (s sender) sendWritten(ctx context.Context, stream grpc.ServerStream, m proto.Message) error {
	written := make(chan struct{}, 1)
	if err := s.send(ctx, stream, &trackedMessage{m, written}); err != nil {
		return err
	}
	return s.wait(ctx, written)
}

// wait waits until the client has read something: for progress. It fails as send does.
func (s sender) wait(ctx context.Context, progress <-chan struct{}) error {
	stall := time.NewTimer(s.stall)
	defer stall.Stop()
	select {
	case <-progress:
		return nil
	case <-stall.C:
		return share.Reject(share.WatchTooSlow, "the client read nothing for %s; continue after the last message", s.stall)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
