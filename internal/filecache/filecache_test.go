package filecache

import (
	"testing"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A caller may reserve as much as others leave free, so there is always memory for one more.
func TestPart_LeavesMemoryForOthers(t *testing.T) {
	c := New(1200)
	greedy, honest := c.Part(), c.Part()
	for greedy.Reserve(100) {
	}
	if greedy.bytes != 600 {
		t.Errorf("one caller alone reserved %d bytes, want half", greedy.bytes)
	}
	for honest.Reserve(100) {
	}
	if honest.bytes != 300 {
		t.Errorf("another one reserved %d bytes, want half of the rest", honest.bytes)
	}
	greedy.Release(600)
	honest.Release(300)
	if c.used != 0 || c.reserved != 0 {
		t.Errorf("%d and %d bytes are left", c.used, c.reserved)
	}
}

// Reservations drop the dialog that was not used for longest, and only as many as are needed.
func TestCache_DropsTheOldestDialog(t *testing.T) {
	c := New(4 * (dialogOverhead + 100))
	var dialogs []*Dialog
	for range 3 {
		d := c.Dialog()
		d.Append(0, 1)
		dialogs = append(dialogs, d)
	}
	dialogs[0].Files() // used
	if !c.Part().Reserve(c.max - 2*dialogOverhead) {
		t.Error("there is memory for a part, if a dialog is dropped")
	}
	for i, want := range []bool{true, false, true} {
		if _, _, ok := dialogs[i].Files(); ok != want {
			t.Errorf("dialog %d is kept: %t", i, ok)
		}
	}
	dialogs[2].Append(1, 2, share.FileEvent{Conversation: string(make([]byte, c.max))})
	if _, _, ok := dialogs[2].Files(); ok {
		t.Error("a dialog that is larger than the maximum is kept")
	}
}
