package sandbox

import (
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	htmlType = "text/html; charset=UTF-8"
	// statusClientDisconnect is what a Swift calls a body that ended early.
	statusClientDisconnect = 499
)

// An exchange is one request to the store and what has been found out about it.
type exchange struct {
	st    *store
	w     http.ResponseWriter
	r     *http.Request
	rc    *http.ResponseController
	fault Fault

	// What authorize found.
	path, container string
	query           map[string]string
	expires         time.Time

	// write is the request's place in the order of PUTs.
	write int64
	// reserved is how much of the store's room this request has taken.
	reserved int64
	// received is set once the body has been asked for.
	received bool
	// answering is set once the answer's header has been written.
	answering bool
}

// newExchange begins an exchange: it asks for the fault of the occasion and waits the fault's delay. nil: the peer or the
// sandbox went away meanwhile.
func (st *store) newExchange(w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{st: st, w: w, r: r, rc: http.NewResponseController(w)}
	// Otherwise an answer would wait for the first 256 KiB of the body, and a client that waits for the answer would starve.
	_ = x.rc.EnableFullDuplex()
	x.fault, _ = st.Faults.take("store:" + r.Method)
	x.write = st.writes.Add(1)
	if !x.wait(x.fault.Delay) {
		x.reset()
		return nil
	}
	return x
}

// log notes something about the exchange. The query, and so the signature, is never in it.
func (x *exchange) log(message string, attrs ...any) {
	x.st.Log.Info(message, append([]any{slog.String("method", x.r.Method), slog.String("path", x.r.URL.Path)}, attrs...)...)
}

// An answer is what is to be sent, before the fault of the occasion has had its say.
type answer struct {
	status int
	header http.Header
	body   []byte
	// spans are the runs of an object's bytes that body is made of; nil when it is made of something else.
	spans []span
}

func newAnswer(status int) *answer {
	return &answer{status: status, header: http.Header{}}
}

// html makes text the body, under the type that a Swift gives to almost anything of its own.
func (a *answer) html(text string) {
	a.header.Set("Content-Type", htmlType)
	a.body = []byte(text)
}

// swiftText is an answer in plain text, as a Swift gives it for what it refuses by the headers.
func swiftText(status int, text string) *answer {
	a := newAnswer(status)
	a.header.Set("Content-Type", "text/plain")
	a.body = []byte(text)
	return a
}

// closing makes a the last answer on its connection.
func closing(a *answer) *answer {
	a.header.Set("Connection", "close")
	return a
}

// swiftReasons are the titles and sentences in a Swift's answers.
var swiftReasons = map[int][2]string{
	http.StatusAccepted:                     {"Accepted", "The request is accepted for processing."},
	http.StatusBadRequest:                   {"Bad Request", "The server could not comply with the request since it is either malformed or otherwise incorrect."},
	http.StatusUnauthorized:                 {"Unauthorized", "This server could not verify that you are authorized to access the document you requested."},
	http.StatusForbidden:                    {"Forbidden", "Access was denied to this resource."},
	http.StatusNotFound:                     {"Not Found", "The resource could not be found."},
	http.StatusMethodNotAllowed:             {"Method Not Allowed", "The method is not allowed for this resource."},
	http.StatusRequestTimeout:               {"Request Timeout", "The server has waited too long for the request to be sent by the client."},
	http.StatusConflict:                     {"Conflict", "There was a conflict when trying to complete your request."},
	http.StatusLengthRequired:               {"Length Required", "Content-Length header required."},
	http.StatusPreconditionFailed:           {"Precondition Failed", "A precondition for this request was not met."},
	http.StatusRequestEntityTooLarge:        {"Request Entity Too Large", "The body of your request was too large for this server."},
	http.StatusRequestedRangeNotSatisfiable: {"Requested Range Not Satisfiable", "The Range requested is not available."},
	http.StatusUnprocessableEntity:          {"Unprocessable Entity", "Unable to process the contained instructions"},
	http.StatusTooManyRequests:              {"Too Many Requests", "Too Many Requests."},
	498:                                     {"Rate Limited", "Slow down"},
	statusClientDisconnect:                  {"Client Disconnect", "The client was disconnected during request."},
	http.StatusInternalServerError:          {"Internal Error", "The server has either erred or is incapable of performing the requested operation."},
	http.StatusBadGateway:                   {"Bad Gateway", "Bad gateway."},
	http.StatusServiceUnavailable:           {"Service Unavailable", "The server is currently unavailable. Please try again at a later time."},
	http.StatusGatewayTimeout:               {"Gateway Timeout", "A timeout has occurred speaking to a backend server."},
	http.StatusInsufficientStorage:          {"Insufficient Storage", "There was not enough space to save the resource."},
}

