package fault

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"
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
	types := []string{"GetClock"}
	f, err := Parse([]byte(`{"on":"store:PUT","status":503,"retryAfter":2,"delay":1000000}`), nil)
	if err != nil || f != (Fault{On: "store:PUT", Status: 503, RetryAfter: 2, Delay: 1e6}) {
		t.Errorf("got %+v, %v", f, err)
	}
	for text, want := range map[string]Fault{
		`{"on":"GetClock","delay":"3s"}`:                          {On: "GetClock", Delay: 3 * time.Second},
		`{"on":".ams.GetClock","delay":0,"answerDelay":"1m0.5s"}`: {On: "GetClock", AnswerDelay: 60*time.Second + 500*time.Millisecond},
		` {"on":"webhook:POST","answerDelay":5,"cutAfter":-1} `:   {On: "webhook:POST", AnswerDelay: 5, CutAfter: -1},
	} {
		if f, err := Parse([]byte(text), types); err != nil || f != want {
			t.Errorf("%s: %+v, %v", text, f, err)
		}
	}
	for _, bad := range []string{
		`x`, `null`, `{"status":500}`, `{"on":"GetClock","statsu":500}`, `{"on":"store:PATCH"}`, `{"on":"GetClocks"}`, `{"on":"stores:PUT"}`,
		`{"on":"GetClock"} {"on":"GetClock"}`, `{"on":"GetClock","delay":"3"}`, `{"on":"GetClock","delay":"soon"}`, `{"on":"GetClock","delay":1.5}`,
		`{"on":"GetClock","delay":"-3s"}`, `{"on":"GetClock","count":-1}`, `{"on":"GetClock","status":42}`, `{"on":"GetClock","closeCode":42}`,
		`{"on":"store:GET","cutAfter":-2}`, `{"on":"GetClock","delay":[]}`,
	} {
		if f, err := Parse([]byte(bad), types); err == nil {
			t.Errorf("%s: %+v", bad, f)
		}
	}
}

func TestSet_List(t *testing.T) {
	var s Set
	first := s.Inject(Fault{On: "a", Skip: 1, Count: 2, Delay: 1500 * time.Millisecond})
	second := s.Inject(Fault{On: "b", Status: 500})
	want := func(want string) {
		t.Helper()
		if data, err := json.Marshal(s.List()); err != nil || string(data) != want {
			t.Errorf("%s %v\n\twant %s", data, err, want)
		}
	}
	want(`[{"id":1,"on":"a","skip":1,"count":2,"delay":"1.5s","struck":0,"skipsLeft":1,"left":2},` +
		`{"id":2,"on":"b","status":500,"struck":0,"skipsLeft":0,"left":null}]`)
	for range 2 {
		s.Take("a")
	}
	want(`[{"id":1,"on":"a","skip":1,"count":2,"delay":"1.5s","struck":1,"skipsLeft":0,"left":1},` +
		`{"id":2,"on":"b","status":500,"struck":0,"skipsLeft":0,"left":null}]`)
	s.Take("a")
	want(`[{"id":2,"on":"b","status":500,"struck":0,"skipsLeft":0,"left":null}]`) // the first has struck for the last time
	if s.Remove(first) || !s.Remove(second) || s.Remove(second) {
		t.Error("a fault is removed once, while it is armed")
	}
	want(`[]`)
	if third := s.Inject(Fault{On: "a"}); third == first || third == second {
		t.Errorf("the id %d was used again", third)
	}
}
