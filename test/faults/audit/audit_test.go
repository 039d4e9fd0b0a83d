package audit

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/lpfileshare/lpfileshare/internal/sandbox"
)

// upload number i as its caller saw it, and what its message and its object must be.
func upload(i int) (Upload, Message, Object) {
	path, mark := fmt.Sprintf("/v1/AUTH_async-images/12345678/p%d", i), fmt.Sprintf("mark %d", i)
	t := Upload{
		Case: fmt.Sprintf("case %d", i), Mark: mark, Owner: fmt.Sprintf("owner %d", i), Conversation: "c", SHA256: fmt.Sprintf("sha %d", i), Size: 5,
		Outcome: Acknowledged, StoragePath: path, Sequence: int64(i),
	}
	return t, Message{"c", "c", int64(i), path, mark}, Object{path, 5, t.SHA256}
}

// good is an account of n uploads that all went well.
func good(n int) (Record, Evidence) {
	var a Record
	var e Evidence
	for i := range n {
		t, m, o := upload(i)
		a.Uploads = append(a.Uploads, t)
		e.Published = append(e.Published, m)
		e.Stored = append(e.Stored, o)
		e.Signed = append(e.Signed, SignedURL{"PUT", o.Path, t.Owner})
	}
	a.Watches = []Watch{{Case: "watch", Conversation: "none"}, {Case: "broken watch", Conversation: "c", Broken: true}}
	a.Downloads = []Download{{"download", e.Stored[0].Path, e.Stored[0].SHA256}}
	return a, e
}

func TestAnAccountThatHoldsHasNoFindings(t *testing.T) {
	a, e := good(5)
	a.Uploads[3].Outcome, a.Uploads[3].Reason = Refused, "LP_REJECTED_FILE"
	e.Published = slices.Delete(e.Published, 3, 4)
	a.Uploads[4].Outcome = Stored
	e.Published = e.Published[:3]
	r := Check(a, e)
	if len(r.Findings) > 0 || r.Uploads != 5 || r.Acknowledged != 3 || r.Refused != 1 || r.Stored != 1 {
		t.Errorf("%+v", r)
	}
	if r.Orphans["stored, then refused: LP_REJECTED_FILE"] != 1 || len(r.Orphans) != 1 {
		t.Errorf("orphans: %v", r.Orphans)
	}
}

func TestEachFaultIsReported(t *testing.T) {
	for _, test := range []struct {
		name  string
		spoil func(*Record, *Evidence)
		want  Fault
	}{
		{"one lost", func(_ *Record, e *Evidence) { e.Published = e.Published[:2] }, Lost},
		{"one whose object is gone", func(_ *Record, e *Evidence) { e.Stored = e.Stored[:2] }, Lost},
		{"one published under another path than acknowledged", func(_ *Record, e *Evidence) {
			e.Published[2].Path = "/v1/AUTH_async-images/12345678/other"
			e.Stored[2].Path = e.Published[2].Path
		}, Lost},
		{"one in another conversation", func(_ *Record, e *Evidence) { e.Published[2].Conversation = "d" }, Lost},
		{"one at another sequence", func(_ *Record, e *Evidence) { e.Published[2].Sequence = 7 }, Lost},
		{"one doubled by its path", func(_ *Record, e *Evidence) {
			twice := e.Published[2]
			twice.Sequence, twice.Caption = 9, ""
			e.Published = append(e.Published, twice)
		}, Doubled},
		{"one doubled, of which the second was acknowledged", func(a *Record, e *Evidence) {
			twice := e.Published[2]
			twice.Sequence, a.Uploads[2].Sequence = 9, 9
			e.Published = append(e.Published, twice)
		}, Doubled},
		{"one doubled under another path", func(_ *Record, e *Evidence) {
			twice := e.Published[2]
			twice.Sequence, twice.Path = 9, "/v1/AUTH_async-images/12345678/other"
			e.Published = append(e.Published, twice)
		}, Doubled},
		{"one refused but published", func(a *Record, _ *Evidence) {
			a.Uploads[2].Outcome, a.Uploads[2].StoragePath = Refused, ""
		}, RefusedPublished},
		{"one unconfirmed but published", func(a *Record, _ *Evidence) {
			a.Uploads[2].Outcome, a.Uploads[2].StoragePath = Unconfirmed, ""
		}, Unsettled},
		{"one stored only but published", func(a *Record, _ *Evidence) { a.Uploads[2].Outcome = Stored }, RefusedPublished},
		{"one with other bytes", func(_ *Record, e *Evidence) { e.Stored[2].SHA256 = "other" }, OtherBytes},
		{"one that was overwritten", func(_ *Record, e *Evidence) {
			again := e.Stored[2]
			again.SHA256 = "other"
			e.Stored = append(e.Stored, again)
		}, OtherBytes},
		{"one download with other bytes", func(a *Record, _ *Evidence) { a.Downloads[0].SHA256 = "other" }, OtherBytes},
		{"one never settled", func(a *Record, e *Evidence) { a.Uploads[2].Outcome = Unknown }, Unsettled},
		{"one message of nobody's", func(_ *Record, e *Evidence) {
			e.Published = append(e.Published, Message{"c", "c", 9, "/v1/AUTH_async-images/12345678/other", "?"})
		}, Unclaimed},
		{"one object of nobody's", func(_ *Record, e *Evidence) { e.Stored = append(e.Stored, Object{"/v1/other", 5, "?"}) }, Unclaimed},
		{"one that a watch missed", func(a *Record, _ *Evidence) {
			a.Watches = []Watch{{Case: "watch", Conversation: "c", Marks: []string{"mark 0", "mark 1"}}}
		}, Misdelivered},
		{"one that a watch got twice", func(a *Record, _ *Evidence) {
			a.Watches = []Watch{{Case: "watch", Conversation: "c", Marks: []string{"mark 0", "mark 1", "mark 2", "mark 2"}}}
		}, Misdelivered},
		{"one that a broken watch got twice", func(a *Record, _ *Evidence) {
			a.Watches = []Watch{{Case: "watch", Conversation: "c", Marks: []string{"mark 1", "mark 1"}, Broken: true}}
		}, Misdelivered},
		{"one that only the watch knows", func(a *Record, _ *Evidence) {
			a.Watches = []Watch{{Case: "watch", Conversation: "c", Marks: []string{"mark 0", "mark 1", "mark 2", "mark 3"}}}
		}, Misdelivered},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, e := good(3)
			test.spoil(&a, &e)
			r := Check(a, e)
			if len(r.Findings) != 1 || r.Count(test.want) != 1 {
				t.Errorf("want one finding: %v; got %v", test.want, r.Findings)
			}
		})
	}
}

