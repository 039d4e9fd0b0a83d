package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// A server is a server process that this program started.
type server struct {
	cmd     *exec.Cmd
	address string
	read    chan struct{} // closed when its standard error has ended
	lines   []string      // its last lines; read them after read is closed
}

// readyAddress matches the gRPC address in the ready line of a server.
var readyAddress = regexp.MustCompile(`\bgrpc="?([^\s"]+)`)

// startServer starts a server with a sandbox, and waits until it is ready.
func startServer(ctx context.Context, path string) (*server, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	s := &server{cmd: exec.Command(path, "--sandbox", "--listen", "127.0.0.1:0"), read: make(chan struct{})}
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the server: %w", err)
	}
	ready := make(chan string, 1)
	go s.listen(stderr, ready) // ends with the server; stop waits for it
	timer := time.NewTimer(serverStart)
	defer timer.Stop()
	select {
	case s.address = <-ready:
		return s, nil
	case <-s.read:
		err = errors.New("the server ended before it was ready")
	case <-timer.C:
		err = fmt.Errorf("the server was not ready within %v", serverStart)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	s.stop()
	return nil, fmt.Errorf("start the server: %w; its last output:\n%s", err, s.lastOutput())
}

// listen reads the standard error of the server to its end.
func (s *server) listen(stderr io.Reader, ready chan<- string) {
	defer close(s.read)
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if s.lines = append(s.lines, line); len(s.lines) > 20 {
			s.lines = s.lines[1:]
		}
		if m := readyAddress.FindStringSubmatch(line); m != nil && strings.Contains(line, "ready") {
			select {
			case ready <- m[1]:
			default:
			}
		}
	}
	io.Copy(io.Discard, stderr) // if a line is too long for the scanner
}

// stop ends the server and waits for it.
func (s *server) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.cmd.Process.Kill() // where there is no SIGTERM
	}
	late := time.AfterFunc(serverStop, func() { s.cmd.Process.Kill() })
	<-s.read
	err := s.cmd.Wait()
	if !late.Stop() {
		return fmt.Errorf("the server did not stop within %v and was killed", serverStop)
	}
	if err != nil {
		return fmt.Errorf("the server ended with an error: %w", err)
	}
	return nil
}

// lastOutput returns the last lines of a stopped server.
func (s *server) lastOutput() string { return strings.Join(s.lines, "\n") }
