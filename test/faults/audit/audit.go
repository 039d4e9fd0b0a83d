// Package audit compares the results that callers got with what LivePerson and the store have.
//
// Its input is the callers' own record of what they asked for and what they got (Upload, Download, Watch), and the journal of
// LivePerson and the store (Evidence). It never asks a server, so the number of servers and their crashes do not matter.
//
// An upload has one of three results. An acknowledgement promises one message with the file. A rejection is definite: no message,
// now or later. Anything else, such as a broken connection or LP_PUBLISH_UNCONFIRMED, is unknown. It promises only that the file is
// not published twice. A caller settles an unknown result by repeating under the same request_id; a result that stays unknown is
// a finding.
//
// A message belongs to an upload if it shows the storage path that the caller got, or carries the upload's mark: its caption, which
// is unique. Paths alone are not enough, because a rejected caller gets none.
//
// A fault may damage bytes on a leg without TLS that nothing else protects (a WebSocket frame, a response), and with them the caption
// or the path. Such an upload is Spoiled: it counts as acknowledged if one message belongs to it by caption or path, and is reported
// as altered. It must still not be published twice, or after a rejection. Over TLS, which LivePerson requires, a damaged byte ends
// the connection.
package audit

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// An Outcome is the final result of an upload for its caller.
type Outcome int

// The outcomes.
const (
	// Unknown: the caller got no definite result.
	Unknown Outcome = iota
	// Acknowledged: stored and published.
	Acknowledged
	// Stored: stored and, as it was asked for, not published.
	Stored
	// Refused: an error that says that nothing was published, and never will be.
	Refused
	// Unconfirmed: LP_PUBLISH_UNCONFIRMED to the end, over a messenger that cannot be asked, and whose webhooks report each message.
	// It is a finding if there is a message.
	Unconfirmed
)

// An Upload is one upload as its caller saw it.
type Upload struct {
	// Case names it in reports.
	Case string
	// RequestID is what it was repeated under.
	RequestID string
	// Mark is its caption, which no other upload has.
	Mark string
	// Owner is LivePerson's id of the caller.
	Owner string
	// Conversation is the id, without the names around it.
	Conversation string
	// SHA256 of the bytes that were sent, in hex, and their number.
	SHA256 string
	Size   int64

	Outcome Outcome
	// StoragePath and Sequence are what an acknowledgement said.
	StoragePath string
	Sequence    int64
	// Reason is why it was refused, or what the last word was where the outcome is unknown.
	Reason string
	// Late means that it was LP_PUBLISH_UNCONFIRMED before.
	Late bool
	// Spoiled means that bytes were changed on a leg without TLS.
	Spoiled bool
}

// A Download is one download that completed.
type Download struct {
	Case   string
	Path   string
	SHA256 string
}

// A Watch is what one watch of a conversation received.
type Watch struct {
	Case         string
	Conversation string
	// Marks are the captions of the files that came, each as often as it came.
	Marks []string
	// Broken means that the watch ended with an error: what did not come was not promised.
	Broken bool
	// Spoiled means that bytes were changed on a leg without TLS.
	Spoiled bool
}

// Record is everything that callers asked for and got.
type Record struct {
	Uploads   []Upload
	Downloads []Download
	Watches   []Watch
}

// A Fault is a promise that was not kept.
type Fault int

// The faults.
const (
	// Lost: acknowledged, and not there.
	Lost Fault = iota
	// Doubled: published twice.
	Doubled
	// RefusedPublished: refused, and published.
	RefusedPublished
	// OtherBytes: acknowledged, and other bytes are stored, or were downloaded.
	OtherBytes
	// Unsettled: the caller never learned.
	Unsettled
	// Unclaimed: a message or an object that no caller asked for.
	Unclaimed
	// Misdelivered: a watch that missed a file, or got it twice.
	Misdelivered
)

var faultNames = []string{"lost", "doubled", "refused but published", "other bytes", "unsettled", "unclaimed", "misdelivered"}

func (f Fault) String() string { return faultNames[f] }

// A Finding is one fault.
type Finding struct {
	Fault Fault
	Case  string
	Text  string
}

func (f Finding) String() string { return fmt.Sprintf("%s: %s: %s", f.Fault, f.Case, f.Text) }

