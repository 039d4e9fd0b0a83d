package swift

import (
	"bytes"
	"fmt"
	"net/http"
	"path"
	"strings"
	"time"
)

// get serves GET and HEAD.
func (x *exchange) get() *answer {
	o := x.st.object(x.path)
	if o == nil {
		if ifMatch := x.r.Header.Get("If-Match"); matches(ifMatch, "*") {
			return newAnswer(http.StatusPreconditionFailed)
		}
		return swiftError(http.StatusNotFound)
	}
	a := x.precondition(o)
	if a == nil {
		a = x.content(o)
	}
	if x.fault.Corrupt {
		a.body = bytes.Clone(a.body)
		flip(a.body)
	}
	for name, values := range o.header {
		if name != "Content-Disposition" {
			a.header[name] = values
		}
	}
	if a.header.Get("Content-Type") == "" || a.status == http.StatusRequestedRangeNotSatisfiable {
		a.header.Set("Content-Type", o.contentType)
	}
	x.identify(a, o)
	a.header.Set("X-Timestamp", fmt.Sprintf("%d.%05d", o.modified.Unix(), o.modified.Nanosecond()/10_000))
	if a.status != http.StatusPreconditionFailed {
		a.header.Set("Accept-Ranges", "bytes")
	}
	if a.status/100 == 2 {
		a.header.Set("Content-Disposition", x.disposition(o))
		a.header.Set("Expires", x.expires.UTC().Format(http.TimeFormat))
	}
	return a
}

// lastModified returns the time of o rounded up to a second, so that a client that asks for changes since then misses none.
func lastModified(o *object) time.Time { return nextSecond(o.modified) }

func nextSecond(at time.Time) time.Time {
	t := at.UTC().Truncate(time.Second)
	if t.Before(at) {
		t = t.Add(time.Second)
	}
	return t
}

// precondition returns the answer to a conditional request whose condition fails, in Swift's order of conditions, or nil.
func (x *exchange) precondition(o *object) *answer {
	h := x.r.Header
	if matches(h.Get("If-None-Match"), o.etag) {
		return newAnswer(http.StatusNotModified)
	}
	if h.Get("If-Match") != "" && !matches(h.Get("If-Match"), o.etag) {
		return newAnswer(http.StatusPreconditionFailed)
	}
	if since, err := http.ParseTime(h.Get("If-Modified-Since")); err == nil && !lastModified(o).After(since) {
		return newAnswer(http.StatusNotModified)
	}
	if since, err := http.ParseTime(h.Get("If-Unmodified-Since")); err == nil && lastModified(o).After(since) {
		return newAnswer(http.StatusPreconditionFailed)
	}
	return nil
}

// matches reports whether etag is in a list of ETags, quoted or not. Weak ETags match nothing.
func matches(list, etag string) bool {
	for one := range strings.SplitSeq(list, ",") {
		one = strings.Trim(strings.TrimSpace(one), `"`)
		if one != "" && (one == etag || one == "*") {
			return true
		}
	}
	return false
}

// content returns the answer with the object or the requested ranges of it. Swift does not support If-Range.
func (x *exchange) content(o *object) *answer {
	size := int64(len(o.data))
	whole := newAnswer(http.StatusOK)
	whole.body, whole.spans = o.data, []span{{0, size}}
	if x.r.Method == http.MethodHead {
		return whole
	}
	asked, ok := parseRange(x.r.Header.Get("Range"))
	if !ok {
		return whole
	}
	spans, ok := asked.of(size)
	switch {
	case !ok:
		a := swiftError(http.StatusRequestedRangeNotSatisfiable)
		a.header.Set("Content-Range", fmt.Sprintf("bytes */%d", size))
		return a
	case spans == nil:
		return whole
	}
	a := newAnswer(http.StatusPartialContent)
	a.spans = spans
	if len(spans) == 1 {
		a.body = o.data[spans[0].from:spans[0].to]
		a.header.Set("Content-Range", spans[0].contentRange(size))
	} else {
		var boundary string
		a.body, boundary = joinSpans(o.data, spans, o.contentType)
		a.header.Set("Content-Type", "multipart/byteranges;boundary="+boundary)
	}
	return a
}

// disposition returns the Content-Disposition of the object. The query parameters inline and filename, which the signature does
// not cover, override the stored one.
func (x *exchange) disposition(o *object) string {
	name := x.query["filename"]
	if _, inline := x.query["inline"]; inline {
		if name == "" {
			return "inline"
		}
		return disposition("inline", name)
	}
	if name != "" {
		return disposition("attachment", name)
	}
	if stored := o.header.Get("Content-Disposition"); stored != "" {
		return stored
	}
	return disposition("attachment", path.Base(strings.TrimRight(x.path, "/")))
}

func disposition(kind, name string) string {
	return fmt.Sprintf(`%s; filename="%s"; filename*=UTF-8''%s`, kind, quote(name, " /"), quote(name, "/"))
}

// quote percent-encodes the bytes of s that are neither unreserved nor in keep.
func quote(s, keep string) string {
	const unreserved = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~"
	var b strings.Builder
	for i := range len(s) {
		if strings.IndexByte(unreserved, s[i]) >= 0 || strings.IndexByte(keep, s[i]) >= 0 {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", s[i])
		}
	}
	return b.String()
}
