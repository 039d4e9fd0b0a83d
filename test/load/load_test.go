// Package load measures the server as a process of its own: how storing overlaps with receiving, and how much memory it takes.
package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
	"github.com/lpfileshare/lpfileshare/test/wire"
)

const (
	accountPath = "accounts/12345678"
	fileBytes   = 3_000_000
	mib         = 1 << 20
)

// frames are the frames of all sandboxes here, validated against the schemas of test/wire.
var frames = wire.NewSuite("load")

// program is the server as `make build` builds it, without the race detector.
var program harness.Program

func TestMain(m *testing.M) { os.Exit(harness.Main(m, frames, &program)) }

// A server is a process before a sandbox in this one.
type server struct {
	*harness.Server
	tb testing.TB
	sb *sandbox.Sandbox
}

func startServer(tb testing.TB, args ...string) *server {
	tb.Helper()
	sb := harness.Sandbox(tb, frames, sandbox.Options{})
	return startServerBefore(tb, sb, append(harness.Before(sb), args...)...)
}

func startServerBefore(tb testing.TB, sb *sandbox.Sandbox, args ...string) *server {
	tb.Helper()
	s, err := harness.Start(program, append([]string{"--debug-listen=127.0.0.1:0", "--ledger=memory", "--drain-notice=0s"}, args...)...)
	if err != nil {
		tb.Fatal(err)
	}
	s.Stopped(tb)
	return &server{s, tb, sb}
}

// text is a file of n bytes that any check takes for plain text.
func text(n int) []byte { return bytes.Repeat([]byte("0123456789abcde\n"), n/16+1)[:n] }

func TestMemory_UploadsStayWithinTheBudget(t *testing.T) {
	const budget, uploads = 64 * mib, 100
	s := startServer(t, "--documents", fmt.Sprintf("--memory-budget=%d", budget), "--queue-time=5m", "--max-sessions=100", "--preview-memory=16MiB", "--receive-memory=20MiB", "--download-memory=1MiB", "--max-watches=100", "--max-uploads-per-caller=100")
	s.sb.Inject(sandbox.Fault{On: "store:PUT", BytesPerSecond: 6_000_000})
	clients, conv := s.Clients(t, 8)
	others, otherConv := s.Clients(t, 8) // one caller alone has half of the budget
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
	checkPeak(t, s.Memory(t, "VmHWM"), budget)
}

func TestMemory_1ByteChunksStayWithinTheBudget(t *testing.T) {
	const budget, size = 16 * mib, 1_500_000
	s := startServer(t, "--documents", fmt.Sprintf("--memory-budget=%d", budget), "--max-sessions=100", "--preview-memory=16MiB", "--receive-memory=20MiB", "--download-memory=1MiB", "--max-watches=100")
	clients, conv := s.Clients(t, 1)
	_, err := clients[0].Upload(t.Context(), lpfileshare.UploadOptions{
		Conversation: conv, DisplayName: "a.txt", FileType: pb.FileType_FILE_TYPE_TXT, RetryFor: -1, ChunkBytes: 1,
	}, bytes.NewReader(text(size)))
	if err != nil {
		t.Fatal(err)
	}
	checkPeak(t, s.Memory(t, "VmHWM"), budget)
}

// checkPeak compares the peak with what the flags allow: the budget, 16 MiB for previews, 20 MiB for unfinished messages, and 80 MiB for
// the rest. The garbage collector uses what it may (docs/limits.md), so all of it counts although the test uses only the budget.
func checkPeak(t *testing.T, peak, budget int64) {
	t.Helper()
	bound := budget + (16+20+80)*mib
	fmt.Printf("%s: peak %d MiB, budget %d MiB, bound %d MiB\n", t.Name(), peak/mib, budget/mib, bound/mib)
	if peak == 0 || peak > bound {
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
	clients, conv := s.Clients(b, 1)
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
