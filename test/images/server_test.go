// Package images sends photographs and hostile files through the server as a process of its own: what becomes of them, and what
// that costs.
package images

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/process"
	"github.com/lpfileshare/lpfileshare/test/wire"
)

const (
	accountPath = "accounts/12345678"
	mib         = 1 << 20
)

// serverBinary is the server as `make build` builds it, without the race detector.
var serverBinary string

// frames are those of all sandboxes here, held against the schemas of test/wire.
var frames = wire.NewSuite("images")

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "lpfileshare-images")
	if err != nil {
		panic(err)
	}
	serverBinary = filepath.Join(dir, "lpfileshare-server")
	code := 1
	if err := process.Build(serverBinary, "github.com/lpfileshare/lpfileshare/cmd/server"); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = frames.Exit(m.Run())
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// A server is a process of ours before a sandbox in this one.
type server struct {
	t    *testing.T
	sb   *sandbox.Sandbox
	cmd  *exec.Cmd
	addr string
	log  chan []byte // all of it, once the process has ended
}

var readyLine = regexp.MustCompile(`msg=ready grpc=(\S+)`)

func startServer(t *testing.T, args ...string) *server {
	t.Helper()
	tap := frames.Watch(t)
	sb, err := sandbox.Start(sandbox.Options{OnFrame: func(f sandbox.Frame) { tap.Check(wire.Frame(f)) }})
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, sb: sb, log: make(chan []byte, 1)}
	args = append([]string{"--listen=127.0.0.1:0", "--ledger=memory", "--max-sessions=100", "--domain-api=" + sb.URL(), "--lp-plain-http"}, args...)
	s.cmd = exec.Command(serverBinary, args...)
	logs, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	lines := bufio.NewReader(logs)
	var head bytes.Buffer
	for s.addr == "" {
		line, err := lines.ReadString('\n')
		head.WriteString(line)
		if err != nil {
			s.log <- head.Bytes()
			t.Fatalf("the server did not get ready:\n%s", &head)
		}
		if m := readyLine.FindStringSubmatch(line); m != nil {
			s.addr = m[1]
		}
	}
	go func() { // ends with the process, which stop waits for
		_, _ = io.Copy(&head, lines)
		s.log <- head.Bytes()
	}()
	return s
}

// stop ends the server, which must end well and without a panic.
func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.AfterFunc(time.Minute, func() { _ = s.cmd.Process.Kill() })
	defer timer.Stop()
	log := <-s.log
	if err := s.cmd.Wait(); err != nil || bytes.Contains(log, []byte("panic")) || bytes.Contains(log, []byte("goroutine ")) {
		s.t.Errorf("the server ended with %v:\n%s", err, log)
	}
	s.sb.Close()
}

// peak is the most that the server has had resident so far (VmHWM).
func (s *server) peak() int64 {
	s.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatalf("the peak of memory is read from /proc, which this system does not have: %v", err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		s.t.Fatal("/proc tells no VmHWM")
	}
	kib, _ := strconv.ParseInt(string(m[1]), 10, 64)
	return kib << 10
}

// signUp gives clients of one new consumer, over so many connections, and a conversation.
func (s *server) signUp(connections int) (clients []*lpfileshare.Client, conversation string) {
	s.t.Helper()
	var id lpfileshare.Identity
	for i := range connections {
		c, err := lpfileshare.Dial(s.addr)
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() { c.Close() })
		if i == 0 {
			in, err := c.SignInConsumer(s.t.Context(), &pb.SignInConsumerRequest{Account: accountPath, Grant: &pb.SignInConsumerRequest_SignUp{SignUp: &pb.SignUp{}}})
			if err != nil {
				s.t.Fatal(err)
			}
			id = lpfileshare.ConsumerToken(lpfileshare.StaticToken(in.Token))
		}
		clients = append(clients, c.As(id))
	}
	conv, err := clients[0].CreateConversation(s.t.Context(), &pb.CreateConversationRequest{Account: accountPath})
	if err != nil {
		s.t.Fatal(err)
	}
	return clients, conv.GetName()
}

func (s *server) download(c *lpfileshare.Client, name string) []byte {
	s.t.Helper()
	var b bytes.Buffer
	if _, err := c.Download(s.t.Context(), lpfileshare.DownloadOptions{Name: name}, &b); err != nil {
		s.t.Fatal(err)
	}
	return b.Bytes()
}

// previewOf is the preview that stands in the message of a file.
func (s *server) previewOf(c *lpfileshare.Client, name string) string {
	s.t.Helper()
	r, err := c.Raw().Files.StatFile(s.t.Context(), &pb.StatFileRequest{Source: &pb.StatFileRequest_Name{Name: name}})
	if err != nil {
		s.t.Fatal(err)
	}
	return r.GetFile().GetPreviewDataUri()
}
