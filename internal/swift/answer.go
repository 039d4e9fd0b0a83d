package swift

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/lpfileshare/lpfileshare/internal/netrules"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// maxErrorBody is how much of an error's body is read so that the connection can be reused. The text itself is ignored.
const maxErrorBody = 64 << 10

var errNoSize = errors.New("a PUT needs the size of its body")

// discard reads a little of an answer's body, so that the connection can be reused, and closes it.
func (c *Client) discard(resp *http.Response, dog *watchdog) {
	dog.arm(c.stall)
	_, _ = io.CopyN(io.Discard, resp.Body, maxErrorBody)
	_ = resp.Body.Close()
	dog.disarm()
}

// described returns an object's properties from an answer's header. The caller sets the size.
func described(resp *http.Response) share.StoredObject {
	o := share.StoredObject{
		ETag:  share.ParseETag(resp.Header.Get("Etag")),
		Large: strings.EqualFold(resp.Header.Get("X-Static-Large-Object"), "true"),
	}
	if modified := resp.Header.Get("Last-Modified"); modified != "" {
		o.ModTime, _ = http.ParseTime(modified)
	}
	return o
}

// A condition is the meaning of an HTTP status.
type condition struct {
	kind share.Kind
	text string
}

const (
	unexpectedAnswer = "the store sent an unexpected answer"
	objectChanged    = "the stored file has changed; download it from byte 0"
	outsideFile      = "the requested range is outside the file"
)

var unavailable = condition{share.StorageUnavailable, "the store is temporarily unavailable"}

// What an unsuccessful status means: putStatus and readStatus (GET and HEAD) take precedence over anyStatus. Every other status
// of 500 or more is unavailable, and anything else an unexpected answer.
var (
	putStatus = map[int]condition{
		http.StatusNotFound:              {share.StorageDenied, "the store has no container for the account's files"},
		http.StatusRequestEntityTooLarge: {share.FileTooLarge, "the file is larger than the store accepts"},
		http.StatusUnprocessableEntity:   {share.StorageCorrupted, "the store received different bytes than were sent"},
	}
	readStatus = map[int]condition{
		http.StatusNotFound:                     {share.FileNotFound, "the store has no such file"},
		http.StatusPreconditionFailed:           {share.FileChanged, objectChanged},
		http.StatusRequestedRangeNotSatisfiable: {share.RangeNotSatisfiable, outsideFile},
	}
	anyStatus = map[int]condition{
		http.StatusUnauthorized:        {share.StorageURLRejected, "the store rejected the signed URL"},
		http.StatusForbidden:           {share.StorageDenied, "the store denied access"},
		http.StatusRequestTimeout:      unavailable,
		http.StatusTooManyRequests:     {share.StorageRateLimited, "the store limits the request rate"},
		498:                            {share.StorageRateLimited, "the store limits the request rate"}, // Swift's own rate limit
		499:                            unavailable,                                                     // Swift: the client disconnected
		http.StatusInsufficientStorage: {share.StorageFull, "the store is full"},
	}
)

func conditionOf(method string, status int) condition {
	byMethod := readStatus
	if method == http.MethodPut {
		byMethod = putStatus
	}
	if c, ok := byMethod[status]; ok {
		return c
	}
	if c, ok := anyStatus[status]; ok {
		return c
	}
	if status >= 500 {
		return unavailable
	}
	return condition{share.StorageProtocolError, unexpectedAnswer}
}

// rejected returns the error of an answer that is not a success.
func (c *Client) rejected(resp *http.Response) error {
	is := conditionOf(resp.Request.Method, resp.StatusCode)
	e := share.Errorf(is.kind, is.text, fmt.Errorf("the store answered %s with %d", resp.Request.Method, resp.StatusCode))
	switch is.kind {
	case share.RangeNotSatisfiable:
		if _, size, ok := strings.Cut(resp.Header.Get("Content-Range"), "/"); ok && isNumber(size) {
			e.Metadata = map[string]string{"sizeBytes": size}
		}
	case share.StorageRateLimited:
		e.RetryAfter = netrules.RetryAfter(resp.Header)
	case share.StorageUnavailable:
		c.dropIdle(resp.Request)
		e.RetryAfter = netrules.RetryAfter(resp.Header)
	}
	return e
}

func isNumber(s string) bool {
	return s != "" && len(s) < 19 && strings.Trim(s, "0123456789") == ""
}

// failed returns the error of an exchange that ended without a complete answer. ctx is the caller's; r has the context that the
// watchdog ends.
func (c *Client) failed(ctx context.Context, r *http.Request, err error) error {
	if ctx.Err() != nil {
		return share.Errorf(share.StorageUnavailable, "the call ended before the store answered", context.Cause(ctx))
	}
	c.dropIdle(r)
	if context.Cause(r.Context()) == errStalled {
		return share.Errorf(share.StorageUnavailable, "the transfer to or from the store made no progress", errStalled)
	}
	return share.Errorf(share.StorageUnavailable, "the connection to the store failed", netrules.SafeError(err))
}
