package connlimit

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	grpcpeer "google.golang.org/grpc/peer"
)

// clients are a listener whose connections a test opens.
type clients struct {
	t       *testing.T
	limiter *Limiter
	queue   chan net.Conn
	server  net.Listener
	ports   int
	log     []string
	settle  time.Duration // waited before each connection, in a bubble of synctest
}

func newClients(t *testing.T, n int) *clients {
	c := &clients{t: t, queue: make(chan net.Conn, 100)}
	c.limiter = New(n, func(limit string, attrs ...slog.Attr) { c.log = append(c.log, fmt.Sprint(limit, attrs)) })
	c.server = c.limiter.Listener(c)
	return c
}

func (c *clients) Accept() (net.Conn, error) {
	select {
	case nc := <-c.queue:
		return nc, nil
	default:
		return nil, net.ErrClosed
	}
}
func (c *clients) Close() error   { return nil }
func (c *clients) Addr() net.Addr { return nil }

type client struct {
	net.Conn
	addr   *net.TCPAddr
	closed bool
	served net.Conn             // nil: it was not accepted
	calls  []context.CancelFunc // that run
}

func (c *client) RemoteAddr() net.Addr { return c.addr }
func (c *client) Close() error         { c.closed = true; return nil }

// open opens a connection from an address.
func (c *clients) open(ip string) *client {
	time.Sleep(c.settle)
	c.ports++
	k := &client{addr: &net.TCPAddr{IP: net.ParseIP(ip), Port: c.ports}}
	c.queue <- k
	k.served, _ = c.server.Accept()
	if (k.served == nil) != k.closed {
		c.t.Errorf("accepted %t, closed %t", k.served != nil, k.closed)
	}
	return k
}

func (c *clients) begin(k *client) {
	ctx, cancel := context.WithCancel(grpcpeer.NewContext(c.t.Context(), &grpcpeer.Peer{Addr: k.addr}))
	k.calls = append(k.calls, cancel)
	c.limiter.Call(ctx)
}

// end ends a call. It must be called in a bubble of synctest.
func (c *clients) end(k *client) {
	k.calls[0]()
	k.calls = k.calls[1:]
	synctest.Wait() // for the limiter to notice
}

func TestLimiter_OneAddressLosesItsOwnIdleConnections(t *testing.T) {
	synctest.Test(t, testLimiter_OneAddressLosesItsOwnIdleConnections)
}

func testLimiter_OneAddressLosesItsOwnIdleConnections(t *testing.T) {
	c := newClients(t, 10)
	c.settle = settle
	other := c.open("192.0.2.1")
	first := c.open("2001:db8::1")
	busy := c.open("2001:db8::2") // of the same /64
	c.begin(busy)
	var flood []*client
	for i := range 20 {
		flood = append(flood, c.open(fmt.Sprintf("2001:db8::%x", i+3)))
	}
	if !first.closed || busy.closed || other.closed {
		t.Errorf("closed %t, %t, %t; want the address's own, and none with a call", first.closed, busy.closed, other.closed)
	}
	for i, k := range flood {
		if want := i < len(flood)-3; k.closed != want {
			t.Errorf("connection %d closed: %t", i, k.closed)
		}
	}
	if n := c.limiter.Connections(); n != 5 {
		t.Errorf("%d connections are open", n)
	}
	if len(c.log) != 18 || c.log[0] != "connections[peer=2001:db8::/64 closed=one without a call]" {
		t.Errorf("reported %d: %v", len(c.log), c.log)
	}
	if newcomer := c.open("192.0.2.2"); newcomer.closed {
		t.Error("a newcomer was rejected")
	}
}

func TestLimiter_LongestIdleIsClosedFirst(t *testing.T) {
	synctest.Test(t, testLimiter_LongestIdleIsClosedFirst)
}

