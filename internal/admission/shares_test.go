package admission

import (
	"fmt"
	"testing"
)

// fill lets callers take one each in turn, until none of them may take more.
func fill(s *Shares, holders ...Holder) {
	for took := true; took; {
		took = false
		for _, h := range holders {
			if s.Fits(h, 1) {
				s.Take(h, 1)
				took = true
			}
		}
	}
}

func holders(groups, callers int) (all []Holder) {
	for g := range groups {
		for c := range callers {
			all = append(all, Holder{fmt.Sprint(g), Caller{byte(c)}})
		}
	}
	return all
}

func TestShares_DependOnLoad(t *testing.T) {
	const total = 10_000
	for _, c := range []struct {
		grouping        Grouping
		groups, callers int
		each            int64 // of total
	}{
		{ByAccount, 1, 1, total / 2},
		{ByAccount, 1, 2, total / 3},
		{ByAccount, 1, 9, total / 10},
		{ByAccount, 2, 1, total * 7 / 23},
		{ByAccount, 9, 1, total * 7 / 72},
		{ByPeer, 9, 50, total / 10 / 50},
	} {
		s := NewShares(total, c.grouping)
		all := holders(c.groups, c.callers)
		fill(s, all...)
		for _, h := range all {
			if got := s.Held(h); got < c.each-c.each/50-2 || got > c.each+c.each/50+2 {
				t.Errorf("%+v: %v holds %d, want %d", c, h, got, c.each)
			}
		}
		for _, h := range all {
			s.Take(h, -s.Held(h))
		}
		if s.Free() != total || len(s.callers)+len(s.groups) != 0 {
			t.Errorf("%+v: %d are free, %d callers and %d groups are left", c, s.Free(), len(s.callers), len(s.groups))
		}
	}
}

// What is free is at least what the largest caller could take, so newcomers find something, however many callers came before.
func TestShares_NewcomersFindSomething(t *testing.T) {
	for _, g := range []Grouping{ByAccount, ByPeer} {
		for _, n := range []int{1, 5, 40} {
			s := NewShares(100_000, g)
			old := holders(n, 5)
			fill(s, old...)
			for _, newcomer := range []Holder{{"new", Caller{}}, {"0", Caller{200}}} {
				if !s.Fits(newcomer, 1) {
					t.Errorf("grouping %d, %d groups: nothing is left for %v, %d are free", g, n, newcomer, s.Free())
				}
			}
		}
	}
}

// A caller that holds a lot takes no more once others have come, and is not asked to return anything.
func TestShares_ShrinkWhenOthersCome(t *testing.T) {
	s := NewShares(120, ByAccount)
	a, b := Holder{"x", Caller{'a'}}, Holder{"x", Caller{'b'}}
	fill(s, a)
	if s.Held(a) != 60 {
		t.Fatalf("alone it holds %d", s.Held(a))
	}
	s.Take(b, 30)
	if s.Fits(a, 1) || s.Fits(b, 1) {
		t.Error("more than a share fits")
	}
	s.Take(a, -30) // of 120, 30 and 30 are held
	if !s.Fits(a, 10) || s.Fits(a, 16) || !s.Within(a, 10) {
		t.Error("a caller does not get what is free")
	}
}

func TestShares_FirstRequestFits(t *testing.T) {
	s := NewShares(10, ByPeer)
	if h := (Holder{"x", Caller{}}); !s.Fits(h, 10) || s.Fits(h, 11) {
		t.Error("the first request is not given what there is")
	}
}
