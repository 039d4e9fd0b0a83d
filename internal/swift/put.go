package swift

import (
	"context"
	"io"
	"net/http"
	"net/http/httptrace"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Put stores size bytes of body, in one attempt. It closes body, which must unblock a pending Read, and does not use it after
// it returns. If body fails before its end, the store commits nothing and Put returns the body's own error. The object that the
// store reports is not compared with the bytes sent; that is the caller's task.
func (c *Client) Put(ctx context.Context, account string, u share.TempURL, size int64, contentType string, body io.ReadCloser) (share.StoredObject, error) {
	inner, dog := newWatchdog(ctx)
	defer dog.end()
	f := newFeed(body, size, dog, c.stall, c.header)
	defer f.stop()
	if size < 0 {
		return share.StoredObject{}, share.Errorf(share.Internal, "internal error", errNoSize)
	}
	var conn *watchedConn
	traced := httptrace.WithClientTrace(inner, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if conn = watched(info.Conn); conn != nil {
			conn.watch(f)
		}
	}})
	r, err := c.request(traced, http.MethodPut, account, u)
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

	// The end of the exchange must also unblock the body, or the transport would keep waiting for its bytes.
	defer context.AfterFunc(inner, f.abort)()
	resp, err := c.transport(r).RoundTrip(r)
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
		return share.StoredObject{}, c.failed(ctx, r, err)
	}
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusAccepted {
		return share.StoredObject{}, c.rejected(resp)
	}
	if resp.StatusCode == http.StatusAccepted {
		// A newer object exists, so nothing of this body was stored. Swift may answer this before it has read the body.
		return share.StoredObject{Size: -1, Superseded: true}, nil
	}
	if left > 0 {
		// A success before the last byte was sent cannot be for this file.
		return share.StoredObject{}, share.Errorf(share.StorageProtocolError, "the store acknowledged the upload before receiving the whole file", nil)
	}
	stored := described(resp)
	stored.Size = size
	return stored, nil
}
