package admission

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// Files that are still arriving leave half of the connections to those that have arrived.
func TestScans_ArrivingFilesUseHalf(t *testing.T) {
	s := NewScans(4)
	var ends []func()
	for _, caller := range []string{"a", "b"} {
		end, ok := s.BeginArriving(holder(caller))
		if !ok {
			t.Fatalf("%s got none", caller)
		}
		ends = append(ends, end)
	}
	if _, ok := s.BeginArriving(holder("c")); ok {
		t.Error("a third arriving file got a connection")
	}
	end, err := s.Begin(t.Context(), holder("c"))
	if err != nil {
		t.Error(err)
	}
	for _, end := range append(ends, end) {
		end()
	}
	if end, ok := s.BeginArriving(holder("c")); !ok {
		t.Error("none is free although all have ended")
	} else {
		end()
	}
	if connections, waiting := s.InUse(); connections != 0 || waiting != 0 {
		t.Errorf("%d in use, %d waiting", connections, waiting)
	}
}

// A caller whose slow uploads have its whole share of arriving files still gets connections for those that have arrived, and if these
// have their whole share too, others get the rest, also for files that are still arriving.
func TestScans_ArrivedFilesHaveSharesOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewScans(8)
		for n := 0; ; n++ {
			if _, ok := s.BeginArriving(holder("a")); !ok {
				if n == 0 {
					t.Error("a got none")
				}
				break
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		admitted, ended := 0, make(chan struct{}, 8)
		for range cap(ended) {
			go func() {
				if _, err := s.Begin(ctx, holder("a")); err == nil {
					admitted++
				}
				ended <- struct{}{}
			}()
			synctest.Wait()
		}
		if admitted == 0 {
			t.Error("a waits for its own files that are still arriving")
		}
		if _, waiting := s.InUse(); waiting == 0 {
			t.Error("a has more than its share")
		}
		if _, ok := s.BeginArriving(holder("b")); !ok {
			t.Error("b gets none, although it could be free for nobody else")
		}
		cancel()
		for range cap(ended) {
			<-ended
		}
	})
}

// A caller with many files waits behind its own. Those that wait come before files that are still arriving.
func TestScans_CallersTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewScans(3)
		order := make(chan string, 10)
		var ends []func()
		begin := func(caller string) {
			go func() {
				end, err := s.Begin(t.Context(), holder(caller))
				if err != nil {
					t.Error(err)
					return
				}
				order <- caller
				end()
			}()
			synctest.Wait()
		}
		for _, caller := range []string{"a", "x", "y"} {
			end, err := s.Begin(t.Context(), holder(caller))
			if err != nil {
				t.Fatal(err)
			}
			ends = append(ends, end)
		}
		begin("a")
		begin("a")
		begin("b")
		if _, ok := s.BeginArriving(holder("c")); ok {
			t.Error("an arriving file came before those that wait")
		}
		if len(order) != 0 {
			t.Error("more connections than there are")
		}
		ends[1]() // of x
		synctest.Wait()
		if first := <-order; first != "b" {
			t.Errorf("%s was first, although it has a connection already", first)
		}
		ends[0]()
		ends[2]()
		synctest.Wait()
		if len(order) != 2 {
			t.Errorf("%d of 2 followed", len(order))
		}
	})
}

func TestScans_WaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewScans(1)
		end, err := s.Begin(t.Context(), holder("a"))
		if err != nil {
			t.Fatal(err)
		}
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		result := make(chan error, 1)
		go func() {
			_, err := s.Begin(ctx, holder("b"))
			result <- err
		}()
		synctest.Wait()
		cancel(gone)
		if err := <-result; !errors.Is(err, gone) {
			t.Errorf("got %v", err)
		}
		if _, waiting := s.InUse(); waiting != 0 {
			t.Errorf("%d wait", waiting)
		}
		end()
		if connections, _ := s.InUse(); connections != 0 {
			t.Errorf("%d in use", connections)
		}
	})
}
