package swift

import (
	"context"
	"errors"
	"time"
)

// errStalled is the cause with which a watchdog ends the context of a request.
var errStalled = errors.New("no progress")

// A watchdog ends the context of a request unless it is disarmed or armed again in time. It starts disarmed.
type watchdog struct {
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

// newWatchdog returns a context for a request and its watchdog. The caller must call end.
func newWatchdog(ctx context.Context) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watchdog{cancel: cancel}
	w.timer = time.AfterFunc(time.Hour, func() { cancel(errStalled) })
	w.timer.Stop()
	return ctx, w
}

func (w *watchdog) arm(d time.Duration) { w.timer.Reset(d) }

func (w *watchdog) disarm() { w.timer.Stop() }

// end ends the request's context.
func (w *watchdog) end() {
	w.timer.Stop()
	w.cancel(nil)
}
