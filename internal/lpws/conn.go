package lpws

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

const (
	// queueLength is how many frames may wait to be written to a socket; who comes then waits with its own context.
	queueLength = 16
	// writeTimeout is how long one frame may take to be written before the peer counts as gone.
	writeTimeout = 10 * time.Second
	// closeTimeout is how long the peer has to take the close frame.
	closeTimeout = 500 * time.Millisecond
	// keptBuffer is the largest read buffer that is kept for the next frame.
	keptBuffer = 64 << 10
)

// A conn is one open socket. One goroutine reads it, and another writes it whenever there is something to write, until its death:
// an error that is stored once and that everybody sees who waits for an answer. It never reconnects.
//
// Thousands of conns are idle at a time, so an idle one has its reader alone, and a reader whose stack has never grown: frames
// are decoded on stacks that are given back.
type conn struct {
	ws      *websocket.Conn
	p       *Pool               // has every goroutine of the conn in its wg
	ends    func(code int) bool // whether a close code is about the identity
	silence time.Duration       // how long the peer may be silent
	notify  func(*conn, *frame) // called with each notification, one after another; must not block
	buried  func(*conn)         // called when all is over, before done
	out     chan *outgoing
	dying   chan struct{} // closed as soon as the death is known
	done    chan struct{} // closed when the reader has ended and buried has returned

	snapshot chan struct{} // closed with the first news of conversations
	told     bool          // by notify: snapshot is closed

	begun    time.Time    // when it was opened
	nextPing atomic.Int64 // when, in Unix nanoseconds; touched by the keeper alone once open
	strays   atomic.Int64 // answers that nobody waited for, and frames that are none of ours

	mu      sync.Mutex
	death   *death                // while it is nil, the reader runs
	writing bool                  // there is a writer
	waiting map[string]chan frame // by request id
	lastID  uint64
}

// An outgoing is a frame on its way to the writer. Exactly one side wins it: the writer by taking it, or whoever gave it up by
// withdrawing it, in which case it was never written.
type outgoing struct {
	kind  int // websocket.TextMessage, PingMessage or PongMessage
	data  []byte
	state atomic.Int32
}

const (
	queued int32 = iota
	taken
	withdrawn
)

func newConn(ws *websocket.Conn, p *Pool, silence time.Duration) *conn {
	ws.SetReadLimit(p.cfg.MaxFrame)
	c := &conn{
		ws: ws, p: p, silence: silence, begun: time.Now(), out: make(chan *outgoing, queueLength),
		dying: make(chan struct{}), done: make(chan struct{}), snapshot: make(chan struct{}),
	}
	ws.SetPingHandler(func(data string) error {
		c.heard()
		c.offer(&outgoing{kind: websocket.PongMessage, data: []byte(data)})
		return nil
	})
	ws.SetPongHandler(func(string) error {
		c.heard()
		return nil
	})
	return c
}

// heard puts off the moment at which the peer counts as gone.
func (c *conn) heard() { _ = c.ws.SetReadDeadline(time.Now().Add(c.silence)) }

// offer queues a frame that does not matter much: if there is no room it is dropped, and the writer is stuck anyhow.
func (c *conn) offer(o *outgoing) {
	select {
	case c.out <- o:
		c.startWriter()
	default:
	}
}

// ping keeps the connection alive.
func (c *conn) ping() { c.offer(&outgoing{kind: websocket.PingMessage}) }

// read is the reader: the only one who reads from the socket.
func (c *conn) read() {
	c.heard()
	for {
		buf, d := c.readFrame()
		if d == nil && buf != nil {
			took := make(chan *death)
			go func() { took <- c.take(buf) }()
			d = <-took
		}
		if d != nil {
			c.end(d)
			break
		}
	}
	if !c.whyDead().ours() { // else the farewell closes it
		_ = c.ws.Close()
	}
	c.buried(c)
	close(c.done)
}

// readFrame reads the next frame; nil if it is none of ours.
func (c *conn) readFrame() (*bytes.Buffer, *death) {
	kind, r, err := c.ws.NextReader()
	if err != nil {
		return nil, c.causeOf(err)
	}
	buf := c.p.readBuffers.Get().(*bytes.Buffer)
	buf.Reset()
	if _, err := buf.ReadFrom(r); err != nil {
		return nil, c.causeOf(err)
	}
	c.heard()
	if kind != websocket.TextMessage {
		c.strays.Add(1)
		return nil, nil
	}
	return buf, nil
}

// take makes use of a frame.
func (c *conn) take(buf *bytes.Buffer) *death {
	f, err := parseFrame(buf.Bytes())
	if buf.Cap() <= keptBuffer {
		c.p.readBuffers.Put(buf) // what was decoded was copied out of it
	}
	switch {
	case err != nil:
		return &death{kind: deathGarbage, text: err}
	case f.isAnswer():
		c.deliver(&f)
	case f.Kind == "notification":
		c.notify(c, &f)
	default:
		c.strays.Add(1)
	}
	return nil
}

// causeOf says what an error of the socket means.
func (c *conn) causeOf(err error) *death {
	d := &death{kind: deathLost, text: plain(err)}
	if e, ok := errors.AsType[*websocket.CloseError](err); ok {
		d.code = e.Code
		if c.ends(e.Code) {
			d.kind = deathIdentity
		}
	}
	if errors.Is(err, websocket.ErrReadLimit) {
		d.kind, d.text = deathTooBig, errors.New("a frame over the limit")
	}
	return d
}

