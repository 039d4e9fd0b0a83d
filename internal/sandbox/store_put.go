package sandbox

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// readBlock is how much of a body must come within the client timeout.
	readBlock = 64 << 10
	// pacedBlock is how much of a body passes between two waits of a BytesPerSecond fault.
	pacedBlock = 256 << 10
)

// put serves PUT. The object appears when its last byte has come, or never.
func (x *exchange) put() *answer {
	if refusal := x.badPut(); refusal != nil {
		return refusal
	}
	if x.st.overtaken(x.path, x.write) {
		// Nothing of the body is wanted.
		return swiftError(http.StatusAccepted)
	}
	data, refusal, ok := x.receive()
	if !ok || refusal != nil {
		x.st.release(x.reserved)
		return refusal
	}
	if x.fault.Corrupt {
		flip(data)
	}
	sum := md5.Sum(data)
	etag := hex.EncodeToString(sum[:])
	if want := x.r.Header.Get("Etag"); want != "" && strings.Trim(want, `"`) != etag {
		x.st.release(x.reserved)
		a := swiftError(http.StatusUnprocessableEntity)
		a.header.Set("Last-Modified", nextSecond(x.st.Now()).Format(http.TimeFormat))
		return a
	}

	o := &object{
		data:        data,
		etag:        etag,
		contentType: x.contentType(),
		modified:    x.st.Now(),
		header:      keptHeader(x.r.Header),
		write:       x.write,
	}
	// One that is overtaken while its body comes is told that it was stored, as it was, for no time at all.
	if x.st.commit(x.path, o, x.reserved) {
		sha := sha256.Sum256(data)
		x.st.Journal.stored(x.path, int64(len(data)), etag, hex.EncodeToString(sha[:]))
	}

	a := newAnswer(http.StatusCreated)
	a.html("")
	a.header.Set("Etag", x.shownETag(o))
	a.header.Set("Last-Modified", lastModified(o).Format(http.TimeFormat))
	return a
}

// badPut answers a PUT that can be refused by its headers alone.
func (x *exchange) badPut() *answer {
	if refusal := x.forbiddenHeader(); refusal != nil {
		return refusal
	}
	h := x.r.Header
	noneMatch, conditional := h["If-None-Match"]
	if conditional && strings.TrimSpace(strings.Join(noneMatch, ",")) != "*" {
		return swiftText(http.StatusBadRequest, "If-None-Match only supports *")
	}
	if !x.st.hasContainer(x.container) {
		return swiftError(http.StatusNotFound)
	}
	if x.r.ContentLength > x.st.maxObject {
		return swiftText(http.StatusRequestEntityTooLarge, "Your request is too large.")
	}
	if h.Get("Content-Length") == "" && len(x.r.TransferEncoding) == 0 {
		return swiftText(http.StatusLengthRequired, "Missing Content-Length header.")
	}
	if name := x.path[len(x.container)+1:]; len(name) > 1024 {
		return swiftText(http.StatusBadRequest, fmt.Sprintf("Object name length of %d longer than 1024", len(name)))
	}
	if !utf8.ValidString(h.Get("Content-Type")) {
		return swiftText(http.StatusBadRequest, "Please specify Content-Type as UTF-8")
	}
	if _, ok := h["X-Static-Large-Object"]; ok {
		return swiftText(http.StatusBadRequest, "X-Static-Large-Object is a reserved header.")
	}
	if refusal := x.badMetadata(); refusal != nil {
		return refusal
	}
	if conditional && x.st.object(x.path) != nil {
		return swiftError(http.StatusPreconditionFailed)
	}
	return nil
}

// forbiddenHeader answers a writing request that would lead to another object than the signed one.
func (x *exchange) forbiddenHeader() *answer {
	for _, name := range []string{"X-Object-Manifest", "X-Symlink-Target", "X-Copy-From"} {
		if _, ok := x.r.Header[name]; ok {
			a := newAnswer(http.StatusBadRequest)
			a.html("The header '" + name + "' is not allowed in this tempurl")
			return a
		}
	}
	return nil
}

// badMetadata answers a request with more metadata than an object can have.
func (x *exchange) badMetadata() *answer {
	count, size := 0, 0
	for name, values := range x.r.Header {
		key, ok := strings.CutPrefix(name, metaPrefix)
		if !ok {
			continue
		}
		value := strings.Join(values, ",")
		count, size = count+1, size+len(key)+len(value)
		if key == "" || len(key) > 128 || len(value) > 256 {
			return swiftText(http.StatusBadRequest, "Metadata name or value too long")
		}
	}
	if count > 90 || size > 4096 {
		return swiftText(http.StatusBadRequest, "Too much metadata")
	}
	return nil
}

