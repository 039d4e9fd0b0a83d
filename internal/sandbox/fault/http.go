package fault

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"time"
)

// Serve calls serve as f demands: it delays, loses or garbles the answer. Fault.Status is left to serve. The answer is buffered
// until it is complete. Serve returns what was answered, or nil if nothing was.
func Serve(f Fault, w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) *Answer {
	if !Sleep(r.Context(), f.Delay) {
		return nil
	}
	if f.Drop || f.CloseCode != 0 {
		ResetHTTP(w)
		return nil
	}
	buffer := &buffer{header: http.Header{}, status: http.StatusOK}
	serve(buffer, r)
	switch {
	case f.DropAfter:
		ResetHTTP(w)
		return nil
	case f.Mute:
		<-r.Context().Done()
		return nil
	case f.Garbage:
		buffer.body.Reset()
		buffer.body.WriteString(`{"baseURIs":[{"`)
	}
	if !Sleep(r.Context(), f.AnswerDelay) {
		return nil
	}
	buffer.writeTo(w)
	return &Answer{Status: buffer.status, Body: buffer.body.Bytes()}
}

// An Answer is an HTTP answer that was sent.
type Answer struct {
	Status int
	Body   []byte
}

// buffer is an http.ResponseWriter that keeps the answer in memory.
type buffer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (b *buffer) Header() http.Header         { return b.header }
func (b *buffer) WriteHeader(status int)      { b.status = status }
func (b *buffer) Write(p []byte) (int, error) { return b.body.Write(p) }

func (b *buffer) writeTo(w http.ResponseWriter) {
	for name, values := range b.header {
		w.Header()[name] = values
	}
	w.WriteHeader(b.status)
	_, _ = w.Write(b.body.Bytes())
}

// Sleep waits for d and reports whether ctx is still active afterwards.
func Sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// ResetHTTP ends the connection under w with a TCP reset.
func ResetHTTP(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	Reset(conn)
}

// Reset closes conn with a TCP reset, so that the peer gets an error instead of an end of stream.
func Reset(conn net.Conn) {
	for {
		c, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		conn = c.NetConn() // closing the TLS connection would send close_notify first
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
