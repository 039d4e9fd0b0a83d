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

// sign returns a URL signed as LivePerson signs it.
func sign(method, path string) share.TempURL {
	until := time.Now().Add(time.Minute)
	expires := strconv.FormatInt(until.Unix(), 10)
	h := hmac.New(sha1.New, []byte(key))
	_, _ = io.WriteString(h, method+"\n"+expires+"\n"+path)
	return share.TempURL{Path: path, Sig: hex.EncodeToString(h.Sum(nil)), Expires: expires, ExpireTime: until}
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// fixed is a Config.BaseURL that is the same for all accounts.
func fixed(base string) func(context.Context, string) (string, error) {
	return func(context.Context, string) (string, error) { return base, nil }
}

func newClient(t *testing.T, base string, change ...func(*Config)) *Client {
	config := Config{BaseURL: fixed(base), ResponseHeaderTimeout: time.Minute, StallTimeout: time.Minute}
	for _, f := range change {
		f(&config)
	}
	c := New(config)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// newStore starts a sandbox whose store accepts URLs of sign.
func newStore(t *testing.T, change ...func(*Config)) (*sandbox.Sandbox, *Client) {
	sb, err := sandbox.Start(sandbox.Options{SwiftKey: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sb.Close() })
	return sb, newClient(t, sb.URL(), change...)
}

// newPeer starts an HTTP server with the handler h.
func newPeer(t *testing.T, h http.HandlerFunc, change ...func(*Config)) *Client {
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return newClient(t, server.URL, change...)
}

// newRawPeer starts a server that reads one request header from each connection and then calls serve.
func newRawPeer(t *testing.T, serve func(conn *net.TCPConn), change ...func(*Config)) *Client {
	return newRawPeerByMethod(t, func(conn *net.TCPConn, _ string) { serve(conn) }, change...)
}

// newRawPeerByMethod is newRawPeer for a server whose answers depend on the method of the request.
func newRawPeerByMethod(t *testing.T, serve func(conn *net.TCPConn, method string), change ...func(*Config)) *Client {
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
			_ = conn.SetDeadline(time.Now().Add(time.Minute))
			r := bufio.NewReaderSize(conn, 16)
			line, err := r.ReadString('\n')
			method, _, _ := strings.Cut(line, " ")
			for line != "\r\n" && err == nil {
				line, err = r.ReadString('\n')
			}
			serve(conn.(*net.TCPConn), method)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return newClient(t, "http://"+ln.Addr().String(), change...)
}

func body(s string) io.ReadCloser { return io.NopCloser(strings.NewReader(s)) }

func hexMD5(s string) share.ETag {
	sum := md5.Sum([]byte(s))
	return share.ETag(hex.EncodeToString(sum[:]))
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

func TestClient_PutGetHead(t *testing.T) {
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

func TestGet_Ranges(t *testing.T) {
	const data = "0123456789"
	sb, c := newStore(t)
	mustPut(t, c, data)
	// A store that ignores Range.
	whole := newPeer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		w.Header().Set("Etag", `"`+string(hexMD5(data))+`"`)
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
			t.Errorf("range %v of an empty object: %v", ask, err)
			continue
		}
		if got, err := io.ReadAll(o.Body); len(got) > 0 || err != nil || o.Size != 0 || o.ETag != hexMD5("") {
			t.Errorf("range %v of an empty object: %q %v %+v", ask, got, err, o)
		}
		_ = o.Body.Close()
	}
}

// TestClient_Statuses is the table of statuses and error kinds.
func TestClient_Statuses(t *testing.T) {
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

// TestClient_StoreRejections covers the rejections for which the stand-in has a reason of its own.
func TestClient_StoreRejections(t *testing.T) {
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
		t.Errorf("Put must report the store's ETag unchanged: %+v %v", stored, err)
	}
}

func TestGet_InvalidAnswers(t *testing.T) {
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
		"length unknown":       {map[string]string{"Transfer-Encoding": "chunked"}, 200, "0123456789", share.StorageProtocolError},
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

// TestClient_InvalidPathsAndBases lists paths and base URLs for which no request may be sent.
func TestClient_InvalidPathsAndBases(t *testing.T) {
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
		_, err := New(Config{BaseURL: fixed(base)}).Head(ctx, account, sign("HEAD", path))
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

func TestClient_Redirects(t *testing.T) {
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
		t.Error("the client followed a redirect")
	}
}

// A trapBody returns zeros, then blocks until it is closed, and must not be used once it is trapped. Its field reads is plain on
// purpose: the race detector watches it too.
type trapBody struct {
	blocks  chan struct{} // closed by Close; nil: never block
	bytes   int           // number of bytes before blocking
	blocked chan struct{} // closed when a Read blocks; may be nil
	reads   int
	trapped atomic.Bool
	used    atomic.Int32
}

// blockingBody returns a body that blocks after n bytes.
func blockingBody(n int) *trapBody {
	return &trapBody{blocks: make(chan struct{}), blocked: make(chan struct{}), bytes: n}
}

func (b *trapBody) Read(p []byte) (int, error) {
	if b.trapped.Load() {
		b.used.Add(1)
	}
	b.reads++
	if b.blocks != nil && b.bytes == 0 {
		close(b.blocked)
		<-b.blocks
		return 0, io.ErrClosedPipe
	}
	n := len(p)
	if b.blocks != nil {
		n = min(n, b.bytes)
		b.bytes -= n
	}
	clear(p[:n])
	if b.trapped.Load() {
		b.used.Add(1)
	}
	return n, nil
}

func (b *trapBody) Close() error {
	if b.trapped.Load() {
		b.used.Add(1)
	}
	if b.blocks != nil {
		close(b.blocks)
	}
	return nil
}

// TestPut_BodyUnusedAfterReturn has the store reject at once, while bytes are sent or awaited.
func TestPut_BodyUnusedAfterReturn(t *testing.T) {
	sb, c := newStore(t)
	sb.Inject(sandbox.Fault{On: "store:PUT", Expire: true})
	type used struct {
		body  *trapBody
		reads int
	}
	var bodies []used
	for i := range 40 {
		b := &trapBody{}
		if i%2 == 1 {
			b = blockingBody(10_000)
		}
		_, err := c.Put(testContext(t), account, sign("PUT", path), 50_000_000, "", b)
		b.trapped.Store(true)
		bodies = append(bodies, used{b, b.reads})
		if kind := share.KindOf(err); kind != share.StorageURLRejected && (b.blocks != nil || kind != share.StorageUnavailable) {
			t.Fatalf("%v, want the rejection", err)
		}
	}
	_ = c.Close()
	_ = sb.Close() // waits for the connections
	for i, u := range bodies {
		if u.body.used.Load() != 0 || u.body.reads != u.reads {
			t.Errorf("body %d was used after Put had returned", i)
		}
	}
}

// TestPut_BlockedBody ends the exchange while the body waits for bytes: Put must not wait for them.
func TestPut_BlockedBody(t *testing.T) {
	left := errors.New("the caller left")
	for name, c := range map[string]struct {
		serve  func(*net.TCPConn, *trapBody)
		cancel bool
		cause  error
	}{
		"reset": {serve: func(conn *net.TCPConn, b *trapBody) {
			<-b.blocked
			_ = conn.SetLinger(0)
		}},
		"closed":    {serve: func(_ *net.TCPConn, b *trapBody) { <-b.blocked }},
		"cancelled": {serve: func(conn *net.TCPConn, _ *trapBody) { _, _ = io.Copy(io.Discard, conn) }, cancel: true, cause: left},
	} {
		t.Run(name, func(t *testing.T) {
			b := blockingBody(10_000)
			client := newRawPeer(t, func(conn *net.TCPConn) { c.serve(conn, b) })
			ctx, cancel := context.WithCancelCause(testContext(t))
			defer cancel(nil)
			if c.cancel {
				go func() {
					<-b.blocked
					cancel(left)
				}()
			}
			_, err := client.Put(ctx, account, sign("PUT", path), 1_000_000, "", b)
			b.trapped.Store(true)
			wantKind(t, err, share.StorageUnavailable)
			if errors.Is(err, errStalled) || context.Cause(ctx) != c.cause {
				t.Errorf("a timeout ended Put: %v", err)
			}
			if c.cause != nil && !errors.Is(err, c.cause) {
				t.Errorf("%v does not have the cause %q", err, c.cause)
			}
			_ = client.Close()
			if b.used.Load() != 0 {
				t.Error("the body was used after Put had returned")
			}
		})
	}
}

// TestPut_BodySizes sends bodies that fail, end early, or are longer than declared.
func TestPut_BodySizes(t *testing.T) {
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

// TestPut_EarlySuccess has the store acknowledge an upload before it has the whole body. That is an error, unless the store has a
// newer object.
func TestPut_EarlySuccess(t *testing.T) {
	for status, kind := range map[string]share.Kind{"201 Created": share.StorageProtocolError, "202 Accepted": ""} {
		c := newRawPeer(t, func(conn *net.TCPConn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 "+status+"\r\nContent-Length: 0\r\nEtag: \"of no use\"\r\n\r\n")
			_, _ = io.Copy(io.Discard, conn)
		})
		stored, err := c.Put(testContext(t), account, sign("PUT", path), 1_000_000, "", blockingBody(10_000))
		wantKind(t, err, kind)
		if want := (share.StoredObject{Size: -1, Superseded: true}); err == nil && stored != want {
			t.Errorf("%s: %+v", status, stored)
		}
	}
}

// TestClient_BrokenConnections breaks the connection at many offsets. The next attempt must get one that works.
func TestClient_BrokenConnections(t *testing.T) {
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
			continue // The whole body has arrived: the cut affects the next request.
		}
		// net/http may itself repeat a GET without an answer: only later failures must be reported.
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

// TestClient_ReusesConnections counts connections: neither a success nor a short rejection may close one.
func TestClient_ReusesConnections(t *testing.T) {
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

// TestClient_StoresAreIsolated downloads from a healthy store while another one answers 503, or breaks off. Neither may close the
// connection to the healthy one.
func TestClient_StoresAreIsolated(t *testing.T) {
	var opened atomic.Int32
	healthy := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	healthy.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	healthy.Start()
	defer healthy.Close()
	unavailable := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }))
	defer unavailable.Close()
	short := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		_, _ = io.WriteString(w, "hello")
	}))
	defer short.Close()
	bases := map[string]string{"healthy": healthy.URL, "unavailable": unavailable.URL, "short": short.URL, "gone": "http://127.0.0.1:1"}
	c := newClient(t, "", func(c *Config) {
		c.BaseURL = func(_ context.Context, account string) (string, error) { return bases[account], nil }
	})
	get := func(account string) error {
		o, err := c.Get(testContext(t), account, sign("GET", "/v1/AUTH_x/"+account+"/a.PNG"), 0, 0, "")
		if err == nil {
			_, err = io.Copy(io.Discard, o.Body)
			_ = o.Body.Close()
		}
		return err
	}
	for range 5 {
		wantKind(t, get("healthy"), "")
		wantKind(t, get("unavailable"), share.StorageUnavailable)
		wantKind(t, get("short"), share.StorageTruncated)
		wantKind(t, get("gone"), share.StorageUnavailable)
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("5 downloads of the healthy store opened %d connections, want 1", n)
	}
}

