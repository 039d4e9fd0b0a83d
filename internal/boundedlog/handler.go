package boundedlog

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Interval is the time between two lines that sum up what was left out of a kind.
const Interval = 10 * time.Second

// maxKinds bounds the number of kinds that are counted separately. The rest are counted as one kind.
const maxKinds = 512

// A Kind says which lines are alike: those with the same message and the same values of the attributes "code" and "reason".
type Kind struct{ Message, Code, Reason string }

// A Handler passes lines on to another handler, up to a number per second for each kind. The rest are counted, and summed up in one
// line per Interval. It is safe for concurrent use.
type Handler struct {
	next slog.Handler
	*limits
}

// limits are shared by a Handler and those that With makes of it.
type limits struct {
	perSecond func(Kind) int
	out       slog.Handler // for sums

	mu      sync.Mutex
	closed  bool
	kinds   map[Kind]*recent
	leftOut int64
}

// recent counts the lines of a kind.
type recent struct {
	second  time.Time // begin of the current second
	passed  int       // in that second
	leftOut int64     // since the last sum
	level   slog.Level
	timer   *time.Timer // nil if nothing was left out since the last sum
}

// NewHandler returns a Handler that passes perSecond(kind) lines of a kind per second to next. The caller must call Close.
func NewHandler(next slog.Handler, perSecond func(Kind) int) *Handler {
	return &Handler{next, &limits{perSecond: perSecond, out: next, kinds: make(map[Kind]*recent)}}
}

// Enabled implements slog.Handler.
func (h *Handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	if !h.admit(r) {
		return nil
	}
	return h.next.Handle(ctx, r)
}

// WithAttrs implements slog.Handler. The attributes do not count for the kind of a line.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Handler{h.next.WithAttrs(attrs), h.limits}
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{h.next.WithGroup(name), h.limits}
}

// LeftOut returns how many lines were left out.
func (l *limits) LeftOut() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leftOut
}

// Close sums up what was left out. Later lines are limited too, but not summed up.
func (l *limits) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for kind, r := range l.kinds {
		if r.timer != nil {
			r.timer.Stop()
			l.write(kind, r)
		}
	}
}

// admit counts a line, and reports whether it is to be written.
func (l *limits) admit(r slog.Record) bool {
	kind := kindOf(r)
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kinds[kind]
	if k == nil {
		if len(l.kinds) >= maxKinds {
			kind = Kind{Message: "other lines"}
			k = l.kinds[kind]
		}
		if k == nil {
			k = &recent{}
			l.kinds[kind] = k
		}
	}
	if now := time.Now(); now.Sub(k.second) >= time.Second {
		k.second, k.passed = now, 0
	}
	if k.passed < l.perSecond(kind) {
		k.passed++
		return true
	}
	k.leftOut++
	l.leftOut++
	k.level = r.Level
	if k.timer == nil && !l.closed {
		k.timer = time.AfterFunc(Interval, func() { l.sumUp(kind, k) })
	}
	return false
}

func (l *limits) sumUp(kind Kind, k *recent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.write(kind, k)
		k.timer = nil
	}
}

// write writes a sum. The caller must hold mu.
func (l *limits) write(kind Kind, k *recent) {
	sum := slog.NewRecord(time.Now(), k.level, "log lines were left out", 0)
	sum.AddAttrs(slog.String("like", kind.Message))
	if kind.Code != "" {
		sum.AddAttrs(slog.String("code", kind.Code))
	}
	if kind.Reason != "" {
		sum.AddAttrs(slog.String("reason", kind.Reason))
	}
	sum.AddAttrs(slog.Int64("lines", k.leftOut))
	_ = l.out.Handle(context.Background(), sum)
	k.leftOut = 0
}

func kindOf(r slog.Record) Kind {
	kind := Kind{Message: r.Message}
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "code":
			kind.Code = a.Value.String()
		case "reason":
			kind.Reason = a.Value.String()
		}
		return true
	})
	return kind
}
