package service

import (
	"bytes"
	"context"
	"errors"
	"math/bits"
	"sync"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A poisoningPool is the pool of the server's receive buffers in all tests. It overwrites buffers that are returned, and reuses them at
// once: a test whose file is stored as it was sent shows that no buffer was returned too early.
type poisoningPool struct {
	mu   sync.Mutex
	free map[int][]*[]byte // by the logarithm of the size
	out  int
}

func (p *poisoningPool) Get(n int) *[]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out++
	size := bits.Len(uint(n - 1))
	if free := p.free[size]; len(free) > 0 {
		b := free[len(free)-1]
		p.free[size] = free[:len(free)-1]
		*b = (*b)[:n]
		return b
	}
	b := make([]byte, n, 1<<size)
	return &b
}

func (p *poisoningPool) Put(b *[]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out--
	*b = (*b)[:cap(*b)]
	for i := range *b {
		(*b)[i] = 0xdb
	}
	if p.free == nil {
		p.free = make(map[int][]*[]byte)
	}
	size := bits.Len(uint(cap(*b) - 1))
	p.free[size] = append(p.free[size], b)
}

func (p *poisoningPool) inUse() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out
}

// TestUpload_BuffersOutliveThePut has PUTs fail and end in many ways. Each reads only bytes of the file, also those that repeat an earlier
// one. After a success every buffer is returned; of a call that ended early gRPC itself may leave some to the garbage collector.
func TestUpload_BuffersOutliveThePut(t *testing.T) {
	broken := share.Errorf(share.StorageUnavailable, "the connection broke", nil)
	failsAt := func(puts, bytes int, err error) func(*harness) {
		return func(h *harness) {
			h.store.midway = func(put, read int) error {
				if put <= puts && read >= bytes {
					return err
				}
				return nil
			}
		}
	}
	for name, c := range map[string]struct {
		change func(*pb.UploadSpec)
		faults func(*harness)
		puts   int
		want   share.Kind
	}{
		"stored":                        {puts: 1},
		"undeclared":                    {change: undeclared, puts: 1},
		"repeated from the beginning":   {faults: failsAt(1, 1, broken), puts: 2},
		"repeated from the middle":      {faults: failsAt(2, 150_000, broken), puts: 3},
		"repeated after the whole file": {faults: failsAt(1, 249_999, broken), puts: 2},
		"undeclared, repeated":          {change: undeclared, faults: failsAt(2, 150_000, broken), puts: 3},
		"rejected early":                {faults: failsAt(1, 1, share.Errorf(share.StorageDenied, "denied", nil)), puts: 1, want: share.StorageDenied},
		"corrupted": {faults: func(h *harness) {
			h.store.answer = func(o *share.StoredObject) { o.ETag = "00000000000000000000000000000000" }
		}, puts: 2, want: share.StorageCorrupted},
		"wrong type": {change: func(s *pb.UploadSpec) { s.FileType = pb.FileType_FILE_TYPE_PNG }, puts: -1, want: share.FileTypeMismatch},
	} {
		t.Run(name, inBubble(func(t *testing.T) {
			h := newHarness(t)
			if c.faults != nil {
				c.faults(h)
			}
			b := picture(250_000)
			s := spec(b)
			if c.change != nil {
				c.change(s)
			}
			_, err := h.upload(h.alice(), whole(s, b, 70_000)...)
			if c.want != "" {
				wantError(t, err, c.want)
			} else if err != nil {
				t.Fatal(err)
			} else {
				h.wantPublished(b)
				h.eventually("all buffers are returned", func() bool { return h.buffers.inUse() == 0 })
			}
			h.wantPrefixes(b, c.puts)
		}))
	}
}

// TestUpload_BuffersOfCancelledCalls cancels calls while their PUT reads.
func TestUpload_BuffersOfCancelledCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(250_000)
		ctx, cancel := context.WithCancel(h.alice())
		h.store.midway = func(_, read int) error {
			if read >= 100_000 {
				cancel()
			}
			return nil
		}
		_, err := h.upload(ctx, whole(spec(b), b, 70_000)...)
		if status.Code(err) != codes.Canceled && !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		h.eventually("the handler has ended", func() bool { return h.lp.sessions() == 0 })
		h.wantPrefixes(b, 1)
	})
}

// wantPrefixes checks the bytes that each PUT got. puts is the number of PUTs; negative: any.
func (h *harness) wantPrefixes(b []byte, puts int) {
	h.t.Helper()
	got := h.store.recordedPuts()
	if puts >= 0 && len(got) != puts {
		h.t.Errorf("%d PUTs, want %d", len(got), puts)
	}
	for i, p := range got {
		if !bytes.HasPrefix(b, p.got) {
			h.t.Errorf("the bytes of PUT %d are not those of the file", i+1)
		}
	}
}
