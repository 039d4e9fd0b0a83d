package service

import (
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/tap"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// A silence is the time in which a call was opened and its request has not come. gRPC itself waits for a request for ever, and
// of a unary call it does so before any interceptor runs: hence it begins in the tap, where the stream does, and ends in the
// interceptors. One that takes too long ends the call with DEADLINE_EXCEEDED.
type silence struct {
	context.Context
	tooLong atomic.Bool
	broken  func() // the request has come
}

// Err is what gRPC tells the caller.
func (s *silence) Err() error {
	if s.tooLong.Load() {
		return context.DeadlineExceeded
	}
	return s.Context.Err()
}

// Value finds the silence itself among a context's values.
func (s *silence) Value(key any) any {
	if key == (silenceKey{}) {
		return s
	}
	return s.Context.Value(key)
}

type silenceKey struct{}

// AwaitRequest ends calls whose request does not come within limit, whatever the service. Uploads end by themselves. It wants
// UnaryRequestCame and StreamRequestCame among the interceptors.
func AwaitRequest(limit time.Duration) tap.ServerInHandle {
	return func(ctx context.Context, info *tap.Info) (context.Context, error) {
		if info.FullMethodName == lpfilesharev1.FileSharingService_Upload_FullMethodName {
			return ctx, nil
		}
		inner, cancel := context.WithCancel(ctx)
		s := &silence{Context: inner}
		timer := time.AfterFunc(limit, func() {
			s.tooLong.Store(true)
			cancel()
		})
		forget := context.AfterFunc(ctx, func() { timer.Stop() }) // the call has ended: nothing is to hold on to it
		s.broken = func() {
			timer.Stop()
			forget()
		}
		return s, nil
	}
}

// UnaryRequestCame lets a unary call go on for as long as it takes: it runs once the request has come.
func UnaryRequestCame(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if s, ok := ctx.Value(silenceKey{}).(*silence); ok {
		s.broken()
	}
	return handler(ctx, req)
}

// StreamRequestCame is UnaryRequestCame for streams.
func StreamRequestCame(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if s, ok := stream.Context().Value(silenceKey{}).(*silence); ok {
		stream = &silentStream{stream, s}
	}
	return handler(srv, stream)
}

type silentStream struct {
	grpc.ServerStream
	silence *silence
}

func (s *silentStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	s.silence.broken()
	return err
}
