package swift

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"

	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	account = "12345678"
	path    = "/v1/AUTH_async-images/12345678/0b2e2f0c.PNG"
	key     = "example-key"
)

// sign makes a URL as LivePerson would.
func sign(method, path string) share.TempURL {
	until := time.Now().Add(time.Minute)
	expires := strconv.FormatInt(until.Unix(), 10)
	h := hmac.New(sha1.New, []byte(key))
	_, _ = io.WriteString(h, method+"\n"+expires+"\n"+path)
	return share.TempURL{Path: path, Sig: hex.EncodeToString(h.Sum(nil)), Expires: expires, ExpireTime: until}
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func newClient(t *testing.T, base string, change ...func(*Config)) *Client {
	config := Config{BaseURL: Static(base), ResponseHeaderTimeout: 5 * time.Second, StallTimeout: 5 * time.Second}
	for _, f := range change {
		f(&config)
	}
	c := New(config)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// newStore starts a sandbox whose store takes URLs by sign.
func newStore(t *testing.T, change ...func(*Config)) (*sandbox.Sandbox, *Client) {
	sb, err := sandbox.Start(sandbox.Options{SwiftKey: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sb.Close() })
	return sb, newClient(t, sb.URL(), change...)
}

// newPeer starts a server that answers with whatever the test wants.
func newPeer(t *testing.T, h http.HandlerFunc, change ...func(*Config)) *Client {
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return newClient(t, server.URL, change...)
}

// newRawPeer starts a server that reads one request's header from each connection and hands the connection over.
func newRawPeer(t *testing.T, serve func(conn *net.TCPConn), change ...func(*Config)) *Client {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			r := bufio.NewReaderSize(conn, 16)
			for line := "x"; line != "\r\n" && err == nil; {
				line, err = r.ReadString('\n')
			}
			serve(conn.(*net.TCPConn))
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return newClient(t, "http://"+ln.Addr().String(), change...)
}

func body(s string) io.ReadCloser { return io.NopCloser(strings.NewReader(s)) }

func hexMD5(s string) string {
	sum := md5.Sum([]byte(s))
	return hex.EncodeToString(sum[:])
}

func wantKind(t *testing.T, err error, want share.Kind) {
	t.Helper()
	if share.KindOf(err) != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func mustPut(t *testing.T, c *Client, data string) {
	t.Helper()
	if _, err := c.Put(testContext(t), account, sign("PUT", path), int64(len(data)), "image/png", body(data)); err != nil {
		t.Fatal(err)
	}
}

func TestPutGetHead(t *testing.T) {
	sb, c := newStore(t)
	ctx := testContext(t)
	data := strings.Repeat("0123456789abcdef", 100_000)
	stored, err := c.Put(ctx, account, sign("PUT", path), int64(len(data)), "image/png", body(data))
	if err != nil {
		t.Fatal(err)
	}
	if stored.ETag != hexMD5(data) || stored.Size != int64(len(data)) || stored.Superseded || stored.ModTime.IsZero() {
		t.Errorf("put: %+v", stored)
	}
	if j := sb.Journal(); len(j.Stored) != 1 || j.Stored[0].Path != path {
		t.Errorf("journal: %+v", j.Stored)
	}
	o, err := c.Get(ctx, account, sign("GET", path), 0, 0, "")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(o.Body)
	if err != nil || string(got) != data || o.Start != 0 || o.End != o.Size || o.ETag != stored.ETag {
		t.Errorf("get: %d bytes, %v, %+v", len(got), err, o)
	}
	if err := o.Body.Close(); err != nil {
		t.Error(err)
	}
	head, err := c.Head(ctx, account, sign("GET", path))
	if err != nil || head.Size != int64(len(data)) || head.ETag != stored.ETag {
		t.Errorf("head: %+v %v", head, err)
	}
	if stored, err = c.Put(ctx, account, sign("PUT", path), 0, "", body("")); err != nil || stored.ETag != hexMD5("") {
		t.Errorf("empty: %+v %v", stored, err)
	}
}

func TestGetRanges(t *testing.T) {
	const data = "0123456789"
	sb, c := newStore(t)
	mustPut(t, c, data)
	// One that does not know ranges.
	whole := newPeer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		w.Header().Set("Etag", `"`+hexMD5(data)+`"`)
		_, _ = io.WriteString(w, data)
	})
	for _, c := range []struct {
		start, limit int64
		want         string
		kind         share.Kind
	}{
		{0, 0, data, ""}, {0, 4, "0123", ""}, {3, 0, "3456789", ""}, {3, 2, "34", ""}, {3, 100, "3456789", ""}, {9, 0, "9", ""},
		{-3, 0, "789", ""}, {-3, 2, "78", ""}, {-100, 0, data, ""}, {-100, 1, "0", ""},
		{1, 1<<63 - 1, "123456789", ""},
		{10, 0, "", share.RangeNotSatisfiable}, {11, 5, "", share.RangeNotSatisfiable}, {0, -1, "", share.RangeNotSatisfiable},
	} {
		for name, client := range map[string]*Client{"ranged": newClient(t, sb.URL()), "whole": whole} {
			t.Run(fmt.Sprintf("%s %d+%d", name, c.start, c.limit), func(t *testing.T) {
				o, err := client.Get(testContext(t), account, sign("GET", path), c.start, c.limit, hexMD5(data))
				if err != nil {
					wantKind(t, err, c.kind)
					if e, ok := errors.AsType[*share.Error](err); !ok || c.limit >= 0 && e.Metadata["sizeBytes"] != "10" {
						t.Errorf("metadata: %+v", e)
					}
					return
				}
				defer o.Body.Close()
				if err := iotest.TestReader(o.Body, []byte(c.want)); err != nil {
					t.Error(err)
				}
				if o.Size != 10 || data[o.Start:o.End] != c.want || c.kind != "" {
					t.Errorf("%+v", o)
				}
			})
		}
	}
	mustPut(t, c, "")
	for _, ask := range [][2]int64{{0, 0}, {0, 5}, {-5, 0}} {
		o, err := c.Get(testContext(t), account, sign("GET", path), ask[0], ask[1], "")
		if err != nil {
			t.Errorf("%v of nothing: %v", ask, err)
			continue
		}
		if got, err := io.ReadAll(o.Body); len(got) > 0 || err != nil || o.Size != 0 || o.ETag != hexMD5("") {
			t.Errorf("%v of nothing: %q %v %+v", ask, got, err, o)
		}
		_ = o.Body.Close()
	}
}

// TestStatuses is the table of what the store's answers mean.
func TestStatuses(t *testing.T) {
	for _, c := range []struct {
		status         int
		put, get, head share.Kind
	}{
		{200, share.StorageProtocolError, "", ""},
		{204, share.StorageProtocolError, share.StorageProtocolError, share.StorageProtocolError},
		{206, share.StorageProtocolError, share.StorageProtocolError, share.StorageProtocolError},
		{302, share.StorageProtocolError, share.StorageProtocolError, share.StorageProtocolError},
		{304, share.StorageProtocolError, share.StorageProtocolError, share.StorageProtocolError},
		{400, share.StorageProtocolError, share.StorageProtocolError, share.StorageProtocolError},
		{401, share.StorageURLRejected, share.StorageURLRejected, share.StorageURLRejected},
		{403, share.StorageDenied, share.StorageDenied, share.StorageDenied},
		{404, share.StorageDenied, share.FileNotFound, share.FileNotFound},
		{408, share.StorageUnavailable, share.StorageUnavailable, share.StorageUnavailable},
		{411, share.StorageProtocolError, share.StorageProtocolError, share.StorageProtocolError},
		{412, share.StorageProtocolError, share.FileChanged, share.FileChanged},
		{413, share.FileTooLarge, share.StorageProtocolError, share.StorageProtocolError},
		{416, share.StorageProtocolError, share.RangeNotSatisfiable, share.RangeNotSatisfiable},
		{422, share.StorageCorrupted, share.StorageProtocolError, share.StorageProtocolError},
		{429, share.StorageRateLimited, share.StorageRateLimited, share.StorageRateLimited},
		{498, share.StorageRateLimited, share.StorageRateLimited, share.StorageRateLimited},
		{499, share.StorageUnavailable, share.StorageUnavailable, share.StorageUnavailable},
		{500, share.StorageUnavailable, share.StorageUnavailable, share.StorageUnavailable},
		{502, share.StorageUnavailable, share.StorageUnavailable, share.StorageUnavailable},
		{503, share.StorageUnavailable, share.StorageUnavailable, share.StorageUnavailable},
		{504, share.StorageUnavailable, share.StorageUnavailable, share.StorageUnavailable},
		{507, share.StorageFull, share.StorageFull, share.StorageFull},
		{201, "", share.StorageProtocolError, share.StorageProtocolError},
		{202, "", share.StorageProtocolError, share.StorageProtocolError},
	} {
		t.Run(strconv.Itoa(c.status), func(t *testing.T) {
			client := newPeer(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				w.Header().Set("Retry-After", "7")
				w.WriteHeader(c.status)
			})
			ctx := testContext(t)
			stored, err := client.Put(ctx, account, sign("PUT", path), 4, "", body("data"))
			wantKind(t, err, c.put)
			if c.put == "" && stored.Superseded != (c.status == 202) {
				t.Errorf("%+v", stored)
			}
			if e, ok := errors.AsType[*share.Error](err); ok && (e.RetryAfter == 7*time.Second) !=
				(e.Kind == share.StorageRateLimited || e.Kind == share.StorageUnavailable) {
				t.Errorf("retry after %v", e.RetryAfter)
			}
			o, err := client.Get(ctx, account, sign("GET", path), 0, 0, "")
			wantKind(t, err, c.get)
			if err == nil {
				_ = o.Body.Close()
			}
			_, err = client.Head(ctx, account, sign("HEAD", path))
			wantKind(t, err, c.head)
		})
	}
}

