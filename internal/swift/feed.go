package swift

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

var (
	errStopped = errors.New("the request has ended")
	errShort   = errors.New("the body ended before its declared size")
)

// A bufferReader is a body that need not be copied.
type bufferReader interface {
	// ReadBuffers returns the next bytes, at least one and at most limit, or an error, such as io.EOF. They are valid until Put returns,
	// and the slice of them until the next call.
	ReadBuffers(limit int64) ([][]byte, error)
}

// maxWrite is the maximum number of bytes of a body that are written to a connection at a time.
const maxWrite = 64 << 10

// A feed is the body of a PUT as net/http sees it. net/http may read and close a body long after it has returned an answer;
// a feed prevents both.
type feed struct {
	body  io.ReadCloser
	dog   *watchdog
	stall time.Duration
	// answer is how long the answer may take after the last byte.
	answer time.Duration

	over atomic.Bool
	once sync.Once // for closing body

	mu sync.Mutex // held while body is read, and while its buffers are written; guards the fields below
	// left is the number of bytes that have not been read yet.
	left int64
	// err is the body's own error.
	err error
	// buffers are those that are being written; a field, because WriteTo would make a variable escape for each write.
	buffers net.Buffers

	writing struct {
		sync.Mutex
		conn        net.Conn // that buffers of the body are being written to; nil: none
		interrupted bool
	}
}

func newFeed(body io.ReadCloser, size int64, dog *watchdog, stall, answer time.Duration) *feed {
	return &feed{body: body, left: size, dog: dog, stall: stall, answer: answer}
}

// Read reads the body up to the declared size. The watchdog runs between two calls of Read: that is when the store accepts
// the bytes.
func (f *feed) Read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.ended(); err != nil {
		return 0, err
	}
	f.dog.disarm()
	n, err := f.body.Read(p[:min(int64(len(p)), f.left)])
	if err := f.passed(n, err); err != nil {
		return n, err
	}
	if f.left == 0 {
		return n, io.EOF
	}
	return n, nil
}

// ended returns why nothing of the body follows; nil: something does. mu is locked.
func (f *feed) ended() error {
	switch {
	case f.left == 0: // also if the feed has ended meanwhile: the connection can be used for other requests
		return io.EOF
	case f.over.Load():
		return errStopped
	}
	return f.err
}

// passed counts n bytes that were read from the body with an error, and arms the watchdog. mu is locked.
func (f *feed) passed(n int, err error) error {
	f.left -= int64(n)
	if f.over.Load() {
		return errStopped
	}
	if f.left == 0 {
		f.dog.arm(f.stall + f.answer)
		return nil
	}
	if err == io.EOF {
		err = errShort
	}
	f.err = err
	f.dog.arm(f.stall)
	return err
}

// writeTo writes the rest of a body that is a bufferReader to a connection, without copying it.
func (f *feed) writeTo(conn net.Conn, body bufferReader) (written int64, err error) {
	for err == nil {
		var n int64
		n, err = f.writeNext(conn, body)
		written += n
	}
	if err == io.EOF {
		err = nil
	}
	return written, err
}

// writeNext is Read followed by a write. mu is held during the write too, so that stop waits for it.
func (f *feed) writeNext(conn net.Conn, body bufferReader) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.ended(); err != nil {
		return 0, err
	}
	f.dog.disarm()
	var err error
	f.buffers, err = body.ReadBuffers(min(maxWrite, f.left))
	n := 0
	for _, b := range f.buffers {
		n += len(b)
	}
	if err := f.passed(n, err); err != nil {
		return 0, err
	}
	if !f.beginWrite(conn) {
		return 0, errStopped
	}
	defer f.endWrite()
	return f.buffers.WriteTo(conn)
}

// beginWrite notes that buffers are written to a connection. It returns false if the feed has ended.
func (f *feed) beginWrite(conn net.Conn) bool {
	f.writing.Lock()
	defer f.writing.Unlock()
	if f.over.Load() {
		return false
	}
	f.writing.conn = conn
	return true
}

// endWrite notes that the write has ended. If all bytes were written nevertheless, the connection can be used for other requests.
func (f *feed) endWrite() {
	f.writing.Lock()
	defer f.writing.Unlock()
	if f.writing.interrupted {
		_ = f.writing.conn.SetWriteDeadline(time.Time{})
	}
	f.writing.conn, f.writing.interrupted = nil, false
}

// interrupt ends a running write.
func (f *feed) interrupt() {
	f.writing.Lock()
	defer f.writing.Unlock()
	if f.writing.conn != nil {
		_ = f.writing.conn.SetWriteDeadline(time.Unix(1, 0))
		f.writing.interrupted = true
	}
}

// Close does nothing: Put closes the body.
func (f *feed) Close() error { return nil }

// abort ends the feed and a running Read or write, without waiting for it.
func (f *feed) abort() {
	f.over.Store(true)
	f.once.Do(func() { _ = f.body.Close() }) // an error does not matter: the bytes have been read, or are not needed
	f.interrupt()
}

// stop ends the feed and waits for a running Read or write. It returns the number of bytes not read, and the body's own error.
func (f *feed) stop() (left int64, err error) {
	f.abort()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dog.disarm()
	return f.left, f.err
}
