package traces

import (
	"context"
	"log/slog"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/status"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// IDOf returns the id of the trace of ctx if it is exported, else "".
func IDOf(ctx context.Context) string {
	if s := trace.SpanContextFromContext(ctx); s.IsSampled() {
		return s.TraceID().String()
	}
	return ""
}

// LogHandler adds trace_id and span_id to the lines that are logged within a span that is exported.
func LogHandler(next slog.Handler) slog.Handler { return logHandler{next} }

type logHandler struct{ slog.Handler }

// Handle implements slog.Handler.
func (h logHandler) Handle(ctx context.Context, r slog.Record) error {
	if s := trace.SpanContextFromContext(ctx); s.IsSampled() {
		r = r.Clone() // other handlers may have the record too
		r.AddAttrs(slog.String("trace_id", s.TraceID().String()), slog.String("span_id", s.SpanID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return logHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h logHandler) WithGroup(name string) slog.Handler {
	return logHandler{h.Handler.WithGroup(name)}
}

// maxLoggedError is the length of an error in the log, in bytes.
const maxLoggedError = 300

// errorLog logs the errors of the libraries, which print them to stderr otherwise.
type errorLog struct{ log *slog.Logger }

// Handle implements otel.ErrorHandler.
func (l errorLog) Handle(err error) {
	if s, ok := status.FromError(err); ok { // the message may have the collector's address or text
		l.log.Warn("spans could not be exported", "code", s.Code().String())
		return
	}
	l.log.Warn("tracing failed", "error", share.Clip(err.Error(), maxLoggedError))
}

// libraryLog returns the logger of the libraries' own messages. Their values are left out, because some are environment variables with
// headers.
func libraryLog(log *slog.Logger) logr.Logger { return logr.New(librarySink{log}) }

type librarySink struct{ log *slog.Logger }

// Init implements logr.LogSink.
func (librarySink) Init(logr.RuntimeInfo) {}

// Enabled implements logr.LogSink: errors only.
func (librarySink) Enabled(int) bool { return false }

// Info implements logr.LogSink.
func (librarySink) Info(int, string, ...any) {}

// Error implements logr.LogSink.
func (s librarySink) Error(_ error, message string, _ ...any) {
	s.log.Warn("tracing is misconfigured; check the variables OTEL_*", "problem", message)
}

// WithValues implements logr.LogSink.
func (s librarySink) WithValues(...any) logr.LogSink { return s }

// WithName implements logr.LogSink.
func (s librarySink) WithName(string) logr.LogSink { return s }
