package swift

import (
	"context"
	"io"
	"net/http"
	"net/http/httptrace"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Put stores size bytes of body, in one try. It closes body, which must end a Read that is waiting for bytes to come, and has
// stopped reading when it returns. A body that fails before its end is never committed by the store; Put then returns the
// body's own error. What the store says it has stored is not compared with anything here.
func (c *Client) Put(ctx context.Context, account string, u share.TempURL, size int64, contentType string, body io.ReadCloser) (share.StoredObject, error) {
	inner, dog := newWatchdog(ctx)
	defer dog.end()
	f := newFeed(body, size, dog, c.stall, c.header)
	defer f.stop()
	if size < 0 {
		return share.StoredObject{}, share.Errorf(share.Internal, "internal error", errNoSize)
	}
	r, err := c.request(inner, http.MethodPut, account, u)
	if err != nil {
		return share.StoredObject{}, err
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	r.ContentLength, r.Body = size, f
	if size == 0 {
		r.Body = http.NoBody
	}

	// Whatever ends the exchange also ends the body's wait for bytes, or the transport would go on waiting for them.
	defer context.AfterFunc(inner, f.abort)()
	var conn *watchedConn
	r = r.WithContext(httptrace.WithClientTrace(inner, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if conn = watched(info.Conn); conn != nil {
			conn.watch(f)
		}
	}}))
	resp, err := c.transport.RoundTrip(r)
	if conn != nil {
		conn.unwatch(f)
	}
	left, bodyErr := f.stop()

	if err == nil {
		defer c.discard(resp, dog)
	}
	switch {
	case bodyErr == errShort:
		return share.StoredObject{}, share.Errorf(share.Internal, "internal error", bodyErr)
	case bodyErr != nil:
		return share.StoredObject{}, bodyErr
	case err != nil:
		return share.StoredObject{}, c.broken(ctx, inner, err)
	}
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusAccepted {
		return share.StoredObject{}, c.refused(resp)
	}
	if resp.StatusCode == http.StatusAccepted {
		// Nothing of this body was stored, and a Swift may say so without having read it.
		return share.StoredObject{Size: -1, Superseded: true}, nil
	}
	if left > 0 {
		// A success before the last byte was sent is none: what is there cannot be this file.
		return share.StoredObject{}, share.Errorf(share.StorageProtocolError, "the store confirmed a file that it had not got whole", nil)
	}
	stored := described(resp)
	stored.Size = size
	return stored, nil
}
