// Package images looks into images and changes them: it reads their headers, so that a bomb is refused before it is decoded;
// makes the small JPEG, as a data URI, that a hosted file carries as its preview; and makes an image fit a size, and clean.
//
// It works on hostile input, and bounds what that may cost: pixels are counted before a decoder sees the body, decoders wait
// for their turn on one budget of memory, what is read is limited, and a decoder's panic is an error. It knows JPEG, PNG and
// GIF, needs no cgo, and neither stores nor publishes anything.
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
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Config says what images may cost. Zero fields mean the defaults.
type Config struct {
	// MaxPixels is the most that an image may have, width times height. Default 50 million.
	MaxPixels int64
	// Concurrency is how many images are decoded at the same time. Default 2.
	Concurrency int
	// MaxSourceBytes is the most that is read of an image. Default 16 MiB.
	MaxSourceBytes int64
	// MaxMemory is about what all decoders together may take, in bytes. An image that would need more by itself gets no preview
	// and is not made to fit. Default 256 MiB: enough for the preview of a JPEG of 50 million pixels, or of a progressive one of 14.
	MaxMemory int64
	// FitWait is how long an image that must be encoded anew may wait for its turn. Default one minute.
	FitWait time.Duration
}

// A Processor looks into images and changes them. It is safe for concurrent use and needs no closing.
type Processor struct {
	cfg Config
	// fitting has a place for each image that is being encoded anew, or is next. The others wait before it, so that a preview never
	// stands behind more than a few of them.
	fitting chan struct{}
	// turns is in bytes. Whoever decodes holds what it will need, and at least the Concurrency-th part of the whole.
	turns *semaphore.Weighted
	part  int64
}

// New makes a Processor. Values below zero count as zero.
func New(cfg Config) *Processor {
	cfg.MaxPixels = cmp.Or(max(cfg.MaxPixels, 0), 50_000_000)
	cfg.Concurrency = cmp.Or(max(cfg.Concurrency, 0), 2)
	cfg.MaxSourceBytes = cmp.Or(max(cfg.MaxSourceBytes, 0), 16<<20)
	cfg.MaxMemory = max(cmp.Or(max(cfg.MaxMemory, 0), 256<<20), int64(cfg.Concurrency))
	cfg.FitWait = cmp.Or(max(cfg.FitWait, 0), time.Minute)
	part := cfg.MaxMemory / int64(cfg.Concurrency)
	return &Processor{
		cfg: cfg, part: part, turns: semaphore.NewWeighted(part * int64(cfg.Concurrency)),
		fitting: make(chan struct{}, cfg.Concurrency),
	}
}

// budget is what all decoders together may take.
func (p *Processor) budget() int64 { return p.part * int64(p.cfg.Concurrency) }

// Preview makes a JPEG of at most 320 pixels on its longer side, upright, on white where the image is transparent, and returns
// it as a data URI of less than maxChars characters. Of an animation it shows the first frame.
//
// It waits for its turn, and gives up with ctx. The errors of Inspect apply; all others are plain: an image that cannot be
// decoded, one that would take too much memory, a maxChars that no JPEG fits, or what image itself failed with. It has stopped
// reading when it returns, not always at the end.
func (p *Processor) Preview(ctx context.Context, t share.FileType, image io.Reader, maxChars int) (dataURI string, err error) {
	defer recoverTo(&err)
	src := &source{ctx: ctx, r: image, left: p.cfg.MaxSourceBytes}
	var head bytes.Buffer
	config, err := p.readHeader(t, io.TeeReader(io.LimitReader(src, maxHeader), &head), src)
	if err != nil {
		return "", err
	}
	h := &header{fileType: t, config: config, bytes: head.Bytes()}
	cost := h.memory()
	if cost > p.budget() {
		return "", fmt.Errorf("images: decoding %d by %d pixels would take about %d MiB, more than the budget",
			h.config.Width, h.config.Height, cost>>20)
	}
	small, err := p.decodeInTurn(ctx, h, src, max(cost, p.part))
	if err != nil {
		return "", err
	}
	return encode(small, maxChars)
}

// decodeInTurn waits for its part of the budget and holds it while it decodes.
func (p *Processor) decodeInTurn(ctx context.Context, h *header, src *source, part int64) (*image.RGBA, error) {
	if err := p.turns.Acquire(ctx, part); err != nil {
		return nil, fmt.Errorf("images: waiting for a turn: %w", err)
	}
	defer p.turns.Release(part) // in a panic too
	return decode(h, src)
}

// decode decodes the whole of an image and returns it small and upright.
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

// decodeWhole decodes an image from r, which reads from src; of an animation the first frame, as large as it is.
func decodeWhole(t share.FileType, r io.Reader, src *source) (img image.Image, err error) {
	switch t {
	case share.JPEG:
		img, err = jpeg.Decode(&scanLimit{r: r})
	case share.PNG:
		img, err = png.Decode(r)
	case share.GIF:
		img, err = gif.Decode(r) // stops behind the first frame
	default:
		return nil, fmt.Errorf("images: cannot decode %q", t)
	}
	if src.err != nil {
		return nil, src.err
	}
	if err != nil {
		return nil, fmt.Errorf("images: %w", err)
	}
	return img, nil
}

// maxScans is how many scans of a JPEG are decoded. Encoders make about ten; each costs a pass over all pixels, and hardly a byte.
const maxScans = 100

var errTooManyScans = fmt.Errorf("images: the JPEG has more than %d scans", maxScans)

// A scanLimit reads a JPEG and fails when it has too many scans. Inside of a scan FF DA can only begin the next one; what stands
// in other segments is counted too, but the pictures in there are few.
type scanLimit struct {
	r     io.Reader
	scans int
	ff    bool // the last byte was FF
}

// Read is r's, and counts.
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

// recoverTo turns the panic of a decoder into an error.
func recoverTo(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("images: the decoder panicked: %v", r)
	}
}

// errSourceTooLong says that MaxSourceBytes were read and the image went on.
var errSourceTooLong = errors.New("images: the image has more bytes than are read for a preview")

// A source is a reader that ends with its context and at a limit, and remembers why it failed.
type source struct {
	ctx  context.Context // of the one call that the source lives for
	r    io.Reader
	left int64
	err  error // of r or ctx; sticky
}

// Read is r's, within bounds.
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
