package download

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/internal/swift"
)

// An answer is one answer of a store to a GET request.
type answer struct {
	object     []byte // of which the requested range is sent
	etag, time string // empty: none
	cut        int    // the connection ends after so many bytes; 0: it does not
	whole      bool   // the store ignores Range
	noLength   bool
	// contentRange replaces the correct one.
	contentRange string
}

// newHTTPObject returns an object in an HTTP server that gives one answer after the other, the last one again and again, and the
// Range and If-Match headers of the requests so far.
func newHTTPObject(t *testing.T, answers ...answer) (object Object, gets func() []string) {
	var mu sync.Mutex
	var all []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		a := answers[min(len(all), len(answers)-1)]
		all = append(all, strings.TrimSpace(r.Header.Get("Range")+" "+r.Header.Get("If-Match")))
		mu.Unlock()
		if a.etag != "" {
			w.Header().Set("Etag", a.etag)
		}
		if a.time != "" {
			w.Header().Set("Last-Modified", a.time)
		}
		from, to, status := 0, len(a.object), http.StatusOK
		if asked := r.Header.Get("Range"); asked != "" && !a.whole {
			if n, _ := fmt.Sscanf(asked, "bytes=%d-%d", &from, &to); n == 2 {
				to++
			}
			to, status = min(to, len(a.object)), http.StatusPartialContent
			if from >= to {
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(a.object)))
		}
		if a.contentRange != "" {
			w.Header().Set("Content-Range", a.contentRange)
		}
		part := a.object[from:to]
		if !a.noLength {
			w.Header().Set("Content-Length", fmt.Sprint(len(part)))
		}
		w.WriteHeader(status)
		rc := http.NewResponseController(w)
		if a.noLength {
			_ = rc.Flush()
		}
		if a.cut > 0 && a.cut < len(part) {
			_, _ = w.Write(part[:a.cut])
			_ = rc.Flush()
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(part)
	}))
	t.Cleanup(server.Close)
	client := swift.New(swift.Config{BaseURL: func(context.Context, string) (string, error) { return server.URL, nil }})
	t.Cleanup(func() { _ = client.Close() })
	return Object{Session: httpSession{}, Store: client, URLs: NewURLs(time.Now), Log: slog.New(slog.DiscardHandler), Account: "1", StoragePath: httpPath}, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

const httpPath = "/v1/AUTH_a/1/a.png"

type httpSession struct{}

func (httpSession) Principal() share.Principal { return share.Principal{Account: "1", ID: "alice"} }

func (httpSession) DownloadURL(context.Context, string) (share.TempURL, error) {
	return share.TempURL{Path: httpPath, Sig: "s", Expires: "1"}, nil
}

