package lpws

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

const (
	// cacheTime is how long the files of a dialog are kept after somebody asked for them.
	cacheTime = 15 * time.Second
	// cacheBytes is how much of a dialog is kept, roughly: previews are most of it.
	cacheBytes = 1 << 20
	// youngTime is how old a conversation may be to be taken for empty where nothing else is known of it.
	youngTime = 2 * time.Second
	// dialogsAtOnce is how many dialogs of one session are asked for at the same time: LivePerson bounds concurrent requests.
	dialogsAtOnce = 8
)

// A feed is what a link knows of the events of one dialog. There is one only while somebody watches the dialog, asks for it, or
// did so a moment ago. link.mu guards it.
//
// Sequences count all events of a dialog, but some are hidden from some readers, so a missing one may be late, lost or hidden.
// Who reads live events goes on only from one sequence to the next. Where one is missing, LivePerson is asked: that is a round.
// An event that was known to exist when LivePerson was asked proves that what is missing before it in the answer is hidden; of
// later ones nothing is known, and they are asked for in another round.
type feed struct {
	conversation, dialog string

	places  map[*Watch]*place
	running *round // the one that is being asked, and
	queued  *round // the one behind it: for who comes when an answer may be under way that does not have what he wants

	whole bool              // files has all files of sequences under next
	files []share.FileEvent // by sequence; only ever appended to, so that parts of it may be handed out
	next  int64
	size  int
	used  time.Time
}

// A place is how far a watch has got in a dialog.
type place struct {
	pos  int64 // the last sequence that was passed on; -1: none
	live bool  // nothing is missing behind pos but what is still to happen
}

// A round is one time that LivePerson is asked for the events of a dialog.
type round struct {
	files   bool // somebody wants all files of the dialog
	begun   bool
	closed  bool // the dialog is known to be closed, so nothing more will happen
	unsure  bool // nothing is known of a dialog that may well have events
	from    int64
	known   int64 // the highest sequence known to exist when it began
	got     map[int64]*share.FileEvent
	arrived chan struct{} // has room for one signal: that got has grown or, before it has begun, that it must not wait

	done   chan struct{} // closed when it is over; then what follows is set
	err    error
	result []share.FileEvent // all files of the dialog, if wanted
	end    int64             // one past the last event
}

func newRound(files bool) *round {
	return &round{files: files, got: make(map[int64]*share.FileEvent), arrived: make(chan struct{}, 1), done: make(chan struct{})}
}

func (r *round) rouse() {
	select {
	case r.arrived <- struct{}{}:
	default:
	}
}

// feed returns the feed of a dialog, and makes it if there is none. Call with mu held.
func (l *link) feed(conversation, dialog string) *feed {
	b := &l.book
	f := b.feeds[dialog]
	if f == nil {
		f = &feed{conversation: conversation, dialog: dialog, used: l.p.cfg.Now()}
		if b.feeds == nil {
			b.feeds = make(map[string]*feed)
		}
		b.feeds[dialog] = f
	}
	return f
}

// request has LivePerson asked for a dialog, from now on: a round that has begun already does not count. Call with mu held.
func (l *link) request(f *feed, files bool) *round {
	switch {
	case f.running == nil:
		f.running = newRound(files)
		if !l.p.spawn(func() { l.runRounds(f) }) {
			r := f.running
			f.running = nil
			r.err = errDraining
			close(r.done)
			return r
		}
		return f.running
	case !f.running.begun:
		f.running.files = f.running.files || files
		f.running.rouse() // it may be waiting out a failure
		return f.running
	case f.queued == nil:
		f.queued = newRound(files)
	}
	f.queued.files = f.queued.files || files
	return f.queued
}

