package images

import (
	"image"
	"math"
	"slices"
	"testing"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// stripes returns a picture whose every second column of units is noise.
func stripes(w, h int) *image.Gray {
	img := image.NewGray(image.Rect(0, 0, w, h))
	for i, v := range noise(w, h).Pix[:w*h] {
		if i%w/8%2 == 0 {
			img.Pix[i] = v
		}
	}
	return img
}

// TestJPEGWriter_Sample checks that the sample is bounded, differs each time, and represents the picture.
func TestJPEGWriter_Sample(t *testing.T) {
	large := stripes(648, 640)
	w := newJPEGWriter(large, nil)
	if len(w.sample) != sampleUnits || cap(w.sample) != sampleUnits {
		t.Errorf("the sample has %d units of %d, want %d", len(w.sample), cap(w.sample), sampleUnits)
	}
	if slices.Equal(w.sample, newJPEGWriter(large, nil).sample) {
		t.Error("two samples have the same units")
	}
	at := setting{quality: 50}
	estimate := w.estimate(at)
	if size := w.code(at, 1<<20).size; math.Abs(float64(estimate)/float64(size)-1) > 0.15 {
		t.Errorf("the size is %d, estimated %d", size, estimate)
	}
	small := image.NewYCbCr(image.Rect(0, 0, 70, 40), image.YCbCrSubsampleRatio420)
	if w := newJPEGWriter(small, nil); len(w.sample) != 5*3*6 || cap(w.sample) != len(w.sample) || w.ratio != 1 {
		t.Errorf("the sample of a small picture has %d blocks of %d, each for %v", len(w.sample), cap(w.sample), w.ratio)
	}
}

// TestJPEGWriter_SymbolMemory codes a picture with more symbols than there is memory for: they are only counted, and nothing is written.
func TestJPEGWriter_SymbolMemory(t *testing.T) {
	img := stripes(64, 48)
	whole, w := newJPEGWriter(img, nil), newJPEGWriter(img, nil)
	w.symbols = make([]byte, 0, 100)
	at := setting{quality: 80}
	want, c := whole.code(at, 1<<20), w.code(at, 1<<20)
	if !want.whole || c.whole || c.size != want.size || cap(w.symbols) != 100 {
		t.Errorf("whole %t and %t, %d and %d bytes, %d bytes of memory", want.whole, c.whole, want.size, c.size, cap(w.symbols))
	}
	o := orderOf(share.JPEG, nil, 1<<20)
	r := &recoding{ctx: t.Context(), job: o.ImageJob}
	if written, err := r.writeBest(w, at); written || err != nil || len(o.outputs) > 0 {
		t.Errorf("written %t to %d outputs: %v", written, len(o.outputs), err)
	}
	if written, err := r.writeBest(whole, at); !written || err != nil {
		t.Errorf("written %t: %v", written, err)
	}
}
