package web

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/test/bufconn"

	"github.com/lpfileshare/lpfileshare/internal/netrules"
)

// pipeBytes is the buffer of each direction of an in-process connection. Both ends write in the loops in which they read, so without
// buffers they would block each other.
const pipeBytes = 32 << 10

var errPipeClosed = errors.New("web: the gRPC server accepts no further connections")

// A Pipe is a net.Listener for a gRPC server in this process. Its connections are those of Handlers. Each has the address of the
// browsers whose calls it carries as its RemoteAddr, so logs and limits of the gRPC server see that address.
type Pipe struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// NewPipe returns a Pipe. The gRPC server that serves it closes it.
func NewPipe() *Pipe { return &Pipe{conns: make(chan net.Conn), done: make(chan struct{})} }

// Accept implements net.Listener.
func (p *Pipe) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. Open connections stay open.
func (p *Pipe) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

// closed reports whether the gRPC server is being stopped.
func (p *Pipe) closed() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Addr implements net.Listener.
func (p *Pipe) Addr() net.Addr { return pipeAddr{} }

// dial opens a connection that carries the calls of an address.
func (p *Pipe) dial(ctx context.Context, from net.Addr) (net.Conn, error) {
	if p.closed() {
		return nil, errPipeClosed
	}
	pair := bufconn.Listen(pipeBytes)
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := pair.Accept() // ends with the Dial below
		accepted <- c
	}()
	client, err := pair.Dial()
	if err != nil {
		return nil, err
	}
	server := &browserConn{<-accepted, from}
	select {
	case p.conns <- server:
		return client, nil
	case <-p.done:
		err = errPipeClosed
	case <-ctx.Done():
		err = ctx.Err()
	}
	_, _ = client.Close(), server.Close()
	return nil, err
}

// A browserConn is the gRPC server's end of an in-process connection.
type browserConn struct {
	net.Conn
	from net.Addr
}

func (c *browserConn) RemoteAddr() net.Addr { return c.from }

func (*browserConn) LocalAddr() net.Addr { return pipeAddr{} }

// pipeAddr is the address of the server's end, which is not one of a network.
type pipeAddr struct{}

func (pipeAddr) Network() string { return "in-process" }

func (pipeAddr) String() string { return "in-process" }

// connectionOf returns the name of the in-process connection that carries the calls of a browser: "ADDRESS:0". Browsers with one address
// share a connection, as they share the limits of an address: see netrules.Peer.
func connectionOf(remote string) string {
	from, err := netip.ParseAddrPort(remote)
	if err != nil {
		return ""
	}
	return netip.AddrPortFrom(netrules.PeerPrefix(from.Addr()).Addr(), 0).String()
}

// addrOf is the inverse of connectionOf.
func addrOf(name string) (net.Addr, error) {
	from, err := netip.ParseAddrPort(name)
	if err != nil {
		return nil, err
	}
	return net.TCPAddrFromAddrPort(from), nil
}

// Credentials returns transport credentials that leave connections of a Pipe as they are, and do what inner does for others. They are
// for a server.
func Credentials(inner credentials.TransportCredentials) credentials.TransportCredentials {
	return &pipeCredentials{inner}
}

type pipeCredentials struct {
	credentials.TransportCredentials
}

// ServerHandshake implements credentials.TransportCredentials.
func (c *pipeCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if _, ok := raw.(*browserConn); ok {
		return raw, browserInfo{}, nil
	}
	return c.TransportCredentials.ServerHandshake(raw)
}

// Clone implements credentials.TransportCredentials.
func (c *pipeCredentials) Clone() credentials.TransportCredentials {
	return &pipeCredentials{c.TransportCredentials.Clone()}
}

// browserInfo is what is known of the client of a Pipe's connection: nothing.
type browserInfo struct{ credentials.CommonAuthInfo }

// AuthType implements credentials.AuthInfo.
func (browserInfo) AuthType() string { return "browser" }

// IsBrowser reports whether the peer of a call is a browser: its connection proves nothing, even if its address is loopback.
func IsBrowser(p *peer.Peer) bool {
	_, ok := p.LocalAddr.(pipeAddr)
	return ok
}
