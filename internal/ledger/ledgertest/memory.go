// Package ledgertest has a ledger for the tests of packages that use one.
package ledgertest

import (
	"context"
	"sync"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Memory is a ledger in a map. It is as strict as ledger.KV about revisions and expiry, and fails only if it is full.
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

// sweepEvery is the time between two searches for expired records.
const sweepEvery = time.Minute

// NewMemory returns a ledger of at most max records.
func NewMemory(max int, now func() time.Time) *Memory {
	return &Memory{max: max, now: now, entries: make(map[string]entry)}
}

// Load returns the record of key and its revision. Revision 0: there is no record, or it has expired.
func (m *Memory) Load(_ context.Context, key string) (share.Record, uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[key]
	if !ok || !m.now().Before(e.record.Expires) {
		return share.Record{}, 0, nil
	}
	return e.record, e.rev, nil
}

// Save writes the record of key if its revision is still rev (0: if there is none), and returns the new revision. It returns
// share.ErrStale if the revision differs, and LedgerUnavailable if the ledger is full: a record is never dropped before it expires.
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
		return 0, share.Errorf(share.LedgerUnavailable, "the ledger of request ids is full", nil)
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
