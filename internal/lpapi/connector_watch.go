package lpapi

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A hub tells watches what the event log hears. place is how far it has heard: what is not marked as changed at that place has been
// read up to it.
type hub struct {
	starting sync.Mutex // one call begins to follow the log

	mu        sync.Mutex
	following bool
	place     uint64
	byConv    map[string]map[*ConnectorWatch]struct{} // by account and conversation
	byWho     map[string]map[*ConnectorWatch]struct{} // by account and consumer, those that watch all conversations
}

func hubKey(account, id string) string { return account + "\n" + id }

// follow begins to follow the log, once.
func (c *Connector) follow(ctx context.Context) error {
	h := &c.hub
	h.starting.Lock()
	defer h.starting.Unlock()
	h.mu.Lock()
	following := h.following
	h.mu.Unlock()
	if following {
		return nil
	}
	from, err := c.log.Follow(ctx, c.heard, c.told)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.following, h.place = true, max(h.place, from)
	return nil
}

func (c *Connector) heard(account, conversation string, place uint64) {
	h := &c.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	h.place = max(h.place, place)
	for w := range h.byConv[hubKey(account, conversation)] {
		w.changed[conversation] = true
		w.rouse()
	}
}

func (c *Connector) told(account, consumer string) {
	h := &c.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.byWho[hubKey(account, consumer)] {
		w.more = true
		w.rouse()
	}
}

func enter(m *map[string]map[*ConnectorWatch]struct{}, key string, w *ConnectorWatch) {
	if *m == nil {
		*m = make(map[string]map[*ConnectorWatch]struct{})
	}
	if (*m)[key] == nil {
		(*m)[key] = make(map[*ConnectorWatch]struct{})
	}
	(*m)[key][w] = struct{}{}
}

func leave(m map[string]map[*ConnectorWatch]struct{}, key string, w *ConnectorWatch) {
	delete(m[key], w)
	if len(m[key]) == 0 {
		delete(m, key)
	}
}

// A ConnectorWatch is files as they come, read from the event log: it queues nothing that is not read yet, so that a slow reader
// costs nothing. One goroutine may read it at a time; Close may be called by another.
//
// Deliveries come in any order, and the log keeps them in that order. The watch gives each dialog's in the order of their sequences:
// what comes too early is held until what is missing before it has come, or for GapWait, since not all that has a sequence is
// delivered. A file that comes behind its place after all cannot be given in order any more, and must not be lost: it ends the watch
// with share.ErrWatchReset.
type ConnectorWatch struct {
	s            *ConnectorSession
	conversation string
	wake         chan struct{} // has room for one signal that changed, more or closed is set

	// Guarded by the hub's mutex.
	changed map[string]bool // conversations with events that are not read
	more    bool            // there may be conversations that are not followed
	closed  bool
	follows map[string]bool // conversations

	// The reader's.
	since   uint64                    // the place that the watch began behind
	read    map[string]uint64         // by conversation: the place up to which its events were read
	dialogs map[string]*watchedDialog // by dialog
	ready   []share.FileEvent         // what may be given now

	mu     sync.Mutex // guards cursor
	cursor share.Cursor
}

// A watchedDialog is how far a watch has got in a dialog.
type watchedDialog struct {
	pos  int64 // all up to here was given or passed over
	held map[int64]share.LoggedEvent
}