// A Report is the result.
type Report struct {
	Uploads, Acknowledged, Stored, Refused, Unconfirmed int
	// Late are acknowledged uploads that were LP_PUBLISH_UNCONFIRMED before.
	Late int
	// Altered are acknowledged uploads whose message or answer was spoiled on the way.
	Altered int
	// Downloads and Watches are how many were compared.
	Downloads, Watches int
	Findings           []Finding
	// Orphans are objects that no message shows, by the reason that they are there.
	Orphans map[string]int
}

// Count is how many findings there are of one fault.
func (r *Report) Count(f Fault) int {
	n := 0
	for _, found := range r.Findings {
		if found.Fault == f {
			n++
		}
	}
	return n
}

// Add adds another report, of other evidence.
func (r *Report) Add(o Report) {
	r.Uploads += o.Uploads
	r.Acknowledged += o.Acknowledged
	r.Stored += o.Stored
	r.Refused += o.Refused
	r.Unconfirmed += o.Unconfirmed
	r.Late += o.Late
	r.Altered += o.Altered
	r.Downloads += o.Downloads
	r.Watches += o.Watches
	r.Findings = append(r.Findings, o.Findings...)
	for why, n := range o.Orphans {
		r.orphan(why, n)
	}
}

func (r *Report) orphan(why string, n int) {
	if r.Orphans == nil {
		r.Orphans = map[string]int{}
	}
	r.Orphans[why] += n
}

func (r *Report) find(f Fault, in, format string, args ...any) {
	r.Findings = append(r.Findings, Finding{f, in, fmt.Sprintf(format, args...)})
}

// Check compares. Nothing may be going on any more: what is published later would be missed.
func Check(a Record, e Evidence) Report {
	c := &checker{
		byPath: map[string][]Message{}, byMark: map[string][]Message{}, objects: map[string]Object{}, claimed: map[string]bool{},
		owners: map[string]string{},
	}
	for _, m := range e.Published {
		c.byPath[m.Path] = append(c.byPath[m.Path], m)
		c.byMark[m.Caption] = append(c.byMark[m.Caption], m)
	}
	for _, o := range e.Stored {
		c.objects[o.Path] = o // the last commit is what is there
	}
	for _, s := range e.Signed {
		if s.Method == "PUT" {
			c.owners[s.Path] = s.Owner
		}
	}
	for _, t := range a.Uploads {
		c.upload(t)
	}
	for _, d := range a.Downloads {
		c.download(d)
	}
	for _, w := range a.Watches {
		c.watch(w, e.Published)
	}
	c.unclaimed(a, e)
	return c.report
}

type checker struct {
	report         Report
	byPath, byMark map[string][]Message
	objects        map[string]Object
	owners         map[string]string // who got a signed URL to write a path
	claimed        map[string]bool   // paths of messages and objects that a caller accounts for
}

// messages are those that belong to an upload, each once.
func (c *checker) messages(t Upload) []Message {
	all := slices.Clone(c.byMark[t.Mark])
	if t.StoragePath != "" {
		all = append(all, c.byPath[t.StoragePath]...)
	}
	slices.SortFunc(all, func(a, b Message) int {
		return cmp.Or(strings.Compare(a.Conversation, b.Conversation), strings.Compare(a.Dialog, b.Dialog), cmp.Compare(a.Sequence, b.Sequence))
	})
	return slices.Compact(all)
}

func (c *checker) upload(t Upload) {
	r := &c.report
	r.Uploads++
	there := c.messages(t)
	for _, m := range there {
		c.claimed[m.Path] = true
	}
	if len(there) > 1 {
		r.find(Doubled, t.Case, "%d messages: %v", len(there), there)
	}
	switch t.Outcome {
	case Acknowledged:
		r.Acknowledged++
		if t.Late {
			r.Late++
		}
		c.acknowledged(t, there)
	case Stored:
		r.Stored++
		c.claimed[t.StoragePath] = true
		c.bytes(t.Case, t.StoragePath, t.SHA256, t.Size)
		if len(there) > 0 {
			r.find(RefusedPublished, t.Case, "it was to be stored only, and was published: %v", there)
		}
	case Refused:
		r.Refused++
		if len(there) > 0 {
			r.find(RefusedPublished, t.Case, "refused with %s, and published: %v", t.Reason, there)
		}
	case Unconfirmed:
		if len(there) > 0 {
			r.find(Unsettled, t.Case, "the last word was %q, and there is %v", t.Reason, there)
			break
		}
		r.Unconfirmed++
	case Unknown:
		r.find(Unsettled, t.Case, "the last word was %q", t.Reason)
	}
}

