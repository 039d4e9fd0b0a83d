package fault

import (
	"fmt"
	"testing"
)

func TestSet_Take(t *testing.T) {
	var s Set
	s.Inject(Fault{On: "a", Skip: 1, Count: 2, Status: 500})
	s.Inject(Fault{On: "a", Status: 501})
	got := []int{}
	for range 5 {
		f, _ := s.Take("a")
		got = append(got, f.Status)
	}
	if fmt.Sprint(got) != "[501 500 500 501 501]" {
		t.Error(got)
	}
	if _, hit := s.Take("b"); hit {
		t.Error("the fault struck at another place")
	}
	if n := s.Struck(); n != 5 {
		t.Errorf("Struck() = %d, want 5", n)
	}
	s.Clear()
	if _, hit := s.Take("a"); hit {
		t.Error("the fault struck after Clear")
	}
}

func TestParse(t *testing.T) {
	f, err := Parse([]byte(`{"on":"store:PUT","status":503,"retryAfter":2,"delay":1000000}`), nil)
	if err != nil || f != (Fault{On: "store:PUT", Status: 503, RetryAfter: 2, Delay: 1e6}) {
		t.Errorf("got %+v, %v", f, err)
	}
	for _, bad := range []string{`x`, `{"status":500}`, `{"on":"x","statsu":500}`, `{"on":"store:PATCH"}`} {
		if _, err := Parse([]byte(bad), []string{"GetClock"}); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}