// WatchFiles gives the files behind a place, and those that come, in the order of each dialog. Of a dialog that is not in after,
// all. An empty conversation means all that the consumer takes part in, those that begin later included. WebhookNotConfigured;
// ConversationNotFound; share.ErrWatchReset for a place that the log does not reach back to. The caller closes the watch.
func (s *ConnectorSession) WatchFiles(ctx context.Context, conversation string, after share.Cursor) (*ConnectorWatch, error) {
	if !s.app.Webhooks {
		return nil, share.Errorf(share.WebhookNotConfigured, "account "+s.account+" uses the Connector API, and LivePerson does not deliver its events to this "+
			"server, so that there is nothing to watch; the operator registers webhooks in the app install and says so in the account's settings", nil)
	}
	if err := s.c.follow(ctx); err != nil {
		return nil, err
	}
	since, known := after[share.LogPlace]
	if !known && len(after) > 0 {
		return nil, share.ErrWatchReset // a place of another messenger's
	}
	first, last, err := s.c.log.Bounds(ctx)
	if err != nil {
		return nil, err
	}
	if known && (since < 0 || uint64(since) > last || uint64(since)+1 < first) {
		return nil, share.ErrWatchReset // of another log, or what came behind it is gone
	}
	w := &ConnectorWatch{
		s: s, conversation: conversation, wake: make(chan struct{}, 1), changed: map[string]bool{}, follows: map[string]bool{},
		since: uint64(max(since, 0)), read: map[string]uint64{}, dialogs: map[string]*watchedDialog{}, cursor: share.Cursor{},
	}
	for dialog, pos := range after {
		w.cursor[dialog] = pos
		if dialog != share.LogPlace {
			w.dialogs[dialog] = &watchedDialog{pos: pos}
		}
	}
	if conversation == "" {
		s.c.hub.mu.Lock()
		enter(&s.c.hub.byWho, hubKey(s.account, s.who.ID), w)
		s.c.hub.mu.Unlock()
	}
	if err = w.enter(ctx); err == nil {
		err = w.refresh(ctx)
	}
	if err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// enter lets the watch follow conversations that it does not follow yet.
func (w *ConnectorWatch) enter(ctx context.Context) error {
	all, err := w.s.chosen(ctx, w.conversation)
	if err != nil {
		return err
	}
	h := &w.s.c.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range all {
		if w.closed || w.follows[c.ID] {
			continue
		}
		w.follows[c.ID], w.changed[c.ID] = true, true
		enter(&h.byConv, hubKey(w.s.account, c.ID), w)
	}
	return nil
}

func (w *ConnectorWatch) rouse() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Close ends the watch. It may be called at any time and more than once.
func (w *ConnectorWatch) Close() {
	h := &w.s.c.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	w.closed = true
	for id := range w.follows {
		leave(h.byConv, hubKey(w.s.account, id), w)
	}
	leave(h.byWho, hubKey(w.s.account, w.s.who.ID), w)
	w.rouse()
}

// Cursor is the place behind what Next has given, other messages that passed since included.
func (w *ConnectorWatch) Cursor() share.Cursor {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.cursor)
}

// Next waits for the next file. It fails with share.ErrWatchReset when a file came behind its place, with LedgerUnavailable, and with
// the cause of ctx's end; only the last leaves the watch as it was.
func (w *ConnectorWatch) Next(ctx context.Context) (share.FileEvent, error) {
	for {
		if len(w.ready) > 0 {
			e := w.ready[0]
			w.ready[0] = share.FileEvent{}
			w.ready = w.ready[1:]
			w.place(e.Dialog)
			return e, nil
		}
		if err := w.refresh(ctx); err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return share.FileEvent{}, err
		}
		if len(w.ready) > 0 {
			continue
		}
		if err := w.wait(ctx); err != nil {
			return share.FileEvent{}, err
		}
	}
}

