package admission

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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
	f.reserveUntil(context.Background(), name, blocks, blocks)
}

// holder returns the caller of an upload. Upper-case letters are callers of another account.
func holder(name string) Holder {
	if name[0] < 'a' {
		return Holder{"other", Caller{name[0]}}
	}
	return Holder{"account", Caller{name[0]}}
}

// grow lets an upload grow to a number of blocks, and returns when it has them or waits for them.
func (f *fixture) grow(name string, blocks int64) (result <-chan error) {
	f.t.Helper()
	f.mu.Lock()
	r := f.reservations[name]
	f.mu.Unlock()
	done := make(chan error, 1)
	go func() { done <- r.Grow(context.Background(), blocks*BlockBytes, time.Minute, func() {}) }()
	synctest.Wait()
	return done
}

// reserveUntil is reserve, for an upload that waits until ctx ends at the latest.
func (f *fixture) reserveUntil(ctx context.Context, name string, blocks, most int64) {
	f.t.Helper()
	go func() {
		r, err := f.Reserve(ctx, holder(name), blocks*BlockBytes, most*BlockBytes, true)
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
	if left := len(f.uploads) + f.queue.waiting + len(f.growth.most) + len(f.growth.waiting); left != 0 || f.places.Free() != queueLength ||
		f.shares.Free() != f.Budget || f.growth.largest != 0 || f.growth.privileged != nil {
		f.t.Errorf("%v, %d waiting, %+v, %d places, %d free bytes are left", f.uploads, f.queue.waiting, f.growth, f.places.Free(), f.shares.Free())
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
		f.reserveUntil(ctx, "a1", 4, 4)
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
		for _, size := range []int64{1, 5} {
			if _, err := f.Reserve(t.Context(), holder("a"), size*BlockBytes, 5*BlockBytes, true); !share.Is(err, share.TooManyUploads) {
				t.Errorf("got %v", err)
			}
		}
		f.reserve("b1", 1)
		f.wantAdmitted("b1")
		f.release("b1")
		f.wantEmpty()
	})
}

func TestMemory_AccountsAndCallersTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 4, 10)
		f.reserve("z", 4)
		f.wantAdmitted("z")
		for _, name := range []string{"a1", "a2", "b1", "b2", "c1", "A1", "A2"} {
			f.reserve(name, 4)
		}
		running := "z"
		for _, next := range []string{"a1", "A1", "b1", "A2", "c1", "a2", "b2"} {
			f.release(running)
			f.wantAdmitted(next)
			running = next
		}
		f.release(running)
		f.wantEmpty()
	})
}

func TestMemory_SharesShrinkWithTheNumberOfCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 12, 100)
		for i := range 6 {
			f.reserve(fmt.Sprint("a", i), 1)
		}
		f.wantAdmitted("a0", "a1", "a2", "a3", "a4", "a5")
		f.reserve("a6", 1)
		f.wantAdmitted() // alone a caller has half
		for i := range 4 {
			f.reserve(fmt.Sprint("b", i), 1)
		}
		f.wantAdmitted("b0", "b1", "b2")
		f.reserve("c0", 1) // a third caller finds something
		f.wantAdmitted("c0")
		if f.Contended(time.Minute) {
			t.Error("uploads wait for their callers' shares only, and the memory counts as contended")
		}
		f.release("a0")
		f.release("a1")
		f.release("a2")
		f.wantAdmitted("a6") // a has 4, b 3 and c 1, so 4 are free
		for _, name := range []string{"a3", "a4", "a5", "a6", "b0", "b1", "b2", "c0"} {
			f.release(name)
		}
		f.wantAdmitted("b3")
		f.release("b3")
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
		_, err := f.Reserve(t.Context(), holder("a"), 1, 1, true)
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

// One caller cannot have the whole queue.
func TestMemory_QueueIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 4, 1000)
		f.reserve("z", 4)
		ctx, cancel := context.WithCancel(t.Context())
		for range queueLength / 2 {
			f.reserveUntil(ctx, "a", 4, 4)
		}
		_, err := f.Reserve(ctx, holder("a"), 1, 1, true)
		if e, ok := errors.AsType[*share.Error](err); !ok || e.Metadata["limit"] != limitCaller {
			t.Errorf("got %v", err)
		}
		f.reserveUntil(ctx, "b", 4, 4)
		if !f.Contended(0) {
			t.Error("callers without an upload wait, and the memory does not count as contended")
		}
		cancel()
		f.release("z")
		time.Sleep(time.Second)
		if !f.Contended(time.Second) || f.Contended(time.Second/2) {
			t.Error("it is not known when the latest upload waited")
		}
		f.wantEmpty()
	})
}

// A caller without an upload, whose account has its share, waits for memory that others of its account have.
func TestMemory_NewcomerOfALargeAccountIsContention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 16, 10)
		f.reserve("a", 8)
		f.reserve("A", 4)
		f.reserve("b", 3)
		f.wantAdmitted("A", "a")
		if !f.Contended(0) {
			t.Error("the memory does not count as contended")
		}
		f.reserve("B", 1) // the other account is not affected
		f.wantAdmitted("B")
		f.release("a")
		f.wantAdmitted("b")
		for _, name := range []string{"A", "b", "B"} {
			f.release(name)
		}
		f.wantEmpty()
	})
}

