package admission

import (
	"context"
	"slices"
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
}

// Downloads limits the memory that downloads may use: one budget for all downloads, with a bounded queue.
//
// A caller may reserve at most as much as is free. One caller alone gets half of the budget, n callers that want all they can get
// have 1/(n+1) each, and the last part is free for the next caller. A caller's first download needs no more than free memory.
//
// A download begins with MinDownloadBytes and takes further blocks while its caller's share has some, so chunks are large when few
// downloads run, and small when many do. Queued callers take turns.
type Downloads struct {
	DownloadLimits
	blocks sync.Pool // *Block, returned by downloads

	mu      sync.Mutex
	free    int64 // bytes of the budget
	queued  int
	callers map[Caller]*downloader // those that have reserved or queue
	turns   []*downloader          // those that queue, in the order of their turns
	spread  retrySpread
}

// A downloader is a caller with downloads.
type downloader struct {
	caller  Caller
	bytes   int64 // reserved
	running int
	queue   []chan struct{} // of queued downloads; closed when the download is admitted
}

// NewDownloads returns Downloads with nothing reserved.
func NewDownloads(l DownloadLimits) *Downloads {
	return &Downloads{
		DownloadLimits: l,
		blocks:         sync.Pool{New: func() any { return new(Block) }},
		free:           l.Budget,
		callers:        make(map[Caller]*downloader),
	}
}

// DownloadUsage is what downloads have reserved now.
type DownloadUsage struct {
	// FreeBytes is what is left of the budget.
	FreeBytes int64
	// Running and Queued are numbers of downloads, Callers that of callers with downloads or with memory that is not returned yet.
	Running, Queued, Callers int
}

// Usage returns what is reserved and queued now.
func (m *Downloads) Usage() DownloadUsage {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := DownloadUsage{FreeBytes: m.free, Queued: m.queued, Callers: len(m.callers)}
	for _, c := range m.callers {
		u.Running += c.running
	}
	return u
}

