package images

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"log/slog"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/test/images/craft"
)

// An order is a job on bytes, with its outputs.
type order struct {
	share.ImageJob
	outputs []*bytes.Buffer
}

func orderOf(t share.FileType, b []byte, most int64, change ...func(*share.ImageJob)) *order {
	o := &order{ImageJob: share.ImageJob{Type: t, Size: int64(len(b)), MaxBytes: most, Fit: true}}
	o.Open = func() io.Reader { return bytes.NewReader(b) }
	o.Create = func() io.Writer {
		o.outputs = append(o.outputs, &bytes.Buffer{})
		return o.outputs[len(o.outputs)-1]
	}
	for _, f := range change {
		f(&o.ImageJob)
	}
	return o
}

func stripped(j *share.ImageJob)  { j.Fit, j.Strip = false, true }
func previewed(j *share.ImageJob) { j.PreviewChars = maxChars }

// fit runs Fit and returns the image, which must be within its limit.
func (o *order) fit(t *testing.T) ([]byte, *share.FittedImage) {
	t.Helper()
	fitted, err := New(Config{}).Fit(t.Context(), o.ImageJob)
	if err != nil {
		t.Fatal(err)
	}
	if fitted == nil {
		b, _ := io.ReadAll(o.Open())
		return b, nil
	}
	for _, output := range o.outputs {
		if int64(output.Len()) > o.MaxBytes {
			t.Errorf("an output has %d bytes, the limit is %d", output.Len(), o.MaxBytes)
		}
	}
	return o.outputs[len(o.outputs)-1].Bytes(), fitted
}

