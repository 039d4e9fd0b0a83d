package recvlimit

import (
	"io"
	"net"
	"syscall"

	"google.golang.org/grpc/mem"
)

// A readyConn lets grpc-go read a plain TCP connection without keeping a buffer of 32 KiB while it waits, as it does with a
// *net.TCPConn that is not wrapped. It implements grpc-go's readyreader.Reader.
type readyConn struct {
	*conn
	raw  syscall.RawConn
	read func(fd uintptr) bool // readNow, made once

	// Of one call of ReadOnReady, in fields so that nothing is allocated.
	pool       mem.BufferPool
	size, most int
	buf        *[]byte
	n          int
	err        error
}

// ready gives c the method ReadOnReady if it has a plain TCP connection.
func ready(c *conn) net.Conn {
	tcp, ok := c.Conn.(*net.TCPConn)
	if !ok {
		return c
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return c
	}
	r := &readyConn{conn: c, raw: raw}
	r.read = r.readNow
	return r
}

// ReadOnReady is Read into a buffer that is taken from the pool when there is something to read. The caller puts it back.
func (c *readyConn) ReadOnReady(size int, pool mem.BufferPool) (*[]byte, int, error) {
	c.pool, c.size = pool, size
	for {
		c.most = size
		if c.inserting() {
			b := pool.Get(size)
			var n int
			if n, c.most = c.insert(*b); n > 0 {
				return b, n, nil
			}
			pool.Put(b)
		}
		c.buf, c.n, c.err = nil, 0, nil
		err := c.raw.Read(c.read)
		if err == nil {
			err = c.err
		}
		if err == nil && c.n == 0 {
			err = io.EOF
		}
		if err == nil {
			err = c.received((*c.buf)[:c.n], nil)
		}
		b := c.buf
		c.buf = nil
		switch {
		case err == nil:
			return b, c.n, nil
		case b != nil:
			pool.Put(b)
		}
		if !c.wasWoken(err) {
			return nil, 0, err
		}
	}
}

// readNow reads what there is. It reports false if there is nothing yet.
func (c *readyConn) readNow(fd uintptr) bool {
	c.buf = c.pool.Get(c.size)
	c.n, c.err = syscall.Read(int(fd), (*c.buf)[:c.most])
	if c.err != nil {
		c.pool.Put(c.buf)
		c.buf = nil
	}
	return c.err != syscall.EAGAIN
}
