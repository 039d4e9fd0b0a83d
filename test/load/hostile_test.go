package load

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

// The statuses that half-open streams are to end with.
const (
	deadlineExceeded  = "4"
	resourceExhausted = "8"
	aborted           = "10"
)

// A halfOpen is a way to open a stream and leave it.
type halfOpen struct {
	name string
	open func(c *rawConn) error
	want string // grpc-status
	// limited ways may be rejected at once: the server limits the streams that need no identity.
	limited bool
}

// halfOpens are the ways, for a consumer with that token and conversation.
func halfOpens(tb testing.TB, token, conversation string) []halfOpen {
	identity := []string{"lp-consumer-token", token}
	spec := message(tb, &pb.UploadRequest{FirstMessage: &pb.UploadRequest_Spec{Spec: &pb.UploadSpec{
		Conversation: conversation, FileType: pb.FileType_FILE_TYPE_TXT, SizeBytes: proto.Int64(1000),
	}}})
	whole := slices.Concat(spec, message(tb, &pb.UploadRequest{
		Chunk: &pb.DataChunk{Data: text(1000)}, Finish: &pb.UploadFinish{},
	}))
	half := []byte{0, 0, 0x10, 0, 0, 1, 2, 3} // of a message of 1 MiB
	leave := func(method string, sent []byte) func(c *rawConn) error {
		return func(c *rawConn) error {
			stream, err := c.headers(method, false, identity...)
			if err != nil || sent == nil {
				return err
			}
			return c.data(stream, false, sent)
		}
	}
	return []halfOpen{
		{"upload, silent", leave(pb.FileSharingService_Upload_FullMethodName, nil), aborted, false},
		{"upload, half a message", leave(pb.FileSharingService_Upload_FullMethodName, half), aborted, false},
		{"upload, its spec alone", leave(pb.FileSharingService_Upload_FullMethodName, spec), aborted, false},
		{"upload, finished and not closed", leave(pb.FileSharingService_Upload_FullMethodName, whole), aborted, false},
		{"unary, silent", leave(pb.FileSharingService_ListFiles_FullMethodName, nil), deadlineExceeded, false},
		{"unary, half a message", leave(pb.IdentityService_SignInConsumer_FullMethodName, half), deadlineExceeded, false},
		{"download, silent", leave(pb.FileSharingService_Download_FullMethodName, nil), deadlineExceeded, false},
		{"watch, half a message", leave(pb.FileSharingService_WatchFiles_FullMethodName, half), deadlineExceeded, false},
		{"health, silent", leave("/grpc.health.v1.Health/Watch", nil), deadlineExceeded, true},
		{"reflection, silent", leave("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", nil), deadlineExceeded, true},
	}
}

// TestHostile_HalfOpenStreamsEnd opens 10,000 streams, 250 a connection, in ten ways of leaving them half open. All end by the server's
// own doing, each with the status that it should, and what they took is given back while the connections stay open.
//
// It does so twice. After the first time there is more in use than before: what Go keeps of goroutines for others to come, and the
// ledger's records of request ids, of which 2,000 were named. The second time shows that nothing else is left.
func TestHostile_HalfOpenStreamsEnd(t *testing.T) {
	t.Parallel()
	const connections, each, idle = 40, 250, 8 * time.Second
	s := startServer(t, "--documents", "--upload-idle-timeout="+idle.String(), "--lp-timeout=1m", "--max-uploads-per-caller=10000", "--queue-length=10000")
	consumer := s.Consumer(t)
	token, conversation, client := consumer.Token, consumer.Conversation, consumer.Client
	ways := halfOpens(t, token, conversation)
	var after [3]usage // each time; first, before any
	for i := range after {
		conns := make([]*rawConn, connections)
		for i := range conns {
			conns[i] = dialRaw(t, s.Addr, 65535)
		}
		if i == 0 {
			after[0] = s.settled(t, connections)
		} else {
			begun := time.Now()
			for i := range each {
				for _, c := range conns {
					if err := ways[i%len(ways)].open(c); err != nil {
						t.Fatal(err)
					}
				}
				if i%len(ways) == 0 { // on a busy machine, more claims at once than the ledger can take would be LEDGER_UNAVAILABLE
					eventually(t, "the ledger keeps up", func() bool { return ledgerAnswers(t.Context(), client) })
				}
			}
			// Those that are not limited have several goroutines each.
			eventually(t, "all are open, or the first have ended by a timeout", func() bool {
				return s.inUse().goroutines >= connections*each || ended(conns...) > connections*each/5
			})
			during := s.inUse()
			if err := upload(t.Context(), client, conversation, text(fileBytes)); err != nil {
				t.Errorf("an upload beside them: %v", err)
			}
			all := map[string]int{}
			eventually(t, "all streams have ended", func() bool {
				clear(all)
				for _, c := range conns {
					for how, k := range c.endings() {
						all[how] += k
					}
				}
				return ended(conns...) == connections*each
			})
			took := time.Since(begun)
			checkEndings(t, conns, ways)
			after[i] = s.settled(t, connections)
			fmt.Printf("%s: %d streams over %d connections all ended within %.1f s (--upload-idle-timeout %s), by status %s; "+
				"goroutines %d, %d, %d; heap and stacks %.1f, %.1f, %.1f MiB; before, during, after\n", t.Name(), connections*each, connections,
				took.Seconds(), idle, statuses(all), after[i-1].goroutines, during.goroutines, after[i].goroutines,
				after[i-1].mib(), during.mib(), after[i].mib())
		}
		for _, c := range conns {
			c.Close()
			<-c.gone
		}
	}
	if n := len(s.sb.Journal().Published); n != len(after)-1 {
		t.Errorf("%d files were published, want those beside them", n)
	}
	if after[1].goroutines > after[0].goroutines+5 {
		t.Errorf("%d goroutines are left over", after[1].goroutines-after[0].goroutines)
	}
	checkBack(t, after[1], after[2])
}

