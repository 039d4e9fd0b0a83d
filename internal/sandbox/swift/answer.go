package swift

import (
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/fault"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/feed"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/journal"
)

const (
	htmlType = "text/html; charset=UTF-8"
	// statusClientDisconnect is Swift's status for a body that ended early.
	statusClientDisconnect = 499
)

// An exchange is one request to the store and its state.
type exchange struct {
	st    *Store
	w     http.ResponseWriter
	r     *http.Request
	rc    *http.ResponseController
	fault fault.Fault

	// Set by authorize.
	path, container string
	query           map[string]string
	expires         time.Time

	// write is the request's sequence number among all requests.
	write int64
	// reserved is the number of bytes that this request has reserved.
	reserved int64
	// received is set before the body is read.
	received bool
	// answering is set when the answer's header is written.
	answering bool

	// event is what the feed gets at the end.
	event feed.Store
}

// newExchange begins an exchange: it takes the fault for this request.
func (st *Store) newExchange(w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{st: st, w: w, r: r, rc: http.NewResponseController(w)}
	// Otherwise net/http would read 256 KiB of the body before it answers, and a client that waits for the answer would hang.
	_ = x.rc.EnableFullDuplex()
	x.write = st.writes.Add(1)
	r.Body = &counted{r.Body, &x.event.Received}
	x.event = feed.Store{Request: x.write, Phase: "begin", Method: r.Method, Path: r.URL.Path}
	x.fault, x.event.Fault = st.Faults.Take("store:" + r.Method)
	st.Feed.Add("store", x.event)
	return x
}

// ended reports the end of the exchange to the feed.
func (x *exchange) ended(began time.Time) {
	x.event.Phase, x.event.Milliseconds = "end", float64(time.Since(began).Microseconds())/1000
	x.st.Feed.Add("store", x.event)
}

// log logs a message about the exchange, without the query, which holds the signature.
func (x *exchange) log(message string, attrs ...any) {
	x.st.Log.Info(message, append([]any{slog.String("method", x.r.Method), slog.String("path", x.r.URL.Path)}, attrs...)...)
}

// An answer is the correct answer to a request, before a fault changes it.
type answer struct {
	status int
	header http.Header
	body   []byte
	// spans are the ranges of the object's bytes that make up body; nil if body is not an object's content.
	spans []span
}

func newAnswer(status int) *answer {
	return &answer{status: status, header: http.Header{}}
}

// html sets the body to text, with the content type that Swift uses for almost all its messages.
func (a *answer) html(text string) {
	a.header.Set("Content-Type", htmlType)
	a.body = []byte(text)
}

// swiftText returns a plain-text answer, as Swift sends when it refuses a request because of its headers.
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

// swiftReasons are the titles and texts of Swift's standard answers.
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

// swiftError returns Swift's standard answer for status.
func swiftError(status int) *answer {
	reason, ok := swiftReasons[status]
	if !ok {
		reason = [2]string{http.StatusText(status), http.StatusText(status)}
	}
	a := newAnswer(status)
	a.html(fmt.Sprintf("<html><h1>%s</h1><p>%s</p></html>", html.EscapeString(reason[0]), html.EscapeString(reason[1])))
	return a
}

// send sends a, as changed by the fault.
func (x *exchange) send(a *answer) {
	if a.status >= 400 {
		x.st.Journal.Refused(journal.RefusedRequest{Method: x.r.Method, Path: x.r.URL.Path, Status: a.status})
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
	noLength := x.fault.NoLength && (x.r.Method == http.MethodGet || x.r.Method == http.MethodHead)
	if a.status != http.StatusNoContent && !noLength {
		h.Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	x.answering, x.event.Status = true, a.status
	x.w.WriteHeader(a.status)
	if noLength {
		x.flush() // else net/http adds the length of a short body
	}
}

// transactionID returns a request id in the form that Swift uses.
func transactionID(now time.Time, extra string) string {
	id := "tx" + hexString(11)[:21] + "-" + fmt.Sprintf("%010x", now.Unix())
	if extra != "" {
		id += "-" + extra[:min(len(extra), 32)]
	}
	return id
}

// writeBody writes the body and reports whether the connection remains usable. Faults affect the content of objects only.
func (x *exchange) writeBody(a *answer) bool {
	var f fault.Fault
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
		_ = x.rc.SetWriteDeadline(time.Now().Add(x.st.ClientTimeout))
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
	x.event.Sent = done
	if v != passing {
		x.end(v)
		return false
	}
	_ = x.rc.SetWriteDeadline(time.Time{})
	return true
}

// fetched records the sent part of an object. A body of several spans is recorded only if it was sent completely.
func (x *exchange) fetched(a *answer, sent int64) {
	switch {
	case len(a.spans) == 1:
		from := a.spans[0].from
		x.st.Journal.Fetched(journal.FetchedRange{Path: x.path, From: from, To: from + sent})
	case sent == int64(len(a.body)):
		for _, s := range a.spans {
			x.st.Journal.Fetched(journal.FetchedRange{Path: x.path, From: s.from, To: s.to})
		}
	}
}

// drain discards the rest of the request's body after the answer, as Swift does, so that the connection can serve the next
// request.
func (x *exchange) drain() {
	x.flush()
	if x.w.Header().Get("Connection") == "close" {
		return
	}
	if x.r.Header.Get("Expect") != "" && x.r.ContentLength != 0 && !x.received {
		// A client that sent Expect does not send the body after a refusal. Swift closes without "Connection: close".
		_ = x.hijack().Close()
		return
	}
	block := make([]byte, 4<<10)
	for {
		_ = x.rc.SetReadDeadline(time.Now().Add(x.st.ClientTimeout))
		n, err := fill(x.r.Body, block)
		if err == io.EOF {
			_ = x.rc.SetReadDeadline(time.Time{})
			return
		}
		if err != nil {
			// Keep the expired deadline: net/http must not wait for the rest either.
			return
		}
		if n == int64(len(block)) && len(block) < readBlock {
			block = make([]byte, readBlock)
		}
	}
}

// identify adds to a the header fields that identify the version of o.
func (x *exchange) identify(a *answer, o *object) {
	f, etag := x.fault, o.etag
	if f.WrongETag {
		etag = strings.Repeat("0", 31) + "1"
	}
	if f.WeakETag || f.ETagSuffix != "" {
		etag = `"` + etag + f.ETagSuffix + `"`
	}
	if f.WeakETag {
		etag = "W/" + etag
	}
	if !f.NoETag {
		a.header.Set("Etag", etag)
	}
	if f.LargeObject {
		a.header.Set("X-Static-Large-Object", "True")
	}
	a.header.Set("Last-Modified", lastModified(o).Format(http.TimeFormat))
}

// counted is a body whose bytes are counted as they are read.
type counted struct {
	io.ReadCloser
	n *int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	*c.n += int64(n)
	return n, err
}
