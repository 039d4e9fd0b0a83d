// Package rejections counts what the server's limits reject, and logs it at a bounded rate.
package rejections

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"
)

// Interval is the minimum time between two log lines about one limit.
const Interval = 10 * time.Second

// A Tally counts rejections by limit. It is safe for concurrent use.
type Tally struct {
	log *slog.Logger

	mu     sync.Mutex
	closed bool
	counts map[string]int64
	recent map[string]*recent
}

// recent is what happened at one limit since its latest log line.
type recent struct {
	timer   *time.Timer
	count   int64
	example []slog.Attr // of the latest rejection
}

// New returns a Tally that logs to log. The caller must close it.
func New(log *slog.Logger) *Tally {
	return &Tally{log: log, counts: make(map[string]int64), recent: make(map[string]*recent)}
}

// Add counts a rejection. limit is its name, from a fixed set: the names are kept. The first rejection is logged at once, with attrs.
// Those that follow are summed up in one line per Interval, with the attrs of the latest. attrs must not contain secrets.
func (t *Tally) Add(limit string, attrs ...slog.Attr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[limit]++
	if r := t.recent[limit]; r != nil {
		r.count++
		r.example = attrs
		return
	}
	t.write(limit, 1, attrs)
	if !t.closed {
		t.recent[limit] = &recent{timer: time.AfterFunc(Interval, func() { t.sumUp(limit) })}
	}
}

// Counts returns the number of rejections by limit since the start.
func (t *Tally) Counts() map[string]int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.counts)
}

// Close logs what has not been logged yet. It may be called more than once.
func (t *Tally) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for limit, r := range t.recent {
		r.timer.Stop()
		if r.count > 0 {
			t.write(limit, r.count, r.example)
		}
	}
	clear(t.recent)
}

// sumUp logs the rejections of an interval. If there were none, the next one is logged at once again.
func (t *Tally) sumUp(limit string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.recent[limit]
	switch {
	case r == nil: // closed
	case r.count == 0:
		delete(t.recent, limit)
	default:
		t.write(limit, r.count, r.example)
		r.count, r.example = 0, nil
		r.timer.Reset(Interval)
	}
}

func (t *Tally) write(limit string, count int64, attrs []slog.Attr) {
	all := append([]slog.Attr{slog.String("limit", limit), slog.Int64("count", count)}, attrs...)
	t.log.LogAttrs(context.Background(), slog.LevelWarn, "rejected by a limit", all...)
}
