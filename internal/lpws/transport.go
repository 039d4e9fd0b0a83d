package lpws

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

const (
	// writeTimeout bounds the writing of one frame. After it the peer counts as lost.
	writeTimeout = 10 * time.Second
	// closeTimeout bounds the writing of the close frame.
	closeTimeout = 500 * time.Millisecond
	// maxPooledBuffer is the largest read buffer that is kept for reuse, in bytes.
	maxPooledBuffer = 64 << 10
)

// transport is one open WebSocket. It never reconnects.
//
// One goroutine reads frames; callers write theirs themselves, one at a time. The first error or close ends the transport: its
// reason is stored once, and every pending call returns it.
//
// Thousands of transports are idle at a time, so an idle one has no goroutine but its reader.
type transport struct {
	id           uint64 // unique in the pool, and larger than the ids of earlier transports
	ws           *websocket.Conn
	goroutines   *sync.WaitGroup // of the pool
	buffers      *sync.Pool      // of *frameBuffer
	readTimeout  time.Duration
	maxPart      int64               // Config.MaxFrame
	whole        int64               // frames of this size and more are decoded as they arrive
	endsIdentity func(code int) bool // reports whether a close code ends the credential

	writing chan struct{} // holds one token while a frame is written: a mutex that a context can give up on
	control chan struct{} // holds one token while a ping or pong is written

	closing chan struct{} // closed as soon as the reason is known
	done    chan struct{} // closed by the owner after read has returned and the session knows

	streams *atomic.Int64 // counts the large frames of the session that are arriving

	opened   time.Time
	nextPing atomic.Int64 // Unix nanoseconds; used only by the pool's keeper once the session is open

	subscription string        // LivePerson's id of the subscription to conversations; set while the transport is opened
	listed       chan struct{} // closed when LivePerson has listed the conversations for the first time

	mu      sync.Mutex
	reason  *closeReason            // nil while the transport is open; the reader runs at least as long
	pending map[string]*pendingCall // by request id; nil if there are none
	lastID  uint64
}

func newTransport(id uint64, ws *websocket.Conn, goroutines *sync.WaitGroup, buffers *sync.Pool, readTimeout time.Duration, maxPart int64, streams *atomic.Int64, endsIdentity func(int) bool) *transport {
	t := &transport{
		id: id, ws: ws, goroutines: goroutines, buffers: buffers, readTimeout: readTimeout, maxPart: maxPart, whole: min(wholeFrame, maxPart), streams: streams, endsIdentity: endsIdentity,
		writing: make(chan struct{}, 1), control: make(chan struct{}, 1),
		closing: make(chan struct{}), done: make(chan struct{}), listed: make(chan struct{}), opened: time.Now(),
		lastID: id << 24, // an answer to a request of an earlier connection must not be taken for one of this connection's
	}
	ws.SetPingHandler(func(data string) error {
		t.extendReadDeadline()
		t.writeControl(websocket.PongMessage, []byte(data))
		return nil
	})
	ws.SetPongHandler(func(string) error {
		t.extendReadDeadline()
		return nil
	})
	return t
}

func (t *transport) extendReadDeadline() { _ = t.ws.SetReadDeadline(time.Now().Add(t.readTimeout)) }

// A frameBuffer is what one frame is read with.
type frameBuffer struct {
	bytes.Buffer
	reader frameReader
	limit  io.LimitedReader // of reader
}

// frameReader reads one frame. The deadline is extended whenever bytes arrive, since a frame may take longer than readTimeout, but
// not beyond frameTime.
type frameReader struct {
	t        *transport
	r        io.Reader
	until    time.Time
	extended time.Time // when the deadline was extended last
}

func (f *frameReader) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	f.extend()
	return n, err
}

func (f *frameReader) extend() {
	now := time.Now()
	if now.Sub(f.extended) < f.t.readTimeout/64 { // a read has at most a kilobyte
		return
	}
	f.extended = now
	deadline := now.Add(f.t.readTimeout)
	if f.until.Before(deadline) {
		deadline = f.until
	}
	_ = f.t.ws.SetReadDeadline(deadline)
}

// ping keeps the connection alive. The reader notices a peer that does not answer.
func (t *transport) ping() { t.writeControl(websocket.PingMessage, nil) }

