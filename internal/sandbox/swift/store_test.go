package swift

import (
	"bufio"
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/fault"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/journal"
)

// storeRig is a store with an HTTP server, and a clock that the test can set.
// What a client sees without faults is tested by the contract suite in test/swift.
type storeRig struct {
	*testing.T
	*Store
	url    string
	client *http.Client
	ctx    context.Context
	log    *bytes.Buffer

	mu  sync.Mutex
	now time.Time
}

func newStoreRig(t *testing.T) *storeRig {
	t.Helper()
	rig := &storeRig{T: t, now: time.Now(), log: &bytes.Buffer{}}
	rig.Store = New(Options{
		Signer: Signer{Key: "example-key", Digest: "sha1"}, MaxObjectSize: DefaultMaxObjectSize, ClientTimeout: DefaultClientTimeout,
		Now: rig.clock, Faults: &fault.Set{}, Journal: journal.NewRecorder(rig.clock, nil),
		Log: slog.New(slog.NewTextHandler(rig.log, nil)),
	})
	rig.CreateContainer("12345678")
	server := httptest.NewServer(rig.Store)
	rig.url = server.URL
	transport := &http.Transport{DisableCompression: true}
	rig.client = &http.Client{Transport: transport}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	rig.ctx = ctx
	t.Cleanup(func() {
		cancel()
		rig.Store.Close()
		transport.CloseIdleConnections()
		server.Close()
		if strings.Contains(rig.log.String(), "temp_url_sig=") {
			t.Error("the log contains a signature")
		}
	})
	return rig
}

func (rig *storeRig) clock() time.Time {
	rig.mu.Lock()
	defer rig.mu.Unlock()
	return rig.now
}

// stat returns size and ETag of the object at path, and whether there is one.
func (rig *storeRig) stat(path string) (size int, etag string, ok bool) {
	o := rig.object(path)
	if o == nil {
		return 0, "", false
	}
	return len(o.data), o.etag, true
}

const testPath = "/v1/AUTH_async-images/12345678/0b2e2f0c.PNG"

// target returns the request target of a URL that is signed for method and path.
func (rig *storeRig) target(method, path string) string {
	sig, exp := rig.Sign(method, path, rig.clock().Add(time.Minute))
	u := url.URL{Path: path}
	return u.EscapedPath() + "?temp_url_sig=" + sig + "&temp_url_expires=" + exp
}

// An option changes a request before it is sent.
type option func(r *http.Request)

