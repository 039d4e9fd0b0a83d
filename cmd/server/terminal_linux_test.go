package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// TestHangup runs servers that have no files to reload, as processes of their own sessions.
func TestHangup(t *testing.T) {
	t.Setenv(serverProcess, "1")
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP) // otherwise the servers would ignore hangups if the tests were started with nohup
	defer signal.Stop(caught)

	t.Run("closed terminal drains", func(t *testing.T) {
		terminal, program := openTerminal(t)
		p := startLeader(t, program, "--log-level=error")
		p.waitFor("msg=ready")
		terminal.Close()
		p.waitFor("msg=draining", `cause="hangup signal received"`)
		if err := p.cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	t.Run("service continues", func(t *testing.T) {
		p := startLeader(t, nil)
		p.waitFor("msg=ready")
		for range 2 {
			if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			p.waitFor("no flag names a file to reload")
		}
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		p.waitFor("msg=draining", "terminated")
		if err := p.cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// A leader is a server that leads a session of its own.
type leader struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines *bufio.Scanner // of its standard error
}

// startLeader starts a server with a controlling terminal, or without one if terminal is nil.
func startLeader(t *testing.T, terminal *os.File, args ...string) *leader {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, append(args, "--sandbox", "--listen=127.0.0.1:0", "--drain-time=0s")...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if terminal != nil {
		cmd.Stdin, cmd.SysProcAttr.Setctty = terminal, true
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if terminal != nil {
		terminal.Close()
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return &leader{t, cmd, bufio.NewScanner(stderr)}
}

// waitFor reads the server's log up to the first line with all marks.
func (l *leader) waitFor(marks ...string) {
	l.t.Helper()
	var read []string
lines:
	for l.lines.Scan() {
		read = append(read, l.lines.Text())
		for _, m := range marks {
			if !strings.Contains(l.lines.Text(), m) {
				continue lines
			}
		}
		return
	}
	l.t.Fatalf("the log ended without %q:\n%s", marks, strings.Join(read, "\n"))
}

// openTerminal opens a pseudo terminal. Closing its first end hangs up the programs at the second one.
func openTerminal(t *testing.T) (terminal, program *os.File) {
	t.Helper()
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	var number, unlock int32
	for request, value := range map[uintptr]*int32{syscall.TIOCGPTN: &number, syscall.TIOCSPTLCK: &unlock} {
		if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, terminal.Fd(), request, uintptr(unsafe.Pointer(value))); e != 0 {
			t.Fatal(e)
		}
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return terminal, program
}
