// Package cases has pictures as people send them that decoders, encoders and carvers get wrong: for each kind its variants, and what
// must become of them.
package cases

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lpfileshare/lpfileshare/internal/images"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/test/images/craft"
)

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// change has the image stripped, or made to fit, and returns the result; unchanged reports that it is the image itself.
func change(t *testing.T, ft share.FileType, data []byte, most int, strip bool) (out []byte, fitted *share.FittedImage, err error) {
	t.Helper()
	var b bytes.Buffer
	fitted, err = images.New(images.Config{}).Fit(t.Context(), share.ImageJob{
		Type: ft, Size: int64(len(data)), MaxBytes: int64(most), Fit: !strip, Strip: strip, PreviewChars: 30_000,
		Open:   func() io.Reader { return bytes.NewReader(data) },
		Create: func() io.Writer { b.Reset(); return &b },
	})
	if err != nil {
		return nil, nil, err
	}
	if fitted == nil {
		return data, nil, nil
	}
	return b.Bytes(), fitted, nil
}

func stripped(t *testing.T, ft share.FileType, data []byte) ([]byte, error) {
	out, _, err := change(t, ft, data, 1<<30, true)
	return out, err
}

// preview returns the preview, decoded.
func preview(t *testing.T, ft share.FileType, data []byte) (image.Image, error) {
	t.Helper()
	uri, err := images.New(images.Config{}).Preview(t.Context(), ft, func() io.Reader { return bytes.NewReader(data) }, 30_000)
	if err != nil {
		return nil, err
	}
	return decodeURI(t, uri), nil
}

func decodeURI(t *testing.T, uri string) image.Image {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(uri, "data:image/jpeg;base64,"))
	if err != nil {
		t.Fatal(err)
	}
	img, err := jpeg.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// distance is the largest difference of a component of two colours, of 255.
func distance(a, b color.Color) int {
	r, g, bl, _ := a.RGBA()
	r2, g2, b2, _ := b.RGBA()
	d := func(x, y uint32) int { return int(max(x, y)-min(x, y)) >> 8 }
	return max(d(r, r2), d(g, g2), d(bl, b2))
}

// TestDamagedScan replaces the byte after each FF of the coded pixels by each value. Nothing of the pixels may be missing in an image
// that is stored.
func TestDamagedScan(t *testing.T) {
	for _, name := range []string{"restarts.jpg", "one-scan.jpg"} {
		plain := read(t, name)
		scan := bytes.Index(plain, []byte{0xff, 0xda})
		damaged := 0
		for at := scan + 20; at < len(plain)-4; at++ {
			if plain[at] != 0xff || plain[at+1] != 0 {
				continue
			}
			damaged++
			for v := damaged % 7; v < 256; v += 7 {
				b := bytes.Clone(plain)
				b[at+1] = byte(v)
				// What no encoder writes there is no marker: decoders continue behind it.
				harmless := v < 0xc0 || v >= 0xd0 && v <= 0xd8
				out, err := stripped(t, share.JPEG, b)
				switch {
				case err != nil && (harmless || !share.Is(err, share.ImageInvalid)):
					t.Errorf("%s, FF %02X at %d: %v", name, v, at, err)
				case err == nil && !bytes.Equal(out, b):
					t.Errorf("%s, FF %02X at %d: %d of %d bytes are left", name, v, at, len(out), len(b))
				}
				if v%16 != 1 || v > 0x80 {
					continue
				}
				out, fitted, err := change(t, share.JPEG, append(b, "tail"...), len(b)-1, false)
				if err == nil && !fitted.Change.Recoded {
					t.Errorf("%s, FF %02X at %d: fits with %d of %d bytes", name, v, at, len(out), len(b))
				}
			}
		}
		if damaged < 15 {
			t.Errorf("%s: %d places", name, damaged)
		}
	}
}

