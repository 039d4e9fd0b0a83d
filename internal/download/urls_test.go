package download

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A signer signs URLs for a caller that live a minute. They are numbered.
type signer struct {
	who   share.Principal
	delay time.Duration
	life  time.Duration // of a URL; 0: a minute
	fails error

	mu   sync.Mutex
	urls int
}

func (s *signer) Principal() share.Principal { return s.who }

func (s *signer) DownloadURL(ctx context.Context, path string) (share.TempURL, error) {
	select {
	case <-time.After(s.delay):
	case <-ctx.Done():
		return share.TempURL{}, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.urls++
	return share.TempURL{Path: path, Sig: fmt.Sprint(s.urls), ExpireTime: time.Now().Add(cmp.Or(s.life, time.Minute))}, s.fails
}

func (s *signer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.urls
}

var alice = share.Principal{Account: "1", ID: "alice", Role: share.RoleConsumer}

// used returns the signatures of the URLs with which the store was asked.
func (s *fakeStore) used() string {
	var sigs []string
	for _, g := range s.gets {
		sigs = append(sigs, strings.SplitN(g, ":", 2)[0])
	}
	return strings.Join(sigs, " ")
}

func TestURLs_AreUsedAgain(t *testing.T) {
	for what, c := range map[string]struct {
		path  string
		who   share.Principal
		later time.Duration
		fails error // of the store, when it gets the first URL again
		want  string
	}{
		"at once":                         {want: "1 1"},
		"before the margin":               {later: time.Minute - minURLLife, want: "1 1"},
		"within the margin":               {later: time.Minute - minURLLife + 1, want: "1 2"},
		"by another consumer":             {who: share.Principal{Account: "1", ID: "bob", Role: share.RoleConsumer}, want: "1 1"},
		"by another service":              {who: share.Principal{Account: "1", ID: "alice", Role: share.RoleConsumer, Caller: "cn:orders"}, want: "1 1"},
		"another file":                    {path: "/other", want: "1 2"},
		"rejected by the store":           {fails: share.Reject(share.StorageURLRejected, "401"), want: "1 1 2"},
		"the store does not have it":      {fails: share.Reject(share.FileNotFound, "404"), want: "1 1 2"},
		"the store fails for the moment":  {fails: share.Reject(share.StorageUnavailable, "503"), want: "1 1 2"},
		"the file is another one by then": {fails: share.Reject(share.FileChanged, "412"), want: "1 1"},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, first, urls := &fakeStore{etag: "e"}, &signer{who: alice}, NewURLs(time.Now)
				o := Object{Session: first, Store: store, URLs: urls, Log: slog.New(slog.DiscardHandler), Account: "1", StoragePath: "/p"}
				if _, err := o.Open(t.Context(), 0, 0, ""); err != nil {
					t.Fatal(err)
				}
				if c.path != "" {
					o.StoragePath = c.path
				}
				own := first
				if c.who.ID != "" { // its URLs are numbered from 1 as well
					own = &signer{who: c.who}
					o.Session = own
				}
				time.Sleep(c.later)
				if c.fails != nil {
					store.getErrors = []error{c.fails}
				}
				_, err := o.Open(t.Context(), 0, 0, "")
				if want := share.Is(c.fails, share.FileChanged); (err != nil) != want {
					t.Error(err)
				}
				if got := store.used(); got != c.want {
					t.Errorf("the store was asked with the URLs %s, want %s", got, c.want)
				}
				if own != first && own.count() != 1 {
					t.Errorf("the other caller requested %d URLs, want 1", own.count())
				}
			})
		})
	}
}

// Readers of the same file at the same time share one request. If its caller ends, another one takes its place.
func TestURLs_ConcurrentReadersShareARequest(t *testing.T) {
	for _, ends := range []bool{false, true} {
		t.Run(fmt.Sprint("its caller ends: ", ends), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, urls := &signer{who: alice, delay: time.Second}, NewURLs(time.Now)
				o := Object{Session: s, URLs: urls, Log: slog.New(slog.DiscardHandler), StoragePath: "/p"}
				ctx, cancel := context.WithCancel(t.Context())
				stop := o.RequestAhead(ctx, func(f func()) { go f() })
				synctest.Wait()
				var readers sync.WaitGroup
				for range 5 {
					readers.Go(func() {
						if _, err := urls.get(t.Context(), o, false); err != nil {
							t.Error(err)
						}
					})
				}
				synctest.Wait()
				if ends {
					cancel()
				}
				readers.Wait()
				stop()
				cancel()
				if n := s.count(); n != 1 {
					t.Errorf("%d URLs were requested, want 1", n)
				}
			})
		})
	}
}

// Readers of the same file do not wait for each other's requests one after the other, if LivePerson does not answer.
func TestURLs_FailuresAreNotSerial(t *testing.T) {
	longest := func(readers int) (longest time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			s := &signer{who: alice, delay: 10 * time.Second, fails: share.Reject(share.LPTimeout, "no answer")}
			o := Object{Session: s, Store: &fakeStore{etag: "e"}, URLs: NewURLs(time.Now), Log: slog.New(slog.DiscardHandler), StoragePath: "/p"}
			begin := time.Now()
			var all sync.WaitGroup
			for range readers {
				all.Go(func() {
					if _, err := o.Open(t.Context(), 0, 0, ""); !share.Is(err, share.LPTimeout) {
						t.Errorf("%v, want LP_TIMEOUT", err)
					}
				})
			}
			all.Wait()
			longest = time.Since(begin)
		})
		return longest
	}
	if one, many := longest(1), longest(50); many > 2*one+10*time.Second { // each of its attempts may first wait for another's
		t.Errorf("50 readers waited up to %s, one %s", many, one)
	}
}

func TestURLs_AreNotOlderThanAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, urls := &signer{who: alice, life: 24 * time.Hour}, NewURLs(time.Now)
		o := Object{Session: s, URLs: urls, StoragePath: "/p"}
		for range 4 {
			if _, err := urls.get(t.Context(), o, false); err != nil {
				t.Fatal(err)
			}
			time.Sleep(maxURLAge / 2)
		}
		if n := s.count(); n != 2 {
			t.Errorf("%d URLs were requested in 1.5 minutes, want 2", n)
		}
	})
}

func TestURLs_FailuresAndLimit(t *testing.T) {
	s, urls := &signer{who: alice, fails: errors.New("no")}, NewURLs(time.Now)
	for i := range 3 {
		if _, err := urls.get(t.Context(), Object{Session: s, StoragePath: "/p"}, false); err == nil || s.count() != i+1 {
			t.Fatalf("request %d: %v after %d requests", i, err, s.count())
		}
	}
	if n := urls.entries.Len(); n != 0 {
		t.Errorf("%d failures are kept", n)
	}
	s.fails = nil
	for i := range maxURLs + 10 {
		_, _ = urls.get(t.Context(), Object{Session: s, StoragePath: fmt.Sprint("/", i)}, false)
	}
	if n := urls.entries.Len(); n != maxURLs {
		t.Errorf("%d URLs are kept, want %d", n, maxURLs)
	}
}
