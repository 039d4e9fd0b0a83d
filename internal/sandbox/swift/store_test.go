package swift

import (
	"bufio"
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/fault"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/journal"
)

// storeRig is a store on a real socket, with a clock that the test may move.
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
		Now: rig.clock, Faults: &fault.Set{}, Journal: journal.NewRecorder(rig.clock),
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
			t.Error("a signature is in the log")
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

// target is the request target of a URL signed for method and path.
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

// do sends a request, reads the whole answer and wants want as its status.
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

// raw sends text over a connection of its own, which it returns.
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

func wantHeader(t *testing.T, resp *http.Response, name, want string) {
	t.Helper()
	if got := resp.Header.Get(name); got != want {
		t.Errorf("%s: %q, want %q", name, got, want)
	}
}

// TestSignVectors holds the signature against values that were not computed here.
func TestSignVectors(t *testing.T) {
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

func TestStoreSignatures(t *testing.T) {
	rig := newStoreRig(t)
	rig.put(testPath, "data")
	exp := strconv.FormatInt(rig.clock().Add(time.Minute).Unix(), 10)
	good, _ := rig.Sign("GET", testPath, rig.clock().Add(time.Minute))
	raw1, _ := hex.DecodeString(good)
	raw256 := hmacOf(sha256.New, "example-key", "GET", exp, testPath)
	raw512 := hmacOf(sha512.New, "example-key", "GET", exp, testPath)
	iso := rig.clock().Add(time.Minute).UTC().Format(isoTime)
	short, _ := strconv.ParseInt(exp, 10, 64)
	bad := "0" + good[1:]
	if bad == good {
		bad = "1" + good[1:]
	}
	far, farExp := rig.Sign("GET", testPath, time.UnixMilli(rig.clock().UnixMilli()*1000))

	for _, c := range []struct {
		name, query string
		want        int
	}{
		{"sha1", "temp_url_sig=" + good + "&temp_url_expires=" + exp, 200},
		{"sha256", "temp_url_sig=" + hex.EncodeToString(raw256) + "&temp_url_expires=" + exp, 200},
		{"sha512", "temp_url_sig=" + hex.EncodeToString(raw512) + "&temp_url_expires=" + exp, 200},
		{"sha1 base64", "temp_url_sig=sha1:" + url.QueryEscape(base64.StdEncoding.EncodeToString(raw1)) + "&temp_url_expires=" + exp, 200},
		{"sha256 url base64", "temp_url_sig=sha256:" + base64.RawURLEncoding.EncodeToString(raw256) + "&temp_url_expires=" + exp, 200},
		{"sha512 url base64", "temp_url_sig=sha512:" + base64.URLEncoding.EncodeToString(raw512) + "&temp_url_expires=" + exp, 200},
		{"named hex", "temp_url_sig=sha1:" + good + "&temp_url_expires=" + exp, 401},
		{"upper-case name", "temp_url_sig=SHA1:" + base64.RawURLEncoding.EncodeToString(raw1) + "&temp_url_expires=" + exp, 401},
		{"upper-case hex", "temp_url_sig=" + strings.ToUpper(good) + "&temp_url_expires=" + exp, 401},
		{"wrong", "temp_url_sig=" + bad + "&temp_url_expires=" + exp, 401},
		{"md5 length", "temp_url_sig=" + good[:32] + "&temp_url_expires=" + exp, 401},
		{"other order, unknown parameter", "x=1&temp_url_expires=" + exp + "&temp_url_sig=" + good, 200},
		{"first counts", "temp_url_sig=" + good + "&temp_url_sig=" + bad + "&temp_url_expires=" + exp, 200},
		{"first counts, bad", "temp_url_sig=" + bad + "&temp_url_sig=" + good + "&temp_url_expires=" + exp, 401},
		{"semicolon", "temp_url_sig=" + good + ";temp_url_expires=" + exp, 401},
		{"no expiry", "temp_url_sig=" + good, 401},
		{"no signature", "temp_url_expires=" + exp, 401},
		{"empty signature", "temp_url_sig=&temp_url_expires=" + exp, 401},
		{"other expiry", "temp_url_sig=" + good + "&temp_url_expires=" + strconv.FormatInt(short+1, 10), 401},
		{"ISO", "temp_url_sig=" + good + "&temp_url_expires=" + iso, 200},
		{"ISO encoded", "temp_url_sig=" + good + "&temp_url_expires=" + url.QueryEscape(iso), 200},
		{"ISO without Z", "temp_url_sig=" + good + "&temp_url_expires=" + strings.TrimSuffix(iso, "Z"), 401},
		{"ISO with fraction", "temp_url_sig=" + good + "&temp_url_expires=" + strings.TrimSuffix(iso, "Z") + ".0Z", 401},
		{"fraction", "temp_url_sig=" + good + "&temp_url_expires=" + exp + ".0", 401},
		{"negative", "temp_url_sig=" + good + "&temp_url_expires=-" + exp, 401},
		{"plus", "temp_url_sig=" + good + "&temp_url_expires=%2B" + exp, 200},
		{"leading zero", "temp_url_sig=" + good + "&temp_url_expires=0" + exp, 200},
		{"blank", "temp_url_sig=" + good + "&temp_url_expires=+" + exp, 200},
		{"underscore", "temp_url_sig=" + good + "&temp_url_expires=" + exp[:4] + "_" + exp[4:], 200},
		{"two underscores", "temp_url_sig=" + good + "&temp_url_expires=" + exp[:4] + "__" + exp[4:], 401},
		{"far away", "temp_url_sig=" + far + "&temp_url_expires=" + farExp, 200},
		{"prefix added", "temp_url_sig=" + good + "&temp_url_expires=" + exp + "&temp_url_prefix=", 401},
		{"address range added", "temp_url_sig=" + good + "&temp_url_expires=" + exp + "&temp_url_ip_range=127.0.0.1", 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, err := rig.send("GET", testPath+"?"+c.query, nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != c.want {
				t.Errorf("status %d, want %d", resp.StatusCode, c.want)
			}
		})
	}
}

func TestStoreExpiry(t *testing.T) {
	rig := newStoreRig(t)
	rig.now = time.Unix(1_800_000_000, 0)
	rig.put(testPath, "data")
	target := rig.target("GET", testPath) // Until 1800000060.
	for _, c := range []struct {
		after time.Duration
		want  int
	}{
		{59 * time.Second, 200},
		{60 * time.Second, 200},
		{60*time.Second + time.Millisecond, 401},
		{61 * time.Second, 401},
	} {
		rig.now = time.Unix(1_800_000_000, 0).Add(c.after)
		rig.do(c.want, "GET", target, "")
	}
}

func TestStoreMethods(t *testing.T) {
	all := []string{"GET", "HEAD", "PUT", "POST", "DELETE"}
	for signed, want := range map[string][]int{
		"GET":    {200, 200, 401, 401, 401},
		"HEAD":   {401, 200, 401, 401, 401},
		"PUT":    {401, 200, 201, 401, 401},
		"POST":   {401, 200, 401, 202, 401},
		"DELETE": {401, 401, 401, 401, 204},
	} {
		rig := newStoreRig(t)
		rig.put(testPath, "data")
		for i, method := range all {
			rig.do(want[i], method, rig.target(signed, testPath), "new")
		}
		rig.do(401, "PATCH", rig.target(signed, testPath), "")
	}
}

func TestStorePaths(t *testing.T) {
	rig := newStoreRig(t)
	const base = "/v1/AUTH_async-images/12345678/"
	for _, name := range []string{"a.png", "a b+c.png", "déjà vu?.png", "a/b", "a//b", "a/", "..", "a/../b", "%41"} {
		rig.put(base+name, name)
		if _, got := rig.do(200, "GET", rig.target("GET", base+name), ""); got != name {
			t.Errorf("%q holds %q", name, got)
		}
	}
	// Every byte encoded, signed decoded.
	target := rig.target("GET", base+"a.png")
	_, query, _ := strings.Cut(target, "?")
	var encoded strings.Builder
	for _, b := range []byte("a.png") {
		fmt.Fprintf(&encoded, "%%%02x", b)
	}
	rig.do(200, "GET", base+encoded.String()+"?"+query, "")
	// Signed encoded.
	sig, exp := rig.Sign("GET", base+"a%20b+c.png", rig.clock().Add(time.Minute))
	rig.do(401, "GET", base+"a%20b+c.png?temp_url_sig="+sig+"&temp_url_expires="+exp, "")

	for _, path := range []string{
		"/v1/AUTH_async-images/12345678", "/v1/AUTH_async-images/12345678/", "/v1/AUTH_async-images", "/v1.0/AUTH_async-images/12345678/a.png",
		"/v1/AUTH_other/12345678/a.png", "/v1//12345678/a.png", "/v1/AUTH_async-images//a.png",
	} {
		rig.do(401, "GET", rig.target("GET", path), "")
	}
	rig.do(404, "GET", rig.target("GET", base+"A.png"), "")
	rig.do(404, "GET", rig.target("GET", "/v1/AUTH_async-images/other/a.png"), "")

	_, answer := rig.raw("GET " + rig.url + rig.target("GET", base+"a.png") + " HTTP/1.1\r\nHost: x\r\n\r\n")
	if line, _ := answer.ReadString('\n'); !strings.Contains(line, " 401 ") {
		t.Errorf("absolute form: %q", line)
	}
}

func TestStoreUnauthorized(t *testing.T) {
	rig := newStoreRig(t)
	resp, text := rig.do(401, "GET", testPath+"?temp_url_sig=x&temp_url_expires=1", "")
	if text != "401 Unauthorized: Temp URL invalid\n" || resp.ContentLength != 35 {
		t.Errorf("body %q", text)
	}
	wantHeader(t, resp, "Content-Type", "text/html; charset=UTF-8")
	wantHeader(t, resp, "Www-Authenticate", `Swift realm="unknown"`)
	if id := resp.Header.Get("X-Trans-Id"); len(id) != 34 || !strings.HasPrefix(id, "tx") || id != resp.Header.Get("X-Openstack-Request-Id") {
		t.Errorf("X-Trans-Id %q", id)
	}
	resp, _ = rig.do(401, "HEAD", testPath+"?temp_url_sig=x&temp_url_expires=1", "", header("X-Trans-Id-Extra", "lp-42"))
	if resp.ContentLength != 0 || !strings.HasSuffix(resp.Header.Get("X-Trans-Id"), "-lp-42") {
		t.Errorf("HEAD: %v", resp.Header)
	}
	resp, text = rig.do(401, "GET", testPath, "")
	if len(text) != 131 {
		t.Errorf("%d bytes without a signature: %q", len(text), text)
	}
	wantHeader(t, resp, "Www-Authenticate", `Swift realm="AUTH_async-images"`)
}

func TestStorePut(t *testing.T) {
	rig := newStoreRig(t)
	rig.now = time.Unix(1_800_000_000, 1)
	resp := rig.put(testPath, "data")
	wantHeader(t, resp, "Etag", hexMD5("data"))
	wantHeader(t, resp, "Last-Modified", time.Unix(1_800_000_001, 0).UTC().Format(http.TimeFormat))
	if resp.ContentLength != 0 {
		t.Errorf("Content-Length %d", resp.ContentLength)
	}
	if size, etag, ok := rig.stat(testPath); size != 4 || etag != hexMD5("data") || !ok {
		t.Errorf("stat: %d %q %v", size, etag, ok)
	}
	target := rig.target("PUT", testPath)
	resp, err := rig.send("PUT", target, io.MultiReader(strings.NewReader("chun"), strings.NewReader("ked")))
	if err != nil || resp.StatusCode != 201 || resp.Header.Get("Etag") != hexMD5("chunked") {
		t.Fatalf("chunked: %v %v", resp, err)
	}
	_ = resp.Body.Close()
	rig.put(testPath, "")

	for _, c := range []struct {
		name string
		want int
		opt  option
	}{
		{"right ETag", 201, header("ETag", hexMD5("data"))},
		{"quoted ETag", 201, header("ETag", `"`+hexMD5("data")+`"`)},
		{"upper-case ETag", 422, header("ETag", strings.ToUpper(hexMD5("data")))},
		{"wrong ETag", 422, header("ETag", hexMD5("other"))},
		{"wrong Content-MD5", 201, header("Content-MD5", "bm9uc2Vuc2U=")},
		{"if none", 412, header("If-None-Match", "*")},
		{"if none of these", 400, header("If-None-Match", `"abc"`)},
		{"manifest", 400, header("X-Object-Manifest", "")},
		{"symlink", 400, header("X-Symlink-Target", "c/o")},
		{"copy", 400, header("X-Copy-From", "/c/o")},
		{"static", 400, header("X-Static-Large-Object", "true")},
		{"type", 201, header("Content-Type", "nonsense")},
		{"type not UTF-8", 400, header("Content-Type", "image/\xff")},
		{"metadata too long", 400, header("X-Object-Meta-A", strings.Repeat("x", 257))},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, before, _ := rig.stat(testPath)
			_, text := rig.do(c.want, "PUT", target, "data", c.opt)
			if c.want == 422 && len(text) != 93 {
				t.Errorf("body %q", text)
			}
			if _, after, _ := rig.stat(testPath); c.want >= 400 && after != before {
				t.Error("refused, but stored")
			}
		})
	}
	long := "/v1/AUTH_async-images/12345678/" + strings.Repeat("n", 1024)
	rig.put(long, "x")
	rig.do(400, "PUT", rig.target("PUT", long+"n"), "x")
	if _, text := rig.do(404, "PUT", rig.target("PUT", "/v1/AUTH_async-images/none/a.png"), "x"); len(text) != 70 {
		t.Errorf("404: %q", text)
	}
}

