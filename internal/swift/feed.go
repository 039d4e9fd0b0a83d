package swift

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

var (
	errStopped = errors.New("the request is over")
	errShort   = errors.New("the body ended before its announced size")
)

// A feed is a PUT's body as net/http sees it. net/http may read a body, and close it, long after it has returned an answer; a
// feed lets it do neither.
type feed struct {
	body  io.ReadCloser
	dog   *watchdog
	stall time.Duration
	// answer is how long the answer may take once the last byte is out.
	answer time.Duration

	over  atomic.Bool
	close func() // closes body, once

	mu sync.Mutex // held while body is read; guards what follows
	// left is how much of the announced size has not been read yet.
	left int64
	// err is the body's own error.
	err error
}

func newFeed(body io.ReadCloser, size int64, dog *watchdog, stall, answer time.Duration) *feed {
	return &feed{
		body: body, left: size, dog: dog, stall: stall, answer: answer,
		// What an input says on being closed is of no interest.
		close: sync.OnceFunc(func() { _ = body.Close() }),
	}
}

// Read reads the body up to the announced size. The watchdog runs from the end of one Read to the beginning of the next: that
// is when the store takes the bytes.
func (f *feed) Read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.over.Load():
		return 0, errStopped
	case f.err != nil:
		return 0, f.err
	case f.left == 0:
		return 0, io.EOF
	}
	f.dog.disarm()
	n, err := f.body.Read(p[:min(int64(len(p)), f.left)])
	f.left -= int64(n)
	if f.over.Load() {
		return 0, errStopped
	}
	if f.left == 0 {
		f.dog.arm(f.stall + f.answer)
		return n, io.EOF
	}
	if err == io.EOF {
		err = errShort
	}
	f.err = err
	f.dog.arm(f.stall)
	return n, err
}

// Close does nothing: Put closes the body.
func (f *feed) Close() error { return nil }

// abort ends the feed and a Read that is under way, without waiting for it.
func (f *feed) abort() {
	f.over.Store(true)
	f.close()
}

// stop ends the feed. When it returns the body is not being read and never will be. It reports how much was missing, and the
// body's own error.
func (f *feed) stop() (left int64, err error) {
	f.abort()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dog.disarm()
	return f.left, f.err
}
