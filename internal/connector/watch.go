package connector

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// livePreviews is the size of the previews that wait for the reader of a watch, in bytes. Those of further files are read again when
// the reader has come to them.
const livePreviews = 1 << 20

// A hub follows the event log and reports its changes to watches. position is how far it has followed: conversations that are not
// marked as changed have no events up to it that a watch has not read.
type hub struct {
	starting sync.Mutex // held by the call that starts to follow the log

	mu             sync.Mutex
	following      bool
	position       uint64
	byConversation map[string]map[*Watch]struct{} // by account and conversation
	byConsumer     map[string]map[*Watch]struct{} // by account and consumer: watches of all conversations
}

func hubKey(account, id string) string { return account + "\n" + id }

// follow starts to follow the log, once.
func (m *Messenger) follow(ctx context.Context) error {
	h := &m.hub
	h.starting.Lock()
	defer h.starting.Unlock()
	h.mu.Lock()
	following := h.following
	h.mu.Unlock()
	if following {
		return nil
	}
	from, err := m.events.Follow(ctx, h.eventAdded, h.conversationChanged)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.following, h.position = true, max(h.position, from)
	return nil
}

func (h *hub) eventAdded(account, conversation string, position uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.position = max(h.position, position)
	for w := range h.byConversation[hubKey(account, conversation)] {
		w.changed[conversation] = true
		w.signal()
	}
}

func (h *hub) conversationChanged(account, consumer string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.byConsumer[hubKey(account, consumer)] {
		w.more = true
		w.signal()
	}
}

func register(m *map[string]map[*Watch]struct{}, key string, w *Watch) {
	if *m == nil {
		*m = make(map[string]map[*Watch]struct{})
	}
	if (*m)[key] == nil {
		(*m)[key] = make(map[*Watch]struct{})
	}
	(*m)[key][w] = struct{}{}
}

func unregister(m map[string]map[*Watch]struct{}, key string, w *Watch) {
	delete(m[key], w)
	if len(m[key]) == 0 {
		delete(m, key)
	}
}

// A Watch returns files in the order of their sequences as they are added to the event log. It reads the log only as far as its
// caller reads it, so a slow caller costs no memory. Only one goroutine may call Next at a time; Close and Cursor may be called from
// others.
//
// Webhooks arrive in any order, and the log keeps that order. If an event is missing, the watch holds back the later ones of its
// dialog until it arrives, or for Config.GapWait, since not every event that has a sequence is delivered. A file that arrives after
// the watch has passed its sequence cannot be returned in order but must not be lost: Next fails with share.ErrWatchReset.
type Watch struct {
	s            *Session
	conversation string
	wake         chan struct{} // has one element when changed, more or closed may be set

	// Guarded by the hub's mutex.
	changed map[string]bool // conversations with unread events
	more    bool            // there may be conversations that are not followed
	closed  bool
	follows map[string]bool // conversations

	// Used by the caller of Next only.
	since   uint64                    // the position after which the watch began
	read    map[string]uint64         // by conversation: the position up to which its events were read
	dialogs map[string]*watchedDialog // by dialog
	ready   []share.FileEvent         // files to return next

	previews int // bytes of the previews of files that wait

	mu     sync.Mutex // guards cursor
	cursor share.Cursor
}

// A watchedDialog is how far a watch has come in a dialog.
type watchedDialog struct {
	sequence int64 // everything up to it was returned or skipped
	held     map[int64]share.LoggedEvent
}

