// Package process builds, starts, stops and kills programs of this repository for tests. A program runs as a process of its own, or
// as a function in the test's process.
package process

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"time"
)

// timeout bounds how long a program may take to get ready, and to end after Stop.
const timeout = time.Minute

// Build builds the program of a package into file.
func Build(file, pkg string) error {
	build := exec.Command("go", "build", "-trimpath", "-o", file, pkg)
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("building %s: %w", pkg, err)
	}
	return nil
}

// A Process is a running program. The caller ends it with Stop, Kill or Wait.
type Process struct {
	// Logs has the last lines of the program's standard error.
	Logs  *Log
	cmd   *exec.Cmd     // nil: a function
	quit  func()        // asks the program to end
	ready chan []string // gets what ready matched
	over  chan struct{} // closed when the program has ended and all its output was read
	err   error         // how it ended; read after over
}

// Start starts a program and returns when a line of its standard error matches ready. found has the matched groups.
func Start(ready *regexp.Regexp, program string, args ...string) (p *Process, found []string, err error) {
	p = newProcess()
	p.cmd = exec.Command(program, args...)
	p.quit = func() { p.Signal(syscall.SIGTERM) }
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, nil, fmt.Errorf("starting %s: %w", program, err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("starting %s: %w", program, err)
	}
	go p.read(stderr, ready, p.cmd.Wait)
	found, err = p.waitReady(program)
	return p, found, err
}

// Run is Start for a program that is a function. Stop and Kill cancel its context. An exit code other than 0 is an error of Stop
// and Wait.
func Run(ready *regexp.Regexp, program func(ctx context.Context, args []string, stdout, stderr io.Writer) int, args ...string) (p *Process, found []string, err error) {
	p = newProcess()
	ctx, cancel := context.WithCancel(context.Background())
	p.quit = cancel
	in, out := io.Pipe()
	code := make(chan int, 1)
	go func() { // ends with the program
		code <- program(ctx, args, out, out)
		out.Close()
	}()
	go p.read(in, ready, func() error {
		cancel()
		if c := <-code; c != 0 {
			return fmt.Errorf("exit status %d", c)
		}
		return nil
	})
	found, err = p.waitReady("the program")
	return p, found, err
}

func newProcess() *Process {
	return &Process{Logs: newLog(), ready: make(chan []string, 1), over: make(chan struct{})}
}

// read reads the program's output until it ends, and then calls wait.
func (p *Process) read(from io.Reader, ready *regexp.Regexp, wait func() error) {
	defer close(p.over)
	in := bufio.NewReader(from)
	for {
		line, err := in.ReadString('\n')
		p.Logs.add(line)
		if m := ready.FindStringSubmatch(line); m != nil {
			select {
			case p.ready <- m:
			default:
			}
		}
		if err != nil {
			break
		}
	}
	p.err = wait()
}

func (p *Process) waitReady(name string) ([]string, error) {
	limit := time.NewTimer(timeout)
	defer limit.Stop()
	select {
	case found := <-p.ready:
		return found, nil
	case <-p.over:
	case <-limit.C:
		p.Kill()
	}
	select { // a program that has ended may have been ready before
	case found := <-p.ready:
		return found, nil
	default:
		return nil, fmt.Errorf("%s did not get ready: %v\n%s", name, p.err, p.Logs.Tail())
	}
}

// PID returns the process id. It is for programs that Start started.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal to a process that Start started.
func (p *Process) Signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// Quit asks the program to end, as SIGTERM does, and does not wait.
func (p *Process) Quit() { p.quit() }

// Kill ends the program at once and waits for its end. A function is asked to end instead.
func (p *Process) Kill() {
	if p.cmd == nil {
		p.quit()
	} else {
		_ = p.cmd.Process.Kill()
	}
	<-p.over
}

// Over reports whether the program has ended.
func (p *Process) Over() bool {
	select {
	case <-p.over:
		return true
	default:
		return false
	}
}

// Stop asks the program to end, waits, and returns how it ended: nil for exit status 0.
func (p *Process) Stop() error {
	p.Quit()
	return p.Wait()
}

// Wait waits for the end of the program and returns how it ended. A process that does not end within a minute is killed.
func (p *Process) Wait() error {
	limit := time.NewTimer(timeout)
	defer limit.Stop()
	select {
	case <-p.over:
		return p.err
	case <-limit.C:
	}
	if p.cmd == nil {
		return fmt.Errorf("the program does not end within %v", timeout)
	}
	p.Kill()
	return p.err
}

// FreePorts returns ports of loopback that nothing listens on now. They lie below the range of ephemeral ports, so that a program
// that is started again finds its port free.
func FreePorts(n int) ([]int, error) {
	const from, to = 20000, 32000 // below the ephemeral ports of Linux, macOS and Windows
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
