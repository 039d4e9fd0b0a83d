package upload

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

func testMemory() *admission.Memory {
	return admission.NewMemory(admission.Limits{Budget: 16 * blockBytes, UploadsPerCaller: 1, Now: time.Now})
}

func TestSpool_BodyFollowsTheWriter(t *testing.T) {
	want := pattern(3*blockBytes + 17)
	for name, fill := range map[string]func(*spool){
		"written": func(s *spool) {
			for off := 0; off < len(want); {
				n := min(1+off*3%9999, len(want)-off)
				_, _ = s.Write(want[off : off+n])
				off += n
			}
		},
		"chunks": func(s *spool) {
			pool := new(poisoning)
			for off := 0; off < len(want); {
				n := min(70_000, len(want)-off)
				s.add(Chunk{Data: pool.frames(want[off:off+n], 27)})
				off += n
			}
		},
		"whole": func(s *spool) { s.add(Chunk{Data: []Buffer{unpooled(want)}, Whole: true}) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSpool(testMemory(), int64(len(want)))
			body := s.body(t.Context())
			got := make(chan []byte, 1)
			go func() {
				var b bytes.Buffer
				if _, err := b.ReadFrom(body); err != nil {
					t.Error(err)
				}
				got <- b.Bytes()
			}()
			fill(s)
			s.seal()
			if _, end, _ := s.next(nil, int64(len(want)-1), 1, true); end || len(got) > 0 {
				t.Error("the body ended before release")
			}
			if p, _, _ := s.next(nil, int64(len(want)-1), 1, true); len(p) != 0 {
				t.Error("the last byte was readable before release")
			}
			s.release()
			if !bytes.Equal(<-got, want) {
				t.Error("the body differs from what was written")
			}
			s.discard()
			s.add(Chunk{Data: []Buffer{unpooled("late")}}) // the reader goroutine may have a chunk when its call ends
			if s.len() != 0 || len(s.pages) != 0 || len(s.runs) != 0 {
				t.Error("a discarded spool holds memory")
			}
		})
	}
}

// A PUT must not see the end of a file whose checks have not passed, even if the file is shorter than declared and has been read.
func TestSpool_IncompleteFileDoesNotEnd(t *testing.T) {
	want := pattern(5)
	s := newSpool(testMemory(), 10)
	_, _ = s.Write(want)
	body := s.body(t.Context())
	got := make([]byte, len(want))
	if _, err := io.ReadFull(body, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %v, %v", got, err)
	}
	s.seal()
	if p, end, _ := s.next(nil, 5, 1, true); end || len(p) > 0 {
		t.Error("the body ended before release")
	}
	if _, end, _ := s.next(nil, 5, 1, false); !end {
		t.Error("the inspectors do not see the end")
	}
	_ = body.Close()
	if _, err := body.Read(got); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("after Close: %v", err)
	}
}

// Attempts can get to takeOver in another order than they claimed the id in: the one that has the id stays.
func TestTakeOver_OrderIsTheLedgers(t *testing.T) {
	e := New(Config{})
	attemptAt := func(rev uint64) (*attempt, context.Context) {
		ctx, cancel := context.WithCancelCause(context.Background())
		return &attempt{Engine: e, key: "k", begun: rev, cancel: cancel}, ctx
	}
	newer, newerCtx := attemptAt(2)
	older, olderCtx := attemptAt(1)
	e.takeOver(newer)
	e.takeOver(older)
	if newerCtx.Err() != nil || e.running["k"] != newer {
		t.Error("the newer attempt was ended")
	}
	if !share.Is(context.Cause(olderCtx), share.UploadTakenOver) {
		t.Error("the older attempt continues")
	}
}

type fakeLedger struct {
	saved []share.UploadState
	last  share.Record
	// finished are the keys and attempts of Finish.
	finished []string
}

func (l *fakeLedger) Load(context.Context, string) (share.Record, uint64, error) {
	return share.Record{}, 0, nil
}

func (l *fakeLedger) Save(_ context.Context, _ string, r share.Record, rev uint64) (uint64, error) {
	l.saved, l.last = append(l.saved, r.State), r
	return rev + 1, nil
}

func (l *fakeLedger) Finish(key, attempt string) { l.finished = append(l.finished, key, attempt) }

// However an attempt ends, the ledger reserves nothing for it any more.
func TestAttempt_EndReleasesLedgerSpace(t *testing.T) {
	for _, err := range []error{nil, context.Canceled, errTakenOver(), share.Reject(share.UploadIdle, "idle")} {
		ledger := &fakeLedger{}
		a := &attempt{Engine: New(Config{Ledger: ledger, Now: time.Now}), key: "k", id: "a", rec: share.Record{State: share.Receiving}}
		if a.end(err); !slices.Equal(ledger.finished, []string{"k", "a"}) {
			t.Errorf("after %v: finished %q", err, ledger.finished)
		}
	}
}

