package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// requestKey returns a key as package upload makes them.
func requestKey(i int) string {
	sum := sha256.Sum256([]byte(fmt.Sprint(i)))
	return hex.EncodeToString(sum[:])
}

// uploadStates returns the records of an upload, in their order, with the names, ids and checksums of a usual one. The preview and
// the caption have the given lengths.
func uploadStates(owner share.Principal, preview, caption int) []share.Record {
	now := time.Now()
	size, crc, sequence := int64(500_000), uint32(3_808_858_755), int64(17)
	conversation := uuid.NewString()
	receiving := share.Record{
		Owner: owner, State: share.Receiving, Attempt: uuid.NewString(), AttemptTime: now, Expires: now.Add(15 * time.Minute),
		Largest: int64(growthMargin + preview + 4*caption), Fingerprint: make([]byte, sha256.Size), DeclaredSize: &size,
	}
	stored := receiving
	stored.State, stored.Expires, stored.DeclaredSize = share.Stored, now.Add(24*time.Hour), nil
	file := share.StoredFile{
		Conversation: conversation, Dialog: conversation, DisplayName: "IMG_20260830_141516.jpg", Size: size, ETag: strings.Repeat("a", 32),
		File: share.HostedFile{
			StoragePath: "/v1/AUTH_async-images/12345678/" + uuid.NewString() + "_uuid_" + uuid.NewString() + "_1700000000000-001.JPG", FileType: "JPG",
			Preview: strings.Repeat("A", preview), Caption: strings.Repeat("\U0001F600", caption),
		},
		Checksums: share.Checksums{CRC32C: &crc}, Time: now, Width: 4000, Height: 3000,
	}
	stored.File = &file
	publishing := stored
	publishing.State, publishing.PublishDeadline = share.Publishing, now.Add(10*time.Second)
	published := stored
	shown := file
	shown.Sequence, shown.SenderID, shown.SenderRole = &sequence, uuid.NewString(), share.RoleConsumer
	shown.File.Preview, shown.File.Caption = "", ""
	published.State, published.Attempt, published.File = share.Published, "", &shown
	return []share.Record{receiving, stored, publishing, published}
}

// saveStates saves the records of an attempt under one key, each in place of the previous one.
func saveStates(t testing.TB, l *KV, key string, records []share.Record, rev uint64) (_ uint64, err error) {
	for _, r := range records {
		if rev, err = l.Save(t.Context(), key, r, rev); err != nil {
			break
		}
	}
	return rev, err
}

// saveAll saves the records of an attempt, which then has finished.
func saveAll(t testing.TB, l *KV, key string, records []share.Record) {
	t.Helper()
	if _, err := saveStates(t, l, key, records, 0); err != nil {
		t.Fatal(err)
	}
	l.Finish(key, records[0].Attempt)
}

// bytesPerUpload saves n published uploads and returns the bytes that the bucket needs for each.
func bytesPerUpload(t testing.TB, l *KV, n, preview, caption int) int64 {
	t.Helper()
	for i := range n {
		saveAll(t, l, requestKey(i), uploadStates(alice, preview, caption))
	}
	info, err := l.stream.Info(t.Context())
	if err != nil || info.State.Msgs != uint64(n)+1 {
		t.Fatalf("%d records with the probe, %v; want %d", info.State.Msgs, err, n+1)
	}
	return int64(info.State.Bytes) / int64(n)
}

var alice = share.Principal{Account: "12345678", ID: "alice", Role: share.RoleConsumer}

// A published upload is small, whatever its preview and caption were, and is counted with what the bucket needs for it.
func TestKV_RecordSize(t *testing.T) {
	t.Parallel()
	for where, dir := range map[string]string{"memory": "", "files": subdir(t)} {
		l := open(t, config(t, dir))
		const n = 20
		got := bytesPerUpload(t, l, n, 30_000, 5000)
		counted := l.shares.callers[callerOf(alice)].held(l.shares.gone()) / n
		t.Logf("%s: %d bytes for each published upload, counted %d", where, got, counted)
		if got > 800 {
			t.Errorf("%s: a published upload takes %d bytes, want at most 800", where, got)
		}
		if counted < got || counted > got+got/20 {
			t.Errorf("%s: a published upload takes %d bytes and is counted with %d", where, got, counted)
		}
	}
}

// BenchmarkCapacity measures how many uploads the default ledger records in 24 hours.
func BenchmarkCapacity(b *testing.B) {
	c := config(b, subdir(b))
	c.Log, c.MaxBytes = slog.New(slog.DiscardHandler), 1<<30
	for b.Loop() {
		size := bytesPerUpload(b, open(b, c), 20_000, 20_000, 100)
		b.ReportMetric(float64(size), "bytes/upload")
		b.ReportMetric(fullAt*float64(c.MaxBytes)/float64(size), "uploads")
		b.ReportMetric(fullAt*float64(c.MaxBytes)/float64(size)/(25*time.Hour).Seconds(), "uploads/s")
	}
}

func TestGrowth_WarnsOncePerCrossing(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	var g growth
	now := time.Now()
	for _, c := range []struct {
		percent float64
		want    string // "": no line
	}{
		{10, ""}, {40, ""}, {51, "percent=51 full_in=42m56s"}, {55, ""}, {49, ""}, {51, ""}, {40, ""}, {52, "percent=52"}, {80, "percent=80"}, {96, "ledger is full"}, {94, ""}, {96, ""},
		{20, ""}, {99, "ledger is full"},
	} {
		g.observe(log, now, int64(10*c.percent), 1000)
		if got := out.String(); (got == "") != (c.want == "") || !strings.Contains(got, c.want) || strings.Count(got, "\n") > 1 {
			t.Errorf("at %g %%: %q, want %q", c.percent, got, c.want)
		}
		out.Reset()
		now = now.Add(20 * time.Minute)
	}
	g.observe(log, now, 1<<40, 0) // unlimited
	if out.Len() > 0 {
		t.Error(out.String())
	}
}
