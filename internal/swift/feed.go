package swift

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

var (
	errStopped = errors.New("the request has ended")
	errShort   = errors.New("the body ended before its declared size")
)

// A feed is the body of a PUT as net/http sees it. net/http may read and close a body long after it has returned an answer;
// a feed prevents both.
type feed struct {
	body  io.ReadCloser
	dog   *watchdog
	stall time.Duration
	// answer is how long the answer may take after the last byte.
	answer time.Duration

	over  atomic.Bool
	close func() // closes body, once

	mu sync.Mutex // held while body is read; guards the fields below
	// left is the number of bytes that have not been read yet.
	left int64
	// err is the body's own error.
	err error
}

func newFeed(body io.ReadCloser, size int64, dog *watchdog, stall, answer time.Duration) *feed {
	return &feed{
		body: body, left: size, dog: dog, stall: stall, answer: answer,
		// The error of closing an input is ignored: its bytes have been read, or are not needed.
		close: sync.OnceFunc(func() { _ = body.Close() }),
	}
}

// Read reads the body up to the declared size. The watchdog runs between two calls of Read: that is when the store accepts
// the bytes.
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

// abort ends the feed and a running Read, without waiting for it.
func (f *feed) abort() {
	f.over.Store(true)
	f.close()
}

// stop ends the feed and waits for a running Read. It returns the number of bytes not read, and the body's own error.
func (f *feed) stop() (left int64, err error) {
	f.abort()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dog.disarm()
	return f.left, f.err
}