// TestSandboxRefusals meets the refusals that a Swift gives for reasons of its own.
func TestSandboxRefusals(t *testing.T) {
	sb, c := newStore(t)
	ctx := testContext(t)
	mustPut(t, c, "data")
	_, err := c.Put(ctx, account, sign("GET", path), 4, "", body("data"))
	wantKind(t, err, share.StorageURLRejected)
	_, err = c.Get(ctx, account, sign("PUT", path), 0, 0, "")
	wantKind(t, err, share.StorageURLRejected)
	_, err = c.Put(ctx, "none", sign("PUT", "/v1/AUTH_async-images/none/a.png"), 4, "", body("data"))
	wantKind(t, err, share.StorageDenied)
	_, err = c.Get(ctx, account, sign("GET", path+"x"), 0, 0, "")
	wantKind(t, err, share.FileNotFound)
	_, err = c.Get(ctx, account, sign("GET", path), 0, 0, hexMD5("other"))
	wantKind(t, err, share.FileChanged)
	sb.Inject(sandbox.Fault{On: "store:PUT", Expire: true, Count: 1})
	_, err = c.Put(ctx, account, sign("PUT", path), 4, "", body("data"))
	wantKind(t, err, share.StorageURLRejected)
	sb.Inject(sandbox.Fault{On: "store:PUT", WrongETag: true, Count: 1})
	if stored, err := c.Put(ctx, account, sign("PUT", path), 4, "", body("data")); err != nil || stored.ETag == hexMD5("data") || stored.ETag == "" {
		t.Errorf("another ETag is to be reported as it is: %+v %v", stored, err)
	}
}

func TestNonsenseAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		header map[string]string
		status int
		body   string
		kind   share.Kind
	}{
		"no Content-Range":     {nil, 206, "234", share.StorageProtocolError},
		"other start":          {map[string]string{"Content-Range": "bytes 1-3/10"}, 206, "123", share.StorageProtocolError},
		"earlier start":        {map[string]string{"Content-Range": "bytes 1-4/10"}, 206, "1234", share.StorageProtocolError},
		"too short":            {map[string]string{"Content-Range": "bytes 2-3/10"}, 206, "23", share.StorageProtocolError},
		"past the end":         {map[string]string{"Content-Range": "bytes 2-10/10"}, 206, "234567890", share.StorageProtocolError},
		"backwards":            {map[string]string{"Content-Range": "bytes 4-2/10"}, 206, "", share.StorageProtocolError},
		"size unknown":         {map[string]string{"Content-Range": "bytes 2-4/*"}, 206, "234", share.StorageProtocolError},
		"another length":       {map[string]string{"Content-Range": "bytes 2-4/10", "Content-Length": "2"}, 206, "23", share.StorageProtocolError},
		"multipart":            {map[string]string{"Content-Type": "multipart/byteranges"}, 206, "--x", share.StorageProtocolError},
		"another ETag":         {map[string]string{"Content-Range": "bytes 2-4/10", "Etag": "other"}, 206, "234", share.FileChanged},
		"length not told":      {map[string]string{"Transfer-Encoding": "chunked"}, 200, "0123456789", share.StorageProtocolError},
		"200 for another ETag": {map[string]string{"Content-Length": "10", "Etag": "other"}, 200, "0123456789", share.FileChanged},
		"200 too short":        {map[string]string{"Content-Length": "2"}, 200, "01", share.RangeNotSatisfiable},
	} {
		t.Run(name, func(t *testing.T) {
			client := newPeer(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Etag", "wanted")
				for name, value := range c.header {
					w.Header().Set(name, value)
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			})
			o, err := client.Get(testContext(t), account, sign("GET", path), 2, 3, "wanted")
			wantKind(t, err, c.kind)
			if err == nil {
				_ = o.Body.Close()
			}
		})
	}
}

