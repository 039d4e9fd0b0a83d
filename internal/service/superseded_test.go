package service

import (
	"bytes"
	"context"
	"io"
	"testing"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A supersededStore has a newer object under some paths. It answers with 202, and does not read the body.
type supersededStore struct {
	*fakeStore
	has func(put int) []byte // the newer object at the n-th PUT; nil: none, and the PUT is stored
	n   int                  // PUTs so far
}

func (s *supersededStore) Put(ctx context.Context, account string, u share.TempURL, size int64, mediaType string, body io.ReadCloser) (share.StoredObject, error) {
	s.n++
	b := s.has(s.n)
	if b == nil {
		return s.fakeStore.Put(ctx, account, u, size, mediaType, body)
	}
	if err := s.enter(ctx, "Put"); err != nil {
		return share.StoredObject{}, err
	}
	if len(b) > 0 {
		s.keep(u.Path, b)
	}
	return share.StoredObject{Size: -1, Superseded: true}, body.Close()
}

func TestUpload_SupersededPutIsCompared(t *testing.T) {
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
		faults            func(h *harness)
		puts, urls, heads int
	}{
		"this file":                   {only(1, b), nil, 1, 1, 1},
		"this file, after a lost 201": {only(2, b), func(h *harness) { h.store.fail("Put", kindError(share.StorageUnavailable)) }, 2, 1, 1},
		"other bytes":                 {only(1, other), nil, 2, 2, 1},
		"another length":              {only(1, b[:999]), nil, 2, 2, 1},
		"deleted meanwhile":           {only(1, []byte{}), nil, 2, 2, 1},
		"HEAD fails":                  {func(put int) []byte { return b }, func(h *harness) { h.store.fail("Head", kindError(share.StorageUnavailable)) }, 2, 1, 2},
		"HEAD rejects the URL":        {only(1, b), func(h *harness) { h.store.fail("Head", kindError(share.StorageURLRejected)) }, 2, 2, 1},
	} {
		t.Run(what, inBubble(func(t *testing.T) {
			h := newHarness(t)
			h.server.uploads.Store = &supersededStore{fakeStore: h.store, has: c.has}
			if c.faults != nil {
				c.faults(h)
			}
			f := h.put(b).GetFile()
			h.wantPublished(b)
			if want := string(describe(b).ETag); f.GetEtag() != want {
				t.Errorf("the ETag is %q, want %q", f.GetEtag(), want)
			}
			if p, u, n := h.store.count("Put"), h.lp.count("UploadURL"), h.store.count("Head"); p != c.puts || u != c.urls || n != c.heads {
				t.Errorf("%d PUTs, %d URLs and %d HEADs, want %d, %d and %d", p, u, n, c.puts, c.urls, c.heads)
			}
		}))
	}
	t.Run("other bytes each time", inBubble(func(t *testing.T) {
		h := newHarness(t)
		h.server.uploads.Store = &supersededStore{fakeStore: h.store, has: func(int) []byte { return other }}
		_, err := h.upload(h.alice(), whole(spec(b), b, 100)...)
		wantError(t, err, share.StorageCorrupted)
		if len(h.lp.messages()) != 0 {
			t.Error("the file was published")
		}
	}))
}

// The 202 arrives before the client has sent the file: the objects are compared when the file is complete.
func TestUpload_EarlySupersededWaitsForTheFile(t *testing.T) {
	b := picture(1000)
	for what, sent := range map[string][]byte{"the file": b, "another one": append(bytes.Clone(b[:999]), b[999]+1)} {
		t.Run(what, inBubble(func(t *testing.T) {
			h := newHarness(t)
			h.server.uploads.Store = &supersededStore{fakeStore: h.store, has: func(put int) []byte {
				if put == 1 {
					return b
				}
				return nil
			}}
			stream := h.begin(h.alice(), spec(sent))
			h.eventually("the PUT has begun", func() bool { return h.store.count("Put") > 0 })
			for _, m := range []*pb.UploadRequest{chunk(0, sent), {Finish: &pb.UploadFinish{}}} {
				if err := stream.Send(m); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := stream.CloseAndRecv(); err != nil {
				t.Fatal(err)
			}
			h.wantPublished(sent)
		}))
	}
}
