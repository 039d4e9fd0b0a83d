package download

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// content is the object of the tests.
var content = []byte("0123456789abcdefghij")

// A fakeStore has one object. It is also the Session.
type fakeStore struct {
	etag share.ETag
	// urlErrors and getErrors are those of the next requests; nil: none.
	urlErrors, getErrors []error
	// lengths has, for each of the next bodies, the number of bytes after which it ends early. Later bodies are complete.
	lengths []int
	// gets and urls are the requests so far. open is the number of bodies that are not closed.
	gets []string
	urls int
	open int
}

func next(errs *[]error) error {
	if len(*errs) == 0 {
		return nil
	}
	err := (*errs)[0]
	*errs = (*errs)[1:]
	return err
}

func (s *fakeStore) Principal() share.Principal { return share.Principal{Account: "1", ID: "alice"} }

func (s *fakeStore) DownloadURL(context.Context, string) (share.TempURL, error) {
	s.urls++
	return share.TempURL{Sig: fmt.Sprint(s.urls)}, next(&s.urlErrors)
}

func (s *fakeStore) Get(_ context.Context, _ string, u share.TempURL, start, limit int64, ifMatch share.ETag) (*share.ObjectReader, error) {
	s.gets = append(s.gets, fmt.Sprintf("%s: %d+%d if %s", u.Sig, start, limit, ifMatch))
	if err := next(&s.getErrors); err != nil {
		return nil, err
	}
	if start < 0 {
		start += int64(len(content))
	}
	end := int64(len(content))
	if limit > 0 {
		end = min(end, start+limit)
	}
	b := content[start:end]
	if len(s.lengths) > 0 {
		b, s.lengths = b[:min(s.lengths[0], len(b))], s.lengths[1:]
	}
	s.open++
	return &share.ObjectReader{
		StoredObject: share.StoredObject{Size: int64(len(content)), ETag: s.etag}, Start: start, End: end,
		Body: &fakeBody{Reader: bytes.NewReader(b), store: s},
	}, nil
}

func (s *fakeStore) Head(context.Context, string, share.TempURL) (share.StoredObject, error) {
	return share.StoredObject{Size: int64(len(content)), ETag: s.etag}, next(&s.getErrors)
}

type fakeBody struct {
	io.Reader
	store *fakeStore
}

func (b *fakeBody) Close() error {
	b.store.open--
	return nil
}

func (s *fakeStore) object() Object {
	return Object{Session: s, Store: s, URLs: NewURLs(time.Now), Log: slog.New(slog.DiscardHandler), Account: "1", StoragePath: "/p"}
}

// read opens a part of the object and reads it in buffers of size bytes.
func (s *fakeStore) read(ctx context.Context, offset, limit int64, size int) ([]byte, error) {
	r, err := s.object().Open(ctx, offset, limit, "")
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var got []byte
	for !r.Done() {
		buf := make([]byte, min(int64(size), r.End-r.Offset()))
		if err := r.Read(ctx, buf); err != nil {
			return got, err
		}
		got = append(got, buf...)
	}
	return got, nil
}

func failure(kind share.Kind) error { return share.Errorf(kind, "failed", nil) }

func repeated(err error, n int) []error { return slices.Repeat([]error{err}, n) }

func TestReader_ResumesInTheSamePart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeStore{etag: "e", lengths: []int{3, 5, 0}}
		got, err := s.read(t.Context(), -16, 12, 4)
		if err != nil || string(got) != "456789abcdef" {
			t.Errorf("got %q, %v", got, err)
		}
		want := []string{"1: -16+12 if ", "2: 7+9 if e", "3: 12+4 if e", "4: 12+4 if e"} // each with a fresh URL
		if !slices.Equal(s.gets, want) {
			t.Errorf("the GETs were\n%q, want\n%q", s.gets, want)
		}
		if s.open != 0 {
			t.Errorf("%d bodies are open", s.open)
		}
	})
}

// Only failures in a row without a byte count: a slow store can end a long transfer more often.
func TestReader_ProgressResetsFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeStore{etag: "e", lengths: slices.Repeat([]int{1, 0, 0}, len(content)-1)}
		got, err := s.read(t.Context(), 0, 0, 7)
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("got %q, %v", got, err)
		}
		if len(s.gets) != 3*(len(content)-1)+1 {
			t.Errorf("%d GETs", len(s.gets))
		}
	})
}

