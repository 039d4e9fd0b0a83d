package lpws

import (
	"context"
	"maps"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

const (
	// watchQueue is how many files that come live may wait for a watch's reader. What was there before it began does not count.
	watchQueue = 256
	// watchBytes is how much may wait in all, previews and captions for the most part. What was there before the watch began may
	// be more: it is then given in parts, each ending with WatchTooSlow behind what fitted, to go on from by the cursor.
	watchBytes = 32 << 20
	// itemBytes is what an item takes beside its preview and caption.
	itemBytes = 512
)

// A Watch is files as they come. One goroutine may read it at a time; Close may be called by another. It holds its session, so
// who gets a Watch closes it. A conversation that is closed, or that the caller leaves, gives nothing more, and does not end the
// watch: who comes back gets what was missed.
type Watch struct {
	l            *link
	conversation string
	wake         chan struct{} // has room for one signal that the queue or err has changed

	// Guarded by link.mu.
	err     error
	closed  bool
	queue   []*item
	waiting int // live items in the queue
	bytes   int // what the queue holds, roughly
	cursor  share.Cursor
	tails   map[string]*item // the last item in the queue, by dialog
	places  map[string]resting
}

// An item is a file in the queue.
type item struct {
	event share.FileEvent
	upto  int64 // the last sequence that passed before the dialog's next item
	live  bool
}

func (it *item) size() int {
	return itemBytes + len(it.event.File.Preview) + len(it.event.File.Caption)
}

// A resting is where a watch stands in a dialog that it does not follow just now.
type resting struct {
	pos  int64
	over bool // nothing more will happen there
}

// Next waits for the next file. It fails with WatchTooSlow when the reader fell too far behind, with LPIdentityExpired when the
// identity ended, with ServerDraining, with the error that makes the conversation unreadable, and with the cause of ctx's end;
// only the last leaves the watch as it was. Files that came before the end of the session are still given.
func (w *Watch) Next(ctx context.Context) (share.FileEvent, error) {
	for {
		w.l.mu.Lock()
		if len(w.queue) > 0 {
			it := w.queue[0]
			w.queue[0] = nil
			if w.queue = w.queue[1:]; len(w.queue) == 0 {
				w.queue = nil
			}
			w.bytes -= it.size()
			if it.live {
				w.waiting--
			}
			dialog := it.event.Dialog
			w.cursor[dialog] = it.upto
			if w.tails[dialog] == it {
				delete(w.tails, dialog)
			}
			w.l.mu.Unlock()
			return it.event, nil
		}
		err := w.err
		w.l.mu.Unlock()
		if err != nil {
			return share.FileEvent{}, err
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return share.FileEvent{}, context.Cause(ctx)
		}
	}
}

// Cursor is the place behind what Next has given, other messages that passed since included.
func (w *Watch) Cursor() share.Cursor {
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	return maps.Clone(w.cursor)
}

// Close ends the watch. It may be called at any time and more than once.
func (w *Watch) Close() {
	w.l.mu.Lock()
	w.end(errWatchClosed)
	w.queue, w.tails = nil, nil
	first := !w.closed
	w.closed = true
	w.l.mu.Unlock()
	if first {
		w.l.p.release(w.l)
	}
}

var errWatchClosed error = share.Errorf(share.Internal, "the watch is closed", nil)

// end takes the watch out of all dialogs; what is queued stays. Call with mu held.
func (w *Watch) end(why error) {
	if w.err != nil {
		return
	}
	w.err = why
	for _, f := range w.l.book.feeds {
		delete(f.places, w)
	}
	delete(w.l.book.watches, w)
	w.rouse()
}

func (w *Watch) rouse() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// reached notes that a dialog was seen, if only to be empty. Call with mu held.
func (w *Watch) reached(dialog string) {
	if _, known := w.cursor[dialog]; !known && w.tails[dialog] == nil {
		w.cursor[dialog] = -1
	}
}

// pass takes the next event of a dialog; file is nil if it is no file. Call with mu held.
func (w *Watch) pass(dialog string, seq int64, file *share.FileEvent, live bool) {
	if w.err != nil {
		return
	}
	if file == nil {
		if tail := w.tails[dialog]; tail != nil {
			tail.upto = seq
		} else {
			w.cursor[dialog] = seq
		}
		return
	}
	if live {
		if w.waiting == watchQueue {
			w.queue, w.tails = nil, nil
			w.end(errTooSlow())
			return
		}
		w.waiting++
	}
	it := &item{event: *file, upto: seq, live: live}
	if w.bytes += it.size(); w.bytes > watchBytes && len(w.queue) > 0 {
		w.end(errTooSlow())
		return
	}
	w.queue = append(w.queue, it)
	w.tails[dialog] = it
	w.rouse()
}

func errTooSlow() error {
	return share.Errorf(share.WatchTooSlow, "the reader of the watch fell too far behind; watch again from the last resume token", nil)
}

// left notes where the watch stands in a dialog that it no longer follows. Call with mu held.
func (w *Watch) left(dialog string, pos int64, over bool) { w.places[dialog] = resting{pos, over} }

// watch begins a watch of one conversation, or of all ("").
func (l *link) watch(conversation string, after share.Cursor) (*Watch, error) {
	w := &Watch{
		l: l, conversation: conversation, wake: make(chan struct{}, 1),
		cursor: make(share.Cursor), tails: make(map[string]*item), places: make(map[string]resting),
	}
	for dialog, pos := range after {
		pos = max(pos, -1)
		w.cursor[dialog] = pos
		w.places[dialog] = resting{pos: pos}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return nil, l.endError(l.err)
	}
	l.p.retain(l)
	if l.book.watches == nil {
		l.book.watches = make(map[*Watch]struct{})
	}
	l.book.watches[w] = struct{}{}
	for _, c := range l.book.convs {
		l.enter(w, c)
	}
	return w, nil
}

// follow brings all watches up to date with a conversation that has changed. Call with mu held.
func (l *link) follow(c *conversation) {
	if len(l.book.watches) == 0 {
		return
	}
	if !l.takesPart(c) {
		l.unfollow(c)
		return
	}
	for w := range l.book.watches {
		l.enter(w, c)
	}
}

// unfollow takes all watches out of a conversation. Call with mu held.
func (l *link) unfollow(c *conversation) {
	for _, dialog := range dialogIDs(c.Conversation) {
		f := l.book.feeds[dialog]
		if f == nil {
			continue
		}
		for w, pl := range f.places {
			delete(f.places, w)
			w.left(dialog, pl.pos, false)
		}
	}
}

// enter lets a watch follow the dialogs of a conversation that it does not follow yet. Call with mu held.
func (l *link) enter(w *Watch, c *conversation) {
	if w.conversation != "" && w.conversation != c.ID || !l.takesPart(c) {
		return
	}
	for _, dialog := range dialogIDs(c.Conversation) {
		d, _ := c.Dialog(dialog)
		rest, been := w.places[dialog]
		if been && rest.over && !d.Open {
			continue
		}
		f := l.feed(c.ID, dialog)
		if f.places[w] != nil {
			continue
		}
		pos := int64(-1)
		if been {
			pos = rest.pos
		}
		if f.places == nil {
			f.places = make(map[*Watch]*place)
		}
		f.places[w] = &place{pos: pos}
		if l.conn != nil { // else it is asked for with the next connection
			l.request(f, false)
		}
	}
}