func decoded(t *testing.T, ft share.FileType, b []byte) image.Image {
	t.Helper()
	decode := map[share.FileType]func(io.Reader) (image.Image, error){share.JPEG: jpeg.Decode, share.PNG: png.Decode, share.GIF: gif.Decode}[ft]
	img, err := decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// withGPS inserts EXIF with an orientation and a position, XMP, IPTC, a comment, and application data into a JPEG.
func withGPS(jpeg []byte, orientation uint16) []byte {
	return bytes.Join([][]byte{
		jpeg[:2],
		craft.Segment(0xe0, []byte("JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x01\x01rgb")), // with a thumbnail
		craft.Segment(0xe1, append([]byte("Exif\x00\x00"), gpsEXIF(orientation)...)),
		craft.Segment(0xe1, []byte("http://ns.adobe.com/xap/1.0/\x00<x:xmpmeta>secret</x:xmpmeta>")),
		craft.Segment(0xed, []byte("Photoshop 3.0\x008BIM secret")),
		craft.Segment(0xfe, []byte("secret comment")),
		craft.Segment(0xe2, []byte("MPF\x00secret")),
		craft.Segment(0xec, []byte("Ducky secret")),
		jpeg[2:],
	}, nil)
}

// gpsEXIF returns EXIF with a position and a secret.
func gpsEXIF(orientation uint16) []byte { return append(craft.EXIF(orientation), "secret"...) }

func TestFit_Unchanged(t *testing.T) {
	b := withGPS(asJPEG(t, corners(64, 48)), 6)
	if got, fitted := orderOf(share.JPEG, b, int64(len(b))).fit(t); fitted != nil || !bytes.Equal(got, b) {
		t.Errorf("it was changed: %+v", fitted)
	}
	clean := asJPEG(t, corners(64, 48))
	for ft, b := range map[share.FileType][]byte{share.JPEG: clean, share.PNG: asPNG(t, corners(30, 20)), share.GIF: gifOf(t, 30, 20)} {
		if _, fitted := orderOf(ft, b, 1<<20, stripped).fit(t); fitted != nil {
			t.Errorf("a clean %s was changed: %+v", ft, fitted.Change)
		}
	}
}

func TestFit_Photograph(t *testing.T) {
	img := noise(900, 600)
	for y := range 300 {
		for x := range 450 {
			img.SetRGBA(x, y, red)
		}
	}
	profile := iccProfile("RGB ")
	b := asJPEG(t, img)
	b = withGPS(append(append(bytes.Clone(b[:2]), craft.Segment(0xe2, append([]byte("ICC_PROFILE\x00\x01\x01"), profile...))...), b[2:]...), 6)
	b = append(b, "secret tail"...)
	for _, most := range []int64{int64(len(b)) - 1, 200_000, 60_000, 10_000} {
		got, fitted := orderOf(share.JPEG, b, most, previewed).fit(t)
		if int64(len(got)) > most {
			t.Errorf("%d bytes, want %d at the most", len(got), most)
		}
		if bytes.Contains(got, []byte("secret")) {
			t.Errorf("for %d bytes: metadata is left", most)
		}
		if !bytes.Contains(got, profile) {
			t.Error("the colour profile is lost")
		}
		c := fitted.Change
		if c.TrailingBytes != 11 || !slices.Equal(c.Removed, []share.ImageMetadata{"OTHER", "EXIF", "XMP", "IPTC", "COMMENT"}) {
			t.Errorf("removed were %v and %d bytes", c.Removed, c.TrailingBytes)
		}
		seen := decoded(t, share.JPEG, got)
		if most > 200_000 { // removing metadata was enough
			if c.Recoded || c.Rotated || c.JPEGQuality != 0 || !seen.Bounds().Eq(img.Bounds()) || !bytes.Contains(got, onlyOrientation(6, 1000)) || fitted.Preview != "" {
				t.Errorf("it was encoded again: %+v", c)
			}
			continue
		}
		if bytes.Contains(got, []byte("Exif")) {
			t.Error("EXIF is left")
		}
		s := seen.Bounds().Size()
		if !c.Recoded || !c.Rotated || s.X >= s.Y || c.Stored != (share.ImageInfo{Width: s.X, Height: s.Y}) || c.Input != (share.ImageInfo{Width: 900, Height: 600}) {
			t.Errorf("it is %v: %+v", s, c)
		}
		if c.Scaled != (s.X < 600) || c.JPEGQuality < lowQuality {
			t.Errorf("scaled %t, quality %d", c.Scaled, c.JPEGQuality)
		}
		if at := seen.At(s.X*3/4, s.Y/4); !near(at, red) { // top left is now top right
			t.Errorf("the top right corner is %v", at)
		}
		decodePreview(t, fitted.Preview)
	}
}

// TestUpright rotates images with every chroma subsampling, and checks their corners.
func TestUpright(t *testing.T) {
	for _, ratio := range []image.YCbCrSubsampleRatio{
		image.YCbCrSubsampleRatio444, image.YCbCrSubsampleRatio422, image.YCbCrSubsampleRatio420,
		image.YCbCrSubsampleRatio440, image.YCbCrSubsampleRatio411, image.YCbCrSubsampleRatio410,
	} {
		flat := corners(61, 43)
		src := image.NewYCbCr(flat.Rect, ratio)
		for y := range 43 {
			for x := range 61 {
				c := flat.RGBAAt(x, y)
				src.Y[src.YOffset(x, y)], src.Cb[src.COffset(x, y)], src.Cr[src.COffset(x, y)] = color.RGBToYCbCr(c.R, c.G, c.B)
			}
		}
		gray, nrgba := image.NewGray(flat.Rect), image.NewNRGBA(flat.Rect)
		for i := range gray.Pix {
			x, y := i%61, i/61
			gray.Set(x, y, flat.At(x, y))
			nrgba.Set(x, y, flat.At(x, y))
		}
		for _, img := range []image.Image{src, flat, gray, nrgba} {
			want := toRGBA(img)
			for o := 1; o <= 8; o++ {
				got := upright(img, o)
				for _, at := range []image.Point{{5, 5}, {55, 5}, {5, 37}, {55, 37}} {
					x, y := at.X, at.Y
					if got.Bounds().Dx() == 43 {
						x, y = y, x
					}
					sx, sy := seenFrom(o, x, y, 61, 43)
					if !near(got.At(x, y), want.At(sx, sy)) {
						t.Fatalf("%T %v turned by %d: %v at %d, %d, want %v", img, ratio, o, got.At(x, y), x, y, want.At(sx, sy))
					}
				}
			}
		}
	}
}

// iccProfile returns bytes with the header of a colour profile.
func iccProfile(space string) []byte {
	b := bytes.Repeat([]byte("profile "), 40)
	copy(b[16:], space)
	return b
}

func TestFit_ColorProfile(t *testing.T) {
	b := craft.FlatJPEG(0xc0, 900, 800, 100, 100, 100, 100)
	cmyk := append(append(bytes.Clone(b[:2]), craft.Segment(0xe2, append([]byte("ICC_PROFILE\x00\x01\x01"), iccProfile("CMYK")...))...), b[2:]...)
	got, fitted := orderOf(share.JPEG, cmyk, int64(len(cmyk))-1).fit(t)
	if bytes.Contains(got, []byte("ICC_PROFILE")) || !slices.Contains(fitted.Change.Removed, share.MetadataColorProfile) {
		t.Errorf("an RGB image has a CMYK profile: %v", fitted.Change.Removed)
	}
	if at := decoded(t, share.JPEG, got).At(30, 30); !near(at, color.Gray{204}) {
		t.Errorf("the colour is %v", at)
	}
	// A PNG encodes its profile differently than a JPEG.
	withProfile := func(img image.Image, space string) []byte {
		var z bytes.Buffer
		if err := png.Encode(&z, img); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		_, _ = withPNGProfile(&out, iccProfile(space)).Write(z.Bytes())
		return out.Bytes()
	}
	photo := withProfile(noise(300, 300), "RGB ")
	decoded(t, share.PNG, photo)
	got, fitted = orderOf(share.PNG, photo, 50_000).fit(t)
	if fitted.Type != share.JPEG || !bytes.Contains(got, iccProfile("RGB ")) {
		t.Errorf("the profile is lost: %+v", fitted)
	}
	clear := noise(300, 300)
	clear.Pix[3] = 0
	got, fitted = orderOf(share.PNG, withProfile(clear, "RGB "), 50_000).fit(t)
	seen, err := strip(share.PNG, bytes.NewReader(got), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if kept := seen.profile.icc; fitted.Type != share.PNG || !bytes.Equal(kept, iccProfile("RGB ")) {
		t.Errorf("the profile is lost: %+v", fitted)
	}
	decoded(t, share.PNG, got)
}

func TestFit_Transparency(t *testing.T) {
	img := image.NewNRGBA(image.Rect(0, 0, 400, 300))
	for i, c := range noise(400, 300).Pix {
		img.Pix[i] = c
		if i%4 == 3 && i < len(img.Pix)/2 {
			img.Pix[i] = 0
		}
	}
	b := asPNG(t, img)
	got, fitted := orderOf(share.PNG, b, 40_000).fit(t)
	seen := decoded(t, fitted.Type, got)
	s := seen.Bounds().Size()
	_, _, _, above := seen.At(s.X/2, s.Y/4).RGBA()
	_, _, _, below := seen.At(s.X/2, s.Y*3/4).RGBA()
	if fitted.Type != share.PNG || len(got) > 40_000 || above != 0 || below != 0xffff || !fitted.Change.Scaled || fitted.Change.JPEGQuality != 0 {
		t.Errorf("%s of %d bytes, alpha %d and %d: %+v", fitted.Type, len(got), above, below, fitted.Change)
	}
}

func TestFit_PNGPhotograph(t *testing.T) {
	for name, img := range map[string]image.Image{"8 bits": noise(400, 300), "16 bits": deep(400, 300), "grey": grey(900, 800)} {
		b := asPNG(t, img)
		got, fitted := orderOf(share.PNG, b, int64(len(b)/3)).fit(t)
		if fitted.Type != share.JPEG || fitted.Change.InputType != share.PNG {
			t.Errorf("%s: it became a %s: %+v", name, fitted.Type, fitted.Change)
		}
		decoded(t, share.JPEG, got)
	}
}

func deep(w, h int) image.Image {
	img := image.NewNRGBA64(image.Rect(0, 0, w, h))
	copy(img.Pix, bytes.Repeat(noise(w, h).Pix, 2))
	for i := 6; i < len(img.Pix); i += 8 {
		img.Pix[i], img.Pix[i+1] = 0xff, 0xff
	}
	return img
}

func grey(w, h int) image.Image {
	img := image.NewGray(image.Rect(0, 0, w, h))
	copy(img.Pix, noise(w, h).Pix)
	return img
}

// animation returns a GIF of n frames that do not compress, with a comment, XMP, a number of repetitions, and trailing bytes.
func animation(t testing.TB, n int) []byte {
	t.Helper()
	all := &gif.GIF{LoopCount: 3}
	var palette color.Palette
	for i := range 256 {
		palette = append(palette, color.RGBA{byte(i), byte(i * 7), byte(i * 31), 0xff})
	}
	for range n {
		p := image.NewPaletted(image.Rect(0, 0, 60, 50), palette)
		copy(p.Pix, noise(60, 50).Pix)
		all.Image, all.Delay = append(all.Image, p), append(all.Delay, 10)
	}
	var b bytes.Buffer
	if err := gif.EncodeAll(&b, all); err != nil {
		t.Fatal(err)
	}
	whole := b.Bytes()
	at := 13 // no global colour table
	if whole[10]&0x80 != 0 {
		at += 3 << (whole[10]&7 + 1)
	}
	extra := "!\xfe\x0esecret comment\x00" + "!\xff\x0bXMP DataXMP\x06secret\x00" + "!\xff\x0bSECRETS 1.0\x06secret\x00" + "!\x01\x0csecretsecret\x06secret\x00"
	return slices.Concat(whole[:at], []byte(extra), whole[at:], []byte("secret tail"))
}

func TestFit_Animations(t *testing.T) {
	b := animation(t, 5)
	got, fitted := orderOf(share.GIF, b, 1<<20, stripped).fit(t)
	all, err := gif.DecodeAll(bytes.NewReader(got))
	if err != nil || len(all.Image) != 5 || all.LoopCount != 3 || all.Delay[0] != 10 {
		t.Errorf("the animation is damaged: %v", err)
	}
	if bytes.Contains(bytes.ToLower(got), []byte("secret")) || fitted.Change.TrailingBytes != 11 {
		t.Error("metadata is left")
	}
	apng := animatedPNG(t)
	got, fitted = orderOf(share.PNG, apng, 1<<20, stripped).fit(t)
	if !bytes.Contains(got, []byte("acTL")) || bytes.Count(got, []byte("fcTL")) != 2 || bytes.Contains(got, []byte("secret")) || fitted == nil {
		t.Error("the animated PNG is damaged, or has metadata")
	}
	for ft, b := range map[share.FileType][]byte{share.GIF: b, share.PNG: apng} {
		_, err := New(Config{}).Fit(t.Context(), orderOf(ft, b, 100).ImageJob)
		if e, ok := errors.AsType[*share.Error](err); !ok || e.Kind != share.ImageCannotFit || e.Metadata["why"] != "animated" || e.Metadata["maxBytes"] != "100" {
			t.Errorf("%s: %v", ft, err)
		}
	}
	// One frame is not an animation.
	one := animation(t, 1)
	got, fitted = orderOf(share.GIF, one, 2000).fit(t)
	if fitted.Type != share.JPEG || !fitted.Change.Recoded {
		t.Errorf("%+v", fitted)
	}
	decoded(t, share.JPEG, got)
}

// animatedPNG returns a PNG with two frames and text.
func animatedPNG(t testing.TB) []byte {
	b := asPNG(t, noise(30, 20))
	idat := bytes.Index(b, []byte("IDAT")) - 4
	iend := len(b) - 12
	pixels := b[idat+8 : iend-4]
	control := func(seq uint32) []byte {
		f := binary.BigEndian.AppendUint32(nil, seq)
		f = append(f, 0, 0, 0, 30, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 10, 0, 0)
		return pngChunk("fcTL", f)
	}
	return slices.Concat(b[:idat], pngChunk("acTL", []byte{0, 0, 0, 2, 0, 0, 0, 0}), control(0), b[idat:iend],
		control(1), pngChunk("fdAT", append([]byte{0, 0, 0, 2}, pixels...)), pngChunk("tEXt", []byte("Comment\x00secret")), b[iend:], []byte("secret tail"))
}

func TestFit_StripKeepsPixels(t *testing.T) {
	plain := asJPEG(t, noise(200, 100))
	png := asPNG(t, noise(200, 100))
	iend := len(png) - 12
	for _, c := range []struct {
		name    string
		ft      share.FileType
		b       []byte
		removed []share.ImageMetadata
		tail    int64
	}{
		{"a JPEG", share.JPEG, append(withGPS(plain, 6), "PK\x03\x04 secret"...), []share.ImageMetadata{"OTHER", "EXIF", "XMP", "IPTC", "COMMENT"}, 11},
		{"a JPEG that is upright", share.JPEG, withGPS(plain, 1), []share.ImageMetadata{"OTHER", "EXIF", "XMP", "IPTC", "COMMENT"}, 0},
		{"bytes between segments", share.JPEG, slices.Concat(plain[:2], []byte("secret"), plain[2:]), []share.ImageMetadata{"OTHER"}, 0},
		{"a PNG", share.PNG, slices.Concat(png[:33], pngChunk("tEXt", []byte("Comment\x00secret")), pngChunk("tIME", make([]byte, 7)),
			pngChunk("eXIf", gpsEXIF(1)), png[33:iend], pngChunk("zzZz", []byte("secret")), png[iend:], []byte("<script>secret")),
			[]share.ImageMetadata{"COMMENT", "OTHER", "EXIF"}, 14},
		{"a rotated PNG", share.PNG, slices.Concat(png[:33], pngChunk("eXIf", gpsEXIF(8)), png[33:]), []share.ImageMetadata{"EXIF"}, 0},
		{"a GIF", share.GIF, animation(t, 1), []share.ImageMetadata{"COMMENT", "XMP", "OTHER"}, 11},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, fitted := orderOf(c.ft, c.b, 1<<20, stripped).fit(t)
			if fitted == nil || fitted.Type != c.ft || fitted.Change.Recoded || !slices.Equal(fitted.Change.Removed, c.removed) || fitted.Change.TrailingBytes != c.tail {
				t.Fatalf("%+v", fitted)
			}
			if bytes.Contains(got, []byte("secret")) {
				t.Error("metadata is left")
			}
			before, after := toRGBA(decoded(t, c.ft, c.b)), toRGBA(decoded(t, c.ft, got))
			if !bytes.Equal(before.Pix, after.Pix) {
				t.Error("pixels have changed")
			}
			if again, fitted := orderOf(c.ft, got, 1<<20, stripped).fit(t); fitted != nil {
				t.Errorf("metadata was left: %+v %d", fitted.Change, len(again))
			}
		})
	}
	got, _ := orderOf(share.JPEG, withGPS(plain, 6), 1<<20, stripped).fit(t)
	if seen, err := survey(share.JPEG, bytes.NewReader(got)); err != nil || seen.orientation != 6 {
		t.Errorf("the orientation is %d, want 6: %v", seen.orientation, err)
	}
}

