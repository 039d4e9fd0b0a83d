package images

import (
	"bytes"
	"encoding/binary"
	"image"
	"image/color"
	"image/png"
	"io"
	"log/slog"
	"math"
	"slices"
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
					p := c.converter(256)
					for _, v := range []int{0, 1, 128, 255} {
						p.rgb(v, 0, 255)
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

// TestFit_GrayProfile has grey PNGs with a profile of linear values. Those that are encoded again in RGB are converted to sRGB.
func TestFit_GrayProfile(t *testing.T) {
	linear := profileOf("GRAY", parametricCurve(0, 1), 0)
	const side, value = 64, 0x31
	gray, deep, clear := image.NewGray(image.Rect(0, 0, side, side)), image.NewGray16(image.Rect(0, 0, side, side)), image.NewNRGBA(image.Rect(0, 0, side, side))
	for i, v := range noise(side, side).Pix[:side*side] {
		v = value + v&1
		gray.Pix[i], deep.Pix[2*i], deep.Pix[2*i+1] = v, v, v
		copy(clear.Pix[4*i:], []byte{v, v, v, 0xff})
	}
	clear.Pix[3] = 0
	for _, c := range []struct {
		img  image.Image
		kept bool
	}{{gray, true}, {deep, false}, {clear, false}} {
		var b bytes.Buffer
		if err := png.Encode(withPNGProfile(&b, linear), c.img); err != nil {
			t.Fatal(err)
		}
		out, fitted := orderOf(share.PNG, b.Bytes(), int64(b.Len()-b.Len()/3)).fit(t)
		seen, err := strip(fitted.Type, bytes.NewReader(out), io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if kept := len(seen.profile.icc) > 0; kept != c.kept || kept == slices.Contains(fitted.Change.Removed, share.MetadataColorProfile) {
			t.Errorf("%T: the profile is kept %t, removed were %v", c.img, kept, fitted.Change.Removed)
		}
		want := color.Gray{value}
		if !c.kept {
			want.Y = byte(sRGBEncode(value/255.) * 255)
		}
		if got := decoded(t, fitted.Type, out).At(20, 20); !near(got, want) {
			t.Errorf("%T: the value is %v, want %v", c.img, got, want)
		}
	}
}
