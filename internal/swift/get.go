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

// Get opens an object at byte start, for limit bytes (0: to the end), if its ETag is ifMatch (empty: any). A negative start
// counts from the end. Reading Body fails with StorageTruncated if the store ends it early, with StorageUnavailable if the
// connection breaks or stalls, and with StorageProtocolError if the store sends more bytes than the object has. The caller must
// close Body.
func (c *Client) Get(ctx context.Context, account string, u share.TempURL, start, limit int64, ifMatch share.ETag) (_ *share.ObjectReader, err error) {
	ctx, end := c.step.Begin(ctx, share.SystemStore, http.MethodGet)
	defer func() { end(err) }()
	if limit < 0 || start == math.MinInt64 {
		return nil, share.Errorf(share.RangeNotSatisfiable, "the requested range is invalid", nil)
	}
	inner, dog := newWatchdog(ctx)
	r, err := c.request(inner, http.MethodGet, account, u)
	if err != nil {
		dog.end()
		return nil, err
	}
	// Without it an intermediary might send an encoded body instead of the stored bytes.
	r.Header.Set("Accept-Encoding", "identity")
	if wanted := rangeHeader(start, limit); wanted != "" {
		r.Header.Set("Range", wanted)
	}
	if condition := ifMatch.IfMatch(); condition != "" {
		r.Header.Set("If-Match", condition)
	}
	resp, err := c.transport(r).RoundTrip(r)
	if err != nil {
		err = c.failed(ctx, r, err)
		dog.end()
		return nil, err
	}
	size := resp.ContentLength
	if resp.StatusCode == http.StatusOK && size < 0 {
		size, err = c.measure(ctx, account, u, described(resp).ETag)
	}
	var o *opened
	if err == nil {
		o, err = c.open(resp, size, start, limit, ifMatch)
	}
	if err != nil {
		c.discard(resp, dog)
		dog.end()
		return nil, err
	}
	body := &objectBody{c: c, ctx: ctx, request: r, dog: dog, body: resp.Body, at: o.at, want: o.Start, end: o.End}
	body.openEnded = resp.ContentLength < 0 && o.End == o.sentTo
	if err := body.skip(); err != nil {
		_ = body.Close()
		return nil, err
	}
	o.Body = body
	return &o.ObjectReader, nil
}

// measure returns the size of an object whose GET answer has no length: a HEAD answer may have it, or the Content-Range of a part.
// etag is that of the GET answer.
func (c *Client) measure(ctx context.Context, account string, u share.TempURL, etag share.ETag) (int64, error) {
	o, err := c.Head(ctx, account, u)
	if err == nil && o.Size < 0 {
		o, err = c.firstByte(ctx, account, u)
	}
	switch {
	case err != nil:
		return 0, err
	case etag != "" && o.ETag != "" && !etag.Matches(o.ETag):
		return 0, share.Errorf(share.FileChanged, objectChanged, nil)
	}
	return o.Size, nil
}

// firstByte returns the properties of an object from the answer to a GET of its first byte.
func (c *Client) firstByte(ctx context.Context, account string, u share.TempURL) (share.StoredObject, error) {
	inner, dog := newWatchdog(ctx)
	defer dog.end()
	r, err := c.request(inner, http.MethodGet, account, u)
	if err != nil {
		return share.StoredObject{}, err
	}
	r.Header.Set("Accept-Encoding", "identity")
	r.Header.Set("Range", rangeHeader(0, 1))
	resp, err := c.transport(r).RoundTrip(r)
	if err != nil {
		return share.StoredObject{}, c.failed(ctx, r, err)
	}
	if resp.StatusCode == http.StatusOK && resp.ContentLength < 0 {
		_ = resp.Body.Close() // it is the whole object
		return share.StoredObject{}, unexpected("an object without a length")
	}
	defer c.discard(resp, dog)
	sent, err := c.spanOf(resp, resp.ContentLength, 0, 1)
	o := described(resp)
	o.Size = sent.size
	return o, err
}

// rangeHeader returns the value of Range. A range that counts from the end cannot be limited: the rest is not read.
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

// An opened object has a valid answer. Its bytes are those from offset at up to, not including, sentTo; those before Start are to be
// skipped.
type opened struct {
	share.ObjectReader
	at, sentTo int64
}

// A span is the part of an object that an answer carries: the bytes from offset from up to, not including, to.
type span struct{ from, to, size int64 }

func unexpected(what string) error {
	return share.Errorf(share.StorageProtocolError, unexpectedAnswer, errors.New(what))
}

