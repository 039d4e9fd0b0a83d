package service

import (
	"context"
	"time"

	"google.golang.org/grpc"

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
	done := make(chan error, 1)
	s.drain.Go(func() { done <- stream.SendMsg(m) }) // ends with the handler at the latest
	stall := time.NewTimer(s.stall)
	defer stall.Stop()
	select {
	case err := <-done:
		return err
	case <-stall.C:
		return share.Reject(share.WatchTooSlow, "the client read nothing for %s; continue after the last message", s.stall)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