func TestFit_DamagedImage(t *testing.T) {
	jpeg, png, gif := withGPS(asJPEG(t, noise(64, 48)), 6), asPNG(t, noise(64, 48)), gifOf(t, 30, 20)
	wrongSum := bytes.Clone(png)
	wrongSum[len(wrongSum)-13] ^= 1
	cases := map[string]struct {
		ft share.FileType
		b  []byte
	}{
		"a wrong checksum":     {share.PNG, wrongSum},
		"an unknown chunk":     {share.PNG, slices.Concat(png[:33], pngChunk("CgBI", nil), png[33:])},
		"no header":            {share.PNG, slices.Concat(png[:8], pngChunk("IDAT", nil), png[8:])},
		"a GIF without frames": {share.GIF, append(bytes.Clone(gif[:19]), ';')},
	}
	for ft, b := range map[share.FileType][]byte{share.JPEG: jpeg, share.PNG: png, share.GIF: gif} {
		for _, n := range []int{2, 15, 40, len(b) / 2, len(b) - 2} { // a GIF without its last byte is complete
			cases[fmt.Sprintf("%s, cut at %d", ft, n)] = struct {
				ft share.FileType
				b  []byte
			}{ft, b[:min(n, len(b)-2)]}
		}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			for _, change := range []func(*share.ImageJob){stripped, func(j *share.ImageJob) { j.MaxBytes = 1 }} {
				_, err := New(Config{}).Fit(t.Context(), orderOf(c.ft, c.b, 1<<20, change).ImageJob)
				if !share.Is(err, share.ImageInvalid) {
					t.Errorf("%v", err)
				}
			}
		})
	}
}