func TestStoreContentType(t *testing.T) {
	rig := newStoreRig(t)
	for name, want := range map[string]string{
		"a.PNG": "image/png", "a.jpeg": "image/jpeg", "a.JPG": "image/jpeg", "a.gif": "image/gif", "a.webp": "image/webp",
		"a.svg": "image/svg+xml", "a": "application/octet-stream", "a.pdf": "application/pdf",
	} {
		path := "/v1/AUTH_async-images/12345678/" + name
		rig.put(path, "x")
		resp, _ := rig.do(200, "HEAD", rig.target("HEAD", path), "")
		wantHeader(t, resp, "Content-Type", want)
	}
	rig.put(testPath, "x", header("Content-Type", "text/html"), header("Cache-Control", "no-store"),
		header("X-Object-Meta-Secret", "1"), header("X-Object-Meta-Public-Hint", "2"))
	resp, _ := rig.do(200, "GET", rig.target("GET", testPath), "")
	wantHeader(t, resp, "Content-Type", "text/html")
	wantHeader(t, resp, "Cache-Control", "no-store")
	wantHeader(t, resp, "X-Object-Meta-Secret", "")
	wantHeader(t, resp, "X-Object-Meta-Public-Hint", "2")
}

// TestStoreLength sends what net/http's client would not.
func TestStoreLength(t *testing.T) {
	rig := newStoreRig(t)
	for name, c := range map[string]struct{ headers, want string }{
		"neither":     {"", " 411 "},
		"zero":        {"Content-Length: 0\r\n", " 201 "},
		"too large":   {"Content-Length: 5368709123\r\n", " 413 "},
		"empty chunk": {"Transfer-Encoding: chunked\r\n\r\n0\r\n", " 201 "},
	} {
		_, answer := rig.raw("PUT " + rig.target("PUT", testPath) + " HTTP/1.1\r\nHost: x\r\n" + c.headers + "\r\n")
		if line, err := answer.ReadString('\n'); err != nil || !strings.Contains(line, c.want) {
			t.Errorf("%s: %q %v, want%s", name, line, err, c.want)
		}
	}
	rig.MaxObjectSize = 10
	resp, err := rig.send("PUT", rig.target("PUT", testPath), io.MultiReader(strings.NewReader("0123456789a")))
	if err != nil || resp.StatusCode != 413 {
		t.Errorf("chunked past the limit: %v %v", resp, err)
	}
	if err == nil {
		_ = resp.Body.Close()
	}
}

