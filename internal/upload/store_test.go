package upload

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/internal/swift"
)

// TestStoring_ChecksTheStoredObject lists what a store can say of the object that it has stored. Only what shows that the store has
// the uploaded bytes is a success. An answer to the PUT that does not show it leads to a HEAD request.
func TestStoring_ChecksTheStoredObject(t *testing.T) {
	file := []byte("the uploaded bytes")
	sum := md5.Sum(file)
	right, wrong := hex.EncodeToString(sum[:]), strings.Repeat("0", 32)
	type header struct {
		etag   string // empty: none
		large  bool
		length int // of HEAD; 0: that of the file, -1: none
		status int // 0: success
	}
	for name, c := range map[string]struct {
		put, head header
		heads     int32
		kind      share.Kind // empty: success
		etag      share.ETag // of the result
	}{
		"MD5":                       {header{etag: right}, header{}, 0, "", share.ETag(right)},
		"quoted MD5":                {header{etag: `"` + right + `"`}, header{}, 0, "", share.ETag(right)},
		"MD5 in upper case":         {header{etag: strings.ToUpper(right)}, header{}, 0, "", share.ETag(strings.ToUpper(right))},
		"weak MD5":                  {header{etag: `W/"` + right + `"`}, header{}, 0, "", share.ETag(`W/"` + right + `"`)},
		"MD5 with a suffix":         {header{etag: `"` + right + `-gzip"`}, header{}, 0, "", share.ETag(right + "-gzip")},
		"wrong MD5":                 {header{etag: wrong}, header{etag: right}, 0, share.StorageCorrupted, ""},
		"wrong weak MD5":            {header{etag: `W/"` + wrong + `"`}, header{etag: right}, 0, share.StorageCorrupted, ""},
		"none":                      {header{}, header{etag: right}, 1, "", share.ETag(right)},
		"empty":                     {header{etag: `""`}, header{etag: right}, 1, "", share.ETag(right)},
		"none, then a weak one":     {header{}, header{etag: `W/"` + right + `"`}, 1, "", share.ETag(`W/"` + right + `"`)},
		"none, then wrong":          {header{}, header{etag: wrong}, 1, share.StorageCorrupted, ""},
		"none, then another size":   {header{}, header{etag: right, length: 3}, 1, share.StorageCorrupted, ""},
		"none, then no size":        {header{}, header{etag: right, length: -1}, 1, "", share.ETag(right)},
		"none at all":               {header{}, header{}, 1, share.StorageCorrupted, ""},
		"none, then not there":      {header{}, header{status: 404}, 1, share.StorageCorrupted, ""},
		"none, then unavailable":    {header{}, header{status: 503}, 1, share.StorageUnavailable, ""},
		"none, then a rejected URL": {header{}, header{status: 401}, 1, share.StorageURLRejected, ""},
		"segmented":                 {header{etag: wrong, large: true}, header{etag: wrong, large: true}, 1, share.StorageCorrupted, ""},
		"segmented, with the MD5":   {header{etag: right, large: true}, header{etag: right}, 1, "", share.ETag(right)},
		"segmented, then wrong":     {header{etag: right, large: true}, header{etag: wrong}, 1, share.StorageCorrupted, ""},
		"opaque":                    {header{etag: `"a-1"`}, header{etag: `"a-1"`}, 1, "", "a-1"},
		"opaque, then MD5":          {header{etag: `"a-1"`}, header{etag: right}, 1, "", share.ETag(right)},
		"opaque, then wrong":        {header{etag: `"a-1"`}, header{etag: wrong}, 1, share.StorageCorrupted, ""},
		"opaque, another size":      {header{etag: `"a-1"`}, header{etag: `"a-1"`, length: 3}, 1, share.StorageCorrupted, ""},
		"opaque, no size":           {header{etag: `"a-1"`}, header{etag: `"a-1"`, length: -1}, 1, share.StorageCorrupted, ""},
		"wrong MD5 with a suffix":   {header{etag: `"` + wrong + `-gzip"`}, header{etag: right}, 0, share.StorageCorrupted, ""},
		"of parts":                  {header{etag: `"` + wrong + `-3"`}, header{etag: `"` + wrong + `-3"`}, 1, "", share.ETag(wrong + "-3")},
		"of parts, another size":    {header{etag: `"` + wrong + `-3"`}, header{etag: `"` + wrong + `-3"`, length: 3}, 1, share.StorageCorrupted, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var heads atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				h := c.put
				if r.Method == http.MethodHead {
					heads.Add(1)
					if h = c.head; h.length >= 0 {
						length := h.length
						if length == 0 {
							length = len(file)
						}
						w.Header().Set("Content-Length", strconv.Itoa(length))
					}
				}
				if h.etag != "" {
					w.Header().Set("Etag", h.etag)
				}
				if h.large {
					w.Header().Set("X-Static-Large-Object", "True")
				}
				switch {
				case h.status != 0:
					w.WriteHeader(h.status)
				case r.Method == http.MethodPut:
					w.WriteHeader(http.StatusCreated)
				}
			}))
			defer server.Close()
			client := swift.New(swift.Config{BaseURL: func(context.Context, string) (string, error) { return server.URL, nil }})
			defer client.Close()
			spool := newSpool(testMemory(), int64(len(file)))
			defer spool.discard()
			_, _ = spool.Write(file)
			spool.seal()
			p := &storing{transfer: &transfer{Engine: New(Config{Store: client}), spec: Spec{Account: "1"}}, spool: spool, md5: right}
			spool.release()
			object, _, err := p.putOnce(t.Context(), share.TempURL{Path: "/v1/AUTH_a/1/a.png", Sig: "s", Expires: "1"}, int64(len(file)))
			if share.KindOf(err) != c.kind || (err == nil) != (c.kind == "") {
				t.Errorf("got %v, want %q", err, c.kind)
			}
			if err == nil && object.ETag != c.etag {
				t.Errorf("the ETag is %q, want %q", object.ETag, c.etag)
			}
			if n := heads.Load(); n != c.heads {
				t.Errorf("%d HEAD requests, want %d", n, c.heads)
			}
		})
	}
}