// ledgerAnswers reports whether the server can read its ledger.
func ledgerAnswers(ctx context.Context, c *lpfileshare.Client) bool {
	_, err := c.Raw().Files.GetUpload(ctx, &pb.GetUploadRequest{Name: harness.AccountPath + "/uploads/" + uuid.NewString()})
	return lpfileshare.ErrorReason(err) == pb.ErrorReason_ERROR_REASON_UPLOAD_NOT_FOUND
}

// checkEndings wants each stream to have ended as its way of being left says.
func checkEndings(t *testing.T, conns []*rawConn, ways []halfOpen) {
	t.Helper()
	wrong := map[string]int{}
	for _, c := range conns {
		c.mu.Lock()
		for stream, got := range c.ended {
			if way := ways[int(stream-1)/2%len(ways)]; got != way.want && !(way.limited && got == resourceExhausted) {
				wrong[way.name+" ended with status "+got+", want "+way.want]++
			}
		}
		c.mu.Unlock()
	}
	if len(wrong) > 0 {
		t.Error(statuses(wrong))
	}
}

// checkBack wants what the server had in use before. Pools, maps and the ledger may keep a little.
func checkBack(t *testing.T, before, after usage) {
	t.Helper()
	if after.goroutines > before.goroutines+5 {
		t.Errorf("%d goroutines are left over", after.goroutines-before.goroutines)
	}
	if grown := after.mib() - before.mib(); grown > 16 {
		t.Errorf("%.1f MiB are left over", grown)
	}
}

func (u usage) mib() float64 { return float64(u.heap+u.stack) / mib }

// settled is what is in use once nothing is going on any more, with so many connections open.
func (s *server) settled(tb testing.TB, connections int) usage {
	tb.Helper()
	var last usage
	quiet := 0
	eventually(tb, "the number of goroutines settles", func() bool {
		now := s.inUse()
		if now.goroutines == last.goroutines {
			quiet++
		} else {
			quiet = 0
		}
		last = now
		return quiet == 5
	})
	if last.goroutines < int64(connections) {
		tb.Fatalf("%d goroutines, and %d connections are open", last.goroutines, connections)
	}
	return last
}

func upload(ctx context.Context, c *lpfileshare.Client, conversation string, data []byte) error {
	_, err := c.Upload(ctx, lpfileshare.UploadOptions{
		Conversation: conversation, DisplayName: "a.txt", FileType: pb.FileType_FILE_TYPE_TXT, RetryFor: -1,
	}, bytes.NewReader(data))
	return err
}

