package ledger

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// sentBy returns an event with a file that a consumer sent in a conversation of its own, with a preview.
func sentBy(consumer string, seq int64, preview int) share.LoggedEvent {
	ev := fileAt("of-"+consumer, seq, fmt.Sprintf("/%s/%d", consumer, seq))
	ev.File.SenderID, ev.File.SenderRole = consumer, share.RoleConsumer
	ev.File.File.Preview, ev.File.File.Caption = strings.Repeat("A", preview), "a caption"
	return ev
}

// has returns which of the first n files of a consumer the log has.
func has(t *testing.T, e *Events, consumer string, n int64) (found []int64) {
	t.Helper()
	for seq := range n {
		_, ok, err := e.FindFile(t.Context(), acct, "of-"+consumer, "", fmt.Sprintf("/%s/%d", consumer, seq))
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			found = append(found, seq)
		}
	}
	return found
}

// A consumer with many files loses previews and then files of its own, and no other consumer's.
func TestEvents_ConsumerOverItsShare(t *testing.T) {
	l := open(t, config(t, t.TempDir()))
	e := events(t, l, func(c *EventsConfig) { c.MaxBytes = 256 << 10 })
	add := func(ev share.LoggedEvent) {
		t.Helper()
		if added, err := e.AddEvent(t.Context(), acct, ev); err != nil || !added {
			t.Fatal(added, err)
		}
	}
	for seq := range int64(5) {
		add(sentBy("bob", seq, 2500))
	}
	const n = 250
	for seq := range int64(n) {
		add(sentBy("alice", seq, 7500))
		if seq%25 == 0 {
			check(t, l)
		}
	}
	if got := has(t, e, "bob", 5); len(got) != 5 {
		t.Errorf("bob has only the files %v", got)
	}
	got := has(t, e, "alice", n)
	if len(got) < 75 || got[len(got)-1] != n-1 || got[0] == 0 {
		t.Errorf("alice has %d files, from %d to %d", len(got), got[0], got[len(got)-1])
	}
	for i := 1; i < len(got); i++ {
		if got[i] != got[i-1]+1 {
			t.Errorf("alice lost file %d and has an older one", got[i]-1)
		}
	}
	newest, _, err := e.FindFile(t.Context(), acct, "of-alice", "", fmt.Sprintf("/alice/%d", n-1))
	if err != nil || newest.File == nil || newest.File.File.Preview != "" {
		t.Errorf("alice's newest file is %+v, %v", newest.File, err)
	}
	check(t, l)
	u := e.Usage()
	if u.Shortened < n/2 || u.Dropped != got[0] || u.Consumers != 2 || u.Bytes > u.LimitBytes*3/4 || u.LimitBytes != 256<<10 {
		t.Errorf("got %+v", u)
	}
	counts := l.rejections.Counts()
	if counts[limitPreviews] != u.Shortened || counts[limitEntries] != u.Dropped {
		t.Errorf("counted %v, want %+v", counts, u)
	}
	// LivePerson repeats deliveries. They cost nothing.
	for seq := got[0]; seq < got[0]+50; seq++ {
		if added, err := e.AddEvent(t.Context(), acct, sentBy("alice", seq, 7500)); err != nil || added {
			t.Errorf("a repeated event: %t, %v", added, err)
		}
	}
	if again := e.Usage(); again.Dropped != u.Dropped || again.Shortened != u.Shortened {
		t.Errorf("repeated events cost %+v, before %+v", again, u)
	}
}

