package main

import (
	"context"
	"log/slog"

	"google.golang.org/grpc"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/buildinfo"
	"github.com/lpfileshare/lpfileshare/internal/callers"
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
func traceCalls(t *traces.Traces, id *callers.Identifier) []grpc.ServerOption {
	if t == nil {
		return nil
	}
	return []grpc.ServerOption{t.ServerOption(tracedMethods(), trustsTraceOf(id))}
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

// trustsTraceOf returns whether the caller of a call may decide whether it is traced, and in which trace: if the connection has a client
// certificate, or is on this machine. Others could fill the collector, or mix their calls into the traces of others.
func trustsTraceOf(id *callers.Identifier) func(context.Context) bool {
	return func(ctx context.Context) bool { return id.Connection(ctx).Authenticated() }
}
