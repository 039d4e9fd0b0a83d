package lpws

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// defaultBackoff undoes the short pauses of a test's pool.
func defaultBackoff(c *Config) { c.BackoffMin, c.BackoffMax = time.Second, 30*time.Second }

func TestReopen_SlowsDownIfConnectionsDoNotLast(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		var flapping atomic.Bool
		flapping.Store(true)
		p.answer = func(k *peerSocket, typ, _ string, _ map[string]any) bool {
			if typ == reqSubscribeConvs && flapping.Load() {
				time.AfterFunc(100*time.Millisecond, func() { k.close(1001) }) // after the session is open
			}
			return false
		}
		s := p.session(defaultBackoff)
		w, err := s.WatchFiles(ctxOf(t), "c", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		time.Sleep(15 * time.Second)
		if n := p.upgrades(); n > 7 {
			t.Errorf("%d connections in 15 s", n)
		}
		before := p.upgrades()
		time.Sleep(15 * time.Minute)
		if n := p.upgrades() - before; n < 30 || n > 65 {
			t.Errorf("%d connections in 15 min, want one in 15 to 30 s", n)
		}

		flapping.Store(false)
		time.Sleep(5 * time.Minute)
		before = p.upgrades()
		p.socket().close(1001)
		time.Sleep(time.Second + time.Millisecond)
		if n := p.upgrades() - before; n != 1 {
			t.Errorf("%d connections in the second after a lasting one was lost, want 1", n)
		}
	})
}

func TestReopen_HonorsRetryAfter(t *testing.T) {
	for _, status := range []int{http.StatusServiceUnavailable, http.StatusTooManyRequests} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := newPeer(t)
				s := p.session(defaultBackoff)
				var upgrades atomic.Int64
				p.upgrade = func(w http.ResponseWriter, _ *http.Request) bool {
					if upgrades.Add(1) > 2 {
						return false
					}
					w.Header().Set("Retry-After", "60")
					w.WriteHeader(status)
					return true
				}
				p.socket().close(1001)
				time.Sleep(30 * time.Second)
				_, err := s.UploadURL(ctxOf(t), 1, share.PNG)
				if e := want(t, err, share.LPUnavailable); e.RetryAfter < 25*time.Second || e.RetryAfter > time.Minute {
					t.Errorf("retry after %v, want the time until the next attempt", e.RetryAfter)
				}
				time.Sleep(5 * time.Minute)
				opened := p.times()
				if len(opened) != 4 {
					t.Fatalf("%d upgrades, want 4", len(opened))
				}
				for i := 2; i < 4; i++ {
					if pause := opened[i].Sub(opened[i-1]); pause < time.Minute || pause > 65*time.Second {
						t.Errorf("pause of %v after Retry-After: 60", pause)
					}
				}
				if _, err := s.UploadURL(ctxOf(t), 1, share.PNG); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
