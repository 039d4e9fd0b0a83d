package lpws

import (
	"context"
	"errors"
	"maps"
	"sync"

	"github.com/lpfileshare/lpfileshare/internal/filecache"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

const (
	// watchQueue is the maximum number of live files that wait for the reader of a watch. Files from before the watch began do not
	// count.
	watchQueue = 256
	// watchBytes is the approximate maximum size of all files that wait for the reader. A longer history is delivered in parts: each
	// ends with WatchTooSlow, and the cursor continues behind it.
	watchBytes = 8 << 20
	// livePreviews is the size of the queue up to which live files keep their previews. Those of others are read again when the
	// reader has come to them, a number at a time: readAhead bytes of previews.
	livePreviews = 1 << 20
	readAhead    = 512 << 10
	// itemBytes is the approximate size of an item without its file.
	itemBytes = 128
)

// Watch delivers files as they are published. It holds its session until Close, which callers must call. A conversation that is
// closed or that the caller leaves does not end the watch; if the caller joins it again, the watch delivers what was missed.
//
// Next and Cursor may be used by one goroutine at a time; Close may be called by another.
type Watch struct {
	s            *sharedSession
	book         *book
	conversation string        // empty: all conversations
	wake         chan struct{} // signals that queue or err has changed

	cursor share.Cursor // used only by the reader

	parked   map[string]parkedPosition // dialogs that the watch does not follow at present; guarded by book.mu
	reported map[string]bool           // dialogs that were reported as unreadable; guarded by book.mu
	tooLarge map[string]bool           // dialogs that are not read again; guarded by book.mu

	mu      sync.Mutex // may be locked with book.mu held, not the other way round
	err     error      // why the watch ended
	closed  bool
	queue   []*item
	waiting int              // live items in the queue
	bytes   int64            // approximate size of the queue, which is reserved in the cache
	tails   map[string]*item // the last item in the queue, by dialog
	passed  share.Cursor     // sequences passed since the reader last looked, of dialogs without an item in the queue
}

// item is a file in the queue of a watch, or an unreadable dialog.
type item struct {
	event      share.FileEvent
	unreadable *share.UnreadableDialog
	upTo       int64 // the last sequence before the dialog's next item
	live       bool
	size       int64 // reserved bytes
}

// parkedPosition is the position of a watch in a dialog that it does not follow.
type parkedPosition struct {
	sequence int64
	finished bool // the dialog has no further events unless it is reopened
}

// newWatch returns a watch that is not attached to its book yet. s may be nil in tests.
func newWatch(s *sharedSession, b *book, conversation string, after share.Cursor) *Watch {
	w := &Watch{
		s: s, book: b, conversation: conversation, wake: make(chan struct{}, 1),
		cursor: make(share.Cursor), tails: make(map[string]*item), parked: make(map[string]parkedPosition),
	}
	for dialog, sequence := range after {
		sequence = max(sequence, -1)
		w.cursor[dialog] = sequence
		w.parked[dialog] = parkedPosition{sequence: sequence}
	}
	return w
}

// Next waits for the next file. It fails with WatchTooSlow if the reader is too slow, with LPIdentityExpired if the identity has
// ended, with ServerDraining, with the error that makes the conversation unreadable, or with the cause of ctx's end. Only after the
// last one and after a *share.UnreadableDialog, which is a dialog that the watch leaves out, can the watch be used further. Files that
// arrived before the end of the session are still delivered.
func (w *Watch) Next(ctx context.Context) (share.FileEvent, error) {
	for {
		it, err := w.first()
		switch {
		case it == nil && err != nil:
			return share.FileEvent{}, err
		case it != nil:
			if it.event.Omitted > 0 && w.s != nil {
				if err := w.complete(ctx); err != nil {
					return share.FileEvent{}, err
				}
			}
			w.remove(it)
			if it.unreadable != nil {
				return share.FileEvent{}, it.unreadable
			}
			w.cursor[it.event.Dialog] = it.upTo
			return it.event, nil
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return share.FileEvent{}, context.Cause(ctx)
		}
	}
}

// first returns the first item of the queue. If the queue is empty, it returns why the watch ended; nil if it has not.
func (w *Watch) first() (*item, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		return nil, w.err
	}
	return w.queue[0], nil
}

// remove removes the first item of the queue, unless the queue was dropped meanwhile.
func (w *Watch) remove(it *item) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 || w.queue[0] != it {
		return
	}
	w.queue[0] = nil
	if w.queue = w.queue[1:]; len(w.queue) == 0 {
		w.queue = nil
	}
	w.bytes -= it.size
	w.held().Release(it.size)
	if it.live {
		w.waiting--
	}
	if w.tails[it.event.Dialog] == it {
		delete(w.tails, it.event.Dialog)
	}
}

// dropQueue must be called with mu held.
func (w *Watch) dropQueue() {
	w.held().Release(w.bytes)
	w.queue, w.tails, w.bytes = nil, nil, 0
}

func (w *Watch) held() *filecache.Part { return w.book.feeds.held }

