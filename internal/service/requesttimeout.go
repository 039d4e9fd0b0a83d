package service

import (
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// A requestTimeout limits the time between opening a call and receiving its request. gRPC itself waits for a request without limit,
// and for that of a unary call before any interceptor runs. So the timeout begins in the tap handle, where the stream does, and ends
// in the interceptors. A call that exceeds it ends with DEADLINE_EXCEEDED.
type requestTimeout struct {
	context.Context
	exceeded atomic.Bool
	seen     atomic.Bool // by an interceptor, or reported as unseen
	upload   bool        // it has timeouts of its own
	received func()      // ends the timeout
}

// Err is what gRPC reports to the client.
func (t *requestTimeout) Err() error {
	if t.exceeded.Load() {
		return context.DeadlineExceeded
	}
	return t.Context.Err()
}

// Value finds the timeout itself among a context's values.
func (t *requestTimeout) Value(key any) any {
	if key == (requestTimeoutKey{}) {
		return t
	}
	return t.Context.Value(key)
}

type requestTimeoutKey struct{}

// RequestTimeout returns a tap handle that ends calls, of any service, whose request does not arrive within limit. Uploads have a
// timeout of their own. It needs UnaryRequestReceived and StreamRequestReceived among the interceptors. unseen, if not nil, is called
// for each call that ended without an interceptor having seen it: gRPC itself ended it, because its request did not arrive, was too
// large or could not be decoded, or because there is no such method. exceeded reports that it was this timeout.
func RequestTimeout(limit time.Duration, unseen func(ctx context.Context, method string, exceeded bool)) tap.ServerInHandle {
	return func(ctx context.Context, info *tap.Info) (context.Context, error) {
		upload := info.FullMethodName == lpfilesharev1.FileSharingService_Upload_FullMethodName
		if upload && unseen == nil {
			return ctx, nil
		}
		inner, cancel := context.WithCancel(ctx)
		t := &requestTimeout{Context: inner, upload: upload}
		timer := time.AfterFunc(limit, func() {
			t.exceeded.Store(true)
			cancel()
		})
		if upload {
			timer.Stop()
		}
		method := info.FullMethodName
		stop := context.AfterFunc(ctx, func() { // the call has ended, so nothing may refer to it any more
			timer.Stop()
			cancel()
			if unseen != nil && t.seen.CompareAndSwap(false, true) {
				unseen(ctx, method, t.exceeded.Load())
			}
		})
		t.received = func() {
			timer.Stop()
			stop()
		}
		return t, nil
	}
}

// UnaryRequestReceived ends the timeout of a unary call: interceptors run when the request has arrived.
func UnaryRequestReceived(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if t, ok := ctx.Value(requestTimeoutKey{}).(*requestTimeout); ok {
		t.received()
		if !t.seen.CompareAndSwap(false, true) { // the call ended a moment ago, and was reported
			return nil, status.FromContextError(context.Canceled).Err()
		}
	}
	return handler(ctx, req)
}

// StreamRequestReceived is UnaryRequestReceived for streams.
func StreamRequestReceived(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if t, ok := stream.Context().Value(requestTimeoutKey{}).(*requestTimeout); ok {
		if !t.seen.CompareAndSwap(false, true) {
			return status.FromContextError(context.Canceled).Err()
		}
		if t.upload {
			t.received()
		} else {
			stream = &timedStream{stream, t}
		}
	}
	return handler(srv, stream)
}

type timedStream struct {
	grpc.ServerStream
	timeout *requestTimeout
}

func (s *timedStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	s.timeout.received()
	return err
}