func TestFit_TooManyScans(t *testing.T) {
	b := craft.FlatJPEG(0xc2, 64, 48, 100)
	at := bytes.LastIndex(b, []byte{0xff, 0xda})
	scan := b[at : len(b)-2]
	bomb := slices.Concat(b[:at], bytes.Repeat(scan, 5000), b[len(b)-2:])
	_, err := New(Config{}).Fit(t.Context(), orderOf(share.JPEG, bomb, 1000).ImageJob)
	if !share.Is(err, share.ImageInvalid) || !errors.Is(err, errTooManyScans) {
		t.Errorf("%v", err)
	}
	_, err = New(Config{}).Preview(t.Context(), share.JPEG, again(bomb), maxChars)
	if !errors.Is(err, errTooManyScans) {
		t.Errorf("%v", err)
	}
	n := 0
	l := &scanLimit{r: iotest.OneByteReader(bytes.NewReader(bomb[:at+3*len(scan)]))}
	for _, err := l.Read(make([]byte, 7)); err == nil; _, err = l.Read(make([]byte, 7)) {
		n++
	}
	if l.scans != 3 {
		t.Errorf("%d scans in %d bytes, want 3", l.scans, n)
	}
}

func TestFit_Limits(t *testing.T) {
	b := asJPEG(t, noise(800, 600))
	_, err := New(Config{MaxMemory: 8 << 20}).Fit(t.Context(), orderOf(share.JPEG, b, 10_000).ImageJob)
	if e, ok := errors.AsType[*share.Error](err); !ok || e.Kind != share.ImageCannotFit || e.Metadata["why"] != "memory" {
		t.Errorf("%v", err)
	}
	_, err = New(Config{MaxPixels: 1000}).Fit(t.Context(), orderOf(share.JPEG, b, 10_000).ImageJob)
	if !share.Is(err, share.ImageTooManyPixels) {
		t.Errorf("%v", err)
	}
	_, err = New(Config{}).Fit(t.Context(), orderOf(share.JPEG, b, 100).ImageJob)
	if e, ok := errors.AsType[*share.Error](err); !ok || e.Kind != share.ImageCannotFit || e.Metadata["why"] != "content" {
		t.Errorf("%v", err)
	}
	_, err = New(Config{}).Fit(t.Context(), orderOf(share.JPEG, append(bytes.Clone(b), make([]byte, 100)...), 1000, stripped).ImageJob)
	if e, ok := errors.AsType[*share.Error](err); !ok || e.Kind != share.FileTooLarge || e.Metadata["maxBytes"] != "1000" {
		t.Errorf("%v", err)
	}
}

