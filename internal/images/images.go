// Package images reads and changes images: it reads headers, so that a decompression bomb is rejected before it is decoded; makes
// the small JPEG, as a data URI, that a hosted file has as its preview; and makes an image fit a size, and removes its metadata.
//
// Input is hostile, and its cost is bounded: pixels are counted before the body is decoded, decoders share one memory budget, the
// bytes read are limited, and a panic of a decoder becomes an error. The package supports JPEG, PNG and GIF, without cgo. It neither
// stores nor publishes anything.
package images

import (
	"bytes"
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
	// made to fit. Default 256 MiB: enough for the preview of a JPEG of 50 million pixels, or of a progressive one of 14 million.
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

// Preview returns a JPEG as a data URI of less than maxChars characters. It is upright, has at most 320 pixels on its longer side,
// and shows transparent pixels white and the first frame of an animation.
//
// Preview waits for memory until ctx ends. It returns the errors of Inspect, Internal after a panic of the decoder, and errors without a kind: the image cannot be decoded
// or needs too much memory, no JPEG fits maxChars, or reading image failed. It does not use image after it returns, and may not have
// read it to its end.
func (p *Processor) Preview(ctx context.Context, t share.FileType, image io.Reader, maxChars int) (dataURI string, err error) {
	defer share.Recover(ctx, p.cfg.Log, &err)
	src := &source{ctx: ctx, r: image, left: p.cfg.MaxSourceBytes}
	var head bytes.Buffer
	config, err := p.readHeader(t, io.TeeReader(io.LimitReader(src, maxHeader), &head), src)
	if err != nil {
		return "", err
	}
	h := &header{fileType: t, config: config, bytes: head.Bytes()}
	cost := h.memory()
	if cost > p.budget() {
		return "", fmt.Errorf("images: decoding %d by %d pixels needs about %d MiB, more than the budget",
			h.config.Width, h.config.Height, cost>>20)
	}
	small, err := p.decodeWithin(ctx, h, src, max(cost, p.part))
	if err != nil {
		return "", err
	}
	return encode(small, maxChars)
}

// decodeWithin acquires part bytes of the budget while it decodes.
func (p *Processor) decodeWithin(ctx context.Context, h *header, src *source, part int64) (*image.RGBA, error) {
	if err := p.turns.Acquire(ctx, part); err != nil {
		return nil, fmt.Errorf("images: waiting for memory: %w", err)
	}
	defer p.turns.Release(part) // after a panic too
	return decode(h, src)
}

// decode decodes an image and returns it small and upright.
func decode(h *header, src *source) (*image.RGBA, error) {
	img, err := decodeWhole(h.fileType, h.whole(src), src)
	if err != nil {
		return nil, err
	}
	if img.Bounds().Empty() {
		return nil, errors.New("images: the first frame is empty")
	}
	return upright(shrink(img, h.config.Width, h.config.Height), h.orientation()).(*image.RGBA), nil
}

// decodeWhole decodes an image from r, which reads from src. Of an animation it decodes the first frame.
func decodeWhole(t share.FileType, r io.Reader, src *source) (img image.Image, err error) {
	switch t {
	case share.JPEG:
		img, err = jpeg.Decode(&scanLimit{r: r})
	case share.PNG:
		img, err = png.Decode(r)
	case share.GIF:
		img, err = gif.Decode(r) // stops after the first frame
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

// maxScans is the maximum number of scans of a JPEG. Encoders write about ten; each costs a pass over all pixels, and few bytes.
const maxScans = 100

var errTooManyScans = fmt.Errorf("images: the JPEG has more than %d scans", maxScans)

// A scanLimit reads a JPEG and fails if it has too many scans. Inside a scan FF DA can only begin the next one. Occurrences in other
// segments, such as an embedded thumbnail, are counted too, but are few.
type scanLimit struct {
	r     io.Reader
	scans int
	ff    bool // the last byte was FF
}

// Read reads from r and counts scans.
func (s *scanLimit) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	for rest := p[:n]; len(rest) > 0; {
		if s.ff && rest[0] == 0xda {
			s.scans++
		}
		i := bytes.IndexByte(rest, 0xff)
		if s.ff = i >= 0; !s.ff {
			break
		}
		rest = rest[i+1:]
	}
	if s.scans > maxScans {
		return 0, errTooManyScans
	}
	return n, err
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
