package ledgertest

import (
	"strconv"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

func TestMemory_Full(t *testing.T) {
	now := time.Unix(1000, 0)
	m := NewMemory(3, func() time.Time { return now })
	for i := range 3 {
		if _, err := m.Save(t.Context(), strconv.Itoa(i), share.Record{Expires: now.Add(time.Hour)}, 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Save(t.Context(), "one more", share.Record{Expires: now.Add(time.Hour)}, 0); !share.Is(err, share.LedgerUnavailable) {
		t.Errorf("a full ledger gave %v, want LEDGER_UNAVAILABLE", err)
	}
	if _, rev, _ := m.Load(t.Context(), "0"); rev == 0 {
		t.Error("a record was dropped before it expired")
	}
	now = now.Add(2 * time.Hour)
	if _, err := m.Save(t.Context(), "one more", share.Record{Expires: now.Add(time.Hour)}, 0); err != nil {
		t.Errorf("Save after all records expired: %v", err)
	}
}