// TestPathsAndHosts gives paths and bases that must never be asked for.
func TestPathsAndHosts(t *testing.T) {
	var asked atomic.Int32
	c := newPeer(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	ctx := testContext(t)
	for _, path := range []string{
		"", "/", "/v1/AUTH_a", "/v1/AUTH_a/12345678", "/v1/AUTH_a/12345678/", "/v1/a/12345678/x", "v1/AUTH_a/12345678/x",
		"//evil/v1/AUTH_a/12345678/x", "http://evil/v1/AUTH_a/12345678/x", "/v1/AUTH_a/12345678/../87654321/x", "/v1/AUTH_a/12345678/./x",
		"/v1/AUTH_a/12345678//x", "/v1/AUTH_a/12345678/%2e%2e/x", "/v1/AUTH_a/12345678/x?inline", "/v1/AUTH_a/12345678/x#y",
		`/v1/AUTH_a/12345678/x\y`, "/v1/AUTH_a/12345678/x\r\nX: y", "/v1/AUTH_a/12345678/x\x00", "/v1/AUTH_a/87654321/x",
		"/v1/AUTH_a/12345678/" + strings.Repeat("x", 1024),
	} {
		u := share.TempURL{Path: path, Sig: "x", Expires: "1"}
		closed := &countingBody{ReadCloser: body("data")}
		_, err := c.Put(ctx, account, u, 4, "", closed)
		wantKind(t, err, share.StoragePathInvalid)
		if closed.closed != 1 {
			t.Errorf("the body was closed %d times", closed.closed)
		}
		_, err = c.Get(ctx, account, u, 0, 0, "")
		wantKind(t, err, share.StoragePathInvalid)
		_, err = c.Head(ctx, account, u)
		wantKind(t, err, share.StoragePathInvalid)
	}
	for _, base := range []string{
		"", "host", "ftp://host", "http://", "http://user:secret@host", "http://host/path", "http://host?x", "http://host#x", "http://:80", "http://secret%zz",
	} {
		_, err := New(Config{BaseURL: Static(base)}).Head(ctx, account, sign("HEAD", path))
		wantKind(t, err, share.Internal)
		if strings.Contains(err.Error(), "secret") {
			t.Error(err)
		}
	}
	_, err := New(Config{BaseURL: func(context.Context, string) (string, error) {
		return "", share.Errorf(share.LPUnavailable, "", nil)
	}}).Head(ctx, account, sign("HEAD", path))
	wantKind(t, err, share.LPUnavailable)
	_, err = c.Head(ctx, account, share.TempURL{Path: path, Expires: "1"})
	wantKind(t, err, share.StorageProtocolError)
	if asked.Load() != 0 {
		t.Errorf("%d requests were sent", asked.Load())
	}
}

type countingBody struct {
	io.ReadCloser
	closed int
}

func (b *countingBody) Close() error {
	b.closed++
	return b.ReadCloser.Close()
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	var asked atomic.Int32
	evil := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(evil.Close)
	for _, code := range []int{301, 302, 303, 307, 308} {
		c := newPeer(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", evil.URL+r.URL.RequestURI())
			w.WriteHeader(code)
		})
		_, err := c.Get(testContext(t), account, sign("GET", path), 0, 0, "")
		wantKind(t, err, share.StorageProtocolError)
		_, err = c.Put(testContext(t), account, sign("PUT", path), 4, "", body("data"))
		wantKind(t, err, share.StorageProtocolError)
	}
	if asked.Load() != 0 {
		t.Error("followed")
	}
}

// A trapBody gives bytes, or lets wait for them until it is closed, and must not be touched once trapped. Its fields are plain on
// purpose: the race detector watches them too.
type trapBody struct {
	wait    chan struct{} // closed by Close; nil: never wait
	bytes   int           // how many to give before waiting
	reads   int
	trapped atomic.Bool
	touched atomic.Int32
}

func (b *trapBody) Read(p []byte) (int, error) {
	if b.trapped.Load() {
		b.touched.Add(1)
	}
	b.reads++
	if b.wait != nil && b.bytes == 0 {
		<-b.wait
		return 0, io.ErrClosedPipe
	}
	n := len(p)
	if b.wait != nil {
		n = min(n, b.bytes)
		b.bytes -= n
	}
	clear(p[:n])
	if b.trapped.Load() {
		b.touched.Add(1)
	}
	return n, nil
}

func (b *trapBody) Close() error {
	if b.trapped.Load() {
		b.touched.Add(1)
	}
	if b.wait != nil {
		close(b.wait)
	}
	return nil
}

