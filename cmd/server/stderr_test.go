package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/test/harness"
	"github.com/lpfileshare/lpfileshare/test/process"
)

// TestStderr runs the server as a process whose log is not read.
func TestStderr(t *testing.T) {
	t.Setenv(serverProcess, "1")
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("closed after 200 bytes", func(t *testing.T) {
		testUnreadLog(t, binary, func(_ *os.File) {}, func(stderr *os.File) {
			if err := stderr.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.CopyN(io.Discard, stderr, 200); err != nil {
				t.Fatal(err)
			}
			stderr.Close()
		}, true)
	})
	t.Run("never read", func(t *testing.T) {
		// The pipe is full before the server starts. The server's buffers are not, so it drops nothing.
		testUnreadLog(t, binary, func(stderr *os.File) {
			for err := error(nil); err == nil; _, err = stderr.Write(make([]byte, 64<<10)) {
				if err := stderr.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
					t.Fatal(err)
				}
			}
		}, func(*os.File) {}, false)
	})
}

// testUnreadLog starts a server, makes calls, and stops it. before and after get the ends of the pipe of stderr before and after the
// start: before that to write to, after that to read from. The reader of stdout is closed. drops is whether lines must be dropped.
func testUnreadLog(t *testing.T, binary string, before, after func(stderr *os.File), drops bool) {
	ports, err := process.FreePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	stderr, stderrWriter, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	before(stderrWriter)
	stdout, stdoutWriter, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout.Close()
	cmd := exec.Command(binary, "--sandbox", "--log-level=debug", "--drain-time=0s",
		fmt.Sprintf("--listen=127.0.0.1:%d", ports[0]), fmt.Sprintf("--debug-listen=127.0.0.1:%d", ports[1]))
	cmd.Stdout, cmd.Stderr = stdoutWriter, stderrWriter
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stdoutWriter.Close()
	stderrWriter.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	after(stderr)

	c, err := lpfileshare.Dial(fmt.Sprintf("127.0.0.1:%d", ports[0]), lpfileshare.WithDialOptions(grpc.WithDefaultCallOptions(grpc.WaitForReady(true))))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 20 {
		if _, err := c.Raw().Files.StatFile(ctx, &pb.StatFileRequest{}); lpfileshare.ErrorReason(err) != pb.ErrorReason_ERROR_REASON_INVALID_FIELD {
			t.Fatalf("a call: %v", err)
		}
	}
	if _, err := harness.SignUpAndTalk(ctx, c, account); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/debug/vars", ports[1]))
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	var vars struct {
		Lines struct{ Dropped int64 } `json:"log_lines"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&vars); err != nil || vars.Lines.Dropped > 0 != drops {
		t.Errorf("%d lines were dropped, %v; want some: %t", vars.Lines.Dropped, err, drops)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the server ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("the server does not end")
	}
}
