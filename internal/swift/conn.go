package swift

import (
	"context"
	"net"
	"sync"
)

// A watchedConn tells whoever uses it for a request that it has been closed. net/http does not: when a connection dies while a
// request's body is waiting for bytes to come, the transport waits for them too.
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

// watched finds the watchedConn under conn; nil if there is none.
func watched(conn net.Conn) *watchedConn {
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = t.NetConn()
	}
	w, _ := conn.(*watchedConn)
	return w
}

// watch has f aborted when the connection is closed, at once if it is already.
func (w *watchedConn) watch(f *feed) {
	w.mu.Lock()
	w.feed = f
	closed := w.closed
	w.mu.Unlock()
	if closed {
		f.abort()
	}
}

// unwatch ends the watching for f. By then the connection may serve another request, whose feed it leaves alone.
func (w *watchedConn) unwatch(f *feed) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.feed == f {
		w.feed = nil
	}
}

// Close closes the connection.
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