// Reserve reserves memory for a download, and queues for it. TooManyStreams if there is none in time, or the queue is full. The
// caller of Reserve releases the Download.
func (m *Downloads) Reserve(ctx context.Context, c Caller) (*Download, error) {
	of, admitted, err := m.join(c)
	if err != nil {
		return nil, err
	}
	d := &Download{from: m, of: of, returned: make(chan struct{}, 1)}
	select {
	case <-admitted: // mostly at once
		return d, nil
	default:
	}
	timeout := time.NewTimer(m.QueueTimeout)
	defer timeout.Stop()
	select {
	case <-admitted:
		return d, nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-timeout.C:
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	left := m.leave(of, admitted)
	switch {
	case err == nil && !left: // it was admitted at the last moment
		return d, nil
	case err == nil:
		return nil, m.reject("none became free in time")
	case !left:
		d.end()
	}
	return nil, err
}

// join appends a download to its caller's queue, and admits it at once if there is memory.
func (m *Downloads) join(c Caller) (of *downloader, admitted chan struct{}, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if of = m.callers[c]; of == nil {
		of = &downloader{caller: c}
		m.callers[c] = of
	}
	admitted = make(chan struct{})
	of.queue = append(of.queue, admitted)
	if len(of.queue) == 1 {
		m.turns = append(m.turns, of)
	}
	m.queued++
	m.admit()
	if m.queued > m.QueueLength && m.leave(of, admitted) {
		return nil, nil, m.reject("the queue is full")
	}
	return of, admitted, nil
}

// admit reserves memory for queued downloads in the order of their callers' turns. Callers that have reached their share are passed
// over. m is locked, here and in the functions below.
func (m *Downloads) admit() {
	for i := 0; i < len(m.turns) && m.free >= MinDownloadBytes; {
		of := m.turns[i]
		if of.bytes > 0 && !m.within(of, MinDownloadBytes) {
			i++
			continue
		}
		admitted := of.queue[0]
		of.queue = slices.Delete(of.queue, 0, 1)
		m.queued--
		m.turns = slices.Delete(m.turns, i, i+1)
		if len(of.queue) > 0 {
			m.turns = append(m.turns, of)
		}
		of.running++
		m.reserve(of, MinDownloadBytes)
		m.spread.admitted(m.Now())
		close(admitted)
		i = 0
	}
}

// within reports whether a caller stays within its share if it reserves so many bytes more.
func (m *Downloads) within(of *downloader, bytes int64) bool { return of.bytes+bytes <= m.free-bytes }

func (m *Downloads) reserve(of *downloader, bytes int64) {
	of.bytes += bytes
	m.free -= bytes
}

// leave removes a download from the queue. It returns false if the download has been admitted.
func (m *Downloads) leave(of *downloader, admitted chan struct{}) bool {
	i := slices.Index(of.queue, admitted)
	if i < 0 {
		return false
	}
	of.queue = slices.Delete(of.queue, i, i+1)
	m.queued--
	if len(of.queue) == 0 {
		m.turns = slices.DeleteFunc(m.turns, func(x *downloader) bool { return x == of })
	}
	m.forget(of)
	return true
}

func (m *Downloads) forget(of *downloader) {
	if m.callers[of.caller] == of && of.bytes == 0 && of.running == 0 && len(of.queue) == 0 {
		delete(m.callers, of.caller)
	}
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
	of       *downloader
	returned chan struct{} // has a value after a block was returned

	// Guarded by from.mu.
	held   int         // blocks that are not returned
	chunk  int         // blocks of the latest chunk
	ended  bool        // Release was called
	lost   bool        // the connection ended: what is held is garbage
	unhook func() bool // stops the wait for the connection's end
}

// reserved returns the bytes that the download has reserved.
func (d *Download) reserved() int64 {
	switch {
	case d.lost:
		return 0
	case d.ended:
		return int64(d.held) * BlockBytes
	}
	return downloadOverhead + int64(max(d.held, leastBlocks))*BlockBytes
}

// Take appends blocks for the next chunk to blocks: at least one, at most most, or none if the download holds as many as it may.
// Then Returned has a value when it is worth trying again. The number of blocks depends on what the caller's share has for each
// of its downloads. It begins with one and at most doubles with each chunk, so a client that reads nothing holds little.
func (d *Download) Take(blocks []*Block, most int) []*Block {
	m := d.from
	m.mu.Lock()
	defer m.mu.Unlock()
	chunk := min(max(d.chunk*2, 1), most, d.fairChunk())
	taken := 0
	for taken < chunk && d.mayHoldMore() {
		before := d.reserved()
		d.held++
		m.reserve(d.of, d.reserved()-before)
		taken++
		blocks = append(blocks, m.blocks.Get().(*Block))
	}
	if taken > 0 {
		d.chunk = taken
	}
	return blocks
}

// fairChunk returns the blocks of a chunk if the caller's share is divided equally between its downloads: each holds one chunk that
// is filled and one that is sent.
func (d *Download) fairChunk() int {
	shareOfCaller := (d.of.bytes + d.from.free) / 2
	each := shareOfCaller/int64(d.of.running+len(d.of.queue)) - downloadOverhead
	return int(max(each/(2*BlockBytes), 1))
}

func (d *Download) mayHoldMore() bool {
	return d.held < leastBlocks || len(d.of.queue) == 0 && d.from.within(d.of, BlockBytes)
}

// Returned has a value after a block was returned.
func (d *Download) Returned() <-chan struct{} { return d.returned }

// Put returns a block that nothing refers to any more.
func (d *Download) Put(b *Block) {
	m := d.from
	m.blocks.Put(b)
	m.mu.Lock()
	defer m.mu.Unlock()
	before := d.reserved()
	d.held--
	m.reserve(d.of, d.reserved()-before)
	if d.ended && d.held == 0 && d.unhook != nil {
		d.unhook()
	}
	m.forget(d.of)
	m.admit()
	select {
	case d.returned <- struct{}{}:
	default:
	}
}

// Release ends the download. Blocks that are not returned yet, because they are still being sent, stay reserved until they are, or
// until connection ends. Call Release once.
func (d *Download) Release(connection context.Context) {
	m := d.from
	m.mu.Lock()
	defer m.mu.Unlock()
	d.end()
	if d.held > 0 {
		d.unhook = context.AfterFunc(connection, d.lose)
	}
}

// end is Release with m locked.
func (d *Download) end() {
	m := d.from
	before := d.reserved()
	d.ended = true
	d.of.running--
	m.reserve(d.of, d.reserved()-before)
	m.forget(d.of)
	m.admit()
}

// lose gives up the blocks of a connection that has ended: gRPC does not return all of them, and nothing else refers to them.
func (d *Download) lose() {
	m := d.from
	m.mu.Lock()
	defer m.mu.Unlock()
	before := d.reserved()
	d.lost = true
	m.reserve(d.of, -before)
	m.forget(d.of)
	m.admit()
}
