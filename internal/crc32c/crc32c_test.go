package crc32c

import (
	"testing"
)

func sum(b []byte) uint32 { return Update(0, b) }

func FuzzCombine(f *testing.F) {
	f.Add([]byte(nil), []byte(nil))
	f.Add([]byte("123"), []byte("456789"))
	f.Add([]byte(nil), []byte{0})
	f.Add([]byte{0, 0}, make([]byte, 70_000))
	f.Add(make([]byte, 65_536), []byte{255})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		both := sum(append(append([]byte(nil), a...), b...))
		if got := Combine(sum(a), sum(b), int64(len(b))); got != both {
			t.Errorf("%d and %d bytes: the sum of both is %08x, want %08x", len(a), len(b), got, both)
		}
		if got := Combine(sum(a), both, int64(len(b))); got != sum(b) {
			t.Errorf("%d and %d bytes: the sum of the second part is %08x, want %08x", len(a), len(b), got, sum(b))
		}
	})
}

func BenchmarkCombine(b *testing.B) {
	for b.Loop() {
		Combine(1, 2, 200_000)
	}
}
