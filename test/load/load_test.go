// Package load measures the server as a process of its own: how storing overlaps with receiving, and how much memory it takes.
package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/process"
	"github.com/lpfileshare/lpfileshare/test/wire"
)

const (
	accountPath = "accounts/12345678"
	fileBytes   = 3_000_000
	mib         = 1 << 20
)

// frames are those of all sandboxes here, held against the schemas of test/wire.
var frames = wire.NewSuite("load")

// serverBinary is the server as `make build` builds it, without the race detector.
var serverBinary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "lpfileshare-load")
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
	tb          testing.TB
	sb          *sandbox.Sandbox
	cmd         *exec.Cmd
	addr, debug string
	done        bool
}

var readyLine = regexp.MustCompile(`msg=ready grpc=(\S+) .*\bdebug=(\S+)`)

func startServer(tb testing.TB, args ...string) *server {
	tb.Helper()
	sb := startSandbox(tb, sandbox.Options{})
	return startServerBefore(tb, sb, append([]string{"--domain-api=" + sb.URL(), "--lp-plain-http"}, args...)...)
}

// startSandbox starts a sandbox, which startServerBefore closes with the test.
func startSandbox(tb testing.TB, opts sandbox.Options) *sandbox.Sandbox {
	tb.Helper()
	tap := frames.Watch(tb)
	opts.OnFrame = func(f sandbox.Frame) { tap.Check(wire.Frame(f)) }
	sb, err := sandbox.Start(opts)
	if err != nil {
		tb.Fatal(err)
	}
	return sb
}

func startServerBefore(tb testing.TB, sb *sandbox.Sandbox, args ...string) *server {
	tb.Helper()
	s := &server{tb: tb, sb: sb}
	s.cmd = exec.Command(serverBinary, append([]string{"--listen=127.0.0.1:0", "--debug-listen=127.0.0.1:0", "--ledger=memory", "--drain-notice=0s"}, args...)...)
	logs, err := s.cmd.StderrPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		s.stop()
		sb.Close()
	})
	lines := bufio.NewScanner(logs)
	for s.addr == "" && lines.Scan() {
		if m := readyLine.FindStringSubmatch(lines.Text()); m != nil {
			s.addr, s.debug = m[1], m[2]
		} else if strings.Contains(lines.Text(), "msg=ready") { // nothing more will come, and waiting would be for ever
			tb.Fatalf("the server's ready line is not what it was: %s", lines.Text())
		}
	}
	if s.addr == "" {
		tb.Fatal("the server did not get ready")
	}
	go io.Copy(io.Discard, logs) // ends with the process
	return s
}

func (s *server) stop() {
	if s.done {
		return
	}
	s.done = true
	s.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.AfterFunc(time.Minute, func() { s.cmd.Process.Kill() })
	defer timer.Stop()
	if err := s.cmd.Wait(); err != nil {
		s.tb.Errorf("the server ended with %v", err)
	}
}