// TestDamagedBytes replaces single bytes anywhere. An image that is stored decodes to the same pixels, and has the same coded ones.
func TestDamagedBytes(t *testing.T) {
	for _, c := range []struct {
		name string
		ft   share.FileType
		data []byte
	}{
		{"restarts.jpg", share.JPEG, read(t, "restarts.jpg")}, {"progressive.jpg", share.JPEG, read(t, "progressive.jpg")},
		{"photo.png", share.PNG, read(t, "photo.png")}, {"animation.gif", share.GIF, animation(t, netscape(0))},
	} {
		for at := 2; at < len(c.data); at += 3 + at%97 {
			for _, v := range []byte{0, 0x21, 0x2c, 0x3b, 0xd9, 0xe1, 0xff} {
				b := bytes.Clone(c.data)
				b[at] = v
				out, err := stripped(t, c.ft, b)
				if err != nil {
					continue
				}
				before, was := pixels(c.ft, b)
				after, is := pixels(c.ft, out)
				if was == nil && (is != nil || !bytes.Equal(before, after)) {
					t.Errorf("%s, %02X at %d: %d of %d bytes, and other pixels: %v", c.name, v, at, len(out), len(b), is)
				}
				if was != nil && len(out) < len(b)*3/4 {
					t.Errorf("%s, %02X at %d: %d of %d bytes of an image that cannot be decoded", c.name, v, at, len(out), len(b))
				}
			}
		}
	}
}

// pixels decodes an image, all frames of it.
func pixels(ft share.FileType, b []byte) ([]byte, error) {
	var img image.Image
	var err error
	switch ft {
	case share.JPEG:
		img, err = jpeg.Decode(bytes.NewReader(b))
	case share.PNG:
		img, err = png.Decode(bytes.NewReader(b))
	case share.GIF:
		all, err := gif.DecodeAll(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		var out []byte
		for _, frame := range all.Image {
			out = append(append(out, fmt.Sprint(frame.Rect, frame.Palette)...), frame.Pix...)
		}
		return fmt.Append(out, all.Delay, all.LoopCount, all.Disposal), nil
	}
	if err != nil {
		return nil, err
	}
	var out []byte
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			r, g, b, a := img.At(x, y).RGBA()
			out = append(out, byte(r>>8), byte(g>>8), byte(b>>8), byte(a>>8))
		}
	}
	return out, nil
}

// corner is an image whose top left quarter is red, and the rest blue.
func corner(w, h int) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			c := color.NRGBA{0, 0, 255, 255}
			if x < w/2 && y < h/2 {
				c = color.NRGBA{255, 0, 0, 255}
			}
			img.SetNRGBA(x, y, c)
		}
	}
	return img
}

func encodePNG(t *testing.T, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	e := png.Encoder{CompressionLevel: png.NoCompression}
	if err := e.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// withChunks puts chunks behind the header of a PNG, or before its end.
func withChunks(b []byte, late bool, chunks ...[]byte) []byte {
	at := 33
	if late {
		at = len(b) - 12
	}
	return slices.Concat(b[:at], slices.Concat(chunks...), b[at:])
}

// TestPNGOrientation has EXIF before and after the pixels, in both byte orders: preview and fitted image are upright.
func TestPNGOrientation(t *testing.T) {
	plain := encodePNG(t, corner(60, 40))
	red := color.NRGBA{255, 0, 0, 255}
	where := [9]image.Point{1: {0, 0}, 2: {1, 0}, 3: {1, 1}, 4: {0, 1}, 5: {0, 0}, 6: {1, 0}, 7: {1, 1}, 8: {0, 1}} // of the red quarter
	for o := uint16(1); o <= 8; o++ {
		big := []byte{'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, byte(o), 0, 0, 0, 0, 0, 0}
		for _, tiff := range [][]byte{big, craft.EXIF(o)} {
			for _, late := range []bool{false, true} {
				b := withChunks(plain, late, craft.Chunk("eXIf", tiff))
				img, err := preview(t, share.PNG, b)
				if err != nil {
					t.Fatal(err)
				}
				_, fitted, err := change(t, share.PNG, b, len(b)/2, false)
				if err != nil {
					t.Fatal(err)
				}
				for name, img := range map[string]image.Image{"preview": img, "preview of the fitted image": decodeURI(t, fitted.Preview)} {
					s := img.Bounds().Size()
					at := image.Pt(s.X/4+s.X/2*where[o].X, s.Y/4+s.Y/2*where[o].Y)
					if (s.X > s.Y) != (o < 5) || distance(img.At(at.X, at.Y), red) > 40 {
						t.Errorf("orientation %d, late %t, %s: %v, %v at %v", o, late, name, s, img.At(at.X, at.Y), at)
					}
				}
			}
		}
	}
}

// patches are colours, as the values of an image.
var patches = []color.NRGBA{{128, 128, 128, 255}, {200, 60, 40, 255}, {60, 160, 80, 255}, {40, 60, 180, 255}, {235, 235, 235, 255}, {40, 40, 40, 255}}

func ofPatches() *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, 32*len(patches), 32))
	for i, c := range patches {
		for y := range 32 {
			for x := range 32 {
				img.SetNRGBA(32*i+x, y, c)
			}
		}
	}
	return img
}

