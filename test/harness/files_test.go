package harness

import (
	"bytes"
	"image/jpeg"
	"testing"
)

func TestPhoto_IsAJPEGOfExactlyNBytes(t *testing.T) {
	for _, n := range []int{4_000, 5_000, 64 << 10, 64<<10 + 1, 300_000} {
		data := Photo(t, 1, n) // fails by itself if the size is wrong
		if _, err := jpeg.Decode(bytes.NewReader(data)); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
		if bytes.Equal(data, Photo(t, 2, n)) {
			t.Errorf("%d bytes: two seeds give one file", n)
		}
	}
}
