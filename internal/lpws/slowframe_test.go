package lpws

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// trickle sends a frame slowly: its header at once, then one byte after each pause, until the connection ends.
// The peer must not send anything else meanwhile.
func (k *peerSocket) trickle(frame string, pause time.Duration) error {
	nc := k.conn.NetConn()
	if _, err := nc.Write([]byte{0x81, 126, byte(len(frame) >> 8), byte(len(frame))}); err != nil { // a text frame
		return err
	}
	for i := range len(frame) {
		time.Sleep(pause)
		if _, err := nc.Write([]byte{frame[i]}); err != nil {
			return err
		}
	}
	return nil
}

// A frame may take longer than the time in which something must arrive, but not any time.
func TestTransport_SlowFrames(t *testing.T) {
	for _, test := range []struct {
		name  string
		size  int
		pause time.Duration
		lost  time.Duration // when the connection is lost; 0: never
	}{
		{"within frameTime", 110, time.Second, 0},
		{"with few pauses", 2, 59 * time.Second, 0},
		{"beyond frameTime", 130, time.Second, frameTime},
		{"one byte per interval", 60_000, 29 * time.Second, frameTime},
		{"silence", 200, 80 * time.Second, 75 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := newPeer(t)
				p.mute = true // a pong would be in the middle of the frame
				s := p.session(defaultBackoff)
				w, err := s.WatchFiles(ctxOf(t), "c", nil) // keeps the session
				if err != nil {
					t.Fatal(err)
				}
				defer w.Close()
				frame := fmt.Sprintf("%-*s", test.size, "{}") // ignored
				synctest.Wait()                               // everything else was sent
				begun := time.Now()
				err = p.socket().trickle(frame, test.pause)
				if took := time.Since(begun); (err != nil) != (test.lost > 0) || err != nil && (took < test.lost || took > test.lost+test.pause) {
					t.Fatalf("%v after %v", err, took)
				}
				p.mu.Lock()
				p.mute = false
				p.mu.Unlock()
				time.Sleep(10 * time.Second)
				if want := map[bool]int{false: 1, true: 2}[test.lost > 0]; p.upgrades() != want {
					t.Errorf("%d connections, want %d", p.upgrades(), want)
				}
				if _, err := s.UploadURL(ctxOf(t), 1, share.PNG); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
