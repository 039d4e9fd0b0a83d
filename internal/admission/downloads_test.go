package admission

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/bufpool"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

const queueTime = 5 * time.Second

// newDownloads returns a budget for so many downloads.
func newDownloads(n int64) *Downloads {
	return NewDownloads(DownloadLimits{Budget: n * MinDownloadBytes, QueueLength: 10, QueueTimeout: queueTime, Now: time.Now, Blocks: new(bufpool.Pool)})
}

func callerNamed(name string) Caller { return Hash(name) }

// begin reserves memory that is free.
func (m *Downloads) begin(t *testing.T, caller string) *Download {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d, err := m.Reserve(ctx, holder(caller))
	if err != nil {
		t.Fatalf("a download of %s: %v", caller, err)
	}
	return d
}

// isQueued reports whether a download would have to wait.
func (m *Downloads) isQueued(t *testing.T, caller string) bool {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d, err := m.Reserve(ctx, holder(caller))
	if err == nil {
		d.Release(t.Context())
	}
	return err != nil
}

// enqueue reserves in the background. The name of the caller is sent to admitted.
func (m *Downloads) enqueue(t *testing.T, caller string, admitted chan<- string) {
	go func() {
		if d, err := m.Reserve(t.Context(), holder(caller)); err == nil {
			admitted <- caller
			<-t.Context().Done()
			d.Release(context.Background())
		}
	}()
	synctest.Wait()
}

func wantUsage(t *testing.T, m *Downloads, want DownloadUsage) {
	t.Helper()
	if got := m.Usage(); got != want {
		t.Errorf("usage is %+v, want %+v", got, want)
	}
}

func TestDownloads_CallerGetsAsMuchAsStaysFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newDownloads(12)
		for range 6 {
			m.begin(t, "a")
		}
		if !m.isQueued(t, "a") {
			t.Error("one caller alone has more than half")
		}
		for range 3 {
			m.begin(t, "b")
		}
		if !m.isQueued(t, "b") {
			t.Error("the second caller has more than what stays free")
		}
		for _, newcomer := range []string{"c", "d", "e"} { // a first download needs only memory
			m.begin(t, newcomer)
		}
		if !m.isQueued(t, "f") {
			t.Error("more is reserved than the budget")
		}
	})
}

// TestDownloads_ShortDownloadsDoNotOvertake has a caller whose queued downloads hold nothing by the time that memory is free again.
func TestDownloads_ShortDownloadsDoNotOvertake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newDownloads(1)
		running := m.begin(t, "x")
		type admission struct {
			caller string
			*Download
		}
		admitted := make(chan admission, 3)
		for _, caller := range []string{"a", "a", "b"} {
			go func() {
				d, err := m.Reserve(t.Context(), holder(caller))
				if err != nil {
					t.Error(err)
				}
				admitted <- admission{caller, d}
			}()
			synctest.Wait()
		}
		for _, want := range []string{"a", "b", "a"} {
			running.Release(t.Context())
			next := <-admitted
			if next.caller != want {
				t.Errorf("%s was admitted, want %s", next.caller, want)
			}
			running = next.Download
		}
		running.Release(t.Context())
	})
}

func TestDownloads_SharesAndQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newDownloads(4)
		var running []*Download
		for _, caller := range []string{"x", "y", "z", "w"} {
			running = append(running, m.begin(t, caller))
		}
		admitted := make(chan string, 10)
		for _, caller := range []string{"a", "a", "a", "b", "c"} {
			m.enqueue(t, caller, admitted)
		}
		for _, d := range running {
			d.Release(t.Context())
			synctest.Wait()
		}
		// The second one of a would exceed its share: three downloads hold memory, and one part stays free.
		for _, want := range []string{"a", "b", "c"} {
			select {
			case got := <-admitted:
				if got != want {
					t.Errorf("%s was admitted, want %s", got, want)
				}
			default:
				t.Fatalf("%s was not admitted", want)
			}
		}
		wantUsage(t, m, DownloadUsage{FreeBytes: MinDownloadBytes, Running: 3, Queued: 2, Callers: 3})
	})
}

