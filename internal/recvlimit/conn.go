package recvlimit

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

const (
	// maxStreams is how many open streams a connection may have at once before it is closed. It is far above what grpc-go accepts
	// (MaxConcurrentStreams), so that only a client that ignores resets reaches it.
	maxStreams = 4096
	// resetWithin is how long a connection may take to reach the end of a frame, so that a stream can be reset.
	resetWithin = 5 * time.Second
)

var errTooManyStreams = errors.New("recvlimit: the client opens streams faster than the server can reject them")

// past is a read deadline that has expired.
var past = time.Unix(1, 0)

// A conn is a connection whose unfinished messages are counted. grpc-go reads and writes it, from one goroutine each; the Limiter
// ends streams from others.
type conn struct {
	net.Conn
	limiter *Limiter

	open context.Context // ends when the connection is closed
	end  context.CancelFunc

	held    atomic.Int64 // what the account says; part of Limiter.held
	pending atomic.Int64 // of held: what streams in resets had when they were chosen; part of Limiter.pending
	since   atomic.Int64 // when resets stopped being empty

	mu       sync.Mutex
	account  account
	sent     sentReader
	listed   bool                // in Limiter.conns
	closed   bool                // counts no more
	resets   []uint32            // streams that the next Read ends
	inserted []byte              // frames that grpc-go is about to read
	refused  map[uint32]struct{} // streams that grpc-go was made to end, until it has sent so
	woken    bool                // the read deadline has been set to past
	giveUp   *time.Timer         // closes the connection if resets take too long
	ended    func(id uint32, reset bool) bool
}

func (l *Limiter) newConn(inner net.Conn) *conn {
	c := &conn{Conn: inner, limiter: l, account: newAccount()}
	c.open, c.end = context.WithCancel(context.Background())
	c.ended = c.serverEnded
	return c
}

// Read implements net.Conn. Between frames it inserts those that end streams.
func (c *conn) Read(p []byte) (int, error) {
	for {
		inserted, most := c.insert(p)
		if inserted > 0 {
			return inserted, nil
		}
		n, err := c.Conn.Read(p[:most])
		if n == 0 && c.wasWoken(err) {
			continue
		}
		return n, c.received(p[:n], err)
	}
}

// received counts what was read, and makes the Limiter act if it is too much.
func (c *conn) received(p []byte, err error) error {
	c.mu.Lock()
	if !c.closed {
		c.account.read(p, c.limiter.now())
		if !c.listed && len(c.account.streams) > 0 {
			c.listed = true
			c.limiter.add(c)
		}
		if len(c.account.streams) > maxStreams && err == nil {
			err = errTooManyStreams
		}
		c.settle()
	}
	c.mu.Unlock()
	c.limiter.enforce()
	return err
}

// settle makes the totals what the account says. c.mu is held.
func (c *conn) settle() {
	if d := c.account.held - c.held.Load(); d != 0 {
		c.held.Add(d)
		c.limiter.held.Add(d)
	}
}

// Write implements net.Conn. It sees the streams that the server ends.
func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	p = c.sent.read(p, c.ended)
	c.mu.Unlock()
	return c.Conn.Write(p)
}

// serverEnded is called with c.mu held.
func (c *conn) serverEnded(id uint32, reset bool) (refuse bool) {
	c.account.end(id)
	if !c.closed {
		c.settle()
	}
	if _, refuse = c.refused[id]; refuse {
		delete(c.refused, id)
	}
	return refuse && reset
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		c.limiter.held.Add(-c.held.Swap(0))
		c.released()
		if c.listed {
			c.limiter.remove(c)
		}
	}
	c.mu.Unlock()
	c.end()
	return c.Conn.Close()
}

// released forgets resets. c.mu is held.
func (c *conn) released() {
	c.resets = nil
	c.limiter.pending.Add(-c.pending.Swap(0))
	if c.giveUp != nil {
		c.giveUp.Stop()
		c.giveUp = nil
	}
}

// staying returns what unfinished messages hold that are not about to be ended.
func (c *conn) staying() int64 { return c.held.Load() - c.pending.Load() }

