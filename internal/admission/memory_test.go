package admission

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A fixture is Memory whose callers are single letters, and whose uploads are named by their caller's letter and a number. It is
// used in a synctest bubble: what is not admitted when all goroutines wait is queued.
type fixture struct {
	t *testing.T
	*Memory
	admitted     chan string // names, in the order of admission
	failed       chan error
	mu           sync.Mutex
	reservations map[string]*Reservation
}

const queueLength = 100

func newFixture(t *testing.T, blocks int64, perCaller int) *fixture {
	return &fixture{
		t: t, Memory: NewMemory(Limits{
			Budget: blocks * BlockBytes, UploadsPerCaller: perCaller, QueueLength: queueLength, QueueTimeout: time.Minute, Now: time.Now,
		}),
		admitted: make(chan string, 100), failed: make(chan error, 100), reservations: make(map[string]*Reservation),
	}
}

// reserve starts an upload of a number of blocks, and returns when it is admitted or queued.
func (f *fixture) reserve(name string, blocks int64) {
	f.t.Helper()
	f.reserveUntil(context.Background(), name, blocks)
}

// reserveUntil is reserve, for an upload that waits until ctx ends at the latest.
func (f *fixture) reserveUntil(ctx context.Context, name string, blocks int64) {
	f.t.Helper()
	go func() {
		r, err := f.Reserve(ctx, Caller{name[0]}, blocks*BlockBytes, true)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			f.failed <- err
			return
		}
		f.mu.Lock()
		f.reservations[name] = r
		f.mu.Unlock()
		f.admitted <- name
	}()
	synctest.Wait()
	if len(f.failed) > 0 {
		f.t.Fatalf("%s: %v", name, <-f.failed)
	}
}

// release ends an upload.
func (f *fixture) release(name string) {
	f.t.Helper()
	f.mu.Lock()
	r := f.reservations[name]
	f.mu.Unlock()
	if r == nil {
		f.t.Fatalf("%s is not admitted", name)
	}
	r.Release()
}

// wantAdmitted wants exactly these uploads to have been admitted since its last call.
func (f *fixture) wantAdmitted(names ...string) {
	f.t.Helper()
	synctest.Wait()
	var got []string
	for len(f.admitted) > 0 {
		got = append(got, <-f.admitted)
	}
	slices.Sort(got)
	if !slices.Equal(got, names) {
		f.t.Errorf("%v were admitted, want %v", got, names)
	}
}

// wantEmpty wants nothing to be counted any more.
func (f *fixture) wantEmpty() {
	f.t.Helper()
	f.Memory.mu.Lock()
	defer f.Memory.mu.Unlock()
	if len(f.lines)+len(f.turns)+len(f.proven) != 0 || f.places != queueLength || f.free != f.Budget {
		f.t.Errorf("%d lines, %d turns, %d principals, %d places, %d free bytes are left", len(f.lines), len(f.turns), len(f.proven), f.places, f.free)
	}
}

func TestMemory_LineIsFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 4, 10)
		f.reserve("z", 4)
		f.wantAdmitted("z")
		f.reserve("a1", 4)
		f.reserve("a2", 1) // a small one does not overtake a large one
		f.reserve("b1", 1) // nor does another caller's
		f.release("z")
		f.wantAdmitted("a1")
		f.release("a1")
		f.wantAdmitted("a2", "b1")
		f.release("b1")
		f.release("a2")
		f.wantEmpty()
	})
}

func TestMemory_NothingOvertakesTheNextTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 4, 10)
		f.reserve("z", 2)
		f.wantAdmitted("z")
		ctx, cancel := context.WithCancel(t.Context())
		f.reserveUntil(ctx, "a1", 4)
		f.reserve("b1", 1)
		f.wantAdmitted() // there is memory for it, but a is next
		cancel()
		f.wantAdmitted("b1") // a has left the queue
		f.release("z")
		f.release("b1")
		f.wantEmpty()
	})
}

func TestMemory_LargerThanBudgetIsRejectedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 4, 10)
		if _, err := f.Reserve(t.Context(), Caller{'a'}, 5*BlockBytes, true); !share.Is(err, share.TooManyUploads) {
			t.Errorf("got %v", err)
		}
		f.reserve("b1", 1)
		f.wantAdmitted("b1")
		f.release("b1")
		f.wantEmpty()
	})
}