// runRounds asks for a dialog as long as anybody wants it to. There is one for a feed with a running round.
func (l *link) runRounds(f *feed) {
	backoff := l.p.cfg.BackoffMin
	for {
		l.mu.Lock()
		r := f.running
		l.mu.Unlock()
		c, err := l.fetch(f, r)

		l.mu.Lock()
		more := false
		if r.err = err; err == nil {
			backoff = l.p.cfg.BackoffMin
		}
		if l.complete(f, r, c) && err == nil {
			more = l.conn != nil // else it is asked for with the next connection
		}
		close(r.done)
		f.running, f.queued = f.queued, nil
		if f.running == nil && more {
			f.running = newRound(false)
		}
		again := f.running != nil
		pause := time.Duration(0)
		if err != nil && !again && f.behind() {
			switch {
			case l.err != nil:
			case c == nil || c != l.conn:
				// The connection is gone, and with the next one the feed is asked for again; unless that came while we were not looking.
				if again = l.conn != nil; again {
					f.running = newRound(false)
				}
			case !passing(err):
				l.giveUp(f, err)
			default:
				f.running, again = newRound(false), true
				pause = max(backoff, retryAfter(err))
				backoff = min(2*backoff, l.p.cfg.BackoffMax)
			}
		}
		next := f.running
		l.mu.Unlock()
		if !again {
			return
		}
		if pause > 0 {
			l.log("the messages of a dialog could not be read", slog.Any("error", err), slog.Duration("pause", pause))
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-next.arrived:
			case <-c.done:
			case <-l.ended:
			}
			timer.Stop()
		}
	}
}

// behind reports whether a watch waits for something that was missed.
func (f *feed) behind() bool {
	for _, pl := range f.places {
		if !pl.live {
			return true
		}
	}
	return false
}

// passing reports whether an error may be gone when the question is repeated.
func passing(err error) bool {
	return share.Is(err, share.LPUnavailable, share.LPTimeout, share.LPRateLimited)
}

func retryAfter(err error) time.Duration {
	if e, ok := errors.AsType[*share.Error](err); ok {
		return e.RetryAfter
	}
	return 0
}

// giveUp: a dialog that cannot be read ends a watch of its conversation; a watch of all goes on without it. Call with mu held.
func (l *link) giveUp(f *feed, err error) {
	for w, pl := range f.places {
		if w.conversation != "" {
			w.end(err)
			continue
		}
		delete(f.places, w)
		w.left(f.dialog, pl.pos, true)
	}
}

// fetch asks LivePerson for what a round wants, and collects it. It returns the connection that it asked, if any.
func (l *link) fetch(f *feed, r *round) (*conn, error) {
	ctx, cancel := context.WithTimeoutCause(l.p.ctx, l.p.cfg.CallTimeout, errTimeout)
	defer cancel()
	c, err := l.acquire(ctx)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	if l.book.slots == nil {
		l.book.slots = make(chan struct{}, dialogsAtOnce)
	}
	slots := l.book.slots
	l.mu.Unlock()
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	case <-c.done:
		return c, c.death.asError()
	case <-ctx.Done():
		return c, context.Cause(ctx)
	}

	l.mu.Lock()
	wanted := l.begin(f, r)
	l.mu.Unlock()
	if !wanted {
		return c, nil
	}
	events, settled, err := l.d.backlog(ctx, c, f.conversation, f.dialog, r.from)
	if d, ok := errors.AsType[*death](err); ok {
		return c, d.asError()
	}
	if err != nil {
		if share.Is(err, share.LPIdentityExpired) && l.identityOver(c, err) {
			err = errUnavailable(err) // until the next connection is there
		}
		return c, err
	}
	l.mu.Lock()
	for i := range events {
		if e := &events[i]; e.Sequence.OK && e.Sequence.N >= 0 {
			r.got[e.Sequence.N] = l.fileOf(f, e)
			if settled {
				r.known = max(r.known, e.Sequence.N)
			}
		}
	}
	l.mu.Unlock()
	if settled {
		return c, nil
	}
	return c, l.linger(ctx, c, r)
}

// begin settles what a round asks for, and reports whether it is anything. Call with mu held.
func (l *link) begin(f *feed, r *round) bool {
	r.begun = true
	r.from = math.MaxInt64
	if r.files {
		r.from = 0
		if f.whole {
			r.from = f.next
		}
	}
	for _, pl := range f.places {
		if !pl.live {
			r.from = min(r.from, pl.pos+1)
		}
	}
	r.known = -1
	if last, ok := l.book.last[f.dialog]; ok {
		r.known = last
	}
	if c := l.book.convs[f.conversation]; c != nil {
		d, ok := c.Dialog(f.dialog)
		r.closed = ok && !d.Open
		r.unsure = r.known < 0 && r.from == 0 && !c.local && l.p.cfg.Now().Sub(c.Start) > youngTime
	}
	return r.from != math.MaxInt64
}

