package swift

import (
	"context"
	"io"
	"net"
	"sync"
)

// A watchedConn aborts the upload that uses it when it is closed. net/http does not: if a connection fails while the request
// body waits for bytes from its source, the transport waits for them too.
type watchedConn struct {
	net.Conn

	mu     sync.Mutex
	closed bool
	feed   *feed
}

func watchedDial(d *net.Dialer) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &watchedConn{Conn: conn}, nil
	}
}

// watched returns the watchedConn below conn; nil if there is none.
func watched(conn net.Conn) *watchedConn {
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = t.NetConn()
	}
	w, _ := conn.(*watchedConn)
	return w
}

// ReadFrom writes the body of a request. net/http calls it, unless the connection is encrypted.
func (w *watchedConn) ReadFrom(r io.Reader) (int64, error) {
	if limited, ok := r.(*io.LimitedReader); ok {
		if f, ok := limited.R.(*feed); ok {
			if body, ok := f.body.(bufferReader); ok {
				return f.writeTo(w.Conn, body)
			}
		}
	}
	return io.Copy(struct{ io.Writer }{w.Conn}, r)
}

// watch aborts f when the connection is closed, or now if it already is.
func (w *watchedConn) watch(f *feed) {
	w.mu.Lock()
	w.feed = f
	closed := w.closed
	w.mu.Unlock()
	if closed {
		f.abort()
	}
}

// unwatch ends the watching for f. The connection may already serve another request, whose feed is left unchanged.
func (w *watchedConn) unwatch(f *feed) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.feed == f {
		w.feed = nil
	}
}

// Close closes the connection and aborts the upload that uses it.
func (w *watchedConn) Close() error {
	err := w.Conn.Close()
	w.mu.Lock()
	w.closed = true
	f := w.feed
	w.mu.Unlock()
	if f != nil {
		f.abort()
	}
	return err
}
