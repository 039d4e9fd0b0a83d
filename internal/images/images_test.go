package images

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/test/images/craft"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const maxChars = 30_000

// decodePreview validates a data URI and returns its image.
func decodePreview(t *testing.T, uri string) image.Image {
	t.Helper()
	data, ok := strings.CutPrefix(uri, "data:image/jpeg;base64,")
	if !ok {
		t.Fatalf("the preview begins with %.40q", uri)
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(data)
	if err != nil {
		t.Fatal(err)
	}
	img, err := jpeg.Decode(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// again returns what opens data, as often as it is called.
func again(data []byte) func() io.Reader {
	return func() io.Reader { return bytes.NewReader(data) }
}

// atLast returns what opens data, and the last time, when it is decoded, r.
func atLast(data []byte, r io.Reader) func() io.Reader {
	const passes = 3
	n := 0
	return func() io.Reader {
		if n++; n == passes {
			return r
		}
		return bytes.NewReader(data)
	}
}

func makePreview(t *testing.T, p *Processor, ft share.FileType, data []byte) image.Image {
	t.Helper()
	uri, err := p.Preview(t.Context(), ft, again(data), maxChars)
	if err != nil {
		t.Fatal(err)
	}
	if len(uri) >= maxChars {
		t.Errorf("the preview has %d characters, not fewer than %d", len(uri), maxChars)
	}
	return decodePreview(t, uri)
}

// near reports whether two colours are equal within the precision of a JPEG.
func near(got, want color.Color) bool {
	r, g, b, _ := got.RGBA()
	wr, wg, wb, _ := want.RGBA()
	d := func(a, b uint32) bool { return max(a, b)-min(a, b) < 0x2800 }
	return d(r, wr) && d(g, wg) && d(b, wb)
}

var (
	red    = color.RGBA{0xff, 0, 0, 0xff}
	green  = color.RGBA{0, 0xff, 0, 0xff}
	blue   = color.RGBA{0, 0, 0xff, 0xff}
	yellow = color.RGBA{0xff, 0xff, 0, 0xff}
)

// corners returns an image whose four quarters are red, green, blue and yellow: top left, top right, bottom left, bottom right.
func corners(w, h int) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			c := [2][2]color.RGBA{{red, green}, {blue, yellow}}[y*2/h][x*2/w]
			img.SetRGBA(x, y, c)
		}
	}
	return img
}

func noise(w, h int) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	r := rand.New(rand.NewPCG(1, 2))
	for i := range img.Pix {
		img.Pix[i] = byte(r.Uint32()) | byte(i%4/3)*0xff
	}
	return img
}

