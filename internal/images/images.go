// Package images reads and changes images: it reads headers, so that a decompression bomb is rejected before it is decoded; makes
// the small JPEG, as a data URI, that a hosted file has as its preview; and makes an image fit a size, and removes its metadata.
//
// Input is hostile, and its cost is bounded: pixels are counted before the body is decoded, decoders share one memory budget, the
// bytes read are limited, and a panic of a decoder becomes an error. The package supports JPEG, PNG and GIF, without cgo. It neither
// stores nor publishes anything.
package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"image"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"log/slog"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Config limits the cost of images. Zero fields mean the defaults.
type Config struct {
	// MaxPixels is the maximum number of pixels, width times height. Default 50 million.
	MaxPixels int64
	// Concurrency is the maximum number of images that are decoded at the same time. Default 2.
	Concurrency int
	// MaxSourceBytes is the maximum number of bytes that are read of an image. Default 16 MiB.
	MaxSourceBytes int64
	// MaxMemory is the approximate memory of all decoders together, in bytes. An image that needs more gets no preview and is not
	// made to fit. Default 256 MiB: docs/limits.md lists the pixels for which that is enough.
	MaxMemory int64
	// FitWait is how long an image to be encoded again may wait for memory. Default one minute.
	FitWait time.Duration
	// Log receives the stack of a decoder that panics. nil: slog.Default.
	Log *slog.Logger
}

// A Processor reads and changes images. It is safe for concurrent use and need not be closed.
type Processor struct {
	cfg Config
	// fitting limits the images that are encoded again, or wait for memory. The others wait here, so that few of them can be ahead
	// of a preview.
	fitting chan struct{}
	// turns is the memory budget in bytes. A decoder acquires its estimate, at least part.
	turns *semaphore.Weighted
	part  int64 // of MaxMemory, divided by Concurrency
}

// New returns a Processor. Negative values count as zero.
func New(cfg Config) *Processor {
	cfg.MaxPixels = cmp.Or(max(cfg.MaxPixels, 0), 50_000_000)
	cfg.Concurrency = cmp.Or(max(cfg.Concurrency, 0), 2)
	cfg.MaxSourceBytes = cmp.Or(max(cfg.MaxSourceBytes, 0), 16<<20)
	cfg.MaxMemory = max(cmp.Or(max(cfg.MaxMemory, 0), 256<<20), int64(cfg.Concurrency))
	cfg.FitWait = cmp.Or(max(cfg.FitWait, 0), time.Minute)
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	part := cfg.MaxMemory / int64(cfg.Concurrency)
	return &Processor{
		cfg: cfg, part: part, turns: semaphore.NewWeighted(part * int64(cfg.Concurrency)),
		fitting: make(chan struct{}, cfg.Concurrency),
	}
}

// budget returns the memory budget in bytes.
func (p *Processor) budget() int64 { return p.part * int64(p.cfg.Concurrency) }

// Preview returns a JPEG as a data URI of less than maxChars characters. It is upright, in sRGB, has at most 320 pixels on its longer
// side, and shows transparent pixels white and the first frame of an animation.
//
// Preview waits for memory until ctx ends. It returns the errors of Inspect, Internal after a panic of the decoder, and errors without a
// kind: the image cannot be decoded or needs too much memory, no JPEG fits maxChars, or reading the image failed. It calls open several
// times, for a reader of the image from its first byte. It does not use readers after it returns, and may not have read them to their end.
func (p *Processor) Preview(ctx context.Context, t share.FileType, open func() io.Reader, maxChars int) (dataURI string, err error) {
	defer share.Recover(ctx, p.cfg.Log, &err)
	source := func() *source { return &source{ctx: ctx, r: open(), left: p.cfg.MaxSourceBytes} }
	config, err := p.readHeader(t, source())
	if err != nil {
		return "", err
	}
	src := source()
	seen, _ := survey(t, src) // a damaged image may have a preview all the same
	if src.err != nil {
		return "", src.err
	}
	cost := decodingMemory(t, config, seen).decoding + previewMemory(config)
	if cost > p.budget() {
		return "", fmt.Errorf("images: decoding %d by %d pixels needs about %d MiB, more than the budget", config.Width, config.Height, cost>>20)
	}
	small, err := p.decodeWithin(ctx, t, config, seen, source(), max(cost, p.part))
	if err != nil {
		return "", err
	}
	return encode(small, maxChars)
}

// decodeWithin decodes an image and returns it small, upright and in sRGB. It acquires part bytes of the budget meanwhile.
func (p *Processor) decodeWithin(ctx context.Context, t share.FileType, config image.Config, seen *anatomy, src *source, part int64) (*image.RGBA, error) {
	if err := p.turns.Acquire(ctx, part); err != nil {
		return nil, fmt.Errorf("images: waiting for memory: %w", err)
	}
	defer p.turns.Release(part) // after a panic too
	img, err := decodeWhole(t, seen, src)
	if err != nil {
		return nil, err
	}
	if img.Bounds().Empty() {
		return nil, errors.New("images: the first frame is empty")
	}
	toSRGB, _ := seen.toSRGB()
	return upright(shrink(img, config.Width, config.Height, toSRGB), seen.orientation).(*image.RGBA), nil
}

// decodeWhole decodes an image. Of an animation it decodes the first frame.
func decodeWhole(t share.FileType, seen *anatomy, src *source) (img image.Image, err error) {
	switch t {
	case share.JPEG:
		if coding := seen.jpeg.frame.unsupported(); coding != "" {
			return nil, fmt.Errorf("images: %w", jpeg.UnsupportedError(coding))
		}
		img, err = jpeg.Decode(&scanLimit{r: seen.jpeg.complete(src)})
		seen.jpeg.invertCMYK(img)
	case share.PNG:
		img, err = png.Decode(src)
	case share.GIF:
		img, err = gif.Decode(src) // stops after the first frame
	default:
		return nil, fmt.Errorf("images: %q is not an image type", t)
	}
	if src.err != nil {
		return nil, src.err
	}
	if err != nil {
		return nil, fmt.Errorf("images: %w", err)
	}
	return img, nil
}

// errSourceTooLong means that MaxSourceBytes were read and the image did not end.
var errSourceTooLong = errors.New("images: the image has more bytes than are read for a preview")

// A source is a reader that ends with its context and at a limit, and keeps its first error.
type source struct {
	ctx  context.Context // of the call that the source serves
	r    io.Reader
	left int64
	err  error // of r or ctx; permanent
}

// Read reads from r within the limits.
func (s *source) Read(b []byte) (int, error) {
	if s.err == nil {
		s.err = s.ctx.Err()
	}
	if s.err == nil && s.left <= 0 {
		s.err = errSourceTooLong
	}
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.r.Read(b[:min(int64(len(b)), s.left)])
	s.left -= int64(n)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}
