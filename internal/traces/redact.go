package traces

import (
	"context"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// exported are the attributes that spans may have. All of their values are from fixed sets. Others, which a new version of a library
// might add, are not exported.
var exported = []attribute.Key{
	"rpc.system", "rpc.system.name", "rpc.service", "rpc.method", "rpc.grpc.status_code", "rpc.response.status_code", "error.type",
	"lpfs.system", "lpfs.step",
}

// A redactor exports spans without what could contain a caller's text, an address or a secret: descriptions of statuses, which are gRPC's
// messages, events, and attributes that are not in exported.
type redactor struct{ sdktrace.SpanExporter }

// ExportSpans implements sdktrace.SpanExporter.
func (r redactor) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	redacted := make([]sdktrace.ReadOnlySpan, len(spans))
	for i, s := range spans {
		redacted[i] = redactedSpan{s}
	}
	return r.SpanExporter.ExportSpans(ctx, redacted)
}

type redactedSpan struct{ sdktrace.ReadOnlySpan }

// Status returns the code alone.
func (s redactedSpan) Status() sdktrace.Status {
	return sdktrace.Status{Code: s.ReadOnlySpan.Status().Code}
}

// Events returns none: the only ones would be errors with their texts.
func (s redactedSpan) Events() []sdktrace.Event { return nil }

// Attributes returns those that may be exported.
func (s redactedSpan) Attributes() []attribute.KeyValue {
	return slices.DeleteFunc(slices.Clone(s.ReadOnlySpan.Attributes()), func(a attribute.KeyValue) bool { return !slices.Contains(exported, a.Key) })
}

// traceparent reads the W3C header of that name. It ignores tracestate and baggage, which are free text of the caller's.
type traceparent struct{ propagation.TraceContext }

// Extract implements propagation.TextMapPropagator.
func (p traceparent) Extract(ctx context.Context, from propagation.TextMapCarrier) context.Context {
	ctx = p.TraceContext.Extract(ctx, from)
	if parent := trace.SpanContextFromContext(ctx); parent.TraceState().Len() > 0 {
		ctx = trace.ContextWithRemoteSpanContext(ctx, parent.WithTraceState(trace.TraceState{}))
	}
	return ctx
}