// TestHostile_SilentConnectionsEnd opens 10,000 connections (or as many as this process may) that never speak HTTP/2. The server
// ends them after 20 s, and serves others meanwhile.
func TestHostile_SilentConnectionsEnd(t *testing.T) {
	t.Parallel()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	silent := min(10_000, int(limit.Cur)-500)
	s := startServer(t, "--documents", fmt.Sprintf("--max-connections=%d", 2*silent+100))
	consumer := s.Consumer(t)
	conversation, client := consumer.Conversation, consumer.Client
	before := s.settled(t, 1)
	begun := time.Now()
	conns := make([]net.Conn, silent)
	for i := range conns {
		c, err := net.Dial("tcp", s.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns[i] = c
	}
	eventually(t, "the server has accepted them all", func() bool { return s.inUse().goroutines >= int64(silent) })
	during := s.inUse()
	if err := upload(t.Context(), client, conversation, text(fileBytes)); err != nil {
		t.Errorf("an upload beside them: %v", err)
	}
	for _, c := range conns {
		_ = c.SetReadDeadline(begun.Add(60 * time.Second))
		if _, err := io.Copy(io.Discard, c); err != nil && !isOver(err) { // to its end
			t.Fatalf("a connection was not ended: %v", err)
		}
	}
	took := time.Since(begun)
	after := s.settled(t, 1)
	fmt.Printf("%s: %d connections, all ended within %.1f s; goroutines %d, %d, %d; heap and stacks %.1f, %.1f, %.1f MiB; %.1f KiB a connection\n",
		t.Name(), silent, took.Seconds(), before.goroutines, during.goroutines, after.goroutines, before.mib(), during.mib(), after.mib(),
		(during.mib()-before.mib())*1024/float64(silent))
	checkBack(t, before, after)
}

// TestHostile_FrameFloods sends what gRPC itself must withstand: it does, in memory that stays bounded, and serves others meanwhile.
func TestHostile_FrameFloods(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--documents")
	consumer := s.Consumer(t)
	conversation, client := consumer.Conversation, consumer.Client
	before := s.settled(t, 1)
	for _, flood := range []struct {
		name string
		// send floods a connection until it is done or the connection is over, and returns how much it sent.
		send func(c *rawConn) (sent string, err error)
	}{
		{"a header without an end", func(c *rawConn) (string, error) {
			if err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}}); err != nil {
				return "", err
			}
			var block bytes.Buffer
			pack := hpack.NewEncoder(&block)
			for i := 0; block.Len() < 16<<10-200; i++ {
				_ = pack.WriteField(hpack.HeaderField{Name: fmt.Sprintf("x-%d", i), Value: strings.Repeat("v", 100), Sensitive: true})
			}
			n := 0
			for ; n < 4096; n++ { // 64 MiB
				if err := c.framer.WriteContinuation(1, false, block.Bytes()); err != nil {
					return fmt.Sprintf("%d KiB", n*block.Len()>>10), err
				}
			}
			return fmt.Sprintf("%d KiB", n*block.Len()>>10), nil
		}},
		{"headers that unpack to 64 MiB", func(c *rawConn) (string, error) {
			var block bytes.Buffer
			pack := hpack.NewEncoder(&block)
			bomb := hpack.HeaderField{Name: "x-bomb", Value: strings.Repeat("v", 4000)}
			for range 16 << 10 { // the first goes into the table, the others are a byte each
				_ = pack.WriteField(bomb)
			}
			const times = 100
			for i := range times {
				f := http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: block.Bytes()[:16<<10], EndHeaders: false, EndStream: true}
				if err := c.framer.WriteHeaders(f); err != nil {
					return fmt.Sprintf("%d", i), err
				}
				if err := c.framer.WriteContinuation(f.StreamID, true, block.Bytes()[16<<10:]); err != nil {
					return fmt.Sprintf("%d", i), err
				}
			}
			return fmt.Sprint(times), nil
		}},
		{"streams that are reset at once", func(c *rawConn) (string, error) {
			const times = 100_000
			for i := range times {
				stream, err := c.headers(pb.FileSharingService_Upload_FullMethodName, false, "lp-consumer-token", "x")
				if err == nil {
					c.write.Lock()
					err = c.framer.WriteRSTStream(stream, http2.ErrCodeCancel)
					c.write.Unlock()
				}
				if err != nil {
					return fmt.Sprint(i), err
				}
			}
			return fmt.Sprint(times), nil
		}},
		{"pings", func(c *rawConn) (string, error) {
			const times = 100_000
			for i := range times {
				c.write.Lock()
				err := c.framer.WritePing(false, [8]byte{})
				c.write.Unlock()
				if err != nil {
					return fmt.Sprint(i), err
				}
			}
			return fmt.Sprint(times), nil
		}},
	} {
		s.settled(t, 1) // of the flood before
		c := dialRaw(t, s.Addr, 65535)
		begun := time.Now()
		done := make(chan struct{})
		var sent string
		var err error
		_ = c.SetWriteDeadline(begun.Add(30 * time.Second))
		go func() {
			defer close(done)
			sent, err = flood.send(c)
		}()
		peak := usage{}
		for running := true; running; {
			select {
			case <-done:
				running = false
			case <-time.After(50 * time.Millisecond):
			}
			now := s.inUse()
			peak.goroutines, peak.heap, peak.resident = max(peak.goroutines, now.goroutines), max(peak.heap, now.heap+now.stack), max(peak.resident, now.resident)
		}
		over := "the connection stays"
		if err != nil {
			over = "the connection is over"
		}
		select {
		case <-c.gone:
			over = "the server ended the connection"
		case <-time.After(2 * time.Second): // gRPC gives a peer a second to read its GOAWAY
		}
		if err := upload(t.Context(), client, conversation, text(fileBytes)); err != nil {
			t.Errorf("%s: an upload beside it: %v", flood.name, err)
		}
		fmt.Printf("%s: %s: %s sent in %.1f s, %s; at most %d goroutines (%d before), %d MiB in use, %d MiB resident\n", t.Name(), flood.name, sent,
			time.Since(begun).Seconds(), over, peak.goroutines, before.goroutines, peak.heap/mib, peak.resident/mib)
		// gRPC runs as many handlers at once on a connection as it allows streams, however many were reset.
		if handlers := int64(250); peak.goroutines > before.goroutines+8*handlers || peak.heap > 128*mib {
			t.Errorf("%s: %d goroutines and %d MiB", flood.name, peak.goroutines, peak.heap/mib)
		}
		c.Close()
	}
	checkBack(t, before, s.settled(t, 1))
}

