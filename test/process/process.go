// Package process runs programs of this repository as processes of their own, for tests that kill, stop and measure them.
package process

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience is how long a process may take to be ready, or to end when it is told to.
const patience = time.Minute

// Build builds a package's program into file.
func Build(file, pkg string) error {
	build := exec.Command("go", "build", "-trimpath", "-o", file, pkg)
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("building %s: %w", pkg, err)
	}
	return nil
}

// A Process is a program that runs. Whoever started it ends it.
type Process struct {
	Logs *Journal
	cmd  *exec.Cmd
	over chan struct{} // closed when it has ended and all that it said has been read
	err  error         // how it ended; read after over
}

// Start starts a program and returns when it has said a line that ready matches; found is what ready found in it.
func Start(ready *regexp.Regexp, program string, args ...string) (p *Process, found []string, err error) {
	p = &Process{Logs: &Journal{}, cmd: exec.Command(program, args...), over: make(chan struct{})}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, nil, fmt.Errorf("starting %s: %w", program, err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("starting %s: %w", program, err)
	}
	is := make(chan []string, 1)
	go func() { // ends with the process
		defer close(p.over)
		in := bufio.NewReader(stderr)
		for {
			line, err := in.ReadString('\n')
			p.Logs.add(line)
			if m := ready.FindStringSubmatch(line); m != nil {
				select {
				case is <- m:
				default:
				}
			}
			if err != nil {
				break
			}
		}
		_, _ = io.Copy(io.Discard, stderr)
		p.err = p.cmd.Wait()
	}()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case found = <-is:
		return p, found, nil
	case <-p.over:
	case <-limit.C:
		p.Kill()
	}
	return nil, nil, fmt.Errorf("%s did not get ready: %v\n%s", program, p.err, p.Logs.Tail())
}

// PID is the process's.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal: syscall.SIGSTOP and SIGCONT, say.
func (p *Process) Signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// Kill ends it at once, and returns when it has ended.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.over
}

// Over reports whether it has ended.
func (p *Process) Over() bool {
	select {
	case <-p.over:
		return true
	default:
		return false
	}
}

// Stop ends it as an operator would, and tells how it ended.
func (p *Process) Stop() error {
	p.Signal(syscall.SIGTERM)
	return p.Wait()
}

// Wait waits for its end; one that does not end is killed.
func (p *Process) Wait() error {
	kill := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	<-p.over
	return p.err
}

// A Journal keeps the last lines that a process said.
type Journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *Journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.lines = append(j.lines, line); len(j.lines) > 400 {
		j.lines = append([]string(nil), j.lines[200:]...)
	}
}

// Mark forgets what was said before.
func (j *Journal) Mark() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = nil
}

// Tail is what was said last.
func (j *Journal) Tail() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.lines, "")
}

// Says reports whether one of the lines has all of the words.
func (j *Journal) Says(words ...string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, line := range j.lines {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			return true
		}
	}
	return false
}

// FreePorts finds ports of loopback that nothing listens on now, and that no outgoing connection is given: a process that died must
// find its own again. Should something else listen on one before it is used, its user fails.
func FreePorts(n int) ([]int, error) {
	const from, to = 20000, 32000 // below what Linux, macOS and Windows take for outgoing connections
	var ports []int
	for range 1000 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", from+rand.IntN(to-from)))
		if err != nil {
			continue
		}
		defer l.Close() // only when all are found, so that they differ
		if ports = append(ports, l.Addr().(*net.TCPAddr).Port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, errors.New("there are no free ports")
}
