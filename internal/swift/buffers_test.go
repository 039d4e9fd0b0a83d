package swift

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A bufferBody is a body of zeros in buffers, whose memory is used for something else after Put.
type bufferBody struct {
	buffer []byte
	left   int
	after  func(left int) error // an error after so many bytes; nil: none
}

func (b *bufferBody) ReadBuffers(limit int64) ([][]byte, error) {
	if b.after != nil {
		if err := b.after(b.left); err != nil {
			return nil, err
		}
	}
	if b.left == 0 {
		return nil, io.EOF
	}
	n := min(int(limit), b.left)
	b.left -= n
	return [][]byte{b.buffer[:n/3], b.buffer[n/3 : n]}, nil
}

func (b *bufferBody) Read(p []byte) (n int, err error) {
	buffers, err := b.ReadBuffers(int64(len(p)))
	for _, part := range buffers {
		n += copy(p[n:], part)
	}
	return n, err
}

func (b *bufferBody) Close() error { return nil }

// putReused makes a PUT of a bufferBody, and then writes into its memory.
func putReused(ctx context.Context, c *Client, size int, after func(left int) error) error {
	b := &bufferBody{make([]byte, maxWrite), size, after}
	_, err := c.Put(ctx, account, sign("PUT", path), int64(size), "", b)
	for i := range b.buffer {
		b.buffer[i] = 0xdb
	}
	return err
}

// TestPut_BuffersUnusedAfterReturn ends a PUT while a write of the body's buffers blocks. The peer reads on when Put has returned.
func TestPut_BuffersUnusedAfterReturn(t *testing.T) {
	left := errors.New("the caller left")
	for name, c := range map[string]struct {
		answer string
		cancel bool
		want   share.Kind
	}{
		"rejected":     {answer: "401 Unauthorized", want: share.StorageURLRejected},
		"acknowledged": {answer: "201 Created", want: share.StorageProtocolError},
		"superseded":   {answer: "202 Accepted"},
		"cancelled":    {cancel: true, want: share.StorageUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(testContext(t))
			defer cancel(nil)
			returned, received := make(chan struct{}), make(chan []byte, 1)
			client := newRawPeer(t, func(conn *net.TCPConn) {
				if c.cancel {
					cancel(left)
				} else {
					_, _ = io.WriteString(conn, "HTTP/1.1 "+c.answer+"\r\nContent-Length: 0\r\n\r\n")
				}
				<-returned
				b, _ := io.ReadAll(conn)
				received <- b
			})
			err := putReused(ctx, client, 50_000_000, nil)
			close(returned)
			wantKind(t, err, c.want)
			_ = client.Close()
			if b := <-received; bytes.IndexByte(b, 0xdb) >= 0 {
				t.Errorf("of %d bytes the store got some that were written after Put had returned", len(b))
			}
		})
	}
}

// TestPut_Buffers stores bodies in buffers over one connection, of which some fail.
func TestPut_Buffers(t *testing.T) {
	own := errors.New("own error")
	var opened atomic.Int32
	c := newPeer(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err == nil && (int64(len(b)) != r.ContentLength || bytes.Trim(b, "\x00") != nil) {
			t.Errorf("received %d bytes, want %d zeros", len(b), r.ContentLength)
		}
		w.WriteHeader(http.StatusCreated)
	}, func(config *Config) { config.MaxConns = 1 })
	dial := c.template.DialContext
	c.template.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		opened.Add(1)
		return dial(ctx, network, address)
	}
	for range 5 {
		for _, size := range []int{1, 1000, maxWrite, 300_000} {
			if err := putReused(testContext(t), c, size, nil); err != nil {
				t.Errorf("%d bytes: %v", size, err)
			}
		}
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	err := putReused(testContext(t), c, 1_000_000, func(left int) error {
		if left < 500_000 {
			return own
		}
		return nil
	})
	if err != own {
		t.Errorf("%v, want the body's own error", err)
	}
	_, err = c.Put(testContext(t), account, sign("PUT", path), 1_000_000, "", &bufferBody{make([]byte, maxWrite), 400_000, nil})
	wantKind(t, err, share.Internal)
}

// An endingConn is a connection whose feed ends while all bytes are being written.
type endingConn struct {
	net.Conn
	f *feed
}

func (c *endingConn) Write(p []byte) (int, error) { c.f.abort(); return len(p), nil }

func (c *endingConn) SetWriteDeadline(time.Time) error { return nil }

func TestFeed_EndsWhenAllIsWritten(t *testing.T) {
	_, dog := newWatchdog(t.Context())
	defer dog.end()
	body := &bufferBody{make([]byte, maxWrite), 1, nil}
	f := newFeed(body, 1, dog, time.Minute, time.Minute)
	if n, err := f.writeTo(&endingConn{f: f}, body); n != 1 || err != nil {
		t.Errorf("%d bytes, %v; want 1 and no error, so that the connection is used again", n, err)
	}
}