func TestAttempt_MovesOnlyAlongTheTable(t *testing.T) {
	states := []share.UploadState{"", share.Receiving, share.Stored, share.Publishing, share.Published, share.Failed}
	moves := 0
	for _, from := range states {
		for _, next := range states {
			ledger := &fakeLedger{}
			a := &attempt{Engine: New(Config{Ledger: ledger}), rec: share.Record{State: from}}
			err := a.to(t.Context(), next, func(*share.Record) {})
			switch {
			case err == nil:
				moves++
				if len(ledger.saved) != 1 || a.rec.State != next {
					t.Errorf("%q to %q: saved %v, state %q", from, next, ledger.saved, a.rec.State)
				}
			case len(ledger.saved) > 0:
				t.Errorf("%q to %q was rejected and saved", from, next)
			}
		}
	}
	if moves != 12 {
		t.Errorf("%d moves are allowed, want 12", moves)
	}
	for _, final := range allowed[share.Published] {
		t.Errorf("a published upload can become %s", final)
	}
}

// The preview and the caption of a stored file are in its upload's record only.
func TestAttempt_RememberStoredKeepsNoCopy(t *testing.T) {
	ledger := &fakeLedger{}
	owner := share.Principal{Account: "1", ID: "alice"}
	file := &share.StoredFile{File: share.HostedFile{StoragePath: "/v1/a", Caption: "c", Preview: "p"}}
	a := &attempt{Engine: New(Config{Ledger: ledger}), key: "k", rec: share.Record{Owner: owner, Expires: time.Now()}}
	if err := a.rememberStored(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	want := share.Record{Owner: owner, State: share.Stored, Expires: a.rec.Expires, UploadKey: "k"}
	if !reflect.DeepEqual(ledger.last, want) {
		t.Errorf("got %+v, want %+v", ledger.last, want)
	}
}

// The ledger reserves space for the largest record of an upload, whatever has to be escaped in it.
func TestSpec_LargestRecord(t *testing.T) {
	now, size, crc := time.Now(), int64(1<<40), uint32(1<<32-1)
	for _, text := range []string{"\x01", "<", "é", "\U0001F600"} {
		spec := Spec{Caption: strings.Repeat(text, 5000), DisplayName: strings.Repeat(text, 255), GeneratePreview: true}
		id, sums := strings.Repeat("0", 64), share.Checksums{CRC32C: &crc, SHA256: make([]byte, 32)}
		record, err := json.Marshal(share.Record{
			Attempt: id, AttemptTime: now, Expires: now, Fingerprint: make([]byte, 32), State: share.Publishing, PublishDeadline: now,
			File: &share.StoredFile{
				Conversation: id, Dialog: id, DisplayName: spec.DisplayName, Size: size, ETag: id, Checksums: sums, Time: now, SenderID: id,
				File: share.HostedFile{StoragePath: strings.Repeat("/", 512), Caption: spec.Caption, Preview: strings.Repeat("A", MaxPreviewChars)},
			},
			Failure: share.LPPublishUnconfirmed, FailureMessage: share.Clip(strings.Repeat(text, maxFailureMessage), maxFailureMessage),
		})
		if largest := spec.largestRecord(); err != nil || int64(len(record)) > largest || largest > int64(len(record))+5<<10 {
			t.Errorf("%q: a record has %d bytes, %d are reserved, %v", text, len(record), largest, err)
		}
	}
}

// A stored file is found through its upload's record. Records of version 1 have the file themselves.
func TestEngine_FindStored(t *testing.T) {
	p := share.Principal{Account: "1", ID: "alice"}
	expires := time.Now().Add(time.Hour)
	file := func(path string) *share.StoredFile {
		return &share.StoredFile{File: share.HostedFile{StoragePath: path}}
	}
	e := New(Config{Now: time.Now, Ledger: records{
		storedKey(p, "/linked"):   {Expires: expires, UploadKey: "upload"},
		storedKey(p, "/earlier"):  {Expires: expires, UploadKey: "upload"}, // an earlier attempt's object
		storedKey(p, "/dropped"):  {Expires: expires, UploadKey: "dropped"},
		storedKey(p, "/version1"): {Expires: expires, File: file("/version1")},
		"upload":                  {Expires: expires, File: file("/linked")},
	}})
	for path, want := range map[string]bool{"/linked": true, "/version1": true, "/earlier": false, "/dropped": false, "/unknown": false} {
		f, err := e.FindStored(t.Context(), p, path)
		if err != nil || (f != nil) != want || want && f.File.StoragePath != path {
			t.Errorf("%s: %+v, %v", path, f, err)
		}
	}
}

func (records) Finish(string, string) {}

// records is a ledger that is only read.
type records map[string]share.Record

func (r records) Load(_ context.Context, key string) (share.Record, uint64, error) {
	if rec, ok := r[key]; ok {
		return rec, 1, nil
	}
	return share.Record{}, 0, nil
}

func (r records) Save(context.Context, string, share.Record, uint64) (uint64, error) {
	return 0, share.ErrStale
}
