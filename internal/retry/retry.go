// Package retry repeats operations that failed because of a condition that passes by itself (share.Passing).
//
// Do runs an operation to its end. A Loop is the same for callers that make progress between failures, such as a download that
// continues. A Backoff alone computes pauses, for callers with their own loop. None of them decides whether an operation may be
// repeated: only operations without effect, or with one that a repeat does not double, may be passed to Do.
package retry

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A Policy says which errors lead to another attempt, and how long to wait before it.
type Policy struct {
	// Attempts is the maximum number of attempts, the first one included, as long as they fail with passing errors. 0 and 1 mean no
	// second attempt.
	Attempts int
	// Kinds sets limits for single kinds of errors, which may be kinds that do not pass by themselves. They apply instead of Attempts.
	Kinds map[share.Kind]Limit
	// Backoff sets the pauses.
	Backoff Backoff
	// Log receives one line at level info for each repeated attempt; nil logs nothing.
	Log *slog.Logger
	// Operation names the operation in the log: "PUT".
	Operation string
}

// A Limit is the part of a Policy for one kind of error.
type Limit struct {
	// Attempts is the maximum number of attempts that fail with this kind. 0 and 1 mean no second attempt.
	Attempts int
	// Pause, if not 0, replaces the backoff's pause after this kind.
	Pause time.Duration
}

// Do calls attempt until it succeeds, fails for good or has failed too often, and returns its last error. If ctx ends first, Do
// returns the cause of that.
func Do(ctx context.Context, p Policy, attempt func(context.Context) error) error {
	for loop := New(p); ; {
		err := attempt(ctx)
		if err == nil {
			return nil
		}
		if err := loop.Wait(ctx, err); err != nil {
			return err
		}
	}
}

// A Loop counts the failures of one operation. It is not safe for concurrent use.
type Loop struct {
	policy   Policy
	failures int
	byKind   map[share.Kind]int // nil before the first failure
}

// New returns a Loop without failures.
func New(p Policy) *Loop { return &Loop{policy: p} }

// Wait counts a failed attempt. It waits for the pause and returns nil if another attempt may begin; otherwise it returns err at
// once. If ctx has ended, or ends during the pause, Wait returns the cause of that.
func (l *Loop) Wait(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	kind := share.KindOf(err)
	l.failures++
	if l.byKind == nil {
		l.byKind = make(map[share.Kind]int)
	}
	l.byKind[kind]++
	limit, single := l.policy.Kinds[kind]
	if single && l.byKind[kind] >= limit.Attempts || !single && (!share.Passing(kind) || l.failures >= l.policy.Attempts) {
		return err
	}
	pause := l.policy.Backoff.Next(err)
	if limit.Pause > 0 {
		pause = limit.Pause
	}
	if l.policy.Log != nil {
		l.policy.Log.LogAttrs(ctx, slog.LevelInfo, "an attempt failed and is repeated", slog.String("operation", l.policy.Operation),
			slog.Int("attempt", l.failures), slog.Duration("pause", pause), slog.Any("error", err))
	}
	return Sleep(ctx, pause)
}

// Reset forgets the failures: the operation has made progress.
func (l *Loop) Reset() {
	l.failures = 0
	clear(l.byKind)
	l.policy.Backoff.Reset()
}

// A Backoff computes pauses that double after each failure. It keeps its state between failures until Reset. The zero value pauses
// only for as long as the peer asked, up to MaxPause.
type Backoff struct {
	// First is the first pause, Max the longest. Max also limits how long a peer's Retry-After is waited for; 0 means MaxPause.
	First, Max time.Duration
	// Spread randomizes each pause between one half and the whole of it, so that clients of one failed server do not return
	// together. It does not shorten a Retry-After.
	Spread bool

	doubled int
}

// MaxPause is the longest pause of a Backoff without Max: a caller is waiting for the operation.
const MaxPause = 3 * time.Second

// Next returns the pause before the next attempt: at least the RetryAfter of a *share.Error, at most Max.
func (b *Backoff) Next(err error) time.Duration {
	longest := b.Max
	if longest == 0 {
		longest = MaxPause
	}
	pause := b.First
	for i := 0; i < b.doubled && pause < longest; i++ {
		pause *= 2
	}
	b.doubled++
	pause = min(pause, longest)
	if b.Spread && pause > 0 {
		pause = pause/2 + rand.N(pause/2+1)
	}
	if e, ok := errors.AsType[*share.Error](err); ok {
		pause = max(pause, min(e.RetryAfter, longest))
	}
	return pause
}

// Reset makes the next pause the first one again.
func (b *Backoff) Reset() { b.doubled = 0 }

// Sleep waits for d, or until ctx ends; then it returns the cause.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
