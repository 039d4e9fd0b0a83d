// Package proxy is a TCP proxy on loopback that makes trouble: at a chosen byte of a chosen message, in a chosen direction, it
// cuts, delays, stalls, truncates, corrupts, loses the answer, or answers in the server's place.
//
// It knows enough of the protocols that pass to count in messages (a frame of a WebSocket, the head or the body of an HTTP
// message, a frame of HTTP/2), so that a fault can be described as "byte 17 of the second request to publish". What it does depends on
// the faults that are armed and on the bytes that pass, on nothing random. Every connection, every buffer and every wait has a
// bound, and Close leaves nothing behind.
package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxConns is how many connections pass at once; one more is refused.
	maxConns = 1024
	// connectTimeout bounds the way to the target.
	connectTimeout = 5 * time.Second
	// arrivalTime is how long bytes are given to arrive before a reset, which overtakes them.
	arrivalTime = 3 * time.Millisecond
	// lingerTime is how long a connection that was cut politely may take to be closed by its ends.
	lingerTime = time.Second
	// lostTime is how long after an answer was lost the connection ends, if the fault does not say.
	lostTime = 50 * time.Millisecond
	// stallTime is how long a connection is silent before it ends, if the fault does not say.
	stallTime = time.Second
)

// A Direction is which way bytes go.
type Direction int

// The directions.
const (
	ToServer Direction = iota
	ToClient
)

func (d Direction) String() string {
	if d == ToServer {
		return "to the server"
	}
	return "to the client"
}

// A Kind is what a fault does to the connection.
type Kind int

// The kinds of faults.
const (
	// Pass does nothing: a fault for its Before alone.
	Pass Kind = iota
	// Reset cuts the connection with a TCP reset on both sides.
	Reset
	// Finish ends the connection on both sides as if each had closed it, by a FIN.
	Finish
	// Delay holds the direction up for For.
	Delay
	// Stall lets nothing pass any more, in either direction, and resets the connection after For (1 s if 0).
	Stall
	// Truncate leaves Length bytes out (0: all that is left of the message), and goes on.
	Truncate
	// Corrupt flips one bit, and goes on.
	Corrupt
	// Lose lets nothing reach the client any more, while the server goes on hearing the client, and resets the connection after
	// For (50 ms if 0; negative: leaves it silent).
	Lose
	// Answer leaves out the rest of the message, and sends the client what Reply says.
	Answer
)

func (k Kind) String() string {
	return [...]string{"pass", "reset", "finish", "delay", "stall", "truncate", "corrupt", "lose", "answer"}[k]
}

// A Fault is trouble at one place.
type Fault struct {
	// Dir is the direction of the message.
	Dir Direction
	// Match picks messages. Nil: each.
	Match func(Message) bool
	// Skip lets so many matching messages pass first.
	Skip int
	// Conn picks the n-th connection that was made after the fault was armed, counted from 1. 0: any, older ones included.
	Conn int
	// Count is how often the fault strikes. 0: once.
	Count int
	// At is before which byte of the message it strikes, given the message's length. Nil: before the first.
	At func(length int64) int64
	// Kind is what is done.
	Kind Kind
	// For is how long: see the kinds.
	For time.Duration
	// Length is how many bytes a truncation takes.
	Length int64
	// Bit is which bit of the byte a corruption flips, 0 to 7.
	Bit uint8
	// Reply is what an Answer sends to the client.
	Reply func(Message) []byte
	// Hangup ends the connection politely behind an Answer.
	Hangup bool
	// Before is called when the fault strikes, before it is carried out. The direction waits for it.
	Before func()
}

// Byte is an At: before the n-th byte, counted from 0. Negative counts from the end, so that -1 is before the last byte. It stays
// within the message.
func Byte(n int64) func(int64) int64 {
	return func(length int64) int64 {
		if n < 0 {
			return max(length+n, 0)
		}
		return min(n, length)
	}
}

// Part is an At: before the byte at a fraction of the message.
func Part(f float64) func(int64) int64 {
	return func(length int64) int64 { return int64(f * float64(length)) }
}

// End is an At: behind the message.
func End(length int64) int64 { return length }

// An Armed is a fault that strikes at the next occasion.
type Armed struct {
	Fault
	p            *Proxy
	base         int // connections before it
	seen, struck int // guarded by p.mu
}

