package lpws

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

const (
	// snapshotLimit is how many conversations LivePerson begins a subscription with, at most: from a longer list nothing follows
	// for those that are not on it.
	snapshotLimit = 1000
	// settleTime is how long a change that LivePerson has agreed to is waited for to show.
	settleTime = 2 * time.Second
)

// A book is what a link knows: its conversations, and of some dialogs their files. link.mu guards it. Most links never need most
// of it, so its maps are made when they are.
type book struct {
	subscription string // to conversations
	convs        map[string]*conversation
	dialogs      map[string]string // conversations of the dialogs that are not their main ones
	last         map[string]int64  // the highest sequence known to exist, by dialog
	changed      chan struct{}     // closed with the next change of a conversation; nil: nobody waits
	refreshing   *refresh

	feeds   map[string]*feed // by dialog
	watches map[*Watch]struct{}
	slots   chan struct{} // bounds how many dialogs are asked for at once
}

// A conversation is one as LivePerson told it last.
type conversation struct {
	share.Conversation
	members       []string // every id of every participant
	meta, updated int64    // metaDataLastUpdateTs and lastUpdateTime; 0: not said
	local         bool     // made up here, because LivePerson has not told of it yet
}

// clone is a copy that a caller may keep.
func (c *conversation) clone() share.Conversation {
	out := c.Conversation
	out.Dialogs = slices.Clone(c.Dialogs)
	out.Participants = slices.Clone(c.Participants)
	return out
}

// dialogIDs are the ids of a conversation's dialogs, the main one first and the others by their ids.
func dialogIDs(c share.Conversation) []string {
	ids := []string{c.ID}
	for _, d := range c.Dialogs {
		if d.ID != c.ID {
			ids = append(ids, d.ID)
		}
	}
	slices.Sort(ids[1:])
	return ids
}

// takesPart reports whether the link's principal takes part in c as LivePerson told it last. A consumer is told of no others.
func (l *link) takesPart(c *conversation) bool {
	if len(c.members) == 0 {
		return l.who.Role == share.RoleConsumer
	}
	return slices.ContainsFunc(c.members, func(id string) bool { return l.d.isSelf(id, l.who) })
}

// mine returns a conversation that the link's principal takes part in. Call with mu held.
func (l *link) mine(id string) (*conversation, bool) {
	c := l.book.convs[id]
	if c == nil || !l.takesPart(c) {
		return nil, false
	}
	return c, true
}