func checkPatches(t *testing.T, name string, img image.Image, want func(v [3]float64) [3]float64) {
	t.Helper()
	s := img.Bounds().Size()
	for i, c := range patches {
		v := want([3]float64{float64(c.R) / 255, float64(c.G) / 255, float64(c.B) / 255})
		clip := func(v float64) uint8 { return uint8(min(max(v, 0), 1)*255 + 0.5) }
		expected := color.NRGBA{clip(v[0]), clip(v[1]), clip(v[2]), 255}
		if got := img.At(s.X*(2*i+1)/(2*len(patches)), s.Y/2); distance(got, expected) > 8 {
			t.Errorf("%s: patch %d is %v, want %v", name, i, got, expected)
		}
	}
}

func sRGB(v float64) float64 {
	if v <= 0.0031308 {
		return 12.92 * v
	}
	return 1.055*math.Pow(v, 1/2.4) - 0.055
}

func each(f func(float64) float64) func([3]float64) [3]float64 {
	return func(v [3]float64) [3]float64 { return [3]float64{f(v[0]), f(v[1]), f(v[2])} }
}

// fromP3 converts values of Display P3, by its published matrix to linear sRGB.
func fromP3(v [3]float64) [3]float64 {
	linear := func(v float64) float64 {
		if v <= 0.04045 {
			return v / 12.92
		}
		return math.Pow((v+0.055)/1.055, 2.4)
	}
	r, g, b := linear(v[0]), linear(v[1]), linear(v[2])
	return [3]float64{
		sRGB(max(0, 1.2249402*r-0.2249402*g)), sRGB(max(0, -0.0420570*r+1.0420570*g)), sRGB(max(0, -0.0196376*r-0.0786361*g+1.0982735*b)),
	}
}

