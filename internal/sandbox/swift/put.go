package swift

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

	"github.com/lpfileshare/lpfileshare/internal/sandbox/journal"
)

const (
	// readBlock is the number of bytes of a body that must arrive within the client timeout.
	readBlock = 64 << 10
	// pacedBlock is the number of bytes of a body between two waits of a BytesPerSecond fault.
	pacedBlock = 256 << 10
)

// put serves PUT. The object becomes visible when its last byte has arrived.
func (x *exchange) put() *answer {
	if refusal := x.badPut(); refusal != nil {
		return refusal
	}
	if x.st.overtaken(x.path, x.write) {
		// The body is not needed.
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
	// A PUT that is overtaken while its body arrives gets a 201 all the same.
	if x.st.commit(x.path, o, x.reserved) {
		sha := sha256.Sum256(data)
		x.st.Journal.Stored(journal.StoredObject{Path: x.path, Size: int64(len(data)), ETag: etag, SHA256: hex.EncodeToString(sha[:])})
	}

	a := newAnswer(http.StatusCreated)
	a.html("")
	x.identify(a, o)
	return a
}

// badPut returns the refusal of a PUT because of its headers, or nil.
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
	if x.r.ContentLength > x.st.MaxObjectSize {
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

// forbiddenHeader returns the refusal of a write that would affect another object than the signed one, or nil.
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

// badMetadata returns the refusal of a request with more metadata than an object can have, or nil.
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

// receive reads the body into memory that it reserves in x.reserved. ok is false if a fault has ended the exchange.
func (x *exchange) receive() (data []byte, refusal *answer, ok bool) {
	x.received = true
	if x.r.ContentLength > 0 && !x.reserve(x.r.ContentLength) {
		return nil, swiftError(http.StatusInsufficientStorage), true
	}
	pace := x.newPacer(x.fault)
	// The buffer grows with the received bytes: an announced length alone does not justify an allocation.
	data = make([]byte, 0, min(max(x.r.ContentLength, 0), pacedBlock)+1)
	for {
		at := int64(len(data))
		block, v := pace.next(at)
		if v != passing {
			x.end(v)
			return nil, nil, false
		}
		if x.r.ContentLength >= 0 {
			// One byte more than announced, so that the block that completes the body also reads its end.
			block = min(block, x.r.ContentLength-at+1)
		}
		if need := at + block; need > int64(cap(data)) {
			size := max(need, 2*int64(cap(data)))
			if x.r.ContentLength >= 0 {
				size = min(size, x.r.ContentLength+1)
			}
			data = append(make([]byte, 0, size), data...)
		}
		_ = x.rc.SetReadDeadline(time.Now().Add(x.st.ClientTimeout))
		n, err := fill(x.r.Body, data[at:at+block])
		data = data[:at+n]
		at += n

		if over := at - x.reserved; over > 0 && !x.reserve(over) {
			return nil, swiftError(http.StatusInsufficientStorage), true
		}
		switch {
		case at > x.st.MaxObjectSize:
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

// fill reads until buf is full or r returns an error. Unlike io.ReadFull it returns io.EOF, not io.ErrUnexpectedEOF, after a
// partial read.
func fill(r io.Reader, buf []byte) (n int64, err error) {
	for n < int64(len(buf)) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += int64(m)
	}
	return n, err
}

// reserve reserves n more bytes for this request and reports whether they were available.
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

// metaPrefix is the prefix of the headers that carry an object's metadata.
const metaPrefix = "X-Object-Meta-"

// keptHeader returns the headers that are stored with an object and returned with it. A signed URL reveals public metadata only.
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

// contentType returns the type in the request, or else the type for the file name extension.
func (x *exchange) contentType() string {
	sent := x.r.Header.Get("Content-Type")
	if sent != "" && !strings.EqualFold(x.r.Header.Get("X-Detect-Content-Type"), "true") {
		return sent
	}
	// Not package mime: its table depends on the machine.
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