func TestMemory_QueueTimeNamesTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 4, 1)
		f.reserve("a", 2)
		for name, want := range map[string]string{"a": limitCaller, "b": limitBudget} {
			_, err := f.Reserve(t.Context(), holder(name), 4*BlockBytes, 0, true)
			if e, ok := errors.AsType[*share.Error](err); !ok || e.Metadata["limit"] != want || e.RetryAfter < MinRetryAfter {
				t.Errorf("%s got %v", name, err)
			}
		}
		f.release("a")
		f.wantEmpty()
	})
}

func TestGrow_ReservesAsBytesArrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 10, 10)
		f.reserveUntil(t.Context(), "a", 1, 4)
		f.wantAdmitted("a")
		for _, blocks := range []int64{1, 2, 4, 3} {
			if err := <-f.grow("a", blocks); err != nil {
				t.Error(err)
			}
		}
		if free := f.Usage().FreeBytes; free != 6*BlockBytes {
			t.Errorf("%d bytes are free", free)
		}
		f.reservations["a"].Shrink(2*BlockBytes - 1)
		if free := f.Usage().FreeBytes; free != 8*BlockBytes {
			t.Errorf("%d bytes are free", free)
		}
		f.release("a")
		if err := <-f.grow("a", 4); err != nil { // its goroutine may have a chunk when the upload ends
			t.Error(err)
		}
		f.wantEmpty()
	})
}

// Uploads that have all begun and need more than there is all end, one after the other, in whichever order the bytes arrive.
func TestGrow_NeverDeadlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for seed := range uint64(50) {
			random := rand.New(rand.NewPCG(seed, 0))
			f := newFixture(t, 12, 100)
			var all sync.WaitGroup
			for i := range 40 {
				most := 1 + random.Int64N(12)
				steps := make([]time.Duration, most)
				for s := range steps {
					steps[s] = time.Duration(random.IntN(1000)) * time.Millisecond
				}
				declared := random.IntN(4) == 0
				all.Go(func() {
					first := int64(1)
					if declared {
						first = most
					}
					h := holder(string(rune('A' + i%6 + i%2*32)))
					r, err := f.Reserve(t.Context(), h, first*BlockBytes, most*BlockBytes, true)
					if err != nil {
						return // its time in the queue was over
					}
					defer r.Release()
					for blocks := first; blocks <= most; blocks++ {
						time.Sleep(steps[blocks-1])
						if err := r.Grow(t.Context(), blocks*BlockBytes, 24*time.Hour, func() {}); err != nil {
							t.Errorf("seed %d: an upload that had begun did not get %d blocks: %v", seed, blocks, err)
							return
						}
						if free := f.Usage().FreeBytes; free < 0 {
							t.Errorf("seed %d: %d bytes are free", seed, free)
						}
					}
				})
			}
			all.Wait()
			f.wantEmpty()
		}
	})
}

// The upload whose caller holds least goes first, and one that has begun goes before one that waits in the queue.
func TestGrow_SmallestCallerFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 8, 10)
		f.reserveUntil(t.Context(), "a1", 1, 3)
		f.reserveUntil(t.Context(), "b1", 1, 3)
		f.reserve("c", 3)
		f.wantAdmitted("a1", "b1", "c") // 3 are free, and kept
		a := f.grow("a1", 2)
		if err := <-a; err != nil { // nobody had what is kept
			t.Error(err)
		}
		b := f.grow("b1", 3)
		f.reserve("d", 1)
		f.wantAdmitted()
		if len(b) != 0 || !f.Contended(0) {
			t.Error("an upload took what is kept for another")
		}
		if err := <-f.grow("a1", 3); err != nil {
			t.Error(err)
		}
		f.release("a1")
		if err := <-b; err != nil {
			t.Error(err)
		}
		f.wantAdmitted("d")
		for _, name := range []string{"b1", "c", "d"} {
			f.release(name)
		}
		f.wantEmpty()
	})
}

func TestGrow_WaitIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 5, 10)
		f.reserveUntil(t.Context(), "a", 1, 3)
		f.reserveUntil(t.Context(), "b", 1, 3)
		f.wantAdmitted("a", "b")
		first, second := f.grow("a", 3), f.grow("b", 3)
		if err := <-first; err != nil {
			t.Error(err)
		}
		err := <-second
		if e, ok := errors.AsType[*share.Error](err); !ok || e.Kind != share.TooManyUploads || e.RetryAfter < MinRetryAfter {
			t.Errorf("got %v", err)
		}
		second = f.grow("b", 3)
		f.release("b") // its call has ended
		if err := <-second; err != nil {
			t.Error(err)
		}
		f.release("a")
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
		r, err := m.Reserve(t.Context(), Holder{}, size, size, true)
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
