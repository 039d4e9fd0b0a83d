package admission

import (
	"sync"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Watches limits the watches of all callers. A caller may have at most as many as stay free: half of all if it is alone, and 1/(n+1)
// of them each if n callers want all they can get. A caller's first watch needs only a free one.
type Watches struct {
	mu   sync.Mutex
	free int
	open map[Caller]int
}

// NewWatches returns Watches with a limit over all callers.
func NewWatches(limit int) *Watches { return &Watches{free: limit, open: make(map[Caller]int)} }

// Acquire counts one more watch. TooManyStreams if a limit is reached. The caller of Acquire calls release once, when the watch has
// ended.
func (w *Watches) Acquire(c Caller) (release func(), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := w.open[c]; w.free == 0 || n > 0 && n+1 > w.free-1 {
		return nil, share.Reject(share.TooManyStreams, "the server has as many watches as it may, and this caller has %d of them; retry later", n).
			With("limit", "watches")
	}
	w.free--
	w.open[c]++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.free++
		if w.open[c]--; w.open[c] == 0 {
			delete(w.open, c)
		}
	}, nil
}