func header(name, value string) option {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func (rig *storeRig) send(method, target string, body io.Reader, options ...option) (*http.Response, error) {
	rig.Helper()
	r, err := http.NewRequestWithContext(rig.ctx, method, rig.url+target, body)
	if err != nil {
		rig.Fatal(err)
	}
	for _, o := range options {
		o(r)
	}
	return rig.client.Do(r)
}

// do sends a request, reads the whole answer, and fails the test unless its status is want.
func (rig *storeRig) do(want int, method, target, body string, options ...option) (*http.Response, string) {
	rig.Helper()
	var b io.Reader
	if method == http.MethodPut || method == http.MethodPost {
		b = strings.NewReader(body)
	}
	resp, err := rig.send(method, target, b, options...)
	if err != nil {
		rig.Fatalf("%s: %v", method, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		rig.Fatalf("%s: body: %v", method, err)
	}
	if resp.StatusCode != want {
		rig.Fatalf("%s: status %d, want %d; body %q", method, resp.StatusCode, want, text)
	}
	return resp, string(text)
}

func (rig *storeRig) put(path, body string, options ...option) *http.Response {
	rig.Helper()
	resp, _ := rig.do(http.StatusCreated, http.MethodPut, rig.target(http.MethodPut, path), body, options...)
	return resp
}

// raw sends text on a new connection and returns it.
func (rig *storeRig) raw(text string) (net.Conn, *bufio.Reader) {
	rig.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(rig.url, "http://"))
	if err != nil {
		rig.Fatal(err)
	}
	rig.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		rig.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

func hexMD5(s string) string {
	sum := md5.Sum([]byte(s))
	return hex.EncodeToString(sum[:])
}

// TestSigner_Sign compares with signatures from another implementation.
func TestSigner_Sign(t *testing.T) {
	st := Signer{Key: "example-key", Digest: "sha1"}
	for method, want := range map[string]string{
		"PUT": "0e31cf038d91ff7ace0d52f0427b549d0f4b99f5",
		"GET": "7d74f183674d8575fbc21495bdadc3d4fcc28871",
	} {
		sig, exp := st.Sign(method, "/v1/AUTH_async-images/12345678/abc.PNG", time.Unix(1700000060, 0))
		if sig != want || exp != "1700000060" {
			t.Errorf("%s: %s until %s, want %s", method, sig, exp, want)
		}
	}
}

// wantHeld waits until the store holds want bytes.
func (rig *storeRig) wantHeld(want int64) {
	rig.Helper()
	rig.eventually(fmt.Sprintf("the store holds %d bytes", want), func() bool {
		rig.Store.mu.Lock()
		defer rig.Store.mu.Unlock()
		return rig.held == want
	})
}

func (rig *storeRig) eventually(what string, ok func() bool) {
	rig.Helper()
	timeout := time.After(10 * time.Second)
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for !ok() {
		select {
		case <-poll.C:
		case <-timeout:
			rig.Fatalf("did not happen: %s", what)
		}
	}
}

func TestStore_Full(t *testing.T) {
	rig := newStoreRig(t)
	rig.maxHeld = 100
	target := rig.target("PUT", testPath)
	rig.do(201, "PUT", target, strings.Repeat("x", 60))
	_, text := rig.do(507, "PUT", target, strings.Repeat("x", 60))
	if !strings.Contains(text, "Insufficient Storage") {
		t.Errorf("body %q", text)
	}
	resp, err := rig.send("PUT", target, io.MultiReader(strings.NewReader(strings.Repeat("x", 60))))
	if err != nil || resp.StatusCode != 507 {
		t.Errorf("chunked: %v %v", resp, err)
	}
	_ = resp.Body.Close()
	rig.wantHeld(60)
	rig.do(201, "PUT", target, strings.Repeat("x", 40))
	rig.wantHeld(40)
	rig.do(204, "DELETE", rig.target("DELETE", testPath), "")
	rig.wantHeld(0)
}

func TestStore_LatestPutWins(t *testing.T) {
	rig := newStoreRig(t)
	conn, answer := rig.raw("PUT " + rig.target("PUT", testPath) + " HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nfi")
	rig.eventually("the PUT has begun", func() bool { return rig.writes.Load() > 0 })
	rig.put(testPath, "second")
	_, _ = conn.Write([]byte("rst"))
	resp, err := http.ReadResponse(answer, nil)
	if err != nil || resp.StatusCode != 201 || resp.Header.Get("Etag") != hexMD5("first") {
		t.Fatalf("%v %v, want 201 with its own ETag", resp, err)
	}
	if _, got := rig.do(200, "GET", rig.target("GET", testPath), ""); got != "second" {
		t.Errorf("%q is stored", got)
	}
	if j := rig.Journal.Snapshot().Stored; len(j) != 1 {
		t.Errorf("journal: %+v, want the second PUT only", j)
	}
	rig.wantHeld(6)

	// An earlier PUT that is delayed is answered before its body is read.
	rig.Faults.Inject(fault.Fault{On: "store:PUT", Delay: time.Second, Count: 1})
	before := rig.writes.Load()
	early, answer := rig.raw("PUT " + rig.target("PUT", testPath) + " HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
	rig.eventually("the PUT has begun", func() bool { return rig.writes.Load() > before })
	rig.put(testPath, "third.")
	resp, err = http.ReadResponse(answer, nil)
	if err != nil || resp.StatusCode != 202 || resp.Header.Get("Etag") != "" {
		t.Fatalf("%v %v, want 202 without an ETag", resp, err)
	}
	_ = early.Close()
	if _, got := rig.do(200, "GET", rig.target("GET", testPath), ""); got != "third." {
		t.Errorf("%q is stored", got)
	}
	rig.wantHeld(6)

	// Many concurrent PUTs: the object is one of the bodies, and every answer is a success.
	var puts sync.WaitGroup
	for i := range 20 {
		puts.Go(func() {
			resp, err := rig.send("PUT", rig.target("PUT", testPath), strings.NewReader(strings.Repeat(string(rune('a'+i)), 100_000)))
			if err != nil || resp.StatusCode != 201 && resp.StatusCode != 202 {
				t.Errorf("%v %v", resp, err)
				return
			}
			_ = resp.Body.Close()
		})
	}
	puts.Wait()
	_, got := rig.do(200, "GET", rig.target("GET", testPath), "")
	if len(got) != 100_000 || strings.Trim(got, got[:1]) != "" {
		t.Error("bodies are mixed")
	}
	rig.wantHeld(100_000)
}

func TestStore_Journal(t *testing.T) {
	rig := newStoreRig(t)
	rig.put(testPath, "0123456789")
	rig.do(206, "GET", rig.target("GET", testPath), "", header("Range", "bytes=2-5"))
	rig.do(404, "GET", rig.target("GET", testPath+"x"), "")
	j := rig.Journal.Snapshot()
	sum := sha256.Sum256([]byte("0123456789"))
	if len(j.Stored) != 1 || j.Stored[0].Path != testPath || j.Stored[0].Size != 10 || j.Stored[0].SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("stored %+v", j.Stored)
	}
	if len(j.Fetched) != 1 || j.Fetched[0].From != 2 || j.Fetched[0].To != 6 {
		t.Errorf("fetched %+v", j.Fetched)
	}
	if len(j.Refused) != 1 || j.Refused[0].Status != 404 {
		t.Errorf("refused %+v", j.Refused)
	}
}

func TestStore_Faults(t *testing.T) {
	data := strings.Repeat("0123456789abcdef", 64<<10) // 1 MiB.
	for _, c := range []struct {
		name   string
		method string
		fault  fault.Fault
		check  func(t *testing.T, rig *storeRig, resp *http.Response, body string, err error)
		stored bool
	}{
		{"status", "PUT", fault.Fault{Status: 503, RetryAfter: 7}, func(t *testing.T, _ *storeRig, resp *http.Response, body string, err error) {
			if err != nil || resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "7" || len(body) != 118 {
				t.Errorf("%v %q %v", resp, body, err)
			}
		}, false},
		{"drop", "PUT", fault.Fault{Drop: true}, wantReset, false},
		{"drop after", "PUT", fault.Fault{DropAfter: true}, wantReset, true},
		{"cut at once", "PUT", fault.Fault{CutAfter: -1}, wantReset, false},
		{"cut", "PUT", fault.Fault{CutAfter: 300_000}, wantReset, false},
		{"cut at the end", "PUT", fault.Fault{CutAfter: 1 << 20}, wantReset, false},
		{"cut beyond the end", "PUT", fault.Fault{CutAfter: 1<<20 + 1}, wantStatus(201), true},
		{"mute", "PUT", fault.Fault{Mute: true}, wantNoAnswer, true},
		{"stall", "PUT", fault.Fault{StallAfter: 1000}, wantNoAnswer, false},
		{"answer delay", "PUT", fault.Fault{AnswerDelay: time.Hour}, wantNoAnswer, true},
		{"delay", "PUT", fault.Fault{Delay: time.Hour}, wantNoAnswer, false},
		{"corrupt", "PUT", fault.Fault{Corrupt: true}, func(t *testing.T, rig *storeRig, resp *http.Response, _ string, err error) {
			_, etag, _ := rig.stat(testPath)
			if err != nil || resp.StatusCode != 201 || resp.Header.Get("Etag") == hexMD5(data) || resp.Header.Get("Etag") != etag {
				t.Errorf("%v %v", resp, err)
			}
		}, true},
		{"wrong ETag", "PUT", fault.Fault{WrongETag: true}, func(t *testing.T, rig *storeRig, resp *http.Response, _ string, err error) {
			_, etag, _ := rig.stat(testPath)
			if err != nil || resp.StatusCode != 201 || resp.Header.Get("Etag") == hexMD5(data) || etag != hexMD5(data) {
				t.Errorf("%v %v", resp, err)
			}
		}, true},
		{"no ETag", "PUT", fault.Fault{NoETag: true}, wantETag(201, ""), true},
		{"weak ETag", "PUT", fault.Fault{WeakETag: true}, wantETag(201, `W/"`+hexMD5(data)+`"`), true},
		{"ETag with a suffix", "PUT", fault.Fault{ETagSuffix: "-gzip"}, wantETag(201, `"`+hexMD5(data)+`-gzip"`), true},
		{"large object", "PUT", fault.Fault{LargeObject: true}, func(t *testing.T, rig *storeRig, resp *http.Response, _ string, err error) {
			if err != nil || resp.StatusCode != 201 || resp.Header.Get("X-Static-Large-Object") != "True" {
				t.Errorf("%v %v", resp, err)
			}
		}, true},
		{"expire", "PUT", fault.Fault{Expire: true}, wantStatus(401), false},
		{"garbage", "PUT", fault.Fault{Garbage: true}, func(t *testing.T, _ *storeRig, _ *http.Response, _ string, err error) {
			if err == nil || !strings.Contains(err.Error(), "malformed") {
				t.Errorf("%v, want a malformed answer", err)
			}
		}, true},

		{"status", "GET", fault.Fault{Status: 498}, wantStatus(498), true},
		{"drop", "GET", fault.Fault{Drop: true}, wantReset, true},
		{"cut at once", "GET", fault.Fault{CutAfter: -1}, wantCut(0), true},
		{"cut", "GET", fault.Fault{CutAfter: 300_000}, wantCut(300_000), true},
		{"stall", "GET", fault.Fault{StallAfter: 1000}, func(t *testing.T, _ *storeRig, _ *http.Response, body string, err error) {
			if body != data[:1000] || !errors.Is(err, context.Canceled) {
				t.Errorf("%d bytes, %v", len(body), err)
			}
		}, true},
		{"mute", "GET", fault.Fault{Mute: true}, wantNoAnswer, true},
		{"corrupt", "GET", fault.Fault{Corrupt: true}, func(t *testing.T, _ *storeRig, resp *http.Response, body string, err error) {
			if err != nil || len(body) != len(data) || body == data || resp.Header.Get("Etag") != hexMD5(data) {
				t.Errorf("%d bytes, %v", len(body), err)
			}
		}, true},
		{"no ETag", "GET", fault.Fault{NoETag: true}, wantETag(200, ""), true},
		{"no length", "GET", fault.Fault{NoLength: true}, func(t *testing.T, _ *storeRig, resp *http.Response, body string, err error) {
			if err != nil || body != data || resp.ContentLength != -1 {
				t.Errorf("%d bytes of %d, %v", len(body), resp.ContentLength, err)
			}
		}, true},
	} {
		t.Run(c.method+" "+c.name, func(t *testing.T) {
			rig := newStoreRig(t)
			if c.method == "GET" {
				rig.put(testPath, data)
			}
			c.fault.On = "store:" + c.method
			rig.Faults.Inject(c.fault)
			ctx, cancel := context.WithCancel(rig.ctx)
			defer cancel()
			rig.ctx = ctx
			stalledGet := c.method == "GET" && c.fault.StallAfter > 0
			if c.fault.Delay > 0 || c.fault.AnswerDelay > 0 || c.fault.Mute || c.method == "PUT" && c.fault.StallAfter != 0 {
				go func() { // the client disconnects when the store has nothing left to do
					poll := time.NewTicker(time.Millisecond)
					defer poll.Stop()
					for ctx.Err() == nil && (rig.Faults.Struck() == 0 || c.stored && rig.object(testPath) == nil) {
						<-poll.C
					}
					cancel()
				}()
			}
			var body io.Reader
			if c.method == "PUT" {
				body = strings.NewReader(data)
			}
			resp, err := rig.send(c.method, rig.target(c.method, testPath), body)
			var got []byte
			if err == nil {
				if stalledGet {
					got = make([]byte, c.fault.StallAfter)
					_, _ = io.ReadFull(resp.Body, got)
					cancel()
				}
				var rest []byte
				rest, err = io.ReadAll(resp.Body)
				got = append(got, rest...)
				_ = resp.Body.Close()
			}
			c.check(t, rig, resp, string(got), err)
			if _, _, ok := rig.stat(testPath); ok != c.stored {
				t.Errorf("stored: %v, want %v", ok, c.stored)
			}
		})
	}
}

func wantETag(status int, etag string) func(*testing.T, *storeRig, *http.Response, string, error) {
	return func(t *testing.T, _ *storeRig, resp *http.Response, _ string, err error) {
		t.Helper()
		if _, any := resp.Header["Etag"]; err != nil || resp.StatusCode != status || resp.Header.Get("Etag") != etag || any != (etag != "") {
			t.Errorf("%v %v, want the ETag %s", resp, err, etag)
		}
	}
}

func wantReset(t *testing.T, _ *storeRig, resp *http.Response, _ string, err error) {
	t.Helper()
	// net/http may report that it has closed the connection itself, if its reader is faster than its writer.
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v %v, want a reset", resp, err)
	}
}

func wantNoAnswer(t *testing.T, _ *storeRig, resp *http.Response, _ string, err error) {
	t.Helper()
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v %v, want no answer", resp, err)
	}
}

