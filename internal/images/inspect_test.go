package images

import (
	"bytes"
	"errors"
	"image"
	"image/color"
	"image/gif"
	"io"
	"math"
	"testing"
	"testing/iotest"

	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/test/images/craft"
)

func gifOf(t testing.TB, w, h int) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := gif.Encode(&b, image.NewPaletted(image.Rect(0, 0, w, h), color.Palette{color.Black, color.White}), nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestInspect(t *testing.T) {
	p := New(Config{})
	script := []byte("GIF89a<script>alert(document.cookie)</script>")
	noRows := gifOf(t, 10, 10)
	noRows[8], noRows[9] = 0, 0
	long := craft.WithSegments(asJPEG(t, corners(30, 20)), 0xee, 40) // 2.6 MB before the frame: unusual but valid

	for _, c := range []struct {
		name string
		ft   share.FileType
		data []byte
		kind share.Kind
		w, h int
	}{
		{"a JPEG", share.JPEG, asJPEG(t, corners(30, 20)), "", 30, 20},
		{"a rotated JPEG, as stored", share.JPEG, withEXIF(asJPEG(t, corners(30, 20)), "II", 6), "", 30, 20},
		{"a JPEG with a late frame", share.JPEG, long, "", 30, 20},
		{"a PNG", share.PNG, asPNG(t, corners(30, 20)), "", 30, 20},
		{"a GIF", share.GIF, gifOf(t, 30, 20), "", 30, 20},
		{"a PNG declared as a GIF", share.GIF, asPNG(t, corners(3, 2)), share.ImageInvalid, 0, 0},
		{"a GIF declared as a JPEG", share.JPEG, gifOf(t, 3, 2), share.ImageInvalid, 0, 0},
		{"a JPEG declared as a PNG", share.PNG, asJPEG(t, corners(3, 2)), share.ImageInvalid, 0, 0},
		{"not an image type", share.PDF, asPNG(t, corners(3, 2)), share.ImageInvalid, 0, 0},
		{"an empty file", share.PNG, nil, share.ImageInvalid, 0, 0},
		{"only magic bytes", share.PNG, []byte("\x89PNG\r\n\x1a\n"), share.ImageInvalid, 0, 0},
		{"a GIF without rows", share.GIF, noRows, share.ImageInvalid, 0, 0},
		{"a PNG without columns", share.PNG, craft.PNGBomb(0, 7), share.ImageInvalid, 0, 0},
		{"a PNG of negative size", share.PNG, craft.PNGBomb(math.MaxUint32, 7), share.ImageInvalid, 0, 0},
		{"a script with GIF magic bytes", share.GIF, script, share.ImageTooManyPixels, 0, 0},
		{"a bomb", share.PNG, craft.PNGBomb(20_000, 20_000), share.ImageTooManyPixels, 0, 0},
		{"a bomb that overflows 32 bits to 0", share.PNG, craft.PNGBomb(1<<16, 1<<16), share.ImageTooManyPixels, 0, 0},
		{"one pixel too many", share.PNG, craft.PNGBomb(50_000_001, 1), share.ImageTooManyPixels, 0, 0},
		{"as many pixels as permitted", share.PNG, craft.PNGBomb(50_000_000, 1), "", 50_000_000, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			info, err := p.Inspect(c.ft, bytes.NewReader(c.data))
			if share.KindOf(err) != c.kind || (c.kind == "" && err != nil) {
				t.Fatalf("err = %v, want %q", err, c.kind)
			}
			if info != (share.ImageInfo{Width: c.w, Height: c.h}) {
				t.Errorf("info = %+v", info)
			}
		})
	}
}

func TestInspect_BombIsCheap(t *testing.T) {
	data := craft.PNGBomb(20_000, 20_000)
	p := New(Config{})
	r := bytes.NewReader(data)
	_, err := p.Inspect(share.PNG, r)
	e, ok := errors.AsType[*share.Error](err)
	if !ok || e.Metadata["maxPixels"] != "50000000" || e.Metadata["actualPixels"] != "400000000" {
		t.Errorf("err = %#v", err)
	}
	if read := len(data) - r.Len(); read > 100 {
		t.Errorf("%d bytes were read", read)
	}
	if n := testing.AllocsPerRun(20, func() { r.Reset(data); _, _ = p.Inspect(share.PNG, r) }); n > 40 {
		t.Errorf("%v allocations, want at most 40", n)
	}
	// Preview rejects it too.
	if _, err := p.Preview(t.Context(), share.PNG, again(data), maxChars); !share.Is(err, share.ImageTooManyPixels) {
		t.Errorf("Preview: %v", err)
	}
}

func TestInspect_ReaderError(t *testing.T) {
	boom := errors.New("boom")
	data := asPNG(t, corners(3, 2))
	_, err := New(Config{}).Inspect(share.PNG, io.MultiReader(bytes.NewReader(data[:20]), iotest.ErrReader(boom)))
	if !errors.Is(err, boom) || share.KindOf(err) != "" {
		t.Errorf("err = %v", err)
	}
}

func FuzzInspect(f *testing.F) {
	for _, data := range [][]byte{
		asJPEG(f, corners(8, 6)), withEXIF(asJPEG(f, corners(8, 6)), "MM", 6), asPNG(f, corners(8, 6)), gifOf(f, 8, 6),
		craft.FlatJPEG(0xc2, 8, 8, 100), craft.FlatJPEG(0xc0, 8, 8, 100, 100, 100, 100), []byte("GIF89a<script>"), craft.PNGBomb(20_000, 20_000)[:64],
	} {
		f.Add(data)
	}
	p := New(Config{MaxPixels: 1 << 16})
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, ft := range []share.FileType{share.JPEG, share.PNG, share.GIF} {
			info, err := p.Inspect(ft, bytes.NewReader(data))
			if err == nil && (info.Width <= 0 || info.Height <= 0 || info.Width*info.Height > 1<<16) {
				t.Errorf("%s: accepted %+v", ft, info)
			}
			if err != nil && !share.Is(err, share.ImageInvalid, share.ImageTooManyPixels) {
				t.Errorf("%s: an error without a kind: %v", ft, err)
			}
			if uri, err := p.Preview(t.Context(), ft, again(data), 5000); err == nil && len(uri) >= 5000 {
				t.Errorf("%s: %d characters", ft, len(uri))
			}
		}
	})
}
