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

	"golang.org/x/image/draw"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// fitQualities are the qualities tried, in this order, before a JPEG gets fewer pixels.
var fitQualities = [...]int{90, 82, 74, 66}

// maxJPEGSide is the longest side of a JPEG in pixels.
const maxJPEGSide = 1<<16 - 1

// leastSide is the longer side, in pixels, at which shrinking ends.
const leastSide = 16

// Fit changes an image as its job requires, and returns nil if the image is to be stored unchanged. It changes no more than
// necessary: it removes invisible data first, and encodes the image again only if that is not enough.
//
// Encoding waits for memory, at most FitWait: then TooManyUploads. Other errors are ImageInvalid, ImageTooManyPixels, ImageCannotFit,
// FileTooLarge if the job does not permit encoding, the error of reading or writing, and the cause of ctx.
func (p *Processor) Fit(ctx context.Context, job share.ImageJob) (_ *share.FittedImage, err error) {
	defer share.Recover(ctx, p.cfg.Log, &err)
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
		e := share.Errorf(share.FileTooLarge, fmt.Sprintf("the file is %d bytes without its metadata, the limit is %d", out.n, job.MaxBytes), nil)
		e.Metadata = map[string]string{"maxBytes": itoa(job.MaxBytes), "actualBytes": itoa(out.n)}
		return nil, e
	case seen.frames > 1:
		return nil, cannotFit(job, "animated", "it is animated, and only its first frame would remain")
	}
	r := &recoding{p: p, ctx: ctx, job: job, config: config, seen: seen, stripped: out.n, fitted: fitted}
	if err := r.run(); err != nil {
		return nil, err
	}
	return fitted, nil
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// cannotFit returns ImageCannotFit. why is the reason for programs, text the one for people.
func cannotFit(job share.ImageJob, why, text string) error {
	e := share.Errorf(share.ImageCannotFit, fmt.Sprintf("the image is %d bytes, the limit is %d, and it cannot be made smaller: %s", job.Size, job.MaxBytes, text), nil)
	e.Metadata = map[string]string{"maxBytes": itoa(job.MaxBytes), "why": why}
	return e
}

// open returns a reader of the job's image. The caller has limited its size.
func (p *Processor) open(ctx context.Context, job share.ImageJob) *source {
	return &source{ctx: ctx, r: job.Open(), left: math.MaxInt64}
}

func (p *Processor) configOf(ctx context.Context, job share.ImageJob) (image.Config, error) {
	src := p.open(ctx, job)
	return p.readHeader(job.Type, src, src)
}

// A recoding decodes an image and encodes it again until it fits.
type recoding struct {
	p        *Processor
	ctx      context.Context
	job      share.ImageJob
	config   image.Config
	seen     *anatomy
	stripped int64 // size in bytes without invisible data
	fitted   *share.FittedImage
}

// A picture is a decoded image, upright, with its colour profile (nil: none).
type picture struct {
	image.Image
	profile []byte
}

func (r *recoding) run() error {
	cost := fitMemory(r.job.Type, r.config, r.seen)
	if cost > r.p.budget() {
		return cannotFit(r.job, "memory", fmt.Sprintf("decoding its %d by %d pixels needs about %d MiB, more than this server has for images",
			r.config.Width, r.config.Height, cost>>20))
	}
	release, err := r.p.acquire(r.ctx, max(cost, r.p.part))
	if err != nil {
		return err
	}
	defer release() // after a panic too
	full, err := r.decode()
	if err != nil {
		return err
	}
	r.fitted.Type = outputType(full)
	if n, ok := full.Image.(*image.NRGBA); ok && r.fitted.Type == share.JPEG { // equal, because it is opaque; the encoder is faster
		full.Image = &image.RGBA{Pix: n.Pix, Stride: n.Stride, Rect: n.Rect}
	}
	r.fitted.Change.Recoded, r.fitted.Change.Rotated = true, r.seen.orientation > 1
	return r.shrink(full)
}

// outputType returns JPEG for an opaque picture, and PNG for any other.
func outputType(img picture) share.FileType {
	if o, ok := img.Image.(interface{ Opaque() bool }); ok && o.Opaque() {
		return share.JPEG
	}
	return share.PNG
}

