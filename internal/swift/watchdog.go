package swift

import (
	"context"
	"errors"
	"time"
)

// errStalled ends the context of a request whose store is stuck.
var errStalled = errors.New("no progress")

// A watchdog ends a request's context unless it is disarmed, or armed anew, in time. It starts disarmed.
type watchdog struct {
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

// newWatchdog returns a context for the request and its watchdog, which the caller ends.
func newWatchdog(ctx context.Context) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watchdog{cancel: cancel}
	w.timer = time.AfterFunc(time.Hour, func() { cancel(errStalled) })
	w.timer.Stop()
	return ctx, w
}

func (w *watchdog) arm(d time.Duration) { w.timer.Reset(d) }

func (w *watchdog) disarm() { w.timer.Stop() }

// end ends the request with the watchdog.
func (w *watchdog) end() {
	w.timer.Stop()
	w.cancel(nil)
}