// swiftError is a Swift's usual answer with status.
func swiftError(status int) *answer {
	reason, ok := swiftReasons[status]
	if !ok {
		reason = [2]string{http.StatusText(status), http.StatusText(status)}
	}
	a := newAnswer(status)
	a.html(fmt.Sprintf("<html><h1>%s</h1><p>%s</p></html>", html.EscapeString(reason[0]), html.EscapeString(reason[1])))
	return a
}

// send sends a, unless the fault of the occasion would rather not.
func (x *exchange) send(a *answer) {
	if a.status >= 400 {
		x.st.Journal.refused(x.r.Method, x.r.URL.Path, a.status)
		x.log("refused", "status", a.status)
	}
	f := x.fault
	if !x.wait(f.AnswerDelay) {
		x.reset()
		return
	}
	switch {
	case f.DropAfter:
		x.reset()
		return
	case f.Mute:
		x.mute()
		return
	case f.Garbage:
		x.garbage()
		return
	}
	x.writeHeader(a)
	if x.r.Method != http.MethodHead && !x.writeBody(a) {
		return
	}
	x.drain()
}

func (x *exchange) writeHeader(a *answer) {
	h := x.w.Header()
	for name, values := range a.header {
		h[name] = values
	}
	if x.fault.Status != 0 && x.fault.RetryAfter != 0 {
		h.Set("Retry-After", strconv.Itoa(x.fault.RetryAfter))
	}
	id := transactionID(x.st.Now(), x.r.Header.Get("X-Trans-Id-Extra"))
	h.Set("X-Trans-Id", id)
	h.Set("X-Openstack-Request-Id", id)
	if x.r.Header.Get("Origin") != "" && a.status != http.StatusUnauthorized {
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Access-Control-Expose-Headers", "etag, last-modified, x-timestamp, x-trans-id, x-openstack-request-id")
	}
	if x.r.Method == http.MethodHead && a.status >= 400 {
		a.body = nil
	}
	if a.status != http.StatusNoContent {
		h.Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	x.answering = true
	x.w.WriteHeader(a.status)
}

// transactionID is what a Swift names every request by.
func transactionID(now time.Time, extra string) string {
	id := "tx" + randomHex(11)[:21] + "-" + fmt.Sprintf("%010x", now.Unix())
	if extra != "" {
		id += "-" + extra[:min(len(extra), 32)]
	}
	return id
}

// writeBody writes the body and reports whether the connection lives on. Only the bytes of objects suffer from faults.
func (x *exchange) writeBody(a *answer) bool {
	var f Fault
	if a.spans != nil {
		f = x.fault
	}
	pace := x.newPacer(f)
	done, v := int64(0), passing
	for size := int64(len(a.body)); v == passing && done < size; {
		var block int64
		if block, v = pace.next(done); v != passing {
			continue
		}
		to := min(done+block, size)
		_ = x.rc.SetWriteDeadline(time.Now().Add(x.st.clientTimeout))
		n, err := x.w.Write(a.body[done:to])
		done += int64(n)
		if err == nil && f.BytesPerSecond > 0 {
			err = x.rc.Flush()
		}
		if err != nil {
			v = over
		}
	}
	if v == passing {
		v = pace.at(done)
	}
	x.fetched(a, done)
	if v != passing {
		x.end(v)
		return false
	}
	_ = x.rc.SetWriteDeadline(time.Time{})
	return true
}

// fetched notes what has been sent of an object. Of several spans in one body only whole bodies count.
func (x *exchange) fetched(a *answer, sent int64) {
	switch {
	case len(a.spans) == 1:
		from := a.spans[0].from
		x.st.Journal.fetched(x.path, from, from+sent)
	case sent == int64(len(a.body)):
		for _, s := range a.spans {
			x.st.Journal.fetched(x.path, s.from, s.to)
		}
	}
}

// drain reads and drops what is left of the request's body after the answer, as a Swift does, so that the connection can take
// the next request.
func (x *exchange) drain() {
	x.flush()
	if x.w.Header().Get("Connection") == "close" {
		return
	}
	if x.r.Header.Get("Expect") != "" && x.r.ContentLength != 0 && !x.received {
		// Whoever asked first will not send a body after a refusal. A Swift closes without having said so.
		_ = x.hijack().Close()
		return
	}
	block := make([]byte, 4<<10)
	for {
		_ = x.rc.SetReadDeadline(time.Now().Add(x.st.clientTimeout))
		n, err := fill(x.r.Body, block)
		if err == io.EOF {
			_ = x.rc.SetReadDeadline(time.Time{})
			return
		}
		if err != nil {
			// The deadline that has passed stays: the server must not wait for the rest either.
			return
		}
		if n == int64(len(block)) && len(block) < readBlock {
			block = make([]byte, readBlock)
		}
	}
}

// shownETag is the ETag that is told of o.
func (x *exchange) shownETag(o *object) string {
	if x.fault.WrongETag {
		return strings.Repeat("0", 31) + "1"
	}
	return o.etag
}
