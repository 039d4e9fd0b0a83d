package lpfileshare

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAdvice_EveryReason(t *testing.T) {
	for n, name := range pb.ErrorReason_name {
		advice, ok := adviceByReason[pb.ErrorReason(n)]
		if n != 0 && (!ok || !strings.HasSuffix(advice, ".")) {
			t.Errorf("%s: %q", name, advice)
		}
	}
}

func TestError(t *testing.T) {
	st, err := status.New(codes.InvalidArgument, "the request is invalid").WithDetails(
		&errdetails.ErrorInfo{Reason: "INVALID_FIELD", Domain: errorDomain},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: "spec.caption", Description: "is too long"}, {Field: "spec.file_type", Description: "is missing"},
		}})
	if err != nil {
		t.Fatal(err)
	}
	err = newError("upload cat.jpg", st.Err())
	want := "upload cat.jpg: the request is invalid: spec.caption: is too long; spec.file_type: is missing [INVALID_FIELD]. " +
		"Correct the named fields and retry."
	if err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
	if got, ok := status.FromError(err); !ok || got.Code() != codes.InvalidArgument || len(got.Details()) != 2 {
		t.Errorf("as a status: %v", got)
	}
	if newError("x", nil) != nil || ErrorReason(nil) != 0 || ErrorReason(errors.New("x")) != 0 {
		t.Error("nil or a plain error has a reason")
	}
	other, _ := status.New(codes.Internal, "x").WithDetails(&errdetails.ErrorInfo{Reason: "INTERNAL", Domain: "elsewhere"})
	if ErrorReason(other.Err()) != 0 {
		t.Error("a reason of another domain was accepted")
	}
	if err := newError("x", context.DeadlineExceeded); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		t.Errorf("a deadline: %v", err)
	}
}

func TestDial_PlaintextOnLoopbackOnly(t *testing.T) {
	for target, loopback := range map[string]bool{
		"127.0.0.1:50051": true, "localhost:1": true, "[::1]:50051": true, "dns:///localhost:1": true, "passthrough:///127.9.9.9:1": true,
		"unix:/run/x.sock": true, "127.0.0.1": true, "::1": true, "127.0.0.1:1, localhost:2": true, "127.0.0.1:1,10.0.0.1:1": false,
		"files.example.com:443": false, "10.0.0.1:1": false, "localhost.example.com:1": false, "127.0.0.1.example.com:1": false,
		"dns:///example.com:1": false, "[fe80::1]:1": false, "": false, "0.0.0.0:1": false, "dns://127.0.0.1/example.com:1": false,
	} {
		if got := IsLoopback(target); got != loopback {
			t.Errorf("%q: loopback %v", target, got)
		}
		want := map[bool]string{true: "insecure", false: "tls"}[loopback]
		if got := (&settings{}).credentials(target, new(atomic.Bool)).Info().SecurityProtocol; got != want {
			t.Errorf("%q: %s", target, got)
		}
	}
	if got := (&settings{plaintext: true}).credentials("example.com:1", new(atomic.Bool)).Info().SecurityProtocol; got != "insecure" {
		t.Errorf("WithPlaintext: got %s", got)
	}
}