// receive reads the body into memory that it reserves in x.reserved. ok is false when a fault has ended the exchange.
func (x *exchange) receive() (data []byte, refusal *answer, ok bool) {
	x.received = true
	if x.r.ContentLength > 0 && !x.reserve(x.r.ContentLength) {
		return nil, swiftError(http.StatusInsufficientStorage), true
	}
	pace := x.newPacer(x.fault)
	// Room grows with what has come, for an announced length is no reason to allocate it, but not beyond that length.
	data = make([]byte, 0, min(max(x.r.ContentLength, 0), pacedBlock)+1)
	for {
		at := int64(len(data))
		block, v := pace.next(at)
		if v != passing {
			x.end(v)
			return nil, nil, false
		}
		if x.r.ContentLength >= 0 {
			// One byte more than is announced, so that the block which completes the body also meets its end.
			block = min(block, x.r.ContentLength-at+1)
		}
		if need := at + block; need > int64(cap(data)) {
			room := max(need, 2*int64(cap(data)))
			if x.r.ContentLength >= 0 {
				room = min(room, x.r.ContentLength+1)
			}
			data = append(make([]byte, 0, room), data...)
		}
		_ = x.rc.SetReadDeadline(time.Now().Add(x.st.clientTimeout))
		n, err := fill(x.r.Body, data[at:at+block])
		data = data[:at+n]
		at += n

		if over := at - x.reserved; over > 0 && !x.reserve(over) {
			return nil, swiftError(http.StatusInsufficientStorage), true
		}
		switch {
		case at > x.st.maxObject:
			return nil, swiftError(http.StatusRequestEntityTooLarge), true
		case err == nil:
			continue
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, closing(swiftError(http.StatusRequestTimeout)), true
		case err != io.EOF:
			return nil, closing(swiftError(statusClientDisconnect)), true
		}
		_ = x.rc.SetReadDeadline(time.Time{})
		if v := pace.at(at); v != passing {
			x.end(v)
			return nil, nil, false
		}
		return data, nil, true
	}
}

// fill reads until buf is full or r has an error. Unlike io.ReadFull it keeps an end that is due apart from one that is not.
func fill(r io.Reader, buf []byte) (n int64, err error) {
	for n < int64(len(buf)) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += int64(m)
	}
	return n, err
}

// reserve takes n more bytes of the store's room for this request.
func (x *exchange) reserve(n int64) bool {
	if !x.st.reserve(n) {
		return false
	}
	x.reserved += n
	return true
}

// flip changes one bit in the middle of data.
func flip(data []byte) {
	if len(data) > 0 {
		data[len(data)/2] ^= 1
	}
}

// metaPrefix begins the names of an object's metadata.
const metaPrefix = "X-Object-Meta-"

// keptHeader picks what is stored with an object and given back. Of the metadata a signed URL shows only what is meant for all.
func keptHeader(h http.Header) http.Header {
	kept := http.Header{}
	for name, values := range h {
		switch name {
		case "Content-Encoding", "Content-Disposition", "Content-Language", "Cache-Control", "X-Robots-Tag":
			kept[name] = slices.Clone(values)
		default:
			if strings.HasPrefix(name, metaPrefix+"Public-") {
				kept[name] = slices.Clone(values)
			}
		}
	}
	return kept
}

// contentType is the type that was sent, or else what the name's ending says.
func (x *exchange) contentType() string {
	sent := x.r.Header.Get("Content-Type")
	if sent != "" && !strings.EqualFold(x.r.Header.Get("X-Detect-Content-Type"), "true") {
		return sent
	}
	// A table of our own: the system's differs from one machine to the next.
	switch strings.ToLower(path.Ext(x.path)) {
	case ".jpg", ".jpeg":
		return "image/jpeg"
	case ".png":
		return "image/png"
	case ".gif":
		return "image/gif"
	case ".webp":
		return "image/webp"
	case ".svg":
		return "image/svg+xml"
	case ".pdf":
		return "application/pdf"
	case ".txt":
		return "text/plain"
	case ".docx":
		return "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
	case ".xlsx":
		return "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
	case ".pptx":
		return "application/vnd.openxmlformats-officedocument.presentationml.presentation"
	default:
		return "application/octet-stream"
	}
}
