package harness

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// failure is a status of the server, with RetryInfo unless after is negative.
func failure(code codes.Code, reason string, after time.Duration) error {
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Domain: "lpfileshare", Reason: reason}}
	if after >= 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	}
	st, err := status.New(code, "made up").WithDetails(details...)
	if err != nil {
		panic(err)
	}
	return st.Err()
}

func TestRetry_RepeatsByTheRule(t *testing.T) {
	const limit = time.Minute
	for name, test := range map[string]struct {
		err      error
		attempts int           // until it gives up; 0: until limit
		least    time.Duration // before the second attempt
	}{
		"RetryInfo":                 {err: failure(codes.ResourceExhausted, "TOO_MANY_UPLOADS", 10*time.Second), least: 10 * time.Second},
		"no RetryInfo":              {err: failure(codes.Aborted, "UPLOAD_TAKEN_OVER", -1), attempts: 1},
		"RetryInfo beyond limit":    {err: failure(codes.Unavailable, "LP_TIMEOUT", 2*limit), attempts: 1},
		"broken connection":         {err: status.Error(codes.Unavailable, "reset")},
		"cancelled by a proxy":      {err: status.Error(codes.Canceled, "reset")},
		"INTERNAL without a reason": {err: status.Error(codes.Internal, "reset"), attempts: 2},
		"another code":              {err: status.Error(codes.PermissionDenied, "reset"), attempts: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun, attempts := time.Now(), 0
				_, err := Retry(t.Context(), limit, func(context.Context) (int, error) {
					if attempts++; attempts == 2 && time.Since(begun) < test.least {
						t.Errorf("the second attempt began after %v", time.Since(begun))
					}
					return 0, test.err
				})
				if !errors.Is(err, test.err) || test.attempts > 0 && attempts != test.attempts || test.attempts == 0 && attempts < 3 {
					t.Errorf("%d attempts, %v", attempts, err)
				}
				if took := time.Since(begun); took > limit {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}