// TestBodyIsLeftAloneAfterPut has the store refuse at once, while bytes are still flowing or waited for.
func TestBodyIsLeftAloneAfterPut(t *testing.T) {
	sb, c := newStore(t)
	sb.Inject(sandbox.Fault{On: "store:PUT", Expire: true})
	for i := range 40 {
		b := &trapBody{}
		if i%2 == 1 {
			b.wait, b.bytes = make(chan struct{}), 10_000
		}
		begin := time.Now()
		_, err := c.Put(testContext(t), account, sign("PUT", path), 50_000_000, "", b)
		b.trapped.Store(true)
		reads := b.reads
		if kind := share.KindOf(err); kind != share.StorageURLRejected && (b.wait != nil || kind != share.StorageUnavailable) {
			t.Fatalf("%v, want the refusal", err)
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("the refusal took %v", took)
		}
		time.Sleep(5 * time.Millisecond)
		if b.touched.Load() != 0 || b.reads != reads {
			t.Fatal("the body was touched after Put had returned")
		}
	}
}

// TestBodyThatWaits lets the body wait for bytes while everything around it ends: Put must not wait with it.
func TestBodyThatWaits(t *testing.T) {
	for name, c := range map[string]struct {
		serve func(*net.TCPConn)
		ctx   func(context.Context) (context.Context, context.CancelFunc)
	}{
		"reset": {func(conn *net.TCPConn) {
			time.Sleep(20 * time.Millisecond)
			_ = conn.SetLinger(0)
		}, nil},
		"closed": {func(*net.TCPConn) { time.Sleep(20 * time.Millisecond) }, nil},
		"cancelled": {
			func(conn *net.TCPConn) { _, _ = io.Copy(io.Discard, conn) },
			func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, 50*time.Millisecond)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			client := newRawPeer(t, c.serve)
			ctx := testContext(t)
			if c.ctx != nil {
				short, cancel := c.ctx(ctx)
				defer cancel()
				ctx = short
			}
			b := &trapBody{wait: make(chan struct{}), bytes: 10_000}
			begin := time.Now()
			_, err := client.Put(ctx, account, sign("PUT", path), 1_000_000, "", b)
			b.trapped.Store(true)
			wantKind(t, err, share.StorageUnavailable)
			if took := time.Since(begin); took > 2*time.Second {
				t.Errorf("took %v", took)
			}
			if c.ctx != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v does not tell the caller's deadline", err)
			}
			time.Sleep(5 * time.Millisecond)
			if b.touched.Load() != 0 {
				t.Error("the body was touched after Put had returned")
			}
		})
	}
}

// TestBodiesThatDoNotFit gives bodies that fail, end early, or have more than announced.
func TestBodiesThatDoNotFit(t *testing.T) {
	sb, c := newStore(t)
	ctx := testContext(t)
	own := errors.New("own error")
	_, err := c.Put(ctx, account, sign("PUT", path), 100_000, "",
		io.NopCloser(io.MultiReader(strings.NewReader(strings.Repeat("x", 50_000)), iotest.ErrReader(own))))
	if err != own {
		t.Errorf("%v, want the body's own error", err)
	}
	_, err = c.Put(ctx, account, sign("PUT", path), 100_000, "", body("short"))
	wantKind(t, err, share.Internal)
	_, err = c.Put(ctx, account, sign("PUT", path), -1, "", body("data"))
	wantKind(t, err, share.Internal)
	if n := len(sb.Journal().Stored); n != 0 {
		t.Fatalf("%d objects were stored", n)
	}
	long := strings.NewReader("data and more")
	stored, err := c.Put(ctx, account, sign("PUT", path), 4, "", io.NopCloser(long))
	if err != nil || stored.ETag != hexMD5("data") || long.Len() != 9 {
		t.Errorf("%+v %v, %d left", stored, err, long.Len())
	}
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"one byte": iotest.OneByteReader, "half": iotest.HalfReader, "end with data": iotest.DataErrReader,
	} {
		stored, err := c.Put(ctx, account, sign("PUT", path), 1000, "", io.NopCloser(wrap(strings.NewReader(strings.Repeat("x", 1000)))))
		if err != nil || stored.ETag != hexMD5(strings.Repeat("x", 1000)) {
			t.Errorf("%s: %+v %v", name, stored, err)
		}
	}
}

// TestEarlySuccess has the store confirm what it cannot have; but a newer write it can have.
func TestEarlySuccess(t *testing.T) {
	for status, kind := range map[string]share.Kind{"201 Created": share.StorageProtocolError, "202 Accepted": ""} {
		c := newRawPeer(t, func(conn *net.TCPConn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 "+status+"\r\nContent-Length: 0\r\nEtag: \"of no use\"\r\n\r\n")
			_, _ = io.Copy(io.Discard, conn)
		})
		stored, err := c.Put(testContext(t), account, sign("PUT", path), 1_000_000, "", &trapBody{wait: make(chan struct{}), bytes: 10_000})
		wantKind(t, err, kind)
		if want := (share.StoredObject{Size: -1, Superseded: true}); err == nil && stored != want {
			t.Errorf("%s: %+v", status, stored)
		}
	}
}