// TestPNGColors has linear values, other gammas, and other primaries: they look the same in the preview and when they are made to fit.
func TestPNGColors(t *testing.T) {
	gAMA := func(g float64) []byte {
		return craft.Chunk("gAMA", binary.BigEndian.AppendUint32(nil, uint32(math.Round(g*100_000))))
	}
	cHRM := func(xy ...float64) []byte {
		var b []byte
		for _, v := range xy {
			b = binary.BigEndian.AppendUint32(b, uint32(math.Round(v*100_000)))
		}
		return craft.Chunk("cHRM", b)
	}
	p3 := cHRM(.3127, .3290, .680, .320, .265, .690, .150, .060)
	same := each(func(v float64) float64 { return v })
	type row struct {
		name   string
		chunks [][]byte
		want   func([3]float64) [3]float64
	}
	rows := []row{
		{"nothing", nil, same},
		{"the gamma of sRGB", [][]byte{gAMA(0.45455)}, same},
		{"its gamma and primaries", [][]byte{gAMA(0.45455), cHRM(.3127, .3290, .64, .33, .30, .60, .15, .06)}, same},
		{"sRGB before a gamma", [][]byte{craft.Chunk("sRGB", []byte{0}), gAMA(1)}, same},
		{"Display P3 by primaries", [][]byte{p3}, fromP3},
		{"Display P3 by cICP", [][]byte{craft.Chunk("cICP", []byte{12, 13, 0, 1})}, fromP3},
		{"cICP before sRGB and gamma", [][]byte{craft.Chunk("cICP", []byte{12, 13, 0, 1}), craft.Chunk("sRGB", []byte{0}), gAMA(1)}, fromP3},
		{"sRGB by cICP", [][]byte{craft.Chunk("cICP", []byte{1, 13, 0, 1})}, same},
		{"television by cICP", [][]byte{craft.Chunk("cICP", []byte{1, 1, 0, 1})}, same},
		{"linear by cICP", [][]byte{craft.Chunk("cICP", []byte{1, 8, 0, 1})}, each(sRGB)},
		{"an unknown cICP", [][]byte{craft.Chunk("cICP", []byte{77, 13, 0, 1})}, same},
		{"a gamma of nothing", [][]byte{gAMA(0)}, same},
		{"primaries of nothing", [][]byte{cHRM(0, 0, 0, 0, 0, 0, 0, 0)}, same},
	}
	for _, g := range []float64{1, 0.9, 0.8, 0.7, 0.6, 0.55556, 0.5, 0.4, 0.35} {
		rows = append(rows, row{fmt.Sprint("gamma ", g), [][]byte{gAMA(g)}, each(func(v float64) float64 { return sRGB(math.Pow(v, 1/g)) })})
	}
	img := ofPatches()
	deep := image.NewNRGBA64(img.Rect)
	palette := image.NewPaletted(img.Rect, nil)
	for _, c := range patches {
		palette.Palette = append(palette.Palette, c)
	}
	for y := range img.Rect.Dy() {
		for x := range img.Rect.Dx() {
			deep.Set(x, y, img.At(x, y))
			palette.Set(x, y, img.At(x, y))
		}
	}
	for kind, img := range map[string]image.Image{"8 bits": img, "16 bits": deep, "palette": palette} {
		plain := encodePNG(t, img)
		for i, r := range rows {
			if kind == "16 bits" && i%3 != 0 { // its tables are large
				continue
			}
			b := withChunks(plain, false, r.chunks...)
			name := kind + ", " + r.name
			small, err := preview(t, share.PNG, b)
			if err != nil {
				t.Fatal(err)
			}
			checkPatches(t, name+", preview", small, r.want)
			out, fitted, err := change(t, share.PNG, b, len(b)-2, false)
			if err != nil || !fitted.Change.Recoded || fitted.Type != share.JPEG {
				t.Fatalf("%s: %v, %v", name, fitted, err)
			}
			large, err := jpeg.Decode(bytes.NewReader(out))
			if err != nil {
				t.Fatal(err)
			}
			checkPatches(t, name+", fitted", large, r.want)
			if strip, err := stripped(t, share.PNG, b); err != nil || !bytes.Equal(strip, b) {
				t.Errorf("%s: stripping changed it: %v", name, err)
			}
		}
		for transfer, hdr := range map[byte]string{16: "PQ", 18: "HLG"} {
			b := withChunks(plain, false, craft.Chunk("cICP", []byte{9, transfer, 0, 1}))
			if _, _, err := change(t, share.PNG, b, len(b)-2, false); why(err) != "unsupported" || !strings.Contains(err.Error(), "HDR") {
				t.Errorf("%s, %s: %v", kind, hdr, err)
			}
		}
	}
}

// why returns the reason of IMAGE_CANNOT_FIT.
func why(err error) string {
	if e, ok := errors.AsType[*share.Error](err); ok && e.Kind == share.ImageCannotFit {
		return e.Metadata["why"]
	}
	return ""
}

