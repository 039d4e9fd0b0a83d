package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

const acct = "12345678"

func events(t testing.TB, l *KV, change ...func(*EventsConfig)) *Events {
	t.Helper()
	c := EventsConfig{TTL: time.Hour, MaxBytes: 64 << 20}
	for _, f := range change {
		f(&c)
	}
	e := l.Events(c)
	t.Cleanup(e.Close)
	return e
}

// lastPosition returns the position of the last event of a log. Positions of a new log begin above those of any earlier one.
func lastPosition(t testing.TB, e *Events) uint64 {
	t.Helper()
	_, last, err := e.Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return last
}

func fileAt(conversation string, seq int64, path string) share.LoggedEvent {
	f := &share.FileEvent{Conversation: conversation, Dialog: conversation, Sequence: seq, SenderID: "x", File: share.HostedFile{StoragePath: path, FileType: "JPG"}}
	return share.LoggedEvent{Conversation: conversation, Dialog: conversation, Sequence: seq, File: f}
}

// everywhere runs a test on each kind of ledger. l and other are the event logs of two servers, or the same if there is one.
func everywhere(t *testing.T, test func(t *testing.T, l, other *Events)) {
	t.Run("files", func(t *testing.T) {
		e := events(t, open(t, config(t, t.TempDir())))
		test(t, e, e)
	})
	t.Run("cluster", func(t *testing.T) {
		var urls []string
		for _, p := range newCluster(t) {
			urls = append(urls, p.url())
		}
		l, other := events(t, open(t, config(t, "", urls...))), events(t, open(t, config(t, "", urls...)))
		// Three servers in one process may need longer to create streams than the timeout of a call.
		for limit := time.Now().Add(2 * time.Minute); ; {
			err := errors.Join(l.Open(t.Context()), other.Open(t.Context()))
			if err == nil {
				break
			}
			if time.Now().After(limit) {
				t.Fatal(err)
			}
		}
		test(t, l, other)
	})
}