// Struck reports how often the fault has struck.
func (a *Armed) Struck() int {
	a.p.mu.Lock()
	defer a.p.mu.Unlock()
	return a.struck
}

// A Proxy passes connections on to one address.
type Proxy struct {
	listener net.Listener
	target   string
	protocol Protocol
	ctx      context.Context
	cancel   context.CancelFunc
	work     sync.WaitGroup

	mu    sync.Mutex
	conns map[*conn]bool
	count int
	armed []*Armed
}

// Listen starts a proxy on a free port of loopback, for connections to target that speak protocol. The caller closes it.
func Listen(target string, protocol Protocol) (*Proxy, error) {
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		return nil, fmt.Errorf("fault proxy: %w", err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("fault proxy: %s is not on loopback", target)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("fault proxy: %w", err)
	}
	p := &Proxy{listener: l, target: target, protocol: protocol, conns: map[*conn]bool{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.work.Go(p.serve)
	return p, nil
}

// Addr is where the proxy listens, host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Arm arms a fault.
func (p *Proxy) Arm(f Fault) *Armed {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.Count == 0 {
		f.Count = 1
	}
	a := &Armed{Fault: f, p: p, base: p.count}
	p.armed = append(p.armed, a)
	return a
}

// Disarm disarms every fault. Connections that suffer from one already go on suffering.
func (p *Proxy) Disarm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = nil
}

// Cut cuts every connection, by Reset or Finish, and returns how many there were.
func (p *Proxy) Cut(k Kind) int {
	p.mu.Lock()
	open := make([]*conn, 0, len(p.conns))
	for c := range p.conns {
		open = append(open, c)
	}
	p.mu.Unlock()
	for _, c := range open {
		if k == Finish {
			c.finish()
		} else {
			c.reset()
		}
	}
	return len(open)
}

// Conns reports how many connections are open, and how many there have been.
func (p *Proxy) Conns() (open, ever int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns), p.count
}

// Close ends every connection, and returns when nothing of the proxy runs any more.
func (p *Proxy) Close() {
	p.cancel()
	_ = p.listener.Close()
	p.Cut(Reset)
	p.work.Wait()
}

func (p *Proxy) serve() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.work.Go(func() { p.connect(in.(*net.TCPConn)) })
	}
}

// connect connects one client to the target, and returns when both directions have ended.
func (p *Proxy) connect(client *net.TCPConn) {
	defer client.Close()
	d := net.Dialer{Timeout: connectTimeout}
	out, err := d.DialContext(p.ctx, "tcp", p.target)
	if err != nil {
		_ = client.SetLinger(0) // as if no server listened
		return
	}
	server := out.(*net.TCPConn)
	defer server.Close()
	c := &conn{p: p, ends: [2]*net.TCPConn{ToServer: server, ToClient: client}}
	c.ctx, c.cancel = context.WithCancel(p.ctx)
	defer c.cancel()
	p.mu.Lock()
	if p.ctx.Err() != nil || len(p.conns) >= maxConns {
		p.mu.Unlock()
		_ = client.SetLinger(0)
		return
	}
	p.count++
	c.n = p.count
	p.conns[c] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.conns, c)
		p.mu.Unlock()
	}()
	var both sync.WaitGroup
	both.Go(func() { c.pump(ToServer) })
	both.Go(func() { c.pump(ToClient) })
	both.Wait()
}

// strikes returns the fault that strikes at a message, if one does.
func (p *Proxy) strikes(c *conn, d Direction, m Message) *Armed {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.armed {
		if a.Dir != d || a.struck >= a.Count || a.Conn != 0 && c.n-a.base != a.Conn || a.Match != nil && !a.Match(m) {
			continue
		}
		if a.seen++; a.seen <= a.Skip {
			continue
		}
		a.struck++
		return a
	}
	return nil
}

// A conn is one connection. Each direction has a goroutine of its own.
type conn struct {
	p      *Proxy
	n      int             // the n-th
	ends   [2]*net.TCPConn // where each direction goes to
	ctx    context.Context // ends with the connection
	cancel context.CancelFunc

	muted [2]atomic.Bool // what goes that way is swallowed
	write [2]sync.Mutex  // held while a message is being written that way
}

func (c *conn) from(d Direction) *net.TCPConn { return c.ends[1-d] }

