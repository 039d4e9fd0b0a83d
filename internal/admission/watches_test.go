package admission

import (
	"errors"
	"testing"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

func TestWatches_CallerGetsAsManyAsStayFree(t *testing.T) {
	w := NewWatches(12)
	var releases []func()
	fill := func(caller string) (n int) {
		for {
			release, err := w.Acquire(callerNamed(caller))
			if err != nil {
				var e *share.Error
				if !errors.As(err, &e) || e.Kind != share.TooManyStreams || e.Metadata["limit"] != "watches" {
					t.Errorf("%s: %v", caller, err)
				}
				return n
			}
			releases = append(releases, release)
			n++
		}
	}
	for _, test := range []struct {
		caller string
		want   int
	}{{"a", 6}, {"b", 3}, {"a", 0}, {"c", 1}, {"d", 1}, {"e", 1}, {"f", 0}} {
		if n := fill(test.caller); n != test.want {
			t.Errorf("%s got %d, want %d", test.caller, n, test.want)
		}
	}
	for _, release := range releases {
		release()
	}
	if n := fill("f"); n != 6 || len(w.open) != 1 {
		t.Errorf("afterwards %d, of %d callers", n, len(w.open))
	}
}
