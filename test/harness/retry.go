package harness

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

const (
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 2 * time.Second
)

// Retry makes a call until it succeeds or fails for good, by the rule of error_reason.proto. No attempt begins later than limit
// after the first. It is for generated stubs, whose callers must repeat by themselves; the call must be safe to repeat.
func Retry[T any](ctx context.Context, limit time.Duration, call func(context.Context) (T, error)) (T, error) {
	begun, backoff := time.Now(), firstBackoff
	for attempt := 1; ; attempt++ {
		resp, err := call(ctx)
		if err == nil || ctx.Err() != nil || !repeatable(err, attempt) {
			return resp, err
		}
		delay := backoff/2 + rand.N(backoff)
		if asked, ok := lpfileshare.RetryDelay(err); ok {
			delay = max(delay, asked)
		}
		if time.Since(begun)+delay > limit {
			return resp, fmt.Errorf("after %d attempts: %w", attempt, err)
		}
		backoff = min(2*backoff, maxBackoff)
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return resp, err
		}
	}
}

// repeatable reports whether a program repeats a call after this many attempts.
func repeatable(err error, attempts int) bool {
	if lpfileshare.ErrorReason(err) != pb.ErrorReason_ERROR_REASON_UNSPECIFIED {
		_, ok := lpfileshare.RetryDelay(err)
		return ok
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.Canceled, codes.Unknown:
		return true
	case codes.Internal:
		return attempts < 2
	default:
		return false
	}
}

// Definite reports whether an error of an upload says that nothing was published, and nothing will be. After any other error the
// caller repeats under the same request id to learn the outcome. UPLOAD_TAKEN_OVER leaves the outcome to the newer attempt.
func Definite(err error) bool {
	reason := lpfileshare.ErrorReason(err)
	if reason == pb.ErrorReason_ERROR_REASON_UNSPECIFIED || reason == pb.ErrorReason_ERROR_REASON_UPLOAD_TAKEN_OVER {
		return false
	}
	_, retry := lpfileshare.RetryDelay(err)
	return !retry
}
