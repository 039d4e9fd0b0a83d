// Package boundedlog keeps the log from harming the program that writes it: a Writer never blocks, and a Handler bounds the number of
// lines of a kind.
package boundedlog

import (
	"bytes"
	"io"
	"sync"
	"time"
)

// MaxBuffered is the size of the buffer of a Writer, in bytes. A Writer has two: one is filled while the other is written.
const MaxBuffered = 256 << 10

// A Writer writes lines to another writer from a goroutine of its own. Write never blocks and never fails: a line that does not fit
// in the buffer, or that cannot be written, is dropped and counted. It is safe for concurrent use.
type Writer struct {
	out    io.Writer
	report func(out io.Writer, lines int64) error
	wake   chan struct{} // holds a value after each change of the fields below
	done   chan struct{} // closed when the goroutine has ended

	mu         sync.Mutex
	buf        []byte
	closed     bool
	dropped    int64
	unreported int64
}

// NewWriter returns a Writer to out. report writes a line to out that says how many lines were dropped since the last report; it is
// called as soon as writing works again. The caller must call Close.
func NewWriter(out io.Writer, report func(out io.Writer, lines int64) error) *Writer {
	w := &Writer{out: out, report: report, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go w.run()
	return w
}

// Write accepts whole lines. The error is always nil.
func (w *Writer) Write(lines []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || len(w.buf)+len(lines) > MaxBuffered {
		w.drop(lines)
	} else {
		w.buf = append(w.buf, lines...)
		w.signal()
	}
	return len(lines), nil
}

// Dropped returns how many lines were dropped.
func (w *Writer) Dropped() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dropped
}

// Close writes what is buffered, and returns after limit even if that has not ended. Lines that are written after Close are dropped.
func (w *Writer) Close(limit time.Duration) {
	w.mu.Lock()
	w.closed = true
	w.signal()
	w.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-w.done:
	case <-timer.C:
	}
}

func (w *Writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// drop counts lines. The caller must hold mu.
func (w *Writer) drop(lines []byte) {
	n := int64(bytes.Count(lines, []byte("\n")))
	w.dropped += n
	w.unreported += n
}

// run writes what is in the buffer until the Writer is closed. A write that fails is not repeated: the next lines try again.
func (w *Writer) run() {
	defer close(w.done)
	var batch []byte
	for closed := false; !closed; {
		<-w.wake
		w.mu.Lock()
		batch, w.buf = w.buf, batch[:0]
		closed = w.closed
		w.mu.Unlock()
		w.writeOut(batch)
	}
}

// writeOut writes a batch of lines, and then a report if lines were dropped.
func (w *Writer) writeOut(batch []byte) {
	n, err := 0, error(nil)
	if len(batch) > 0 {
		n, err = w.out.Write(batch)
	}
	w.mu.Lock()
	if err != nil {
		w.drop(batch[min(max(n, 0), len(batch)):])
	}
	lines := w.unreported
	w.mu.Unlock()
	if err != nil || lines == 0 || w.report(w.out, lines) != nil {
		return
	}
	w.mu.Lock()
	w.unreported -= lines
	w.mu.Unlock()
}
