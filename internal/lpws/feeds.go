package lpws

import (
	"time"
	"unique"

	"github.com/lpfileshare/lpfileshare/internal/filecache"
	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// feeds is the part of a book about the events of dialogs, and the watches on them. book.mu guards it.
type feeds struct {
	conversations *conversations // of the same book
	now           func() time.Time
	cache         *filecache.Cache
	held          *filecache.Part // of the session's fetches and watches

	connection uint64           // id of the transport in use; 0 if there is none
	byDialog   map[string]*feed // created on first use, like watches
	watches    map[*Watch]struct{}
	starts     []*feed // feeds with a fetch that must be started; see takeStarts
}

// takeStarts returns the feeds with a fetch that must be started, since the last call.
func (fs *feeds) takeStarts() []*feed {
	starts := fs.starts
	fs.starts = nil
	return starts
}

func (fs *feeds) setBehind() {
	for _, f := range fs.byDialog {
		for _, p := range f.positions {
			p.live = false
		}
	}
}

func (fs *feeds) failWatches(why error) {
	for w := range fs.watches {
		w.fail(why)
		fs.detach(w)
	}
}

func (fs *feeds) applyEvent(e *lpwire.Event) {
	if !e.Sequence.OK || e.Sequence.N < 0 || e.DialogID == "" {
		return // chat states have no sequence, and are not needed
	}
	seq, dialog := e.Sequence.N, string(e.DialogID)
	c, ok := fs.conversations.own(fs.conversations.parent(e))
	if !ok {
		return
	}
	if _, listed := c.Dialog(dialog); !listed { // LivePerson lists it with the next change of the conversation
		c.Dialogs = append(c.Dialogs, share.Dialog{ID: dialog, Open: true})
		fs.conversations.put(c)
		fs.follow(c)
	}
	fs.conversations.exists(dialog, seq)
	f := fs.byDialog[dialog]
	if f == nil {
		return
	}
	file := fs.fileOf(f, e)
	brief := withoutPreview(file)
	if next, kept := f.kept.Next(); kept && next == seq {
		f.kept.Append(seq, seq+1, valueOf(brief)...)
	}
	if r := f.running; r != nil && r.begun {
		fs.collect(r, seq, brief)
	}
	for w := range f.wants {
		w.add(seq, file)
	}
	gap := false
	for w, p := range f.positions {
		switch {
		case !p.live || seq <= p.sequence:
		case seq == p.sequence+1:
			p.sequence = seq
			fs.pass(w, dialog, seq, file, true)
		default:
			p.live, gap = false, true
		}
	}
	if gap {
		fs.request(f, false)
	}
}

// collect adds an event to a fetch. A fetch whose events need too much memory ends with an error.
func (fs *feeds) collect(r *fetch, seq int64, file *share.FileEvent) {
	defer r.signal()
	if _, known := r.got[seq]; known || r.refused != nil {
		return
	}
	size := int64(gotBytes)
	if file != nil {
		size += file.Size()
	}
	switch {
	case r.reserved+size > fs.cache.MaxDialog():
		fs.refuse(r, errDialogTooLarge())
	case !fs.held.Reserve(size):
		fs.refuse(r, errNoMemory())
	default:
		r.reserved += size
		r.got[seq] = file
	}
}

// refuse makes a fetch fail, and gives its memory back.
func (fs *feeds) refuse(r *fetch, why error) {
	fs.held.Release(r.reserved)
	r.reserved, r.refused = 0, why
	clear(r.got)
	r.signal()
}

// fileOf converts an event; nil if it is not a file.
func (fs *feeds) fileOf(f *feed, e *lpwire.Event) *share.FileEvent {
	file, ok := e.File(fs.conversations.principal.Account)
	if !ok {
		return nil
	}
	// Few values repeat in all files: one copy of each saves memory.
	file.FileType = unique.Make(file.FileType).Value()
	return &share.FileEvent{
		Conversation: f.conversation, Dialog: f.dialog, Sequence: e.Sequence.N,
		SenderID: unique.Make(e.SenderID()).Value(), SenderRole: unique.Make(fs.conversations.role(f.conversation, e)).Value(),
		Time: e.Timestamp.Time(), File: file,
	}
}

// withoutPreview returns what is kept of a file, which may be nil.
func withoutPreview(file *share.FileEvent) *share.FileEvent {
	if file == nil {
		return nil
	}
	brief := file.Brief()
	return &brief
}

// valueOf returns the file, which may be nil, in a slice.
func valueOf(file *share.FileEvent) []share.FileEvent {
	if file == nil {
		return nil
	}
	return []share.FileEvent{*file}
}

// pass passes an event to a watch, and reports whether the watch continues.
func (fs *feeds) pass(w *Watch, dialog string, seq int64, file *share.FileEvent, live bool) bool {
	if w.push(dialog, seq, file, live) {
		return true
	}
	fs.detach(w)
	return false
}

// feed returns the feed of a dialog, and creates it if there is none.
func (fs *feeds) feed(conversation, dialog string) *feed {
	f := fs.byDialog[dialog]
	if f == nil {
		f = &feed{conversation: conversation, dialog: dialog, kept: fs.cache.Dialog()}
		if fs.byDialog == nil {
			fs.byDialog = make(map[string]*feed)
		}
		fs.byDialog[dialog] = f
	}
	return f
}

// forget drops a feed with its files.
func (fs *feeds) forget(f *feed) {
	f.kept.Drop()
	delete(fs.byDialog, f.dialog)
}

// request returns a fetch of the feed whose request is not sent yet.
func (fs *feeds) request(f *feed, files bool) *fetch {
	switch {
	case f.running == nil:
		f.running = newFetch(files)
		fs.starts = append(fs.starts, f)
		return f.running
	case !f.running.begun:
		f.running.files = f.running.files || files
		f.running.signal() // it may be waiting after a failure
		return f.running
	case f.queued == nil:
		f.queued = newFetch(files)
	}
	f.queued.files = f.queued.files || files
	return f.queued
}

// advance passes the events of a fetch to the watches, even if the fetch failed. current reports whether the connection is still in
// use: otherwise events that followed the answer may be lost.
func (fs *feeds) advance(f *feed, r *fetch, current bool) {
	fs.held.Release(r.reserved)
	r.reserved = 0
	if !r.begun || !r.needed() {
		return
	}
	sequences, gap := r.certain()
	if r.files && r.err == nil {
		f.keep(r, sequences)
	}
	for w, p := range f.positions {
		if p.sequence+1 < r.from { // the watch began after the request
			continue
		}
		if r.err == nil {
			w.reach(f.dialog)
		}
		if !fs.passAll(w, f, p, r, sequences) || gap || r.err != nil || !current {
			continue
		}
		p.live = true
		if r.closed {
			delete(f.positions, w)
			w.park(f.dialog, p.sequence, true)
		}
	}
}

// passAll passes the events of a fetch behind a position to its watch, and reports whether the watch continues.
func (fs *feeds) passAll(w *Watch, f *feed, p *position, r *fetch, sequences []int64) bool {
	for _, seq := range sequences {
		if seq > p.sequence {
			p.sequence = seq
			if !fs.pass(w, f.dialog, seq, r.got[seq], p.live) {
				return false
			}
		}
	}
	return true
}

// abandon gives up a dialog that cannot be read. It ends watches of the dialog's conversation; watches of all conversations report
// it and go on without the dialog.
func (fs *feeds) abandon(f *feed, err error) {
	for w, p := range f.positions {
		if w.conversation != "" {
			w.fail(err)
			fs.detach(w)
			continue
		}
		delete(f.positions, w)
		w.park(f.dialog, p.sequence, true)
		w.abandon(f.conversation, f.dialog, err)
	}
}

// discard notes that a frame was not read, which may have had events of the dialog, or of any dialog if it is empty. Running fetches
// fail, and watches read the dialog again.
func (fs *feeds) discard(dialog string) {
	for _, f := range fs.byDialog {
		if dialog != "" && dialog != f.dialog {
			continue
		}
		for _, p := range f.positions {
			p.live = false
		}
		switch r := f.running; {
		case r != nil && r.begun && r.refused == nil:
			fs.refuse(r, errDiscarded())
		case r == nil && len(f.positions) > 0:
			fs.request(f, false)
		}
	}
}

// detach removes a watch from all feeds.
func (fs *feeds) detach(w *Watch) {
	for _, f := range fs.byDialog {
		delete(f.positions, w)
	}
	delete(fs.watches, w)
}

// follow adapts all watches to a changed conversation.
func (fs *feeds) follow(c *conversation) {
	if len(fs.watches) == 0 {
		return
	}
	if !fs.conversations.participates(c) {
		fs.unfollow(c)
		return
	}
	for w := range fs.watches {
		fs.enter(w, c)
	}
}

// unfollow stops all watches of a conversation, so that they can resume later.
func (fs *feeds) unfollow(c *conversation) {
	for _, dialog := range dialogIDs(c.Conversation) {
		f := fs.byDialog[dialog]
		if f == nil {
			continue
		}
		for w, p := range f.positions {
			delete(f.positions, w)
			w.park(dialog, p.sequence, false)
		}
	}
}

// enter lets a watch follow all dialogs of a conversation, if the conversation belongs to it.
func (fs *feeds) enter(w *Watch, c *conversation) {
	if w.conversation != "" && w.conversation != c.ID || !fs.conversations.participates(c) {
		return
	}
	for _, dialog := range dialogIDs(c.Conversation) {
		d, _ := c.Dialog(dialog)
		from, parked := w.parked[dialog]
		if parked && from.finished && !d.Open || w.tooLarge[dialog] {
			continue
		}
		f := fs.feed(c.ID, dialog)
		if f.positions[w] != nil {
			continue
		}
		sequence := int64(-1)
		if parked {
			sequence = from.sequence
		}
		if f.positions == nil {
			f.positions = make(map[*Watch]*position)
		}
		f.positions[w] = &position{sequence: sequence}
		if fs.connection != 0 { // otherwise the next connection requests the events
			fs.request(f, false)
		}
	}
}
