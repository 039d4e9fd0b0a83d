package swift

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A pipeListener accepts in-memory connections, which work with the fake clock of synctest.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { close(l.closed); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (l *pipeListener) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	l.conns <- theirs
	return &watchedConn{Conn: ours}, nil
}

// stall is the StallTimeout and ResponseHeaderTimeout of newFakeTimeClient.
const stall = 30 * time.Second

// newFakeTimeClient returns a client of a store with the handler h, for use in a synctest bubble.
func newFakeTimeClient(t *testing.T, h http.HandlerFunc) *Client {
	l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: h}
	go func() { _ = server.Serve(l) }()
	c := New(Config{BaseURL: fixed("http://store.example"), StallTimeout: stall, ResponseHeaderTimeout: stall})
	c.template.DialContext = l.dial
	t.Cleanup(func() {
		_ = c.Close()
		_ = server.Close()
		<-time.After(time.Second) // http.Server keeps a connection for 500 ms after it has closed it
	})
	return c
}

// block is the unit in which the two sides of TestClient_SlowIsNotStalled transfer data.
const block = 16 << 10

// pauses is a reader that waits before each block.
type pauses struct {
	io.Reader
	d time.Duration
}

func (p pauses) Read(b []byte) (int, error) {
	<-time.After(p.d)
	n, err := io.ReadFull(p.Reader, b[:min(len(b), block)])
	if n > 0 {
		err = nil
	}
	return n, err
}

func TestPut_Stall(t *testing.T) {
	for name, c := range map[string]struct {
		read int64 // bytes that the store reads before it stalls; -1: all
		size int
		want time.Duration
	}{
		"no byte accepted":          {0, 1_000_000, stall},
		"some bytes accepted":       {100_000, 1_000_000, stall},
		"no answer to a small file": {-1, 1000, stall},
		"no answer to a large file": {-1, 1_000_000, stall},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := newFakeTimeClient(t, func(_ http.ResponseWriter, r *http.Request) {
					n := c.read
					if n < 0 {
						n = r.ContentLength
					}
					_, _ = io.CopyN(io.Discard, r.Body, n)
					<-t.Context().Done()
				})
				begin := time.Now()
				_, err := client.Put(t.Context(), account, sign("PUT", path), int64(c.size), "", body(strings.Repeat("x", c.size)))
				wantKind(t, err, share.StorageUnavailable)
				if took := time.Since(begin); took != c.want {
					t.Errorf("Put returned after %v, want %v", took, c.want)
				}
			})
		})
	}
}

func TestGet_Stall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := newFakeTimeClient(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000000")
			_, _ = w.Write(make([]byte, 100_000))
			w.(http.Flusher).Flush()
			<-t.Context().Done()
		})
		o, err := client.Get(t.Context(), account, sign("GET", path), 0, 0, "")
		if err != nil {
			t.Fatal(err)
		}
		defer o.Body.Close()
		begin := time.Now()
		got, err := io.ReadAll(o.Body)
		wantKind(t, err, share.StorageUnavailable)
		if took := time.Since(begin); len(got) != 100_000 || took != stall || !errors.Is(err, errStalled) {
			t.Errorf("%d bytes, then %v after %v; want 100000, and a stall after %v", len(got), err, took, stall)
		}
	})
}

// TestClient_SlowIsNotStalled transfers files for far longer than the stall timeout, with pauses of the store that are shorter,
// and pauses of this side that are longer.
func TestClient_SlowIsNotStalled(t *testing.T) {
	for name, c := range map[string]struct{ store, source, reader time.Duration }{
		"slow store":            {store: stall / 4},
		"slow source of a PUT":  {source: 10 * stall},
		"slow reader of a GET":  {reader: 10 * stall},
		"all of these are slow": {stall / 4, 10 * stall, 10 * stall},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				whole := strings.Repeat("0123456789abcdef", 20*block/16)
				client := newFakeTimeClient(t, func(w http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodPut {
						var got strings.Builder // io.Copy reads into 32 KiB, io.ReadAll into less than a block
						if _, err := io.Copy(&got, pauses{r.Body, c.store}); got.String() != whole {
							t.Errorf("the store received %d bytes, %v", got.Len(), err)
						}
						w.WriteHeader(http.StatusCreated)
						return
					}
					w.Header().Set("Content-Length", strconv.Itoa(len(whole)))
					for from := 0; from < len(whole); from += block {
						<-time.After(c.store)
						_, _ = io.WriteString(w, whole[from:from+block])
						w.(http.Flusher).Flush()
					}
				})
				begin := time.Now()
				_, err := client.Put(t.Context(), account, sign("PUT", path), int64(len(whole)), "", io.NopCloser(pauses{strings.NewReader(whole), c.source}))
				if err != nil {
					t.Errorf("Put: %v", err)
				}
				o, err := client.Get(t.Context(), account, sign("GET", path), 0, 0, "")
				if err != nil {
					t.Fatal(err)
				}
				defer o.Body.Close()
				var got strings.Builder
				if _, err := io.Copy(&got, pauses{o.Body, c.reader}); err != nil || got.String() != whole {
					t.Errorf("Get: %d bytes, %v", got.Len(), err)
				}
				if took := time.Since(begin); took < 3*stall {
					t.Errorf("the transfers took %v: nothing was slow", took)
				}
			})
		})
	}
}
