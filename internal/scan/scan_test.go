package scan

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A fakeClamd answers one connection after the other as its steps say. The last step is repeated.
type fakeClamd struct {
	listener net.Listener
	steps    []func(net.Conn, *fakeClamd)

	mu       sync.Mutex
	received [][]byte // by connections that sent their content to the end
	accepted int
}

func startClamd(t *testing.T, steps ...func(net.Conn, *fakeClamd)) *fakeClamd {
	t.Helper()
	return startClamdOn(t, "unix", filepath.Join(t.TempDir(), "s"), steps...)
}

func startClamdOn(t *testing.T, network, address string, steps ...func(net.Conn, *fakeClamd)) *fakeClamd {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	c := &fakeClamd{listener: l, steps: steps}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.mu.Lock()
			step := c.steps[min(c.accepted, len(c.steps)-1)]
			c.accepted++
			c.mu.Unlock()
			running.Go(func() {
				defer conn.Close()
				step(conn, c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return c
}

// connections returns the number of connections so far.
func (c *fakeClamd) connections() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.accepted
}

func (c *fakeClamd) contents() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.received
}

// readStream reads a command and chunks up to the one of length 0, or up to an error or limit bytes.
func (c *fakeClamd) readStream(conn net.Conn, limit int) error {
	command := make([]byte, len("zINSTREAM\x00"))
	if _, err := io.ReadFull(conn, command); err != nil || string(command) != "zINSTREAM\x00" {
		return errors.New("not the command")
	}
	var content []byte
	for {
		var length [4]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return err
		}
		n := binary.BigEndian.Uint32(length[:])
		if n == 0 {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.received = append(c.received, content)
			return nil
		}
		chunk := make([]byte, n)
		if _, err := io.ReadFull(conn, chunk); err != nil {
			return err
		}
		if content = append(content, chunk...); len(content) > limit {
			return errors.New("too long")
		}
	}
}

const noLimit = 1 << 30

// answers returns a step that reads all content and answers.
func answers(reply string) func(net.Conn, *fakeClamd) {
	return func(conn net.Conn, c *fakeClamd) {
		if c.readStream(conn, noLimit) == nil {
			_, _ = io.WriteString(conn, reply)
		}
	}
}

// breaksAfter returns a step that closes the connection after so many bytes, after an answer.
func breaksAfter(n int, reply string) func(net.Conn, *fakeClamd) {
	return func(conn net.Conn, c *fakeClamd) {
		_ = c.readStream(conn, n)
		_, _ = io.WriteString(conn, reply)
	}
}

// silent never answers, until the other side closes the connection.
func silent(conn net.Conn, c *fakeClamd) {
	_ = c.readStream(conn, noLimit)
	_, _ = io.Copy(io.Discard, conn)
}

func (c *fakeClamd) scanner(change ...func(*Config)) *Scanner {
	config := Config{
		Address: Address{c.listener.Addr().Network(), c.listener.Addr().String()}, Timeout: time.Minute, Connections: 8,
		Log: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&config)
	}
	return New(config)
}

// A content is a file that arrives when the test says so.
type content struct {
	bytes   []byte
	arrived chan struct{} // closed when all bytes have arrived
	first   int           // number of bytes that arrive before that
}

// whole is content that has arrived.
func whole(b []byte) *content {
	c := &content{bytes: b, arrived: make(chan struct{})}
	close(c.arrived)
	return c
}

