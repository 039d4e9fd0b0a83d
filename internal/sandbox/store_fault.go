package sandbox

import (
	"io"
	"net"
	"net/http"
	"time"
)

// arrivalTime is how long the bytes before a cut are given to arrive.
const arrivalTime = 50 * time.Millisecond

// A verdict is what a fault has decided about a body.
type verdict int

const (
	passing verdict = iota
	// cut: the connection is to be reset.
	cut
	// stalled: nothing more is to pass.
	stalled
	// over: the peer or the sandbox has gone in the meantime.
	over
)

// A pacer lets a body pass in blocks, as a fault wants it.
type pacer struct {
	x     *exchange
	fault Fault
	block int64
	last  int64
}

func (x *exchange) newPacer(f Fault) *pacer {
	p := &pacer{x: x, fault: f, block: readBlock}
	if f.BytesPerSecond > 0 {
		// At a low rate smaller blocks: no wait is longer than a second, so that a peer that has gone is soon missed.
		p.block = min(pacedBlock, f.BytesPerSecond)
	}
	return p
}

// next waits until more may pass after the first done bytes, and tells how much at most.
func (p *pacer) next(done int64) (block int64, v verdict) {
	if v := p.at(done); v != passing {
		return 0, v
	}
	if p.fault.BytesPerSecond > 0 {
		// The wait is as long as the block before takes at the rate: none before the first one, none after the last.
		if !p.x.wait(time.Duration(float64(p.last) / float64(p.fault.BytesPerSecond) * float64(time.Second))) {
			return 0, over
		}
	}
	block = p.block
	for _, position := range []int64{p.fault.CutAfter, p.fault.StallAfter} {
		if position > 0 {
			block = min(block, position-done)
		}
	}
	p.last = block
	return block, passing
}

// at is the verdict on a body of which the first done bytes have passed.
func (p *pacer) at(done int64) verdict {
	switch f := p.fault; {
	case f.CutAfter < 0 || f.CutAfter > 0 && done >= f.CutAfter:
		return cut
	case f.StallAfter < 0 || f.StallAfter > 0 && done >= f.StallAfter:
		return stalled
	default:
		return passing
	}
}

// end carries out a verdict that ends the exchange.
func (x *exchange) end(v verdict) {
	switch v {
	case cut:
		x.reset()
	case stalled:
		x.flush()
		// A peer that leaves while it has much to send cannot be seen to leave by one who does not read. So reading goes on
		// after a time in which every peer must have noticed that nothing moves.
		if x.wait(x.st.clientTimeout) {
			x.mute()
		} else {
			x.reset()
		}
	default:
		x.reset()
	}
}

// mute never answers: it waits until the peer goes away or the sandbox closes.
func (x *exchange) mute() {
	_ = x.rc.SetReadDeadline(time.Time{})
	_, _ = io.Copy(io.Discard, x.r.Body)
	select {
	case <-x.r.Context().Done():
	case <-x.st.done:
	}
	x.reset()
}

// wait waits for d and reports whether that passed without the peer having gone or the sandbox having been closed.
func (x *exchange) wait(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-x.r.Context().Done():
		return false
	case <-x.st.done:
		return false
	}
}

// reset cuts the connection so that the peer sees a TCP reset. The exchange is over then.
func (x *exchange) reset() {
	conn := x.hijack()
	if x.answering {
		// A reset overtakes what has been sent: what was to pass before the cut needs time to arrive.
		x.wait(arrivalTime)
	}
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
		// A TLS connection would say goodbye.
		conn = t.NetConn()
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// garbage answers with what no HTTP client can read.
func (x *exchange) garbage() {
	conn := x.hijack()
	_ = conn.SetDeadline(time.Now().Add(x.st.clientTimeout))
	_, _ = conn.Write([]byte("\x16\x03 this is no answer\r\n\r\n"))
	_ = conn.Close()
}

// hijack takes the connection from the server. Where that is impossible it is cut in the server's own way.
func (x *exchange) hijack() net.Conn {
	x.flush()
	conn, _, err := x.rc.Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return conn
}

// flush sends what has been written. Before the header is written it must send nothing: the server would make up a 200.
func (x *exchange) flush() {
	if x.answering {
		_ = x.rc.Flush()
	}
}