func TestReader_GivesUp(t *testing.T) {
	for name, c := range map[string]struct {
		store *fakeStore
		kind  share.Kind
		gets  int
		sent  string // of StorageTruncated
	}{
		"no byte in a row":    {&fakeStore{etag: "e", lengths: slices.Repeat([]int{0}, 100)}, share.StorageTruncated, maxFruitless + 1, "0"},
		"in mid-buffer":       {&fakeStore{etag: "e", lengths: append([]int{6}, slices.Repeat([]int{0}, 100)...)}, share.StorageTruncated, maxFruitless + 1, "4"},
		"passing errors":      {&fakeStore{etag: "e", lengths: []int{6}, getErrors: append([]error{nil}, repeated(failure(share.StorageUnavailable), 100)...)}, share.StorageTruncated, maxFruitless + 1, "4"},
		"permanent error":     {&fakeStore{etag: "e", lengths: []int{6}, getErrors: []error{nil, failure(share.FileNotFound)}}, share.FileNotFound, 2, ""},
		"changed":             {&fakeStore{etag: "e", lengths: []int{6}, getErrors: []error{nil, failure(share.FileChanged)}}, share.FileChanged, 2, ""},
		"shorter than before": {&fakeStore{etag: "e", lengths: []int{6}, getErrors: []error{nil, failure(share.RangeNotSatisfiable)}}, share.FileChanged, 2, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got, err := c.store.read(t.Context(), 0, 0, 4)
				e, _ := errors.AsType[*share.Error](err)
				if !share.Is(err, c.kind) || e.Metadata["sentBytes"] != c.sent {
					t.Errorf("got %v %v, want %s after %q bytes", err, e.Metadata, c.kind, c.sent)
				}
				if len(c.store.gets) != c.gets || c.store.open != 0 {
					t.Errorf("%d GETs, want %d; %d bodies are open", len(c.store.gets), c.gets, c.store.open)
				}
				if !bytes.HasPrefix(content, got) {
					t.Errorf("got %q", got)
				}
			})
		})
	}
}

func TestReader_LimitsResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeStore{etag: "e", lengths: slices.Repeat([]int{1}, 1000)}
		r, err := s.object().Open(t.Context(), 0, 0, "")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		r.resumes = maxResumes - 3 // the object is too short for maxResumes
		err = r.Read(t.Context(), make([]byte, len(content)))
		if !share.Is(err, share.StorageTruncated) || len(s.gets) != 1+3 {
			t.Errorf("got %v after %d GETs", err, len(s.gets))
		}
	})
}

func TestReader_ReturnsTheCauseOfCancellation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeStore{lengths: slices.Repeat([]int{0}, 100)}
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := failure(share.ServerDraining)
		time.AfterFunc(firstPause/2, func() { cancel(cause) })
		if _, err := s.read(ctx, 0, 0, 4); !errors.Is(err, cause) {
			t.Errorf("got %v", err)
		}
		if s.open != 0 {
			t.Errorf("%d bodies are open", s.open)
		}
	})
}

// Stat and Open retry the same errors, as often and with the same pauses.
func TestObject_RetriesBeforeTheFirstByte(t *testing.T) {
	for name, c := range map[string]struct {
		urls, gets []error
		requests   int
		took       time.Duration
		want       share.Kind // empty: success
	}{
		"URL request times out":        {urls: repeated(failure(share.LPTimeout), maxFruitless-1), requests: maxFruitless, took: 1400 * time.Millisecond},
		"URL request keeps timing out": {urls: repeated(failure(share.LPTimeout), 100), requests: maxFruitless, took: 1400 * time.Millisecond, want: share.LPTimeout},
		"store unavailable":            {gets: repeated(failure(share.StorageUnavailable), maxFruitless-1), requests: maxFruitless, took: 1400 * time.Millisecond},
		"URL rejected twice":           {gets: repeated(failure(share.StorageURLRejected), maxRejections-1), requests: maxRejections, took: 600 * time.Millisecond},
		"every URL rejected":           {gets: repeated(failure(share.StorageURLRejected), 100), requests: maxRejections, took: 600 * time.Millisecond, want: share.StorageURLRejected},
		"just published":               {gets: repeated(failure(share.FileNotFound), 1), requests: 2, took: justPublished},
		"not found":                    {gets: repeated(failure(share.FileNotFound), 100), requests: 2, took: justPublished, want: share.FileNotFound},
		"access denied":                {gets: repeated(failure(share.StorageDenied), 100), requests: 1, want: share.StorageDenied},
		"token expired":                {urls: repeated(failure(share.LPIdentityExpired), 100), requests: 1, want: share.LPIdentityExpired},
	} {
		for method, do := range map[string]func(context.Context, Object) error{
			"Stat": func(ctx context.Context, o Object) error { _, err := o.Stat(ctx); return err },
			"Open": func(ctx context.Context, o Object) error {
				r, err := o.Open(ctx, 0, 0, "")
				if err == nil {
					r.Close()
				}
				return err
			},
		} {
			t.Run(name+", "+method, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := &fakeStore{urlErrors: slices.Clone(c.urls), getErrors: slices.Clone(c.gets)}
					begun := time.Now()
					err := do(t.Context(), s.object())
					if share.KindOf(err) != c.want || (err == nil) != (c.want == "") {
						t.Errorf("got %v, want %q", err, c.want)
					}
					if took := time.Since(begun); s.urls != c.requests || took != c.took {
						t.Errorf("%d requests in %s, want %d in %s", s.urls, took, c.requests, c.took)
					}
				})
			})
		}
	}
}