// pump passes one direction, message by message.
func (c *conn) pump(d Direction) {
	in := bufio.NewReaderSize(c.from(d), 64<<10)
	r := c.p.protocol(d)
	for {
		m, err := r.next(in)
		if len(m.raw) > 0 || m.rest > 0 {
			var struck *Armed
			if err == nil {
				struck = c.p.strikes(c, d, m)
			}
			if perr := c.pass(d, m, in, struck); perr != nil {
				err = perr
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			_ = c.ends[d].CloseWrite()
			return
		default: // whatever broke one side breaks the other
			c.reset()
			return
		}
	}
}

// pass passes one message, as a fault has it.
func (c *conn) pass(d Direction, m Message, in io.Reader, f *Armed) error {
	c.write[d].Lock()
	defer c.write[d].Unlock()
	body := io.MultiReader(bytes.NewReader(m.raw), io.LimitReader(in, m.rest))
	length := m.Length()
	if f == nil {
		return c.copy(d, body, length)
	}
	var at int64
	if f.At != nil {
		at = min(max(f.At(length), 0), length)
	}
	if at == length && (f.Kind == Corrupt || f.Kind == Truncate) {
		at = max(length-1, 0) // there must be something to spoil
	}
	if err := c.copy(d, body, at); err != nil {
		return err
	}
	if f.Before != nil {
		f.Before()
	}
	left := length - at
	switch f.Kind {
	case Reset:
		c.reset()
	case Finish:
		c.finish()
	case Delay:
		c.sleep(f.For)
	case Stall:
		c.mute(ToServer, ToClient)
		c.later(orElse(f.For, stallTime), c.reset)
	case Lose:
		c.mute(ToClient)
		if f.For >= 0 {
			c.later(orElse(f.For, lostTime), c.reset)
		}
	case Truncate:
		n := left
		if f.Length > 0 {
			n = min(left, f.Length)
		}
		if _, err := io.CopyN(io.Discard, body, n); err != nil {
			return err
		}
		left -= n
	case Corrupt:
		one := make([]byte, 1)
		if _, err := io.ReadFull(body, one); err != nil {
			return err
		}
		one[0] ^= 1 << (f.Bit & 7)
		if err := c.copy(d, bytes.NewReader(one), 1); err != nil {
			return err
		}
		left--
	case Answer:
		c.answer(d, f.Reply(m))
		if f.Hangup {
			c.finish()
		}
		_, err := io.CopyN(io.Discard, body, left)
		return err
	}
	return c.copy(d, body, left)
}

// answer sends the client something of our own; d's lock is held.
func (c *conn) answer(d Direction, data []byte) {
	if d != ToClient {
		c.write[ToClient].Lock()
		defer c.write[ToClient].Unlock()
	}
	_, _ = c.ends[ToClient].Write(data)
}

// copy passes n bytes, as they come, unless the direction is muted.
func (c *conn) copy(d Direction, from io.Reader, n int64) error {
	buf := make([]byte, min(n, 32<<10))
	for n > 0 {
		k, err := from.Read(buf[:min(n, int64(len(buf)))])
		n -= int64(k)
		if k > 0 && !c.muted[d].Load() {
			if _, werr := c.ends[d].Write(buf[:k]); werr != nil {
				return werr
			}
		}
		if err != nil && (n > 0 || err != io.EOF) {
			return err
		}
	}
	return nil
}

func (c *conn) mute(ways ...Direction) {
	for _, d := range ways {
		c.muted[d].Store(true)
	}
}

// sleep waits, unless the connection ends first.
func (c *conn) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.ctx.Done():
	}
}

// later does something after d, unless the connection ends first.
func (c *conn) later(d time.Duration, do func()) {
	c.p.work.Go(func() {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			do()
		case <-c.ctx.Done():
		}
	})
}

// reset cuts both ends.
func (c *conn) reset() {
	c.mute(ToServer, ToClient)
	time.Sleep(arrivalTime)
	for _, end := range c.ends {
		_ = end.SetLinger(0)
		_ = end.Close()
	}
}

// finish sends a FIN to both ends, and cuts the connections of ends that do not close.
func (c *conn) finish() {
	c.mute(ToServer, ToClient)
	for _, end := range c.ends {
		_ = end.CloseWrite()
	}
	c.later(lingerTime, c.reset)
}

func orElse(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}