func TestDownloads_QueueIsBoundedInTimeAndLength(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newDownloads(2)
		first := m.begin(t, "a")
		wantRejected := func(err error) {
			t.Helper()
			var e *share.Error
			if !errors.As(err, &e) || e.Kind != share.TooManyStreams || e.Metadata["limit"] != "memory" || e.RetryAfter < MinRetryAfter {
				t.Errorf("%v, want TooManyStreams with limit and RetryAfter", err)
			}
		}
		begun := time.Now()
		_, err := m.Reserve(t.Context(), holder("a"))
		wantRejected(err)
		if took := time.Since(begun); took != queueTime {
			t.Errorf("it waited %s", took)
		}
		wantUsage(t, m, DownloadUsage{FreeBytes: MinDownloadBytes, Running: 1, Callers: 1})
		admitted := make(chan string, 20)
		for range m.QueueLength {
			m.enqueue(t, "a", admitted)
		}
		begun = time.Now()
		_, err = m.Reserve(t.Context(), holder("a"))
		wantRejected(err)
		if time.Since(begun) != 0 {
			t.Error("it waited although the queue is full")
		}
		m.begin(t, "b") // others are not behind it
		first.Release(t.Context())
		synctest.Wait()
		if len(admitted) != 1 {
			t.Errorf("%d were admitted, want 1", len(admitted))
		}
		time.Sleep(queueTime)
		synctest.Wait()
		wantUsage(t, m, DownloadUsage{Running: 2, Callers: 2})
	})
}

func TestDownloads_CancelledWaitLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newDownloads(2)
		first := m.begin(t, "a")
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error)
		go func() {
			_, err := m.Reserve(ctx, holder("a"))
			failed <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		first.Release(t.Context())
		wantUsage(t, m, DownloadUsage{FreeBytes: 2 * MinDownloadBytes})
	})
}

// run takes chunks and returns them at once, and returns the blocks of the largest.
func (d *Download) run(times, most int) (largest int) {
	for range times {
		blocks := d.Take(nil, most)
		largest = max(largest, len(blocks))
		for _, b := range blocks {
			d.Lease().Put(b)
		}
	}
	return largest
}

func TestDownloads_ChunksShrinkWithTheNumberOfDownloads(t *testing.T) {
	m := NewDownloads(DownloadLimits{Budget: 96 << 20, QueueLength: 10, QueueTimeout: queueTime, Now: time.Now, Blocks: new(bufpool.Pool)})
	var all []*Download
	for _, test := range []struct{ downloads, blocks int }{{1, 16}, {8, 16}, {64, 5}, {128, 2}, {250, 1}} {
		for len(all) < test.downloads {
			all = append(all, m.begin(t, "a"))
		}
		if got := all[0].run(10, 16); got != test.blocks {
			t.Errorf("%d downloads: chunks of %d blocks, want %d", test.downloads, got, test.blocks)
		}
	}
	if got := m.begin(t, "b").run(10, 16); got != 16 {
		t.Errorf("another caller has chunks of %d blocks", got)
	}
}

func TestDownload_TakeBeginsWithOneBlock(t *testing.T) {
	m := newDownloads(100)
	d := m.begin(t, "a")
	for _, want := range []int{1, 2, 4, 8, 10} {
		blocks := d.Take(nil, 10)
		if len(blocks) != want {
			t.Fatalf("%d blocks, want %d", len(blocks), want)
		}
		for _, b := range blocks {
			d.Lease().Put(b)
		}
	}
}

