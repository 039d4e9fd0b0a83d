package liveperson

import (
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/fault"
)

// TestSocket_IdleTimeout sets when a socket was opened instead of waiting.
func TestSocket_IdleTimeout(t *testing.T) {
	for name, c := range map[string]struct {
		activity func(k *socket)
		closed   bool
	}{
		"no frame":  {func(*socket) {}, true},
		"old frame": {func(k *socket) { k.heard.Store(int64(58 * time.Minute)) }, true},
		"frame":     {func(k *socket) { _ = k.frameFault() }, false},
		"ping":      {func(k *socket) { _ = k.pinged("") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Service{opts: Options{IdleTimeout: time.Minute, InitTimeout: time.Second, Faults: &fault.Set{}}}
			k := &socket{caller: caller{s: s}, out: newOutbox(1), opened: time.Now().Add(-time.Hour)}
			k.muted.Store(true) // there is no connection for the pong
			k.setExpiry(time.Now().Add(time.Hour))
			c.activity(k)
			k.endIfExpired(time.Now())
			if k.ended.Load() != c.closed || c.closed && k.out.code != closeGoingAway {
				t.Errorf("closed: %v with code %d, want %v", k.ended.Load(), k.out.code, c.closed)
			}
		})
	}
}
