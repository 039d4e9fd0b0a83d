package abuse

import (
	"bufio"
	"context"
	"io"
	"os/exec"
	"regexp"
	"syscall"
	"testing"
	"time"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

// TestStderr closes the server's stderr, or stops reading it, and floods the log with failing calls. Calls go on as before, and the
// server still ends when it is asked to.
func TestStderr(t *testing.T) {
	for name, closes := range map[string]bool{"stderr is closed": true, "stderr is not read": false} {
		t.Run(name, func(t *testing.T) {
			picked(t, name)
			sb := harness.Sandbox(t, frames, sandbox.Options{})
			cmd := exec.Command(harness.File(), append(harness.Before(sb), "--listen=127.0.0.1:0", "--ledger=memory", "--drain-notice=0s", "--drain-time=1s", "--documents")...)
			stderr, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			lines := bufio.NewReader(stderr)
			address := ""
			for address == "" {
				line, err := lines.ReadString('\n')
				if err != nil {
					t.Fatalf("the server is not ready: %v", err)
				}
				if m := regexp.MustCompile(`msg=ready grpc=(\S+)`).FindStringSubmatch(line); m != nil {
					address = m[1]
				}
			}
			go func() { _, err := cmd.Process.Wait(); ended <- err }() // not cmd.Wait, which closes the pipe
			defer cmd.Process.Kill()
			if closes {
				stderr.Close()
			}
			c, err := lpfileshare.Dial(address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			first, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			consumer, err := harness.SignUpAndTalk(first, c, account)
			if err != nil {
				t.Fatal(err)
			}
			call := func(ctx context.Context) error { return upload(ctx, consumer, text(3000)) }
			before := measure(t.Context(), time.Second, call)
			flood, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for range 5000 { // far more than a pipe holds
				if err := list(flood, as(c, "garbage")); err == nil {
					t.Fatal("a garbage token is accepted")
				}
			}
			during := measure(t.Context(), time.Second, call)
			(&row{name: name, peak: defaultPeak}).judge(t, before, during, 0, true)
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			select {
			case <-ended:
			case <-time.After(time.Minute):
				t.Error("the server does not end")
			}
			_, _ = io.Copy(io.Discard, io.LimitReader(stderr, 1)) // stderr stays open until here
		})
	}
}