// TestHostile_StalledReaders opens 250 downloads whose reader gives no window: the server ends them after --read-stall. gRPC
// keeps what it has queued for them, up to 1 MiB each, until the stream is reset or the connection ends.
func TestHostile_StalledReaders(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--documents", "--read-stall=3s")
	consumer := s.Consumer(t)
	token, conversation, client := consumer.Token, consumer.Conversation, consumer.Client
	if err := upload(t.Context(), client, conversation, text(fileBytes)); err != nil {
		t.Fatal(err)
	}
	files, err := client.Files(t.Context(), lpfileshare.FilesOptions{Parent: conversation}).Collect()
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	name := files[0].GetName()
	c := dialRaw(t, s.Addr, 0)
	before := s.settled(t, 1)
	request := message(t, &pb.DownloadRequest{Source: &pb.DownloadRequest_Name{Name: name}})
	const streams = 250
	for range streams {
		stream, err := c.headers(pb.FileSharingService_Download_FullMethodName, false, "lp-consumer-token", token)
		if err == nil {
			err = c.data(stream, true, request)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the downloads have begun, or the first have ended", func() bool {
		return s.inUse().goroutines >= before.goroutines+streams || ended(c) > 0
	})
	during := s.inUse()
	eventually(t, "the server ended the downloads", func() bool { return s.inUse().goroutines <= before.goroutines+5 })
	kept := s.settled(t, 1)
	c.Close()
	<-c.gone
	after := s.settled(t, 1)
	fmt.Printf("%s: %d downloads: goroutines %d, %d, %d, %d; heap and stacks %.1f, %.1f, %.1f, %.1f MiB; before, during, after --read-stall, after the connection\n",
		t.Name(), streams, before.goroutines, during.goroutines, kept.goroutines, after.goroutines, before.mib(), during.mib(), kept.mib(), after.mib())
	if kept.mib() > before.mib()+streams*1.1 {
		t.Errorf("%.1f MiB are kept", kept.mib()-before.mib())
	}
	checkBack(t, before, after)
}

// statuses lists a count by status, for messages.
func statuses(n map[string]int) string {
	var b strings.Builder
	for _, how := range slices.Sorted(maps.Keys(n)) {
		fmt.Fprintf(&b, "%s: %d ", how, n[how])
	}
	return b.String()
}
