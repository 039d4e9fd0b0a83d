// Package connlimit limits the connections of a gRPC or HTTP server, in all and for each peer address.
//
// A connection costs memory before any caller is known, so it is closed or rejected by what is known: the address that it comes from,
// and whether it has a call. docs/adr/0021 says by which rule.
package connlimit

import (
	"container/list"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	grpcpeer "google.golang.org/grpc/peer"

	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/netrules"
)

// limitConnections is the name of the limit in the tally.
const limitConnections = "connections"

// A Limiter limits the connections that its Listener accepts. Each peer address has a share of them: see admission.Shares. For a
// connection beyond its share the address loses the connection that has been without a call for longest. If there are no more
// connections at all, the one that has been without a call for longest is closed, whatever its address. If every one has a call, the
// new connection is closed.
//
// It learns of calls from the tap handle of a gRPC server, and of requests as the ConnState of an http.Server.
type Limiter struct {
	rejected func(limit string, attrs ...slog.Attr)

	mu     sync.Mutex
	shares *admission.Shares
	conns  map[address]*conn
	idle   *list.List // connections without a call, the longest idle first
	peers  map[string]*peer
}

// A peer is an address with connections.
type peer struct {
	conns int
	idle  *list.List // its part of Limiter.idle
}

// New returns a Limiter for at most n connections. rejected is called for each connection that is closed because of the limit, with
// the name of the limit.
func New(n int, rejected func(limit string, attrs ...slog.Attr)) *Limiter {
	return &Limiter{
		rejected: rejected, shares: admission.NewShares(int64(n), admission.ByPeer),
		conns: make(map[address]*conn), idle: list.New(), peers: make(map[string]*peer),
	}
}

// Connections returns the number of open connections.
func (l *Limiter) Connections() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

// A conn is an accepted connection.
type conn struct {
	net.Conn
	limiter *Limiter
	remote  address
	holder  admission.Holder
	calls   int // guarded by Limiter.mu
	closed  bool
	rested  time.Time     // since when it has no call
	idle    *list.Element // in Limiter.idle; nil while it has a call
	ofPeer  *list.Element // in peer.idle
}

// Close closes the connection, and makes its place free.
func (c *conn) Close() error {
	c.limiter.mu.Lock()
	c.limiter.remove(c)
	c.limiter.mu.Unlock()
	return c.Conn.Close()
}

// Listener returns a listener that accepts the connections of another one, within the limits.
func (l *Limiter) Listener(inner net.Listener) net.Listener { return &listener{inner, l} }

type listener struct {
	net.Listener
	limiter *Limiter
}

// Accept returns the next connection that the limits allow. It closes the others at once, so that their clients do not wait.
func (l *listener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := l.limiter.add(nc); c != nil {
			return c, nil
		}
		_ = nc.Close()
	}
}

// add counts a new connection. nil: it is one too many.
func (l *Limiter) add(nc net.Conn) *conn {
	remote := nc.RemoteAddr()
	c := &conn{Conn: nc, limiter: l, remote: addressOf(remote)}
	c.holder = admission.Holder{Group: netrules.Peer(remote), Caller: admission.Hash("connection", remote.String())}
	l.mu.Lock()
	fits := l.shares.Fits(c.holder, 1)
	var victim *conn
	if !fits {
		if victim = l.victim(c); victim != nil {
			l.remove(victim)
		}
	}
	if fits || victim != nil {
		l.insert(c)
	}
	l.mu.Unlock()
	if fits {
		return c
	}
	closed := "the new one, because all have a call"
	if victim != nil {
		closed = "one without a call"
		_ = victim.Conn.Close()
	}
	l.rejected(limitConnections, slog.String("peer", c.holder.Group), slog.String("closed", closed))
	if victim == nil {
		return nil
	}
	return c
}

// victim returns the connection to close in favor of a new one; nil: there is none. l is locked, here and in the functions below.
func (l *Limiter) victim(c *conn) *conn {
	from := l.idle
	if !l.shares.Within(c.holder, 1) { // the address has its share
		from = l.peers[c.holder.Group].idle
	}
	if e := from.Front(); e != nil && time.Since(e.Value.(*conn).rested) >= settle {
		return e.Value.(*conn)
	}
	return nil
}

// settle is how long a connection without a call is not closed for another one: the response of its last call may still be on its
// way, or its first call.
const settle = 100 * time.Millisecond

func (l *Limiter) insert(c *conn) {
	l.shares.Take(c.holder, 1)
	if old := l.conns[c.remote]; old != nil { // its end has not been noticed
		l.remove(old)
	}
	l.conns[c.remote] = c
	p := l.peers[c.holder.Group]
	if p == nil {
		p = &peer{idle: list.New()}
		l.peers[c.holder.Group] = p
	}
	p.conns++
	l.rest(c)
}

func (l *Limiter) remove(c *conn) {
	if c.closed {
		return
	}
	c.closed = true
	l.shares.Take(c.holder, -1)
	if l.conns[c.remote] == c {
		delete(l.conns, c.remote)
	}
	l.wake(c)
	p := l.peers[c.holder.Group]
	if p.conns--; p.conns == 0 {
		delete(l.peers, c.holder.Group)
	}
}

// rest puts a connection last among those without a call.
func (l *Limiter) rest(c *conn) {
	c.rested = time.Now()
	c.idle, c.ofPeer = l.idle.PushBack(c), l.peers[c.holder.Group].idle.PushBack(c)
}

func (l *Limiter) wake(c *conn) {
	if c.idle == nil {
		return
	}
	l.idle.Remove(c.idle)
	l.peers[c.holder.Group].idle.Remove(c.ofPeer)
	c.idle, c.ofPeer = nil, nil
}

// Call counts a call of a gRPC server until ctx, the context of its stream, ends. The tap handle of the server must call it. A stats
// handler would learn of calls too, but gRPC makes twenty objects more for each call of a server that has one.
func (l *Limiter) Call(ctx context.Context) {
	p, ok := grpcpeer.FromContext(ctx)
	if !ok {
		return
	}
	remote := addressOf(p.Addr)
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.conns[remote]
	if c == nil {
		return
	}
	l.count(c, c.calls+1)
	context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.count(c, c.calls-1)
	})
}

// An address is the remote address of a connection, as a key of maps that is made without allocations for TCP.
type address struct {
	tcp   netip.AddrPort
	other string
}

func addressOf(a net.Addr) address {
	if t, ok := a.(*net.TCPAddr); ok {
		return address{tcp: t.AddrPort()}
	}
	return address{other: a.String()}
}

// ConnState counts the requests of a connection: those of HTTP/2 at once are one.
func (l *Limiter) ConnState(nc net.Conn, state http.ConnState) {
	if secure, ok := nc.(*tls.Conn); ok {
		nc = secure.NetConn()
	}
	c, ok := nc.(*conn)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch state {
	case http.StateActive:
		l.count(c, 1)
	case http.StateIdle:
		l.count(c, 0)
	}
}

// count notes how many calls a connection has. l is locked.
func (l *Limiter) count(c *conn, calls int) {
	before := c.calls
	c.calls = calls
	switch {
	case c.closed:
	case before == 0 && calls > 0:
		l.wake(c)
	case before > 0 && calls == 0:
		l.rest(c)
	}
}
