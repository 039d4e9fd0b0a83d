package swift

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// TestGet_NoLength reads parts of an object from a store whose answers have no Content-Length.
func TestGet_NoLength(t *testing.T) {
	data := strings.Repeat("0123456789", 10_000)
	for name, faults := range map[string][]string{
		"GET only":     {"store:GET"},
		"GET and HEAD": {"store:GET", "store:HEAD"},
	} {
		t.Run(name, func(t *testing.T) {
			sb, c := newStore(t)
			mustPut(t, c, data)
			for _, on := range faults {
				sb.Inject(sandbox.Fault{On: on, NoLength: true})
			}
			for _, part := range []struct {
				start, limit int64
				want         string
			}{{0, 0, data}, {10, 0, data[10:]}, {10, 5, data[10:15]}, {0, 5, data[:5]}, {-5, 0, data[len(data)-5:]}} {
				o, err := c.Get(testContext(t), account, sign("GET", path), part.start, part.limit, hexMD5(data))
				if err != nil {
					t.Errorf("%+v: %v", part, err)
					continue
				}
				if got, err := io.ReadAll(o.Body); err != nil || string(got) != part.want || o.Size != int64(len(data)) {
					t.Errorf("%d+%d: %d bytes of %d, %v", part.start, part.limit, len(got), o.Size, err)
				}
				_ = o.Body.Close()
			}
		})
	}
}

// TestGet_NoLengthIsVerified reads from stores that send no length, and not the bytes that they announced elsewhere.
func TestGet_NoLengthIsVerified(t *testing.T) {
	const data = "0123456789"
	for name, c := range map[string]struct {
		get, head string // the answers, without their first lines
		want      string
		kind      share.Kind
	}{
		"closed at the end":       {"Etag: x\r\n\r\n" + data, "Content-Length: 10\r\nEtag: x\r\n\r\n", data, ""},
		"chunked":                 {"Transfer-Encoding: chunked\r\n\r\na\r\n" + data + "\r\n0\r\n\r\n", "Content-Length: 10\r\n\r\n", data, ""},
		"closed early":            {"\r\n0123", "Content-Length: 10\r\n\r\n", "0123", share.StorageTruncated},
		"chunks end early":        {"Transfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n0\r\n\r\n", "Content-Length: 10\r\n\r\n", "0123", share.StorageTruncated},
		"chunks break off":        {"Transfer-Encoding: chunked\r\n\r\na\r\n0123", "Content-Length: 10\r\n\r\n", "0123", share.StorageTruncated},
		"more bytes":              {"\r\n" + data + "more", "Content-Length: 10\r\n\r\n", "", share.StorageProtocolError},
		"HEAD of another object":  {"Etag: x\r\n\r\n" + data, "Content-Length: 10\r\nEtag: y\r\n\r\n", "", share.FileChanged},
		"HEAD of a weakened ETag": {"Etag: \"x\"\r\n\r\n" + data, "Content-Length: 10\r\nEtag: W/\"x\"\r\n\r\n", data, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var gets atomic.Int32
			client := newRawPeerByMethod(t, func(conn *net.TCPConn, method string) {
				answer := c.get
				if method == http.MethodHead {
					answer = c.head
				} else {
					gets.Add(1)
				}
				_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\n%s", answer)
			})
			o, err := client.Get(testContext(t), account, sign("GET", path), 0, 0, "")
			var got []byte
			if err == nil {
				got, err = io.ReadAll(o.Body)
				_ = o.Body.Close()
			}
			if share.KindOf(err) != c.kind || (err == nil) != (c.kind == "") || string(got) != c.want {
				t.Errorf("got %q, %v; want %q, %q", got, err, c.want, c.kind)
			}
			if n := gets.Load(); n != 1 {
				t.Errorf("%d GET requests", n)
			}
		})
	}
}

// TestGet_IfMatch lists the ETags that a caller can ask for, with a store whose answers have the same one.
func TestGet_IfMatch(t *testing.T) {
	for etag, want := range map[share.ETag]string{"x": `"x"`, hexMD5(""): `"` + string(hexMD5("")) + `"`, `W/"x"`: "", hexMD5("") + "-gzip": ""} {
		client := newPeer(t, func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("If-Match"); got != want {
				t.Errorf("If-Match is %q, want %q", got, want)
			}
			w.Header().Set("Etag", string(etag))
			_, _ = io.WriteString(w, "data")
		})
		o, err := client.Get(testContext(t), account, sign("GET", path), 0, 0, etag)
		if err != nil {
			t.Errorf("%s: %v", etag, err)
			continue
		}
		if o.ETag != etag {
			t.Errorf("the ETag is %q, want %q", o.ETag, etag)
		}
		_ = o.Body.Close()
	}
}