// TestJPEGProfiles has pictures with profiles of curves and a matrix: the preview has their colours, without the profile.
func TestJPEGProfiles(t *testing.T) {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, ofPatches(), &jpeg.Options{Quality: 95}); err != nil {
		t.Fatal(err)
	}
	plain := b.Bytes()
	p3 := [9]float64{.51512, .2412, -.00105, .29198, .69225, .04189, .1571, .06657, .78407}
	srgb := [9]float64{.43607, .22249, .01392, .38515, .71687, .09708, .14307, .06061, .71410}
	parametric := func(kind byte, values ...float64) []byte {
		c := []byte{'p', 'a', 'r', 'a', 0, 0, 0, 0, 0, kind, 0, 0}
		for _, v := range values {
			c = binary.BigEndian.AppendUint32(c, uint32(int32(math.Round(v*65536))))
		}
		return c
	}
	power := func(g float64) []byte {
		return append([]byte{'c', 'u', 'r', 'v', 0, 0, 0, 0, 0, 0, 0, 1}, byte(int(g*256)>>8), byte(int(g*256)), 0, 0)
	}
	table := []byte{'c', 'u', 'r', 'v', 0, 0, 0, 0, 0, 0, 1, 0}
	for i := range 256 {
		table = binary.BigEndian.AppendUint16(table, uint16(math.Pow(float64(i)/255, 1.8)*65535))
	}
	of := func(g float64) func([3]float64) [3]float64 {
		return each(func(v float64) float64 { return sRGB(math.Pow(v, g)) })
	}
	curve := parametric(3, 2.4, 1/1.055, 0.055/1.055, 1/12.92, 0.04045)
	type row struct {
		name string
		icc  []byte
		want func([3]float64) [3]float64
	}
	same := each(func(v float64) float64 { return v })
	rows := []row{
		{"Display P3", craft.Profile(p3, curve), fromP3}, {"sRGB", craft.Profile(srgb, curve), same},
		{"a table", craft.Profile(srgb, table), of(1.8)}, {"a damaged curve", craft.Profile(srgb, table[:40]), same},
		{"a damaged profile", craft.Profile(p3, curve)[:200], same}, {"another space", craft.Profile(p3, curve), fromP3},
		{"sRGB in five parameters", craft.Profile(srgb, parametric(4, 2.4, 1/1.055, 0.055/1.055, 1/12.92, 0.04045, 0, 0)), same},
		{"a curve with an offset", craft.Profile(srgb, parametric(1, 2, 1, 0)), of(2)},
	}
	for _, g := range []float64{1, 1.25, 1.5, 1.75, 2, 2.5} {
		rows = append(rows, row{fmt.Sprint("a power of ", g), craft.Profile(srgb, power(g)), of(g)}, row{fmt.Sprint("a parametric power of ", g), craft.Profile(srgb, parametric(0, g)), of(g)})
	}
	for _, r := range rows {
		file := slices.Concat(plain[:2], craft.Segment(0xe2, append([]byte("ICC_PROFILE\x00\x01\x01"), r.icc...)), plain[2:])
		img, err := preview(t, share.JPEG, file)
		if err != nil {
			t.Fatal(err)
		}
		checkPatches(t, r.name, img, r.want)
		out, fitted, err := change(t, share.JPEG, file, len(file)-2, false)
		if err != nil || !bytes.Contains(out, r.icc) {
			t.Errorf("%s: the fitted image has no profile: %v", r.name, err)
			continue
		}
		checkPatches(t, r.name+", preview of the fitted image", decodeURI(t, fitted.Preview), r.want)
	}
}

// TestJPEGSegments has what looks like scans inside other segments, and long ones before the picture.
func TestJPEGSegments(t *testing.T) {
	plain := read(t, "one-scan.jpg")
	for marker := byte(0xe3); marker < 0xee; marker += 2 {
		for _, segments := range [][][]byte{
			{bytes.Repeat([]byte{0xff, 0xda}, 101)},
			{bytes.Repeat([]byte{0xff, 0xda}, 30_000)},
			{bytes.Repeat([]byte{0xff, 0xd9}, 200), bytes.Repeat([]byte{0xff, 0xff, 0xda}, 200)},
			slices.Repeat([][]byte{bytes.Repeat([]byte("A"), 60_000)}, 19),
			slices.Repeat([][]byte{bytes.Repeat([]byte{0xff, 0xda, 0, 1}, 15_000)}, 40),
		} {
			b := bytes.Clone(plain[:2])
			for _, s := range segments {
				b = append(b, craft.Segment(marker, s)...)
			}
			b = append(b, plain[2:]...)
			if _, err := preview(t, share.JPEG, b); err != nil {
				t.Errorf("%d segments %#x of %d: no preview: %v", len(segments), marker, len(segments[0]), err)
			}
			if out, err := stripped(t, share.JPEG, b); err != nil || !bytes.Equal(out, plain) {
				t.Errorf("%d segments %#x of %d: stripped: %v", len(segments), marker, len(segments[0]), err)
			}
			if out, fitted, err := change(t, share.JPEG, b, len(plain)*2/3, false); err != nil || !fitted.Change.Recoded || len(out) > len(plain)*2/3 {
				t.Errorf("%d segments %#x of %d: fitted: %v", len(segments), marker, len(segments[0]), err)
			}
		}
	}
}

