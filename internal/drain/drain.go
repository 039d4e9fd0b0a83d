// Package drain ends a server in two steps: it first refuses new work, then ends the work that still runs.
package drain

import (
	"context"
	"sync"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A Drain is the state of one server's shutdown, shared by everything that serves calls.
type Drain struct {
	draining, stopping context.Context
	begin, stop        context.CancelFunc
	goroutines         sync.WaitGroup
}

// New returns a Drain that has not begun.
func New() *Drain {
	d := &Drain{}
	d.draining, d.begin = context.WithCancel(context.Background())
	d.stopping, d.stop = context.WithCancel(context.Background())
	return d
}

// Begin makes the server refuse new work. Running work continues.
func (d *Drain) Begin() { d.begin() }

// Stop ends the work that still runs.
func (d *Drain) Stop() {
	d.begin()
	d.stop()
}

// Wait stops the server and returns when every goroutine that Go started has ended. Calls of Go must not begin during Wait: the
// gRPC server must have ended all handlers before (grpc.WaitForHandlers).
func (d *Drain) Wait() {
	d.Stop()
	d.goroutines.Wait()
}

// Go runs f in a goroutine that Wait waits for.
func (d *Drain) Go(f func()) { d.goroutines.Go(f) }

// Draining returns a channel that is closed when the server begins to drain, Stopping one that is closed when it ends running work.
// Err returns the reason. They are for waits that need no context.
func (d *Drain) Draining() <-chan struct{} { return d.draining.Done() }

// Stopping: see Draining.
func (d *Drain) Stopping() <-chan struct{} { return d.stopping.Done() }

// Err returns SERVER_DRAINING if new work is refused, otherwise nil.
func (d *Drain) Err() error {
	if d.draining.Err() != nil {
		return errDraining()
	}
	return nil
}

// UntilDraining returns a context that also ends, with SERVER_DRAINING as its cause, when the server begins to drain. The caller
// must call cancel.
func (d *Drain) UntilDraining(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	return until(ctx, d.draining)
}

// UntilStopping returns a context that also ends, with SERVER_DRAINING as its cause, when the server ends running work. The caller
// must call cancel.
func (d *Drain) UntilStopping(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	return until(ctx, d.stopping)
}

func until(ctx, end context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(end, func() { cancel(errDraining()) })
	return ctx, func(cause error) {
		stop()
		cancel(cause)
	}
}

// Cause returns why ctx has ended, if it has. Otherwise it returns err: an error of something that broke because ctx ended is not
// the reason.
func Cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func errDraining() error {
	return share.Reject(share.ServerDraining, "the server is shutting down; retry with the same request_id on another server")
}