// writeControl writes a control frame in the background. Best effort: while another one is being written, the frame is dropped,
// since the peer is then not reading.
func (t *transport) writeControl(kind int, data []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.reason != nil {
		return
	}
	select {
	case t.control <- struct{}{}:
	default:
		return
	}
	t.goroutines.Go(func() {
		_ = t.ws.WriteControl(kind, data, time.Now().Add(writeTimeout))
		<-t.control
	})
}

// read reads frames until the transport ends. Only one goroutine may call it, once, and must then close done.
func (t *transport) read(to receiver) {
	t.extendReadDeadline()
	handled := make(chan *closeReason)
	for {
		kind, r, err := t.ws.NextReader()
		if err != nil {
			t.close(t.reasonOf(err))
			break
		}
		// Decoding grows the stack, and a grown stack stays. On a goroutine of its own it costs an idle session over TLS 4 KiB of
		// stack; without, 8 KiB (BenchmarkIdleSessions).
		go func() { handled <- t.readFrame(kind, r, to) }()
		if reason := <-handled; reason != nil {
			t.close(reason)
			break
		}
		t.extendReadDeadline()
	}
	if !t.closeReason().local() { // else sendClose closes the socket
		_ = t.ws.Close()
	}
}

// readFrame reads one frame and passes it on. Frames of unknown kinds are ignored.
func (t *transport) readFrame(kind int, r io.Reader, to receiver) *closeReason {
	buf := t.buffers.Get().(*frameBuffer)
	buf.Reset()
	buf.reader = frameReader{t: t, r: r, until: time.Now().Add(frameTime)}
	buf.reader.extend()
	buf.limit = io.LimitedReader{R: &buf.reader, N: t.whole}
	n, err := buf.ReadFrom(&buf.limit)
	switch {
	case err != nil:
		return t.reasonOf(err)
	case kind != websocket.TextMessage:
		if _, err := io.Copy(io.Discard, &buf.reader); err != nil {
			return t.reasonOf(err)
		}
		return nil
	case n == t.whole:
		return t.streamFrame(buf.Bytes(), &buf.reader, to)
	}
	f, err := parseFrame(buf.Bytes())
	f.connection = t.id
	if buf.Cap() <= maxPooledBuffer {
		buf.reader = frameReader{} // an idle pool keeps no connection
		t.buffers.Put(buf)         // f has copies
	}
	if err != nil {
		return &closeReason{kind: closedUnreadable, cause: err}
	}
	t.dispatch(&f, to)
	return nil
}

// dispatch passes a frame to the call that it answers, or to the receiver.
func (t *transport) dispatch(f *frame, to receiver) {
	switch {
	case f.isAnswer():
		t.deliver(f)
	case f.Kind == "notification":
		n := *f // the receiver may keep it: an answer need not be allocated for that
		to.notification(&n)
	}
}

// reasonOf converts an error of the socket.
func (t *transport) reasonOf(err error) *closeReason {
	r := &closeReason{kind: closedByPeer, cause: sanitize(err)}
	if e, ok := errors.AsType[*websocket.CloseError](err); ok {
		r.code = e.Code
		if t.endsIdentity(e.Code) {
			r.kind = closedIdentity
		}
	}
	if errors.Is(err, websocket.ErrReadLimit) {
		r.kind, r.cause = closedTooLarge, errors.New("a frame exceeded the size limit")
	}
	return r
}

// deliver passes an answer to its call. An answer without a waiting call is ignored.
func (t *transport) deliver(f *frame) {
	t.mu.Lock()
	call := t.pending[string(f.ReqID)]
	delete(t.pending, string(f.ReqID))
	t.mu.Unlock()
	if call != nil {
		call.answer = *f
		close(call.answered) // each id is delivered once
	}
}