// netscape is a block with a number of repetitions, and further sub-blocks before and after it.
func netscape(loops uint16, around ...[]byte) []byte {
	b := []byte("!\xff\x0bNETSCAPE2.0")
	for i, s := range around {
		if i%2 == 0 {
			b = append(append(b, byte(len(s))), s...)
		}
	}
	b = append(b, 3, 1, byte(loops), byte(loops>>8))
	for i, s := range around {
		if i%2 == 1 {
			b = append(append(b, byte(len(s))), s...)
		}
	}
	return append(b, 0)
}

// animation is a GIF of three frames with a block before them.
func animation(t *testing.T, block []byte) []byte {
	t.Helper()
	all := &gif.GIF{LoopCount: -1}
	for i := range 3 {
		p := image.NewPaletted(image.Rect(0, 0, 40, 30), color.Palette{color.Black, color.White, color.NRGBA{255, 0, 0, 255}})
		for j := range p.Pix {
			p.Pix[j] = byte((i + j*j/7) % 3)
		}
		all.Image, all.Delay = append(all.Image, p), append(all.Delay, 10*i+10)
	}
	var b bytes.Buffer
	if err := gif.EncodeAll(&b, all); err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b.Bytes(), []byte{'!', 0xf9})
	return slices.Concat(b.Bytes()[:at], block, b.Bytes()[at:])
}

// TestGIFs has animations that browsers play: their pixels, times and repetitions are the same when they are stripped.
func TestGIFs(t *testing.T) {
	buffering := []byte{2, 0, 16, 0, 0}
	for _, loops := range []uint16{0, 1, 65535} {
		for name, block := range map[string][]byte{
			"plain": netscape(loops), "a block after": nil, "two": netscape(loops, buffering, buffering),
			"a block before": netscape(loops, buffering), "long": netscape(loops, bytes.Repeat([]byte{9}, 200), bytes.Repeat([]byte{1}, 255)),
		} {
			if name == "a block after" {
				block = append(append(netscape(loops)[:len(netscape(loops))-1], 5), append(buffering, 0)...)
			}
			plain := animation(t, block)
			frame := bytes.Index(plain, []byte{'!', 0xf9})
			for kind, b := range map[string][]byte{
				"": plain, ", a zero byte before the end": slices.Concat(plain[:len(plain)-1], []byte{0}, plain[len(plain)-1:]),
				", zero bytes before a frame": slices.Concat(plain[:frame], []byte{0, 0, 0}, plain[frame:]),
				", no end":                    plain[:len(plain)-1],
			} {
				out, err := stripped(t, share.GIF, b)
				if err != nil {
					t.Errorf("%s, %d times%s: %v", name, loops, kind, err)
					continue
				}
				want, err := pixels(share.GIF, animation(t, netscape(loops)))
				if err != nil {
					t.Fatal(err)
				}
				if got, err := pixels(share.GIF, out); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s, %d times%s: the stripped animation differs: %v", name, loops, kind, err)
				}
				if _, err := preview(t, share.GIF, b); err != nil && !strings.HasSuffix(kind, "frame") { // Go's decoder rejects those
					t.Errorf("%s, %d times%s: no preview: %v", name, loops, kind, err)
				}
			}
		}
	}
}

