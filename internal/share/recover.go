package share

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
)

// Recover turns a panic of the function that defers it into an Internal error in err, and logs the panic. The client learns
// nothing of it.
func Recover(ctx context.Context, log *slog.Logger, err *error) {
	if v := recover(); v != nil {
		*err = Panicked(ctx, log, v)
	}
}

// Panicked logs a recovered panic and returns its error.
func Panicked(ctx context.Context, log *slog.Logger, v any) *Error {
	log.LogAttrs(ctx, slog.LevelError, "a panic was recovered", slog.String("panic", panicText(v)), slog.String("stack", string(debug.Stack())))
	return Reject(Internal, "internal error")
}

// panicText describes a panic that Go itself raised. Any other value could contain a secret, so only its type is shown.
func panicText(v any) string {
	if e, ok := v.(runtime.Error); ok {
		return e.Error()
	}
	return fmt.Sprintf("%T", v)
}