func asJPEG(t testing.TB, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: 90}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func asPNG(t testing.TB, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestPreview_Orientation rotates an image in eight ways and checks its corners (EXIF 2.3: the meaning of row 0 and column 0).
func TestPreview_Orientation(t *testing.T) {
	r, g, b, y := red, green, blue, yellow
	seen := map[uint16][4]color.RGBA{ // top left, top right, bottom left, bottom right
		1: {r, g, b, y}, 2: {g, r, y, b}, 3: {y, b, g, r}, 4: {b, y, r, g},
		5: {r, b, g, y}, 6: {b, r, y, g}, 7: {y, g, b, r}, 8: {g, y, r, b},
		0: {r, g, b, y}, 9: {r, g, b, y},
	}
	plain := asJPEG(t, corners(640, 400))
	for orientation, want := range seen {
		for _, order := range []string{"II", "MM"} {
			t.Run(fmt.Sprint(orientation, order), func(t *testing.T) {
				img := makePreview(t, New(Config{}), share.JPEG, withEXIF(plain, order, orientation))
				w, h := 320, 200
				if orientation >= 5 && orientation <= 8 {
					w, h = h, w
				}
				if s := img.Bounds().Size(); s != image.Pt(w, h) {
					t.Fatalf("the preview is %v, want %d by %d", s, w, h)
				}
				got := [4]color.Color{img.At(w/8, h/8), img.At(w*7/8, h/8), img.At(w/8, h*7/8), img.At(w*7/8, h*7/8)}
				for i := range got {
					if !near(got[i], want[i]) {
						t.Errorf("corner %d is %v, want %v", i, got[i], want[i])
					}
				}
			})
		}
	}
}

func TestPreview_DamagedEXIF(t *testing.T) {
	plain := asJPEG(t, corners(64, 64))
	whole := withEXIF(plain, "II", 6)
	for i := 12; i < 40; i++ {
		broken := bytes.Clone(whole)
		broken[i] ^= 0xff
		makePreview(t, New(Config{}), share.JPEG, broken)
	}
}

func TestPreview_Size(t *testing.T) {
	for _, c := range []struct{ w, h, wantW, wantH int }{
		{100, 50, 100, 50}, // never enlarged
		{320, 320, 320, 320},
		{1000, 500, 320, 160},
		{500, 1000, 160, 320},
		{2000, 1, 320, 1},
		{1, 2000, 1, 320},
		{1, 1, 1, 1},
	} {
		img := makePreview(t, New(Config{}), share.PNG, asPNG(t, corners(c.w, c.h)))
		if s := img.Bounds().Size(); s != image.Pt(c.wantW, c.wantH) {
			t.Errorf("%d by %d became %v, want %d by %d", c.w, c.h, s, c.wantW, c.wantH)
		}
	}
}

func TestPreview_Transparency(t *testing.T) {
	img := image.NewNRGBA(image.Rect(0, 0, 400, 400))
	for y := range 400 {
		for x := range 400 {
			if x < 200 {
				img.SetNRGBA(x, y, color.NRGBA{0xff, 0, 0, byte(255 * (y / 200))}) // red: transparent above, opaque below
			} else {
				img.SetNRGBA(x, y, color.NRGBA{0, 0, 0xff, 0x80})
			}
		}
	}
	got := makePreview(t, New(Config{}), share.PNG, asPNG(t, img))
	for _, c := range []struct {
		x, y int
		want color.RGBA
	}{
		{40, 40, color.RGBA{0xff, 0xff, 0xff, 0xff}}, {40, 280, red}, {280, 160, color.RGBA{0x7f, 0x7f, 0xff, 0xff}},
	} {
		if !near(got.At(c.x, c.y), c.want) {
			t.Errorf("the colour at %d, %d is %v, want %v", c.x, c.y, got.At(c.x, c.y), c.want)
		}
	}
}

func TestPreview_Animation(t *testing.T) {
	palette := color.Palette{color.RGBA{}, red, blue}
	frame := func(r image.Rectangle, c uint8) *image.Paletted {
		p := image.NewPaletted(r, palette)
		for i := range p.Pix {
			p.Pix[i] = c
		}
		return p
	}
	all := &gif.GIF{
		Image:  []*image.Paletted{frame(image.Rect(100, 0, 200, 100), 1), frame(image.Rect(0, 0, 200, 200), 2)},
		Delay:  []int{10, 10},
		Config: image.Config{Width: 200, Height: 200, ColorModel: palette},
	}
	for range 50 {
		all.Image, all.Delay = append(all.Image, all.Image[1]), append(all.Delay, 10)
	}
	var b bytes.Buffer
	if err := gif.EncodeAll(&b, all); err != nil {
		t.Fatal(err)
	}
	r := bytes.NewReader(b.Bytes())
	uri, err := New(Config{}).Preview(t.Context(), share.GIF, atLast(b.Bytes(), iotest.OneByteReader(r)), maxChars)
	if err != nil {
		t.Fatal(err)
	}
	img := decodePreview(t, uri)
	white := color.RGBA{0xff, 0xff, 0xff, 0xff}
	if !near(img.At(150, 50), red) || !near(img.At(50, 50), white) || !near(img.At(150, 150), white) {
		t.Errorf("the first frame is misplaced: %v %v %v", img.At(150, 50), img.At(50, 50), img.At(150, 150))
	}
	if r.Len() < b.Len()/2 {
		t.Errorf("of %d bytes %d were not read: later frames were", b.Len(), r.Len())
	}
}

// TestPreview_JPEGKinds decodes progressive and CMYK images, which Go's encoder does not write.
func TestPreview_JPEGKinds(t *testing.T) {
	for _, c := range []struct {
		name string
		data []byte
		want color.Color
	}{
		{"grey, progressive", craft.FlatJPEG(0xc2, 64, 48, 100), color.Gray{228}},
		{"grey, baseline", craft.FlatJPEG(0xc0, 64, 48, -100), color.Gray{28}},
		{"CMYK", craft.FlatJPEG(0xc0, 64, 48, 100, 100, 100, 100), color.Gray{204}}, // Adobe writes CMYK inverted: 228 of 255 white, and as much black
	} {
		t.Run(c.name, func(t *testing.T) {
			img := makePreview(t, New(Config{}), share.JPEG, c.data)
			if got := img.At(30, 20); !near(got, c.want) {
				t.Errorf("the colour is %v, want %v", got, c.want)
			}
			if img.Bounds().Size() != image.Pt(64, 48) {
				t.Errorf("the size is %v", img.Bounds().Size())
			}
		})
	}
}

// TestPreview_Limit makes previews of an image that hardly compresses, with lower quality and then with fewer pixels.
func TestPreview_Limit(t *testing.T) {
	data := asPNG(t, noise(640, 640))
	for _, limit := range []int{30_000, 20_000, 8_000, 3_000, 1_200} {
		uri, err := New(Config{}).Preview(t.Context(), share.PNG, again(data), limit)
		if err != nil {
			t.Fatalf("%d: %v", limit, err)
		}
		if len(uri) >= limit {
			t.Errorf("%d characters, want fewer than %d", len(uri), limit)
		}
		decodePreview(t, uri)
	}
	if _, err := New(Config{}).Preview(t.Context(), share.PNG, again(data), 200); err == nil {
		t.Error("Preview returned a JPEG of less than 200 characters")
	}
}

func TestPreview_TruncatedAndUnreadable(t *testing.T) {
	p := New(Config{})
	for ft, data := range map[share.FileType][]byte{
		share.JPEG: asJPEG(t, noise(64, 64)), share.PNG: asPNG(t, noise(64, 64)),
	} {
		for _, n := range []int{0, 1, 7, 20, len(data) / 2, len(data) - 12} {
			uri, err := p.Preview(t.Context(), ft, again(data[:n]), maxChars)
			if err == nil {
				t.Errorf("the first %d bytes of a %s gave a preview: %.40q", n, ft, uri)
			}
		}
	}
	boom := errors.New("read error")
	data := asPNG(t, noise(64, 64))
	for _, n := range []int{5, 2000} {
		r := io.MultiReader(bytes.NewReader(data[:n]), iotest.ErrReader(boom))
		if _, err := p.Preview(t.Context(), share.PNG, func() io.Reader { return r }, maxChars); !errors.Is(err, boom) {
			t.Errorf("after %d bytes: %v, want the error of the reader", n, err)
		}
	}
}

func TestPreview_Budgets(t *testing.T) {
	data := asPNG(t, noise(300, 300))
	_, err := New(Config{MaxSourceBytes: 1000}).Preview(t.Context(), share.PNG, again(data), maxChars)
	if !errors.Is(err, errSourceTooLong) {
		t.Errorf("a long image: %v", err)
	}
	_, err = New(Config{MaxMemory: 1 << 20}).Preview(t.Context(), share.PNG, again(data), maxChars)
	if err == nil || !strings.Contains(err.Error(), "budget") {
		t.Errorf("an image over the memory budget: %v", err)
	}
}

type panicReader struct{}

func (panicReader) Read([]byte) (int, error) { panic("at the disco") }

func TestProcessor_Panics(t *testing.T) {
	var logged bytes.Buffer
	p := New(Config{Concurrency: 1, Log: slog.New(slog.NewTextHandler(&logged, nil))})
	// The log has the stack of the panic, and not its value, which could be data of the image.
	wantLogged := func(err error) {
		t.Helper()
		if !share.Is(err, share.Internal) || strings.Contains(err.Error(), "disco") {
			t.Errorf("err = %v", err)
		}
		if text := logged.String(); strings.Count(text, "level=ERROR") != 1 || !strings.Contains(text, "panicReader.Read") || strings.Contains(text, "disco") {
			t.Errorf("the log is %s", text)
		}
		logged.Reset()
	}
	data := asPNG(t, noise(64, 64))
	for range 3 { // memory that is not released would block the second
		for _, n := range []int{0, 500} {
			r := atLast(data, io.MultiReader(bytes.NewReader(data[:n]), panicReader{}))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			_, err := p.Preview(ctx, share.PNG, r, maxChars)
			cancel()
			wantLogged(err)
		}
	}
	_, err := p.Inspect(share.PNG, panicReader{})
	wantLogged(err)
	o := orderOf(share.JPEG, asJPEG(t, noise(64, 64)), 1000)
	o.Open = func() io.Reader { return panicReader{} }
	_, err = p.Fit(t.Context(), o.ImageJob)
	wantLogged(err)
}

// A gated is a reader that counts itself and waits for a gate before its first byte.
type gated struct {
	io.Reader
	reading *atomic.Int32
	gate    <-chan struct{}
	entered bool
}

func (g *gated) Read(b []byte) (int, error) {
	if !g.entered {
		g.entered = true
		g.reading.Add(1)
		<-g.gate
		g.reading.Add(-1)
	}
	return g.Reader.Read(b)
}

// gatedPNG opens a PNG that is gated when it is decoded.
func gatedPNG(data []byte, reading *atomic.Int32, gate <-chan struct{}) func() io.Reader {
	return atLast(data, io.MultiReader(bytes.NewReader(data[:100]), &gated{Reader: bytes.NewReader(data[100:]), reading: reading, gate: gate}))
}

func TestPreview_Concurrency(t *testing.T) {
	data := asPNG(t, noise(100, 100))
	synctest.Test(t, func(t *testing.T) {
		const concurrency, callers = 3, 24
		p := New(Config{Concurrency: concurrency})
		var reading atomic.Int32
		gate := make(chan struct{})
		done := make(chan error, callers)
		for range callers {
			go func() {
				_, err := p.Preview(t.Context(), share.PNG, gatedPNG(data, &reading, gate), maxChars)
				done <- err
			}()
		}
		for finished := 0; finished < callers; finished++ {
			synctest.Wait() // every goroutine waits for the gate or for memory
			if n, want := int(reading.Load()), min(concurrency, callers-finished); n != want {
				t.Fatalf("%d images are decoded, want %d", n, want)
			}
			gate <- struct{}{}
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}

func TestPreview_ContextEnds(t *testing.T) {
	data := asPNG(t, noise(100, 100))
	synctest.Test(t, func(t *testing.T) {
		p := New(Config{Concurrency: 1})
		var reading atomic.Int32
		gate := make(chan struct{})
		first := make(chan error, 1)
		go func() {
			_, err := p.Preview(t.Context(), share.PNG, gatedPNG(data, &reading, gate), maxChars)
			first <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := p.Preview(ctx, share.PNG, again(data), maxChars); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("while waiting for memory: %v", err)
		}
		close(gate)
		if err := <-first; err != nil {
			t.Error(err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		r := io.MultiReader(bytes.NewReader(data[:2000]), readerFunc(func(b []byte) (int, error) { cancel(); b[0] = 0; return 1, nil }))
		if _, err := p.Preview(ctx, share.PNG, atLast(data, r), maxChars); !errors.Is(err, context.Canceled) {
			t.Errorf("while decoding: %v", err)
		}
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

func BenchmarkPreview12Megapixels(b *testing.B) {
	img := image.NewRGBA(image.Rect(0, 0, 4000, 3000))
	for y := range 3000 {
		for x := range 4000 {
			img.SetRGBA(x, y, color.RGBA{byte(x * y >> 8), byte(x >> 4), byte(y >> 3), 0xff})
		}
	}
	data := asJPEG(b, img)
	p := New(Config{})
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := p.Preview(b.Context(), share.JPEG, again(data), maxChars); err != nil {
			b.Fatal(err)
		}
	}
}
