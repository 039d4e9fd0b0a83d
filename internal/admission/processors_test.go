package admission

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// computing is transfers that compute until they are ended.
type computing struct {
	p      *Processors
	begun  []string // callers, in the order of their turns
	finish map[string]chan struct{}
}

func newComputing(n int) *computing {
	return &computing{p: NewProcessors(n), finish: make(map[string]chan struct{})}
}

// begin begins so many transfers of a caller, each of which computes once.
func (c *computing) begin(caller string, n int) {
	if c.finish[caller] == nil {
		c.finish[caller] = make(chan struct{})
	}
	for range n {
		t := c.p.Transfer(callerNamed(caller))
		go t.Compute(func() {
			c.p.mu.Lock()
			c.begun = append(c.begun, caller)
			c.p.mu.Unlock()
			<-c.finish[caller]
		})
		synctest.Wait()
	}
}

// end ends n turns of a caller.
func (c *computing) end(caller string, n int) {
	for range n {
		c.finish[caller] <- struct{}{}
		synctest.Wait()
	}
}

func (c *computing) expect(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(c.begun, want) {
		t.Errorf("turns of %v, want %v", c.begun, want)
	}
}

func TestProcessors_AreDividedBetweenActiveCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newComputing(4)
		c.begin("a", 10)
		c.expect(t, "a", "a", "a", "a") // alone it has all
		c.begin("b", 1)
		c.expect(t, "a", "a", "a", "a", "b") // b waits for nobody
		c.end("a", 2)
		c.expect(t, "a", "a", "a", "a", "b") // a has half now
		c.end("a", 1)
		c.expect(t, "a", "a", "a", "a", "b", "a")
		c.end("b", 1)
		time.Sleep(2 * activeTime)
		c.end("a", 1)
		c.expect(t, "a", "a", "a", "a", "b", "a", "a", "a", "a") // b does not count any more
		c.end("a", 6)
		if len(c.p.workers) != 1 {
			t.Errorf("%d callers are counted", len(c.p.workers))
		}
	})
}

// Each look at the clock takes longer than callers stay active, as if the goroutine had been off the processor.
func TestProcessors_NeverForgetACallerThatBegins(t *testing.T) {
	p := NewProcessors(4)
	clock := time.Now()
	p.now = func() time.Time {
		clock = clock.Add(activeTime + time.Millisecond)
		return clock
	}
	busy, other := p.Transfer(callerNamed("a")).begin(), p.Transfer(callerNamed("b")).begin()
	if len(p.workers) != 2 || p.active.Len() != 2 {
		t.Errorf("%d callers are active, want 2", len(p.workers))
	}
	p.end(busy)
	p.end(other)
	if len(p.workers) != 1 { // b's; a's turn ended long ago
		t.Errorf("%d callers are active at the end, want 1", len(p.workers))
	}
}

func TestTransfer_HasNoTurnWhileItsReadBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewProcessors(1)
		slow, fast := p.Transfer(callerNamed("a")), p.Transfer(callerNamed("a"))
		arrives := make(chan struct{})
		computed, ended := 0, make(chan struct{})
		go func() {
			defer close(ended)
			for range 2 {
				_ = slow.Work(func() error { <-arrives; return nil }, func() { computed++ })
			}
		}()
		synctest.Wait()
		begun := time.Now()
		fast.Compute(func() {})
		if waited := time.Since(begun); waited != readLease {
			t.Errorf("another transfer waited for %v", waited)
		}
		arrives <- struct{}{}
		synctest.Wait()
		if computed != 1 {
			t.Errorf("computed %d times after the first read", computed)
		}
		begun = time.Now()
		fast.Compute(func() {
			arrives <- struct{}{}
			synctest.Wait()
			if computed != 1 {
				t.Error("a transfer computed without a turn")
			}
		})
		<-ended
		if waited := time.Since(begun); waited != 0 {
			t.Errorf("the second read had a turn for %v", waited)
		}
		if w := p.workers[callerNamed("a")]; w.busy != 0 || len(w.queue) != 0 {
			t.Errorf("%d turns are in use, %d queue", w.busy, len(w.queue))
		}
	})
}

func TestTransfer_FailedReadComputesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewProcessors(1)
		transfer, failed := p.Transfer(callerNamed("a")), errors.New("failed")
		for _, blocks := range []time.Duration{0, 2 * readLease, 2 * readLease, 0, 0} {
			err := transfer.Work(func() error { time.Sleep(blocks); return failed }, func() { t.Error("computed") })
			if !errors.Is(err, failed) {
				t.Errorf("a read of %v: %v", blocks, err)
			}
			if w := p.workers[callerNamed("a")]; w.busy != 0 {
				t.Errorf("a turn is in use after a read of %v", blocks)
			}
		}
	})
}