// WatchFiles returns a watch for the files after a cursor, and those to come. Dialogs that are not in after are watched from their
// start. An empty conversation means all that the consumer takes part in, later ones included. It fails with WebhookNotConfigured,
// ConversationNotFound, and share.ErrWatchReset if the log no longer reaches back to the cursor. The caller must close the watch.
func (s *Session) WatchFiles(ctx context.Context, conversation string, after share.Cursor) (*Watch, error) {
	if !s.app.Webhooks {
		return nil, share.Errorf(share.WebhookNotConfigured, "account "+s.account+" uses the Connector API, and its events are not delivered to this server; "+
			"the operator must register webhooks in the app install and set app.webhooks in the accounts file", nil)
	}
	if err := s.m.follow(ctx); err != nil {
		return nil, err
	}
	since, known := after[share.LogPosition]
	if !known && len(after) > 0 {
		return nil, share.ErrWatchReset // the cursor of another messenger
	}
	first, last, err := s.m.events.Bounds(ctx)
	if err != nil {
		return nil, err
	}
	if known && (since < 0 || uint64(since) > last || uint64(since)+1 < first) {
		return nil, share.ErrWatchReset // the cursor of another log, or the log has dropped what followed it
	}
	w := &Watch{
		s: s, conversation: conversation, wake: make(chan struct{}, 1), changed: map[string]bool{}, follows: map[string]bool{},
		since: uint64(max(since, 0)), read: map[string]uint64{}, dialogs: map[string]*watchedDialog{}, cursor: share.Cursor{},
	}
	for dialog, sequence := range after {
		w.cursor[dialog] = sequence
		if dialog != share.LogPosition {
			w.dialogs[dialog] = &watchedDialog{sequence: sequence}
		}
	}
	if conversation == "" {
		s.m.hub.mu.Lock()
		register(&s.m.hub.byConsumer, hubKey(s.account, s.principal.ID), w)
		s.m.hub.mu.Unlock()
	}
	if err = w.followMore(ctx); err == nil {
		err = w.refresh(ctx)
	}
	if err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// followMore registers the watch for conversations that it does not follow yet.
func (w *Watch) followMore(ctx context.Context) error {
	all, err := w.s.chosen(ctx, w.conversation)
	if err != nil {
		return err
	}
	h := &w.s.m.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range all {
		if w.closed || w.follows[c.ID] {
			continue
		}
		w.follows[c.ID], w.changed[c.ID] = true, true
		register(&h.byConversation, hubKey(w.s.account, c.ID), w)
	}
	return nil
}

// signal wakes the caller of Next.
func (w *Watch) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Close ends the watch. It may be called at any time, and more than once.
func (w *Watch) Close() {
	h := &w.s.m.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	w.closed = true
	for id := range w.follows {
		unregister(h.byConversation, hubKey(w.s.account, id), w)
	}
	unregister(h.byConsumer, hubKey(w.s.account, w.s.principal.ID), w)
	w.signal()
}

// Cursor returns the cursor after the files that Next has returned, and the other messages between them.
func (w *Watch) Cursor() share.Cursor {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.cursor)
}

