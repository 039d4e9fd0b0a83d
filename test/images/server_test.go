// Package images sends photographs and hostile files through the server as a process of its own: what becomes of them, and what
// that costs.
package images

import (
	"bytes"
	"os"
	"strings"
	"testing"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
	"github.com/lpfileshare/lpfileshare/test/wire"
)

const (
	mib = 1 << 20
)

// program is the server as `make build` builds it, without the race detector.
var program harness.Program

// frames are those of all sandboxes here.
var frames = wire.NewSuite("images")

func TestMain(m *testing.M) { os.Exit(harness.Main(m, frames, &program)) }

// A server is a process before a sandbox in this one.
type server struct {
	*harness.Server
	t  *testing.T
	sb *sandbox.Sandbox
}

func startServer(t *testing.T, args ...string) *server {
	t.Helper()
	sb := harness.Sandbox(t, frames, sandbox.Options{})
	s, err := harness.Start(program, append(append(harness.Before(sb), "--ledger=memory", "--max-sessions=100"), args...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := s.Stop()
		if log := s.Logs.String(); err != nil || strings.Contains(log, "panic") || strings.Contains(log, "goroutine ") {
			t.Errorf("the server ended with %v:\n%s", err, s.Logs.Tail())
		}
	})
	return &server{s, t, sb}
}

// peak is the largest resident set of the server so far, in bytes.
func (s *server) peak() int64 { return s.Memory(s.t, "VmHWM") }

func (s *server) download(c *lpfileshare.Client, name string) []byte {
	s.t.Helper()
	var b bytes.Buffer
	if _, err := c.Download(s.t.Context(), lpfileshare.DownloadOptions{Name: name}, &b); err != nil {
		s.t.Fatal(err)
	}
	return b.Bytes()
}

// previewOf returns the preview in the message of a file.
func (s *server) previewOf(c *lpfileshare.Client, name string) string {
	s.t.Helper()
	r, err := c.Raw().Files.StatFile(s.t.Context(), &pb.StatFileRequest{Source: &pb.StatFileRequest_Name{Name: name}})
	if err != nil {
		s.t.Fatal(err)
	}
	return r.GetFile().GetPreviewDataUri()
}
