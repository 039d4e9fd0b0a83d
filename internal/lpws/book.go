package lpws

import (
	"sync"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/filecache"
	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

const (
	// listLimit is the maximum number of conversations with which LivePerson begins a subscription. A list of that length may be
	// incomplete.
	listLimit = 1000
	// newConversationTime is the age below which a conversation without known events is assumed to have none.
	newConversationTime = 2 * time.Second
)

// book is the state that a session builds up from LivePerson's frames: the conversations, the events of some dialogs, and the
// watches on them. It does no I/O: methods that require a request to LivePerson return the feeds for which a fetch must be started
// (see sharedSession.startFetches). All methods but those marked otherwise are safe for concurrent use.
type book struct {
	maxConversations int              // Config.MaxConversations
	openOnly         func() bool      // reports whether LivePerson lists open conversations only
	now              func() time.Time // Config.Now

	mu            sync.Mutex
	err           error // why the session ended; nil while it lives
	conversations conversations
	listedBy      uint64        // id of the newest transport that has listed the conversations
	subscription  string        // to conversations, of the transport in use
	changed       chan struct{} // closed at the next change of a conversation; nil if no caller waits
	refreshing    *refresh
	feeds         feeds
}

// init must be called before all other methods.
func (b *book) init(maxConversations int, cache *filecache.Cache, openOnly func() bool, now func() time.Time) {
	b.maxConversations, b.openOnly, b.now = maxConversations, openOnly, now
	b.feeds.conversations, b.feeds.cache, b.feeds.held, b.feeds.now = &b.conversations, cache, cache.Part(), now
}

// effects is what the session must do after a frame was applied.
type effects struct {
	fetches []*feed // start a fetch for each
	listed  bool    // the frame was its connection's first list of conversations
}

// refresh is a new subscription to conversations. LivePerson begins it with a list of all conversations.
type refresh struct {
	listed   chan struct{} // closed when the list has been applied
	isListed bool          // guarded by book.mu
	list     string        // the subscription whose list has been applied last, guarded by book.mu
	whole    bool          // that list has all conversations, guarded by book.mu
	done     chan struct{} // closed at the end; then the following are set
	err      error
	answered bool // the list is that of the refresh's own subscription, not one that LivePerson sent for another reason
}

// setListed must be called with book.mu held.
func (r *refresh) setListed() {
	if !r.isListed {
		r.isListed = true
		close(r.listed)
	}
}

// identify sets the identity of the session.
func (b *book) identify(p share.Principal, ids []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conversations.principal, b.conversations.ids = p, ids
}

// connect notes that the session uses another connection. Events between the two connections may have been missed.
func (b *book) connect(id uint64, subscription string) []*feed {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.feeds.connection, b.subscription = id, subscription
	if b.refreshing != nil { // the connection began with a list
		b.refreshing.setListed()
	}
	b.feeds.setBehind()
	for _, f := range b.feeds.byDialog {
		if f.behind() {
			b.feeds.request(f, false)
		}
	}
	return b.feeds.takeStarts()
}

// disconnect notes that the connection was lost.
func (b *book) disconnect() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.feeds.connection = 0
	b.feeds.setBehind()
}

// end ends all watches and drops the state.
func (b *book) end(why error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return
	}
	b.err = why
	b.feeds.failWatches(why)
	b.feeds.connection = 0
	for _, f := range b.feeds.byDialog {
		b.feeds.forget(f)
	}
	b.conversations.byID, b.conversations.parents, b.conversations.last = nil, nil, nil
}

// endWatches ends all watches.
func (b *book) endWatches(why error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.feeds.failWatches(why)
}

// expire removes the state of dialogs of which nothing is kept.
func (b *book) expire() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.feeds.byDialog {
		if _, kept := f.kept.Next(); !kept && f.running == nil && len(f.positions) == 0 && len(f.wants) == 0 {
			b.feeds.forget(f)
		}
	}
}

