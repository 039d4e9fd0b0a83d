package ledger

import (
	"context"
	"sync"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Memory is the simplest ledger, for tests of what works with one: a map, without a server behind it and with nothing that can
// fail. Servers have a KV, in memory too.
type Memory struct {
	max int
	now func() time.Time

	mu      sync.Mutex
	rev     uint64
	entries map[string]entry
	swept   time.Time
}

type entry struct {
	record share.Record
	rev    uint64
}

// sweepEvery is how often expired records are looked for.
const sweepEvery = time.Minute

// NewMemory makes a ledger of max records at the most; a record has about 1 KB.
func NewMemory(max int, now func() time.Time) *Memory {
	return &Memory{max: max, now: now, entries: make(map[string]entry)}
}

// Load returns the record of key and its revision; revision 0 means that there is none.
func (m *Memory) Load(_ context.Context, key string) (share.Record, uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[key]
	if !ok || !m.now().Before(e.record.Expires) {
		return share.Record{}, 0, nil
	}
	return e.record, e.rev, nil
}

// Save writes the record of key if its revision still is rev (0: if there is none), and returns the new one; share.ErrStale if
// it is not, LedgerUnavailable if the ledger is full: a record is never dropped before it expires.
func (m *Memory) Save(_ context.Context, key string, r share.Record, rev uint64) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweep()
	e, ok := m.entries[key]
	if ok && !m.now().Before(e.record.Expires) {
		e, ok = entry{}, false
	}
	if e.rev != rev {
		return 0, share.ErrStale
	}
	if !ok && len(m.entries) >= m.max {
		return 0, share.Errorf(share.LedgerUnavailable, "the record of request ids is full", nil)
	}
	m.rev++
	m.entries[key] = entry{record: r, rev: m.rev}
	return m.rev, nil
}

func (m *Memory) sweep() {
	now := m.now()
	if len(m.entries) < m.max && now.Sub(m.swept) < sweepEvery {
		return
	}
	m.swept = now
	for k, e := range m.entries {
		if !now.Before(e.record.Expires) {
			delete(m.entries, k)
		}
	}
}