func wantStatus(want int) func(*testing.T, *storeRig, *http.Response, string, error) {
	return func(t *testing.T, _ *storeRig, resp *http.Response, _ string, err error) {
		t.Helper()
		if err != nil || resp.StatusCode != want {
			t.Errorf("%v %v, want %d", resp, err, want)
		}
	}
}

func wantCut(want int) func(*testing.T, *storeRig, *http.Response, string, error) {
	return func(t *testing.T, rig *storeRig, _ *http.Response, body string, err error) {
		t.Helper()
		if len(body) > want || want > 0 && len(body) == 0 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%d bytes, %v; want %d and a reset", len(body), err, want)
		}
		if f := rig.Journal.Snapshot().Fetched; len(f) != 1 || f[0].To != int64(want) {
			t.Errorf("fetched %+v", f)
		}
	}
}

// TestStore_CloseEndsRequests closes the store during requests that would never end.
func TestStore_CloseEndsRequests(t *testing.T) {
	for _, f := range []fault.Fault{
		{On: "store:PUT", Delay: time.Hour}, {On: "store:PUT", AnswerDelay: time.Hour}, {On: "store:PUT", Mute: true},
		{On: "store:PUT", StallAfter: 2}, {On: "store:PUT", BytesPerSecond: 1},
	} {
		rig := newStoreRig(t)
		rig.Faults.Inject(f)
		ended := make(chan error, 1)
		go func() {
			resp, err := rig.send("PUT", rig.target("PUT", testPath), strings.NewReader("0123456789"))
			if err == nil {
				_ = resp.Body.Close()
			}
			ended <- err
		}()
		rig.eventually("the request has arrived", func() bool { return rig.Faults.Struck() == 1 })
		rig.Store.Close()
		select {
		case err := <-ended:
			if err == nil {
				t.Errorf("%+v: answered", f)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%+v: the request has not ended", f)
		}
	}
}

func TestStore_ResetOverTLS(t *testing.T) {
	rig := newStoreRig(t)
	server := httptest.NewTLSServer(rig.Store)
	t.Cleanup(server.Close)
	rig.Faults.Inject(fault.Fault{On: "store:GET", Drop: true})
	rig.url, rig.client = server.URL, server.Client()
	resp, err := rig.send("GET", rig.target("GET", testPath), nil)
	wantReset(t, rig, resp, "", err)
}

func TestStore_BytesPerSecond(t *testing.T) {
	data := strings.Repeat("x", 3_000_000)
	for _, method := range []string{"GET", "PUT"} {
		synctest.Test(t, func(t *testing.T) {
			faults := &fault.Set{}
			st := New(Options{
				Signer: Signer{Key: "example-key", Digest: "sha1"}, MaxObjectSize: DefaultMaxObjectSize, ClientTimeout: DefaultClientTimeout,
				Now: time.Now, Faults: faults, Journal: journal.NewRecorder(time.Now, nil), Log: slog.New(slog.DiscardHandler),
			})
			st.CreateContainer("12345678")
			serve := func(method string) *httptest.ResponseRecorder {
				sig, exp := st.Sign(method, testPath, time.Now().Add(time.Minute))
				w := httptest.NewRecorder()
				r := httptest.NewRequest(method, testPath+"?temp_url_sig="+sig+"&temp_url_expires="+exp, strings.NewReader(data))
				r.Header.Set("Content-Length", strconv.Itoa(len(data)))
				r.RequestURI, r.URL.Scheme, r.URL.Host = "", "", ""
				st.ServeHTTP(w, r)
				return w
			}
			serve("PUT")
			faults.Inject(fault.Fault{On: "store:" + method, BytesPerSecond: 6_000_000})
			begin := time.Now()
			w := serve(method)
			// No wait before the first block of 256 KiB.
			if took := time.Since(begin); took < 450*time.Millisecond || took > 500*time.Millisecond {
				t.Errorf("%s took %v, want about 460 ms; answer %d", method, took, w.Code)
			}
			if method == "GET" && w.Body.String() != data {
				t.Errorf("GET returned %d bytes that differ", w.Body.Len())
			}
		})
	}
}
