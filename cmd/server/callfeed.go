package main

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/internal/service"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// maxCallText bounds each text of a caller in the feed, in bytes: the fields are not validated yet.
const maxCallText = 300

// A callFeed reports this server's calls to the sandbox's event stream, so that a reader sees what a call causes at LivePerson and the
// store. It implements stats.Handler.
type callFeed struct {
	report func(sandbox.Call)
	last   atomic.Int64
}

// serverOptions returns the options of a gRPC server whose calls the sandbox reports: none without a sandbox.
func (s *localSandbox) serverOptions() []grpc.ServerOption {
	if s == nil {
		return nil
	}
	return []grpc.ServerOption{grpc.StatsHandler(&callFeed{report: s.ReportCall})}
}

type reportedCall struct{} // the context key of an *openCall

// An openCall is a call that has not ended.
type openCall struct {
	mu sync.Mutex // messages are received and sent concurrently
	sandbox.Call
}

// TagRPC implements stats.Handler.
func (f *callFeed) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	method, ours := strings.CutPrefix(info.FullMethodName, "/lpfileshare.v1.")
	if !ours {
		return ctx
	}
	return context.WithValue(ctx, reportedCall{}, &openCall{Call: sandbox.Call{Call: f.last.Add(1), Method: method}})
}

// HandleRPC implements stats.Handler. Of what an upload carries it reports the first message and the path of the stored file.
func (f *callFeed) HandleRPC(ctx context.Context, s stats.RPCStats) {
	c, ours := ctx.Value(reportedCall{}).(*openCall)
	if !ours {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch s := s.(type) {
	case *stats.Begin:
		c.Phase = "begin"
	case *stats.InPayload:
		m, ok := s.Payload.(interface{ GetSpec() *pb.UploadSpec })
		if !ok || m.GetSpec() == nil {
			return
		}
		c.Phase = "spec"
		spec := m.GetSpec()
		c.Conversation, c.Name, c.Size = share.Clip(spec.GetConversation(), maxCallText), share.Clip(spec.GetDisplayName(), maxCallText), spec.GetSizeBytes()
		if small, ok := s.Payload.(*pb.UploadSmallFileRequest); ok {
			c.Size = int64(len(small.GetData()))
		}
	case *stats.OutHeader:
		c.Phase = "header"
		if id := s.Header.Get(service.RequestIDHeader); len(id) > 0 {
			c.RequestID = id[0]
		}
	case *stats.OutPayload:
		switch m := s.Payload.(type) {
		case *pb.UploadResponse:
			c.Path = m.GetFile().GetStoragePath()
		case *pb.UploadSmallFileResponse:
			c.Path = m.GetResult().GetFile().GetStoragePath()
		}
		return
	case *stats.End:
		c.Phase = "end"
		c.Code, c.Reason = outcome(s.Error)
	default:
		return
	}
	f.report(c.Call)
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