// A consumer with many conversations loses the records of its own oldest ones, and a conversation that changes counts once.
func TestEvents_ConversationsOverTheShare(t *testing.T) {
	l := open(t, config(t, ""))
	e := events(t, l, func(c *EventsConfig) { c.MaxBytes = 256 << 10 })
	change := func(consumer, id string) {
		t.Helper()
		err := e.ChangeConversation(t.Context(), acct, consumer, id, func(c share.LoggedConversation, _ bool) (share.LoggedConversation, bool) {
			c.ID = id
			c.Updated++
			return c, true
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	change("bob", "bobs")
	for range 250 {
		change("alice", "changes")
	}
	if n := e.Usage().Dropped; n != 0 {
		t.Errorf("%d conversations were dropped", n)
	}
	for i := range 250 {
		change("alice", fmt.Sprint("c", i))
	}
	for _, c := range []struct{ consumer, id string }{{"bob", "bobs"}, {"alice", "c249"}} {
		if _, ok, err := e.Conversation(t.Context(), acct, c.consumer, c.id); !ok || err != nil {
			t.Errorf("%s: %t, %v", c.id, ok, err)
		}
	}
	all, err := e.Conversations(t.Context(), acct, "alice")
	if dropped := e.Usage().Dropped; err != nil || dropped == 0 || int64(len(all)) != 251-dropped {
		t.Errorf("alice has %d conversations, %d were dropped, %v", len(all), dropped, err)
	}
}

// Without permission to delete, the log works as a plain one: it drops the oldest entry of any consumer.
func TestEvents_NoPermissionToDrop(t *testing.T) {
	p := newPeer(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"$JS.API.STREAM.MSG.DELETE.>"}},
		}}}
	})
	c := config(t, "", p.url())
	c.User, c.Password, c.Timeout = "u", func() (string, error) { return "p", nil }, c.Timeout/10
	e := events(t, open(t, c), func(c *EventsConfig) { c.MaxBytes = 40 << 10 })
	for seq := range int64(100) {
		if _, err := e.AddEvent(t.Context(), acct, sentBy("alice", seq, 100)); err != nil {
			t.Fatal(err)
		}
	}
	if got := has(t, e, "alice", 100); len(got) == 0 || got[len(got)-1] != 99 {
		t.Errorf("the log has the files %v", got)
	}
}

func TestLogShares(t *testing.T) {
	const limit = 1000
	a, b := logOwner{acct, "a"}, logOwner{acct, "b"}
	t.Run("one consumer has half", func(t *testing.T) {
		s := newLogShares(limit)
		n := uint64(0)
		for !s.over(a, 10) {
			n++
			s.added(a, n, 10, "")
		}
		if n != 50 || s.over(b, 10) {
			t.Errorf("a has %d entries, b is over its share: %t", n, s.over(b, 10))
		}
		if position, ok := s.oldest(a, 10); !ok || position != 1 {
			t.Errorf("the oldest is %d, %t", position, ok)
		}
		if _, ok := s.oldest(a, 10); ok {
			t.Error("more is dropped than needed")
		}
	})
	t.Run("a full log is divided into equal parts", func(t *testing.T) {
		s := newLogShares(limit)
		for i := range uint64(9) {
			s.added(logOwner{acct, fmt.Sprint(i)}, i+1, 50, "")
		}
		s.added(a, 100, 500, "")
		s.observe(limit, 1)
		if !s.over(a, 10) || s.over(b, 10) || s.over(logOwner{acct, "1"}, 10) {
			t.Error("the largest consumer is not over its share, or a small one is")
		}
	})
	t.Run("what the stream has dropped does not count", func(t *testing.T) {
		s := newLogShares(limit)
		s.added(a, 1, 400, "")
		s.added(a, 2, 100, "")
		s.observe(100, 2)
		if s.over(a, 100) || s.consumers[a].bytes != 100 {
			t.Errorf("a holds %d bytes", s.consumers[a].bytes)
		}
		s.observe(0, 3)
		if len(s.consumers)+len(s.accounts) != 0 {
			t.Error("a consumer without entries is kept")
		}
	})
	t.Run("an entry replaces that of its key", func(t *testing.T) {
		s := newLogShares(limit)
		for i := range uint64(100) {
			s.added(a, i+1, 100, "k")
		}
		if s.consumers[a].bytes != 100 || s.used != 100 || len(s.byKey) != 1 {
			t.Errorf("a holds %d of %d bytes", s.consumers[a].bytes, s.used)
		}
		s.observe(0, 101)
		if len(s.byKey) != 0 {
			t.Error("a key without an entry is kept")
		}
	})
	t.Run("an account leaves space for others", func(t *testing.T) {
		s := newLogShares(limit)
		s.added(logOwner{"2", "x"}, 1, 10, "")
		n := uint64(1)
		for i := range 100 {
			if o := (logOwner{"1", fmt.Sprint(i)}); !s.over(o, 10) {
				n++
				s.added(o, n, 10, "")
			}
		}
		if held := s.accounts["1"].bytes; held < 800 || held > 880 {
			t.Errorf("the account holds %d bytes", held)
		}
		if position, ok := s.oldest(logOwner{"1", "new"}, 10); !ok || position != 2 {
			t.Errorf("a new consumer of the account: the oldest is %d, %t", position, ok)
		}
	})
}