// deliver hands an answer to who waits for it.
func (c *conn) deliver(f *frame) {
	c.mu.Lock()
	answer, known := c.waiting[string(f.ReqID)]
	delete(c.waiting, string(f.ReqID))
	c.mu.Unlock()
	if !known {
		c.strays.Add(1)
		return
	}
	answer <- *f // there is room: each id is delivered once
}

// startWriter has what is queued written, if that is not being done already.
func (c *conn) startWriter() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.death == nil && !c.writing {
		c.writing = true
		c.p.wg.Go(c.write)
	}
}

// idle reports whether nothing is queued; if so, the writer has no more to do.
func (c *conn) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.out) > 0 {
		return false
	}
	c.writing = false
	return true
}

// write is the writer: it writes until nothing is queued.
func (c *conn) write() {
	for {
		select {
		case <-c.dying:
			return
		default:
		}
		var o *outgoing
		select {
		case o = <-c.out:
		default:
			if c.idle() {
				return
			}
			continue
		}
		if !o.state.CompareAndSwap(queued, taken) {
			continue
		}
		deadline := time.Now().Add(writeTimeout)
		var err error
		if o.kind == websocket.TextMessage {
			_ = c.ws.SetWriteDeadline(deadline)
			err = c.ws.WriteMessage(o.kind, o.data)
		} else {
			err = c.ws.WriteControl(o.kind, o.data, deadline)
		}
		if err != nil {
			c.end(c.causeOf(err))
			_ = c.ws.Close() // wakes the reader
			return
		}
	}
}

// end notes the connection's death, if it is the first to do so. It does not wait: done tells when all is over.
func (c *conn) end(d *death) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.death != nil {
		return
	}
	c.death = d
	close(c.dying)
	if d.ours() {
		c.p.wg.Go(c.farewell)
	}
}

// farewell tells the peer that we go, if it listens, and goes.
func (c *conn) farewell() {
	goodbye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	_ = c.ws.WriteControl(websocket.CloseMessage, goodbye, time.Now().Add(closeTimeout))
	_ = c.ws.Close() // wakes the reader, and a writer that is stuck
}

// whyDead is the death of a connection that is dying.
func (c *conn) whyDead() *death {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.death
}

// A call is a request that was sent, and that somebody waits for.
type call struct {
	c      *conn
	id     string
	out    *outgoing
	answer chan frame
}

// send queues a request. It gives up when ctx ends or the connection dies; nothing was written then. Who got a call forgets it.
func (c *conn) send(ctx context.Context, r request) (*call, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	k := &call{c: c, out: &outgoing{kind: websocket.TextMessage}, answer: make(chan frame, 1)}
	c.mu.Lock()
	if c.death != nil {
		c.mu.Unlock()
		<-c.done // so that whoever tries again finds a session that knows
		return nil, c.death
	}
	c.lastID++
	k.id = strconv.FormatUint(c.lastID, 10)
	if c.waiting == nil {
		c.waiting = make(map[string]chan frame)
	}
	c.waiting[k.id] = k.answer
	c.mu.Unlock()

	r.Kind, r.ID = "req", k.id
	data, err := json.Marshal(r)
	if err != nil {
		k.forget()
		return nil, share.Errorf(share.Internal, "a request could not be written", err)
	}
	k.out.data = data
	select {
	case c.out <- k.out:
		c.startWriter()
		return k, nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-c.dying:
		<-c.done
		err = c.death
	}
	k.forget()
	return nil, err
}

// wait returns the answer to the call, or why there is none: the cause of ctx's end, or the connection's *death.
func (k *call) wait(ctx context.Context) (frame, error) {
	select {
	case f := <-k.answer:
		return f, nil
	case <-ctx.Done():
		return frame{}, context.Cause(ctx)
	case <-k.c.done:
	}
	select {
	case f := <-k.answer: // it came with the last breath
		return f, nil
	default:
		return frame{}, k.c.death
	}
}

// forget stops waiting for the call. It may be called at any time and more than once.
func (k *call) forget() {
	k.c.mu.Lock()
	delete(k.c.waiting, k.id)
	if len(k.c.waiting) == 0 {
		k.c.waiting = nil // an idle connection does not keep the room
	}
	k.c.mu.Unlock()
}

// neverSent withdraws the call's frame and reports whether it is certain that it was never written.
func (k *call) neverSent() bool {
	return k.out.state.CompareAndSwap(queued, withdrawn)
}

// do sends a request and waits for its answer. sent is false only if it is certain that nothing was written.
func (c *conn) do(ctx context.Context, r request) (answer frame, sent bool, err error) {
	k, err := c.send(ctx, r)
	if err != nil {
		return frame{}, false, err
	}
	defer k.forget()
	answer, err = k.wait(ctx)
	if err != nil {
		return frame{}, !k.neverSent(), err
	}
	return answer, true, nil
}

// post sends a request whose answer does not matter, if there is room for it.
func (c *conn) post(r request) {
	c.mu.Lock()
	c.lastID++
	r.Kind, r.ID = "req", strconv.FormatUint(c.lastID, 10)
	c.mu.Unlock()
	if data, err := json.Marshal(r); err == nil {
		c.offer(&outgoing{kind: websocket.TextMessage, data: data})
	}
}

// waiters is how many calls wait for an answer.
func (c *conn) waiters() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting)
}