// notified takes a notification. It is called by the reader of c, in the order in which LivePerson sent them.
func (l *link) notified(c *conn, f *frame) {
	switch f.name() {
	case "ExConversationChangeNotification":
		var body lpwire.ConversationChanges
		if json.Unmarshal(f.Body, &body) != nil {
			c.strays.Add(1)
			return
		}
		l.mu.Lock()
		l.conversationsChanged(&body, !c.told)
		l.mu.Unlock()
		if !c.told {
			c.told = true
			close(c.snapshot)
		}
	case "MessagingEventNotification":
		var body lpwire.EventChanges
		if json.Unmarshal(f.Body, &body) != nil {
			c.strays.Add(1)
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		for i := range body.Changes {
			l.happened(&body.Changes[i])
		}
	case "OnlineEventDistribution":
		var body lpwire.Event
		if json.Unmarshal(f.Body, &body) != nil {
			c.strays.Add(1)
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.happened(&body)
	default:
		c.strays.Add(1)
	}
}

// conversationsChanged applies news of conversations. first says that these are the connection's first. Call with mu held.
func (l *link) conversationsChanged(body *lpwire.ConversationChanges, first bool) {
	b := &l.book
	r := b.refreshing
	fresh := first || r != nil && string(body.SubscriptionID) != b.subscription
	listed := map[string]bool{}
	for i := range body.Changes {
		ch := &body.Changes[i]
		id := string(ch.Result.V.ConvID)
		if id == "" {
			continue
		}
		listed[id] = true
		if ch.Type == "DELETE" {
			l.dropConversation(id)
		} else if c := l.upsert(&ch.Result.V); c != nil {
			l.follow(c)
		}
	}
	if fresh && len(body.Changes) < snapshotLimit && !l.openOnly.Load() {
		for id, c := range b.convs {
			if !listed[id] && !c.local {
				l.dropConversation(id)
			}
		}
	}
	l.bound()
	if fresh && r != nil {
		r.tell()
	}
	l.announce()
}

// announce wakes who waits for a change of a conversation. Call with mu held.
func (l *link) announce() {
	if l.book.changed != nil {
		close(l.book.changed)
		l.book.changed = nil
	}
}

// upsert applies one change and returns the conversation as it is then; nil if the change is old news.
func (l *link) upsert(w *lpwire.Conversation) *conversation {
	b := &l.book
	id, details := string(w.ConvID), &w.Details.V
	old := b.convs[id]
	c := &conversation{meta: details.MetaDataTs.N, updated: w.LastUpdateTime.N}
	if old != nil && !old.local {
		switch { // notifications may overtake one another
		case c.meta != 0 && old.meta != 0:
			if c.meta < old.meta {
				return nil
			}
		case c.updated != 0 && old.updated != 0 && c.updated < old.updated:
			return nil
		}
	}
	c.Conversation, c.members = w.Read()
	if old != nil {
		for _, d := range old.Dialogs { // one that LivePerson spoke of once is not gone because it is left out
			if _, known := c.Dialog(d.ID); !known {
				d.Open = d.Open && c.Open
				c.Dialogs = append(c.Dialogs, d)
			}
		}
		if c.Start.IsZero() {
			c.Start = old.Start
		}
	}
	l.put(c)
	if e := &w.LastContent.V; e.Sequence.OK {
		l.exists(cmp.Or(string(e.DialogID), id), e.Sequence.N)
	}
	return c
}

// put keeps a conversation. Call with mu held.
func (l *link) put(c *conversation) {
	b := &l.book
	if b.convs == nil {
		b.convs = make(map[string]*conversation)
	}
	b.convs[c.ID] = c
	for _, d := range c.Dialogs {
		if d.ID != c.ID {
			if b.dialogs == nil {
				b.dialogs = make(map[string]string)
			}
			b.dialogs[d.ID] = c.ID
		}
	}
}

// exists notes that a dialog has an event of that sequence. Call with mu held.
func (l *link) exists(dialog string, sequence int64) {
	b := &l.book
	if b.last == nil {
		b.last = make(map[string]int64)
	}
	if last, known := b.last[dialog]; !known || sequence > last {
		b.last[dialog] = sequence
	}
}

// dropConversation forgets one that LivePerson no longer counts as the caller's. Call with mu held.
func (l *link) dropConversation(id string) {
	b := &l.book
	c := b.convs[id]
	if c == nil {
		return
	}
	l.unfollow(c)
	for _, d := range dialogIDs(c.Conversation) {
		delete(b.dialogs, d)
		delete(b.last, d)
		if f := b.feeds[d]; f != nil && f.running == nil {
			delete(b.feeds, d)
		}
	}
	delete(b.convs, id)
}

// bound forgets the oldest conversations where there are too many, closed ones first. Call with mu held.
func (l *link) bound() {
	b := &l.book
	over := len(b.convs) - l.p.cfg.MaxConversations
	if over <= 0 {
		return
	}
	all := make([]*conversation, 0, len(b.convs))
	for _, c := range b.convs {
		all = append(all, c)
	}
	slices.SortFunc(all, func(x, y *conversation) int {
		if x.Open != y.Open {
			if x.Open {
				return 1
			}
			return -1
		}
		return x.Start.Compare(y.Start)
	})
	for _, c := range all[:over] {
		l.dropConversation(c.ID)
	}
}

func subscriptionID(answer *frame) string {
	var body struct {
		ID lpwire.Text `json:"subscriptionId"`
	}
	_ = json.Unmarshal(answer.Body, &body)
	return string(body.ID)
}

// A refresh is a new subscription to conversations, which begins with all of them as they are now.
type refresh struct {
	told chan struct{} // closed when LivePerson has listed them
	done chan struct{} // closed when it is over; then err is set
	err  error
}

// tell is called with link.mu held.
func (r *refresh) tell() {
	select {
	case <-r.told:
	default:
		close(r.told)
	}
}

// refreshConversations asks for all conversations anew, once for all who want that at the same time.
func (l *link) refreshConversations(ctx context.Context) error {
	l.mu.Lock()
	r := l.book.refreshing
	if r == nil {
		r = &refresh{told: make(chan struct{}), done: make(chan struct{})}
		if !l.p.spawn(func() { l.refresh(r) }) {
			l.mu.Unlock()
			return errDraining
		}
		l.book.refreshing = r
	}
	l.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l *link) refresh(r *refresh) {
	ctx, cancel := context.WithTimeoutCause(l.p.ctx, l.p.cfg.CallTimeout, errTimeout)
	defer cancel()
	answer, err := l.ask(ctx, lpwire.StepSubscribe, request{Type: reqSubscribeConvs, Body: l.d.subscription(l.openOnly.Load())})
	if err == nil {
		select {
		case <-r.told:
		case <-l.ended:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil && l.err != nil {
		err = l.endError(l.err)
	}
	b := &l.book
	if newer := subscriptionID(&answer); err == nil && newer != "" {
		if b.subscription != "" && l.conn != nil {
			l.conn.post(request{Type: l.d.name(reqUnsubscribe), Body: unsubscribe{b.subscription}})
		}
		b.subscription = newer
	}
	b.refreshing = nil
	r.err = err
	close(r.done)
}

// conversation finds one of the caller's, asking LivePerson afresh if it is not known.
func (l *link) conversation(ctx context.Context, id string) (share.Conversation, error) {
	if id == "" || len(id) > 64 {
		return share.Conversation{}, errNoConversation()
	}
	for asked := false; ; asked = true {
		l.mu.Lock()
		err := l.err
		c, ok := l.mine(id)
		var found share.Conversation
		if ok {
			found = c.clone()
		}
		l.mu.Unlock()
		switch {
		case err != nil:
			return share.Conversation{}, l.endError(err)
		case ok:
			return found, nil
		case asked:
			return share.Conversation{}, errNoConversation()
		}
		if err := l.refreshConversations(ctx); err != nil {
			return share.Conversation{}, err
		}
	}
}

func errNoConversation() error {
	return share.Errorf(share.ConversationNotFound, "there is no such conversation or dialog among those that the identity takes part in", nil)
}

func errClosed() error {
	return share.Errorf(share.ConversationClosed, "the conversation or dialog is closed; begin another one", nil)
}

// await waits, for a short while, until a conversation is as LivePerson has agreed that it will be.
func (l *link) await(ctx context.Context, id string, as func(*conversation) bool) (share.Conversation, bool) {
	timer := time.NewTimer(settleTime)
	defer timer.Stop()
	for {
		l.mu.Lock()
		c := l.book.convs[id]
		if c != nil && as(c) {
			defer l.mu.Unlock()
			return c.clone(), true
		}
		if l.book.changed == nil {
			l.book.changed = make(chan struct{})
		}
		changed := l.book.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-timer.C:
			return share.Conversation{}, false
		case <-ctx.Done():
			return share.Conversation{}, false
		case <-l.ended:
			return share.Conversation{}, false
		}
	}
}

// closed reports whether a dialog is known to be closed.
func (l *link) closed(conversation, dialog string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.book.convs[conversation]
	if c == nil {
		return false
	}
	d, ok := c.Dialog(dialog)
	return ok && !d.Open || !c.Open && dialog == c.ID
}
