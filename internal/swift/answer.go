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

// maxErrorBody is how much of an error's text is read, to spare the connection. Nobody looks at it: it is the peer's own.
const maxErrorBody = 64 << 10

var errNoSize = errors.New("a PUT needs its size beforehand")

// discard ends with an answer's body. A little of it is read, so that the connection can be used again.
func (c *Client) discard(resp *http.Response, dog *watchdog) {
	dog.arm(c.stall)
	_, _ = io.CopyN(io.Discard, resp.Body, maxErrorBody)
	_ = resp.Body.Close()
	dog.disarm()
}

// described is what the headers of an answer say of an object. The size is left to the caller.
func described(resp *http.Response) share.StoredObject {
	o := share.StoredObject{
		ETag:  strings.Trim(resp.Header.Get("Etag"), `"`),
		Large: strings.EqualFold(resp.Header.Get("X-Static-Large-Object"), "true"),
	}
	o.ModTime, _ = http.ParseTime(resp.Header.Get("Last-Modified"))
	return o
}

// refused names the condition of an answer that is no success.
func (c *Client) refused(resp *http.Response) error {
	put := resp.Request.Method == http.MethodPut
	cause := fmt.Errorf("the store answered %s with %d", resp.Request.Method, resp.StatusCode)
	fail := func(kind share.Kind, message string) error { return share.Errorf(kind, message, cause) }
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized:
		return fail(share.StorageURLRejected, "the store refuses the signed URL")
	case code == http.StatusForbidden:
		return fail(share.StorageDenied, "the store denies access")
	case code == http.StatusNotFound && put:
		return fail(share.StorageDenied, "the store has no container for the account's files")
	case code == http.StatusNotFound:
		return fail(share.FileNotFound, "the store has no such file")
	case code == http.StatusPreconditionFailed && !put:
		return fail(share.FileChanged, "the file in the store is another one by now; download it from byte 0")
	case code == http.StatusRequestEntityTooLarge && put:
		return fail(share.FileTooLarge, "the file is larger than the store takes")
	case code == http.StatusRequestedRangeNotSatisfiable && !put:
		e := share.Errorf(share.RangeNotSatisfiable, "the range lies outside of the file", cause)
		if _, size, ok := strings.Cut(resp.Header.Get("Content-Range"), "/"); ok && isNumber(size) {
			e.Metadata = map[string]string{"sizeBytes": size}
		}
		return e
	case code == http.StatusUnprocessableEntity && put:
		return fail(share.StorageCorrupted, "the store received other bytes than were sent")
	case code == http.StatusTooManyRequests || code == 498:
		e := share.Errorf(share.StorageRateLimited, "the store asks for fewer requests", cause)
		e.RetryAfter = netrules.RetryAfter(resp.Header)
		return e
	case code == http.StatusInsufficientStorage:
		return fail(share.StorageFull, "the store is full")
	case code == http.StatusRequestTimeout || code == 499 || code >= 500:
		// Whatever ails this connection's other end may ail its siblings: the next try shall not begin on one of them.
		c.transport.CloseIdleConnections()
		e := share.Errorf(share.StorageUnavailable, "the store is in trouble", cause)
		e.RetryAfter = netrules.RetryAfter(resp.Header)
		return e
	default:
		return fail(share.StorageProtocolError, "the store gave an answer that makes no sense here")
	}
}

func isNumber(s string) bool {
	return s != "" && len(s) < 19 && strings.Trim(s, "0123456789") == ""
}

// broken names the condition of an exchange without an answer, or with half of one. ctx is the caller's, inner the request's.
func (c *Client) broken(ctx, inner context.Context, err error) error {
	if ctx.Err() != nil {
		return share.Errorf(share.StorageUnavailable, "the call ended before the store had answered", context.Cause(ctx))
	}
	// The next try needs another connection, and those that were opened beside this one are as likely to be dead.
	c.transport.CloseIdleConnections()
	if context.Cause(inner) == errStalled {
		return share.Errorf(share.StorageUnavailable, "the store neither takes nor sends anything", errStalled)
	}
	return share.Errorf(share.StorageUnavailable, "the store cannot be reached or broke off", netrules.SafeError(err))
}