func TestWhatWasSpoiledOnTheWayIsAlteredAndNeverExcusedFromTwice(t *testing.T) {
	a, e := good(3)
	e.Published[2].Caption = "mbrk 2"
	a.Uploads[2].Spoiled = true
	if r := Check(a, e); len(r.Findings) > 0 || r.Altered != 1 || r.Acknowledged != 3 {
		t.Errorf("%+v", r)
	}
	twice := e.Published[2]
	twice.Sequence = 9
	e.Published = append(e.Published, twice)
	if r := Check(a, e); r.Count(Doubled) != 1 {
		t.Errorf("%+v", r)
	}
	a.Uploads[2].Outcome = Refused
	if r := Check(a, e); r.Count(RefusedPublished) != 1 || r.Count(Doubled) != 1 {
		t.Errorf("%+v", r)
	}
}

func TestReportsAddUp(t *testing.T) {
	a, e := good(2)
	e.Published = e.Published[:1]
	var sum Report
	for range 3 {
		sum.Add(Check(a, e))
	}
	if sum.Uploads != 6 || sum.Acknowledged != 6 || sum.Count(Lost) != 3 || sum.Downloads != 3 || sum.Orphans["stored again under another path after a fault"] != 3 {
		t.Errorf("%+v", sum)
	}
	if s := sum.Findings[0].String(); !strings.HasPrefix(s, "lost: case 1: ") {
		t.Error(s)
	}
}

// TestTheSandboxsJournalIsEvidence notices when the sandbox calls something by another name: the auditor would then see nothing,
// and find nothing.
func TestTheSandboxsJournalIsEvidence(t *testing.T) {
	sb, err := sandbox.Start(sandbox.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer sb.Close()
	if _, err := Fetch(t.Context(), sb.URL()); err != nil {
		t.Error(err)
	}
	j := sandbox.Journal{
		Stored:    []sandbox.StoredObject{{Path: "p", Size: 5, SHA256: "s"}},
		Published: []sandbox.PublishedFile{{Conversation: "c", Dialog: "d", Sequence: 3, Path: "p", Caption: "m"}},
		Signed:    []sandbox.SignedURL{{Method: "PUT", Path: "p", Owner: "o"}},
	}
	text, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	var e Evidence
	if err := json.Unmarshal(text, &e); err != nil {
		t.Fatal(err)
	}
	if want := (Object{"p", 5, "s"}); len(e.Stored) != 1 || e.Stored[0] != want {
		t.Errorf("stored: %v", e.Stored)
	}
	if want := (Message{"c", "d", 3, "p", "m"}); len(e.Published) != 1 || e.Published[0] != want {
		t.Errorf("published: %v", e.Published)
	}
	if want := (SignedURL{"PUT", "p", "o"}); len(e.Signed) != 1 || e.Signed[0] != want {
		t.Errorf("signed: %v", e.Signed)
	}
	if _, err := Fetch(t.Context(), sb.URL()+"/nowhere"); err == nil {
		t.Error("no journal was taken for one")
	}
}
