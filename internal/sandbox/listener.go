package sandbox

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// helloTimeout bounds the wait for the first byte of a connection, which tells the protocols apart.
	helloTimeout = 10 * time.Second
	// recordHandshake is the first byte of every TLS connection, and of no HTTP request.
	recordHandshake = 0x16
)

// An eitherListener accepts connections with and without TLS on one address.
type eitherListener struct {
	net.Listener
	config   *tls.Config
	accepted chan net.Conn
	done     chan struct{} // closed by Close
	failed   chan struct{} // closed when the listener accepts no more, after err is set
	err      error

	mu      sync.Mutex
	pending map[net.Conn]struct{} // whose first byte has not arrived; nil after Close
	readers sync.WaitGroup
}

// newEitherListener returns a listener that accepts what l accepts. The caller must close it, which closes l.
func newEitherListener(l net.Listener, config *tls.Config) *eitherListener {
	e := &eitherListener{
		Listener: l, config: config, accepted: make(chan net.Conn), done: make(chan struct{}), failed: make(chan struct{}),
		pending: map[net.Conn]struct{}{},
	}
	e.readers.Go(e.run)
	return e
}

// run accepts connections until the listener is closed.
func (e *eitherListener) run() {
	defer close(e.failed)
	for {
		conn, err := e.Listener.Accept()
		if err != nil {
			e.err = err
			return
		}
		e.mu.Lock()
		if e.pending == nil { // closed in between
			e.mu.Unlock()
			_ = conn.Close()
			continue
		}
		e.pending[conn] = struct{}{}
		e.mu.Unlock()
		e.readers.Go(func() { e.sort(conn) })
	}
}

// sort reads the first byte of conn, and passes the connection to Accept in its protocol.
func (e *eitherListener) sort(conn net.Conn) {
	_ = conn.SetReadDeadline(time.Now().Add(helloTimeout))
	begun := &begunConn{Conn: conn}
	_, err := io.ReadFull(conn, begun.first[:])
	e.mu.Lock()
	delete(e.pending, conn)
	e.mu.Unlock()
	if err != nil {
		_ = conn.Close()
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	var served net.Conn = begun
	if begun.first[0] == recordHandshake {
		served = tls.Server(begun, e.config)
	}
	select {
	case e.accepted <- served:
	case <-e.done:
		_ = conn.Close()
	}
}

// Accept returns the next connection: a *tls.Conn if the client uses TLS.
func (e *eitherListener) Accept() (net.Conn, error) {
	select {
	case conn := <-e.accepted:
		return conn, nil
	case <-e.failed:
		return nil, e.err
	}
}

// Close ends the listener and the connections that it has not returned. It waits for its goroutines.
func (e *eitherListener) Close() error {
	e.mu.Lock()
	pending := e.pending
	if pending != nil {
		e.pending = nil
		close(e.done)
	}
	e.mu.Unlock()
	err := e.Listener.Close()
	for conn := range pending {
		_ = conn.Close()
	}
	e.readers.Wait()
	return err
}

// A begunConn is a connection whose first byte has already been read. Its methods may not be called concurrently with the first Read.
type begunConn struct {
	net.Conn
	first [1]byte
	begun bool // first was returned
}

// Read returns the first byte, then what the connection returns.
func (c *begunConn) Read(p []byte) (int, error) {
	if !c.begun && len(p) > 0 {
		c.begun = true
		return copy(p, c.first[:]), nil
	}
	return c.Conn.Read(p)
}

// NetConn returns the connection underneath, which can be reset.
func (c *begunConn) NetConn() net.Conn { return c.Conn }