// reset has the next Read end a stream on the server's behalf, unless its message is complete by then.
func (c *conn) reset(id uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.account.streams[id]
	if c.closed || s == nil || s.held == 0 || s.ending {
		return // it changed since the Limiter looked
	}
	s.ending = true
	c.pending.Add(s.held)
	c.limiter.pending.Add(s.held)
	c.resets = append(c.resets, id)
	if c.giveUp == nil {
		c.since.Store(c.limiter.now())
		c.giveUp = time.AfterFunc(resetWithin, c.closeStuck) // stopped by released
	}
	if !c.woken {
		c.woken = true
		_ = c.SetReadDeadline(past) // a closed connection needs no waking
	}
}

// closeStuck closes a connection that did not let its streams be reset: its client stopped within a frame, or does not read.
func (c *conn) closeStuck() {
	c.mu.Lock()
	stuck := len(c.resets) > 0 && !c.closed
	c.mu.Unlock()
	if stuck {
		c.limiter.closings.Add(1)
		_ = c.Close()
	}
}

// wasWoken reports whether a Read ended only because reset wanted it to.
func (c *conn) wasWoken(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wake()
}

// wake takes the deadline of reset back. c.mu is held.
func (c *conn) wake() bool {
	if !c.woken {
		return false
	}
	c.woken = false
	_ = c.SetReadDeadline(time.Time{}) // grpc-go has none after its handshake, and before it there are no streams
	return true
}

// inserting reports whether insert has anything to do.
func (c *conn) inserting() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.inserted) > 0 || len(c.resets) > 0
}

// insert fills p with frames that make grpc-go end the streams in resets, if there are any and the client's frames allow it here.
// A WINDOW_UPDATE of 0 is a stream error by RFC 9113 (6.9): grpc-go cancels the call, frees its messages and resets the stream.
// Otherwise most is how much of p may be read from the client: while streams are to be ended, not more than the current frame.
func (c *conn) insert(p []byte) (n, most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.inserted) == 0 && len(c.resets) > 0 && c.account.betweenFrames() {
		for _, id := range c.resets {
			s := c.account.streams[id]
			if s == nil || !s.ending {
				continue // it ended, or its message is complete and may be in use
			}
			c.account.end(id)
			c.limiter.endings.Add(1)
			c.inserted = append(c.inserted, 0, 0, 4, frameWindowUpdate, 0)
			c.inserted = binary.BigEndian.AppendUint32(c.inserted, id)
			c.inserted = append(c.inserted, 0, 0, 0, 0)
			if c.refused == nil {
				c.refused = make(map[uint32]struct{})
			}
			c.refused[id] = struct{}{}
		}
		c.settle()
		c.released()
		c.wake()
	}
	n = copy(p, c.inserted)
	c.inserted = c.inserted[n:]
	most = len(p)
	if len(c.resets) > 0 {
		most = min(most, c.account.toBoundary())
	}
	return n, most
}

// Credentials returns transport credentials that do what inner does and count the unfinished messages of each connection. They
// are for a server.
func (l *Limiter) Credentials(inner credentials.TransportCredentials) credentials.TransportCredentials {
	return &counting{inner, l}
}

type counting struct {
	credentials.TransportCredentials
	limiter *Limiter
}

// ServerHandshake implements credentials.TransportCredentials.
func (c *counting) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	inner, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	conn := c.limiter.newConn(inner)
	return ready(conn), authInfo{info, conn.open}, nil
}

// authInfo is what the inner credentials found out about the client, with the connection.
type authInfo struct {
	credentials.AuthInfo
	open context.Context
}

// AuthInfo returns what the inner credentials found out about the client of a call.
func AuthInfo(p *peer.Peer) credentials.AuthInfo {
	if info, ok := p.AuthInfo.(authInfo); ok {
		return info.AuthInfo
	}
	return p.AuthInfo
}

// Connection returns a context that ends when the connection of a call is closed. For a call without a counted connection it is the
// call's own.
func Connection(ctx context.Context) context.Context {
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(authInfo); ok {
			return info.open
		}
	}
	return ctx
}

// ClientHandshake implements credentials.TransportCredentials.
func (c *counting) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("recvlimit: these credentials are for servers")
}

// Clone implements credentials.TransportCredentials.
func (c *counting) Clone() credentials.TransportCredentials {
	return &counting{c.TransportCredentials.Clone(), c.limiter}
}