// TestStoreAnswersAtOnce announces a body and sends none of it: the refusal must not wait. Then the body comes after all, and the
// connection takes another request.
func TestStoreAnswersAtOnce(t *testing.T) {
	rig := newStoreRig(t)
	for name, c := range map[string]struct{ target, want string }{
		"bad signature": {testPath + "?temp_url_sig=x&temp_url_expires=1", " 401 "},
		"no container":  {rig.target("PUT", "/v1/AUTH_async-images/none/a.png"), " 404 "},
	} {
		for _, size := range []int{1000, 200_000, 3_000_000} {
			conn, answer := rig.raw(fmt.Sprintf("PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", c.target, size))
			_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
			resp, err := http.ReadResponse(answer, nil)
			if err != nil || !strings.Contains(" "+resp.Status, c.want) {
				t.Fatalf("%s: %v %v", name, resp, err)
			}
			if resp.Close {
				t.Errorf("%s: the connection is closed", name)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_, _ = conn.Write(make([]byte, size))
			_, _ = fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", rig.target("PUT", testPath))
			if resp, err = http.ReadResponse(answer, nil); err != nil || resp.StatusCode != 201 {
				t.Errorf("%s, %d bytes: next request: %v %v", name, size, resp, err)
			}
		}
	}
	// With Expect: 100-continue nothing of the body is asked for.
	_, answer := rig.raw("PUT " + testPath + "?temp_url_sig=x&temp_url_expires=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
	if line, _ := answer.ReadString('\n'); !strings.Contains(line, " 401 ") {
		t.Errorf("Expect: %q", line)
	}
}

// TestStoreNothingByHalves ends bodies early in every way: nothing is stored, and what was there stays.
func TestStoreNothingByHalves(t *testing.T) {
	rig := newStoreRig(t)
	rig.put(testPath, "old")
	head := "PUT " + rig.target("PUT", testPath) + " HTTP/1.1\r\nHost: x\r\n"
	for name, text := range map[string]string{
		"length":        head + "Content-Length: 100000\r\n\r\n" + strings.Repeat("x", 70_000),
		"chunked":       head + "Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n",
		"broken chunks": head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
	} {
		conn, answer := rig.raw(text)
		_ = conn.(*net.TCPConn).CloseWrite()
		resp, err := http.ReadResponse(answer, nil)
		if err != nil || resp.StatusCode != 499 {
			t.Errorf("%s: %v %v, want 499", name, resp, err)
		}
	}
	if size, _, _ := rig.stat(testPath); size != 3 {
		t.Errorf("%d bytes are stored", size)
	}
	if got := len(rig.Journal.Snapshot().Stored); got != 1 {
		t.Errorf("%d commits", got)
	}
	rig.wantHeld(3)

	impatient := newStoreRig(t)
	impatient.ClientTimeout = 50 * time.Millisecond
	_, answer := impatient.raw("PUT " + impatient.target("PUT", testPath) + " HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
	resp, err := http.ReadResponse(answer, nil)
	if err != nil || resp.StatusCode != 408 {
		t.Fatalf("too slow: %v %v, want 408", resp, err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	if _, err := answer.ReadByte(); err != io.EOF {
		t.Errorf("too slow: then %v, want the end", err)
	}
	if _, _, ok := impatient.stat(testPath); ok {
		t.Error("what did not come is stored")
	}
	impatient.wantHeld(0)
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

func TestStoreFull(t *testing.T) {
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

// TestStoreTwoAtOnce begins a PUT, lets another one overtake it, and then ends it: the later one stays.
func TestStoreTwoAtOnce(t *testing.T) {
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
		t.Errorf("journal: %+v, want the second only", j)
	}
	rig.wantHeld(6)

	// One that came earlier, and whose turn is later, is told so before its body is read.
	rig.Faults.Inject(fault.Fault{On: "store:PUT", Delay: 300 * time.Millisecond, Count: 1})
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

	// A crowd: one whole body stays, and every answer is a success.
	var crowd sync.WaitGroup
	for i := range 20 {
		crowd.Go(func() {
			resp, err := rig.send("PUT", rig.target("PUT", testPath), strings.NewReader(strings.Repeat(string(rune('a'+i)), 100_000)))
			if err != nil || resp.StatusCode != 201 && resp.StatusCode != 202 {
				t.Errorf("%v %v", resp, err)
				return
			}
			_ = resp.Body.Close()
		})
	}
	crowd.Wait()
	_, got := rig.do(200, "GET", rig.target("GET", testPath), "")
	if len(got) != 100_000 || strings.Trim(got, got[:1]) != "" {
		t.Error("bodies are mixed")
	}
	rig.wantHeld(100_000)
}

func TestStoreGet(t *testing.T) {
	rig := newStoreRig(t)
	rig.now = time.Unix(1_800_000_000, 948_190_000)
	rig.put(testPath, "data", header("Content-Type", "image/png"))
	for _, method := range []string{"GET", "HEAD"} {
		resp, text := rig.do(200, method, rig.target("GET", testPath), "")
		if method == "GET" && text != "data" || resp.ContentLength != 4 {
			t.Errorf("%s: %q, %d", method, text, resp.ContentLength)
		}
		wantHeader(t, resp, "Content-Type", "image/png")
		wantHeader(t, resp, "Etag", hexMD5("data"))
		wantHeader(t, resp, "Last-Modified", "Fri, 15 Jan 2027 08:00:01 GMT")
		wantHeader(t, resp, "X-Timestamp", "1800000000.94819")
		wantHeader(t, resp, "Accept-Ranges", "bytes")
		wantHeader(t, resp, "Expires", "Fri, 15 Jan 2027 08:01:00 GMT")
		wantHeader(t, resp, "Content-Disposition", `attachment; filename="0b2e2f0c.PNG"; filename*=UTF-8''0b2e2f0c.PNG`)
	}
	for query, want := range map[string]string{
		"&inline":                    "inline",
		"&inline=no&filename=b.png":  `inline; filename="b.png"; filename*=UTF-8''b.png`,
		"&filename=d%C3%A9j+%22/%0a": `attachment; filename="d%C3%A9j %22/%0A"; filename*=UTF-8''d%C3%A9j%20%22/%0A`,
	} {
		resp, _ := rig.do(200, "GET", rig.target("GET", testPath)+query, "")
		wantHeader(t, resp, "Content-Disposition", want)
	}
	rig.put(testPath, "data", header("Content-Disposition", "stored"))
	resp, _ := rig.do(200, "GET", rig.target("GET", testPath), "")
	wantHeader(t, resp, "Content-Disposition", "stored")
	if _, text := rig.do(404, "GET", rig.target("GET", testPath+"x"), ""); len(text) != 70 {
		t.Errorf("404: %q", text)
	}
}

func TestStoreConditions(t *testing.T) {
	rig := newStoreRig(t)
	rig.now = time.Unix(1_800_000_000, 5)
	rig.put(testPath, "data")
	etag := hexMD5("data")
	modified := time.Unix(1_800_000_001, 0).UTC()
	date := func(d time.Duration) string { return modified.Add(d).Format(http.TimeFormat) }
	for _, c := range []struct {
		name, value string
		want        int
	}{
		{"If-None-Match", etag, 304}, {"If-None-Match", `"x", "` + etag + `"`, 304}, {"If-None-Match", "*", 304},
		{"If-None-Match", `W/"` + etag + `"`, 200}, {"If-None-Match", "x", 200},
		{"If-Match", etag, 200}, {"If-Match", `"` + etag + `"`, 200}, {"If-Match", "*", 200}, {"If-Match", "x", 412},
		{"If-Modified-Since", date(0), 304}, {"If-Modified-Since", date(-time.Second), 200}, {"If-Modified-Since", "nonsense", 200},
		{"If-Unmodified-Since", date(0), 200}, {"If-Unmodified-Since", date(-time.Second), 412},
	} {
		resp, text := rig.do(c.want, "GET", rig.target("GET", testPath), "", header(c.name, c.value))
		if c.want != 200 && text != "" {
			t.Errorf("%s: body %q", c.name, text)
		}
		if c.want == 304 {
			wantHeader(t, resp, "Etag", etag)
			wantHeader(t, resp, "Content-Disposition", "")
			wantHeader(t, resp, "Expires", "")
		}
	}
	rig.do(304, "GET", rig.target("GET", testPath), "", header("If-None-Match", etag), header("Range", "bytes=99-"))
	rig.do(206, "GET", rig.target("GET", testPath), "", header("If-Range", `"wrong"`), header("Range", "bytes=1-"))
}

func TestStoreRanges(t *testing.T) {
	rig := newStoreRig(t)
	data := strings.Repeat("0123456789abcdef", 640) // 10240 bytes.
	rig.put(testPath, data)
	target := rig.target("GET", testPath)
	many := func(n int, f func(i int) string) string {
		var list []string
		for i := range n {
			list = append(list, f(i))
		}
		return "bytes=" + strings.Join(list, ",")
	}
	for _, c := range []struct {
		ask          string
		status       int
		contentRange string
	}{
		{"bytes=0-3", 206, "bytes 0-3/10240"},
		{"bytes=10230-", 206, "bytes 10230-10239/10240"},
		{"bytes=-5", 206, "bytes 10235-10239/10240"},
		{"bytes=10000-99999", 206, "bytes 10000-10239/10240"},
		{"bytes=-99999", 206, "bytes 0-10239/10240"},
		{"bytes=0-3,99999-100000", 206, "bytes 0-3/10240"},
		{"bytes=10240-", 416, "bytes */10240"},
		{"bytes=99999-", 416, "bytes */10240"},
		{"bytes=-0", 416, "bytes */10240"},
		{"bytes=5-2", 200, ""}, {"bytes=abc", 200, ""}, {"bytes=-", 200, ""}, {"bytes=", 200, ""},
		{"items=0-3", 200, ""}, {"bytes=0-3;5-7", 200, ""}, {"bytes=1-+3", 200, ""},
		{"bytes=+1-3", 206, "bytes 1-3/10240"}, {"BYTES=1_0-12", 206, "bytes 10-12/10240"},
		{many(50, func(i int) string { return fmt.Sprintf("%d-%d", 10*i, 10*i+1) }), 206, ""},
		{many(51, func(i int) string { return fmt.Sprintf("%d-%d", 10*i, 10*i+1) }), 416, "bytes */10240"},
		{"bytes=0-5,3-8,7-9", 206, ""},
		{"bytes=0-5,3-8,4-9", 416, "bytes */10240"},
		{many(7, func(i int) string { return fmt.Sprintf("%d-%d", 100-10*i, 101-10*i) }), 206, ""},
		{many(8, func(i int) string { return fmt.Sprintf("%d-%d", 100-10*i, 101-10*i) }), 416, "bytes */10240"},
	} {
		t.Run(c.ask[:min(len(c.ask), 30)], func(t *testing.T) {
			resp, text := rig.do(c.status, "GET", target, "", header("Range", c.ask))
			wantHeader(t, resp, "Content-Range", c.contentRange)
			var from, to int
			if n, _ := fmt.Sscanf(c.contentRange, "bytes %d-%d/", &from, &to); n == 2 && text != data[from:to+1] {
				t.Errorf("other bytes than asked for: %q", text)
			}
			if c.status == 416 {
				wantHeader(t, resp, "Content-Type", "image/png")
				wantHeader(t, resp, "Etag", hexMD5(data))
				if len(text) != 97 {
					t.Errorf("416: %q", text)
				}
			}
		})
	}

	resp, text := rig.do(206, "GET", target, "", header("Range", "bytes=0-3,10-11"))
	kind, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/byteranges" || resp.ContentLength != int64(len(text)) {
		t.Fatalf("%v %v", resp.Header, err)
	}
	parts := multipart.NewReader(strings.NewReader(text), params["boundary"])
	for _, want := range []string{"0123", "ab"} {
		part, err := parts.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(part); string(got) != want || part.Header.Get("Content-Type") != "image/png" || part.Header.Get("Content-Range") == "" {
			t.Errorf("part %q %v, want %q", got, part.Header, want)
		}
	}
	if _, err := parts.NextPart(); err != io.EOF {
		t.Errorf("after the last part: %v", err)
	}

	if resp, _ := rig.do(200, "HEAD", target, "", header("Range", "bytes=0-3")); resp.ContentLength != 10240 {
		t.Errorf("HEAD: %d", resp.ContentLength)
	}
	rig.put(testPath, "")
	rig.do(416, "GET", target, "", header("Range", "bytes=0-0"))
	rig.do(200, "GET", target, "", header("Range", "bytes=-5"))
}

func TestStoreCORS(t *testing.T) {
	rig := newStoreRig(t)
	resp, _ := rig.do(200, "OPTIONS", testPath, "")
	wantHeader(t, resp, "Allow", methods)
	wantHeader(t, resp, "Access-Control-Allow-Origin", "")
	resp, _ = rig.do(200, "OPTIONS", testPath, "", header("Origin", "https://page"), header("Access-Control-Request-Method", "PUT"),
		header("Access-Control-Request-Headers", "content-type"))
	wantHeader(t, resp, "Access-Control-Allow-Origin", "*")
	wantHeader(t, resp, "Access-Control-Allow-Headers", "content-type")
	wantHeader(t, rig.put(testPath, "x", header("Origin", "https://page")), "Access-Control-Allow-Origin", "*")
	resp, _ = rig.do(401, "GET", testPath+"?temp_url_sig=x", "", header("Origin", "https://page"))
	wantHeader(t, resp, "Access-Control-Allow-Origin", "")
}

// TestStoreJournal holds the journal against what was done.
func TestStoreJournal(t *testing.T) {
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

func TestStoreFaults(t *testing.T) {
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
		{"mute", "PUT", fault.Fault{Mute: true}, wantTimeout, true},
		{"stall", "PUT", fault.Fault{StallAfter: 1000}, wantTimeout, false},
		{"answer delay", "PUT", fault.Fault{AnswerDelay: time.Hour}, wantTimeout, true},
		{"delay", "PUT", fault.Fault{Delay: time.Hour}, wantTimeout, false},
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
			if len(body) != 1000 || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%d bytes, %v", len(body), err)
			}
		}, true},
		{"mute", "GET", fault.Fault{Mute: true}, wantTimeout, true},
		{"corrupt", "GET", fault.Fault{Corrupt: true}, func(t *testing.T, _ *storeRig, resp *http.Response, body string, err error) {
			if err != nil || len(body) != len(data) || body == data || resp.Header.Get("Etag") != hexMD5(data) {
				t.Errorf("%d bytes, %v", len(body), err)
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
			if c.fault.Delay > 0 || c.fault.AnswerDelay > 0 || c.fault.Mute || c.fault.StallAfter != 0 {
				ctx, cancel := context.WithTimeout(rig.ctx, 150*time.Millisecond)
				defer cancel()
				rig.ctx = ctx
			}
			var body io.Reader
			if c.method == "PUT" {
				body = strings.NewReader(data)
			}
			resp, err := rig.send(c.method, rig.target(c.method, testPath), body)
			var got []byte
			if err == nil {
				got, err = io.ReadAll(resp.Body)
				_ = resp.Body.Close()
			}
			c.check(t, rig, resp, string(got), err)
			if _, _, ok := rig.stat(testPath); ok != c.stored {
				t.Errorf("stored: %v, want %v", ok, c.stored)
			}
		})
	}
}

func wantReset(t *testing.T, _ *storeRig, resp *http.Response, _ string, err error) {
	t.Helper()
	// net/http may report its own closing of the connection, where that was quicker than its writer.
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v %v, want a reset", resp, err)
	}
}

func wantTimeout(t *testing.T, _ *storeRig, resp *http.Response, _ string, err error) {
	t.Helper()
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v %v, want silence", resp, err)
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

// TestStorePaces measures: a body that is offered at once takes about its size by the rate, one way and the other.
func TestStorePaces(t *testing.T) {
	data := strings.Repeat("x", 3_000_000)
	for _, method := range []string{"PUT", "GET"} {
		rig := newStoreRig(t)
		if method == "GET" {
			rig.put(testPath, data)
		}
		rig.Faults.Inject(fault.Fault{On: "store:" + method, BytesPerSecond: 6_000_000})
		begin := time.Now()
		if method == "GET" {
			if _, got := rig.do(200, "GET", rig.target("GET", testPath), ""); got != data {
				t.Error("other bytes came")
			}
		} else {
			rig.put(testPath, data)
		}
		if took := time.Since(begin); took < 450*time.Millisecond || took > 900*time.Millisecond {
			t.Errorf("%s took %v, want about 500 ms", method, took)
		}
	}
}

// TestStoreCloseEndsWaits closes the store under requests that wait for nothing.
func TestStoreCloseEndsWaits(t *testing.T) {
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
			t.Fatalf("%+v: still waiting", f)
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
