package service

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/rejections"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Calls has the interceptors of the contract's calls, which must be the innermost. They turn errors of handlers into the contract's
// statuses, log one line for each call when it has ended, with the cause of an error, which the client does not see, and count calls
// that a limit rejected. Calls of other services, such as health probes, are not logged and have statuses of their own.
type Calls struct {
	// UnaryTimeout limits a unary call, except an UploadSmallFile, which has the time limit of an Upload.
	UnaryTimeout time.Duration
	// Authenticate, if set, is called before each call's handler. It returns ctx with what Config.Caller finds there, or the error with
	// which the call ends.
	Authenticate func(ctx context.Context) (context.Context, error)
	// Rejections counts the calls that a limit of the server rejected.
	Rejections *rejections.Tally
	// Accept, if set, is called at the begin of each call. Its error is the result of the call, whose handler does not run.
	Accept func() error
	// Ended is called at the end of each call, in order. ctx is that of the handler, and may have ended.
	Ended []func(ctx context.Context, c *EndedCall)
	Log   *slog.Logger
}

// An EndedCall is a call of the contract that has ended. It is valid until the function that gets it returns.
type EndedCall struct {
	Method string // "FileSharingService/Upload"
	Code   codes.Code
	Reason string // the name of an ErrorReason without its prefix; empty without an error
	Bytes  int64  // of the file, that were received or sent
	Begun  time.Time
	Took   time.Duration
	Peer   string // the address of the connection
	// Refused reports that Calls.Accept refused the call.
	Refused bool
	Facts
}

// Unary is the interceptor of unary calls. A timeout of the server is reported as such, not as the caller's deadline.
func (c *Calls) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if !ours(info.FullMethod) {
		return handler(ctx, req)
	}
	call := c.begin(ctx, info.FullMethod)
	bounded, cancel := call.context(ctx), context.CancelFunc(func() {})
	if info.FullMethod != lpfilesharev1.FileSharingService_UploadSmallFile_FullMethodName {
		bounded, cancel = context.WithTimeout(bounded, c.UnaryTimeout)
	}
	defer cancel()
	var resp any
	err := call.run(ctx, bounded, func(ctx context.Context) (err error) {
		resp, err = handler(ctx, req)
		return err
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// Stream is Unary for streams, which have time limits of their own.
func (c *Calls) Stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if !ours(info.FullMethod) {
		return handler(srv, stream)
	}
	call := c.begin(stream.Context(), info.FullMethod)
	return call.run(stream.Context(), call.context(stream.Context()), func(ctx context.Context) error {
		return handler(srv, &callStream{stream, ctx})
	})
}

func (c *Calls) authenticate(ctx context.Context) (context.Context, error) {
	if c.Authenticate == nil {
		return ctx, nil
	}
	return c.Authenticate(ctx)
}

// ours reports whether a method belongs to the contract.
func ours(method string) bool { return strings.HasPrefix(method, contractPrefix) }

const contractPrefix = "/lpfileshare.v1."

// callStream is a stream with another context.
type callStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *callStream) Context() context.Context { return s.ctx }

// An ongoingCall is a call of the contract that has not ended.
type ongoingCall struct {
	*Calls
	method string // "FileSharingService/Upload"
	peer   string
	begun  time.Time
	facts  callFacts
	ended  EndedCall // set at the end
}

func (c *Calls) begin(ctx context.Context, method string) *ongoingCall {
	call := &ongoingCall{Calls: c, method: strings.TrimPrefix(method, contractPrefix), begun: time.Now()}
	if p, ok := peer.FromContext(ctx); ok {
		call.peer = p.Addr.String()
	}
	return call
}

// run runs the handler of the call with the context inner, unless the call is not accepted. ctx is the client's. A panic ends the call as an
// error does, so that it is logged.
func (c *ongoingCall) run(ctx, inner context.Context, handler func(context.Context) error) error {
	if c.Accept != nil {
		if err := c.Accept(); err != nil {
			c.ended.Refused = true
			return c.end(ctx, inner, err)
		}
	}
	inner, err := c.authenticate(inner)
	if err == nil {
		err = c.recovered(inner, handler)
	}
	return c.end(ctx, inner, err)
}

func (c *ongoingCall) recovered(ctx context.Context, handler func(context.Context) error) (err error) {
	defer share.Recover(ctx, c.Log, &err)
	return handler(ctx)
}

// context returns ctx with the facts of the call, to which handlers add.
func (c *ongoingCall) context(ctx context.Context) context.Context {
	return context.WithValue(ctx, callFactsKey{}, &c.facts)
}

// maxAttrs is the number of attributes that the line of a call has at most.
const maxAttrs = 10

// maxLoggedError is the length of an error in the log, in bytes.
const maxLoggedError = 500

// end logs and counts the call, and returns its status. ctx is the client's, inner that of the handler.
func (c *ongoingCall) end(ctx, inner context.Context, err error) error {
	attrs := make([]slog.Attr, 0, maxAttrs)
	attrs = append(attrs, slog.String("method", c.method), slog.String("code", codes.OK.String()))
	ended := &c.ended
	ended.Method, ended.Code, ended.Begun, ended.Peer = c.method, codes.OK, c.begun, c.peer
	ended.Facts, ended.Bytes = c.facts.known()
	level := slog.LevelInfo
	facts := c.facts.attrs()
	if err != nil {
		s, cause := statusOf(ctx, err)
		level = levelOf(s.Code())
		attrs[1] = slog.String("code", s.Code().String())
		ended.Code, ended.Reason = s.Code(), reasonOf(s)
		if ended.Reason != "" {
			attrs = append(attrs, slog.String("reason", ended.Reason))
		}
		if limit := limitOf(s, cause); limit != "" {
			c.Rejections.Add(limit, append(facts, slog.String("method", c.method), slog.String("peer", c.peer))...)
		}
		facts = append(facts, slog.String("error", share.Clip(cause.Error(), maxLoggedError)))
		err = s.Err()
	}
	ended.Took = time.Since(c.begun)
	for _, f := range c.Ended {
		f(inner, ended)
	}
	attrs = append(attrs, slog.String("peer", c.peer), slog.Int64("ms", ended.Took.Milliseconds()))
	c.Log.LogAttrs(ctx, level, FinishedCall, append(attrs, facts...)...)
	return err
}

// FinishedCall is the message of the line that is logged for each call.
const FinishedCall = "finished call"

// levelOf returns the level at which the end of a call is logged. Mistakes of callers are not errors of the server.
func levelOf(code codes.Code) slog.Level {
	switch code {
	case codes.Internal, codes.DataLoss, codes.Unknown:
		return slog.LevelError
	case codes.Unavailable, codes.ResourceExhausted:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// Recovered returns the status of a handler that panicked. The client learns nothing of the panic.
func Recovered(log *slog.Logger) func(ctx context.Context, p any) error {
	return func(ctx context.Context, p any) error { return statusOfKind(share.Panicked(ctx, log, p)).Err() }
}