// TestCodings has JPEGs that other programs read: they are stored and stripped, and what cannot be decoded is not called damaged.
func TestCodings(t *testing.T) {
	plain, progressive := read(t, "one-scan.jpg"), read(t, "progressive.jpg")
	set := func(b []byte, at int, v byte) []byte {
		b = bytes.Clone(b)
		b[bytes.Index(b, []byte{0xff, 0xc0})+at] = v
		return b
	}
	type row struct {
		name    string
		data    []byte
		decodes bool
	}
	rows := []row{{"baseline", plain, true}, {"progressive", progressive, true}}
	for _, sof := range []byte{0xc3, 0xc5, 0xc6, 0xc7, 0xc9, 0xca, 0xcb, 0xcd, 0xce, 0xcf} {
		rows = append(rows, row{fmt.Sprintf("SOF%d", sof-0xc0), set(plain, 1, sof), false})
	}
	for _, bits := range []byte{2, 10, 12, 16} {
		rows = append(rows, row{fmt.Sprintf("%d bits", bits), set(plain, 4, bits), false})
	}
	for _, factors := range []byte{0x31, 0x13, 0x33, 0x32, 0x14, 0x34, 0x43} {
		rows = append(rows, row{fmt.Sprintf("sampling %x", factors), set(plain, 11, factors), false})
	}
	cmyk := read(t, "cmyk.jpg")
	adobe := bytes.Index(cmyk, []byte{0xff, 0xee})
	unmarked := slices.Concat(cmyk[:adobe], cmyk[adobe+2+int(cmyk[adobe+3]):])
	frames := bytes.Clone(plain[:2])
	var standard bytes.Buffer
	photo, err := jpeg.Decode(bytes.NewReader(plain))
	if err == nil {
		err = jpeg.Encode(&standard, photo, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	for at := 2; at < standard.Len(); {
		b := standard.Bytes()
		length := 2 + int(binary.BigEndian.Uint16(b[at+2:]))
		if b[at+1] == 0xda {
			frames = append(frames, b[at:]...)
			break
		}
		if b[at+1] != 0xc4 {
			frames = append(frames, b[at:at+length]...)
		}
		at += length
	}
	rows = append(rows, row{"CMYK", cmyk, true}, row{"CMYK without Adobe's segment", unmarked, true}, row{"no Huffman tables", frames, true})
	for _, r := range rows {
		if _, err := images.New(images.Config{}).Inspect(share.JPEG, bytes.NewReader(r.data)); err != nil {
			t.Errorf("%s: it is not accepted: %v", r.name, err)
		}
		if out, err := stripped(t, share.JPEG, r.data); err != nil || !bytes.Equal(out, r.data) {
			t.Errorf("%s: stripped: %d of %d bytes, %v", r.name, len(out), len(r.data), err)
		}
		_, noPreview := preview(t, share.JPEG, r.data)
		_, _, err := change(t, share.JPEG, r.data, len(r.data)*9/10, false)
		if r.decodes && (noPreview != nil || err != nil) {
			t.Errorf("%s: %v, %v", r.name, noPreview, err)
		}
		if !r.decodes && (noPreview == nil || why(err) != "unsupported" || strings.Contains(err.Error(), "damaged")) {
			t.Errorf("%s: preview %v; %v", r.name, noPreview, err)
		}
	}
	// Other programs do not write inks inverted as Adobe does.
	dark, err := preview(t, share.JPEG, cmyk)
	if err != nil {
		t.Fatal(err)
	}
	light, err := preview(t, share.JPEG, unmarked)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := dark.At(10, 10), light.At(10, 10); distance(a, b) < 30 {
		t.Errorf("CMYK is %v with Adobe's segment and %v without", a, b)
	}
}

// TestMetadata_Names names what is removed.
func TestMetadata_Names(t *testing.T) {
	plain := encodePNG(t, corner(8, 8))
	for want, chunk := range map[share.ImageMetadata][]byte{
		share.MetadataXMP:     craft.Chunk("iTXt", []byte("XML:com.adobe.xmp\x00\x00\x00\x00\x00<x/>")),
		share.MetadataComment: craft.Chunk("iTXt", []byte("Comment\x00\x00\x00\x00\x00hello")),
		share.MetadataOther:   craft.Chunk("tIME", make([]byte, 7)),
	} {
		_, fitted, err := change(t, share.PNG, withChunks(plain, true, chunk), 1<<20, true)
		if err != nil || !slices.Equal(fitted.Change.Removed, []share.ImageMetadata{want}) {
			t.Errorf("%v, %v, want %s", fitted, err, want)
		}
	}
}
