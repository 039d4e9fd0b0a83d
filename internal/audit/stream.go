package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Limits of a stream.
const (
	// maxBuffered is the maximum number of bytes that wait to be written: thousands of lines.
	maxBuffered = 4 << 20
	// retryEvery is the time between two attempts to write what could not be written.
	retryEvery = time.Second
)

// A stream writes lines from a goroutine of its own. add never blocks. Lines that could not be written are kept and written later, as far as
// the buffer has space. It is safe for concurrent use.
type stream struct {
	log *slog.Logger
	// gap appends the line that says how many lines were lost, and calls refused, since the last one.
	gap  func(to []byte, lost, refused int64) []byte
	wake chan struct{}
	done chan struct{} // closed when the goroutine has ended
	max  int           // bytes that may wait to be written

	mu         sync.Mutex
	buf        []byte         // lines that the goroutine has not taken
	taken      int            // bytes that it has taken and not written
	next       io.WriteCloser // what to write to from now on; nil: no change
	failed     error          // of the latest write
	usable     bool
	watcher    func() // called after usable has changed; nil: nothing is
	closed     bool
	lost       int64 // lines since the start
	unreported int64 // of those, not in a gap line yet
	refused    int64 // calls, not in a gap line yet
}

// openFile opens the file of a stream for appending, and creates it for its owner only. If its last line has no end, because a disk was full
// or a process was killed, it gets one.
func openFile(path string) (io.WriteCloser, error) {
	if info, err := os.Stat(path); err == nil && info.Mode()&(os.ModeNamedPipe|os.ModeSocket|os.ModeDir) != 0 {
		return nil, fmt.Errorf("%s is not a file", path) // opening a pipe would wait for its reader
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() && info.Size() > 0 {
		last := make([]byte, 1)
		if _, err = f.ReadAt(last, info.Size()-1); err == nil && last[0] != '\n' {
			_, _ = f.Write([]byte("\n")) // a full disk is noticed with the next line
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// newStream returns a stream to out, which it closes. The caller must call close.
func newStream(out io.WriteCloser, gap func(to []byte, lost, refused int64) []byte, log *slog.Logger) *stream {
	s := &stream{log: log, gap: gap, max: maxBuffered, wake: make(chan struct{}, 1), done: make(chan struct{}), usable: true}
	go s.run(out) // ends with close
	return s
}

// add accepts one line with its end, or counts it as lost if the buffer is full.
func (s *stream) add(line []byte) {
	s.mu.Lock()
	if s.closed || len(s.buf)+s.taken+len(line) > s.max {
		s.lost++
		s.unreported++
	} else {
		s.buf = append(s.buf, line...)
	}
	changed := s.update()
	s.mu.Unlock()
	s.signal()
	s.report(changed)
}

// refuse counts a call that was refused because the stream is not usable.
func (s *stream) refuse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused++
}

// isUsable reports whether lines are being written, or can be kept until they are.
func (s *stream) isUsable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.usable
}

func (s *stream) lostLines() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

// update sets usable, and reports whether it has changed. Half of the buffer is kept for calls that run already. s.mu is held.
func (s *stream) update() bool {
	was := s.usable
	s.usable = s.failed == nil && len(s.buf)+s.taken <= s.max/2
	return s.usable != was
}

// report logs a change of usable.
func (s *stream) report(changed bool) {
	if !changed {
		return
	}
	s.mu.Lock()
	usable, err, watcher := s.usable, s.failed, s.watcher
	s.mu.Unlock()
	if usable {
		s.log.Info("the audit stream is written again")
	} else {
		s.log.Error("the audit stream cannot be written", "error", cause(err))
	}
	if watcher != nil {
		watcher()
	}
}

// watch has f called after each change of usable.
func (s *stream) watch(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watcher = f
}

func cause(err error) error {
	if err == nil {
		return errors.New("what it is written to is too slow")
	}
	return err
}

func (s *stream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// replace has later lines written to out, which the stream closes.
func (s *stream) replace(out io.WriteCloser) {
	s.mu.Lock()
	previous := s.next
	s.next = out
	s.mu.Unlock()
	if previous != nil {
		previous.Close()
	}
	s.signal()
}

// close writes what is buffered, and returns after limit even if that has not ended.
func (s *stream) close(limit time.Duration) {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.signal()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-s.done:
	case <-timer.C:
	}
}

// run writes lines until the stream is closed.
func (s *stream) run(out io.WriteCloser) {
	defer close(s.done)
	w := writing{out: out}
	defer func() { w.out.Close() }()
	retry := time.NewTimer(retryEvery)
	defer retry.Stop()
	for {
		select {
		case <-s.wake:
		case <-retry.C:
		}
		s.mu.Lock()
		closed, next := s.closed, s.next
		s.next = nil
		s.mu.Unlock()
		err := s.writeAll(&w)
		if next != nil { // what was added before goes to the previous file, if that can be written
			w.replace(next)
			err = s.writeAll(&w)
		}
		if closed {
			s.mu.Lock()
			s.lost += int64(bytes.Count(w.batch[w.sent:], newline) + bytes.Count(s.buf, newline))
			s.mu.Unlock()
			return
		}
		if err != nil {
			retry.Reset(retryEvery)
		}
	}
}

// writeAll writes until nothing is left or a write fails.
func (s *stream) writeAll(w *writing) error {
	for {
		if w.sent == len(w.batch) && !s.take(w) {
			return nil
		}
		n, err := w.out.Write(w.batch[w.sent:])
		w.sent += n
		if err == nil && w.sent < len(w.batch) {
			err = io.ErrShortWrite
		}
		s.mu.Lock()
		s.taken, s.failed = len(w.batch)-w.sent, err
		if err == nil && (s.unreported > 0 || s.refused > 0) {
			s.buf = s.gap(s.buf, s.unreported, s.refused)
			s.unreported, s.refused = 0, 0
		}
		changed := s.update()
		s.mu.Unlock()
		s.report(changed)
		if err != nil {
			return err
		}
	}
}

// take takes what is buffered. It returns false if there is nothing.
func (s *stream) take(w *writing) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.batch, s.buf, w.sent = s.buf, w.batch[:0], 0
	s.taken = len(w.batch)
	return s.taken > 0
}

// writing is what the goroutine of a stream writes: the lines of batch, of which the first sent bytes are written.
type writing struct {
	out   io.WriteCloser
	batch []byte
	sent  int
}

// replace continues with another file. A line of which only the begin was written is written to it whole.
func (w *writing) replace(out io.WriteCloser) {
	w.out.Close()
	w.out = out
	w.sent = bytes.LastIndexByte(w.batch[:w.sent], '\n') + 1
}

var newline = []byte("\n")