func TestEvents_AddEventOnce(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, l, other *Events) {
		const n, times = 30, 4
		var work []int64
		for seq := range int64(n) {
			for range times {
				work = append(work, seq)
			}
		}
		rand.Shuffle(len(work), func(i, j int) { work[i], work[j] = work[j], work[i] })
		var mu sync.Mutex
		added := map[int64]int{}
		var wg sync.WaitGroup
		for lane := range 8 {
			wg.Go(func() {
				e := l
				if lane%2 == 1 {
					e = other
				}
				for i := lane; i < len(work); i += 8 {
					seq := work[i]
					// A repeated event has another path here, which must not make it another event.
					ok, err := e.AddEvent(t.Context(), acct, fileAt("c.1", seq, fmt.Sprintf("/v1/AUTH_x/%s/%d-%d", acct, seq, i)))
					if err != nil {
						t.Error(err)
					}
					if ok {
						mu.Lock()
						added[seq]++
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		_, last, err := other.Bounds(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got, err := readEvents(t, other, acct, "c.1", 0, last)
		if err != nil || len(got) != n {
			t.Fatalf("%d events, %v; want %d", len(got), err, n)
		}
		seen := map[int64]bool{}
		for i, ev := range got {
			if seen[ev.Sequence] || i > 0 && ev.Position <= got[i-1].Position || ev.Added.IsZero() {
				t.Errorf("event %+v after %+v", ev, got[max(i-1, 0)])
			}
			seen[ev.Sequence] = true
			found, ok, err := l.FindFile(t.Context(), acct, "c.1", "", ev.File.File.StoragePath)
			if err != nil || !ok || found.Sequence != ev.Sequence {
				t.Errorf("%s: %+v %v %v", ev.File.File.StoragePath, found, ok, err)
			}
			if added[ev.Sequence] > 1 {
				t.Errorf("event %d was added %d times", ev.Sequence, added[ev.Sequence])
			}
		}
		for _, foreign := range []struct{ account, conversation, dialog string }{{acct, "c", ""}, {acct, "c.2", ""}, {"1234567", "c.1", ""}, {acct, "c.1", "d"}} {
			if found, ok, err := l.FindFile(t.Context(), foreign.account, foreign.conversation, foreign.dialog, got[0].File.File.StoragePath); ok || err != nil {
				t.Errorf("%+v: %+v %v", foreign, found, err)
			}
		}
	})
}

// TestEvents_AddEventTooLong stores events without their long texts. LivePerson would repeat the delivery of an event that cannot be
// stored, and the events after it in the same delivery would not be reported.
func TestEvents_AddEventTooLong(t *testing.T) {
	t.Parallel()
	e := events(t, open(t, config(t, "")))
	for name, lengthen := range map[string]func(*share.HostedFile){
		"preview": func(f *share.HostedFile) { f.Preview = strings.Repeat("A", maxValue) },
		"caption": func(f *share.HostedFile) { f.Caption = strings.Repeat("<", maxValue/6) },
	} {
		ev := fileAt(name, 0, "/v1/AUTH_x/"+acct+"/"+name)
		ev.File.File.Caption, ev.File.File.Preview = "short", "data:"
		lengthen(&ev.File.File)
		input := ev.File.File
		if added, err := e.AddEvent(t.Context(), acct, ev); err != nil || !added {
			t.Fatalf("%s: added %t, %v", name, added, err)
		}
		got, found, err := e.FindFile(t.Context(), acct, name, name, input.StoragePath)
		if err != nil || !found {
			t.Fatalf("%s: found %t, %v", name, found, err)
		}
		want := input
		want.Preview = ""
		if name == "caption" {
			want.Caption = ""
		}
		if got.File.File != want {
			t.Errorf("%s: stored as %+.200v", name, got.File.File)
		}
		if ev.File.File != input {
			t.Errorf("%s: the caller's event was changed", name)
		}
	}
}

func TestEvents_ChangeConversation(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, l, other *Events) {
		newer := func(updated int64, open bool) func(share.LoggedConversation, bool) (share.LoggedConversation, bool) {
			return func(c share.LoggedConversation, known bool) (share.LoggedConversation, bool) {
				if known && updated < c.Updated {
					return c, false
				}
				return share.LoggedConversation{Conversation: share.Conversation{ID: "c1", Open: open}, Updated: updated}, true
			}
		}
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				e := l
				if i%2 == 0 {
					e = other
				}
				if err := e.ChangeConversation(t.Context(), acct, "alice", "c1", newer(int64(1+i), i == 19)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		c, ok, err := other.Conversation(t.Context(), acct, "alice", "c1")
		if err != nil || !ok || c.Updated != 20 || !c.Open {
			t.Errorf("%+v %v %v", c, ok, err)
		}
		all, err := l.Conversations(t.Context(), acct, "alice")
		if err != nil || len(all) != 1 || all[0].Updated != 20 {
			t.Errorf("%+v %v", all, err)
		}
		for _, consumer := range []string{"bob", "ali", "alice.x", ">", "*"} {
			if _, ok, err := l.Conversation(t.Context(), acct, consumer, "c1"); ok || err != nil {
				t.Errorf("%s reads alice's conversation; %v", consumer, err)
			}
			if all, err := l.Conversations(t.Context(), acct, consumer); len(all) > 0 || err != nil {
				t.Errorf("%s reads %+v; %v", consumer, all, err)
			}
		}
	})
}

func TestEvents_Follow(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, l, other *Events) {
		if _, err := l.AddEvent(t.Context(), acct, fileAt("c", 0, "/before")); err != nil {
			t.Fatal(err)
		}
		added, changed := make(chan uint64, 200), make(chan string, 200)
		from, err := other.Follow(t.Context(),
			func(account, conversation string, position uint64) {
				if account == acct && conversation == "c" {
					added <- position
				}
			},
			func(account, consumer string) { changed <- account + " " + consumer })
		if err != nil {
			t.Fatal(err)
		}
		for seq := range int64(20) {
			if _, err := l.AddEvent(t.Context(), acct, fileAt("c", 1+seq, fmt.Sprint("/", seq))); err != nil {
				t.Fatal(err)
			}
		}
		for range 20 {
			select {
			case position := <-added:
				if position <= from {
					t.Fatalf("position %d after %d", position, from)
				}
				from = position
			case <-time.After(time.Minute):
				t.Fatal("not all events were reported")
			}
		}
		err = l.ChangeConversation(t.Context(), acct, "alice", "c", func(c share.LoggedConversation, _ bool) (share.LoggedConversation, bool) {
			c.ID = "c"
			return c, true
		})
		if err != nil {
			t.Fatal(err)
		}
		select {
		case s := <-changed:
			if s != acct+" alice" {
				t.Errorf("reported %q", s)
			}
		case <-time.After(time.Minute):
			t.Error("the conversation was not reported")
		}
	})
}

func TestEvents_RestartAndBounds(t *testing.T) {
	t.Parallel()
	c := config(t, t.TempDir())
	l := open(t, c)
	e := events(t, l, func(c *EventsConfig) { c.MaxBytes = 400 << 10 })
	base := lastPosition(t, e)
	big := string(make([]byte, 1000))
	for seq := range int64(300) {
		ev := fileAt("c", seq, fmt.Sprint("/", seq))
		ev.File.File.Caption = big                                                 // each zero is encoded as six characters
		ev.File.SenderID, ev.File.SenderRole = fmt.Sprint(seq), share.RoleConsumer // nobody exceeds its share
		if _, err := e.AddEvent(t.Context(), acct, ev); err != nil {
			t.Fatal(err)
		}
	}
	err := e.ChangeConversation(t.Context(), acct, "alice", "c", func(c share.LoggedConversation, _ bool) (share.LoggedConversation, bool) {
		c.ID = "c"
		return c, true
	})
	if err != nil {
		t.Fatal(err)
	}
	e.Close()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	e = events(t, open(t, c), func(c *EventsConfig) { c.MaxBytes = 400 << 10 })
	first, last, err := e.Bounds(t.Context())
	if err != nil || last != base+300 || first < base+200 {
		t.Errorf("positions %d to %d after %d, %v", first, last, base, err)
	}
	got, err := readEvents(t, e, acct, "c", 0, last)
	if err != nil || len(got) == 0 || got[len(got)-1].Sequence != 299 || int(last-first)+1 != len(got) {
		t.Errorf("%d events, %v", len(got), err)
	}
	if _, ok, err := e.Conversation(t.Context(), acct, "alice", "c"); !ok || err != nil {
		t.Errorf("the conversation was dropped in favour of events; %v", err)
	}
}

func TestEvents_UnusedCreatesNothing(t *testing.T) {
	t.Parallel()
	l := open(t, config(t, ""))
	events(t, l)
	e := l.Events(EventsConfig{TTL: time.Hour, MaxBytes: 1 << 20})
	js, err := jetstream.New(l.conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Stream(t.Context(), eventStream); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("the stream of events: %v", err)
	}
	if err := e.Open(t.Context()); err != nil {
		t.Error(err)
	}
	e.Close()
	if _, err := e.AddEvent(t.Context(), acct, fileAt("c", 0, "/x")); !share.Is(err, share.LedgerUnavailable) {
		t.Errorf("after Close: %v", err)
	}
}

// TestEvents_Permissions uses the log with only the permissions that docs/ledger.md lists.
func TestEvents_Permissions(t *testing.T) {
	t.Parallel()
	allow := []string{"$KV.lpfileshare.>", "lpfileshare.events.>", "lpfileshare.conversations.>"}
	for _, stream := range []string{"KV_lpfileshare", eventStream, conversationStream} {
		for _, call := range []string{"STREAM.INFO.", "STREAM.CREATE.", "STREAM.UPDATE.", "STREAM.MSG.GET.", "STREAM.MSG.DELETE."} {
			allow = append(allow, "$JS.API."+call+stream)
		}
	}
	for _, stream := range []string{eventStream, conversationStream} {
		for _, call := range []string{"CREATE.", "INFO.", "DELETE.", "MSG.NEXT."} {
			allow = append(allow, "$JS.API.CONSUMER."+call+stream+".>")
		}
	}
	p := newPeer(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: allow}, Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
		}}}
	})
	c := config(t, "", p.url())
	c.User, c.Password = "u", func() (string, error) { return "p", nil }
	e := events(t, open(t, c))
	reported := make(chan uint64, 100) // the callback of Follow must not block
	if _, err := e.Follow(t.Context(), func(_, _ string, position uint64) { reported <- position }, func(_, _ string) {}); err != nil {
		t.Fatal(err)
	}
	if added, err := e.AddEvent(t.Context(), acct, fileAt("c", 0, "/x")); !added || err != nil {
		t.Fatal(added, err)
	}
	if added, err := e.AddEvent(t.Context(), acct, fileAt("c", 0, "/x")); added || err != nil {
		t.Fatal(added, err)
	}
	select {
	case <-reported:
	case <-time.After(time.Minute):
		t.Error("the event was not reported")
	}
	err := e.ChangeConversation(t.Context(), acct, "alice", "c", func(c share.LoggedConversation, _ bool) (share.LoggedConversation, bool) {
		c.ID = "c"
		return c, true
	})
	if err != nil {
		t.Error(err)
	}
	if all, err := e.Conversations(t.Context(), acct, "alice"); err != nil || len(all) != 1 {
		t.Errorf("%v %v", all, err)
	}
	for seq := range int64(2 * singles) {
		if _, err := e.AddEvent(t.Context(), acct, fileAt("c", 1+seq, fmt.Sprint("/", seq))); err != nil {
			t.Fatal(err)
		}
	}
	stream, _, err := e.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first, last, err := e.Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := e.batch(t.Context(), stream, conversationSubjects(acct, "c"), first, last); err != nil || len(got) != 2*singles {
		t.Errorf("a batch of %d events, %v", len(got), err)
	}
}