// apply applies a notification. Malformed and unknown notifications are ignored.
func (b *book) apply(f *frame) effects {
	switch f.name() {
	case "ExConversationChangeNotification":
		if f.conversations != nil {
			return b.applyConversations(f.connection, f.conversations)
		}
		body, ok := lpwire.ReadConversationChanges(f.Body)
		if !ok {
			return effects{}
		}
		return b.applyConversations(f.connection, &body)
	case "MessagingEventNotification":
		body, ok := lpwire.ReadEventChanges(f.Body)
		if !ok {
			return effects{}
		}
		return b.applyEvents(body.Changes)
	case "OnlineEventDistribution":
		body, ok := lpwire.ReadEvent(f.Body)
		if !ok {
			return effects{}
		}
		return b.applyEvents([]lpwire.Event{body})
	}
	return effects{}
}

// applyConversations applies changes of conversations.
func (b *book) applyConversations(connection uint64, body *lpwire.ConversationChanges) effects {
	b.mu.Lock()
	defer b.mu.Unlock()
	first := connection > b.listedBy
	if first {
		b.listedBy = connection
	}
	if b.err != nil {
		return effects{listed: first}
	}
	r := b.refreshing
	refreshed := r != nil && connection == b.feeds.connection && string(body.SubscriptionID) != b.subscription
	listed := make(map[string]bool, len(body.Changes))
	for i := range body.Changes {
		change := &body.Changes[i]
		id := string(change.Result.V.ConvID)
		if id == "" {
			continue
		}
		listed[id] = true
		if change.Type == "DELETE" {
			b.drop(b.conversations.byID[id])
		} else if c := b.conversations.update(&change.Result.V); c != nil {
			b.feeds.follow(c)
		}
	}
	whole := len(body.Changes) < listLimit && !b.openOnly()
	if id := string(body.SubscriptionID); refreshed && id != r.list {
		r.list, r.whole = id, whole
	}
	if (first || refreshed) && whole {
		for id, c := range b.conversations.byID {
			if !listed[id] && !c.local {
				b.drop(c)
			}
		}
	}
	b.dropSurplus()
	if r != nil && (first || refreshed) {
		r.setListed()
	}
	b.announce()
	return effects{fetches: b.feeds.takeStarts(), listed: first}
}

// applyEvents applies events.
func (b *book) applyEvents(events []lpwire.Event) effects {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		for i := range events {
			b.feeds.applyEvent(&events[i])
		}
	}
	return effects{fetches: b.feeds.takeStarts()}
}

// announce wakes callers that wait for a change of a conversation. It must be called with mu held.
func (b *book) announce() {
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}

// drop removes a conversation, which may be nil.
func (b *book) drop(c *conversation) {
	if c == nil {
		return
	}
	b.feeds.unfollow(c)
	for _, d := range dialogIDs(c.Conversation) {
		if f := b.feeds.byDialog[d]; f != nil && f.running == nil {
			b.feeds.forget(f)
		}
	}
	b.conversations.remove(c)
}

// dropSurplus removes conversations over the limit.
func (b *book) dropSurplus() {
	for _, c := range b.conversations.surplus(b.maxConversations) {
		b.drop(c)
	}
}

// conversation returns a conversation in which the principal takes part. err is the end of the session.
func (b *book) conversation(id string) (c share.Conversation, ok bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return share.Conversation{}, false, b.err
	}
	known, ok := b.conversations.own(id)
	if ok {
		c = known.clone()
	}
	return c, ok, nil
}

// list returns all conversations in which the principal takes part, oldest first.
func (b *book) list() []share.Conversation {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.conversations.list()
}

// closed reports whether a dialog is known to be closed.
func (b *book) closed(conversation, dialog string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.conversations.closed(conversation, dialog)
}

// published notes that a message has been published. Its event may arrive later.
func (b *book) published(conversation, dialog string, sequence int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.conversations.own(conversation); ok {
		b.conversations.exists(dialog, sequence)
	}
}

// created adds a conversation that LivePerson has opened and may not have reported yet, and returns it: also if the session has ended,
// after which nothing is added.
func (b *book) created(id string, n share.NewConversation) (share.Conversation, []*feed) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.conversations.byID[id]; c != nil {
		return c.clone(), nil
	}
	who := &b.conversations.principal
	c := &conversation{local: true, members: []string{who.ID}, Conversation: share.Conversation{
		ID: id, Open: true, Start: b.now().UTC(), SkillID: n.SkillID,
		Dialogs:      []share.Dialog{{ID: id, Type: "MAIN", Open: true}},
		Participants: []share.Participant{{ID: who.ID, Role: who.Role}},
	}}
	if b.err == nil {
		b.conversations.put(c)
		b.feeds.follow(c)
		b.dropSurplus()
	}
	return c.clone(), b.feeds.takeStarts()
}