// TestRetryRule is the table of error_reason.proto: RetryInfo decides, whatever code and reason say.
func TestRetryRule(t *testing.T) {
	with := func(code codes.Code, domain string, retryInfo bool) error {
		st := status.New(code, "failed")
		var details []protoadapt.MessageV1
		if domain != "" {
			details = append(details, &errdetails.ErrorInfo{Reason: "ANYTHING", Domain: domain})
		}
		if retryInfo {
			details = append(details, &errdetails.RetryInfo{})
		}
		st, err := st.WithDetails(details...)
		if err != nil {
			t.Fatal(err)
		}
		return st.Err()
	}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		if got := judge(with(code, errorDomain, true)); got != repeat {
			t.Errorf("%v with ErrorInfo and RetryInfo: %v", code, got)
		}
		if got := judge(with(code, errorDomain, false)); got != final {
			t.Errorf("%v with ErrorInfo and without RetryInfo: %v", code, got)
		}
		want := map[codes.Code]verdict{codes.Unavailable: repeat, codes.Canceled: repeat, codes.Unknown: repeat, codes.Internal: repeatOnce}[code]
		for _, domain := range []string{"", "another.example"} {
			for _, retryInfo := range []bool{false, true} {
				if got := judge(with(code, domain, retryInfo)); got != want {
					t.Errorf("%v of domain %q, RetryInfo %v: %v, want %v", code, domain, retryInfo, got, want)
				}
			}
		}
	}
	again := with(codes.Unavailable, errorDomain, true)
	for name, tc := range map[string]struct {
		err  error
		want verdict
	}{
		"nil":                   {nil, final},
		"not a status":          {errors.New("x"), final},
		"converted":             {newError("op", again), repeat},
		"damaged bytes":         {&damagedError{"x"}, repeat},
		"source that is a call": {&ownError{again}, final},
		"own context":           {context.Canceled, final},
	} {
		if got := judge(tc.err); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

func TestPacer(t *testing.T) {
	unavailable, internal := status.Error(codes.Unavailable, "lost"), status.Error(codes.Internal, "RST_STREAM")
	retry := func(ctx context.Context, p *pacer, err error) error {
		p.attempts++
		return p.retry(ctx, err, Identity{}, "", nil)
	}
	simulated := func(name string, test func(t *testing.T)) {
		t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
	}
	simulated("backs off", func(t *testing.T) {
		p := newPacer("op", time.Hour)
		for _, mean := range []time.Duration{200, 400, 800, 1600, 3200, 5000, 5000} {
			mean *= time.Millisecond
			began := time.Now()
			if err := retry(t.Context(), p, unavailable); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(began); d < mean/2 || d > mean*3/2 {
				t.Errorf("waited %v, the mean is %v", d, mean)
			}
		}
		p.progress()
		began := time.Now()
		if err := retry(t.Context(), p, unavailable); err != nil || time.Since(began) > 300*time.Millisecond {
			t.Errorf("after progress: waited %v, %v", time.Since(began), err)
		}
	})
	simulated("waits for RetryInfo", func(t *testing.T) {
		st, _ := status.New(codes.ResourceExhausted, "x").WithDetails(
			&errdetails.ErrorInfo{Reason: "TOO_MANY_UPLOADS", Domain: errorDomain}, &errdetails.RetryInfo{RetryDelay: durationpb.New(40 * time.Second)})
		p, began := newPacer("op", time.Hour), time.Now()
		if err := retry(t.Context(), p, st.Err()); err != nil || time.Since(began) < 40*time.Second || time.Since(began) > 48*time.Second {
			t.Errorf("waited %v, %v", time.Since(began), err)
		}
		p = newPacer("op", 30*time.Second)
		err := retry(t.Context(), p, st.Err())
		if e, ok := errors.AsType[*Error](err); !ok || e.NotRepeated == "" || e.RetryAfter != 40*time.Second {
			t.Errorf("beyond the time limit: %v", err)
		}
	})
	simulated("INTERNAL is tried twice at most", func(t *testing.T) {
		p := newPacer("op", time.Hour)
		if err := retry(t.Context(), p, internal); err != nil {
			t.Fatal(err)
		}
		if err := retry(t.Context(), p, unavailable); err != nil {
			t.Fatal(err)
		}
		err := retry(t.Context(), p, internal)
		if err == nil || !strings.Contains(err.Error(), "client_max_body_size") {
			t.Errorf("the second time: %v", err)
		}
		p.progress()
		if err := retry(t.Context(), p, internal); err != nil {
			t.Errorf("after progress: %v", err)
		}
	})
	simulated("number of attempts", func(t *testing.T) {
		p := newPacer("op", time.Hour)
		p.maxAttempts = 2
		if err := retry(t.Context(), p, unavailable); err != nil {
			t.Fatal(err)
		}
		if err := retry(t.Context(), p, unavailable); err == nil || !strings.Contains(err.Error(), "limit is 2 attempts") {
			t.Errorf("got %v", err)
		}
	})
	// Servers and languages report the caller's own cancellation and deadline in different ways.
	simulated("own context wins over the status", func(t *testing.T) {
		mine := errors.New("mine")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(mine)
		late, cancelLate := context.WithTimeout(t.Context(), -1)
		defer cancelLate()
		for _, err := range []error{unavailable, internal, status.Error(codes.Canceled, "x"), context.Canceled} {
			if got := retry(ctx, newPacer("op", time.Hour), err); !errors.Is(got, context.Canceled) || !errors.Is(got, mine) || status.Code(got) != codes.Canceled {
				t.Errorf("%v becomes %v", err, got)
			}
			if got := retry(late, newPacer("op", time.Hour), err); !errors.Is(got, context.DeadlineExceeded) || errors.Is(got, context.Canceled) {
				t.Errorf("%v becomes %v", err, got)
			}
		}
		if got := retry(ctx, newPacer("op", time.Hour), &ownError{mine}); status.Code(got) != codes.Unknown || !errors.Is(got, mine) {
			t.Errorf("an error of the source becomes %v", got)
		}
	})
}

func TestReach_GivesUpWithoutConnection(t *testing.T) {
	c, err := Dial("127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background() // without a deadline
	const name = "accounts/1/conversations/c"
	_, up := c.Upload(ctx, UploadOptions{Conversation: name, DisplayName: "a.txt", RetryFor: time.Millisecond}, strings.NewReader("a"))
	_, down := c.Download(ctx, DownloadOptions{Name: name + "/files/f", RetryFor: time.Millisecond}, &strings.Builder{})
	for _, err := range []error{up, down} {
		var e *Error
		if !errors.As(err, &e) || e.Code != codes.Unavailable || !strings.Contains(e.Message, "not reached within 1s") || e.Attempts != 1 || e.Finished {
			t.Errorf("got %v", err)
		}
	}
}

func TestError_ViolationsOnce(t *testing.T) {
	e := &Error{Op: "get upload", Message: "name: must be a name", Code: codes.InvalidArgument, Violations: []FieldViolation{
		{"name", "must be a name"}, {"parent", "is missing"}, {"page", "is bad"},
	}}
	if got, want := e.What(), "get upload: name: must be a name: parent: is missing; page: is bad [InvalidArgument]"; got != want {
		t.Errorf("got %s", got)
	}
}

// fmt does not call the String methods of unexported fields.
func TestClient_DoesNotPrintItsToken(t *testing.T) {
	const secret = "a-secret-token"
	tokens := NewConsumerTokens("1", ConsumerSession{Token: secret, RenewalSecret: secret}, nil)
	for _, id := range []Identity{ConsumerToken(StaticToken(secret)), AgentToken(StaticToken(secret)), ExternalConsumerID(secret), ConsumerToken(tokens)} {
		c, err := Dial("127.0.0.1:1")
		if err != nil {
			t.Fatal(err)
		}
		other := c.As(id)
		for _, v := range []any{id, &id, other, *other, tokens, []Identity{id}, struct{ id Identity }{id}} {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
				text := fmt.Sprintf(verb, v)
				if strings.Contains(text, secret) || strings.Contains(text, fmt.Sprintf("%x", secret)) {
					t.Errorf("%s of %T: %s", verb, v, text)
				}
			}
		}
		c.Close()
	}
}

func TestError_CancelledByTheServer(t *testing.T) {
	err := newError("upload", status.Error(codes.Canceled, "the stream was reset"))
	if errors.Is(err, context.Canceled) || status.Code(err) != codes.Canceled {
		t.Errorf("%v is the caller's cancellation", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := contextError(ctx, "upload"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v is not the caller's cancellation", err)
	}
	if err := newError("upload", context.Canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("%v is not the caller's cancellation", err)
	}
}
