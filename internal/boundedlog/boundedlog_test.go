package boundedlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// An output keeps what was written. It fails while it is broken, and blocks while it is stuck.
type output struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	broken bool
	stuck  chan struct{} // nil: not stuck
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	stuck := o.stuck
	o.mu.Unlock()
	if stuck != nil {
		<-stuck
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.broken {
		return 0, errors.New("broken pipe")
	}
	return o.buf.Write(p)
}

func (o *output) set(broken bool, stuck chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.broken, o.stuck = broken, stuck
}

// take returns what was written since the last call.
func (o *output) take() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.buf.Reset()
	return o.buf.String()
}

func report(out io.Writer, lines int64) error {
	_, err := fmt.Fprintf(out, "%d dropped\n", lines)
	return err
}

func TestWriter_CountsWhatCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		w := NewWriter(&out, report)
		write := func(line string, want string) {
			t.Helper()
			if n, err := w.Write([]byte(line)); n != len(line) || err != nil {
				t.Errorf("Write: %d, %v", n, err)
			}
			synctest.Wait()
			if got := out.take(); got != want {
				t.Errorf("written %q, want %q", got, want)
			}
		}
		write("a\n", "a\n")
		out.set(true, nil)
		write("b\n", "")
		write("c\nd\n", "")
		out.set(false, nil)
		write("e\n", "e\n3 dropped\n")
		write("f\n", "f\n")
		out.set(true, nil)
		write("g\n", "")
		out.set(false, nil)
		w.Close(time.Second)
		if got := out.take(); got != "1 dropped\n" {
			t.Errorf("written at the end: %q", got)
		}
		write("h\n", "")
		if n := w.Dropped(); n != 5 {
			t.Errorf("%d lines were dropped, want 5", n)
		}
	})
}

func TestWriter_NeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		out := output{stuck: stuck}
		w := NewWriter(&out, report)
		line := []byte(strings.Repeat("x", 1023) + "\n")
		_, _ = w.Write(line)
		synctest.Wait() // the first line is being written
		const extra = 100
		for range MaxBuffered/len(line) + extra {
			_, _ = w.Write(line)
		}
		if n := w.Dropped(); n != extra {
			t.Errorf("%d lines were dropped, want %d", n, extra)
		}
		begun := time.Now()
		w.Close(time.Second)
		if d := time.Since(begun); d != time.Second {
			t.Errorf("Close took %v", d)
		}
		out.set(false, nil)
		close(stuck)
		synctest.Wait()
		if got := out.take(); strings.Count(got, "\n") != 1+MaxBuffered/len(line)+1 || !strings.Contains(got, "\n100 dropped\n") {
			t.Errorf("%d lines were written", strings.Count(got, "\n"))
		}
	})
}

func TestHandler_SumsUpWhatIsBeyondTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		text := slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})
		h := NewHandler(text, func(k Kind) int {
			if k.Code == "OK" {
				return 3
			}
			return 2
		})
		log := slog.New(h).With("reason", "not of the line")
		check := func(want ...string) {
			t.Helper()
			synctest.Wait()
			got := slices.Sorted(strings.Lines(out.take())) // sums of the same moment have no order
			for i, line := range got {
				got[i] = strings.TrimSpace(line)
			}
			if !slices.Equal(got, want) {
				t.Errorf("logged\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
		for range 5 {
			log.Warn("call", "code", "A", "reason", "R")
		}
		const lineA = `level=WARN msg=call reason="not of the line" code=A reason=R`
		check(lineA, lineA)
		for range 5 {
			log.Info("call", "code", "OK")
		}
		const lineOK = `level=INFO msg=call reason="not of the line" code=OK`
		check(lineOK, lineOK, lineOK)
		time.Sleep(time.Second)
		log.Warn("call", "code", "A", "reason", "R")
		check(lineA)
		time.Sleep(Interval)
		const sumA = `level=WARN msg="log lines were left out" like=call code=A reason=R lines=3`
		check(`level=INFO msg="log lines were left out" like=call code=OK lines=2`, sumA)
		time.Sleep(Interval)
		check()
		for range 5 {
			log.Warn("call", "code", "A", "reason", "R")
		}
		check(lineA, lineA)
		h.Close()
		check(sumA)
		time.Sleep(Interval)
		check()
		if n := h.LeftOut(); n != 8 {
			t.Errorf("%d lines were left out, want 8", n)
		}
	})
}

func TestHandler_BoundsTheNumberOfKinds(t *testing.T) {
	h := NewHandler(slog.DiscardHandler, func(Kind) int { return 1 })
	defer h.Close()
	log := slog.New(levels{h})
	for i := range 2 * maxKinds {
		log.Info(fmt.Sprint(i))
	}
	if n := len(h.kinds); n != maxKinds+1 {
		t.Errorf("%d kinds are kept, want %d", n, maxKinds+1)
	}
}

// levels enables all levels, which DiscardHandler does not.
type levels struct{ *Handler }

func (levels) Enabled(context.Context, slog.Level) bool { return true }
