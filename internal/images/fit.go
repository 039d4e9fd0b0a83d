package images

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/draw"
	"image/jpeg"
	"image/png"
	"io"
	"math"
	"runtime"
	"strconv"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// The qualities of a JPEG that is encoded again: the highest; the lowest, unless fewer pixels look better; and the one with which fewer
// pixels are tried.
const (
	highQuality   = 95.0
	lowQuality    = 15.0
	scaledQuality = 50.0
)

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
	clean := len(seen.removed) == 0 && seen.trailing == 0
	switch {
	case clean && job.Size <= job.MaxBytes && (out.n == job.Size || out.n > job.MaxBytes): // a GIF without a trailer gets one only if it fits
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
	return p.readHeader(job.Type, p.open(ctx, job))
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
	if r.seen.png.hdr() {
		return cannotFit(r.job, "unsupported", "it is an HDR image; save it in standard range (sRGB)")
	}
	if coding := r.seen.jpeg.frame.unsupported(); coding != "" {
		return r.cannotDecode(coding)
	}
	cost := fitMemory(r.job.Type, r.config, r.seen, r.job.MaxBytes)
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
	r.fitted.Change.Recoded, r.fitted.Change.Rotated = true, r.seen.orientation > 1
	if r.fitted.Type == share.PNG {
		return r.shrinkPNG(full)
	}
	return r.shrinkJPEG(full)
}

// cannotDecode returns ImageCannotFit for a coding that the decoder does not support.
func (r *recoding) cannotDecode(coding string) error {
	return cannotFit(r.job, "unsupported", "its coding ("+coding+") is not supported; save it as an ordinary JPEG")
}

// outputType returns JPEG for an opaque picture, and PNG for any other.
func outputType(img picture) share.FileType {
	switch img.Image.(type) {
	case *image.Gray, *image.YCbCr:
		return share.JPEG
	}
	return share.PNG
}

// shrinkJPEG encodes the picture with the best quality that fits, and with fewer pixels if that is low.
func (r *recoding) shrinkJPEG(full picture) error {
	size := full.Bounds().Size()
	longer := max(size.X, size.Y)
	for side := min(longer, maxJPEGSide); ; {
		if r.ctx.Err() != nil {
			return context.Cause(r.ctx)
		}
		small := full
		if side < longer {
			w, h := fit(size.X, size.Y, side)
			small.Image = scaled(full.Image, w, h, image.YCbCrSubsampleRatio420)
		}
		w := newJPEGWriter(small.Image, small.profile)
		if at, ok := w.best(r.job.MaxBytes-r.job.MaxBytes/200, lowQuality, highQuality); ok || side <= leastSide {
			coded, err := r.writeBest(w, at)
			if err != nil {
				return err
			}
			if coded {
				r.finish(small, full, int(math.Round(w.last.quality)))
				return nil
			}
		}
		if side <= leastSide {
			return cannotFit(r.job, "content", "it is too large even with the fewest pixels")
		}
		side = smallerSide(side, w.estimate(setting{scaledQuality, 0}), r.job.MaxBytes)
		collect()
	}
}

// writeBest writes the picture with a setting near the one given, so that it uses what it may; false if it does not fit.
func (r *recoding) writeBest(w *jpegWriter, at setting) (bool, error) {
	const attempts = 4
	most := r.job.MaxBytes
	for i := range attempts {
		if r.ctx.Err() != nil {
			return false, context.Cause(r.ctx)
		}
		c := w.code(at, most)
		if c.whole && c.size <= most && (c.size >= most-most/50 || at.quality == highQuality || i > 1) {
			out := &bounded{w: r.job.Create(), most: most}
			if err := c.write(out); err != nil || out.n <= most {
				return true, err
			}
		}
		at, _ = w.best(most-most/200*int64(i+1), lowQuality, highQuality) // further below with each attempt that was wrong
	}
	return false, nil
}

// shrinkPNG encodes the picture with fewer and fewer pixels until it fits.
func (r *recoding) shrinkPNG(full picture) error {
	size := full.Bounds().Size()
	longer := max(size.X, size.Y)
	side := longer
	if r.job.Type == share.PNG { // with all its pixels it did not fit before either
		side = smallerSide(longer, r.stripped, r.job.MaxBytes)
	}
	for {
		if r.ctx.Err() != nil {
			return context.Cause(r.ctx)
		}
		small := full
		if side < longer {
			w, h := fit(size.X, size.Y, side)
			small.Image = scaled(full.Image, w, h, 0)
		}
		out := &bounded{w: r.job.Create(), most: r.job.MaxBytes}
		if err := png.Encode(withPNGProfile(out, small.profile), small.Image); err != nil {
			return err
		}
		if out.n <= r.job.MaxBytes {
			r.finish(small, full, 0)
			return nil
		}
		if side <= leastSide {
			return cannotFit(r.job, "content", "it is too large even with the fewest pixels")
		}
		collect()
		side = smallerSide(side, out.n, r.job.MaxBytes)
	}
}