func (c *content) job() share.ScanJob {
	return share.ScanJob{
		Owner: share.Principal{Account: "1", ID: "alice"}, Part: "file",
		Open: func(ctx context.Context) share.ScanReader { return &contentReader{content: c, ctx: ctx} },
		Arrived: func(ctx context.Context) error {
			select {
			case <-c.arrived:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		},
	}
}

type contentReader struct {
	*content
	ctx context.Context
	off int
}

func (r *contentReader) ReadBuffers(limit int64) ([][]byte, error) {
	end := r.first
	if r.off >= end {
		select {
		case <-r.arrived:
			end = len(r.bytes)
		case <-r.ctx.Done():
			return nil, context.Cause(r.ctx)
		}
	}
	n := min(int(limit), end-r.off)
	if n == 0 {
		return nil, io.EOF
	}
	p := r.bytes[r.off : r.off+n]
	r.off += n
	return [][]byte{p[:n/2], p[n/2:]}, nil // two buffers, of which the first may be empty
}

func (r *contentReader) Close() error { return nil }

func data(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// wantResult compares the reason, why and signature of an error.
func wantResult(t *testing.T, err error, kind share.Kind, why, signature string) {
	t.Helper()
	if kind == "" {
		if err != nil {
			t.Errorf("got %v, want nil", err)
		}
		return
	}
	e, _ := err.(*share.Error)
	if e == nil || e.Kind != kind || e.Metadata["why"] != why || e.Metadata["signature"] != signature || e.Metadata["part"] != "file" {
		t.Errorf("got %v, want %s, %q, %q", err, kind, why, signature)
	}
}

func TestScan_Answers(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 300)
	for _, test := range []struct {
		reply          string
		kind           share.Kind
		why, signature string
	}{
		{"stream: OK\x00", "", "", ""},
		{"stream: Eicar-Test FOUND\x00", share.FileRejectedByScanner, "malware", "Eicar-Test"},
		{"stream: Eicar (44d8:68) FOUND\x00", share.FileRejectedByScanner, "malware", "Eicar (44d8:68)"},
		{"stream: " + long + " FOUND\x00", share.FileRejectedByScanner, "malware", long[:125] + "..."},
		{"stream: \x1b[31mred FOUND\x00", share.FileRejectedByScanner, "malware", "malware with an unreadable name"},
		{"stream:  FOUND\x00", share.FileRejectedByScanner, "malware", "malware without a name"},
		{"stream: OK FOUND\x00", share.FileRejectedByScanner, "malware", "OK"},
		{"INSTREAM size limit exceeded. ERROR\x00", share.FileRejectedByScanner, "size", ""},
		{"stream: Can't allocate memory ERROR\x00", share.ScannerUnavailable, whyFailed, ""},
		{"stream: OKAY\x00", share.ScannerUnavailable, whyFailed, ""},
		{"OK\x00", share.ScannerUnavailable, whyFailed, ""},
		{"\x00", share.ScannerUnavailable, whyFailed, ""},
		{"stream: OK", share.ScannerUnavailable, whyFailed, ""}, // cut
		{"", share.ScannerUnavailable, whyFailed, ""},
		{strings.Repeat("x", 2*maxReply), share.ScannerUnavailable, whyFailed, ""},
		{"HTTP/1.1 400 Bad Request\r\n\r\n", share.ScannerUnavailable, whyFailed, ""},
	} {
		clamd := startClamd(t, answers(test.reply))
		s := clamd.scanner()
		want := data(maxChunk + 17)
		wantResult(t, s.Scan(t.Context(), whole(want).job()), test.kind, test.why, test.signature)
		for _, got := range clamd.contents() {
			if !bytes.Equal(got, want) {
				t.Errorf("%.20q: clamd got other bytes", test.reply)
			}
		}
		if len(clamd.contents()) == 0 {
			t.Errorf("%.20q: clamd got no content", test.reply)
		}
	}
}

// Content that is over clamd's limit is rejected, although clamd answers before it has read everything and closes the connection.
func TestScan_OverTheSizeLimit(t *testing.T) {
	t.Parallel()
	for _, network := range []struct{ name, address string }{{"unix", filepath.Join(t.TempDir(), "s")}, {"tcp", "127.0.0.1:0"}} {
		clamd := startClamdOn(t, network.name, network.address, breaksAfter(256<<10, "INSTREAM size limit exceeded. ERROR\x00"))
		s := clamd.scanner(func(c *Config) { c.FailOpen = true })
		wantResult(t, s.Scan(t.Context(), whole(data(4<<20)).job()), share.FileRejectedByScanner, "size", "")
	}
}

// An answer that comes before all bytes were sent does not make the content clean.
func TestScan_EarlyOKIsNoVerdict(t *testing.T) {
	t.Parallel()
	s := startClamd(t, breaksAfter(256<<10, "stream: OK\x00")).scanner()
	wantResult(t, s.Scan(t.Context(), whole(data(4<<20)).job()), share.ScannerUnavailable, whyFailed, "")
}

// The bytes are sent while the content arrives.
func TestScan_FollowsTheContent(t *testing.T) {
	t.Parallel()
	got := make(chan byte)
	clamd := startClamd(t, func(conn net.Conn, c *fakeClamd) {
		head := make([]byte, len("zINSTREAM\x00")+4+1)
		if _, err := io.ReadFull(conn, head); err != nil {
			t.Error(err)
		}
		got <- head[len(head)-1]
		_, _ = io.Copy(io.Discard, io.LimitReader(conn, 9+4+4)) // the rest, and the end
		_, _ = io.WriteString(conn, "stream: OK\x00")
	})
	c := &content{bytes: []byte("0123456789"), first: 1, arrived: make(chan struct{})}
	result := make(chan error, 1)
	go func() { result <- clamd.scanner().Scan(t.Context(), c.job()) }()
	if b := <-got; b != '0' {
		t.Errorf("clamd got %q first", b)
	}
	close(c.arrived)
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// A connection that breaks is no verdict: the content is sent once more when all of it has arrived, and not a third time. So it is if there
// is one connection, which no file has while it arrives.
func TestScan_RepeatsABrokenScanOnce(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name        string
		steps       []func(net.Conn, *fakeClamd)
		kind        share.Kind
		why         string
		connections int
	}{
		{"once", []func(net.Conn, *fakeClamd){breaksAfter(0, ""), answers("stream: OK\x00")}, "", "", 2},
		{"and finds malware", []func(net.Conn, *fakeClamd){breaksAfter(0, ""), answers("stream: X FOUND\x00")}, share.FileRejectedByScanner, "malware", 2},
		{"twice", []func(net.Conn, *fakeClamd){breaksAfter(0, "")}, share.ScannerUnavailable, whyFailed, 2},
		{"not after a verdict", []func(net.Conn, *fakeClamd){answers("stream: X FOUND\x00")}, share.FileRejectedByScanner, "malware", 1},
	} {
		for _, most := range []int{1, 8} {
			t.Run(fmt.Sprint(test.name, most), func(t *testing.T) {
				clamd := startClamd(t, test.steps...)
				s := clamd.scanner(func(c *Config) { c.Connections = most })
				signature := ""
				if test.why == "malware" {
					signature = "X"
				}
				wantResult(t, s.Scan(t.Context(), whole(data(100_000)).job()), test.kind, test.why, signature)
				if n := clamd.connections(); n != test.connections {
					t.Errorf("%d connections, want %d", n, test.connections)
				}
			})
		}
	}
}

// The time limit begins when the content has arrived.
func TestScan_Timeout(t *testing.T) {
	t.Parallel()
	clamd := startClamd(t, silent)
	s := clamd.scanner(func(c *Config) { c.Timeout = time.Millisecond })
	c := &content{bytes: data(1000), first: 10, arrived: make(chan struct{})}
	result := make(chan error, 1)
	go func() { result <- s.Scan(t.Context(), c.job()) }()
	select {
	case err := <-result:
		t.Fatalf("%v before the content had arrived", err)
	case <-time.After(20 * time.Millisecond):
	}
	close(c.arrived)
	wantResult(t, <-result, share.ScannerUnavailable, whyTimeout, "")
}

// endedContext is a context that has ended when ended is true, which interrupts nothing.
type endedContext struct {
	context.Context
	ended atomic.Bool
}

func (c *endedContext) Err() error {
	if c.ended.Load() {
		return context.DeadlineExceeded
	}
	return nil
}

// An answer that was read is the verdict, although the time has ended meanwhile.
func TestScan_AnswerAtTheTimeout(t *testing.T) {
	t.Parallel()
	ctx := &endedContext{Context: t.Context()}
	clamd := startClamd(t, func(conn net.Conn, c *fakeClamd) {
		if c.readStream(conn, noLimit) == nil {
			ctx.ended.Store(true)
			_, _ = io.WriteString(conn, "stream: X FOUND\x00")
		}
	})
	if err := clamd.scanner().Address.scan(ctx, whole(data(1000)).job()); !share.Is(err, share.FileRejectedByScanner) {
		t.Errorf("got %v", err)
	}
}

// A panic that the upload recovers from keeps no connection.
func TestScan_PanicReturnsTheConnection(t *testing.T) {
	t.Parallel()
	for _, most := range []int{1, 8} { // one: none for files that are still arriving
		s := startClamd(t, silent).scanner(func(c *Config) { c.Connections = most })
		job := whole(nil).job()
		job.Open = func(context.Context) share.ScanReader { panic("a fault") }
		func() {
			defer func() { _ = recover() }()
			_ = s.Scan(t.Context(), job)
			t.Error("it did not panic")
		}()
		if connections, _ := s.connections.InUse(); connections != 0 {
			t.Errorf("%d connections in use", connections)
		}
	}
}

// A connection that is never accepted is given up.
func TestDial_Timeout(t *testing.T) {
	t.Parallel()
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(socket)
	if err := errors.Join(syscall.Bind(socket, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(socket, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(socket)
	if err != nil {
		t.Fatal(err)
	}
	a := Address{"tcp", fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 100 { // the first ones wait in the listener's queue
		conn, err := a.dial(ctx, 20*time.Millisecond)
		if err != nil {
			if why(err) != whyUnreachable {
				t.Errorf("got %v", err)
			}
			return
		}
		defer conn.Close()
	}
	t.Error("the queue of the listener has no end")
}

func TestScan_Unreachable(t *testing.T) {
	t.Parallel()
	clamd := startClamd(t, silent)
	s := clamd.scanner()
	clamd.listener.Close()
	c := &content{bytes: data(1000), arrived: make(chan struct{})} // it never arrives: there is nothing to wait for
	wantResult(t, s.Scan(t.Context(), c.job()), share.ScannerUnavailable, whyUnreachable, "")
	if err := s.Address.Ping(t.Context()); why(err) != whyUnreachable {
		t.Errorf("Ping: %v", err)
	}
}

// The end of the upload ends its scan, whatever clamd does.
func TestScan_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	gone := errors.New("the upload has ended")
	began := make(chan struct{}, 2)
	clamd := startClamd(t, func(conn net.Conn, c *fakeClamd) {
		began <- struct{}{}
		silent(conn, c)
	})
	s := clamd.scanner(func(c *Config) { c.FailOpen = true })
	for _, c := range []*content{whole(data(1000)), {bytes: data(1000), arrived: make(chan struct{})}} {
		ctx, cancel := context.WithCancelCause(t.Context())
		result := make(chan error, 1)
		go func() { result <- s.Scan(ctx, c.job()) }()
		<-began
		cancel(gone)
		if err := <-result; !errors.Is(err, gone) {
			t.Errorf("got %v", err)
		}
	}
	if connections, waiting := s.connections.InUse(); connections != 0 || waiting != 0 {
		t.Errorf("%d connections in use, %d waiting", connections, waiting)
	}
}

// FailOpen accepts what clamd gives no verdict on, but neither what it rejects nor what this server's own limit keeps from it.
func TestScan_FailOpen(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	failOpen := func(c *Config) { c.FailOpen, c.Log = true, slog.New(slog.NewTextHandler(&log, nil)) }
	for _, step := range []func(net.Conn, *fakeClamd){breaksAfter(0, ""), answers("stream: x ERROR\x00")} {
		log.Reset()
		s := startClamd(t, step).scanner(failOpen)
		wantResult(t, s.Scan(t.Context(), whole(data(100)).job()), "", "", "")
		if !strings.Contains(log.String(), "accepted without a scan") || s.Counts()["unscanned"] != 1 {
			t.Errorf("the log is %q, the counts %v", log.String(), s.Counts())
		}
	}
	s := startClamd(t, answers("stream: X FOUND\x00")).scanner(failOpen)
	wantResult(t, s.Scan(t.Context(), whole(data(100)).job()), share.FileRejectedByScanner, "malware", "X")

	if failsOpen(unavailable(whyBusy, "", nil)) || !failsOpen(unavailable(whyTimeout, "", nil)) || failsOpen(errors.New("x")) {
		t.Error("failsOpen is wrong")
	}
}

// A scan that gets no connection in time is busy, which FailOpen does not accept.
func TestScan_Busy(t *testing.T) {
	t.Parallel()
	began := make(chan struct{}, 1)
	clamd := startClamd(t, func(conn net.Conn, c *fakeClamd) {
		began <- struct{}{}
		silent(conn, c)
	})
	s := clamd.scanner(func(c *Config) { c.Connections, c.FailOpen, c.Timeout = 1, true, 50*time.Millisecond })
	end, err := s.connections.Begin(t.Context(), admission.HolderOf(share.Principal{Account: "1", ID: "bob"}))
	if err != nil {
		t.Fatal(err)
	}
	wantResult(t, s.Scan(t.Context(), whole(data(10)).job()), share.ScannerUnavailable, whyBusy, "")
	end()
	if n := clamd.connections(); n != 0 {
		t.Errorf("%d connections", n)
	}
	s.Timeout = time.Minute
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- s.Scan(ctx, whole(data(10)).job()) }()
	<-began // the connection was returned
	cancel()
	<-result
}

// Errors reveal neither where clamd is nor what it says.
func TestScan_ErrorsHideTheScanner(t *testing.T) {
	t.Parallel()
	clamd := startClamd(t, answers("stream: secret detail ERROR\x00"))
	s := clamd.scanner()
	failed := s.Scan(t.Context(), whole(data(10)).job()).(*share.Error)
	clamd.listener.Close()
	unreachable := s.Scan(t.Context(), whole(data(10)).job()).(*share.Error)
	for _, e := range []*share.Error{failed, unreachable} {
		if strings.Contains(e.Message, s.Address.address) || strings.Contains(e.Message, "secret") {
			t.Errorf("the message is %q", e.Message)
		}
	}
}

func TestPing(t *testing.T) {
	t.Parallel()
	for reply, ok := range map[string]bool{"PONG\x00": true, "HTTP/1.1 400\x00": false, "": false} {
		clamd := startClamd(t, func(conn net.Conn, _ *fakeClamd) {
			command := make([]byte, len("zPING\x00"))
			if _, err := io.ReadFull(conn, command); err == nil && string(command) == "zPING\x00" {
				_, _ = io.WriteString(conn, reply)
			}
		})
		if err := clamd.scanner().Address.Ping(t.Context()); (err == nil) != ok {
			t.Errorf("%q: %v", reply, err)
		}
	}
}

func TestParseAddress(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Address{
		"clamd:///run/clamav/clamd.ctl": {"unix", "/run/clamav/clamd.ctl"},
		"clamd://127.0.0.1:3310":        {"tcp", "127.0.0.1:3310"},
		"clamd://clamd.example:3310/":   {"tcp", "clamd.example:3310"},
		"clamd://[::1]:3310":            {"tcp", "[::1]:3310"},
	} {
		if got, err := ParseAddress(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "clamd", "clamd:", "clamd://", "clamd:///", "clamd://host", "clamd://:3310", "clamd://host:x", "http://host:3310", "/run/clamd.ctl",
		"clamd:run", "clamd://host:3310/path", "clamd://user@host:3310", "clamd://host:3310?x", "clamd://host:3310#x",
	} {
		if got, err := ParseAddress(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
	for text, local := range map[string]bool{"clamd:///s": true, "clamd://127.0.0.1:1": true, "clamd://localhost:1": true, "clamd://10.0.0.1:1": false} {
		if a, _ := ParseAddress(text); a.Local() != local {
			t.Errorf("%s: local %v", text, a.Local())
		}
	}
}
