package lpws

import (
	"strings"
	"testing"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A history that is more than a watch may hold is given in parts: each ends behind what fitted, and the next goes on from there.
func TestWatch_DeliversALongHistoryInParts(t *testing.T) {
	const files = 2000
	preview := strings.Repeat("p", 60<<10)
	after := share.Cursor{}
	seen, parts := int64(0), 0
	for seen < files {
		parts++
		w := newWatch(nil, nil, "", after)
		for seq := seen; seq < files && w.err == nil; seq++ {
			w.push("d", seq, &share.FileEvent{Dialog: "d", Sequence: seq, File: share.HostedFile{Preview: preview}}, false)
		}
		if w.bytes > watchBytes+itemBytes+len(preview) {
			t.Fatalf("the watch holds %d bytes", w.bytes)
		}
		for {
			e, err := w.Next(ctxOf(t))
			if err != nil {
				if !share.Is(err, share.WatchTooSlow) {
					t.Fatal(err)
				}
				break
			}
			if e.Sequence != seen {
				t.Fatalf("%d came, want %d", e.Sequence, seen)
			}
			if seen++; seen == files {
				break
			}
		}
		if after = w.Cursor(); after["d"] != seen-1 {
			t.Fatalf("the cursor is %v behind %d files", after, seen)
		}
	}
	if parts < 3 {
		t.Errorf("it came in %d parts: the bound does nothing", parts)
	}
}
