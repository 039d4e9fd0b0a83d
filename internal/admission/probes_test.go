package admission

import (
	"errors"
	"fmt"
	"testing"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

func TestProbes(t *testing.T) {
	p := NewProbes(3, 4)
	wantRejected := func(connection, limit string) {
		t.Helper()
		_, err := p.Acquire(connection)
		var e *share.Error
		if !errors.As(err, &e) || e.Kind != share.TooManyStreams || e.Metadata["limit"] != limit {
			t.Errorf("%s: %v, want limit %s", connection, err, limit)
		}
	}
	var releases []func()
	open := func(connection string) {
		t.Helper()
		release, err := p.Acquire(connection)
		if err != nil {
			t.Fatal(err)
		}
		releases = append(releases, release)
	}
	for _, connection := range []string{"a", "b"} {
		for range 3 {
			open(connection)
		}
		wantRejected(connection, "connection")
	}
	for i := range 100 { // every connection may have one
		open(fmt.Sprint(i))
		wantRejected(fmt.Sprint(i), "server")
	}
	releases[0]() // one of a
	open("0")
	wantRejected("1", "server")
	if n := p.Open(); n != 106 {
		t.Errorf("%d are open, want 106", n)
	}
	for _, release := range releases[1:] {
		release()
	}
	if n := p.Open(); n != 0 || len(p.open) != 0 {
		t.Errorf("%d are open in the end, of %d connections", n, len(p.open))
	}
}
