package ledger

import (
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// BenchmarkSave saves records of the usual size, sequentially and by 64 writers.
func BenchmarkSave(b *testing.B) {
	for _, kind := range []string{"memory", "file", "file+sync"} {
		for _, writers := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/writers=%d", kind, writers), func(b *testing.B) {
				c := config(b, "")
				c.Log, c.MaxBytes = slog.New(slog.DiscardHandler), 4<<30
				if kind != "memory" {
					c.Dir = subdir(b)
				}
				c.Sync = kind == "file+sync"
				l := open(b, c)
				size := int64(500_000)
				r := record("6f0c3a52-7d9e-4b1c-9d0a-3c1d2e4f5a6b")
				r.DeclaredSize, r.Fingerprint = &size, make([]byte, 32)
				r.File = &share.StoredFile{
					Conversation: "6f0c3a52-7d9e-4b1c-9d0a-3c1d2e4f5a6b", Dialog: "6f0c3a52-7d9e-4b1c-9d0a-3c1d2e4f5a6b", DisplayName: "photo.jpg", Size: size,
					File:      share.HostedFile{StoragePath: "/v1/AUTH_async-images/C12345678/6f0c3a52_1700000000000.JPG", FileType: "JPG", Caption: "Hello Kitten"},
					Checksums: share.Checksums{SHA256: make([]byte, 32)},
				}
				if value, _, err := requests.encode(r); err == nil {
					b.SetBytes(int64(len(value)))
				}
				var key atomic.Int64
				work := func(more func() bool) {
					for more() {
						if _, err := l.Save(b.Context(), fmt.Sprintf("k%d", key.Add(1)), r, 0); err != nil {
							b.Error(err)
							return
						}
					}
				}
				b.ResetTimer()
				if writers == 1 {
					work(b.Loop)
					return
				}
				b.SetParallelism(max(1, writers/runtime.GOMAXPROCS(0)))
				b.RunParallel(func(pb *testing.PB) { work(pb.Next) })
			})
		}
	}
}

// BenchmarkOpen measures what a ledger adds to the start and the shutdown of the server.
func BenchmarkOpen(b *testing.B) {
	for _, dir := range []string{"memory", "file"} {
		b.Run(dir, func(b *testing.B) {
			c := config(b, "")
			c.Log = slog.New(slog.DiscardHandler)
			if dir == "file" {
				c.Dir = subdir(b)
			}
			for b.Loop() {
				l, err := Open(b.Context(), c)
				if err != nil {
					b.Fatal(err)
				}
				l.Close()
			}
		})
	}
}

// BenchmarkReadConversation reads a conversation of 100 events from the event log.
func BenchmarkReadConversation(b *testing.B) {
	const n = 100
	e := events(b, open(b, config(b, b.TempDir())))
	for seq := range int64(n) {
		if _, err := e.AddEvent(b.Context(), acct, fileAt("c", seq, fmt.Sprint("/", seq))); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if got, err := readEvents(b, e, acct, "c", 0, n); err != nil || len(got) != n {
			b.Fatal(len(got), err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/n, "µs/event")
}
