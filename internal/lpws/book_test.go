package lpws

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/filecache"
	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// newTestBook returns the book of a consumer "me".
func newTestBook(maxConversations int) *book {
	b := &book{}
	b.init(maxConversations, filecache.New(64<<20), func() bool { return false }, time.Now)
	b.identify(share.Principal{Account: account, ID: "me", Role: share.RoleConsumer}, []string{"me"})
	return b
}

// bookTest is a book with the conversation "c", connected over connection 1, and a watch.
type bookTest struct {
	t *testing.T
	*book
	w *Watch
}

func newBookTest(t *testing.T, after share.Cursor) *bookTest {
	b := newTestBook(100)
	b.apply(conversationFrame("OPEN", 100, ""))
	if starts := b.connect(1, "s"); len(starts) != 0 {
		t.Fatalf("%d fetches without a watch", len(starts))
	}
	w := newWatch(nil, b, "", after)
	starts, err := b.attach(w)
	if err != nil || len(starts) != 1 {
		t.Fatalf("%d fetches for a new watch, %v", len(starts), err)
	}
	return &bookTest{t, b, w}
}

func conversationFrame(state string, ts int, more string) *frame {
	return &frame{
		connection: 1, Type: "cqm.ExConversationChangeNotification",
		Body: json.RawMessage(fmt.Sprintf(`{"subscriptionId":"s","changes":[%s]}`, upsert(state, ts, more, ""))),
	}
}

// events returns file events of dialog "c"; a negative number is a text event with the absolute value.
func events(sequences ...int) []lpwire.Event {
	out := make([]lpwire.Event, len(sequences))
	for i, seq := range sequences {
		data := fileEvent("c", seq, fmt.Sprint(seq))
		if seq < 0 {
			data = textEvent(-seq)
		}
		if err := json.Unmarshal([]byte(data), &out[i]); err != nil {
			panic(err)
		}
	}
	return out
}

// fetch runs the current fetch: it requests the events, receives live events, and then the answer.
func (b *bookTest) fetch(from int64, live, answer []int, complete bool, err error) (next *fetch, retry bool) {
	b.t.Helper()
	f := b.feeds.byDialog["c"]
	r := b.running(f)
	if r == nil {
		b.t.Fatal("no fetch")
	}
	if !b.begin(f, r) || r.from != from {
		b.t.Errorf("the fetch begins at %d, want %d", r.from, from)
	}
	b.applyEvents(events(live...))
	b.add(f, r, events(answer...), complete)
	return b.finish(f, r, b.feeds.connection, err)
}

// delivered checks the files that the watch has delivered, and its cursor.
func (b *bookTest) delivered(cursor int64, want ...int64) {
	b.t.Helper()
	var got []int64
	for {
		ctx := endedContext(errors.New("empty"))
		e, err := b.w.Next(ctx)
		if err != nil {
			break
		}
		got = append(got, e.Sequence)
	}
	if !slices.Equal(got, want) {
		b.t.Errorf("delivered %v, want %v", got, want)
	}
	if at := b.w.Cursor(); !maps.Equal(at, share.Cursor{"c": cursor}) {
		b.t.Errorf("cursor %v, want %d", at, cursor)
	}
}