func testLimiter_LongestIdleIsClosedFirst(t *testing.T) {
	c := newClients(t, 4)
	c.settle = settle
	one, two := c.open("192.0.2.1"), c.open("192.0.2.2")
	three, four := c.open("192.0.2.3"), c.open("192.0.2.4")
	c.begin(one)
	c.begin(one)
	c.end(one)
	c.begin(two)
	c.end(two)
	c.begin(four)
	if five := c.open("192.0.2.5"); five.closed || !three.closed { // one has a call, two and five were idle for less time
		t.Error("the connection that was idle for longest is not the one that was closed")
	}
	if six := c.open("192.0.2.6"); six.closed || !two.closed || one.closed {
		t.Error("the connection that was idle for longest is not the one that was closed")
	}
	c.begin(two) // after it was closed
	c.end(two)
	_ = two.served.Close()
}

func TestLimiter_RejectsIfAllHaveACall(t *testing.T) {
	synctest.Test(t, testLimiter_RejectsIfAllHaveACall)
}

func testLimiter_RejectsIfAllHaveACall(t *testing.T) {
	c := newClients(t, 6)
	var all []*client
	for range 3 {
		k := c.open("192.0.2.1")
		c.begin(k)
		all = append(all, k)
	}
	if k := c.open("192.0.2.1"); !k.closed {
		t.Error("an address had more than its share, all with calls")
	}
	if k := c.open("192.0.2.2"); k.closed {
		t.Error("another address was rejected")
	}
	for _, k := range all {
		_ = k.served.Close()
		_ = k.served.Close()
		c.end(k)
	}
	if n := c.limiter.Connections(); n != 1 || c.limiter.shares.Free() != 5 || len(c.limiter.peers) != 1 || c.limiter.idle.Len() != 1 {
		t.Errorf("%d connections are left, %d free, %d peers, %d idle", n, c.limiter.shares.Free(), len(c.limiter.peers), c.limiter.idle.Len())
	}
}

// The response of a call that has just ended may still be on its way.
func TestLimiter_KeepsWhatHasJustEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClients(t, 1)
		one := c.open("192.0.2.1")
		c.begin(one)
		time.Sleep(time.Hour)
		c.end(one)
		if two := c.open("192.0.2.2"); !two.closed || one.closed {
			t.Errorf("closed: the new one %t, the one whose call has ended %t", two.closed, one.closed)
		}
		time.Sleep(settle)
		if three := c.open("192.0.2.3"); three.closed || !one.closed {
			t.Errorf("later, closed: the new one %t, the one whose call has ended %t", three.closed, one.closed)
		}
	})
}

// A connection of an HTTP server that has a request is not closed for another one.
func TestLimiter_KnowsRequestsOfHTTP(t *testing.T) {
	for name, wrap := range map[string]func(net.Conn) net.Conn{
		"plain": func(c net.Conn) net.Conn { return c },
		"TLS":   func(c net.Conn) net.Conn { return tls.Server(c, &tls.Config{}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newClients(t, 1)
				c.settle = settle
				one := c.open("192.0.2.1")
				served := wrap(one.served)
				for _, state := range []http.ConnState{http.StateNew, http.StateActive, http.StateActive} {
					c.limiter.ConnState(served, state)
				}
				if two := c.open("192.0.2.2"); !two.closed || one.closed {
					t.Errorf("during a request, closed: the new one %t, the one with the request %t", two.closed, one.closed)
				}
				c.limiter.ConnState(served, http.StateIdle)
				if three := c.open("192.0.2.3"); three.closed || !one.closed {
					t.Errorf("afterwards, closed: the new one %t, the idle one %t", three.closed, one.closed)
				}
				for _, state := range []http.ConnState{http.StateActive, http.StateIdle, http.StateClosed} { // not noticed yet
					c.limiter.ConnState(served, state)
				}
				if n := c.limiter.Connections(); n != 1 || c.limiter.idle.Len() != 1 {
					t.Errorf("%d connections, %d idle; want the third", n, c.limiter.idle.Len())
				}
			})
		})
	}
}
