package rejections

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// lines is what was logged.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// take returns what was logged since the last call.
func (l *lines) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.buf.Reset()
	return strings.TrimSpace(l.buf.String())
}

func TestTally_LogsFirstThenSums(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lines
		tally := New(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey {
					return slog.Attr{}
				}
				return a
			},
		})))
		defer tally.Close()
		check := func(want string) {
			t.Helper()
			synctest.Wait()
			if got := out.take(); got != want {
				t.Errorf("logged %q, want %q", got, want)
			}
		}
		tally.Add("sessions", slog.Int("n", 1))
		check("limit=sessions count=1 n=1")
		tally.Add("sessions", slog.Int("n", 2))
		tally.Add("sessions", slog.Int("n", 3))
		check("")
		tally.Add("uploads")
		check("limit=uploads count=1")
		time.Sleep(Interval)
		check("limit=sessions count=2 n=3")
		time.Sleep(Interval) // quiet
		check("")
		tally.Add("sessions")
		check("limit=sessions count=1")
		tally.Add("sessions")
		tally.Close()
		check("limit=sessions count=1")
		if c := tally.Counts(); c["sessions"] != 5 || c["uploads"] != 1 {
			t.Errorf("counted %v", c)
		}
	})
}