// wait waits until something has changed, or what is missing is to be passed over.
func (w *ConnectorWatch) wait(ctx context.Context) error {
	var due <-chan time.Time
	if until, gap := w.nextGap(); gap {
		timer := time.NewTimer(max(until.Sub(w.s.c.client.cfg.Now()), 0))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-w.wake:
	case <-due:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	w.s.c.hub.mu.Lock()
	defer w.s.c.hub.mu.Unlock()
	if w.closed {
		return share.Errorf(share.Internal, "the watch is closed", nil)
	}
	return nil
}

// refresh reads what has been added, and finds what may be given. Where it fails for the end of ctx, it is as if it had not begun.
func (w *ConnectorWatch) refresh(ctx context.Context) error {
	h := &w.s.c.hub
	h.mu.Lock()
	more := w.more
	w.more = false
	h.mu.Unlock()
	if more {
		if err := w.enter(ctx); err != nil {
			h.mu.Lock()
			w.more = true
			h.mu.Unlock()
			return err
		}
	}
	// What is added behind upTo is marked as changed afterwards.
	h.mu.Lock()
	upTo, changed := h.place, w.changed
	w.changed = map[string]bool{}
	h.mu.Unlock()
	for id := range changed {
		if err := w.catchUp(ctx, id, upTo); err != nil {
			h.mu.Lock()
			maps.Copy(w.changed, changed)
			h.mu.Unlock()
			return err
		}
	}
	now := w.s.c.client.cfg.Now()
	for _, d := range w.dialogs {
		w.ready = d.settle(w.ready, now, w.s.c.cfg.GapWait)
	}
	for dialog := range w.dialogs {
		w.place(dialog)
	}
	w.mu.Lock()
	w.cursor[share.LogPlace] = int64(max(upTo, w.since))
	w.mu.Unlock()
	return nil
}

// catchUp reads a conversation's events up to a place.
func (w *ConnectorWatch) catchUp(ctx context.Context, id string, upTo uint64) error {
	events, err := w.s.c.log.Read(ctx, w.s.account, id, w.read[id], upTo)
	if err != nil {
		return err
	}
	fresh := slices.ContainsFunc(events, func(e share.LoggedEvent) bool { return w.dialogs[e.Dialog] == nil && e.Dialog != id })
	if fresh {
		c, err := w.s.Conversation(ctx, id)
		if err == nil {
			err = w.s.learn(ctx, c, events)
		}
		if err != nil {
			return err
		}
	}
	if w.dialogs[id] == nil { // seen, if only to be empty
		w.dialogs[id] = &watchedDialog{pos: -1}
	}
	for _, e := range events {
		d := w.dialogs[e.Dialog]
		if d == nil {
			d = &watchedDialog{pos: -1}
			w.dialogs[e.Dialog] = d
		}
		switch {
		case e.Sequence > d.pos:
			if d.held == nil {
				d.held = make(map[int64]share.LoggedEvent)
			}
			d.held[e.Sequence] = e
		case e.File != nil && e.Place > w.since:
			w.s.c.counts.late.Add(1)
			w.s.c.client.log.LogAttrs(ctx, slog.LevelInfo, "a file came behind its place; a watch must list again", slog.String("account", w.s.account),
				slog.Int64("sequence", e.Sequence), slog.Int64("passed", d.pos))
			return share.ErrWatchReset
		}
		w.read[id] = e.Place
	}
	w.read[id] = max(w.read[id], upTo)
	return nil
}

// settle moves on as far as nothing is missing, or is no longer waited for, and appends the files on the way.
func (d *watchedDialog) settle(ready []share.FileEvent, now time.Time, gapWait time.Duration) []share.FileEvent {
	for len(d.held) > 0 {
		e, ok := d.held[d.pos+1]
		if !ok {
			if now.Before(d.due(gapWait)) {
				break
			}
			d.pos = slices.Min(slices.Collect(maps.Keys(d.held))) - 1
			continue
		}
		delete(d.held, e.Sequence)
		d.pos = e.Sequence
		if e.File != nil {
			ready = append(ready, *e.File)
		}
	}
	return ready
}

// due is when what is missing is passed over: so long after the first of what is held came.
func (d *watchedDialog) due(gapWait time.Duration) time.Time {
	var first time.Time
	for _, e := range d.held {
		if first.IsZero() || e.Added.Before(first) {
			first = e.Added
		}
	}
	return first.Add(gapWait)
}

// nextGap is when the first gap is due; false if nothing is held.
func (w *ConnectorWatch) nextGap() (until time.Time, gap bool) {
	for _, d := range w.dialogs {
		if len(d.held) == 0 {
			continue
		}
		if due := d.due(w.s.c.cfg.GapWait); !gap || due.Before(until) {
			until, gap = due, true
		}
	}
	return until, gap
}

// place sets the cursor of a dialog: before the first file that is still to be given.
func (w *ConnectorWatch) place(dialog string) {
	pos := w.dialogs[dialog].pos
	for _, e := range w.ready {
		if e.Dialog == dialog {
			pos = e.Sequence - 1
			break
		}
	}
	w.mu.Lock()
	w.cursor[dialog] = pos
	w.mu.Unlock()
}