// open validates an answer against the request. size is the size of the object if the answer is 200.
func (c *Client) open(resp *http.Response, size, start, limit int64, ifMatch share.ETag) (*opened, error) {
	sent, err := c.spanOf(resp, size, start, limit)
	if err != nil {
		return nil, err
	}
	o := &opened{ObjectReader: share.ObjectReader{StoredObject: described(resp)}, at: sent.from, sentTo: sent.to}
	o.Size = sent.size
	if ifMatch != "" && !o.ETag.Matches(ifMatch) {
		return nil, share.Errorf(share.FileChanged, objectChanged, nil)
	}

	if o.Start, o.End, err = share.PartOf(o.Size, start, limit); err != nil {
		return nil, err
	}
	if sent.to < o.End || sent.from > o.Start || resp.StatusCode == http.StatusPartialContent && sent.from != o.Start {
		return nil, unexpected("206 with a range that was not requested")
	}
	return o, nil
}

// spanOf reads from status and headers which part of the object an answer carries, or returns the error that the status means.
func (c *Client) spanOf(resp *http.Response, size, start, limit int64) (span, error) {
	switch resp.StatusCode {
	case http.StatusOK:
		return span{0, size, size}, nil
	case http.StatusPartialContent:
		if rangeHeader(start, limit) == "" {
			break
		}
		s, ok := parseContentRange(resp.Header.Get("Content-Range"))
		if !ok {
			return span{}, unexpected("206 with an invalid Content-Range")
		}
		if resp.ContentLength >= 0 && resp.ContentLength != s.to-s.from {
			return span{}, unexpected("206 with a length that contradicts its Content-Range")
		}
		return s, nil
	case http.StatusRequestedRangeNotSatisfiable:
		// For Swift the first bytes of an empty object are an error, for a reader they are an empty result.
		if start == 0 && resp.Header.Get("Content-Range") == "bytes */0" {
			return span{}, nil
		}
	}
	return span{}, c.rejected(resp)
}

// parseContentRange parses "bytes 0-3/10".
func parseContentRange(s string) (span, bool) {
	s, ok := strings.CutPrefix(s, "bytes ")
	run, total, ok2 := strings.Cut(s, "/")
	first, last, ok3 := strings.Cut(run, "-")
	if !ok || !ok2 || !ok3 || !isNumber(first) || !isNumber(last) || !isNumber(total) {
		return span{}, false
	}
	from, _ := strconv.ParseInt(first, 10, 64)
	to, _ := strconv.ParseInt(last, 10, 64)
	size, _ := strconv.ParseInt(total, 10, 64)
	to++
	return span{from, to, size}, from < to && to <= size
}

// An objectBody reads the bytes of an object from offset want up to end.
type objectBody struct {
	c *Client
	// ctx is the caller's, which distinguishes a cancelled call from a stalled store.
	ctx           context.Context
	request       *http.Request
	dog           *watchdog
	body          io.ReadCloser
	at, want, end int64
	// openEnded means that the answer has no length and must end at end.
	openEnded bool
	err       error
}

// skip discards the bytes before want.
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

// Read reads the next bytes. The watchdog runs only while Read waits for the store.
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
	if b.openEnded && b.at+int64(n) == b.end && err == nil {
		// The last bytes count only if nothing follows them.
		if err = b.readEnd(); err != io.EOF {
			n = 0
		}
	}
	b.dog.disarm()
	b.at += int64(n)
	switch {
	case b.at == b.end:
		b.err = io.EOF
	case share.KindOf(err) != "":
		b.err = err
	case err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF):
		b.c.dropIdle(b.request)
		b.err = share.Errorf(share.StorageTruncated, "the store ended the file early", nil)
	case err != nil:
		b.err = b.c.failed(b.ctx, b.request, err)
	}
	if n > 0 && b.err != io.EOF {
		// The next Read returns the error.
		return n, nil
	}
	return n, b.err
}

// readEnd returns io.EOF if the answer ends here.
func (b *objectBody) readEnd() error {
	n, err := io.ReadFull(b.body, make([]byte, 1))
	if n > 0 {
		return unexpected("more bytes than the object has")
	}
	return err
}

// Close ends the request. If the object was not read to its end, the connection cannot be reused.
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

// Head returns the properties of a stored object.
func (c *Client) Head(ctx context.Context, account string, u share.TempURL) (_ share.StoredObject, err error) {
	ctx, end := c.step.Begin(ctx, share.SystemStore, http.MethodHead)
	defer func() { end(err) }()
	inner, dog := newWatchdog(ctx)
	defer dog.end()
	r, err := c.request(inner, http.MethodHead, account, u)
	if err != nil {
		return share.StoredObject{}, err
	}
	resp, err := c.transport(r).RoundTrip(r)
	if err != nil {
		return share.StoredObject{}, c.failed(ctx, r, err)
	}
	defer c.discard(resp, dog)
	if resp.StatusCode != http.StatusOK {
		return share.StoredObject{}, c.rejected(resp)
	}
	o := described(resp)
	o.Size = resp.ContentLength
	return o, nil
}
