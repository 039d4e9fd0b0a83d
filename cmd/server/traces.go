package main

import (
	"context"
	"log/slog"

	"google.golang.org/grpc"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/buildinfo"
	"github.com/lpfileshare/lpfileshare/internal/metrics"
	"github.com/lpfileshare/lpfileshare/internal/traces"
)

// newTraces returns nil if the environment names no OTLP endpoint. m, if not nil, gets exemplars.
func newTraces(ctx context.Context, m *metrics.Metrics, log *slog.Logger) (*traces.Traces, error) {
	if !traces.Configured() {
		return nil, nil
	}
	m.LinkTraces(traces.IDOf)
	return traces.New(ctx, buildinfo.Version(), log)
}

// traceCalls returns the options of a gRPC server with traces; none if t is nil.
func traceCalls(t *traces.Traces, f *flags) []grpc.ServerOption {
	if t == nil {
		return nil
	}
	return []grpc.ServerOption{t.ServerOption(tracedMethods(), f.Server.trustsTraceOf)}
}

// tracedMethods returns the full names of the contract's methods. Calls of others have no span, because their names are the caller's text.
func tracedMethods() map[string]bool {
	methods := map[string]bool{}
	for _, service := range []*grpc.ServiceDesc{
		&lpfilesharev1.FileSharingService_ServiceDesc, &lpfilesharev1.ConversationService_ServiceDesc,
		&lpfilesharev1.IdentityService_ServiceDesc, &lpfilesharev1.AccountService_ServiceDesc,
	} {
		for _, m := range service.Methods {
			methods["/"+service.ServiceName+"/"+m.MethodName] = true
		}
		for _, s := range service.Streams {
			methods["/"+service.ServiceName+"/"+s.StreamName] = true
		}
	}
	return methods
}

// trustsTraceOf reports whether the caller of ctx may decide whether its call is traced, and in which trace: one with a client
// certificate, or on this machine. Others could fill the collector, or mix their calls into the traces of others.
func (f *serverFlags) trustsTraceOf(ctx context.Context) bool {
	return f.caller(ctx).Authenticated()
}
