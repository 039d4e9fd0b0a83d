package main

import (
	"context"
	"strings"
	"sync/atomic"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/internal/service"
)

// A callFeed reports this server's calls to the sandbox's event stream, so that a reader sees what a call causes at LivePerson and the
// store. It implements stats.Handler.
type callFeed struct {
	report func(sandbox.Call)
	last   atomic.Int64
}

type reportedCall struct{} // the context key of a *sandbox.Call

// TagRPC implements stats.Handler.
func (f *callFeed) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	method, ours := strings.CutPrefix(info.FullMethodName, "/lpfileshare.v1.")
	if !ours {
		return ctx
	}
	return context.WithValue(ctx, reportedCall{}, &sandbox.Call{Call: f.last.Add(1), Method: method})
}

// HandleRPC implements stats.Handler. gRPC calls it in order for each call.
func (f *callFeed) HandleRPC(ctx context.Context, s stats.RPCStats) {
	c, ours := ctx.Value(reportedCall{}).(*sandbox.Call)
	if !ours {
		return
	}
	switch s := s.(type) {
	case *stats.Begin:
		c.Phase = "begin"
	case *stats.OutHeader:
		c.Phase = "header"
		if id := s.Header.Get(service.RequestIDHeader); len(id) > 0 {
			c.RequestID = id[0]
		}
	case *stats.End:
		c.Phase = "end"
		c.Code, c.Reason = outcome(s.Error)
	default:
		return
	}
	f.report(*c)
}

// outcome returns the code of an error and its reason, if it has one.
func outcome(err error) (code, reason string) {
	st := status.Convert(err)
	for _, detail := range st.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			reason = info.GetReason()
		}
	}
	return st.Code().String(), reason
}

// TagConn implements stats.Handler.
func (*callFeed) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (*callFeed) HandleConn(context.Context, stats.ConnStats) {}