func TestBook_Fetch(t *testing.T) {
	failed := share.Errorf(share.LPTimeout, "late", nil)
	for _, c := range []struct {
		name         string
		after        share.Cursor
		from         int64
		known        int64 // -1: unknown
		live, answer []int
		complete     bool
		err          error
		delivered    []int64
		cursor       int64
		again, retry bool
	}{
		{name: "empty dialog", known: -1, complete: true, cursor: -1},
		{name: "all files", known: 2, answer: []int{0, 1, 2}, complete: true, delivered: []int64{0, 1, 2}, cursor: 2},
		{name: "behind a cursor", after: share.Cursor{"c": 1}, from: 2, known: 2, answer: []int{1, 2}, complete: true, delivered: []int64{2}, cursor: 2},
		{name: "text behind a file", known: 2, answer: []int{0, 1, -2}, complete: true, delivered: []int64{0, 1}, cursor: 2},
		{name: "hidden events", known: 5, answer: []int{0, 2, 5}, complete: true, delivered: []int64{0, 2, 5}, cursor: 5},
		{name: "hidden events as notifications", known: 5, live: []int{0, 2, 5}, delivered: []int64{0, 2, 5}, cursor: 5},
		{name: "out of order", known: -1, live: []int{2, 0, 1}, delivered: []int64{0, 1, 2}, cursor: 2},
		{name: "gap behind what was known", known: 1, live: []int{0, 1, 3}, delivered: []int64{0, 1}, cursor: 1, again: true},
		{name: "gap after a failure", known: 3, live: []int{0, 2, 3}, err: failed, delivered: []int64{0}, cursor: 0, again: true, retry: true},
		{name: "nothing after a failure", known: -1, err: failed, again: true, retry: true, cursor: -2},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBookTest(t, c.after)
			if c.known >= 0 {
				b.conversations.exists("c", c.known)
			}
			next, retry := b.fetch(c.from, c.live, c.answer, c.complete, c.err)
			if (next != nil) != c.again || retry != c.retry {
				t.Errorf("another fetch: %v, pause: %v", next != nil, retry)
			}
			if c.cursor == -2 {
				if at := b.w.Cursor(); len(at) != 0 {
					t.Errorf("cursor %v", at)
				}
				return
			}
			b.delivered(c.cursor, c.delivered...)
		})
	}
}

func TestBook_LiveEvents(t *testing.T) {
	b := newBookTest(t, nil)
	b.fetch(0, nil, []int{0}, true, nil)
	b.delivered(0, 0)

	e := b.applyEvents(events(1, 1, 0, -2, 3))
	b.delivered(3, 1, 3)
	if len(e.fetches) != 0 {
		t.Error("a fetch without a gap")
	}

	// An event that is missing is fetched, and nothing behind it is delivered before.
	if e = b.applyEvents(events(5)); len(e.fetches) != 1 {
		t.Errorf("%d fetches for a gap", len(e.fetches))
	}
	b.delivered(3)
	b.fetch(4, []int{6}, []int{4, 5}, true, nil)
	b.delivered(6, 4, 5, 6)

	// A lost connection may have lost events.
	b.disconnect()
	b.applyEvents(events(7))
	b.delivered(6)
	if starts := b.connect(2, "s2"); len(starts) != 1 {
		t.Errorf("%d fetches for a new connection", len(starts))
	}
	b.fetch(7, nil, []int{7, 8}, true, nil)
	b.delivered(8, 7, 8)
}

func TestBook_AnswerOfAnOldConnection(t *testing.T) {
	b := newBookTest(t, nil)
	f := b.feeds.byDialog["c"]
	r := b.running(f)
	b.begin(f, r)
	b.connect(2, "s2")
	b.add(f, r, events(0), true)
	next, retry := b.finish(f, r, 1, nil)
	if next == nil || retry {
		t.Error("events that followed on the old connection are lost")
	}
	b.delivered(0, 0)
}

func TestBook_LeftConversation(t *testing.T) {
	const without = `,"participants":[{"id":"her","role":"ASSIGNED_AGENT"}]`
	b := newBookTest(t, nil)
	b.fetch(0, nil, []int{0}, true, nil)
	b.delivered(0, 0)
	b.apply(conversationFrame("OPEN", 101, without))
	b.applyEvents(events(1))
	b.delivered(0)
	if e := b.apply(conversationFrame("OPEN", 102, "")); len(e.fetches) != 1 {
		t.Errorf("%d fetches after joining again", len(e.fetches))
	}
	b.fetch(1, nil, []int{1}, true, nil)
	b.delivered(1, 1)
}

func TestBook_UnreadableDialog(t *testing.T) {
	denied := share.Errorf(share.LPForbidden, "denied", nil)
	b := newBookTest(t, nil)
	one := newWatch(nil, b.book, "c", nil)
	if _, err := b.attach(one); err != nil {
		t.Fatal(err)
	}
	if next, _ := b.fetch(0, nil, nil, true, denied); next != nil {
		t.Error("a permanent failure is repeated")
	}
	if _, err := one.Next(endedContext(errors.New("empty"))); !errors.Is(err, denied) {
		t.Errorf("the watch of the conversation ended with %v", err)
	}
	if b.w.err != nil {
		t.Errorf("the watch of all conversations ended with %v", b.w.err)
	}
}