// TestClient_ErrorsHideSignatures provokes errors of every kind, with a store that echoes the request, and searches their texts
// for the signature.
func TestClient_ErrorsHideSignatures(t *testing.T) {
	u := share.TempURL{Path: path, Sig: "SECRETSIGNATURE", Expires: "1999999999"}
	echo := "/v1/x?temp_url_sig=" + u.Sig + "&temp_url_expires=" + u.Expires
	raw := func(answer string) *Client {
		return newRawPeer(t, func(conn *net.TCPConn) { _, _ = io.WriteString(conn, answer) })
	}
	clients := map[string]*Client{
		"no listener":  newClient(t, "http://127.0.0.1:1"),
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
			ctx, cancel := context.WithTimeout(testContext(t), 20*time.Second)
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
				t.Errorf("%d errors, want at least 3: %v", count, all)
			}
		})
	}
}

// mustBase returns the address that c would connect to.
func (c *Client) mustBase(t *testing.T) string {
	base, err := c.baseURL(t.Context(), account)
	if err != nil {
		t.Fatal(err)
	}
	return base
}

// TestClient_TLS trusts the server's certificate only if it is configured.
func TestClient_TLS(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 1 {
			t.Errorf("the client used %s", r.Proto)
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
	b := blockingBody(4)
	if _, err := c.Put(testContext(t), account, sign("PUT", path), 4, "", b); err != nil {
		t.Error(err)
	}
	_, err := newClient(t, server.URL).Head(testContext(t), account, sign("HEAD", path))
	wantKind(t, err, share.StorageUnavailable)
	if !strings.Contains(err.Error(), "unknown authority") {
		t.Error(err)
	}
}

func TestClient_Concurrent(t *testing.T) {
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
						err = errors.New("Get returned different bytes")
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
		t.Errorf("%d objects were stored, want 64", n)
	}
}