// memory reads one of the kernel's figures of the server: VmHWM is the most that it has had resident so far. They come from
// /proc, because what wait4 tells of a child counts its parent in, up to the exec.
func (s *server) memory(figure string) int64 {
	s.tb.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.tb.Fatalf("the peak of memory is read from /proc, which this system does not have: %v", err)
	}
	m := regexp.MustCompile(figure + `:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		s.tb.Fatalf("/proc tells no %s", figure)
	}
	kib, _ := strconv.ParseInt(string(m[1]), 10, 64)
	return kib << 10
}

// signUp gives clients of one new consumer, over so many connections, and a conversation.
func (s *server) signUp(connections int) (clients []*lpfileshare.Client, conversation string) {
	s.tb.Helper()
	ctx := s.tb.Context()
	var id lpfileshare.Identity
	for i := range connections {
		c, err := lpfileshare.Dial(s.addr)
		if err != nil {
			s.tb.Fatal(err)
		}
		s.tb.Cleanup(func() { c.Close() })
		if i == 0 {
			in, err := c.SignInConsumer(ctx, &pb.SignInConsumerRequest{Account: accountPath, Grant: &pb.SignInConsumerRequest_SignUp{SignUp: &pb.SignUp{}}})
			if err != nil {
				s.tb.Fatal(err)
			}
			id = lpfileshare.ConsumerToken(lpfileshare.StaticToken(in.Token))
		}
		clients = append(clients, c.As(id))
	}
	conv, err := clients[0].CreateConversation(ctx, &pb.CreateConversationRequest{Account: accountPath})
	if err != nil {
		s.tb.Fatal(err)
	}
	return clients, conv.GetName()
}

// text is a file of n bytes that any check takes for plain text.
func text(n int) []byte { return bytes.Repeat([]byte("0123456789abcde\n"), n/16+1)[:n] }

func TestMemoryStaysWithinTheBudgetOf200Uploads(t *testing.T) {
	const budget, uploads = 128 * mib, 200
	s := startServer(t, "--documents", fmt.Sprintf("--memory-budget=%d", budget), "--queue-time=5m", "--max-sessions=100", "--preview-memory=16MiB", "--max-uploads-per-caller=200")
	s.sb.Inject(sandbox.Fault{On: "store:PUT", BytesPerSecond: 6_000_000})
	clients, conv := s.signUp(8)
	others, otherConv := s.signUp(8) // one caller alone has half of the budget
	data := text(fileBytes)
	var group errgroup.Group
	for i := range uploads {
		group.Go(func() error {
			clients, conv := clients, conv
			if i%2 == 1 {
				clients, conv = others, otherConv
			}
			_, err := clients[i/2%len(clients)].Upload(t.Context(), lpfileshare.UploadOptions{
				Conversation: conv, DisplayName: "a.txt", FileType: pb.FileType_FILE_TYPE_TXT, RetryFor: -1,
			}, bytes.NewReader(data))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := len(s.sb.Journal().Published); n != uploads {
		t.Errorf("%d messages, want %d", n, uploads)
	}
	checkPeak(t, s.memory("VmHWM"), budget)
}

func TestMemoryStaysWithinTheBudgetWith1ByteChunks(t *testing.T) {
	const budget = 128 * mib
	s := startServer(t, "--documents", fmt.Sprintf("--memory-budget=%d", budget), "--max-sessions=100", "--preview-memory=16MiB")
	clients, conv := s.signUp(1)
	_, err := clients[0].Upload(t.Context(), lpfileshare.UploadOptions{
		Conversation: conv, DisplayName: "a.txt", FileType: pb.FileType_FILE_TYPE_TXT, RetryFor: -1, ChunkBytes: 1,
	}, bytes.NewReader(text(fileBytes)))
	if err != nil {
		t.Fatal(err)
	}
	checkPeak(t, s.memory("VmHWM"), budget)
}

func checkPeak(t *testing.T, peak, budget int64) {
	t.Helper()
	fmt.Printf("%s: peak %d MiB, budget %d MiB, bound %d MiB\n", t.Name(), peak/mib, budget/mib, budget/mib+96)
	if peak == 0 || peak > budget+96*mib {
		t.Errorf("the server had %d MiB resident", peak/mib)
	}
}

// BenchmarkStreamThrough sends 3 MB at a pace of T, to a store that takes the body at a pace of P and S for its answer, with a
// LivePerson that takes R for each answer. Store-and-forward is the same server with an upload whose size is not declared: the
// PUT then begins after the finish.
func BenchmarkStreamThrough(b *testing.B) {
	const (
		T = 2 * time.Second
		P = 2 * time.Second
		S = 300 * time.Millisecond
		R = 300 * time.Millisecond
	)
	s := startServer(b, "--documents")
	clients, conv := s.signUp(1)
	s.sb.Inject(sandbox.Fault{On: "store:PUT", BytesPerSecond: int64(fileBytes / P.Seconds()), AnswerDelay: S})
	for _, on := range []string{"ms.GenerateURLForUploadFile", "ms.PublishEvent"} {
		s.sb.Inject(sandbox.Fault{On: on, AnswerDelay: R})
	}
	data := text(fileBytes)
	for _, way := range []struct {
		name     string
		declared bool
		formula  time.Duration
	}{
		{"stream-through", true, T + S + R},
		{"store-and-forward", false, T + P + S + 2*R},
	} {
		b.Run(way.name, func(b *testing.B) {
			for b.Loop() {
				begun := time.Now()
				if err := pacedUpload(b.Context(), clients[0], conv, data, T, way.declared); err != nil {
					b.Fatal(err)
				}
				elapsed := time.Since(begun)
				b.ReportMetric(elapsed.Seconds(), "s/upload")
				b.ReportMetric(elapsed.Seconds()/(T+S+R).Seconds(), "of(T+S+R)")
				b.ReportMetric(elapsed.Seconds()/way.formula.Seconds(), "of-its-formula")
			}
		})
	}
}

// pacedUpload sends data so that its last byte goes out after pace.
func pacedUpload(ctx context.Context, c *lpfileshare.Client, conv string, data []byte, pace time.Duration, declared bool) error {
	stream, err := c.Raw().Files.Upload(ctx)
	if err != nil {
		return err
	}
	spec := &pb.UploadSpec{Conversation: conv, DisplayName: "a.txt", FileType: pb.FileType_FILE_TYPE_TXT}
	if declared {
		spec.SizeBytes = new(int64(len(data)))
	}
	if err := stream.Send(&pb.UploadRequest{FirstMessage: &pb.UploadRequest_Spec{Spec: spec}}); err != nil {
		return err
	}
	if _, err := stream.Header(); err != nil {
		return err
	}
	begun := time.Now()
	const chunk = 16 << 10
	for off := 0; off < len(data); {
		end := min(off+chunk, len(data))
		time.Sleep(time.Until(begun.Add(pace * time.Duration(end) / time.Duration(len(data)))))
		c := &pb.DataChunk{Offset: int64(off), Data: data[off:end]}
		if err := stream.Send(&pb.UploadRequest{Chunk: c}); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		off = end
	}
	sum := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
	finish := &pb.UploadFinish{Checksums: &pb.Checksums{Crc32C: &sum}}
	if err := stream.Send(&pb.UploadRequest{Finish: finish}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	_, err = stream.CloseAndRecv()
	return err
}
