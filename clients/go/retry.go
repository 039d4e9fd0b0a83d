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

// defaultRetryFor is how long transfers are retried if the caller does not say.
const defaultRetryFor = 2 * time.Minute

const (
	unaryRetryFor = 15 * time.Second // how long after the first attempt of a unary call another one may begin
	unaryAttempts = 4                // maximum number of attempts of a unary call
)

// A verdict says whether a failed call is made again.
type verdict int

const (
	final      verdict = iota // report the error
	repeat                    // repeat the call, or continue it
	repeatOnce                // the same, but at most two tries in all
)

// judge applies the retry rule of the contract (see ErrorReason in error_reason.proto) to the error of a call. Its first step is
// the caller's: the own context has not ended. Which conditions of the server are repeatable is the server's decision alone: it
// adds RetryInfo to them.
func judge(err error) verdict {
	if _, own := errors.AsType[*ownError](err); own {
		return final
	}
	if _, damaged := errors.AsType[*damagedError](err); damaged {
		return repeat
	}
	st, ok := status.FromError(err)
	if err == nil || !ok {
		return final
	}
	if errorInfo(st) != nil {
		if _, asks := RetryDelay(err); asks {
			return repeat
		}
		return final
	}
	switch st.Code() {
	case codes.Unavailable, codes.Canceled, codes.Unknown: // the connection broke
		return repeat
	case codes.Internal: // the same, or a proxy that rejects the request
		return repeatOnce
	default:
		return final
	}
}

// A pacer decides whether and when a call that failed is made again. It serves one operation.
type pacer struct {
	op          string
	limit       time.Duration // how long after the beginning, or the last progress, an attempt may begin; negative: one attempt only
	maxAttempts int           // 0: no limit
	since       time.Time     // the beginning, or the last progress
	backoff     *backoff.ExponentialBackOff
	waiting     func(err error) // called before a wait for the next attempt; may be nil
	attempts    int             // number of attempts that have begun
	internal    int             // number of INTERNAL errors without ErrorInfo since the last progress
	renewed     bool            // the token was renewed since the last progress
}

func newPacer(op string, limit time.Duration) *pacer {
	if limit == 0 {
		limit = defaultRetryFor
	}
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.Multiplier, b.RandomizationFactor = 200*time.Millisecond, 5*time.Second, 2, 0.5
	b.Reset()
	return &pacer{op: op, limit: limit, since: time.Now(), backoff: b}
}

// progress resets time limit, backoff and counters.
func (p *pacer) progress() {
	p.since, p.internal, p.renewed = time.Now(), 0, false
	p.backoff.Reset()
}

// retry returns nil when the next attempt is to be made, after it has waited for it, and otherwise the error to report. err is the
// error of the last attempt, which was made as id with token. possible, if not nil, reports why no attempt can follow.
func (p *pacer) retry(ctx context.Context, err error, id Identity, token string, possible func() error) error {
	if _, own := errors.AsType[*ownError](err); ctx.Err() != nil && !own {
		return p.failed(contextError(ctx, p.op))
	}
	renewed := false
	if !p.renewed {
		_, renewed = id.renew(ctx, err, token)
		p.renewed = renewed
	}
	v := judge(err)
	err = p.failed(newError(p.op, err))
	if v == repeatOnce {
		p.internal++
	}
	if !renewed && (v == final || p.internal > 1) {
		return err
	}
	if possible != nil {
		if why := possible(); why != nil {
			return notRepeated(err, why.Error())
		}
	}
	if renewed {
		return nil
	}
	return p.wait(ctx, err)
}

// failed adds what the pacer knows to an error.
func (p *pacer) failed(err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		e.Op, e.Attempts = p.op, p.attempts
	}
	return err
}

// wait waits until the next attempt may begin and returns nil. If there is none, it returns err with the reason.
func (p *pacer) wait(ctx context.Context, err error) error {
	delay := p.backoff.NextBackOff()
	if asked, ok := RetryDelay(err); ok && asked > delay {
		delay = asked + rand.N(asked/5+1) // spreads callers that got the same delay
	}
	switch {
	case p.limit < 0:
		return notRepeated(err, "retries are disabled")
	case p.maxAttempts > 0 && p.attempts >= p.maxAttempts:
		return notRepeated(err, fmt.Sprintf("the limit is %d attempts", p.maxAttempts))
	case delay > p.limit-time.Since(p.since):
		return notRepeated(err, fmt.Sprintf("the next attempt would begin more than %v after the start or the last progress", p.limit))
	}
	if p.waiting != nil {
		p.waiting(err)
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

// notRepeated adds to an error why no attempt follows.
func notRepeated(err error, why string) error {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return fmt.Errorf("%w; not repeated: %s", err, why)
	}
	if e.NotRepeated == "" {
		e.NotRepeated = why
	}
	return err
}

// minReach is the minimum time to wait for a connection, however little of the time limit is left.
const minReach = time.Second

// reach opens a call, and cancels it if there is no connection when the time limit ends: calls wait for a connection, and with a
// context without a deadline they would wait for minutes. open begins the call with a context that cancel ends.
func (p *pacer) reach(cancel context.CancelFunc, open func() error) error {
	limit := p.limit
	if limit < 0 {
		limit = defaultRetryFor
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

// A damagedError means that bytes were damaged or lost between server and client. Another attempt may succeed.
type damagedError struct{ what string }

func (e *damagedError) Error() string { return e.what }

// GRPCStatus makes the error a DATA_LOSS.
func (e *damagedError) GRPCStatus() *status.Status { return status.New(codes.DataLoss, e.what) }
