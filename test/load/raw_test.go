package load

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
)

// A rawConn is an HTTP/2 connection that sends only what its caller asks for, as no gRPC client would. One goroutine reads the
// responses.
type rawConn struct {
	net.Conn
	framer *http2.Framer
	block  bytes.Buffer
	pack   *hpack.Encoder
	next   uint32 // the next stream's id

	write sync.Mutex // the framer's writing side: the reader acknowledges

	mu      sync.Mutex
	ended   map[uint32]string // grpc-status by stream, or how else it ended
	windows map[uint32]int    // what the server granted a stream beyond its initial window
	cause   error             // why the connection ended
	gone    chan struct{}     // closed when it has
	news    chan struct{}     // has a value after a change of ended or windows
}

// dialRaw connects, with so many bytes of window for each stream.
func dialRaw(tb testing.TB, addr string, window uint32) *rawConn {
	tb.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	c := &rawConn{Conn: conn, framer: http2.NewFramer(conn, conn), next: 1, ended: make(map[uint32]string), windows: make(map[uint32]int),
		gone: make(chan struct{}), news: make(chan struct{}, 1)}
	c.pack = hpack.NewEncoder(&c.block)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	tb.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		tb.Fatal(err)
	}
	if err := c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}); err != nil {
		tb.Fatal(err)
	}
	go c.read() // ends with the connection
	return c
}

func (c *rawConn) read() {
	defer close(c.gone)
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			if _, ok := errors.AsType[http2.StreamError](err); ok {
				continue
			}
			c.mu.Lock()
			c.cause = err
			c.mu.Unlock()
			return
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				c.write.Lock()
				_ = c.framer.WriteSettingsAck()
				c.write.Unlock()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				c.write.Lock()
				_ = c.framer.WritePing(true, f.Data)
				c.write.Unlock()
			}
		case *http2.MetaHeadersFrame:
			if f.StreamEnded() {
				status := "no status"
				for _, h := range f.Fields {
					if h.Name == "grpc-status" {
						status = h.Value
					}
				}
				c.end(f.StreamID, status)
			}
		case *http2.RSTStreamFrame:
			c.end(f.StreamID, f.ErrCode.String())
		case *http2.WindowUpdateFrame:
			c.mu.Lock()
			c.windows[f.StreamID] += int(f.Increment)
			c.mu.Unlock()
			c.notify()
		}
	}
}

func (c *rawConn) end(stream uint32, how string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.ended[stream]; !ok {
		c.ended[stream] = how
	}
	delete(c.windows, stream)
	c.notify()
}

func (c *rawConn) notify() {
	select {
	case c.news <- struct{}{}:
	default:
	}
}

// over reports whether a stream has ended.
func (c *rawConn) over(stream uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.ended[stream]
	return ok
}

// window is how many bytes a stream may have sent by now, of a server whose initial window is 1 MiB.
func (c *rawConn) window(stream uint32) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return mib + c.windows[stream]
}

// endings is how many of the streams have ended, and how.
func (c *rawConn) endings() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := make(map[string]int)
	for _, how := range c.ended {
		n[how]++
	}
	return n
}

// headers opens a stream of a method, with further headers, name and value.
func (c *rawConn) headers(method string, end bool, more ...string) (stream uint32, err error) {
	c.write.Lock()
	defer c.write.Unlock()
	stream = c.next
	c.next += 2
	c.block.Reset()
	fields := append([]string{
		":method", "POST", ":scheme", "http", ":path", method, ":authority", "localhost", "content-type", "application/grpc", "te", "trailers",
	}, more...)
	for i := 0; i < len(fields); i += 2 {
		if err := c.pack.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			return 0, err
		}
	}
	return stream, c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.block.Bytes(), EndHeaders: true, EndStream: end})
}

func (c *rawConn) data(stream uint32, end bool, b []byte) error {
	c.write.Lock()
	defer c.write.Unlock()
	return c.framer.WriteData(stream, end, b)
}

// message is m as gRPC frames it.
func message(tb testing.TB, m proto.Message) []byte {
	tb.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...)
}

// ended returns how many streams of the connections have ended.
func ended(conns ...*rawConn) (n int) {
	for _, c := range conns {
		for _, k := range c.endings() {
			n += k
		}
	}
	return n
}

// eventually polls until ok returns true. It polls less often than harness.Eventually, because ok makes the server collect garbage.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	const limit = 2 * time.Minute
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(limit); !ok(); <-tick.C {
		if time.Now().After(end) {
			tb.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// isOver reports whether an error of a connection says that the other side ended it.
func isOver(err error) bool {
	return err != nil && (errors.Is(err, io.EOF) || strings.Contains(err.Error(), "reset") || strings.Contains(err.Error(), "broken pipe"))
}
