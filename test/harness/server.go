package harness

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/process"
	"github.com/lpfileshare/lpfileshare/test/wire"
)

// The account that the sandbox serves by default.
const (
	Account     = "12345678"
	AccountPath = "accounts/" + Account
)

// A Program is a server program that has not been started.
type Program func(ready *regexp.Regexp, args ...string) (*process.Process, []string, error)

// Binary returns the program in a file.
func Binary(file string) Program {
	return func(ready *regexp.Regexp, args ...string) (*process.Process, []string, error) {
		return process.Start(ready, file, args...)
	}
}

// Func returns a program that runs in the test's process.
func Func(run func(ctx context.Context, args []string, stdout, stderr io.Writer) int) Program {
	return func(ready *regexp.Regexp, args ...string) (*process.Process, []string, error) {
		return process.Run(ready, run, args...)
	}
}

// Main builds the server without the race detector, runs the tests, and ends the suite of frames. It returns the exit code. built
// gets the program before the tests run.
func Main(m *testing.M, frames *wire.Suite, built *Program) int {
	dir, err := os.MkdirTemp("", "lpfileshare-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "lpfileshare-server")
	if err := process.Build(file, "github.com/lpfileshare/lpfileshare/cmd/server"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	*built, builtFile = Binary(file), file
	return frames.Exit(m.Run())
}

var builtFile string

// File returns the file of the server that Main has built, for tests that start it in a way of their own.
func File() string { return builtFile }

// A Server is a running server.
type Server struct {
	*process.Process
	// Addr is the host and port of gRPC. The others are those of the other listeners, or "". Web is that for browsers.
	Addr, Admin, Debug, Webhooks, Web string
}

var readyLine = regexp.MustCompile(`msg=ready grpc=(\S+)(.*)`)

// Start starts a server with these flags on free ports and returns when it is ready. The caller stops it.
func Start(program Program, args ...string) (*Server, error) {
	p, found, err := program(readyLine, append([]string{"--listen=127.0.0.1:0"}, args...)...)
	if err != nil {
		return nil, err
	}
	s := &Server{Process: p, Addr: found[1]}
	s.Admin, s.Debug, s.Webhooks = attribute(found[2], "admin"), attribute(found[2], "debug"), attribute(found[2], "webhooks")
	s.Web = attribute(found[2], "web")
	return s, nil
}

// attribute returns the value of a name in a log line.
func attribute(line, name string) string {
	if m := regexp.MustCompile(`\s` + name + `=(\S+)`).FindStringSubmatch(line); m != nil {
		return m[1]
	}
	return ""
}

// Before returns the flags that put a server before a sandbox.
func Before(sb *sandbox.Sandbox) []string {
	return []string{"--domain-api=" + sb.URL(), "--lp-plain-http"}
}

// Sandbox starts a sandbox that ends with the test. Its frames are checked, and then go to opts.OnFrame and opts.OnExchange.
func Sandbox(tb testing.TB, frames *wire.Suite, opts sandbox.Options) *sandbox.Sandbox {
	tb.Helper()
	tap := frames.Watch(tb)
	onFrame, onExchange := opts.OnFrame, opts.OnExchange
	opts.OnFrame = func(f sandbox.Frame) {
		tap.Check(wire.Frame(f))
		if onFrame != nil {
			onFrame(f)
		}
	}
	if onExchange == nil {
		opts.OnExchange = func(x sandbox.Exchange) { tap.CheckExchange(wire.Exchange(x)) }
	}
	sb, err := sandbox.Start(opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { sb.Close() })
	return sb
}

// Stopped stops the server at the end of the test. A server that has not been stopped before must end with exit status 0.
func (s *Server) Stopped(tb testing.TB) {
	tb.Helper()
	tb.Cleanup(func() {
		if s.Over() {
			return
		}
		if err := s.Stop(); err != nil {
			tb.Errorf("the server ended with %v\n%s", err, s.Logs.Tail())
		}
	})
}

// Dial returns a client of the server without an identity. It ends with the test.
func (s *Server) Dial(tb testing.TB) *lpfileshare.Client {
	tb.Helper()
	c, err := lpfileshare.Dial(s.Addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c
}

// Memory returns one of the kernel's figures of a server that is a process, in bytes: VmRSS is what is resident, VmHWM the most
// that was. They come from /proc, because wait4 adds what the parent had up to the exec.
func (s *Server) Memory(tb testing.TB, figure string) int64 {
	tb.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID()))
	if err != nil {
		tb.Fatalf("memory is read from /proc, which this system does not have: %v", err)
	}
	m := regexp.MustCompile(figure + `:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		tb.Fatalf("/proc has no %s", figure)
	}
	kib, _ := strconv.ParseInt(string(m[1]), 10, 64)
	return kib << 10
}

// limit bounds what a test waits for. It is far more than anything takes, so that no test depends on how busy the machine is.
const limit = 2 * time.Minute

// Eventually polls until ok returns true. Prefer an event, such as a line of Server.Logs, where there is one.
func Eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(limit); !ok(); <-tick.C {
		if time.Now().After(end) {
			tb.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// Next receives from a channel. A test fails if nothing arrives within two minutes.
func Next[T any](tb testing.TB, from <-chan T) T {
	tb.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(limit):
		tb.Fatal("nothing arrived")
		panic("unreachable")
	}
}