// shrink encodes the picture with fewer and fewer pixels until it fits.
func (r *recoding) shrink(full picture) error {
	size := full.Bounds().Size()
	longer := max(size.X, size.Y)
	for side := r.firstSide(longer); ; {
		small := full
		if side < longer {
			w, h := fit(size.X, size.Y, side)
			small.Image = scaled(full.Image, w, h)
		}
		quality, bytes, err := r.encode(small)
		if err != nil {
			return err
		}
		if bytes <= r.job.MaxBytes {
			r.describe(small, size, quality)
			full.Image = nil // the preview reuses its memory
			if r.job.PreviewChars > 0 {
				r.fitted.Preview = r.p.previewOf(small.Image, r.job.PreviewChars)
			}
			return nil
		}
		if side <= leastSide {
			return cannotFit(r.job, "content", "it is too large even with the fewest pixels")
		}
		side = smallerSide(side, bytes, r.job.MaxBytes)
	}
}

// firstSide returns the longer side of the first attempt.
func (r *recoding) firstSide(longer int) int {
	switch r.fitted.Type {
	case share.PNG:
		if r.job.Type == share.PNG { // with all its pixels it did not fit before either
			return smallerSide(longer, r.stripped, r.job.MaxBytes)
		}
	case share.JPEG:
		return min(longer, maxJPEGSide)
	}
	return longer
}

// encode writes the picture with lower and lower quality until it fits. It returns the quality (0 for a PNG) and the size in bytes
// of the last attempt.
func (r *recoding) encode(img picture) (quality int, bytes int64, err error) {
	qualities := fitQualities[:]
	if r.fitted.Type == share.PNG {
		qualities = []int{0}
	}
	profile := img.profile
	if !matches(profile, img.Image) {
		profile = nil
	}
	for i, q := range qualities {
		if r.ctx.Err() != nil {
			return 0, 0, context.Cause(r.ctx)
		}
		// All attempts but the last stop as soon as they are too large. The last one measures by how much.
		out := &bounded{w: r.job.Create(), most: r.job.MaxBytes, stop: i < len(qualities)-1}
		err := encodeAs(r.fitted.Type, withProfile(out, r.fitted.Type, profile), img.Image, q)
		if err != nil && !errors.Is(err, errOver) {
			return 0, 0, err
		}
		quality, bytes = q, out.n
		if bytes <= r.job.MaxBytes {
			break
		}
	}
	return quality, bytes, nil
}

// describe records what was done to the picture, whose size was full before.
func (r *recoding) describe(stored picture, full image.Point, quality int) {
	if len(stored.profile) > 0 && !matches(stored.profile, stored.Image) {
		r.seen.remove(share.MetadataColorProfile)
	}
	size := stored.Bounds().Size()
	change := &r.fitted.Change
	change.Removed = r.seen.removed
	change.Stored, change.JPEGQuality = share.ImageInfo{Width: size.X, Height: size.Y}, quality
	change.Scaled = size != full
}

// smallerSide returns the longer side with which an image of so many bytes may fit.
func smallerSide(side int, bytes, most int64) int {
	f := math.Sqrt(float64(most)/float64(bytes)) * 0.98
	return max(leastSide, int(float64(side)*min(max(f, 0.3), 0.9)))
}

var errFitWait = errors.New("images: FitWait is over")

// acquire waits for memory to decode and encode an image, at most FitWait in all. The caller must call release.
func (p *Processor) acquire(ctx context.Context, bytes int64) (release func(), err error) {
	waiting, cancel := context.WithTimeoutCause(ctx, p.cfg.FitWait, errFitWait)
	defer cancel()
	fail := func() error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		e := share.Errorf(share.TooManyUploads, "the server has too many images to shrink; retry with the same request_id", nil)
		e.Metadata = map[string]string{"limit": "budget"} // of memory, although not of the memory for files
		return e
	}
	select {
	case p.fitting <- struct{}{}:
	case <-waiting.Done():
		return nil, fail()
	}
	if p.turns.Acquire(waiting, bytes) != nil {
		<-p.fitting
		return nil, fail()
	}
	return func() {
		// The decoded image is garbage of tens of megabytes. Without a collection the next one is allocated in addition: docs/adr/0015
		// measured 411 instead of 244 MiB. A collection takes milliseconds, decoding a second.
		runtime.GC()
		p.turns.Release(bytes)
		<-p.fitting
	}, nil
}