// write writes a frame unless ctx ends or deadline passes before. A zero deadline means no deadline. sent is false only if nothing
// was written.
//
// The clock is checked with the lock held, as the last step before the socket. The process may be stopped for a while at any point
// before, and timers of contexts do not help then: they fire when the process continues, and do not count the time in which the
// machine was suspended. The wall clock does. Other servers rely on it: after the deadline they assume that this server does not
// publish any more.
//
// A caller whose context ends during the write still waits for the write, at most until deadline or writeTimeout.
func (t *transport) write(ctx context.Context, data []byte, deadline time.Time) (sent bool, err error) {
	locked := false
	defer func() {
		if locked {
			<-t.writing
		}
	}()
	select {
	case t.writing <- struct{}{}:
		locked = true
	case <-ctx.Done():
		return false, context.Cause(ctx)
	case <-t.closing:
	}
	if r := t.closeReason(); r != nil {
		<-t.done // a caller that retries must find a session that knows
		return false, r
	}
	if ctx.Err() != nil { // select picks at random if both are ready
		return false, context.Cause(ctx)
	}
	until := time.Now().Add(writeTimeout)
	if deadline = deadline.Round(0); !deadline.IsZero() { // Round: compare by the wall clock
		if !time.Now().Round(0).Before(deadline) {
			return false, errTooLate
		}
		if deadline.Before(until) {
			until = deadline // a peer that is not reading must not receive the rest of the frame later
		}
	}
	_ = t.ws.SetWriteDeadline(until)
	if err := t.ws.WriteMessage(websocket.TextMessage, data); err != nil {
		t.close(t.reasonOf(err))
		_ = t.ws.Close() // wakes the reader
		<-t.done
		return true, t.closeReason()
	}
	return true, nil
}

// close ends the transport and stores the reason, unless it has ended before. It does not wait; done is closed at the end.
func (t *transport) close(r *closeReason) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.reason != nil {
		return
	}
	t.reason = r
	close(t.closing)
	if r.local() {
		t.goroutines.Go(t.sendClose)
	}
}

// sendClose sends a close frame, best effort, and closes the socket.
func (t *transport) sendClose() {
	message := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	_ = t.ws.WriteControl(websocket.CloseMessage, message, time.Now().Add(closeTimeout))
	_ = t.ws.Close() // wakes the reader and a blocked writer
}

// closeReason returns why the transport ended; nil while it is open.
func (t *transport) closeReason() *closeReason {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.reason
}

// pendingCall is a request that was sent and has no answer yet.
type pendingCall struct {
	t        *transport
	id       string
	answered chan struct{} // closed when answer has arrived
	answer   frame
}

// send writes a request. The caller must forget the call. If it fails, sent is false only if nothing was written.
func (t *transport) send(ctx context.Context, r request) (call *pendingCall, sent bool, err error) {
	if ctx.Err() != nil {
		return nil, false, context.Cause(ctx)
	}
	call = &pendingCall{t: t, answered: make(chan struct{})}
	t.mu.Lock()
	t.lastID++
	call.id = strconv.FormatUint(t.lastID, 10)
	if t.pending == nil {
		t.pending = make(map[string]*pendingCall)
	}
	t.pending[call.id] = call
	t.mu.Unlock()

	r.Kind, r.ID = "req", call.id
	data, err := json.Marshal(r)
	if err != nil {
		err = share.Errorf(share.Internal, "a request could not be encoded", err)
	} else {
		sent, err = t.write(ctx, data, r.deadline)
	}
	if err != nil {
		call.forget()
		return nil, sent, err
	}
	return call, true, nil
}

// wait returns the answer. It fails with the cause of ctx's end, or with the *closeReason of the connection.
func (c *pendingCall) wait(ctx context.Context) (frame, error) {
	select {
	case <-c.answered:
		return c.answer, nil
	case <-ctx.Done():
		return frame{}, context.Cause(ctx)
	case <-c.t.done:
	}
	select {
	case <-c.answered: // it arrived just before the close
		return c.answer, nil
	default:
		return frame{}, c.t.closeReason()
	}
}

// forget stops waiting for the answer. It may be called at any time and more than once.
func (c *pendingCall) forget() {
	c.t.mu.Lock()
	delete(c.t.pending, c.id)
	if len(c.t.pending) == 0 {
		c.t.pending = nil // saves memory while the connection is idle
	}
	c.t.mu.Unlock()
}

// roundTrip sends a request and waits for the answer. sent is false only if nothing was written.
func (t *transport) roundTrip(ctx context.Context, r request) (answer frame, sent bool, err error) {
	call, sent, err := t.send(ctx, r)
	if err != nil {
		return frame{}, sent, err
	}
	defer call.forget()
	answer, err = call.wait(ctx)
	return answer, true, err
}

// calls returns the number of calls without an answer.
func (t *transport) calls() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.pending)
}
