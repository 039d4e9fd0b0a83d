package retry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

func failure(kind share.Kind) error { return share.Errorf(kind, "failed", nil) }

func after(kind share.Kind, wait time.Duration) error {
	return fmt.Errorf("wrapped: %w", &share.Error{Kind: kind, RetryAfter: wait})
}

func TestDo(t *testing.T) {
	policy := Policy{
		Attempts: 3,
		Kinds: map[share.Kind]Limit{
			share.StorageURLRejected: {Attempts: 2},
			share.FileNotFound:       {Attempts: 2, Pause: time.Second},
			share.LPRateLimited:      {},
		},
		Backoff: Backoff{First: 100 * time.Millisecond},
	}
	for name, c := range map[string]struct {
		fail     []error // what the attempts return; then nil
		attempts int
		took     time.Duration
		want     error
	}{
		"success":                    {nil, 1, 0, nil},
		"passes":                     {[]error{failure(share.LPTimeout), failure(share.StorageUnavailable)}, 3, 300 * time.Millisecond, nil},
		"does not pass":              {[]error{failure(share.LPTimeout), failure(share.LPUnavailable), failure(share.LPTimeout)}, 3, 300 * time.Millisecond, failure(share.LPTimeout)},
		"permanent":                  {[]error{failure(share.StorageDenied)}, 1, 0, failure(share.StorageDenied)},
		"without a kind":             {[]error{errors.New("x")}, 1, 0, errors.New("x")},
		"limit of a kind":            {[]error{failure(share.StorageURLRejected), failure(share.LPTimeout), failure(share.StorageURLRejected)}, 3, 300 * time.Millisecond, failure(share.StorageURLRejected)},
		"pause of a kind":            {[]error{failure(share.FileNotFound)}, 2, time.Second, nil},
		"passing, but not repeated":  {[]error{failure(share.LPRateLimited)}, 1, 0, failure(share.LPRateLimited)},
		"kinds are counted together": {[]error{failure(share.FileNotFound), failure(share.LPTimeout), failure(share.LPTimeout)}, 3, 1200 * time.Millisecond, failure(share.LPTimeout)},
		"Retry-After":                {[]error{after(share.LPUnavailable, 2*time.Second)}, 2, 2 * time.Second, nil},
		"Retry-After over the cap":   {[]error{after(share.LPUnavailable, time.Hour)}, 2, MaxPause, nil},
		"Retry-After under backoff":  {[]error{after(share.LPUnavailable, time.Millisecond)}, 2, 100 * time.Millisecond, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, attempts := time.Now(), 0
				err := Do(t.Context(), policy, func(context.Context) error {
					attempts++
					if attempts <= len(c.fail) {
						return c.fail[attempts-1]
					}
					return nil
				})
				if fmt.Sprint(err) != fmt.Sprint(c.want) {
					t.Errorf("got %v, want %v", err, c.want)
				}
				if took := time.Since(start); attempts != c.attempts || took != c.took {
					t.Errorf("%d attempts in %s, want %d in %s", attempts, took, c.attempts, c.took)
				}
			})
		})
	}
}

func TestDo_ContextEnds(t *testing.T) {
	cause := errors.New("the caller is gone")
	for name, during := range map[string]time.Duration{"in the pause": 50 * time.Millisecond, "in the attempt": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				if during > 0 {
					time.AfterFunc(during, func() { cancel(cause) })
				}
				start, attempts := time.Now(), 0
				err := Do(ctx, Policy{Attempts: 9, Backoff: Backoff{First: time.Second}}, func(context.Context) error {
					if attempts++; during == 0 {
						cancel(cause)
					}
					return failure(share.LPTimeout)
				})
				if err != cause || attempts != 1 || time.Since(start) != during {
					t.Errorf("%v after %d attempts and %s", err, attempts, time.Since(start))
				}
			})
		})
	}
}

func TestLoop_Reset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loop := New(Policy{Attempts: 2, Backoff: Backoff{First: time.Second}})
		for range 5 {
			start := time.Now()
			if err := loop.Wait(t.Context(), failure(share.StorageUnavailable)); err != nil || time.Since(start) != time.Second {
				t.Fatalf("%v after %s", err, time.Since(start))
			}
			loop.Reset()
		}
		_ = loop.Wait(t.Context(), failure(share.StorageUnavailable))
		if err := loop.Wait(t.Context(), failure(share.LPTimeout)); !share.Is(err, share.LPTimeout) {
			t.Errorf("the second failure without progress gave %v", err)
		}
	})
}

func TestLoop_Log(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		loop := New(Policy{Attempts: 2, Log: slog.New(slog.NewTextHandler(&log, nil)), Operation: "PUT"})
		_ = loop.Wait(t.Context(), failure(share.LPTimeout))
		_ = loop.Wait(t.Context(), failure(share.LPTimeout))
		if n := strings.Count(log.String(), "operation=PUT attempt=1"); n != 1 || strings.Count(log.String(), "\n") != 1 {
			t.Errorf("the log is %q", log.String())
		}
	})
}

func TestBackoff(t *testing.T) {
	b := Backoff{First: time.Second, Max: 5 * time.Second}
	for i, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second} {
		if got := b.Next(nil); got != want {
			t.Errorf("pause %d is %s, want %s", i+1, got, want)
		}
	}
	if got := b.Next(after(share.LPUnavailable, time.Hour)); got != 5*time.Second {
		t.Errorf("with a Retry-After of an hour: %s", got)
	}
	for range 1000 { // the pause cannot overflow
		b.Next(nil)
	}
	b.Reset()
	if got := b.Next(after(share.LPUnavailable, 3*time.Second)); got != 3*time.Second {
		t.Errorf("after Reset, with a Retry-After of 3 s: %s", got)
	}
	if got := b.Next(nil); got != 2*time.Second {
		t.Errorf("the pause behind it is %s", got)
	}
}

func TestBackoff_Spread(t *testing.T) {
	different := map[time.Duration]bool{}
	for range 100 {
		b := Backoff{First: time.Second, Max: time.Minute, Spread: true}
		d := b.Next(nil)
		if d < time.Second/2 || d > time.Second {
			t.Fatalf("a pause of %s", d)
		}
		different[d] = true
		if d := b.Next(after(share.LPUnavailable, 10*time.Second)); d != 10*time.Second {
			t.Fatalf("a Retry-After of 10 s became %s", d)
		}
	}
	if len(different) < 10 {
		t.Errorf("only %d different pauses", len(different))
	}
}
