// Package traces makes spans of calls and of their steps, and exports them by OTLP. docs/traces.md describes them.
//
// A span contains names of methods, systems and steps, codes and kinds of errors, and nothing that a caller, LivePerson or the store
// wrote. See redact.go.
package traces

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// service is the service.name of all spans, unless OTEL_SERVICE_NAME has another.
const service = "lpfileshare"

// shutdownTimeout bounds the export of the last spans. A collector that is down must not delay the end of the server.
const shutdownTimeout = 2 * time.Second

// Configured reports whether the environment names an OTLP endpoint. Without one the libraries would send to localhost.
func Configured() bool {
	return os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
}

// Traces makes and exports spans. It is safe for concurrent use. The nil pointer stands for a server without traces.
type Traces struct {
	provider *sdktrace.TracerProvider
	exporter sdktrace.SpanExporter
	tracer   trace.Tracer
}

// New returns Traces that the environment variables OTEL_* configure. It connects in the background. The libraries' errors go to log,
// for the whole process. The caller must call Close.
func New(ctx context.Context, version string, log *slog.Logger) (*Traces, error) {
	otel.SetErrorHandler(errorLog{log})
	otel.SetLogger(libraryLog(log))
	about, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", service), attribute.String("service.version", version)),
		resource.WithFromEnv(), // after ours, so that the operator's win
	)
	if err != nil {
		return nil, errors.New("OTEL_RESOURCE_ATTRIBUTES is invalid; write KEY=VALUE,KEY=VALUE")
	}
	collector, err := newClient()
	if err != nil {
		return nil, fmt.Errorf("traces cannot be exported; check the variables OTEL_EXPORTER_OTLP_*: %w", err)
	}
	exporter := otlptrace.NewUnstarted(collector)
	if err := exporter.Start(ctx); err != nil {
		return nil, err
	}
	return newTraces(exporter, about, version), nil
}

func newTraces(exporter sdktrace.SpanExporter, about *resource.Resource, version string) *Traces {
	t := &Traces{exporter: redactor{exporter}}
	t.provider = sdktrace.NewTracerProvider(sdktrace.WithResource(about), sdktrace.WithBatcher(t.exporter)) // OTEL_TRACES_SAMPLER has the sampler
	t.tracer = t.provider.Tracer("github.com/lpfileshare/lpfileshare", trace.WithInstrumentationVersion(version))
	return t
}

// ServerOption makes a span of each call of methods, which are full names. trusted reports whether a caller's span may be the parent of
// the server's, and decide whether it is sampled. The spans of other callers are linked.
func (t *Traces) ServerOption(methods map[string]bool, trusted func(context.Context) bool) grpc.ServerOption {
	return grpc.StatsHandler(otelgrpc.NewServerHandler(
		otelgrpc.WithTracerProvider(t.provider),
		otelgrpc.WithMeterProvider(noop.NewMeterProvider()),
		otelgrpc.WithPropagators(traceparent{}),
		otelgrpc.WithPublicEndpointFn(func(ctx context.Context, _ *stats.RPCTagInfo) bool { return !trusted(ctx) }),
		otelgrpc.WithFilter(func(info *stats.RPCTagInfo) bool { return methods[info.FullMethodName] }),
	))
}

// StepObserver makes a span of each step that next observes. A step outside of a call, such as the opening of a session, begins a
// trace.
func (t *Traces) StepObserver(next share.BeginStep) share.BeginStep {
	if t == nil {
		return next
	}
	return func(ctx context.Context, system share.System, step string) (context.Context, func(error)) {
		ctx, span := t.tracer.Start(ctx, string(system)+" "+step, trace.WithSpanKind(trace.SpanKindClient))
		if span.IsRecording() {
			span.SetAttributes(attribute.String("lpfs.system", string(system)), attribute.String("lpfs.step", step))
		}
		ctx, end := next.Begin(ctx, system, step)
		return ctx, func(err error) {
			end(err)
			if err != nil && span.IsRecording() {
				span.SetAttributes(attribute.String("error.type", errorType(ctx, err)))
				span.SetStatus(codes.Error, "")
			}
			span.End()
		}
	}
}

// errorType names an error by a fixed word, because its text may be a caller's or contain an address.
func errorType(ctx context.Context, err error) string {
	if kind := share.KindOf(err); kind != "" {
		return string(kind)
	}
	if ctx.Err() != nil {
		return "CANCELED"
	}
	return "OTHER"
}

// Close exports the last spans, for at most 2 s.
func (t *Traces) Close() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		otel.Handle(err)
	}
	// If the time was over, an export still runs. With a context that has ended, this ends it.
	cancel()
	_ = t.exporter.Shutdown(ctx)
}