// Next waits for the next file and returns it. It fails with share.ErrWatchReset if a file arrived too late, with
// LedgerUnavailable, and with the cause of the end of ctx. Only after the last one the watch can still be used.
func (w *Watch) Next(ctx context.Context) (share.FileEvent, error) {
	for {
		if len(w.ready) > 0 {
			if e := &w.ready[0]; e.Omitted > 0 {
				if err := w.s.complete(ctx, e); ctx.Err() != nil {
					return share.FileEvent{}, context.Cause(ctx)
				} else if err != nil {
					return share.FileEvent{}, err
				}
				w.previews += len(e.File.Preview)
			}
			e := w.ready[0]
			w.previews -= len(e.File.Preview)
			w.ready[0] = share.FileEvent{}
			w.ready = w.ready[1:]
			w.updateCursor(e.Dialog)
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

// wait waits for a change, or until a missing event is skipped.
func (w *Watch) wait(ctx context.Context) error {
	var due <-chan time.Time
	if until, gap := w.nextGap(); gap {
		timer := time.NewTimer(max(until.Sub(w.s.m.client.Now()), 0))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-w.wake:
	case <-due:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	w.s.m.hub.mu.Lock()
	defer w.s.m.hub.mu.Unlock()
	if w.closed {
		return share.Errorf(share.Internal, "the watch is closed", nil)
	}
	return nil
}

// refresh reads new events and finds the files that can be returned. If ctx ends, the next refresh starts again.
func (w *Watch) refresh(ctx context.Context) error {
	h := &w.s.m.hub
	h.mu.Lock()
	more := w.more
	w.more = false
	h.mu.Unlock()
	if more {
		if err := w.followMore(ctx); err != nil {
			h.mu.Lock()
			w.more = true
			h.mu.Unlock()
			return err
		}
	}
	// Events after upTo mark their conversations as changed again.
	h.mu.Lock()
	upTo, changed := h.position, w.changed
	w.changed = map[string]bool{}
	h.mu.Unlock()
	for id := range changed {
		if err := w.readUpTo(ctx, id, upTo); err != nil {
			h.mu.Lock()
			maps.Copy(w.changed, changed)
			h.mu.Unlock()
			return err
		}
	}
	now := w.s.m.client.Now()
	for _, d := range w.dialogs {
		w.ready = d.advance(w.ready, now, w.s.m.cfg.GapWait)
	}
	for dialog := range w.dialogs {
		w.updateCursor(dialog)
	}
	w.mu.Lock()
	w.cursor[share.LogPosition] = int64(max(upTo, w.since))
	w.mu.Unlock()
	return nil
}

// readUpTo reads a conversation's events up to a position.
func (w *Watch) readUpTo(ctx context.Context, id string, upTo uint64) error {
	var events []share.LoggedEvent
	dialogs := map[string]bool{}
	previews := 0
	err := w.s.m.events.Each(ctx, w.s.account, id, w.read[id], upTo, func(e share.LoggedEvent) error {
		dialogs[e.Dialog] = true
		if e.File != nil && w.previews+previews > livePreviews {
			brief := e.File.Brief()
			e.File = &brief
		}
		if e.File != nil {
			previews += len(e.File.File.Preview)
		}
		events = append(events, e)
		return nil
	})
	if err != nil {
		return err
	}
	if slices.ContainsFunc(events, func(e share.LoggedEvent) bool { return w.dialogs[e.Dialog] == nil && e.Dialog != id }) {
		c, err := w.s.Conversation(ctx, id)
		if err == nil {
			err = w.s.learn(ctx, c, maps.Keys(dialogs))
		}
		if err != nil {
			return err
		}
	}
	w.dialog(id) // the cursor has it even if it is empty
	for _, e := range events {
		d := w.dialog(e.Dialog)
		switch {
		case e.Sequence > d.sequence:
			if d.held == nil {
				d.held = make(map[int64]share.LoggedEvent)
			}
			d.held[e.Sequence] = e
			if e.File != nil {
				w.previews += len(e.File.File.Preview)
			}
		case e.File != nil && e.Position > w.since:
			w.s.m.counts.late.Add(1)
			w.s.m.log.LogAttrs(ctx, slog.LevelInfo, "a file arrived after a watch had passed its sequence; the watch must list again",
				slog.String("account", w.s.account), slog.Int64("sequence", e.Sequence), slog.Int64("passed", d.sequence))
			return share.ErrWatchReset
		}
		w.read[id] = e.Position
	}
	w.read[id] = max(w.read[id], upTo)
	return nil
}

// dialog returns the state of a dialog, which is new if the watch has not seen the dialog.
func (w *Watch) dialog(id string) *watchedDialog {
	d := w.dialogs[id]
	if d == nil {
		d = &watchedDialog{sequence: -1}
		w.dialogs[id] = d
	}
	return d
}

// advance moves to the next missing event, or beyond it if its wait is over, and appends the files before it to ready.
func (d *watchedDialog) advance(ready []share.FileEvent, now time.Time, gapWait time.Duration) []share.FileEvent {
	for len(d.held) > 0 {
		e, ok := d.held[d.sequence+1]
		if !ok {
			if now.Before(d.due(gapWait)) {
				break
			}
			d.sequence = slices.Min(slices.Collect(maps.Keys(d.held))) - 1
			continue
		}
		delete(d.held, e.Sequence)
		d.sequence = e.Sequence
		if e.File != nil {
			ready = append(ready, *e.File)
		}
	}
	return ready
}

// due returns when the missing event is skipped: gapWait after the first held event was added.
func (d *watchedDialog) due(gapWait time.Duration) time.Time {
	var first time.Time
	for _, e := range d.held {
		if first.IsZero() || e.Added.Before(first) {
			first = e.Added
		}
	}
	return first.Add(gapWait)
}

// nextGap returns when the first missing event is skipped; false if no event is missing.
func (w *Watch) nextGap() (until time.Time, gap bool) {
	for _, d := range w.dialogs {
		if len(d.held) == 0 {
			continue
		}
		if due := d.due(w.s.m.cfg.GapWait); !gap || due.Before(until) {
			until, gap = due, true
		}
	}
	return until, gap
}

// updateCursor moves a dialog's cursor to the last sequence before the first file that is still to be returned.
func (w *Watch) updateCursor(dialog string) {
	sequence := w.dialogs[dialog].sequence
	for _, e := range w.ready {
		if e.Dialog == dialog {
			sequence = e.Sequence - 1
			break
		}
	}
	w.mu.Lock()
	w.cursor[dialog] = sequence
	w.mu.Unlock()
}
