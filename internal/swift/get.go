package swift

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/lpfileshare/lpfileshare/internal/netrules"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Get opens an object from byte start on, for limit bytes (0: to the end), if its ETag is ifMatch (empty: any). A negative
// start counts from the end. Its Body fails with StorageTruncated when the store ends it early, and with StorageUnavailable
// when the connection breaks or stalls. The caller closes Body.
func (c *Client) Get(ctx context.Context, account string, u share.TempURL, start, limit int64, ifMatch string) (*share.ObjectReader, error) {
	if limit < 0 || start == math.MinInt64 {
		return nil, share.Errorf(share.RangeNotSatisfiable, "there is no such range", nil)
	}
	inner, dog := newWatchdog(ctx)
	r, err := c.request(inner, http.MethodGet, account, u)
	if err != nil {
		dog.end()
		return nil, err
	}
	// Otherwise something between here and the store might send other bytes than are stored.
	r.Header.Set("Accept-Encoding", "identity")
	if ask := rangeHeader(start, limit); ask != "" {
		r.Header.Set("Range", ask)
	}
	if ifMatch != "" {
		r.Header.Set("If-Match", `"`+ifMatch+`"`)
	}
	resp, err := c.transport.RoundTrip(r)
	if err != nil {
		err = c.broken(ctx, inner, err)
		dog.end()
		return nil, err
	}
	o, err := c.open(resp, start, limit, ifMatch)
	if err != nil {
		c.discard(resp, dog)
		dog.end()
		return nil, err
	}
	body := &objectBody{c: c, ctx: ctx, inner: inner, dog: dog, body: resp.Body, at: o.at, want: o.Start, end: o.End}
	if err := body.skip(); err != nil {
		_ = body.Close()
		return nil, err
	}
	o.Body = body
	return &o.ObjectReader, nil
}

// rangeHeader asks for what is wanted. Of a range from the end only the beginning can be said, the rest is left unread.
func rangeHeader(start, limit int64) string {
	switch {
	case start < 0:
		return "bytes=" + strconv.FormatInt(start, 10)
	case limit > 0 && limit-1 <= math.MaxInt64-start:
		return fmt.Sprintf("bytes=%d-%d", start, start+limit-1)
	case start > 0:
		return fmt.Sprintf("bytes=%d-", start)
	default:
		return ""
	}
}

// An opened is an object whose answer makes sense. Its bytes come from at on, and may have to be skipped up to Start.
type opened struct {
	share.ObjectReader
	at int64
}

// open checks an answer against what was asked for.
func (c *Client) open(resp *http.Response, start, limit int64, ifMatch string) (*opened, error) {
	nonsense := func(what string) error {
		return share.Errorf(share.StorageProtocolError, "the store gave an answer that makes no sense here", errors.New(what))
	}
	o := &opened{ObjectReader: share.ObjectReader{StoredObject: described(resp)}}
	asked := rangeHeader(start, limit) != ""
	var from, to int64 // what comes
	switch {
	case resp.StatusCode == http.StatusOK && resp.ContentLength >= 0:
		o.Size = resp.ContentLength
		from, to = 0, o.Size
	case resp.StatusCode == http.StatusOK:
		return nil, nonsense("200 without a length")
	case resp.StatusCode == http.StatusPartialContent && asked:
		var ok bool
		if from, to, o.Size, ok = parseContentRange(resp.Header.Get("Content-Range")); !ok {
			return nil, nonsense("206 with a Content-Range that cannot be read")
		}
		if resp.ContentLength >= 0 && resp.ContentLength != to-from {
			return nil, nonsense("206 with a length that is not its Content-Range's")
		}
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && start == 0 && resp.Header.Get("Content-Range") == "bytes */0":
		// The first so many bytes of nothing are nothing: a Swift sees an error in that, a reader does not.
	default:
		return nil, c.refused(resp)
	}
	if ifMatch != "" && o.ETag != ifMatch {
		return nil, share.Errorf(share.FileChanged, "the file in the store is another one by now; download it from byte 0", nil)
	}

	o.at, o.Start, o.End = from, start, o.Size
	if start < 0 {
		o.Start = max(0, o.Size+start)
	}
	if o.Start > o.Size || o.Start == o.Size && start > 0 {
		e := share.Errorf(share.RangeNotSatisfiable, "the range lies outside of the file", nil)
		e.Metadata = map[string]string{"sizeBytes": strconv.FormatInt(o.Size, 10)}
		return nil, e
	}
	if limit > 0 && limit < o.End-o.Start {
		o.End = o.Start + limit
	}
	if to < o.End || from > o.Start || resp.StatusCode == http.StatusPartialContent && from != o.Start {
		return nil, nonsense("206 with another range than was asked for")
	}
	return o, nil
}