// TestReader_ResumesOnlyInTheSameObject interrupts a transfer. What follows must be the rest of the same object, or an error.
func TestReader_ResumesOnlyInTheSameObject(t *testing.T) {
	const (
		one, two = "Mon, 30 Nov 2026 10:00:00 GMT", "Mon, 30 Nov 2026 10:00:01 GMT"
		sum      = "5afc25f598515c50b6626c11ad838d93"
		size     = 5000
	)
	file := bytes.Repeat([]byte("0123456789"), size/10)
	other := bytes.Repeat([]byte("abcdefghij"), size/10)
	longer := append(slices.Clone(file), "more"...)
	sameStart := slices.Concat(file[:2000], other[2000:])
	for name, c := range map[string]struct {
		answers []answer
		want    []byte     // the bytes that the caller gets
		kind    share.Kind // empty: all bytes
		second  string     // Range and If-Match of the second request
	}{
		"strong ETag":                         {[]answer{{object: file, etag: sum, cut: 1000}, {object: file, etag: sum}}, file, "", "bytes=1000-4999 \"" + sum + `"`},
		"quoted strong ETag":                  {[]answer{{object: file, etag: `"x"`, cut: 1000}, {object: file, etag: `"x"`}}, file, "", `bytes=1000-4999 "x"`},
		"weak ETag":                           {[]answer{{object: file, etag: `W/"x"`, time: one, cut: 1000}, {object: file, etag: `W/"x"`, time: one}}, file, "", "bytes=1000-4999"},
		"becomes weak":                        {[]answer{{object: file, etag: `"x"`, cut: 1000}, {object: file, etag: `W/"x"`}}, file, "", `bytes=1000-4999 "x"`},
		"weak ETag without a time":            {[]answer{{object: file, etag: `W/"x"`, cut: 1000}, {object: file, etag: `W/"x"`}}, file, "", "bytes=0-4999"},
		"ETag with a suffix":                  {[]answer{{object: file, etag: `"` + sum + `-gzip"`, cut: 1000}, {object: file, etag: `"` + sum + `-gzip"`}}, file, "", "bytes=1000-4999"},
		"store ignores Range":                 {[]answer{{object: file, etag: "x", cut: 1000}, {object: file, etag: "x", whole: true}}, file, "", `bytes=1000-4999 "x"`},
		"no length in the rest":               {[]answer{{object: file, etag: "x", cut: 1000}, {object: file, etag: "x", noLength: true}}, file, "", `bytes=1000-4999 "x"`},
		"no ETag":                             {[]answer{{object: file, cut: 1000}, {object: file, cut: 2000}, {object: file}}, file, "", "bytes=0-4999"},
		"no ETag, replaced after equal bytes": {[]answer{{object: file, cut: 1000}, {object: sameStart}}, sameStart, "", "bytes=0-4999"},

		"another ETag":                          {[]answer{{object: file, etag: "x", cut: 1000}, {object: other, etag: "y"}}, file[:1000], share.FileChanged, `bytes=1000-4999 "x"`},
		"ETag missing in the rest":              {[]answer{{object: file, etag: "x", cut: 1000}, {object: other}}, file[:1000], share.FileChanged, `bytes=1000-4999 "x"`},
		"another weak ETag":                     {[]answer{{object: file, etag: `W/"x"`, cut: 1000}, {object: other, etag: `W/"y"`}}, file[:1000], share.FileChanged, "bytes=0-4999"},
		"same weak ETag, newer":                 {[]answer{{object: file, etag: `W/"x"`, time: one, cut: 1000}, {object: other, etag: `W/"x"`, time: two}}, file[:1000], share.FileChanged, "bytes=1000-4999"},
		"same weak ETag, longer":                {[]answer{{object: file, etag: `W/"x"`, time: one, cut: 1000}, {object: longer, etag: `W/"x"`, time: one}}, file[:1000], share.FileChanged, "bytes=1000-4999"},
		"same weak ETag, no time":               {[]answer{{object: file, etag: `W/"x"`, time: one, cut: 1000}, {object: file, etag: `W/"x"`}}, file[:1000], share.FileChanged, "bytes=1000-4999"},
		"weak ETag without a time, other bytes": {[]answer{{object: file, etag: `W/"x"`, cut: 1000}, {object: other, etag: `W/"x"`}}, file[:1000], share.FileChanged, "bytes=0-4999"},
		"no ETag, other bytes":                  {[]answer{{object: file, cut: 1000}, {object: other}}, file[:1000], share.FileChanged, "bytes=0-4999"},
		"no ETag, longer":                       {[]answer{{object: file, cut: 1000}, {object: longer}}, file[:1000], share.FileChanged, "bytes=0-4999"},
		"no ETag, shorter":                      {[]answer{{object: file, cut: 1000}, {object: file[:500]}}, file[:1000], share.FileChanged, "bytes=0-4999"},
		"no ETag, other start":                  {[]answer{{object: file, cut: 1000}, {object: file, contentRange: "bytes 1-5000/5001"}}, file[:1000], share.StorageProtocolError, "bytes=0-4999"},
		"total of another object":               {[]answer{{object: file, etag: "x", cut: 1000}, {object: file, etag: "x", contentRange: "bytes 1000-4999/9000"}}, file[:1000], share.FileChanged, `bytes=1000-4999 "x"`},
		"start of another part":                 {[]answer{{object: file, etag: "x", cut: 1000}, {object: file, etag: "x", contentRange: "bytes 900-4899/5000"}}, file[:1000], share.StorageProtocolError, `bytes=1000-4999 "x"`},
		"Content-Range without a total":         {[]answer{{object: file, etag: "x", cut: 1000}, {object: file, etag: "x", contentRange: "bytes 1000-4999/*"}}, file[:1000], share.StorageProtocolError, `bytes=1000-4999 "x"`},
		"shorter than what was read yet":        {[]answer{{object: file, etag: "x", cut: 1000}, {object: file[:10], etag: "x"}}, file[:1000], share.FileChanged, `bytes=1000-4999 "x"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			object, gets := newHTTPObject(t, c.answers...)
			r, err := object.Open(t.Context(), 0, 0, "")
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			var got []byte
			buf := make([]byte, 250)
			for err == nil && !r.Done() {
				if err = r.Read(t.Context(), buf); err == nil {
					got = append(got, buf...)
				}
			}
			if share.KindOf(err) != c.kind || (err == nil) != (c.kind == "") {
				t.Errorf("got %v, want %q", err, c.kind)
			}
			if !bytes.Equal(got, c.want) {
				t.Errorf("got %d bytes, which differ from the %d wanted", len(got), len(c.want))
			}
			if all := gets(); len(all) < 2 || all[1] != c.second {
				t.Errorf("the requests were %q, the second must be %q", all, c.second)
			}
		})
	}
}
