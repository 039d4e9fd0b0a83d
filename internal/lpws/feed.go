package lpws

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/filecache"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// gotBytes is the approximate size of an event in a fetch, without its file.
const gotBytes = 64

// feed is the known state of the events of one dialog. It exists only while the dialog is watched or read, and as long as its files
// are kept. book.mu guards it.
//
// Sequences count all events of a dialog, but LivePerson hides some events from some readers. So a missing sequence may be late,
// lost or hidden. A live position therefore advances only from one sequence to the next. If one is missing, the events are fetched
// again. An event that was known to exist before the fetch proves that the sequences missing before it are hidden. For later
// sequences nothing is known, and another fetch follows.
type feed struct {
	conversation, dialog string

	positions map[*Watch]*position
	running   *fetch // the current one
	queued    *fetch // the next one, for readers that arrived after the request of the current one may have been sent

	kept   *filecache.Dialog    // all files below a sequence, by sequence
	wants  map[*wanted]struct{} // readers of files that are kept without their previews
	logged time.Time            // when a failure was logged
}

// wanted are the messages of a dialog that one reader waits for.
type wanted struct {
	files   map[int64]*share.FileEvent // by sequence; nil for messages that have not arrived
	missing int
	arrived chan struct{} // closed when none is missing
}

func newWanted(sequences []int64) *wanted {
	w := &wanted{files: make(map[int64]*share.FileEvent, len(sequences)), missing: len(sequences), arrived: make(chan struct{})}
	for _, seq := range sequences {
		w.files[seq] = nil
	}
	return w
}

// add adds a message if it is wanted.
func (w *wanted) add(seq int64, file *share.FileEvent) {
	if known, wanted := w.files[seq]; !wanted || known != nil || file == nil {
		return
	}
	w.files[seq] = file
	if w.missing--; w.missing == 0 {
		close(w.arrived)
	}
}

// position is how far a watch has read a dialog.
type position struct {
	sequence int64 // of the last event that was passed on; -1 if none
	live     bool  // no event behind sequence is missing
}

// fetch is one request for the events of a dialog.
type fetch struct {
	files  bool // the caller wants all files of the dialog
	begun  bool
	closed bool // the dialog is closed, so no event will follow
	unsure bool // nothing is known about the dialog, but it may have events
	from   int64
	known  int64 // the highest sequence known before the request; -1 if none

	base     []share.FileEvent // the files that were kept at the beginning, below sequence baseNext
	baseNext int64
	got      map[int64]*share.FileEvent // without previews; nil for events that are not files
	reserved int64                      // bytes of got
	refused  error                      // why got is not complete: there is no memory for it, or a frame was discarded
	arrived  chan struct{}              // signals that got has grown or, before the beginning, that the fetch must not wait

	done   chan struct{} // closed at the end; then the following fields are set
	err    error
	result []share.FileEvent // all files of the dialog, if wanted
	end    int64             // one past the last sequence, if files are wanted
}

func newFetch(files bool) *fetch {
	return &fetch{files: files, got: make(map[int64]*share.FileEvent), arrived: make(chan struct{}, 1), done: make(chan struct{})}
}

func (r *fetch) signal() {
	select {
	case r.arrived <- struct{}{}:
	default:
	}
}

// needed reports whether the fetch has anything to request.
func (r *fetch) needed() bool { return r.from != math.MaxInt64 }

// many reports whether so many events are expected that they are read over a connection of their own.
func (r *fetch) many() bool { return r.known-r.from >= asideEvents }

// covered reports whether all events that were known to exist have arrived, and whether the last of them has.
func (r *fetch) covered() (complete, last bool) {
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

// certain returns the sequences that may be passed on, in order. gap reports whether others arrived behind a missing one.
func (r *fetch) certain() (sequences []int64, gap bool) {
	known := r.known
	if r.err != nil {
		known = -1 // the answer is incomplete, so it proves nothing about missing sequences
	}
	// Up to known, the answer is all that the caller may see. Behind it, only sequences without a gap are certain.
	end := r.from
	for _, seq := range slices.Sorted(maps.Keys(r.got)) {
		if seq < r.from {
			continue
		}
		if seq > known && seq != end {
			return sequences, true
		}
		sequences = append(sequences, seq)
		end = seq + 1
	}
	return sequences, false
}

// behind reports whether a watch misses events.
func (f *feed) behind() bool {
	for _, p := range f.positions {
		if !p.live {
			return true
		}
	}
	return false
}

// start returns the sequence from which a fetch must read; math.MaxInt64 if it has nothing to read.
func (f *feed) start(r *fetch) int64 {
	from := int64(math.MaxInt64)
	if r.files {
		r.base, r.baseNext, _ = f.kept.Files()
		from = r.baseNext
	}
	for _, p := range f.positions {
		if !p.live {
			from = min(from, p.sequence+1)
		}
	}
	return from
}

// keep adds the files of a fetch to those that are kept, and sets the result of the fetch.
func (f *feed) keep(r *fetch, sequences []int64) {
	// Live events may have been kept meanwhile, or everything may have been dropped.
	next, kept := f.kept.Next()
	if !kept || next < r.baseNext {
		next = r.baseNext
	}
	end, files := next, []share.FileEvent(nil)
	for _, seq := range sequences {
		if seq >= next {
			end = seq + 1
			if file := r.got[seq]; file != nil {
				files = append(files, *file)
			}
		}
	}
	if kept || r.baseNext == 0 {
		f.kept.Append(next, end, files...)
	} else {
		f.kept.Replace(end, slices.Concat(r.base, files))
	}
	var ok bool
	if r.result, r.end, ok = f.kept.Files(); !ok || r.end < end { // there is no memory to keep it
		r.result, r.end = slices.Clone(r.base), end
		for _, seq := range sequences {
			if file := r.got[seq]; seq >= r.baseNext && file != nil {
				r.result = append(r.result, *file)
			}
		}
	}
}

// withPath returns the first of files with that storage path.
func withPath(files []share.FileEvent, path string) (share.FileEvent, bool) {
	i := slices.IndexFunc(files, func(e share.FileEvent) bool { return e.File.StoragePath == path })
	if i < 0 {
		return share.FileEvent{}, false
	}
	return files[i], true
}
