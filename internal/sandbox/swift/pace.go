package swift

import (
	"io"
	"net"
	"net/http"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/fault"
)

// arrivalTime is how long bytes in flight may take to arrive before a reset.
const arrivalTime = 50 * time.Millisecond

// A verdict says how a body continues under a fault.
type verdict int

const (
	passing verdict = iota
	// cut: reset the connection.
	cut
	// stalled: transfer nothing more.
	stalled
	// over: the client disconnected or the store was closed.
	over
)

// A pacer divides a body into blocks, as a fault demands.
type pacer struct {
	x     *exchange
	fault fault.Fault
	block int64
	last  int64
}

func (x *exchange) newPacer(f fault.Fault) *pacer {
	p := &pacer{x: x, fault: f, block: readBlock}
	if f.BytesPerSecond > 0 {
		// Use smaller blocks at a low rate: no wait exceeds a second, so that a disconnected client is noticed soon.
		p.block = min(pacedBlock, f.BytesPerSecond)
	}
	return p
}

// next waits until more than the first done bytes may be transferred, and returns how many more at most.
func (p *pacer) next(done int64) (block int64, v verdict) {
	if v := p.at(done); v != passing {
		return 0, v
	}
	if p.fault.BytesPerSecond > 0 {
		// Wait as long as the previous block takes at the rate: not before the first block, nor after the last.
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

// at returns the verdict after the first done bytes of a body.
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

// end ends the exchange as v demands.
func (x *exchange) end(v verdict) {
	switch v {
	case cut:
		x.reset()
	case stalled:
		x.flush()
		// A server that does not read cannot notice that a client with much left to send disconnects. So resume reading after a
		// time in which every client must have noticed the stall.
		if x.wait(x.st.ClientTimeout) {
			x.mute()
		} else {
			x.reset()
		}
	default:
		x.reset()
	}
}

// mute never answers: it waits until the client disconnects or the store is closed.
func (x *exchange) mute() {
	_ = x.rc.SetReadDeadline(time.Time{})
	_, _ = io.Copy(io.Discard, x.r.Body)
	select {
	case <-x.r.Context().Done():
	case <-x.st.done:
	}
	x.reset()
}

// wait waits for d. It returns false if the client disconnects or the store is closed meanwhile.
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

// reset ends the exchange with a TCP reset.
func (x *exchange) reset() {
	conn := x.hijack()
	if x.answering {
		// A reset discards bytes in flight; give those before the cut time to arrive.
		x.wait(arrivalTime)
	}
	fault.Reset(conn)
}

// garbage answers with bytes that are not HTTP.
func (x *exchange) garbage() {
	conn := x.hijack()
	_ = conn.SetDeadline(time.Now().Add(x.st.ClientTimeout))
	_, _ = conn.Write([]byte("\x16\x03 this is not HTTP\r\n\r\n"))
	_ = conn.Close()
}

// hijack takes the connection from the HTTP server. If that is impossible it aborts the handler.
func (x *exchange) hijack() net.Conn {
	x.flush()
	conn, _, err := x.rc.Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return conn
}

// flush sends what has been written. It does nothing before the header is written, because net/http would send a 200.
func (x *exchange) flush() {
	if x.answering {
		_ = x.rc.Flush()
	}
}