// linger waits for the backlog of a dialog, which may come after the answer that announces it. Where nothing is known to be
// missing it does not wait at all.
func (l *link) linger(ctx context.Context, c *conn, r *round) error {
	start := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		l.mu.Lock()
		complete, seen := r.covers()
		l.mu.Unlock()
		if complete {
			return nil
		}
		grace := l.p.cfg.Grace
		switch {
		case r.unsure:
			grace /= 4 // most dialogs that old have events, and most that have are known to
		case !seen:
			grace *= 5 // it must come, if not too much is hidden from the caller
		}
		left := grace - time.Since(start)
		if left <= 0 {
			return nil
		}
		timer.Reset(left)
		select {
		case <-r.arrived:
		case <-timer.C:
		case <-c.done:
			return c.death.asError()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// covers reports whether all events that were known to exist have come, and whether the last of them has. Call with link.mu held.
func (r *round) covers() (complete, last bool) {
	if r.known < r.from {
		return !r.unsure || len(r.got) > 0, true
	}
	_, last = r.got[r.known]
	if !last || r.known-r.from >= int64(len(r.got)) {
		return false, last
	}
	for seq := r.from; seq < r.known; seq++ {
		if _, ok := r.got[seq]; !ok {
			return false, last
		}
	}
	return true, true
}

// complete makes use of what a round has brought over c, even if it failed, and reports whether there must be another. Call with
// mu held.
func (l *link) complete(f *feed, r *round, c *conn) (more bool) {
	f.used = l.p.cfg.Now()
	if !r.begun || r.from == math.MaxInt64 {
		return f.behind()
	}
	if r.err != nil {
		r.known = -1 // it proves nothing about what is missing
	}
	// Up to known the answer is all that the caller may see; beyond, only what follows without a gap is certain.
	end, leftOver := r.from, false
	var sequences []int64
	for _, seq := range slices.Sorted(maps.Keys(r.got)) {
		if seq < r.from {
			continue
		}
		if seq > r.known && seq != end {
			leftOver = true
			break
		}
		sequences = append(sequences, seq)
		end = seq + 1
	}
	r.end = max(end, f.next)
	if r.files && r.err == nil {
		l.collect(f, r, sequences)
	}
	for w, pl := range f.places {
		if pl.pos+1 < r.from { // came while the question was under way
			continue
		}
		if r.err == nil {
			w.reached(f.dialog)
		}
		for _, seq := range sequences {
			if seq > pl.pos {
				w.pass(f.dialog, seq, r.got[seq], pl.live)
				pl.pos = seq
			}
		}
		if w.err != nil {
			continue
		}
		if leftOver || r.err != nil || c != l.conn { // with the connection, what came after the answer is lost
			continue
		}
		pl.live = true
		if r.closed { // nothing more will come
			delete(f.places, w)
			w.left(f.dialog, pl.pos, true)
		}
	}
	return f.behind()
}

// collect puts the files of a round to those that are known. Call with mu held.
func (l *link) collect(f *feed, r *round, sequences []int64) {
	if !f.whole {
		f.whole, f.files, f.next, f.size = true, nil, 0, 0
	}
	for _, seq := range sequences {
		if seq >= f.next {
			f.add(seq, r.got[seq])
		}
	}
	r.result, r.end = slices.Clip(f.files), f.next
	if f.size > cacheBytes {
		f.uncache()
	}
}

// add appends the next event.
func (f *feed) add(seq int64, file *share.FileEvent) {
	f.next = seq + 1
	if file != nil {
		f.files = append(f.files, *file)
		f.size += 256 + len(file.File.Preview) + len(file.File.Caption) + len(file.File.StoragePath)
	}
}

func (f *feed) uncache() { f.whole, f.files, f.next, f.size = false, nil, 0, 0 }

// happened takes one event from the socket. Call with mu held.
func (l *link) happened(e *lpwire.Event) {
	if !e.Sequence.OK || e.Sequence.N < 0 || e.DialogID == "" {
		return // chat states have none, and nothing to tell
	}
	b := &l.book
	seq, dialog := e.Sequence.N, string(e.DialogID)
	id, known := b.dialogs[dialog]
	if !known {
		if id = dialog; b.convs[id] == nil {
			id = string(e.ConversationID)
		}
	}
	c, ok := l.mine(id)
	if !ok {
		return
	}
	if _, listed := c.Dialog(dialog); !listed { // its conversation's next change will list it
		c.Dialogs = append(c.Dialogs, share.Dialog{ID: dialog, Open: true})
		l.put(c)
		l.follow(c)
	}
	l.exists(dialog, seq)
	f := b.feeds[dialog]
	if f == nil || f.running == nil && len(f.places) == 0 {
		return
	}
	file := l.fileOf(f, e)
	if r := f.running; r != nil && r.begun {
		r.got[seq] = file
		r.rouse()
	}
	gap := false
	for w, pl := range f.places {
		switch {
		case !pl.live || seq <= pl.pos:
		case seq == pl.pos+1:
			w.pass(dialog, seq, file, true)
			pl.pos = seq
		default:
			pl.live, gap = false, true
		}
	}
	if gap {
		l.request(f, false)
	}
}

// fileOf returns the event as a file, or nil if it is none.
func (l *link) fileOf(f *feed, e *lpwire.Event) *share.FileEvent {
	file, ok := e.File(l.who.Account)
	if !ok {
		return nil
	}
	return &share.FileEvent{
		Conversation: f.conversation, Dialog: f.dialog, Sequence: e.Sequence.N,
		SenderID: e.SenderID(), SenderRole: l.roleOf(f.conversation, e), Time: e.Timestamp.Time(), File: file,
	}
}

// roleOf is the sender's role: as the event says, or else as the conversation does.
func (l *link) roleOf(conversation string, e *lpwire.Event) share.Role {
	if role := e.Originator.V.Role; role != "" {
		return share.Role(role)
	}
	id := e.SenderID()
	if c := l.book.convs[conversation]; c != nil {
		for _, p := range c.Participants {
			if p.ID == id {
				return p.Role
			}
		}
	}
	if l.d.isSelf(id, l.who) {
		return l.who.Role
	}
	return ""
}

// connected has all dialogs asked for that anybody watches. Call with mu held.
func (b *book) connected(l *link) {
	for _, f := range b.feeds {
		if f.behind() {
			l.request(f, false)
		}
	}
}

// disconnected: from now on, events may be missed. Call with mu held.
func (b *book) disconnected() {
	for _, f := range b.feeds {
		for _, pl := range f.places {
			pl.live = false
		}
	}
}

// expire forgets what nobody has asked for in a while. Call with mu held.
func (b *book) expire(now time.Time) {
	for dialog, f := range b.feeds {
		if f.running != nil || now.Sub(f.used) < cacheTime {
			continue
		}
		f.uncache()
		if len(f.places) == 0 {
			delete(b.feeds, dialog)
		}
	}
}

// ended ends all that waits. Call with mu held.
func (b *book) ended(why error) {
	b.endWatches(why)
	b.feeds, b.convs, b.dialogs, b.last = nil, nil, nil, nil
}

// endWatches ends all watches. Call with mu held.
func (b *book) endWatches(why error) {
	for w := range b.watches {
		w.end(why)
	}
}

// files returns all files of a dialog, as LivePerson has them now, and one past the dialog's last sequence.
func (l *link) files(ctx context.Context, conversation, dialog string) ([]share.FileEvent, int64, error) {
	for try := 1; ; try++ {
		l.mu.Lock()
		if l.err != nil {
			defer l.mu.Unlock()
			return nil, 0, l.endError(l.err)
		}
		c := l.conn
		r := l.request(l.feed(conversation, dialog), true)
		l.mu.Unlock()
		select {
		case <-r.done:
		case <-ctx.Done():
			return nil, 0, context.Cause(ctx)
		}
		if r.err == nil {
			return r.result, r.end, nil
		}
		// Reading may be repeated, over a fresh connection if this one was lost.
		l.mu.Lock()
		lost := c != nil && c != l.conn
		l.mu.Unlock()
		if try == 2 || !lost || !share.Is(r.err, share.LPUnavailable) {
			return nil, 0, r.err
		}
	}
}

// cached returns the file that shows a path among those that are known of a dialog.
func (l *link) cached(dialog, path string) (share.FileEvent, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.book.feeds[dialog]
	if f == nil {
		return share.FileEvent{}, false
	}
	f.used = l.p.cfg.Now()
	return withPath(f.files, path)
}

// withPath returns the first of files that shows a path.
func withPath(files []share.FileEvent, path string) (share.FileEvent, bool) {
	i := slices.IndexFunc(files, func(e share.FileEvent) bool { return e.File.StoragePath == path })
	if i < 0 {
		return share.FileEvent{}, false
	}
	return files[i], true
}