// setClosed marks a conversation as closed that LivePerson has closed and may not have reported yet. known reports whether there is
// such a conversation; err is the end of the session.
func (b *book) setClosed(id string) (c share.Conversation, known bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	held := b.conversations.byID[id]
	if held == nil {
		return share.Conversation{}, false, b.err
	}
	held.Open, held.End = false, b.now().UTC()
	for i := range held.Dialogs {
		held.Dialogs[i].Open = false
	}
	b.announce()
	return held.clone(), true, nil
}

// find returns the conversation if satisfied reports true for it. Otherwise changed is closed at the next change.
func (b *book) find(id string, satisfied func(*conversation) bool) (c share.Conversation, ok bool, changed <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if held := b.conversations.byID[id]; held != nil && satisfied(held) {
		return held.clone(), true, nil
	}
	if b.changed == nil {
		b.changed = make(chan struct{})
	}
	return share.Conversation{}, false, b.changed
}

// joinRefresh returns the running refresh. If there is none, it returns a new one with begin set, and the caller must run it and
// call endRefresh.
func (b *book) joinRefresh() (r *refresh, begin bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refreshing != nil {
		return b.refreshing, false
	}
	b.refreshing = &refresh{listed: make(chan struct{}), done: make(chan struct{})}
	return b.refreshing, true
}

// endRefresh ends a refresh with the answer to its subscription. It returns the subscription that the new one replaces; empty if
// there is none.
func (b *book) endRefresh(r *refresh, answer *frame, err error) (obsolete string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		err = b.err
	}
	if id := subscriptionID(answer); err == nil && id != "" && answer.connection == b.feeds.connection {
		obsolete, b.subscription = b.subscription, id
		r.answered = r.list == id
	}
	b.refreshing = nil
	r.err = err
	close(r.done)
	return obsolete
}

// requestFiles returns a fetch for all files of a dialog, and the id of the connection in use.
func (b *book) requestFiles(conversation, dialog string) (r *fetch, connection uint64, starts []*feed, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return nil, 0, nil, b.err
	}
	r = b.feeds.request(b.feeds.feed(conversation, dialog), true)
	return r, b.feeds.connection, b.feeds.takeStarts(), nil
}

// current reports whether a connection is in use.
func (b *book) current(connection uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return connection == b.feeds.connection
}

// kept returns the files of a dialog that are kept, and the sequence behind them; ok is false if none are.
func (b *book) kept(dialog string) (files []share.FileEvent, next int64, ok bool) {
	b.mu.Lock()
	f := b.feeds.byDialog[dialog]
	b.mu.Unlock()
	if f == nil {
		return nil, 0, false
	}
	return f.kept.Files()
}

// unread reports whether the files of a dialog (empty: any of the conversation's) are not kept. The principal must be known to take part.
func (b *book) unread(conversation, dialog string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, ok := b.conversations.own(conversation)
	if b.err != nil || !ok {
		return false
	}
	for _, d := range c.Dialogs {
		if dialog != "" && d.ID != dialog {
			continue
		}
		f := b.feeds.byDialog[d.ID]
		if f == nil {
			return true
		}
		if _, kept := f.kept.Next(); !kept {
			return true
		}
	}
	return false
}

// last returns the highest known sequence of a dialog; -1 if none is known.
func (b *book) last(dialog string) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if last, known := b.conversations.last[dialog]; known {
		return last
	}
	return -1
}

// want begins to wait for messages of a dialog. The caller must call unwant.
func (b *book) want(conversation, dialog string, sequences []int64) (*feed, *wanted) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, w := b.feeds.feed(conversation, dialog), newWanted(sequences)
	if f.wants == nil {
		f.wants = make(map[*wanted]struct{})
	}
	f.wants[w] = struct{}{}
	return f, w
}

// unwant ends a want, and returns the messages that have arrived; others are nil.
func (b *book) unwant(f *feed, w *wanted) map[int64]*share.FileEvent {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(f.wants, w)
	return w.files
}