// parseContentRange reads "bytes 0-3/10": from, one past the last, and the whole size.
func parseContentRange(s string) (from, to, size int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	run, total, ok2 := strings.Cut(s, "/")
	first, last, ok3 := strings.Cut(run, "-")
	if !ok || !ok2 || !ok3 || !isNumber(first) || !isNumber(last) || !isNumber(total) {
		return 0, 0, 0, false
	}
	from, _ = strconv.ParseInt(first, 10, 64)
	to, _ = strconv.ParseInt(last, 10, 64)
	size, _ = strconv.ParseInt(total, 10, 64)
	to++
	return from, to, size, from < to && to <= size
}

// An objectBody gives the bytes of an object from want up to end.
type objectBody struct {
	c *Client
	// ctx is the caller's, inner the request's: they tell a caller who left from a store that got stuck.
	ctx, inner    context.Context
	dog           *watchdog
	body          io.ReadCloser
	at, want, end int64
	err           error
}

// skip reads over what comes before what is wanted.
func (b *objectBody) skip() error {
	if b.at >= b.want {
		return nil
	}
	buf := make([]byte, 32<<10)
	for b.at < b.want {
		if _, err := b.read(buf[:min(int64(len(buf)), b.want-b.at)]); err != nil {
			return err
		}
	}
	return nil
}

// Read reads on. The watchdog runs only while it waits for the store.
func (b *objectBody) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return b.read(p)
}

func (b *objectBody) read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.at >= b.end {
		return 0, io.EOF
	}
	b.dog.arm(b.c.stall)
	n, err := b.body.Read(p[:min(int64(len(p)), b.end-b.at)])
	b.dog.disarm()
	b.at += int64(n)
	switch {
	case b.at == b.end:
		b.err = io.EOF
	case err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF):
		b.c.transport.CloseIdleConnections()
		b.err = share.Errorf(share.StorageTruncated, "the store ended the file early", nil)
	case err != nil:
		b.err = b.c.broken(b.ctx, b.inner, err)
	}
	if n > 0 && b.err != io.EOF {
		// The error comes with the next Read.
		return n, nil
	}
	return n, b.err
}

// Close ends the request. Where the object was not read to its end that costs the connection.
func (b *objectBody) Close() error {
	err := b.body.Close()
	b.dog.end()
	if b.err == nil {
		b.err = errStopped
	}
	if err != nil {
		return fmt.Errorf("close the object: %w", netrules.SafeError(err))
	}
	return nil
}

// Head asks what the store has.
func (c *Client) Head(ctx context.Context, account string, u share.TempURL) (share.StoredObject, error) {
	inner, dog := newWatchdog(ctx)
	defer dog.end()
	r, err := c.request(inner, http.MethodHead, account, u)
	if err != nil {
		return share.StoredObject{}, err
	}
	resp, err := c.transport.RoundTrip(r)
	if err != nil {
		return share.StoredObject{}, c.broken(ctx, inner, err)
	}
	defer c.discard(resp, dog)
	if resp.StatusCode != http.StatusOK {
		return share.StoredObject{}, c.refused(resp)
	}
	o := described(resp)
	o.Size = resp.ContentLength
	return o, nil
}
