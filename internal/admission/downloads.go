package admission

import (
	"context"
	"runtime"
	"sync"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

const (
	// downloadOverhead is the memory of a download beside its blocks: goroutines, the store's connection with its buffer, the state
	// of the stream. Measured by TestDownloads_StalledStayWithinTheFormula in test/load.
	downloadOverhead = 64 << 10
	// leastBlocks is the number of blocks that every download may hold: one is filled from the store while the other is sent.
	leastBlocks = 2
	// MinDownloadBytes is the memory that is reserved for a download when it begins.
	MinDownloadBytes = downloadOverhead + leastBlocks*BlockBytes
)

// DownloadLimits are the limits of the memory of downloads. Every field is required.
type DownloadLimits struct {
	// Budget is the memory for all downloads, in bytes.
	Budget int64
	// QueueLength is the maximum number of queued downloads of all callers, QueueTimeout how long each may queue.
	QueueLength  int
	QueueTimeout time.Duration
	// Now is the clock.
	Now func() time.Time
	// Blocks keeps the blocks that are not in use.
	Blocks BlockPool
}

// A BlockPool keeps blocks that are not in use, for example gRPC's mem.BufferPool.
type BlockPool interface {
	// Get returns a block of the given length, in bytes, with any content.
	Get(length int) *[]byte
	// Put takes back a block that nothing refers to any more.
	Put(block *[]byte)
}

// Downloads limits the memory that downloads may use: one budget for all downloads, with a bounded queue. Callers have Shares of it.
//
// A download begins with MinDownloadBytes and takes further blocks while its caller's share has some, so chunks are large when few
// downloads run, and small when many do. In the queue the accounts take turns, and within an account its callers.
type Downloads struct {
	DownloadLimits

	mu      sync.Mutex
	shares  *Shares        // of Budget
	running map[Holder]int // admitted and not ended
	queue   turns
	spread  retrySpread
}

// NewDownloads returns Downloads with nothing reserved.
func NewDownloads(l DownloadLimits) *Downloads {
	return &Downloads{
		DownloadLimits: l,
		shares:         NewShares(l.Budget, ByAccount),
		running:        make(map[Holder]int),
		queue:          newTurns(),
	}
}

// DownloadUsage is what downloads have reserved now.
type DownloadUsage struct {
	// FreeBytes is what is left of the budget.
	FreeBytes int64
	// Running and Queued are numbers of downloads, Callers that of callers with memory that is not returned yet.
	Running, Queued, Callers int
}

// Usage returns what is reserved and queued now.
func (m *Downloads) Usage() DownloadUsage {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := DownloadUsage{FreeBytes: m.shares.Free(), Queued: m.queue.waiting, Callers: m.shares.Callers()}
	for _, n := range m.running {
		u.Running += n
	}
	return u
}

// Reserve reserves memory for a download, and queues for it. TooManyStreams if there is none in time, or the queue is full. The
// caller of Reserve releases the Download.
func (m *Downloads) Reserve(ctx context.Context, h Holder) (*Download, error) {
	return m.ReserveWhole(ctx, h, 0)
}

// ReserveWhole is Reserve for a download that keeps a whole file of at most whole bytes in memory, in addition to its blocks, until it ends.
func (m *Downloads) ReserveWhole(ctx context.Context, h Holder, whole int64) (*Download, error) {
	if whole > 0 {
		whole = (whole + BlockBytes - 1) / BlockBytes * BlockBytes
	}
	w, err := m.join(h, whole)
	if err != nil {
		return nil, err
	}
	d := &Download{from: m, holder: h, whole: whole, returned: make(chan struct{}, 1)}
	d.lease = &Lease{download: d}
	if w.isAdmitted() { // mostly
		return d, nil
	}
	timeout := time.NewTimer(m.QueueTimeout)
	defer timeout.Stop()
	select {
	case <-w.admitted:
		return d, nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-timeout.C:
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err == nil && w.isAdmitted(): // at the last moment
		return d, nil
	case err == nil:
		m.queue.remove(w)
		return nil, m.reject("none became free in time")
	case w.isAdmitted():
		d.end()
	default:
		m.queue.remove(w)
	}
	return nil, err
}

// join appends a download to its caller's line, and admits it at once if there is memory.
func (m *Downloads) join(h Holder, whole int64) (*waiter, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := &waiter{holder: h, whole: whole, admitted: make(chan struct{})}
	m.queue.push(w)
	m.admit()
	if m.queue.waiting > m.QueueLength && !w.isAdmitted() {
		m.queue.remove(w)
		return nil, m.reject("the queue is full")
	}
	return w, nil
}

// admit reserves memory for downloads that wait, as long as there is some. m is locked, here and in the functions below.
func (m *Downloads) admit() {
	for m.queue.next(m.decide) {
	}
}

// decide reserves memory for a download whose turn it is, if there is some.
func (m *Downloads) decide(w *waiter) decision {
	need := MinDownloadBytes + w.whole
	switch {
	case m.shares.Free() < need:
		return stop
	case !m.shares.Within(w.holder, need):
		return pass
	}
	m.running[w.holder]++
	m.shares.Take(w.holder, need)
	m.spread.admitted(m.Now())
	return admitted
}

func (m *Downloads) reject(why string) error {
	e := share.Reject(share.TooManyStreams, "the server's memory for downloads is in use, and %s; retry later", why).With("limit", limitMemory)
	e.RetryAfter = m.spread.rejected()
	return e
}

// limitMemory is the value of the metadata "limit" of TooManyStreams if memory is in use.
const limitMemory = "memory"

// A Download is a reservation of the memory of one download. Its methods can be called from several goroutines.
type Download struct {
	from     *Downloads
	holder   Holder
	returned chan struct{} // has a value after a block was returned

	// Guarded by from.mu.
	whole  int64       // bytes of the file that is kept in memory
	held   int         // blocks that are not returned
	chunk  int         // blocks of the latest chunk
	ended  bool        // Release was called
	lost   bool        // what is held is garbage
	unhook func() bool // stops the wait for the connection's end
	lease  *Lease      // nil after Release
}

// A Lease is what the buffers of a Download's blocks refer to. gRPC drops some buffers of a stream that the client resets without
// returning them. When nothing refers to the Lease any more, neither will they be returned, and their reservation ends.
type Lease struct{ download *Download }

// Put returns a block that nothing refers to any more.
func (l *Lease) Put(b *[]byte) { l.download.put(b) }

// Lease returns the lease of the download's blocks. Call it before Release.
func (d *Download) Lease() *Lease { return d.lease }

// reserved returns the bytes that the download has reserved.
func (d *Download) reserved() int64 {
	switch {
	case d.lost:
		return 0
	case d.ended:
		return int64(d.held) * BlockBytes
	}
	return downloadOverhead + d.whole + int64(max(d.held, leastBlocks))*BlockBytes
}

// KeepWhole reduces what ReserveWhole has reserved to a file of size bytes.
func (d *Download) KeepWhole(size int64) {
	m := d.from
	m.mu.Lock()
	defer m.mu.Unlock()
	before := d.reserved()
	d.whole = min(d.whole, (size+BlockBytes-1)/BlockBytes*BlockBytes)
	m.shares.Take(d.holder, d.reserved()-before)
	m.admit()
}

// Take appends blocks of BlockBytes for the next chunk to blocks: at least one, at most most, or none if the download holds as many as it may.
// Then Returned has a value when it is worth trying again. The number of blocks depends on what the caller's share has for each
// of its downloads. It begins with one and at most doubles with each chunk, so a client that reads nothing holds little.
func (d *Download) Take(blocks []*[]byte, most int) []*[]byte {
	m := d.from
	m.mu.Lock()
	defer m.mu.Unlock()
	chunk := min(max(d.chunk*2, 1), most, d.fairChunk())
	taken := 0
	for taken < chunk && d.mayHoldMore() {
		before := d.reserved()
		d.held++
		m.shares.Take(d.holder, d.reserved()-before)
		taken++
		blocks = append(blocks, m.Blocks.Get(BlockBytes))
	}
	if taken > 0 {
		d.chunk = taken
	}
	return blocks
}

// fairChunk returns the blocks of a chunk if the caller's share is divided equally between its downloads: each holds one chunk that
// is filled and one that is sent.
func (d *Download) fairChunk() int {
	m := d.from
	shareOfCaller := (m.shares.Held(d.holder) + m.shares.Free()) / 2
	each := shareOfCaller/int64(m.running[d.holder]+m.queue.length(d.holder)) - downloadOverhead
	return int(max(each/(2*BlockBytes), 1))
}

func (d *Download) mayHoldMore() bool {
	m := d.from
	return d.held < leastBlocks || m.queue.length(d.holder) == 0 && m.shares.Within(d.holder, BlockBytes)
}

// Held returns the number of blocks that are not returned.
func (d *Download) Held() int {
	d.from.mu.Lock()
	defer d.from.mu.Unlock()
	return d.held
}

// Returned has a value after a block was returned.
func (d *Download) Returned() <-chan struct{} { return d.returned }

func (d *Download) put(b *[]byte) {
	m := d.from
	m.Blocks.Put(b)
	m.mu.Lock()
	defer m.mu.Unlock()
	before := d.reserved()
	d.held--
	m.shares.Take(d.holder, d.reserved()-before)
	if d.ended && d.held == 0 && d.unhook != nil {
		d.unhook()
	}
	m.admit()
	select {
	case d.returned <- struct{}{}:
	default:
	}
}

// Release ends the download. Blocks that are not returned yet, because they are still being sent, stay reserved until they are, or
// until connection ends, or until nothing refers to the Lease. Call Release once.
func (d *Download) Release(connection context.Context) {
	m := d.from
	m.mu.Lock()
	defer m.mu.Unlock()
	d.end()
	lease := d.lease
	d.lease = nil
	if d.held > 0 {
		d.unhook = context.AfterFunc(connection, d.lose)
		runtime.AddCleanup(lease, (*Download).lose, d)
	}
}

// end is Release with m locked.
func (d *Download) end() {
	m := d.from
	before := d.reserved()
	d.ended = true
	if m.running[d.holder]--; m.running[d.holder] == 0 {
		delete(m.running, d.holder)
	}
	m.shares.Take(d.holder, d.reserved()-before)
	m.admit()
}

// lose gives up the blocks of a connection that has ended, or that gRPC has dropped: nothing refers to them.
func (d *Download) lose() {
	m := d.from
	m.mu.Lock()
	defer m.mu.Unlock()
	before := d.reserved()
	d.lost = true
	if d.unhook != nil {
		d.unhook()
	}
	m.shares.Take(d.holder, -before)
	m.admit()
}
