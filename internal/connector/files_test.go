package connector

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/lpfileshare/lpfileshare/internal/filecache"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/test/lpfake"
)

// countedLog counts what is read from an event log.
type countedLog struct {
	EventLog
	events, scans atomic.Int64
}

func (l *countedLog) Each(ctx context.Context, account, conversation string, after, upTo uint64, f func(share.LoggedEvent) error) error {
	l.scans.Add(1)
	return l.EventLog.Each(ctx, account, conversation, after, upTo, func(e share.LoggedEvent) error {
		l.events.Add(1)
		return f(e)
	})
}

func (l *countedLog) Event(ctx context.Context, account, conversation, dialog string, sequence int64) (share.LoggedEvent, bool, error) {
	l.events.Add(1)
	return l.EventLog.Event(ctx, account, conversation, dialog, sequence)
}

func (l *countedLog) FindFile(ctx context.Context, account, conversation, dialog, path string) (share.LoggedEvent, bool, error) {
	l.events.Add(1)
	return l.EventLog.FindFile(ctx, account, conversation, dialog, path)
}

// TestListFiles_CostsTheSame measures events that are read from the log, not time: a page and a download cost the same in a
// conversation of 10 and 1,000 files.
func TestListFiles_CostsTheSame(t *testing.T) {
	const page = 10
	for _, n := range []int{10, 1000} {
		t.Run(fmt.Sprint(n, " files"), func(t *testing.T) {
			cache := filecache.New(64 << 20)
			log := &countedLog{}
			h := newWebhookEnv(t, func(c *Config) {
				log.EventLog, c.Log, c.Cache = c.Log, log, cache
			})
			s := h.anna()
			add := func(i int) {
				e := share.FileEvent{Conversation: "c", Dialog: "c", Sequence: int64(i), SenderID: "lp-anna", SenderRole: share.RoleConsumer, File: share.HostedFile{
					StoragePath: pathOf(i), FileType: "PNG", Preview: fmt.Sprintf("data:%08d%s", i, strings.Repeat("A", 1000)),
				}}
				if _, err := log.AddEvent(t.Context(), lpfake.Account, share.LoggedEvent{Conversation: "c", Dialog: "c", Sequence: e.Sequence, File: &e}); err != nil {
					t.Fatal(err)
				}
			}
			for i := range n {
				add(i)
			}
			list, err := s.ListFiles(t.Context(), "c", nil)
			if err != nil || len(list.Dialogs) != 1 || len(list.Dialogs[0].Files) != n {
				t.Fatal(len(list.Dialogs), err)
			}
			if used, limit := cache.Used(), int64(n)*512+4096; used > limit {
				t.Errorf("%d files are kept in %d bytes, want at most %d", n, used, limit)
			}
			cost := func(what string, want int64, do func()) {
				t.Helper()
				before := log.events.Load()
				do()
				if got := log.events.Load() - before; got != want {
					t.Errorf("%s read %d events, want %d", what, got, want)
				}
			}
			cost("a page", page, func() {
				again, err := s.ListFiles(t.Context(), "c", list.Cursor)
				if err != nil || len(again.Dialogs[0].Files) != n {
					t.Fatal(err)
				}
				files := append([]share.FileEvent(nil), again.Dialogs[0].Files[n-page:]...)
				if _, err := s.Complete(t.Context(), files); err != nil {
					t.Fatal(err)
				}
				for _, e := range files {
					if !strings.HasPrefix(e.File.Preview, fmt.Sprintf("data:%08d", e.Sequence)) || e.Omitted != 0 {
						t.Fatalf("file %d has the preview %.20s", e.Sequence, e.File.Preview)
					}
				}
			})
			cost("a download", 1, func() {
				if e, err := s.FindFile(t.Context(), "c", "", pathOf(n-1)); err != nil || e.Sequence != int64(n-1) {
					t.Fatal(e, err)
				}
			})
			add(n)
			cost("a list after one more file", 1, func() {
				again, err := s.ListFiles(t.Context(), "c", nil)
				if err != nil || len(again.Dialogs[0].Files) != n+1 {
					t.Fatal(err)
				}
			})
			// A file that arrives late is listed in its place.
			add(n + 2)
			if _, err := s.ListFiles(t.Context(), "c", nil); err != nil {
				t.Fatal(err)
			}
			add(n + 1)
			again, err := s.ListFiles(t.Context(), "c", nil)
			if err != nil || len(again.Dialogs[0].Files) != n+3 {
				t.Fatal(err)
			}
			for i, e := range again.Dialogs[0].Files {
				if e.Sequence != int64(i) {
					t.Fatalf("file %d is in place %d", e.Sequence, i)
				}
			}
		})
	}
}

func pathOf(i int) string { return fmt.Sprintf("/v1/AUTH_async-images/%s/%08d.PNG", lpfake.Account, i) }

func TestListFiles_LeavesOutLargeConversations(t *testing.T) {
	h := newWebhookEnv(t, func(c *Config) { c.Cache = filecache.New(64 << 10) })
	h.deliver(conversationUpdate("d", "OPEN", 2000))
	s := h.anna()
	for i := range 60 {
		e := share.FileEvent{Conversation: "c", Dialog: "c", Sequence: int64(i), File: share.HostedFile{StoragePath: pathOf(i), FileType: "PNG"}}
		if _, err := h.log.AddEvent(t.Context(), lpfake.Account, share.LoggedEvent{Conversation: "c", Dialog: "c", Sequence: e.Sequence, File: &e}); err != nil {
			t.Fatal(err)
		}
	}
	e := share.FileEvent{Conversation: "d", Dialog: "d", File: share.HostedFile{StoragePath: pathOf(99), FileType: "PNG"}}
	if _, err := h.log.AddEvent(t.Context(), lpfake.Account, share.LoggedEvent{Conversation: "d", Dialog: "d", File: &e}); err != nil {
		t.Fatal(err)
	}
	list, err := s.ListFiles(t.Context(), "", nil)
	if err != nil || len(list.Dialogs) != 1 || list.Dialogs[0].Conversation != "d" {
		t.Fatalf("%+v %v", list, err)
	}
	if len(list.Unreadable) != 1 || list.Unreadable[0].Conversation != "c" || list.Unreadable[0].Err.Kind != share.ConversationTooLarge {
		t.Errorf("unreadable: %+v", list.Unreadable)
	}
	if _, err := s.ListFiles(t.Context(), "c", nil); !share.Is(err, share.ConversationTooLarge) {
		t.Errorf("the list of the large one: %v", err)
	}
}