// TestEvents_Read reads conversations of few and of many events, whole and in part, that lie between those of another one.
func TestEvents_Read(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, l, other *Events) {
		const n = 32 + 3*singles
		other.batchSize = 32
		base := lastPosition(t, l)
		for seq := range int64(n) {
			for _, conversation := range []string{"long", fmt.Sprint("short", seq%20)} {
				if _, err := l.AddEvent(t.Context(), acct, fileAt(conversation, seq, fmt.Sprint("/", seq))); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, c := range []struct {
			conversation string
			after, upTo  uint64
			first, last  int64
			step         int64
		}{
			{"long", 0, 2 * n, 0, n - 1, 1},
			{"long", 0, 2*n - 2, 0, n - 2, 1}, // the last event is at 2n - 1
			{"long", 21, 2 * n, 11, n - 1, 1},
			{"long", 20, 60, 10, 29, 1},
			{"long", 2*n - 2, 2 * n, n - 1, n - 1, 1},
			{"long", 2 * n, 2 * n, 0, -1, 1},
			{"short7", 0, 2 * n, 7, 47, 20},
			{"none", 0, 2 * n, 0, -1, 1},
		} {
			c.after, c.upTo = base+c.after, base+c.upTo
			got, err := readEvents(t, other, acct, c.conversation, c.after, c.upTo)
			if err != nil {
				t.Fatal(err)
			}
			var want []int64
			for seq := c.first; seq <= c.last; seq += c.step {
				want = append(want, seq)
			}
			var seqs []int64
			for i, ev := range got {
				seqs = append(seqs, ev.Sequence)
				if ev.Added.IsZero() || i > 0 && ev.Position <= got[i-1].Position || ev.Position <= c.after || ev.Position > c.upTo {
					t.Errorf("%+v: event at position %d, added %v", c, ev.Position, ev.Added)
				}
			}
			if !slices.Equal(seqs, want) {
				t.Errorf("%+v: sequences %v", c, seqs)
			}
		}
	})
}