// TestSlowRepeat has a PUT overtaken by another on the same URL before its body has come: it is told so at once.
func TestSlowRepeat(t *testing.T) {
	sb, c := newStore(t)
	sb.Inject(sandbox.Fault{On: "store:PUT", Delay: 300 * time.Millisecond, Count: 1})
	u := sign("PUT", path)
	data := strings.Repeat("x", 10_000)
	type outcome struct {
		stored share.StoredObject
		err    error
	}
	slow := make(chan outcome, 1)
	go func() {
		stored, err := c.Put(testContext(t), account, u, 10_000, "", &trapBody{wait: make(chan struct{}), bytes: 5_000}) // never comes to its end
		slow <- outcome{stored, err}
	}()
	for sb.FaultsStruck() == 0 {
		time.Sleep(time.Millisecond)
	}
	if _, err := c.Put(testContext(t), account, u, 10_000, "", body(data)); err != nil {
		t.Fatal(err)
	}
	if o := <-slow; o.err != nil || !o.stored.Superseded {
		t.Fatalf("%+v, %v, want one that is superseded", o.stored, o.err)
	}
	there, err := c.Head(testContext(t), account, u)
	if err != nil || there.ETag != hexMD5(data) || there.Size != 10_000 {
		t.Errorf("HEAD by the URL that is signed for PUT: %+v, %v", there, err)
	}
}

func TestProgress(t *testing.T) {
	stall := func(d time.Duration) func(*Config) {
		return func(c *Config) { c.StallTimeout, c.ResponseHeaderTimeout = d, d }
	}
	data := strings.Repeat("x", 3_000_000)
	t.Run("a stuck store", func(t *testing.T) {
		sb, c := newStore(t, stall(100*time.Millisecond))
		for _, f := range []sandbox.Fault{{StallAfter: 100_000}, {Mute: true}, {Delay: time.Hour}} {
			f.On = "store:PUT"
			sb.ClearFaults()
			sb.Inject(f)
			for _, size := range []int{1000, 200_000, 20_000_000} {
				begin := time.Now()
				_, err := c.Put(testContext(t), account, sign("PUT", path), int64(size), "", body(strings.Repeat("x", size)))
				if f.StallAfter > int64(size) {
					continue
				}
				wantKind(t, err, share.StorageUnavailable)
				if took := time.Since(begin); took > 3*time.Second {
					t.Errorf("%+v, %d bytes: took %v", f, size, took)
				}
			}
		}
		mustPut(t, newClient(t, clearly(sb)), data)
		sb.Inject(sandbox.Fault{On: "store:GET", StallAfter: 100_000})
		o, err := c.Get(testContext(t), account, sign("GET", path), 0, 0, "")
		if err != nil {
			t.Fatal(err)
		}
		defer o.Body.Close()
		begin := time.Now()
		got, err := io.ReadAll(o.Body)
		wantKind(t, err, share.StorageUnavailable)
		if took := time.Since(begin); len(got) != 100_000 || took > 3*time.Second {
			t.Errorf("%d bytes before the stall, which was noticed after %v", len(got), took)
		}
	})
	t.Run("a slow store", func(t *testing.T) {
		sb, c := newStore(t, func(c *Config) { c.StallTimeout = 300 * time.Millisecond })
		sb.Inject(sandbox.Fault{On: "store:PUT", BytesPerSecond: 4_000_000})
		sb.Inject(sandbox.Fault{On: "store:GET", BytesPerSecond: 4_000_000})
		begin := time.Now()
		mustPut(t, c, data)
		o, err := c.Get(testContext(t), account, sign("GET", path), 0, 0, "")
		if err != nil {
			t.Fatal(err)
		}
		defer o.Body.Close()
		if _, err := io.Copy(io.Discard, o.Body); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took < time.Second {
			t.Errorf("took %v: the store was not slow", took)
		}
	})
	t.Run("we are slow", func(t *testing.T) {
		_, c := newStore(t, stall(100*time.Millisecond))
		pause := readerFunc(func(p []byte) (int, error) {
			time.Sleep(300 * time.Millisecond)
			return 0, io.EOF
		})
		b := io.NopCloser(io.MultiReader(strings.NewReader(data), pause, strings.NewReader("end")))
		if _, err := c.Put(testContext(t), account, sign("PUT", path), int64(len(data))+3, "", b); err != nil {
			t.Error(err)
		}
		o, err := c.Get(testContext(t), account, sign("GET", path), 0, 0, "")
		if err != nil {
			t.Fatal(err)
		}
		defer o.Body.Close()
		_, _ = io.CopyN(io.Discard, o.Body, 1000)
		time.Sleep(300 * time.Millisecond)
		if n, err := io.Copy(io.Discard, o.Body); err != nil || n != int64(len(data))+3-1000 {
			t.Errorf("%d %v", n, err)
		}
	})
}

