package main

import (
	"context"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
)

// TestLog_BoundsFailingCalls sends calls without an identity that fail at once, and calls that the client resets, over one connection.
func TestLog_BoundsFailingCalls(t *testing.T) {
	w := newWorld(t, sandbox.Options{}, "--log-level=info")
	c := w.dial()
	const calls = 500
	begun := time.Now()
	var senders sync.WaitGroup
	for range 10 {
		senders.Go(func() {
			for range calls / 10 {
				_, err := c.Raw().Files.GetUpload(t.Context(), &pb.GetUploadRequest{Name: strings.Repeat("x", 1000)})
				if status.Code(err) != codes.InvalidArgument {
					t.Errorf("a call: %v", err)
				}
				ctx, reset := context.WithCancel(t.Context())
				if _, err := c.Raw().Files.Upload(ctx); err != nil {
					t.Error(err)
				}
				reset()
			}
		})
	}
	senders.Wait()
	w.stop()
	seconds := int(time.Since(begun)/time.Second) + 1
	text := w.logs.String()
	for method, code := range map[string]string{"GetUpload": "InvalidArgument", "Upload": "Canceled"} {
		written := w.logs.Count("finished call", "method=FileSharingService/"+method+" ", "code="+code+" ")
		leftOut := 0
		for _, sum := range regexp.MustCompile(`msg="log lines were left out" like="finished call" code=`+code+` .*lines=(\d+)`).FindAllStringSubmatch(text, -1) {
			n, _ := strconv.Atoi(sum[1])
			leftOut += n
		}
		if written > seconds*maxLinesPerKind {
			t.Errorf("%s: %d lines in %d s", method, written, seconds)
		}
		if method == "GetUpload" && written+leftOut != calls {
			t.Errorf("%s: %d lines and %d left out, want %d calls", method, written, leftOut, calls)
		}
	}
	t.Logf("%d bytes for %d calls in %s", len(text), 2*calls, time.Since(begun))
	if most := 100_000 + seconds*40_000; len(text) > most {
		t.Errorf("the log has %d bytes after %d s, want at most %d", len(text), seconds, most)
	}
}