func (c *checker) acknowledged(t Upload, there []Message) {
	r := &c.report
	if len(there) == 0 {
		r.find(Lost, t.Case, "acknowledged as %s, and there is no message", t.StoragePath)
		return
	}
	m, asTold := there[0], false
	for _, other := range there {
		if other.Path == t.StoragePath && other.Caption == t.Mark && other.Conversation == t.Conversation && other.Sequence == t.Sequence {
			m, asTold = other, true
		}
	}
	switch {
	case asTold:
	case t.Spoiled:
		r.Altered++
	default:
		r.find(Lost, t.Case, "acknowledged as %s, sequence %d, in %s, caption %q; the message is %v",
			t.StoragePath, t.Sequence, t.Conversation, t.Mark, m)
		return
	}
	c.bytes(t.Case, m.Path, t.SHA256, t.Size)
}

// bytes compares an object with what was sent.
func (c *checker) bytes(in, path, sha string, size int64) {
	o, ok := c.objects[path]
	switch {
	case !ok:
		c.report.find(Lost, in, "the message shows %s, which is not stored", path)
	case o.SHA256 != sha || o.Size != size:
		c.report.find(OtherBytes, in, "%d bytes with SHA-256 %s were sent, and %d with %s are stored", size, sha, o.Size, o.SHA256)
	}
}

func (c *checker) download(d Download) {
	c.report.Downloads++
	o, ok := c.objects[d.Path]
	switch {
	case !ok:
		c.report.find(OtherBytes, d.Case, "%s was downloaded, and is not stored", d.Path)
	case o.SHA256 != d.SHA256:
		c.report.find(OtherBytes, d.Case, "bytes with SHA-256 %s were downloaded, and those with %s are stored", d.SHA256, o.SHA256)
	}
}

func (c *checker) watch(w Watch, published []Message) {
	c.report.Watches++
	if w.Spoiled {
		return // what it received may have been altered on a leg without TLS
	}
	came := map[string]int{}
	for _, mark := range w.Marks {
		came[mark]++
	}
	for _, m := range published {
		if m.Conversation != w.Conversation {
			continue
		}
		if n := came[m.Caption]; n > 1 || n == 0 && !w.Broken {
			c.report.find(Misdelivered, w.Case, "the watch got %[2]v %[1]d times", n, m)
		}
		delete(came, m.Caption)
	}
	for mark := range came {
		c.report.find(Misdelivered, w.Case, "the watch got %q, which was not published", mark)
	}
}

// unclaimed finds what no caller asked for: messages, and objects that no message shows.
func (c *checker) unclaimed(a Record, e Evidence) {
	r := &c.report
	for _, m := range e.Published {
		if !c.claimed[m.Path] {
			r.find(Unclaimed, "message", "no caller asked for %v", m)
		}
	}
	byOwner := map[string][]Upload{}
	for _, t := range a.Uploads {
		byOwner[t.Owner] = append(byOwner[t.Owner], t)
	}
	for path, o := range c.objects {
		if c.claimed[path] {
			continue
		}
		whose := byOwner[c.owners[path]]
		if why := explain(o, whose); why != "" {
			r.orphan(why, 1)
		} else {
			r.find(Unclaimed, "object", "no caller asked for %s, which %q got a signed URL to write", path, c.owners[path])
		}
	}
}

// explain says why an object is there that no message shows; nothing if its owner has done nothing that would leave one.
func explain(o Object, whose []Upload) string {
	for _, t := range whose {
		switch same := t.SHA256 == o.SHA256; {
		case same && t.Outcome == Refused:
			return "stored, then refused: " + t.Reason
		case same && t.Outcome == Unknown:
			return "stored, outcome unknown: " + t.Reason
		case same && t.Outcome == Unconfirmed:
			return "stored, not published, and LivePerson cannot be asked: " + t.Reason
		case same:
			return "stored again under another path after a fault"
		}
	}
	if len(whose) > 0 {
		return "stored with other bytes, which the ETag showed"
	}
	return ""
}