// clearly is the address of sb, without faults.
func clearly(sb *sandbox.Sandbox) string {
	sb.ClearFaults()
	return sb.URL()
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestBrokenConnections cuts at many places; the next try finds a connection that works.
func TestBrokenConnections(t *testing.T) {
	sb, c := newStore(t)
	data := strings.Repeat("x", 1_000_000)
	mustPut(t, c, data)
	for _, f := range []sandbox.Fault{
		{Drop: true}, {DropAfter: true}, {CutAfter: -1}, {CutAfter: 1}, {CutAfter: 500_000}, {CutAfter: 1_000_000}, {Garbage: true}, {Status: 503},
	} {
		f.On, f.Count = "store:PUT", 1
		sb.Inject(f)
		_, err := c.Put(testContext(t), account, sign("PUT", path), int64(len(data)), "", body(data))
		if f.Status == 0 || err != nil {
			wantKind(t, err, share.StorageUnavailable)
		}
		mustPut(t, c, data)
		if f.CutAfter == int64(len(data)) {
			continue // All of it has come: the cut hits the next request.
		}
		// A GET that never got an answer net/http may have repeated by itself: only what broke later must be seen.
		f.On = "store:GET"
		sb.Inject(f)
		o, err := c.Get(testContext(t), account, sign("GET", path), 0, 0, "")
		if err == nil {
			_, err = io.Copy(io.Discard, o.Body)
			_ = o.Body.Close()
		}
		if f.CutAfter != 0 {
			wantKind(t, err, share.StorageUnavailable)
		}
		sb.ClearFaults()
	}
	short := newRawPeer(t, func(conn *net.TCPConn) {
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234")
	})
	o, err := short.Get(testContext(t), account, sign("GET", path), 0, 0, "")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(o.Body)
	wantKind(t, err, share.StorageTruncated)
	if string(got) != "01234" {
		t.Errorf("%q", got)
	}
	_ = o.Body.Close()
	if _, err := o.Body.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("Read after Close: %v", err)
	}
	_, err = newClient(t, "http://127.0.0.1:1").Head(testContext(t), account, sign("HEAD", path))
	wantKind(t, err, share.StorageUnavailable)
}

// TestConnectionsAreKept counts connections: what ends well, and a small refusal, costs none.
func TestConnectionsAreKept(t *testing.T) {
	var opened atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch {
		case r.URL.Path != path:
			w.WriteHeader(404)
			_, _ = io.WriteString(w, strings.Repeat("x", 2000))
		case r.Method == "PUT":
			w.WriteHeader(201)
		default:
			_, _ = io.WriteString(w, "data")
		}
	}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	c := newClient(t, server.URL)
	ctx := testContext(t)
	for range 5 {
		mustPut(t, c, "data")
		o, err := c.Get(ctx, account, sign("GET", path), 0, 0, "")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, o.Body)
		_ = o.Body.Close()
		_, err = c.Get(ctx, account, sign("GET", path+"x"), 0, 0, "")
		wantKind(t, err, share.FileNotFound)
		if _, err = c.Head(ctx, account, sign("HEAD", path)); err != nil {
			t.Error(err)
		}
	}
	if opened.Load() != 1 {
		t.Errorf("%d connections", opened.Load())
	}
}