// TestFit_WaitsForMemory has other images use the places of Fit, or the memory: both waits together last at most FitWait.
func TestFit_WaitsForMemory(t *testing.T) {
	b := asJPEG(t, noise(400, 300))
	const wait = time.Minute
	for name, occupy := range map[string]func(t *testing.T, p *Processor) (release func(), err error){
		"another image is encoded": func(t *testing.T, p *Processor) (func(), error) { return p.acquire(t.Context(), 1) },
		"previews use all memory": func(t *testing.T, p *Processor) (func(), error) {
			return func() { p.turns.Release(p.budget()) }, p.turns.Acquire(t.Context(), p.budget())
		},
		"first the one, then the other": func(t *testing.T, p *Processor) (func(), error) {
			p.fitting <- struct{}{}
			time.AfterFunc(wait/2, func() { <-p.fitting })
			return func() { p.turns.Release(p.budget()) }, p.turns.Acquire(t.Context(), p.budget())
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := New(Config{Concurrency: 1, FitWait: wait})
				release, err := occupy(t, p)
				if err != nil {
					t.Fatal(err)
				}
				begin := time.Now()
				_, err = p.Fit(t.Context(), orderOf(share.JPEG, b, 30_000).ImageJob)
				if e, ok := errors.AsType[*share.Error](err); !ok || e.Kind != share.TooManyUploads || e.Metadata["limit"] != "budget" {
					t.Errorf("%v, want TooManyUploads with limit=budget", err)
				}
				if took := time.Since(begin); took != wait {
					t.Errorf("Fit waited %v, want %v", took, wait)
				}
				if _, err := p.Fit(t.Context(), orderOf(share.JPEG, append(b, 0), int64(len(b))).ImageJob); err != nil {
					t.Errorf("an image that need not be decoded: %v", err)
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				left := errors.New("the caller left")
				cancel(left)
				if _, err := p.Fit(ctx, orderOf(share.JPEG, b, 30_000).ImageJob); !errors.Is(err, context.Canceled) && !errors.Is(err, left) {
					t.Errorf("%v, want the cause of the context", err)
				}
				release()
				for range 3 { // memory that is not released would block the second
					if _, err := p.Fit(t.Context(), orderOf(share.JPEG, b, 30_000).ImageJob); err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}

func TestFit_ReaderError(t *testing.T) {
	boom := errors.New("boom")
	b := asJPEG(t, noise(400, 300))
	for _, n := range []int{100, len(b) - 1000} {
		o := orderOf(share.JPEG, b, 30_000)
		o.Open = func() io.Reader { return io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(boom)) }
		if _, err := New(Config{}).Fit(t.Context(), o.ImageJob); !errors.Is(err, boom) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
	o := orderOf(share.JPEG, b, 30_000)
	o.Open = func() io.Reader { return panicReader{} }
	if _, err := New(Config{Log: slog.New(slog.DiscardHandler)}).Fit(t.Context(), o.ImageJob); !share.Is(err, share.Internal) {
		t.Errorf("%v", err)
	}
}

// FuzzFit checks the output of Fit for any input: within the limit, of the reported type, and without metadata.
func FuzzFit(f *testing.F) {
	for _, b := range [][]byte{
		withGPS(asJPEG(f, corners(16, 12)), 6), withEXIF(asJPEG(f, corners(8, 6)), "MM", 3), craft.FlatJPEG(0xc2, 16, 8, 100), craft.FlatJPEG(0xc0, 8, 8, 100, 100, 100, 100),
		asPNG(f, corners(16, 12)), animatedPNG(f), gifOf(f, 16, 12), animation(f, 2)[:2000], []byte("GIF89a<script>"), craft.PNGBomb(20_000, 20_000)[:64],
	} {
		f.Add(b, uint16(200))
		f.Add(b, uint16(60_000))
	}
	p := New(Config{MaxPixels: 1 << 14, MaxMemory: 64 << 20})
	f.Fuzz(func(t *testing.T, data []byte, most uint16) {
		for _, ft := range []share.FileType{share.JPEG, share.PNG, share.GIF} {
			for _, strip := range []bool{false, true} {
				o := orderOf(ft, data, int64(most)+1, func(j *share.ImageJob) { j.Strip = strip })
				fitted, err := p.Fit(t.Context(), o.ImageJob)
				switch {
				case err != nil:
					if !share.Is(err, share.ImageInvalid, share.ImageTooManyPixels, share.ImageCannotFit) {
						t.Errorf("%s: an error without a kind: %v", ft, err)
					}
					continue
				case fitted == nil:
					if o.Size > o.MaxBytes {
						t.Errorf("%s: %d bytes reported to fit %d", ft, o.Size, o.MaxBytes)
					}
					continue
				}
				got := o.outputs[len(o.outputs)-1].Bytes()
				if len(got) == 0 || int64(len(got)) > o.MaxBytes {
					t.Errorf("%s: %d bytes, want up to %d", ft, len(got), o.MaxBytes)
				}
				info, err := p.Inspect(fitted.Type, bytes.NewReader(got))
				if err != nil || info != fitted.Change.Stored {
					t.Errorf("%s: the output is %+v, %v, reported %+v", ft, info, err, fitted.Change.Stored)
				}
				again := orderOf(fitted.Type, got, o.MaxBytes, stripped)
				if f, err := p.Fit(t.Context(), again.ImageJob); err != nil || f != nil {
					t.Errorf("%s: metadata is left: %+v, %v", ft, f, err)
				}
			}
		}
	})
}

// TestFit_MemoryEstimate compares what is allocated whenever Fit collects, including garbage, with the estimate.
func TestFit_MemoryEstimate(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	allocated := func() int64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	var peak int64
	defer func() { collect = runtime.GC }()
	collect = func() { peak = max(peak, allocated()); runtime.GC() }
	const w, h = 800, 600
	soft := image.NewYCbCr(image.Rect(0, 0, w, h), image.YCbCrSubsampleRatio420)
	for i := range soft.Y {
		soft.Y[i] = byte(i*i>>7) & 0x3f
	}
	clear := image.NewNRGBA(image.Rect(0, 0, w, h))
	copy(clear.Pix, noise(w, h).Pix)
	clear.Pix[3] = 0
	paletted := image.NewPaletted(image.Rect(0, 0, w, h), color.Palette{color.Black, color.White, red, blue})
	for i := range paletted.Pix {
		paletted.Pix[i] = byte(i*i>>5) & 3
	}
	var still bytes.Buffer
	if err := gif.Encode(&still, paletted, nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		ft   share.FileType
		b    []byte
	}{
		{"JPEG", share.JPEG, asJPEG(t, soft)},
		{"JPEG, rotated", share.JPEG, withEXIF(asJPEG(t, soft), "II", 6)},
		{"JPEG, grey", share.JPEG, asJPEG(t, grey(w, h))},
		{"JPEG, progressive", share.JPEG, craft.FlatJPEG(0xc2, w, h, 100, 64, -64)},
		{"JPEG, CMYK", share.JPEG, craft.FlatJPEG(0xc0, w, h, 100, 100, 100, 100)},
		{"PNG", share.PNG, asPNG(t, noise(w, h))},
		{"PNG, grey", share.PNG, asPNG(t, grey(w, h))},
		{"PNG, transparent", share.PNG, asPNG(t, clear)},
		{"PNG, 16 bits", share.PNG, asPNG(t, deep(w, h))},
		{"GIF", share.GIF, still.Bytes()},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := New(Config{MaxMemory: 1 << 30})
			o := orderOf(c.ft, c.b, int64(len(c.b)/3), previewed)
			o.Create = func() io.Writer { return io.Discard }
			config, err := p.configOf(t.Context(), o.ImageJob)
			if err != nil {
				t.Fatal(err)
			}
			seen, err := strip(c.ft, bytes.NewReader(c.b), io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			estimate := fitMemory(c.ft, config, seen, o.MaxBytes)
			runtime.GC()
			peak = 0
			before := allocated()
			fitted, err := p.Fit(t.Context(), o.ImageJob)
			if err != nil {
				t.Fatal(err)
			}
			took := max(peak, allocated()) - before
			t.Logf("%s: %d of %d KiB, %+v", c.name, took>>10, estimate>>10, fitted.Change.Stored)
			if took > estimate {
				t.Errorf("allocated %d KiB, estimated %d", took>>10, estimate>>10)
			}
		})
	}
}