// decode decodes the whole canvas of the image, upright, with its colour profile.
func (r *recoding) decode() (picture, error) {
	var profile []byte
	if r.seen.profileEnd > 0 {
		if profile = readProfile(r.job.Type, r.p.open(r.ctx, r.job), r.seen.profileEnd); len(profile) == 0 {
			r.seen.remove(share.MetadataColorProfile)
		}
	}
	src := r.p.open(r.ctx, r.job)
	img, err := decodeWhole(r.job.Type, src, src)
	if src.err != nil {
		return picture{}, src.err
	}
	if err != nil {
		return picture{}, share.Errorf(share.ImageInvalid, "the image cannot be decoded, which is necessary to make it smaller", err)
	}
	switch decoded := img.(type) {
	case *image.Gray, *image.YCbCr, *image.RGBA, *image.NRGBA:
	case *image.CMYK:
		img = toRGBA(decoded)
	case *image.Paletted:
		canvas := image.NewRGBA(image.Rect(0, 0, r.config.Width, r.config.Height)) // the frame of a GIF may cover only a part
		draw.Draw(canvas, decoded.Rect, decoded, decoded.Rect.Min, draw.Src)
		img = canvas
	default: // 16 bits per sample become 8
		b := img.Bounds()
		canvas := image.NewNRGBA(image.Rect(0, 0, b.Dx(), b.Dy()))
		draw.Draw(canvas, canvas.Rect, img, b.Min, draw.Src)
		img = canvas
	}
	return picture{upright(img, r.seen.orientation), profile}, nil
}

// scaled returns img with w by h pixels. It halves the image repeatedly, so that every pixel contributes.
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

// encodeAs writes img as a JPEG with quality q, or as a PNG.
func encodeAs(t share.FileType, w io.Writer, img image.Image, q int) error {
	if t == share.PNG {
		return png.Encode(w, img)
	}
	return jpeg.Encode(w, img, &jpeg.Options{Quality: q})
}

// previewOf returns the preview of a decoded image; empty if none fits.
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

// A bounded writer passes on at most most bytes and counts all.
type bounded struct {
	w    io.Writer
	most int64
	n    int64 // bytes written to it
	stop bool  // fail when n exceeds most
}

var errOver = errors.New("images: the encoded image is too large")

// Write passes b on if it fits.
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

// fitMemory returns an upper bound of the memory in bytes to decode an image and encode it again: the allocations of Go's decoders
// and of a recoding, up to the first scaled picture. It includes garbage of earlier steps, which may not have been collected.
func fitMemory(t share.FileType, config image.Config, seen *anatomy) int64 {
	n := pixels(config.Width, config.Height)
	var decoding, work int64 // while decoding; and of the decoded image
	switch t {
	case share.GIF:
		decoding, work = 5*n, 4*n
	case share.PNG:
		per := pngBytesPerPixel(config.ColorModel)
		decoding, work = (3*per+1)/2*n, per*n // interlaced: the largest pass has half of the pixels
		if _, palette := config.ColorModel.(color.Palette); palette || per == 8 || config.ColorModel == color.Gray16Model {
			decoding, work = decoding+4*n, 4*n
		}
	default:
		decoding = seen.frame.sampleBytes(config.Width, config.Height)
		work = decoding
		if seen.frame.progressive {
			decoding *= 5 // plus a coefficient of four bytes for each sample
		}
		if config.ColorModel != color.YCbCrModel && config.ColorModel != color.GrayModel { // CMYK, or RGB
			decoding, work = decoding+8*n, 4*n
		}
	}
	if seen.orientation > 1 && seen.frame.maxH == 4 {
		decoding, work = decoding+4*n, 4*n // no subsampling ratio of the image package describes it rotated: RGBA
	}
	further := 4 * n * 81 / 100 // the first scaled picture: nine tenths of both sides
	if config.ColorModel == color.GrayModel {
		further += n
	}
	if seen.orientation > 1 {
		further += work
	}
	const rest = 8 << 20 // scaling to a preview, compression, tables, profiles
	return decoding + further + rest
}
