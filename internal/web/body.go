package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"connectrpc.com/connect"

	"golang.org/x/sync/semaphore"

	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

const (
	// pieceBytes is how much memory a request takes at a time while it arrives.
	pieceBytes = 64 << 10
	// maxDiscard is how much of a request that is too large is read and discarded. Browsers report a response that arrives before
	// they have sent the request as a failed connection.
	maxDiscard = 64 << 20
)

// A memory limits what the requests of browsers hold until the gRPC server has received them. Half of it is for requests that are
// arriving, of which each address has a share (admission.Shares), because that can take long. The other half is for the copies of
// requests that are being translated, which takes milliseconds.
type memory struct {
	translated *semaphore.Weighted

	mu       sync.Mutex
	arriving *admission.Shares
}

func newMemory(bytes int64) *memory {
	return &memory{translated: semaphore.NewWeighted(bytes / 2), arriving: admission.NewShares(bytes/2, admission.ByPeer)}
}

// A reservation is the memory of one request.
type reservation struct {
	memory *memory
	holder admission.Holder

	mu     sync.Mutex
	bytes  int64 // of the request
	copies int64 // what its translation needs
}

// reserve begins a reservation of nothing, for the connection from an address.
func (m *memory) reserve(remote string) *reservation {
	return &reservation{memory: m, holder: admission.Holder{Group: connectionOf(remote), Caller: admission.Hash("connection", remote)}}
}

// grow reserves n bytes more of a request that is arriving. It reports false if the address may not have as much.
func (r *reservation) grow(n int64) bool {
	r.memory.mu.Lock()
	defer r.memory.mu.Unlock()
	if !r.memory.arriving.Fits(r.holder, n) {
		return false
	}
	r.memory.arriving.Take(r.holder, n)
	r.bytes += n
	return true
}

// translate waits for memory for copies of the request, unless they are small.
func (r *reservation) translate(ctx context.Context, copies int64) error {
	need := r.bytes * copies
	if r.bytes <= pieceBytes {
		return nil
	}
	if err := r.memory.translated.Acquire(ctx, need); err != nil {
		return err
	}
	r.copies = need
	return nil
}

// release returns everything. It may be called again.
func (r *reservation) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.memory.mu.Lock()
	r.memory.arriving.Take(r.holder, -r.bytes)
	r.memory.mu.Unlock()
	r.memory.translated.Release(r.copies)
	r.bytes, r.copies = 0, 0
}

// A limit is the largest request of a format.
type limit struct {
	bytes  int64
	copies int64 // how many times as much its translation needs at most
}

// receive reads a whole request, because a message is translated as a whole, within the time and the memory for it. Its error is for
// the client.
func (h *Handler) receive(rc *http.ResponseController, r *http.Request, method string, l limit, held *reservation) (pieces [][]byte, err error) {
	_ = rc.SetReadDeadline(time.Now().Add(h.RequestTimeout))
	if r.ContentLength > l.bytes {
		return nil, h.discard(rc, r, method, r.ContentLength)
	}
	var total int64
	for {
		size := int64(pieceBytes)
		if r.ContentLength >= 0 {
			size = min(size, r.ContentLength-total)
		}
		if size == 0 {
			size = 1 // to find the end
		} else if !held.grow(size) {
			pieces = nil
			held.release()
			// A response that arrives before the browser has sent the request would be a failed connection to it.
			if _, err := io.CopyN(io.Discard, r.Body, maxDiscard); errors.Is(err, io.EOF) {
				_ = rc.SetReadDeadline(time.Time{})
			}
			return nil, h.status(share.Reject(share.TooManyUploads, "requests of browsers hold too much memory; retry with the same request_id").
				With("limit", "budget"))
		}
		piece := make([]byte, size)
		n, err := io.ReadFull(r.Body, piece)
		total += int64(n)
		pieces = append(pieces, piece[:n])
		switch {
		case total > l.bytes:
			return nil, h.discard(rc, r, method, total)
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF) && r.ContentLength < 0:
			// Otherwise the read in the background that notices that the client leaves would end the call.
			_ = rc.SetReadDeadline(time.Time{})
			return pieces, nil
		case err != nil:
			return nil, h.broken(err)
		}
	}
}

// discard reads the rest of a request that is too large, of which so many bytes are known, and returns the error.
func (h *Handler) discard(rc *http.ResponseController, r *http.Request, method string, bytes int64) error {
	if _, err := io.CopyN(io.Discard, r.Body, maxDiscard); errors.Is(err, io.EOF) {
		_ = rc.SetReadDeadline(time.Time{})
	}
	if e := h.TooLarge(method, bytes); e != nil {
		return h.status(e)
	}
	return connect.NewError(connect.CodeResourceExhausted, fmt.Errorf("the request has %d bytes, the limit of a message is %d", bytes, h.MaxMessageBytes))
}

// broken returns the error of a request that did not arrive. The read deadline stays: net/http would wait for the rest of the request.
func (h *Handler) broken(err error) error {
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() || errors.Is(err, os.ErrDeadlineExceeded) {
		return connect.NewError(connect.CodeDeadlineExceeded, fmt.Errorf("the request did not arrive within %s", h.RequestTimeout))
	}
	return connect.NewError(connect.CodeCanceled, errors.New("the request was not sent to its end"))
}

// A body is a request that has arrived.
type body struct {
	pieces [][]byte
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (n int, err error) {
	for len(b.pieces) > 0 && n < len(p) {
		c := copy(p[n:], b.pieces[0])
		n += c
		if b.pieces[0] = b.pieces[0][c:]; len(b.pieces[0]) == 0 {
			b.pieces[0], b.pieces = nil, b.pieces[1:]
		}
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Close implements io.Closer.
func (*body) Close() error { return nil }

// heldKey is the context key of the *reservation of a call.
type heldKey struct{}

// releasing returns the body of the translated request, which releases the memory when the gRPC server has received it.
func releasing(ctx context.Context, translated io.ReadCloser) io.ReadCloser {
	if held, ok := ctx.Value(heldKey{}).(*reservation); ok {
		return &releasingBody{translated, held}
	}
	return translated
}

type releasingBody struct {
	io.ReadCloser
	held *reservation
}

func (b *releasingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.held.release()
	}
	return n, err
}
