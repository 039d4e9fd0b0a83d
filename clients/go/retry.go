package lpfileshare

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// retryFor is how long transient errors are answered by further attempts, where the caller does not say.
const retryFor = 2 * time.Minute

// A pacer decides whether and when a call that failed is made again.
type pacer struct {
	limit    time.Duration // no attempt begins later than this after the first, or after the last progress; negative: one attempt
	since    time.Time
	backoff  *backoff.ExponentialBackOff
	attempts int // that were begun
	renewed  bool
}

func newPacer(limit time.Duration) *pacer {
	if limit == 0 {
		limit = retryFor
	}
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.Multiplier, b.RandomizationFactor = 200*time.Millisecond, 5*time.Second, 2, 0.5
	b.Reset()
	return &pacer{limit: limit, since: time.Now(), backoff: b}
}

// progress starts the patience anew, because something was got done.
func (p *pacer) progress() {
	p.since, p.renewed = time.Now(), false
	p.backoff.Reset()
}

// minReach is how long a connection is waited for at the least, however little of the patience is left.
const minReach = time.Second

// reach makes a call, and gives up when there is no connection for it when the patience ends: calls wait for a connection, and
// a context without a deadline would have them do so for minutes. open begins the call with ctx, which cancel ends.
func (p *pacer) reach(cancel context.CancelFunc, open func() error) error {
	limit := p.limit
	if limit < 0 {
		limit = retryFor
	}
	timer := time.AfterFunc(max(limit-time.Since(p.since), minReach), cancel)
	err := open()
	if timer.Stop() {
		return err
	}
	text := "no connection"
	if st, ok := status.FromError(err); ok && err != nil {
		text = st.Message()
	}
	return status.Errorf(codes.Unavailable, "the server was not reached within %v: %s", time.Since(p.since).Round(time.Second), text)
}

// wait waits for the time of the next attempt after err. It returns nil when that has come; else err, with the reason why no
// further attempt is made where that is not plain from err itself.
func (p *pacer) wait(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	delay := p.backoff.NextBackOff()
	if asked, ok := RetryDelay(err); ok && asked > delay {
		delay = asked + rand.N(asked/5+1) // spread out who was told the same time
	}
	if p.limit < 0 {
		return notRepeated(err, "repeating is switched off")
	}
	if left := p.limit - time.Since(p.since); delay > left {
		return notRepeated(err, fmt.Sprintf("trying for %v is enough", p.limit))
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w while waiting to repeat: %w", context.Cause(ctx), err)
	}
}

// notRepeated notes on an error why there was no further attempt.
func notRepeated(err error, why string) error {
	var e *Error
	if !errors.As(err, &e) {
		return fmt.Errorf("%w; not repeated: %s", err, why)
	}
	if e.NotRepeated == "" {
		e.NotRepeated = why
	}
	return err
}
