package main

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// A token that a command renews must not be lost because another stores its listing at the same time.
func TestSession_ConcurrentUpdates(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("not on Windows: it has no flock, and sessions are not locked there")
	}
	f := sessionFile(filepath.Join(t.TempDir(), "sub", "session.json"))
	const updates = 10
	var group sync.WaitGroup
	for i := range updates {
		group.Go(func() {
			err := f.update(func(s *session) {
				s.Conversations = append(s.Conversations, created{Name: fmt.Sprint(i)})
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	s, err := f.load()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(s.Conversations); n != updates {
		t.Errorf("%d of %d updates were kept", n, updates)
	}
}

func TestSession_LargeListing(t *testing.T) {
	f := sessionFile(filepath.Join(t.TempDir(), "session.json"))
	names := make([]string, maxListed)
	for i := range names {
		names[i] = strings.Repeat("<", 1400) // which JSON writes as six bytes each
	}
	if err := f.save(&session{Account: "x", Listed: &listing{Names: names}}); err != nil {
		t.Fatal(err)
	}
	s, err := f.load()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(s.Listed.Names); s.Account != "x" || n != maxListedBytes/(1400*6+10) {
		t.Errorf("%d names were kept, account %q", n, s.Account)
	}
}