// finish records what was done to the picture, which was full before, and generates its preview.
func (r *recoding) finish(stored, full picture, quality int) {
	size := stored.Bounds().Size()
	change := &r.fitted.Change
	change.Removed = r.seen.removed
	change.Stored, change.JPEGQuality = share.ImageInfo{Width: size.X, Height: size.Y}, quality
	change.Scaled = size != full.Bounds().Size()
	if r.job.PreviewChars > 0 {
		r.fitted.Preview = r.preview(stored)
	}
}

// preview returns the preview of a picture; empty if none fits, or after a panic, which must not fail Fit.
func (r *recoding) preview(img picture) (uri string) {
	var err error
	defer share.Recover(r.ctx, r.p.cfg.Log, &err)
	b := img.Bounds()
	uri, _ = encode(shrink(img.Image, b.Dx(), b.Dy(), profileConversion(img.profile)), r.job.PreviewChars)
	return uri
}

// smallerSide returns the longer side with which an image of so many bytes may fit.
func smallerSide(side int, bytes, most int64) int {
	f := math.Sqrt(float64(most)/float64(bytes)) * 0.98
	return max(leastSide, int(float64(side)*min(max(f, 0.3), 0.9)))
}

// collect collects what a step has left behind, before the next one allocates.
var collect = runtime.GC

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
		collect()
		p.turns.Release(bytes)
		<-p.fitting
	}, nil
}

// decode decodes the whole canvas of the image, upright, with its colour profile. The result is Gray or 4:2:0, or, if it is
// transparent, RGBA or NRGBA.
func (r *recoding) decode() (picture, error) {
	toSRGB, profiled := r.seen.toSRGB()
	src := r.p.open(r.ctx, r.job)
	img, err := decodeWhole(r.job.Type, r.seen, src)
	if src.err != nil {
		return picture{}, src.err
	}
	if e, ok := errors.AsType[jpeg.UnsupportedError](err); ok {
		return picture{}, r.cannotDecode(string(e))
	}
	if err != nil {
		return picture{}, share.Errorf(share.ImageInvalid, "the image cannot be decoded, which is necessary to make it smaller", err)
	}
	profile := r.seen.profile.icc
	if profiled && matches(profile, img) {
		toSRGB = nil // the profile is kept
	} else {
		profile = nil
		if _, known := r.seen.png.conversion(); r.seen.profile.found || !known {
			r.seen.remove(share.MetadataColorProfile)
		}
	}
	if toSRGB != nil {
		img = toSRGB.toSRGB(img)
	}
	img = r.eightBits(img)
	collect() // see fitMemory
	if o, ok := img.(interface{ Opaque() bool }); !ok || o.Opaque() {
		img = to420(img)
		collect()
	}
	full := picture{upright(img, r.seen.orientation), profile}
	if r.seen.orientation > 1 {
		collect()
	}
	return full, nil
}

// eightBits returns the whole canvas in RGB or gray of 8 bits, or in YCbCr.
func (r *recoding) eightBits(img image.Image) image.Image {
	switch decoded := img.(type) {
	case *image.Gray, *image.YCbCr, *image.RGBA, *image.NRGBA:
		return img
	case *image.CMYK:
		return toRGBA(decoded)
	case *image.Paletted:
		canvas := image.NewRGBA(image.Rect(0, 0, r.config.Width, r.config.Height)) // the frame of a GIF may cover only a part
		draw.Draw(canvas, decoded.Rect, decoded, decoded.Rect.Min, draw.Src)
		return canvas
	}
	b := img.Bounds()
	canvas := image.NewNRGBA(image.Rect(0, 0, b.Dx(), b.Dy()))
	draw.Draw(canvas, canvas.Rect, img, b.Min, draw.Src)
	return canvas
}

// A bounded writer passes on at most most bytes and counts all.
type bounded struct {
	w    io.Writer
	most int64
	n    int64 // bytes written to it
}

// Write passes b on if it fits.
func (o *bounded) Write(b []byte) (int, error) {
	o.n += int64(len(b))
	if o.n <= o.most {
		return o.w.Write(b)
	}
	return len(b), nil
}
