package images

import (
	"encoding/binary"
	"image"
	"image/color"
	"io"
	"log/slog"
	"math"
	"testing"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// profileOf returns a colour profile with a curve, and for RGB with three equal primaries.
func profileOf(space string, curve []byte, xyz int32) []byte {
	b := make([]byte, 128)
	copy(b[16:], space)
	tags := []string{"kTRC"}
	if space == "RGB " {
		tags = []string{"rTRC", "gTRC", "bTRC", "rXYZ", "gXYZ", "bXYZ"}
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(tags)))
	var data []byte
	for _, name := range tags {
		value := curve
		if name[1:] == "XYZ" {
			value = []byte("XYZ \x00\x00\x00\x00")
			for range 3 {
				value = binary.BigEndian.AppendUint32(value, uint32(xyz))
			}
		}
		b = append(b, name...)
		b = binary.BigEndian.AppendUint32(b, uint32(132+12*len(tags)+len(data)))
		b = binary.BigEndian.AppendUint32(b, uint32(len(value)))
		data = append(data, value...)
	}
	return append(b, data...)
}

// parametricCurve returns the tag of a parametric curve.
func parametricCurve(kind byte, values ...float64) []byte {
	b := []byte{'p', 'a', 'r', 'a', 0, 0, 0, 0, 0, kind, 0, 0}
	for _, v := range values {
		b = binary.BigEndian.AppendUint32(b, uint32(int32(math.Round(v*(1<<16)))))
	}
	return b
}

// TestConversion_HostileProfile converts with profiles whose values are infinite, no numbers, or very large.
func TestConversion_HostileProfile(t *testing.T) {
	for name, curve := range map[string][]byte{
		"a negative power": parametricCurve(0, -1), "a power of 0": parametricCurve(0, 0), "a large power": parametricCurve(3, 32767, 1.01, 0, 0, 0),
		"a negative line": parametricCurve(4, 1, 1, 0, -32768, 2, 0, -32768), "a large offset": parametricCurve(2, 30000, 30000, 0, -32768),
		"a table of one 0": {'c', 'u', 'r', 'v', 0, 0, 0, 0, 0, 0, 0, 1, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			for _, space := range []string{"GRAY", "RGB "} {
				for _, xyz := range []int32{0, math.MaxInt32, math.MinInt32} {
					c := profileConversion(profileOf(space, curve, xyz))
					if c == nil {
						continue
					}
					for _, size := range []int{256, 1 << 16} {
						p := c.converter(size)
						for _, v := range []int{0, 1, size / 2, size - 1} {
							p.rgb(v, 0, size-1)
						}
					}
				}
			}
		})
	}
	for v, want := range map[float64]float64{math.Inf(1): 1 << 20, math.Inf(-1): -1 << 20, 0.5: 0.5} {
		if got := finite(v); got != want {
			t.Errorf("%v becomes %v, want %v", v, got, want)
		}
	}
	if got := finite(math.NaN()); got != 0 {
		t.Errorf("not a number becomes %v", got)
	}
	for _, curve := range [][]byte{parametricCurve(0, -1), parametricCurve(3, 0, 1, 0, 1, 0), {'c', 'u', 'r', 'v', 0, 0, 0, 0, 0, 0, 0, 1, 0, 0}} {
		if profileCurve(curve) != nil {
			t.Errorf("%q is a curve", curve)
		}
	}
}

// A panicImage is an image whose pixels cannot be read.
type panicImage struct{ *image.RGBA }

func (panicImage) At(int, int) color.Color { panic("at the disco") }

func (panicImage) RGBA64At(int, int) color.RGBA64 { panic("at the disco") }

func TestFit_PreviewPanics(t *testing.T) {
	r := &recoding{ctx: t.Context(), p: New(Config{Log: slog.New(slog.NewTextHandler(io.Discard, nil))}), job: share.ImageJob{PreviewChars: maxChars}}
	if uri := r.preview(picture{Image: panicImage{corners(8, 6)}}); uri != "" {
		t.Errorf("the preview is %q", uri)
	}
	if uri := r.preview(picture{Image: corners(8, 6)}); uri == "" {
		t.Error("there is no preview")
	}
}
