package connector

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// nextSeq returns the sequence of the next file; -1 if none arrives in time.
func nextSeq(t *testing.T, w *Watch, within time.Duration) (int, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	e, err := w.Next(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return -1, nil
	}
	return int(e.Sequence), err
}

func wantFiles(t *testing.T, w *Watch, want ...int) {
	t.Helper()
	for _, seq := range want {
		if got, err := nextSeq(t, w, time.Minute); err != nil || got != seq {
			t.Fatalf("file %d (%v), want %d of %v", got, err, seq, want)
		}
	}
	if got, err := nextSeq(t, w, 50*time.Millisecond); err != nil || got != -1 {
		t.Fatalf("file %d (%v) after %v", got, err, want)
	}
}

func watchAll(t *testing.T, s *Session, conversation string, after share.Cursor) *Watch {
	t.Helper()
	w, err := s.WatchFiles(t.Context(), conversation, after)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

func TestWatch_Order(t *testing.T) {
	h := newWebhookEnv(t, func(c *Config) { c.GapWait = time.Minute })
	s := h.anna()
	const n = 100
	watches := []*Watch{watchAll(t, s, "c", nil), watchAll(t, s, "", nil)}
	work := rand.Perm(2 * n)
	var wg sync.WaitGroup
	defer wg.Wait()
	for lane := range 16 {
		wg.Go(func() {
			for i := lane; i < len(work); i += 16 {
				seq := work[i] / 2
				news := fileEvent(seq)
				if seq%3 == 0 {
					news = textEvent(seq)
				}
				h.deliver(news)
			}
		})
	}
	var want []int
	for seq := range n {
		if seq%3 != 0 {
			want = append(want, seq)
		}
	}
	wantFiles(t, watches[0], want...)
	wg.Wait()
	wantFiles(t, watches[1], want...)
	// From any cursor on, a new watch returns the rest.
	for _, at := range []int{0, 1, 57, n - 1} {
		i := slices.IndexFunc(want, func(seq int) bool { return seq > at })
		rest := []int{}
		if i >= 0 {
			rest = want[i:]
		}
		cursor := watches[0].Cursor()
		cursor["c"] = int64(at)
		wantFiles(t, watchAll(t, s, "c", cursor), rest...)
	}
	files, after, err := listFiles(t, s, "c")
	if err != nil || len(files) != len(want) || after["c"] != n-1 {
		t.Errorf("%d files up to %d, %v", len(files), after["c"], err)
	}
	wantFiles(t, watchAll(t, s, "c", after))
}

func TestWatch_Gap(t *testing.T) {
	h := newWebhookEnv(t, func(c *Config) { c.GapWait = 400 * time.Millisecond })
	s := h.anna()
	w := watchAll(t, s, "c", nil)
	h.deliver(fileEvent(0))
	h.deliver(fileEvent(2))
	h.deliver(textEvent(1))
	wantFiles(t, w, 0, 2)
	before := w.Cursor()

	begun := time.Now()
	h.deliver(fileEvent(4))
	h.deliver(fileEvent(5))
	wantFiles(t, w, 4, 5)
	if took := time.Since(begun); took < 400*time.Millisecond {
		t.Errorf("the watch waited for %s although an earlier event is missing", took)
	}
	passed := w.Cursor()
	h.deliver(textEvent(3)) // late, but not a file
	wantFiles(t, w)
	wantFiles(t, watchAll(t, s, "c", before), 4, 5)

	// A late file cannot be returned in order, and must not be lost.
	h.deliver(fileEvent(7))
	wantFiles(t, w, 7)
	late := w.Cursor()
	h.deliver(fileEvent(6))
	if _, err := nextSeq(t, w, time.Minute); !errors.Is(err, share.ErrWatchReset) {
		t.Errorf("after a late file: %v", err)
	}
	if n := h.m.Counts().Late; n != 1 {
		t.Errorf("%d late files were counted", n)
	}
	if _, err := s.WatchFiles(t.Context(), "c", late); !errors.Is(err, share.ErrWatchReset) {
		t.Errorf("a watch from a cursor after a late file: %v", err)
	}
	wantFiles(t, watchAll(t, s, "c", passed), 6, 7) // their sequences are after this cursor
	files, after, err := listFiles(t, s, "c")
	if err != nil || len(files) != 6 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	again := watchAll(t, s, "c", after)
	h.deliver(fileEvent(8))
	wantFiles(t, again, 8)
}

func TestWatch_Cursor(t *testing.T) {
	h := newWebhookEnv(t)
	s := h.anna()
	h.deliver(fileEvent(0))
	_, after, err := listFiles(t, s, "c")
	if err != nil {
		t.Fatal(err)
	}
	for name, cursor := range map[string]share.Cursor{
		"of another messenger": {"c": 0},
		"of a log with more":   {"c": 0, share.LogPosition: after[share.LogPosition] + 1},
		"of an impossible log": {"c": 0, share.LogPosition: -1},
	} {
		if _, err := s.WatchFiles(t.Context(), "c", cursor); !errors.Is(err, share.ErrWatchReset) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.WatchFiles(t.Context(), "d", nil); !share.Is(err, share.ConversationNotFound) {
		t.Errorf("an unknown conversation: %v", err)
	}
	// Another dialog of the conversation, which only its events name.
	w := watchAll(t, s, "", after)
	news := fileEvent(0)
	change := news["body"].(object)["changes"].([]any)[0].(object)
	change["dialogId"] = "survey"
	h.deliver(news)
	wantFiles(t, w, 0)
	if c, err := s.Conversation(t.Context(), "c"); err != nil || len(c.Dialogs) != 2 {
		t.Errorf("the dialog is not known: %+v %v", c, err)
	}
	change["messageAudience"] = "AGENTS_AND_MANAGERS"
	change["sequence"] = 1
	h.deliver(news)
	wantFiles(t, w)
	// A conversation that is reported after its events.
	late := fileEvent(0)
	change = late["body"].(object)["changes"].([]any)[0].(object)
	change["conversationId"], change["dialogId"] = "e", "e"
	h.deliver(late)
	h.deliver(conversationUpdate("e", "OPEN", 1))
	wantFiles(t, w, 0)
}

// listFiles lists the files of a conversation ("": of all), complete and in one list.
func listFiles(t *testing.T, s *Session, conversation string) ([]share.FileEvent, share.Cursor, error) {
	list, err := s.ListFiles(t.Context(), conversation, nil)
	if err != nil {
		return nil, nil, err
	}
	var files []share.FileEvent
	for _, d := range list.Dialogs {
		files = append(files, d.Files...)
	}
	_, err = s.Complete(t.Context(), files)
	return files, list.Cursor, err
}
