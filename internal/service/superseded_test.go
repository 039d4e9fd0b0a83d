package service

import (
	"bytes"
	"context"
	"io"
	"testing"
	"time"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A busy is a store that has something newer under some names, and says so (202) without reading what is sent.
type busy struct {
	*warehouse
	has func(put int) []byte // what it has when so many PUTs have been; nil: nothing, and it stores what is sent
	n   int                  // PUTs so far; they come one after another
}

func (s *busy) Put(ctx context.Context, account string, u share.TempURL, size int64, mediaType string, body io.ReadCloser) (share.StoredObject, error) {
	s.n++
	b := s.has(s.n)
	if b == nil {
		return s.warehouse.Put(ctx, account, u, size, mediaType, body)
	}
	if err := s.enter(ctx, "Put"); err != nil {
		return share.StoredObject{}, err
	}
	if len(b) > 0 {
		s.keep(u.Path, b)
	}
	return share.StoredObject{Size: -1, Superseded: true}, body.Close()
}

func TestAfterA202TheStoreIsAskedWhatItHas(t *testing.T) {
	b := picture(1000)
	other := bytes.Clone(b)
	other[500] ^= 1
	only := func(n int, what []byte) func(int) []byte {
		return func(put int) []byte {
			if put == n {
				return what
			}
			return nil
		}
	}
	for what, c := range map[string]struct {
		has               func(put int) []byte
		trouble           func(h *house)
		puts, urls, heads int
	}{
		"this file":                     {only(1, b), nil, 1, 1, 1},
		"this file, after a lost 201":   {only(2, b), func(h *house) { h.store.fail("Put", kindError(share.StorageUnavailable)) }, 2, 1, 1},
		"other bytes":                   {only(1, other), nil, 2, 2, 1},
		"another length":                {only(1, b[:999]), nil, 2, 2, 1},
		"nothing: it was deleted":       {only(1, []byte{}), nil, 2, 2, 1},
		"it is in trouble when asked":   {func(put int) []byte { return b }, func(h *house) { h.store.fail("Head", kindError(share.StorageUnavailable)) }, 2, 1, 2},
		"it refuses the URL when asked": {only(1, b), func(h *house) { h.store.fail("Head", kindError(share.StorageURLRejected)) }, 2, 2, 1},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.server.uploads.Store = &busy{warehouse: h.store, has: c.has}
			if c.trouble != nil {
				c.trouble(h)
			}
			f := h.put(b).GetFile()
			h.published(b)
			if want := describe(b).ETag; f.GetEtag() != want {
				t.Errorf("the ETag is %q, want %q", f.GetEtag(), want)
			}
			if p, u, n := h.store.count("Put"), h.lp.count("UploadURL"), h.store.count("Head"); p != c.puts || u != c.urls || n != c.heads {
				t.Errorf("%d PUTs, %d URLs and %d HEADs, want %d, %d and %d", p, u, n, c.puts, c.urls, c.heads)
			}
		})
	}
	t.Run("something else each time", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		h.server.uploads.Store = &busy{warehouse: h.store, has: func(int) []byte { return other }}
		_, err := h.upload(h.alice(), whole(spec(b), b, 100)...)
		refused(t, err, share.StorageCorrupted)
		if len(h.lp.messages()) != 0 {
			t.Error("it was published")
		}
	})
}

// The 202 comes before the caller has sent the file: nothing is decided before it is whole.
func TestA202ThatComesEarlyWaitsForTheFile(t *testing.T) {
	b := picture(1000)
	for what, sent := range map[string][]byte{"the file": b, "another one": append(bytes.Clone(b[:999]), b[999]+1)} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.server.uploads.Store = &busy{warehouse: h.store, has: func(put int) []byte {
				if put == 1 {
					return b
				}
				return nil
			}}
			stream := h.begin(h.alice(), spec(sent))
			for h.store.count("Put") == 0 {
				time.Sleep(time.Millisecond)
			}
			for _, m := range []*pb.UploadRequest{chunk(0, sent), {Finish: &pb.UploadFinish{}}} {
				if err := stream.Send(m); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := stream.CloseAndRecv(); err != nil {
				t.Fatal(err)
			}
			h.published(sent)
		})
	}
}
