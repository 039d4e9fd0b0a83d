package harness

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"image/jpeg"
	"math/rand/v2"
	"sync"
	"testing"
)

// Text returns a text file of n bytes. Files of different seeds differ.
func Text(seed uint64, n int) []byte {
	var b bytes.Buffer
	for i := uint64(0); b.Len() < n; i++ {
		fmt.Fprintf(&b, "%016x %016x\n", seed, (seed+i)*0x9E3779B97F4A7C15)
	}
	return b.Bytes()[:n]
}

// photos has the files that Photo has made, by seed and size. To encode noise is slow, above all with the race detector.
var photos sync.Map

// Photo returns a JPEG of noise of exactly n bytes, which cannot be compressed. Files of different seeds differ. The caller may change
// the bytes.
func Photo(tb testing.TB, seed uint64, n int) []byte {
	tb.Helper()
	key := [2]uint64{seed, uint64(n)}
	made, ok := photos.Load(key)
	if !ok {
		made = newPhoto(tb, seed, n)
		photos.Store(key, made)
	}
	return bytes.Clone(made.([]byte))
}

func newPhoto(tb testing.TB, seed uint64, n int) []byte {
	tb.Helper()
	rng := rand.New(rand.NewPCG(seed, uint64(n)))
	side := 8
	for side*side < n/2 {
		side += 8
	}
	img := image.NewRGBA(image.Rect(0, 0, side, side))
	for i := range img.Pix {
		img.Pix[i] = byte(rng.Uint32())
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: 50}); err != nil {
		tb.Fatal(err)
	}
	data := b.Bytes()
	for len(data) < n { // comment segments after the first marker
		const least, most = 4, 65537
		size := min(n-len(data), most)
		if rest := n - len(data) - size; rest > 0 && rest < least {
			size -= least
		}
		if size < least {
			break
		}
		segment := make([]byte, size)
		segment[0], segment[1] = 0xFF, 0xFE
		binary.BigEndian.PutUint16(segment[2:], uint16(size-2))
		data = append(append(append([]byte{}, data[:2]...), segment...), data[2:]...)
	}
	if len(data) != n {
		tb.Fatalf("the photo has %d bytes, want %d", len(data), n)
	}
	return data
}
