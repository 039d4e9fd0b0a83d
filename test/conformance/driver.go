package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// exitTime is how long a driver may take to end after its standard input has ended.
const exitTime = 30 * time.Second

// A Driver is a running driver program.
type Driver struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	write  sync.Mutex
	next   atomic.Int64
	stderr *syncBuffer
	over   chan struct{} // closed when its standard output has ended

	mu    sync.Mutex
	calls map[string]*Call
	err   error // why it is of no more use
}

// A Call is one command and what the driver wrote about it.
type Call struct {
	ID    string
	begun time.Time

	mu      sync.Mutex
	events  []any
	changed chan struct{} // closed at the next event
	answer  map[string]any
	ended   time.Time
	done    chan struct{} // closed with the answer
}

// startDriver starts a driver program in the root of the repository.
func startDriver(root string, argv, env []string) (*Driver, error) {
	d := &Driver{cmd: exec.Command(argv[0], argv[1:]...), stderr: &syncBuffer{}, over: make(chan struct{}), calls: map[string]*Call{}}
	d.cmd.Dir, d.cmd.Stderr, d.cmd.Env = root, d.stderr, append(os.Environ(), env...)
	in, err := d.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	d.in = in
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the driver: %w", err)
	}
	go d.read(out) // ends with the program
	return d, nil
}

func (d *Driver) read(out io.Reader) {
	defer close(d.over)
	lines := bufio.NewReaderSize(out, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			d.receive(line)
		}
		if err != nil {
			d.fail(errors.New("the driver has ended: " + d.stderr.tail()))
			return
		}
	}
}

func (d *Driver) receive(line []byte) {
	var m struct {
		ID     string         `json:"id"`
		Event  any            `json:"event"`
		Result any            `json:"result"`
		Error  map[string]any `json:"error"`
	}
	if err := json.Unmarshal(line, &m); err != nil {
		d.fail(fmt.Errorf("the driver wrote something else than JSON: %.200s", line))
		return
	}
	d.mu.Lock()
	c := d.calls[m.ID]
	d.mu.Unlock()
	switch {
	case c == nil:
		d.fail(fmt.Errorf("the driver answered a command that was not sent: %.200s", line))
	case m.Event != nil:
		c.event(m.Event)
	case m.Error != nil:
		c.end(map[string]any{"error": m.Error})
	default:
		c.end(map[string]any{"result": m.Result})
	}
}

// fail ends every call that still runs.
func (d *Driver) fail(err error) {
	d.mu.Lock()
	if d.err == nil {
		d.err = err
	}
	calls := d.calls
	d.calls = map[string]*Call{}
	d.mu.Unlock()
	for _, c := range calls {
		c.end(map[string]any{"driver": err.Error()})
	}
}

func (c *Call) event(e any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, e)
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *Call) end(answer map[string]any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answer != nil {
		return
	}
	c.answer, c.ended = answer, time.Now()
	close(c.done)
}

// Events returns the events so far, and a channel that is closed at the next one.
func (c *Call) Events() ([]any, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.events, c.changed
}

// Send sends a command.
func (d *Driver) Send(command map[string]any) (*Call, error) {
	id := strconv.FormatInt(d.next.Add(1), 10)
	c := &Call{ID: id, begun: time.Now(), changed: make(chan struct{}), done: make(chan struct{})}
	command["id"] = id
	line, err := json.Marshal(command)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	if d.err != nil {
		d.mu.Unlock()
		return nil, d.err
	}
	d.calls[id] = c
	d.mu.Unlock()
	d.write.Lock()
	defer d.write.Unlock()
	if _, err := d.in.Write(append(line, '\n')); err != nil {
		return nil, fmt.Errorf("writing to the driver: %w", err)
	}
	return c, nil
}

// Answer waits for the answer of a call: {"result": ...} or {"error": ...}.
func (c *Call) Answer(ctx context.Context) (map[string]any, error) {
	select {
	case <-c.done:
	case <-ctx.Done():
		return nil, fmt.Errorf("no answer: %w", context.Cause(ctx))
	}
	if why, ok := c.answer["driver"]; ok {
		return nil, fmt.Errorf("%v", why)
	}
	return c.answer, nil
}

// Exit ends the driver as it is supposed to end, and returns what is wrong with that.
func (d *Driver) Exit() error {
	d.write.Lock()
	d.in.Close()
	d.write.Unlock()
	limit := time.AfterFunc(exitTime, func() { _ = d.cmd.Process.Kill() })
	<-d.over
	err := d.cmd.Wait()
	if !limit.Stop() {
		return fmt.Errorf("the driver did not exit within %v of the end of its standard input", exitTime)
	}
	if err != nil {
		return fmt.Errorf("the driver ended with %w: %.500s", err, d.stderr.String())
	}
	return nil
}

// syncBuffer keeps what a program writes.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write keeps p.
func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// tail returns the last of what was written.
func (s *syncBuffer) tail() string {
	text := s.String()
	return text[max(0, len(text)-1000):]
}

// String returns what was written.
func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