// TestDownload_HoldsTwoBlocksAtLeast has no memory beyond the minimum.
func TestDownload_HoldsTwoBlocksAtLeast(t *testing.T) {
	m := newDownloads(2)
	d := m.begin(t, "a")
	held := append(d.Take(nil, 16), d.Take(nil, 16)...)
	if len(held) != 2 {
		t.Fatalf("%d blocks, want 2", len(held))
	}
	if more := d.Take(nil, 16); len(more) > 0 {
		t.Errorf("%d blocks more than its share has", len(more))
	}
	select {
	case <-d.Returned():
		t.Error("nothing was returned")
	default:
	}
	d.Lease().Put(held[0])
	<-d.Returned()
	if again := d.Take(nil, 16); len(again) != 1 {
		t.Errorf("%d blocks after one was returned", len(again))
	}
}

// TestDownload_QueueOfTheCallerComesFirst has a download of a caller that queues: it takes no more than the minimum.
func TestDownload_QueueOfTheCallerComesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newDownloads(6)
		first := m.begin(t, "a")
		second := m.begin(t, "a")
		for range 3 {
			second.Take(nil, 16) // 2, and 1 more
		}
		admitted := make(chan string, 1)
		m.enqueue(t, "a", admitted)
		if len(admitted) > 0 {
			t.Fatal("it need not wait")
		}
		for range 2 {
			first.Take(nil, 16)
		}
		if more := first.Take(nil, 16); len(more) > 0 {
			t.Errorf("a running download took %d blocks before a queued one", len(more))
		}
	})
}

func TestDownload_BlocksStayReservedUntilReturnedOrTheConnectionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const budget = 8 * MinDownloadBytes
		m := newDownloads(8)
		connection, end := context.WithCancel(t.Context())
		d := m.begin(t, "a")
		held, lease := append(d.Take(nil, 1), d.Take(nil, 1)...), d.Lease()
		d.Release(connection)
		wantUsage(t, m, DownloadUsage{FreeBytes: budget - 2*BlockBytes, Callers: 1})
		lease.Put(held[0])
		wantUsage(t, m, DownloadUsage{FreeBytes: budget - BlockBytes, Callers: 1})
		end()
		synctest.Wait()
		wantUsage(t, m, DownloadUsage{FreeBytes: budget})
		lease.Put(held[1]) // gRPC may return it late
		wantUsage(t, m, DownloadUsage{FreeBytes: budget})
	})
}

// TestDownload_DroppedBlocksAreNotReserved drops a block without returning it, as gRPC does if a client resets its stream at the wrong moment.
func TestDownload_DroppedBlocksAreNotReserved(t *testing.T) {
	m := newDownloads(8)
	d := m.begin(t, "a")
	d.Take(nil, 1)
	d.Release(context.Background())
	for deadline := time.Now().Add(time.Minute); m.Usage().Callers > 0; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%+v: the block is still reserved", m.Usage())
		}
		runtime.GC()
	}
	wantUsage(t, m, DownloadUsage{FreeBytes: 8 * MinDownloadBytes})
}

// TestDownloads_EndedDownloadsCount has a caller whose clients read nothing: what gRPC keeps of ended downloads is part of its share.
func TestDownloads_EndedDownloadsCount(t *testing.T) {
	m := newDownloads(4)
	var leases []*Lease // of what gRPC keeps
	defer func() { runtime.KeepAlive(leases) }()
	begin := func() {
		d := m.begin(t, "a")
		d.Take(nil, 1)
		leases = append(leases, d.Lease())
		d.Release(context.Background())
	}
	for range 4 {
		begin()
	}
	for range 4 {
		if m.isQueued(t, "a") {
			break
		}
		begin()
	}
	if !m.isQueued(t, "a") {
		t.Errorf("the caller is not at its limit: %+v", m.Usage())
	}
	if m.isQueued(t, "b") {
		t.Error("another caller must wait")
	}
}

// TestDownloads_AccountsHaveShares has many callers of one account want all memory, beside one caller of another account.
func TestDownloads_AccountsHaveShares(t *testing.T) {
	m := newDownloads(16)
	m.begin(t, "Z")
	for c := 'a'; c <= 'm'; c++ {
		m.begin(t, string(c))
	}
	if !m.isQueued(t, "n") {
		t.Error("an account has more than seven times what stays free")
	}
	m.begin(t, "Y")
}