// satisfy adds messages to a want, and reports whether more are missing.
func (b *book) satisfy(f *feed, w *wanted, events ...lpwire.Event) (more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range events {
		if e := &events[i]; e.Sequence.OK {
			w.add(e.Sequence.N, b.feeds.fileOf(f, e))
		}
	}
	return w.missing > 0
}

// collect adds an event to a fetch, and reports whether the fetch needs more that were known to exist.
func (b *book) collect(f *feed, r *fetch, e *lpwire.Event) (more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.feeds.collect(r, e.Sequence.N, withoutPreview(b.feeds.fileOf(f, e)))
	return e.Sequence.N < r.known && r.refused == nil
}

// discarded notes that a frame was not read.
func (b *book) discarded(dialog string) []*feed {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.feeds.discard(dialog)
	return b.feeds.takeStarts()
}

// logDue reports whether a failure to read a dialog is to be logged: once a minute.
func (b *book) logDue(f *feed) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	if !f.logged.IsZero() && now.Sub(f.logged) < time.Minute {
		return false
	}
	f.logged = now
	return true
}

// running returns the current fetch of a feed.
func (b *book) running(f *feed) *fetch {
	b.mu.Lock()
	defer b.mu.Unlock()
	return f.running
}

// begin decides what a fetch requests, and reports whether that is anything.
func (b *book) begin(f *feed, r *fetch) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	r.begun = true
	r.from = f.start(r)
	r.known = -1
	if last, ok := b.conversations.last[f.dialog]; ok {
		r.known = last
	}
	if c := b.conversations.byID[f.conversation]; c != nil {
		d, ok := c.Dialog(f.dialog)
		r.closed = ok && !d.Open
		r.unsure = r.known < 0 && r.from == 0 && !c.local && b.now().Sub(c.Start) > newConversationTime
	}
	return r.needed()
}

// add adds events to a fetch. complete means that they are all events.
func (b *book) add(f *feed, r *fetch, events []lpwire.Event, complete bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range events {
		if e := &events[i]; e.Sequence.OK && e.Sequence.N >= 0 {
			b.feeds.collect(r, e.Sequence.N, withoutPreview(b.feeds.fileOf(f, e)))
			if complete {
				r.known = max(r.known, e.Sequence.N)
			}
		}
	}
}

// covered reports whether all events of a fetch that were known to exist have arrived, and whether the last of them has. It fails if
// the fetch cannot be completed.
func (b *book) covered(r *fetch) (complete, last bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	complete, last = r.covered()
	return complete, last, r.refused
}

// finish ends a fetch over a connection (0 if there was none). It returns the feed's next fetch, which the caller must run; nil if
// there is none. If retry is set, the caller must pause before it.
func (b *book) finish(f *feed, r *fetch, connection uint64, err error) (next *fetch, retry bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	current := connection != 0 && connection == b.feeds.connection
	if err == nil {
		err = b.err
	}
	r.err = err
	b.feeds.advance(f, r, current)
	close(r.done)
	f.running, f.queued = f.queued, nil
	switch {
	case f.running != nil:
		return f.running, false
	case !f.behind() || b.feeds.connection == 0: // the next connection requests the events
		return nil, false
	case err == nil || !current:
	case !share.Passing(share.KindOf(err)) && !share.Is(err, share.SessionLimit):
		b.feeds.abandon(f, err)
		return nil, false
	default:
		retry = true
	}
	f.running = newFetch(false)
	return f.running, retry
}

// abort ends the fetches of a feed for which no goroutine could be started.
func (b *book) abort(f *feed, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range []*fetch{f.running, f.queued} {
		if r != nil {
			r.err = err
			close(r.done)
		}
	}
	f.running, f.queued = nil, nil
}

// attach starts a watch.
func (b *book) attach(w *Watch) ([]*feed, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return nil, b.err
	}
	if b.feeds.watches == nil {
		b.feeds.watches = make(map[*Watch]struct{})
	}
	b.feeds.watches[w] = struct{}{}
	for _, c := range b.conversations.byID {
		b.feeds.enter(w, c)
	}
	return b.feeds.takeStarts(), nil
}

// remove ends a watch.
func (b *book) remove(w *Watch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.feeds.detach(w)
}
