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
	record  any
	expires time.Time
	rev     uint64
}

// sweepEvery is the time between two searches for expired records.
const sweepEvery = time.Minute

// NewMemory returns a ledger of at most max records.
func NewMemory(max int, now func() time.Time) *Memory {
	return &Memory{max: max, now: now, entries: make(map[string]entry)}
}

// Load returns the record of key and its revision. Revision 0: there is no record, or it has expired.
func (m *Memory) Load(_ context.Context, key string) (share.Record, uint64, error) {
	return load[share.Record](m, key)
}

// LoadCreation is Load for the record of a CreateConversation.
func (m *Memory) LoadCreation(_ context.Context, key string) (share.CreationRecord, uint64, error) {
	return load[share.CreationRecord](m, key)
}

func load[R any](m *Memory, key string) (R, uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var none R
	e, ok := m.entries[key]
	if !ok || !m.now().Before(e.expires) {
		return none, 0, nil
	}
	return e.record.(R), e.rev, nil
}

// Save writes the record of key if its revision is still rev (0: if there is none), and returns the new revision. It returns
// share.ErrStale if the revision differs, and LedgerUnavailable if the ledger is full: a record is never dropped before it expires.
func (m *Memory) Save(_ context.Context, key string, r share.Record, rev uint64) (uint64, error) {
	r.Owner = share.Principal{} // is not stored
	return m.save(key, r, r.Expires, rev)
}

// Finish does nothing: a Memory limits the number of records, not their size.
func (m *Memory) Finish(string, string) {}

// SaveCreation is Save for the record of a CreateConversation.
func (m *Memory) SaveCreation(_ context.Context, key string, r share.CreationRecord, rev uint64) (uint64, error) {
	r.Owner = share.Principal{}
	return m.save(key, r, r.Expires, rev)
}

func (m *Memory) save(key string, record any, expires time.Time, rev uint64) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweep()
	e, ok := m.entries[key]
	if ok && !m.now().Before(e.expires) {
		e, ok = entry{}, false
	}
	if e.rev != rev {
		return 0, share.ErrStale
	}
	if !ok && len(m.entries) >= m.max {
		return 0, share.Errorf(share.LedgerUnavailable, "the ledger of request ids is full", nil)
	}
	m.rev++
	m.entries[key] = entry{record: record, expires: expires, rev: m.rev}
	return m.rev, nil
}

func (m *Memory) sweep() {
	now := m.now()
	if len(m.entries) < m.max && now.Sub(m.swept) < sweepEvery {
		return
	}
	m.swept = now
	for k, e := range m.entries {
		if !now.Before(e.expires) {
			delete(m.entries, k)
		}
	}
}