func TestBook_FirstListReplacesConversations(t *testing.T) {
	b := newTestBook(100)
	list := func(connection uint64, id string) effects {
		return b.apply(&frame{
			connection: connection, Type: "ExConversationChangeNotification",
			Body: json.RawMessage(fmt.Sprintf(`{"subscriptionId":"s%d","changes":[{"type":"UPSERT","result":{"convId":%q}}]}`, connection, id)),
		})
	}
	ids := func() (ids []string) {
		for _, c := range b.list() {
			ids = append(ids, c.ID)
		}
		slices.Sort(ids)
		return ids
	}
	if e := list(1, "a"); !e.listed {
		t.Error("the first list is not reported")
	}
	b.connect(1, "s1")
	if e := list(1, "b"); e.listed || !slices.Equal(ids(), []string{"a", "b"}) {
		t.Errorf("a change replaced the list: %v", ids())
	}
	if e := list(2, "b"); !e.listed || !slices.Equal(ids(), []string{"b"}) {
		t.Errorf("after the list of another connection: %v", ids())
	}
	if e := list(1, "c"); e.listed || !slices.Equal(ids(), []string{"b", "c"}) {
		t.Errorf("after a change on the connection before: %v", ids())
	}

	// A refresh replaces the list too.
	b.connect(2, "s2")
	r, begin := b.joinRefresh()
	if !begin {
		t.Fatal("no refresh")
	}
	if again, begin := b.joinRefresh(); again != r || begin {
		t.Error("concurrent refreshes are not shared")
	}
	b.apply(&frame{connection: 2, Type: "ExConversationChangeNotification", Body: json.RawMessage(`{"subscriptionId":"new","changes":[]}`)})
	select {
	case <-r.listed:
	default:
		t.Error("the list of the refresh was not noticed")
	}
	if len(ids()) != 0 {
		t.Errorf("after the refresh: %v", ids())
	}
	if obsolete := b.endRefresh(r, &frame{connection: 2, Body: json.RawMessage(`{"subscriptionId":"new"}`)}, nil); obsolete != "s2" {
		t.Errorf("the obsolete subscription is %q", obsolete)
	}
}

func TestBook_End(t *testing.T) {
	why := share.Errorf(share.LPIdentityExpired, "over", nil)
	b := newBookTest(t, nil)
	b.fetch(0, nil, []int{0}, true, nil)
	b.end(why)
	if e, err := b.w.Next(t.Context()); err != nil || e.Sequence != 0 {
		t.Errorf("a delivered file is lost: %v %v", e, err)
	}
	if _, err := b.w.Next(t.Context()); !errors.Is(err, why) {
		t.Errorf("the watch ended with %v", err)
	}
	if _, _, err := b.conversation("c"); !errors.Is(err, why) {
		t.Errorf("a lookup failed with %v", err)
	}
	if _, err := b.attach(newWatch(nil, b.book, "", nil)); !errors.Is(err, why) {
		t.Errorf("a new watch failed with %v", err)
	}
	if e := b.apply(&frame{connection: 2, Type: "ExConversationChangeNotification", Body: json.RawMessage(`{"changes":[]}`)}); !e.listed {
		t.Error("an opening waits for its list for ever")
	}
}

func TestWatch_CursorIsACopy(t *testing.T) {
	b := newBookTest(t, share.Cursor{"other": 7})
	b.fetch(0, nil, []int{0, -1}, true, nil)
	at := b.w.Cursor()
	if !maps.Equal(at, share.Cursor{"other": 7, "c": -1}) {
		t.Errorf("the cursor counts a file that was not read: %v", at)
	}
	at["c"] = 99
	if _, err := b.w.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	if at = b.w.Cursor(); !maps.Equal(at, share.Cursor{"other": 7, "c": 1}) {
		t.Errorf("cursor %v", at)
	}
}
