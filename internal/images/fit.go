package images

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"math"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/image/draw"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// fitQualities are tried in this order on a JPEG before it gets fewer pixels.
var fitQualities = [...]int{90, 82, 74, 66}

// maxJPEGSide is what a JPEG can have.
const maxJPEGSide = 1<<16 - 1

// leastSide is the longer side below which an image is no longer made smaller.
const leastSide = 16

// Fit makes an image what its job says, and nil where it is to be stored as it came. It changes no more than needed: first what
// does not show goes, and only if that is not enough the image is encoded anew.
//
// That waits for its turn: TooManyUploads when FitWait is over. ImageInvalid, ImageTooManyPixels, ImageCannotFit, FileTooLarge where
// the job does not allow to encode it anew; or what reading or writing failed with, or ctx.
func (p *Processor) Fit(ctx context.Context, job share.ImageJob) (_ *share.FittedImage, err error) {
	defer recoverTo(&err)
	if job.Size <= job.MaxBytes && !job.Strip {
		return nil, nil
	}
	config, err := p.configOf(ctx, job)
	if err != nil {
		return nil, err
	}
	src := p.open(ctx, job)
	out := &bounded{w: job.Create(), most: job.MaxBytes}
	seen, err := strip(job.Type, src, out)
	if src.err != nil {
		return nil, src.err
	}
	if err != nil {
		return nil, err
	}
	size := share.ImageInfo{Width: config.Width, Height: config.Height}
	fitted := &share.FittedImage{Type: job.Type, Change: share.ImageChange{
		InputSize: job.Size, InputType: job.Type, Input: size, Stored: size, Removed: seen.removed, TrailingBytes: seen.trailing,
	}}
	switch {
	case out.n <= job.MaxBytes && out.n == job.Size && len(seen.removed) == 0 && seen.trailing == 0:
		return nil, nil
	case out.n <= job.MaxBytes:
		return fitted, nil
	case !job.Fit:
		e := share.Errorf(share.FileTooLarge, fmt.Sprintf("the file has %d bytes without its metadata, and %d are allowed", out.n, job.MaxBytes), nil)
		e.Metadata = map[string]string{"maxBytes": itoa(job.MaxBytes), "actualBytes": itoa(out.n)}
		return nil, e
	case seen.frames > 1:
		return nil, cannotFit(job, "animated", "it is an animation, and would lose its movement")
	}
	if err := p.recode(ctx, job, config, seen, out.n, fitted); err != nil {
		return nil, err
	}
	return fitted, nil
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// cannotFit says why an image cannot be made to fit: in a word for programs, and for people.
func cannotFit(job share.ImageJob, why, because string) error {
	e := share.Errorf(share.ImageCannotFit, fmt.Sprintf("the image has %d bytes, %d are allowed, and it cannot be made to fit: %s", job.Size, job.MaxBytes, because), nil)
	e.Metadata = map[string]string{"maxBytes": itoa(job.MaxBytes), "why": why}
	return e
}

// open reads the image of a job. It is as long as the caller says, who has bounded it.
func (p *Processor) open(ctx context.Context, job share.ImageJob) *source {
	return &source{ctx: ctx, r: job.Open(), left: math.MaxInt64}
}

func (p *Processor) configOf(ctx context.Context, job share.ImageJob) (image.Config, error) {
	src := p.open(ctx, job)
	return p.readHeader(job.Type, src, src)
}

// recode encodes an image anew until it fits, and says in fitted what that took. Clean is how many bytes it has without what does
// not show.
func (p *Processor) recode(ctx context.Context, job share.ImageJob, config image.Config, seen *anatomy, clean int64, fitted *share.FittedImage) error {
	cost := fitMemory(job.Type, config, seen)
	if cost > p.budget() {
		return cannotFit(job, "memory", fmt.Sprintf("decoding its %d by %d pixels would take about %d MiB, more than this server has for images",
			config.Width, config.Height, cost>>20))
	}
	done, err := p.turn(ctx, max(cost, p.part))
	if err != nil {
		return err
	}
	defer done() // in a panic too

	img, profile, err := p.decodeUpright(ctx, job, config, seen)
	if err != nil {
		return err
	}
	change := &fitted.Change
	change.Recoded, change.Rotated = true, seen.orientation > 1
	size := img.Bounds().Size()
	qualities := fitQualities[:]
	fitted.Type = share.JPEG
	if !opaque(img) {
		fitted.Type, qualities = share.PNG, []int{0}
	}
	if n, ok := img.(*image.NRGBA); ok && fitted.Type == share.JPEG { // the same, opaque as it is, and what the encoder is quick with
		img = &image.RGBA{Pix: n.Pix, Stride: n.Stride, Rect: n.Rect}
	}
	small, side := img, max(size.X, size.Y)
	if fitted.Type == share.PNG && job.Type == share.PNG { // as large as it is it did not fit before either
		side, small = fewer(side, clean, job.MaxBytes), nil
	}
	if fitted.Type == share.JPEG && side > maxJPEGSide {
		side, small = maxJPEGSide, nil
	}
	for {
		if small == nil {
			w, h := fit(size.X, size.Y, side)
			small = scaled(img, w, h)
		}
		var out *bounded
		for i, q := range qualities {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			// All but the last end as soon as they are too large. The last one tells by how much.
			out = &bounded{w: job.Create(), most: job.MaxBytes, stop: i < len(qualities)-1}
			keep := profile
			if !goesWith(profile, small) {
				keep = nil
			}
			err := encodeAs(fitted.Type, withProfile(out, fitted.Type, keep), small, q)
			if err != nil && !errors.Is(err, errOver) {
				return err
			}
			if out.n > job.MaxBytes {
				continue
			}
			if len(profile) > 0 && keep == nil {
				seen.remove(share.MetadataColorProfile)
			}
			change.Removed = seen.removed
			b := small.Bounds()
			change.Stored, change.JPEGQuality = share.ImageInfo{Width: b.Dx(), Height: b.Dy()}, q
			change.Scaled = b.Size() != size
			if job.PreviewChars > 0 {
				img = nil // its memory is the preview's
				fitted.Preview = p.previewOf(small, job.PreviewChars)
			}
			return nil
		}
		if side <= leastSide {
			return cannotFit(job, "content", "nothing that still shows it is small enough")
		}
		side, small = fewer(side, out.n, job.MaxBytes), nil
	}
}

// fewer is the longer side with which an image of so many bytes may fit.
func fewer(side int, bytes, most int64) int {
	f := math.Sqrt(float64(most)/float64(bytes)) * 0.98
	return max(leastSide, int(float64(side)*min(max(f, 0.3), 0.9)))
}

// turn waits for leave to take so much memory.
func (p *Processor) turn(ctx context.Context, bytes int64) (done func(), err error) {
	wait := time.NewTimer(p.cfg.FitWait)
	defer wait.Stop()
	select {
	case p.fitting <- struct{}{}:
	case <-wait.C:
		e := share.Errorf(share.TooManyUploads, "the server has more images to make fit than it can; repeat under the same request_id", nil)
		e.Metadata = map[string]string{"limit": "budget"} // of memory, if another than that of files
		return nil, e
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if err := p.turns.Acquire(ctx, bytes); err != nil {
		<-p.fitting
		return nil, context.Cause(ctx)
	}
	return func() {
		// What was decoded is garbage, of tens of megabytes, which the next one would allocate on top of. A collection takes
		// milliseconds, decoding a second.
		runtime.GC()
		p.turns.Release(bytes)
		<-p.fitting
	}, nil
}

// decodeUpright decodes the image of a job, all of its canvas, as it is seen, with its colour profile.
func (p *Processor) decodeUpright(ctx context.Context, job share.ImageJob, config image.Config, seen *anatomy) (image.Image, []byte, error) {
	var profile []byte
	if seen.profileEnd > 0 {
		if profile = readProfile(job.Type, p.open(ctx, job), seen.profileEnd); len(profile) == 0 {
			seen.remove(share.MetadataColorProfile)
		}
	}
	src := p.open(ctx, job)
	img, err := decodeWhole(job.Type, src, src)
	if src.err != nil {
		return nil, nil, src.err
	}
	if err != nil {
		return nil, nil, share.Errorf(share.ImageInvalid, "the image cannot be decoded, and only decoding could make it fit", err)
	}
	switch img := img.(type) {
	case *image.Gray, *image.YCbCr, *image.RGBA, *image.NRGBA:
		return upright(img, seen.orientation), profile, nil
	case *image.CMYK:
		return upright(toRGBA(img), seen.orientation), profile, nil
	case *image.Paletted:
		canvas := image.NewRGBA(image.Rect(0, 0, config.Width, config.Height)) // a GIF's frame may cover a part of it
		draw.Draw(canvas, img.Rect, img, img.Rect.Min, draw.Src)
		return upright(canvas, seen.orientation), profile, nil
	default: // 16 bits become 8
		b := img.Bounds()
		canvas := image.NewNRGBA(image.Rect(0, 0, b.Dx(), b.Dy()))
		draw.Draw(canvas, canvas.Rect, img, b.Min, draw.Src)
		return upright(canvas, seen.orientation), profile, nil
	}
}

func opaque(img image.Image) bool {
	o, ok := img.(interface{ Opaque() bool })
	return ok && o.Opaque()
}

// scaled is img with w by h pixels. It goes down by halves, so that every pixel counts, and needs no more memory than that.
func scaled(img image.Image, w, h int) image.Image {
	_, gray := img.(*image.Gray)
	b := img.Bounds()
	if b.Dx() == w && b.Dy() == h {
		return img
	}
	for b.Dx() > 2*w || b.Dy() > 2*h {
		half := image.NewRGBA(image.Rect(0, 0, max(w, (b.Dx()+1)/2), max(h, (b.Dy()+1)/2)))
		draw.ApproxBiLinear.Scale(half, half.Rect, img, b, draw.Src, nil)
		img, b = half, half.Rect
	}
	small := image.NewRGBA(image.Rect(0, 0, w, h))
	draw.ApproxBiLinear.Scale(small, small.Rect, img, b, draw.Src, nil)
	if gray {
		g := image.NewGray(small.Rect)
		draw.Draw(g, g.Rect, small, image.Point{}, draw.Src)
		return g
	}
	return small
}

// encodeAs writes img as a JPEG of quality q, or as a PNG.
func encodeAs(t share.FileType, w io.Writer, img image.Image, q int) error {
	if t == share.PNG {
		return png.Encode(w, img)
	}
	return jpeg.Encode(w, img, &jpeg.Options{Quality: q})
}

// previewOf makes a preview of an image that is decoded already; empty if none fits.
func (p *Processor) previewOf(img image.Image, maxChars int) string {
	s := img.Bounds().Size()
	if w, h := fit(s.X, s.Y, 2*longerSide); w < s.X {
		img = scaled(img, w, h)
	}
	b := img.Bounds()
	uri, err := encode(shrink(img, b.Dx(), b.Dy()), maxChars)
	if err != nil {
		return ""
	}
	return uri
}

// A bounded writer passes on what fits, and counts the rest.
type bounded struct {
	w    io.Writer
	most int64
	n    int64 // all that was written
	stop bool  // fail once it is too much
}

var errOver = errors.New("images: it has more bytes than are allowed")

// Write passes b on while all of it fits.
func (o *bounded) Write(b []byte) (int, error) {
	o.n += int64(len(b))
	if o.n <= o.most {
		return o.w.Write(b)
	}
	if o.stop {
		return 0, errOver
	}
	return len(b), nil
}

// fitMemory estimates what it takes to decode an image and encode it anew, in bytes, from above: as Go's decoders allocate, and
// the steps of recode, up to the first scaled picture. What a step no longer needs counts too: it is garbage, but nobody knows
// until when.
func fitMemory(t share.FileType, config image.Config, seen *anatomy) int64 {
	n := pixels(config.Width, config.Height)
	var decoding, work int64 // while decoding; and what is left of it to work on
	switch t {
	case share.GIF:
		decoding, work = 5*n, 4*n
	case share.PNG:
		per := pngBytesPerPixel(config.ColorModel)
		decoding, work = (3*per+1)/2*n, per*n // interlaced: of passes, the largest of which has half of the pixels
		if _, palette := config.ColorModel.(color.Palette); palette || per == 8 || config.ColorModel == color.Gray16Model {
			decoding, work = decoding+4*n, 4*n
		}
	default:
		decoding = seen.frame.sampleBytes(config.Width, config.Height)
		work = decoding
		if seen.frame.progressive {
			decoding *= 5 // a coefficient of four bytes for each sample, until the end
		}
		if config.ColorModel != color.YCbCrModel && config.ColorModel != color.GrayModel { // inks, or plain RGB
			decoding, work = decoding+8*n, 4*n
		}
	}
	if seen.orientation > 1 && seen.frame.maxH == 4 {
		decoding, work = decoding+4*n, 4*n // chroma that has no name once it is turned
	}
	further := 4 * n * 81 / 100 // the first scaled picture: nine tenths as long, and as wide
	if config.ColorModel == color.GrayModel {
		further += n
	}
	if seen.orientation > 1 {
		further += work
	}
	const rest = 8 << 20 // scaling to a preview, compressing, tables, profiles
	return decoding + further + rest
}
