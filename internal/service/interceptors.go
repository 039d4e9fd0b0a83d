package service

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// UnaryErrors turns errors of handlers into the contract's statuses, and logs their causes, which the client does not see. It must
// be the innermost interceptor, so that the others see the final status. It also bounds the call, except an UploadSmallFile, which has
// the time limit of an Upload. A timeout of the server is reported as such, not as the caller's deadline.
func UnaryErrors(log *slog.Logger, timeout time.Duration) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if !ours(info.FullMethod) {
			return handler(ctx, req)
		}
		bounded, cancel := ctx, context.CancelFunc(func() {})
		if info.FullMethod != lpfilesharev1.FileSharingService_UploadSmallFile_FullMethodName {
			bounded, cancel = context.WithTimeout(ctx, timeout)
		}
		defer cancel()
		resp, err := handler(bounded, req)
		if err != nil {
			return nil, mapError(ctx, log, info.FullMethod, err)
		}
		return resp, nil
	}
}

// StreamErrors is UnaryErrors for streams, which have time limits of their own.
func StreamErrors(log *slog.Logger) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		if !ours(info.FullMethod) {
			return handler(srv, stream)
		}
		if err := handler(srv, stream); err != nil {
			return mapError(stream.Context(), log, info.FullMethod, err)
		}
		return nil
	}
}

// ours reports whether a method belongs to the contract. Health checks and reflection have statuses of their own.
func ours(method string) bool { return strings.HasPrefix(method, "/lpfileshare.v1.") }

func mapError(ctx context.Context, log *slog.Logger, method string, err error) error {
	s, cause := statusOf(ctx, err)
	level := slog.LevelDebug
	switch s.Code() {
	case codes.Internal, codes.DataLoss, codes.Unknown:
		level = slog.LevelError
	case codes.Unavailable:
		level = slog.LevelWarn
	}
	log.LogAttrs(ctx, level, "call failed", slog.String("method", method), slog.String("code", s.Code().String()), slog.Any("error", cause))
	return s.Err()
}

// Recovered returns the status of a handler that panicked. The client learns nothing of the panic.
func Recovered(log *slog.Logger) func(ctx context.Context, p any) error {
	return func(ctx context.Context, p any) error { return statusOfKind(share.Panicked(ctx, log, p)).Err() }
}
