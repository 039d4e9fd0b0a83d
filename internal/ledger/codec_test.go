package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// storedRecords are the records in testdata, which has each of them in each version of the format.
func storedRecords() map[string]share.Record {
	at := time.Date(2126, 11, 29, 20, 0, 0, 123456789, time.UTC)
	size, seq, crc := int64(300_000), int64(17), uint32(0xe3069283)
	sums := share.Checksums{CRC32C: &crc, SHA256: []byte{0xde, 0xad, 0xbe, 0xef}}
	return map[string]share.Record{
		"upload": {
			Attempt: "attempt-1", AttemptTime: at, Expires: at.Add(24 * time.Hour), Fingerprint: []byte{1, 2, 3, 255},
			DeclaredSize: &size, Declared: sums, State: share.Published, PublishDeadline: at.Add(time.Minute),
			File: &share.StoredFile{
				Conversation: "conversation-1", Dialog: "dialog-1", DisplayName: "café <1>.jpg",
				File: share.HostedFile{
					StoragePath: "/v1/AUTH_async-images/12345678/a.JPG", FileType: "JPG", Caption: "two\nlines", Preview: "data:image/jpeg;base64,AA==",
				},
				Size: size, ETag: "0123456789abcdef", Checksums: sums, Sequence: &seq, Time: at.Add(time.Second),
				SenderID: "consumer-1", SenderRole: share.RoleConsumer, PreviewOmitted: true,
				Image: &share.ImageChange{
					InputSize: 900_000, InputChecksums: sums, InputType: share.PNG, Input: share.ImageInfo{Width: 900, Height: 600},
					Stored: share.ImageInfo{Width: 600, Height: 400}, Recoded: true, Rotated: true, Scaled: true, JPEGQuality: 82,
					Removed: []share.ImageMetadata{share.MetadataEXIF, share.MetadataXMP}, TrailingBytes: 11,
				},
			},
		},
		"failed": {
			Attempt: "attempt-2", AttemptTime: at, Expires: at.Add(24 * time.Hour), Fingerprint: []byte{4}, State: share.Failed,
			Failure: share.FileTooLarge, FailureMessage: "the file is too large",
		},
	}
}

// TestKV_StoredRecords reads records of each version of the format, byte for byte as they were written. If the encoding changes, the
// version must too, and these records must still be read.
func TestKV_StoredRecords(t *testing.T) {
	p := newPeer(t)
	l := open(t, config(t, "", p.url()))
	for name, want := range storedRecords() {
		for version := requests.oldest; version <= requests.version; version++ {
			key := fmt.Sprintf("v%d-%s", version, name)
			value, err := os.ReadFile("testdata/record-" + key + ".json")
			if err != nil {
				t.Fatal(err)
			}
			put(t, p.url(), key, value)
			got, rev, err := l.Load(t.Context(), key)
			if err != nil || rev == 0 {
				t.Fatalf("%s: revision %d, %v", key, rev, err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: %s", key, diff)
			}
			if _, err := l.Save(t.Context(), key, got, rev); err != nil {
				t.Errorf("%s: %v", key, err)
			}
			if version < requests.version || got.State == share.Published { // what is compressed may differ, and is read all the same
				continue
			}
			read, err := requests.decode(value, key, rev)
			if err != nil {
				t.Fatal(err)
			}
			again, write, err := requests.encode(got)
			if err != nil {
				t.Fatal(err)
			}
			if again = bytes.Replace(again, []byte(write), []byte(read.name), 1); !bytes.Equal(again, value) {
				t.Errorf("%s is written as\n%s\nand was\n%s", key, again, value)
			}
		}
	}
}

// TestKV_StoredCreationRecord reads a record of a CreateConversation that the first release wrote, when it shared a type with uploads.
func TestKV_StoredCreationRecord(t *testing.T) {
	p := newPeer(t)
	l := open(t, config(t, "", p.url()))
	value, err := os.ReadFile("testdata/record-v1-conversation.json")
	if err != nil {
		t.Fatal(err)
	}
	put(t, p.url(), "conversation", value)
	at := storedRecords()["failed"].AttemptTime
	want := share.CreationRecord{
		AttemptTime: at, Expires: at.Add(24 * time.Hour), Fingerprint: []byte{5}, State: share.Publishing,
		Deadline: at.Add(time.Minute), ConversationID: "conversation-2", Known: []string{"conversation-0", "conversation-1"},
	}
	got, rev, err := l.LoadCreation(t.Context(), "conversation")
	if err != nil || rev == 0 {
		t.Fatalf("revision %d, %v", rev, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := l.SaveCreation(t.Context(), "conversation", got, rev); err != nil {
		t.Error(err)
	}
	// Servers of the first release read what this one writes: the two run side by side during an upgrade.
	again, _, err := creations.encode(got)
	if err != nil {
		t.Fatal(err)
	}
	var old struct {
		Version int
		Record  struct {
			Expires, PublishDeadline time.Time
			Fingerprint              []byte
			State, ConversationID    string
			Known                    []string
		}
	}
	if err := json.Unmarshal(again, &old); err != nil {
		t.Fatal(err)
	}
	r := old.Record
	if old.Version != 1 || !r.Expires.Equal(want.Expires) || !r.PublishDeadline.Equal(want.Deadline) || r.State != "PUBLISHING" ||
		r.ConversationID != want.ConversationID || len(r.Known) != 2 || !bytes.Equal(r.Fingerprint, want.Fingerprint) {
		t.Errorf("an older server reads %+v", old)
	}
}

// TestFormat_Versions decodes records of other versions and kinds, which must fail with LedgerUnavailable.
func TestFormat_Versions(t *testing.T) {
	type claim struct{ Expires time.Time }
	claims := format[claim]{version: 3, oldest: 3, kind: "claim", expires: func(c claim) time.Time { return c.Expires }}
	expires := time.Date(2126, 1, 2, 3, 4, 5, 0, time.UTC)
	value, name, err := claims.encode(claim{expires})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := claims.decode(value, "k", 7); err != nil || got != (found[claim]{claim{expires}, expires, name, 7}) {
		t.Errorf("%+v, %v", got, err)
	}
	request, _, err := requests.encode(share.Record{Expires: expires})
	if err != nil {
		t.Fatal(err)
	}
	_, requestErr := claims.decode(request, "k", 1)
	_, claimErr := requests.decode(value, "k", 1)
	otherKind := bytes.Replace(request, []byte(`{`), []byte(`{"kind":"claim",`), 1)
	_, kindErr := requests.decode(otherKind, "k", 1)
	_, newerErr := requests.decode([]byte(`{"version":9,"record":["a newer form"]}`), "k", 1)
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"a request as a claim":    {requestErr, "use a new request id"},
		"a claim as a request":    {claimErr, "newer server"},
		"a request of other kind": {kindErr, "another kind"},
		"a newer request":         {newerErr, "newer server"},
	} {
		if text := fmt.Sprintf("%v %v", c.err, errors.Unwrap(c.err)); !share.Is(c.err, share.LedgerUnavailable) || !strings.Contains(text, c.want) {
			t.Errorf("%s: %s; want LEDGER_UNAVAILABLE with %q", name, text, c.want)
		}
	}
}