// complete reads the previews of the first files of the queue. Those that cannot be read are delivered without.
func (w *Watch) complete(ctx context.Context) error {
	items, reserved := w.lacking()
	defer w.held().Release(reserved)
	files := make([]*share.FileEvent, len(items))
	for i, it := range items {
		e := it.event
		files[i] = &e
	}
	first := files[0]
	err := w.s.complete(ctx, dialogRef{first.Conversation, first.Dialog}, files)
	if err != nil && !share.OfDialog(err) {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, it := range items {
		it.event = *files[i]
		if more := it.event.Size() + itemBytes - it.size; len(w.queue) > 0 && more > 0 && w.held().Reserve(more) {
			it.size += more
			w.bytes += more
		}
		it.event.Omitted = 0 // not tried again
	}
	return nil
}

// lacking returns the first files of the queue that lack their previews, and the bytes reserved for the previews.
func (w *Watch) lacking() (items []*item, reserved int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, it := range w.queue {
		e := &it.event
		if n := len(items); n > 0 {
			last := &items[n-1].event
			if e.Omitted == 0 || e.Dialog != last.Dialog || e.Sequence-last.Sequence >= asideEvents ||
				reserved+int64(e.Omitted) > readAhead || !w.held().Reserve(int64(e.Omitted)) {
				break
			}
			reserved += int64(e.Omitted)
		}
		items = append(items, it)
	}
	return items, reserved
}

// Cursor returns the position behind the last file that Next has returned. Messages without a file that passed since are included.
// It does not hold up the session: the copy is made without a lock.
func (w *Watch) Cursor() share.Cursor {
	w.mu.Lock()
	passed := w.passed
	w.passed = nil
	w.mu.Unlock()
	for dialog, sequence := range passed {
		if known, ok := w.cursor[dialog]; !ok || sequence > known {
			w.cursor[dialog] = sequence
		}
	}
	return maps.Clone(w.cursor)
}

// Close ends the watch and releases its session. It may be called at any time and more than once.
func (w *Watch) Close() {
	w.book.remove(w)
	w.fail(errWatchClosed)
	w.mu.Lock()
	w.dropQueue()
	first := !w.closed
	w.closed = true
	w.mu.Unlock()
	if first && w.s != nil {
		w.s.p.release(w.s)
	}
}

// fail ends the watch, unless it has ended before. The queue remains.
func (w *Watch) fail(why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failLocked(why)
}

func (w *Watch) failLocked(why error) {
	if w.err == nil {
		w.err = why
		w.signal()
	}
}

func (w *Watch) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// reach notes that the events of a dialog were read, even if there were none.
func (w *Watch) reach(dialog string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tails[dialog] == nil {
		w.note(dialog, -1)
	}
}

// note records a sequence of a dialog without an item in the queue. The sequences of a dialog arrive in order.
func (w *Watch) note(dialog string, seq int64) {
	if w.passed == nil {
		w.passed = make(share.Cursor)
	}
	if known, ok := w.passed[dialog]; !ok || seq > known {
		w.passed[dialog] = seq
	}
}

// push adds the next event of a dialog; file is nil if it is not a file. It reports whether the watch continues.
func (w *Watch) push(dialog string, seq int64, file *share.FileEvent, live bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return false
	}
	if file == nil {
		if tail := w.tails[dialog]; tail != nil {
			tail.upTo = seq
		} else {
			w.note(dialog, seq)
		}
		return true
	}
	if live {
		if w.waiting == watchQueue {
			w.dropQueue()
			w.failLocked(errTooSlow())
			return false
		}
	}
	it := &item{event: *file, upTo: seq, live: live}
	if w.bytes > livePreviews {
		it.event = file.Brief()
	}
	if !w.enqueue(it) {
		if live { // the client resumes from its last token
			w.dropQueue()
		}
		w.failLocked(errTooSlow())
		return false
	}
	if live {
		w.waiting++
	}
	w.tails[dialog] = it
	return true
}

// enqueue adds an item to the queue, if there is memory for it. It must be called with mu held.
func (w *Watch) enqueue(it *item) bool {
	it.size = itemBytes + it.event.Size()
	if w.bytes+it.size > watchBytes && len(w.queue) > 0 || !w.held().Reserve(it.size) {
		return false
	}
	w.bytes += it.size
	w.queue = append(w.queue, it)
	w.signal()
	return true
}

// abandon reports a dialog that the watch leaves out, once. It must be called with book.mu held.
func (w *Watch) abandon(conversation, dialog string, why error) {
	if share.Is(why, share.ConversationTooLarge) {
		if w.tooLarge == nil {
			w.tooLarge = make(map[string]bool)
		}
		w.tooLarge[dialog] = true
	}
	e, ok := errors.AsType[*share.Error](why)
	if !ok || w.reported[dialog] {
		return
	}
	if w.reported == nil {
		w.reported = make(map[string]bool)
	}
	w.reported[dialog] = true
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.enqueue(&item{unreadable: &share.UnreadableDialog{Conversation: conversation, Dialog: dialog, Err: e}})
	}
}

// park keeps the position in a dialog that the watch no longer follows. It must be called with book.mu held.
func (w *Watch) park(dialog string, sequence int64, finished bool) {
	w.parked[dialog] = parkedPosition{sequence, finished}
}