// TestEvents_ReadWithoutBatches reads a long conversation where the server permits no consumers.
func TestEvents_ReadWithoutBatches(t *testing.T) {
	t.Parallel()
	p := newPeer(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"$JS.API.CONSUMER.>"}},
		}}}
	})
	c := config(t, "", p.url())
	c.interval = time.Hour // no checks, which read the timeout that the test changes
	c.User, c.Password = "u", func() (string, error) { return "p", nil }
	l := open(t, c)
	e := events(t, l)
	for seq := range int64(3 * singles) {
		if _, err := e.AddEvent(t.Context(), acct, fileAt("c", seq, fmt.Sprint("/", seq))); err != nil {
			t.Fatal(err)
		}
	}
	l.timeout = 4 * time.Second // a batch fails after half of that
	if got, err := readEvents(t, e, acct, "c", 0, lastPosition(t, e)); err != nil || len(got) != 3*singles {
		t.Errorf("%d events, %v; want %d", len(got), err, 3*singles)
	}
}

// TestEvents_OpenWaits gives up waiting for another call that opens the log.
func TestEvents_OpenWaits(t *testing.T) {
	t.Parallel()
	conf := config(t, "")
	l := open(t, conf)
	l.timeout = time.Hour // the test hangs if Open waits for it
	e := events(t, l)
	e.opening <- struct{}{} // another call opens the log
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := e.Open(ctx); !share.Is(err, share.LedgerUnavailable) {
		t.Errorf("got %v, want LEDGER_UNAVAILABLE", err)
	}
	<-e.opening
	if err := e.Open(t.Context()); err != nil {
		t.Error(err)
	}
}

// readEvents returns events of a conversation as Each reports them.
func readEvents(t testing.TB, e *Events, account, conversation string, after, upTo uint64) (all []share.LoggedEvent, err error) {
	err = e.Each(t.Context(), account, conversation, after, upTo, func(ev share.LoggedEvent) error {
		all = append(all, ev)
		return nil
	})
	return all, err
}
