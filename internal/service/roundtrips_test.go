package service

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// In these tests a request to LivePerson takes lpTrip, and one to the store storeTrip. Nothing else takes time, so the time of a call
// says how many requests followed each other.
const (
	lpTrip    = 80 * time.Millisecond
	storeTrip = 3 * time.Millisecond
)

func takes(d time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// slow makes requests take their time.
func (h *harness) slow() {
	for _, method := range []string{"UploadURL", "DownloadURL", "PublishFile"} {
		h.lp.on(method, takes(lpTrip))
	}
	for _, method := range []string{"Put", "Head"} {
		h.store.then(method, takes(storeTrip))
	}
	h.store.on("Get", takes(storeTrip))
}

// took checks how long a call took.
func took(t *testing.T, what string, want time.Duration, call func() error) {
	t.Helper()
	begun := time.Now()
	if err := call(); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	if d := time.Since(begun); d != want {
		t.Errorf("%s took %v, want %v", what, d, want)
	}
}

func TestUpload_RoundTrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.slow()
		b := picture(1000)
		took(t, "the URL, the PUT and the message", 2*lpTrip+storeTrip, func() error {
			_, err := h.upload(h.alice(), whole(spec(b), b, 1000)...)
			return err
		})
	})
}

// A closed conversation costs neither a URL nor a request to the store.
func TestUpload_RoundTripsOfARejectedOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.slow()
		begun := time.Now()
		_, err := h.upload(h.alice(), first(spec(picture(10), func(s *pb.UploadSpec) { s.Conversation = conversationName(account, "conv-closed") })))
		wantError(t, err, share.ConversationClosed)
		if n := h.lp.count("UploadURL") + h.store.count("Put") + h.ledger.count("Save"); n != 0 || time.Since(begun) != 0 {
			t.Errorf("%d requests in %v", n, time.Since(begun))
		}
	})
}

func TestDownload_RoundTrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		names := []string{h.addFile("/v1/AUTH_async/12345678/alice/a.JPG", b), h.addFile("/v1/AUTH_async/12345678/alice/b.JPG", b)}
		h.slow()
		get := func(name string) func() error {
			return func() error {
				_, _, _, err := h.download(h.alice(), byName(name))
				return err
			}
		}
		h.lp.on("FindFile", takes(lpTrip))
		h.lp.unread.Store(true)
		took(t, "the first of a dialog: its messages and the URL at the same time, and the GET", lpTrip+storeTrip, get(names[0]))
		h.lp.on("FindFile", nil)
		h.lp.unread.Store(false)
		took(t, "another file of the dialog: the URL and the GET", lpTrip+storeTrip, get(names[1]))
		took(t, "the same file again: the GET", storeTrip, get(names[1]))
		if n := h.lp.count("DownloadURL"); n != 2 {
			t.Errorf("%d URLs were requested, want 2", n)
		}
		time.Sleep(time.Minute)
		took(t, "when the URL has expired: the URL and the GET", lpTrip+storeTrip, get(names[1]))
	})
}

// A URL that was requested ahead is not used for a caller that may not read the file, and its request ends with the call.
func TestDownload_RequestAheadOfARejection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		name := h.addFile("/v1/AUTH_async/12345678/alice/a.JPG", b)
		h.lp.on("FindFile", func(context.Context) error { return share.Reject(share.FileNotFound, "no such file") })
		h.lp.on("DownloadURL", takes(time.Hour))
		h.lp.unread.Store(true)
		took(t, "the rejection", 0, func() error {
			_, _, _, err := h.download(h.alice(), byName(name))
			wantError(t, err, share.FileNotFound)
			return nil
		})
		if n := h.store.count("Get", "Head"); n != 0 {
			t.Errorf("the store got %d requests", n)
		}
	})
}