// TestNothingSignedInErrors collects errors of every sort, with a store that throws the request back, and looks for what was
// signed in everything that can be printed of them.
func TestNothingSignedInErrors(t *testing.T) {
	u := share.TempURL{Path: path, Sig: "SECRETSIGNATURE", Expires: "1999999999"}
	echo := "/v1/x?temp_url_sig=" + u.Sig + "&temp_url_expires=" + u.Expires
	raw := func(answer string) *Client {
		return newRawPeer(t, func(conn *net.TCPConn) { _, _ = io.WriteString(conn, answer) })
	}
	clients := map[string]*Client{
		"nobody there": newClient(t, "http://127.0.0.1:1"),
		"no such host": newClient(t, "http://store.invalid"),
		"no TLS": newClient(t, strings.Replace(raw("").mustBase(t), "http:", "https:", 1),
			func(c *Config) { c.ConnectTimeout = 100 * time.Millisecond }),
		"closed":           raw(""),
		"malformed status": raw("PUT " + echo + "\r\n\r\n"),
		"malformed header": raw("HTTP/1.1 200 OK\r\n" + echo + "\r\n\r\n"),
		"malformed length": raw("HTTP/1.1 200 OK\r\nContent-Length: " + echo + "\r\n\r\n"),
		"encoding":         raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: " + echo + "\r\n\r\n"),
		"reason":           raw("HTTP/1.1 418 " + echo + "\r\nContent-Length: 0\r\n\r\n"),
		"body":             raw("HTTP/1.1 401 No\r\n\r\n" + echo),
		"redirect":         raw("HTTP/1.1 302 Found\r\nLocation: " + echo + "\r\nContent-Length: 0\r\n\r\n"),
		"bad redirect":     raw("HTTP/1.1 302 Found\r\nLocation: http://[" + echo + "\r\nContent-Length: 0\r\n\r\n"),
		"range":            raw("HTTP/1.1 206 OK\r\nContent-Range: bytes 0-1/" + echo + "\r\nContent-Length: 2\r\n\r\nab"),
		"unsatisfiable":    raw("HTTP/1.1 416 No\r\nContent-Range: bytes */" + echo + "\r\nContent-Length: 0\r\n\r\n"),
		"retry":            raw("HTTP/1.1 429 No\r\nRetry-After: " + echo + "\r\nContent-Length: 0\r\n\r\n"),
		"chunk":            raw("HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n" + echo + "\r\n"),
		"short":            raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"),
		"bad base":         newClient(t, "http://host"+echo),
		"silent": newRawPeer(t, func(conn *net.TCPConn) { _, _ = io.Copy(io.Discard, conn) },
			func(c *Config) { c.ResponseHeaderTimeout, c.StallTimeout = 50*time.Millisecond, 50*time.Millisecond }),
	}
	for name, c := range clients {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(testContext(t), 3*time.Second)
			defer cancel()
			var all []error
			_, err := c.Put(ctx, account, u, 4, "", body("data"))
			all = append(all, err)
			_, err = c.Head(ctx, account, u)
			all = append(all, err)
			o, err := c.Get(ctx, account, u, 1, 0, "")
			all = append(all, err)
			if err == nil {
				_, err = io.Copy(io.Discard, o.Body)
				all = append(all, err, o.Body.Close())
			}
			ended, cancel := context.WithCancel(ctx)
			cancel()
			_, err = c.Get(ended, account, u, 0, 0, "")
			all = append(all, err)
			count := 0
			for _, err := range all {
				for ; err != nil; err = errors.Unwrap(err) {
					count++
					text := fmt.Sprintf("%v %+v %#v", err, err, err)
					for _, secret := range []string{u.Sig, u.Expires, "temp_url"} {
						if strings.Contains(text, secret) {
							t.Errorf("%T has a secret in it: %s", err, text)
						}
					}
				}
			}
			if count < 3 {
				t.Errorf("only %d errors: %v", count, all)
			}
		})
	}
}

// mustBase is where c would connect to.
func (c *Client) mustBase(t *testing.T) string {
	base, err := c.baseURL(t.Context(), account)
	if err != nil {
		t.Fatal(err)
	}
	return base
}

// TestTLS trusts the sandbox's own CA, and nothing without it.
func TestTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 1 {
			t.Errorf("%s was spoken", r.Proto)
		}
		w.WriteHeader(201)
	}))
	server.EnableHTTP2 = true
	server.Config.ErrorLog = nil
	server.StartTLS()
	t.Cleanup(server.Close)
	c := newClient(t, server.URL, func(c *Config) {
		c.TLS = server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
		c.TLS.NextProtos = nil
	})
	b := &trapBody{wait: make(chan struct{}), bytes: 4}
	if _, err := c.Put(testContext(t), account, sign("PUT", path), 4, "", b); err != nil {
		t.Error(err)
	}
	_, err := newClient(t, server.URL).Head(testContext(t), account, sign("HEAD", path))
	wantKind(t, err, share.StorageUnavailable)
	if !strings.Contains(err.Error(), "unknown authority") {
		t.Error(err)
	}
}

func TestManyAtOnce(t *testing.T) {
	sb, c := newStore(t)
	errs := make(chan error, 64)
	for i := range 64 {
		go func() {
			name := path + strconv.Itoa(i)
			data := bytes.Repeat([]byte{byte(i)}, 100_000)
			_, err := c.Put(testContext(t), account, sign("PUT", name), int64(len(data)), "", io.NopCloser(bytes.NewReader(data)))
			if err == nil {
				var o *share.ObjectReader
				if o, err = c.Get(testContext(t), account, sign("GET", name), 10, 0, ""); err == nil {
					var got []byte
					got, err = io.ReadAll(o.Body)
					_ = o.Body.Close()
					if err == nil && !bytes.Equal(got, data[10:]) {
						err = errors.New("other bytes came back")
					}
				}
			}
			errs <- err
		}()
	}
	for range 64 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := len(sb.Journal().Stored); n != 64 {
		t.Errorf("%d were stored", n)
	}
}
