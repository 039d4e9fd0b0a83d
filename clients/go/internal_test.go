package lpfileshare

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEveryReasonHasAdvice(t *testing.T) {
	for n, name := range pb.ErrorReason_name {
		advice, ok := adviceByReason[pb.ErrorReason(n)]
		if n != 0 && (!ok || !strings.HasSuffix(advice, ".")) {
			t.Errorf("%s: %q", name, advice)
		}
	}
}

func TestErrorIsForPeople(t *testing.T) {
	st, err := status.New(codes.InvalidArgument, "the request has faults").WithDetails(
		&errdetails.ErrorInfo{Reason: "INVALID_FIELD", Domain: errorDomain},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: "spec.caption", Description: "is too long"}, {Field: "spec.file_type", Description: "is missing"},
		}})
	if err != nil {
		t.Fatal(err)
	}
	err = newError("upload cat.jpg", st.Err())
	want := "upload cat.jpg: the request has faults: spec.caption: is too long; spec.file_type: is missing [INVALID_FIELD]. " +
		"Mend what is named and try again."
	if err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
	if got, ok := status.FromError(err); !ok || got.Code() != codes.InvalidArgument || len(got.Details()) != 2 {
		t.Errorf("as a status: %v", got)
	}
	if newError("x", nil) != nil || ErrorReason(nil) != 0 || ErrorReason(errors.New("x")) != 0 {
		t.Error("nil or a plain error passes for one of the server's")
	}
	other, _ := status.New(codes.Internal, "x").WithDetails(&errdetails.ErrorInfo{Reason: "INTERNAL", Domain: "elsewhere"})
	if ErrorReason(other.Err()) != 0 {
		t.Error("a reason of another domain was taken for ours")
	}
	if err := newError("x", context.DeadlineExceeded); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		t.Errorf("a deadline: %v", err)
	}
}

func TestPlaintextIsForLoopbackOnly(t *testing.T) {
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
		if got := (&settings{}).credentials(target).Info().SecurityProtocol; got != want {
			t.Errorf("%q: %s", target, got)
		}
	}
	if got := (&settings{plaintext: true}).credentials("example.com:1").Info().SecurityProtocol; got != "insecure" {
		t.Errorf("asked for plaintext, got %s", got)
	}
}

func TestPacerBacksOff(t *testing.T) {
	p := newPacer(time.Hour)
	for _, mean := range []time.Duration{200, 400, 800, 1600, 3200, 5000, 5000} {
		mean *= time.Millisecond
		if d := p.backoff.NextBackOff(); d < mean/2 || d > mean*3/2 {
			t.Errorf("waits %v where %v is the mean", d, mean)
		}
	}
	p.progress()
	st, _ := status.New(codes.Unavailable, "x").WithDetails(&errdetails.RetryInfo{}) // asks for no time at all
	begun := time.Now()
	if err := p.wait(t.Context(), st.Err()); err != nil || time.Since(begun) < 100*time.Millisecond {
		t.Errorf("waited %v, error %v", time.Since(begun), err)
	}
}

func TestAConnectionIsNotWaitedForForEver(t *testing.T) {
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

func TestViolationsAreToldOnce(t *testing.T) {
	e := &Error{Op: "get upload", Message: "name: must be a name", Code: codes.InvalidArgument, Violations: []FieldViolation{
		{"name", "must be a name"}, {"parent", "is missing"}, {"page", "is bad"},
	}}
	if got, want := e.What(), "get upload: name: must be a name: parent: is missing; page: is bad [InvalidArgument]"; got != want {
		t.Errorf("got %s", got)
	}
}