func TestMemory_CallersTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 2, 10)
		f.reserve("a1", 1)
		f.reserve("z", 1)
		f.wantAdmitted("a1", "z")
		for _, name := range []string{"a2", "a3", "a4"} {
			f.reserve(name, 1)
		}
		f.reserve("b1", 1)
		f.reserve("c1", 1)
		f.reserve("b2", 1)
		f.release("z")
		// a has half of the budget, and waits for its own uploads: b and c take turns.
		f.wantAdmitted("b1")
		f.release("b1")
		f.wantAdmitted("c1")
		f.release("a1")
		f.wantAdmitted("a2")
		f.release("a2")
		f.wantAdmitted("b2")
		f.release("c1")
		f.wantAdmitted("a3")
		f.release("b2")
		f.wantAdmitted() // the free memory is for others: a has its half
		f.release("a3")
		f.wantAdmitted("a4")
		f.release("a4")
		f.wantEmpty()
	})
}

func TestMemory_LimitsPerCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 100, 2)
		f.reserve("a1", 1)
		f.reserve("a2", 1)
		f.wantAdmitted("a1", "a2")
		f.reserve("a3", 1)
		f.reserve("a4", 1)
		f.wantAdmitted()
		_, err := f.Reserve(t.Context(), Caller{'a'}, 1, true)
		if e, ok := errors.AsType[*share.Error](err); !ok || e.Kind != share.TooManyUploads || e.Metadata["limit"] != limitCaller {
			t.Errorf("got %v", err)
		}
		f.reserve("b1", 1) // another caller is not affected
		f.wantAdmitted("b1")
		f.release("a2")
		f.wantAdmitted("a3")
		for _, name := range []string{"a1", "a3", "b1"} {
			f.release(name)
		}
		f.wantAdmitted("a4")
		f.release("a4")
		f.wantEmpty()
	})
}

func TestRetrySpread_GrowsWithRejections(t *testing.T) {
	now := time.Now()
	mean := func(others int) (mean time.Duration) {
		s := retrySpread{}
		for range 20 { // ten admissions per second
			now = now.Add(100 * time.Millisecond)
			s.admitted(now)
		}
		for range others {
			s.rejected()
		}
		seen := map[time.Duration]bool{}
		for range 100 {
			d := s.rejected()
			if d < MinRetryAfter || d > maxRetryAfter {
				t.Errorf("%s", d)
			}
			seen[d] = true
			mean += d / 100
		}
		if len(seen) < 90 {
			t.Errorf("100 callers got %d different delays", len(seen))
		}
		return mean
	}
	few, many := mean(0), mean(200)
	if many < 2*few {
		t.Errorf("%s for few callers, %s for many", few, many)
	}
	s := retrySpread{waiting: 5}
	for range 10 {
		s.admitted(now)
	}
	if s.waiting != 0 {
		t.Errorf("%d are waiting after ten admissions", s.waiting)
	}
}

func TestMemory_ReservesWholeBlocks(t *testing.T) {
	for size, blocks := range map[int64]int64{1: 1, BlockBytes - 1: 1, BlockBytes: 1, BlockBytes + 1: 2, 300_000: 5} {
		m := NewMemory(Limits{Budget: 8 * BlockBytes, UploadsPerCaller: 1, Now: time.Now})
		r, err := m.Reserve(t.Context(), Caller{}, size, true)
		if err != nil {
			t.Fatal(err)
		}
		if free := m.Usage().FreeBytes; free != (8-blocks)*BlockBytes {
			t.Errorf("%d bytes: %d are free", size, free)
		}
		r.Shrink(1)
		if free := m.Usage().FreeBytes; free != 7*BlockBytes {
			t.Errorf("%d bytes, shrunk to 1: %d are free", size, free)
		}
		r.Release()
		r.Release()
		if free := m.Usage().FreeBytes; free != 8*BlockBytes {
			t.Errorf("%d bytes, released twice: %d are free", size, free)
		}
	}
}

func TestStreams_LimitPerCaller(t *testing.T) {
	s := NewStreams(2)
	release, _ := s.Acquire(Caller{'a'})
	if _, err := s.Acquire(Caller{'a'}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Acquire(Caller{'a'}); !share.Is(err, share.TooManyStreams) {
		t.Errorf("the third stream: %v", err)
	}
	if _, err := s.Acquire(Caller{'b'}); err != nil {
		t.Errorf("another caller: %v", err)
	}
	release()
	if _, err := s.Acquire(Caller{'a'}); err != nil {
		t.Errorf("after one has ended: %v", err)
	}
}
