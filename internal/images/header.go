package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"strconv"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// maxHeader is the maximum number of bytes before an image's dimensions that Preview keeps. Colour profiles and camera data are
// smaller. An image with more gets no preview.
const maxHeader = 1 << 20

// A header is the beginning of an image, decoded.
type header struct {
	fileType share.FileType
	config   image.Config
	bytes    []byte // everything read from the image so far
}

// whole returns a reader of the image from its first byte.
func (h *header) whole(rest io.Reader) io.Reader {
	return io.MultiReader(bytes.NewReader(h.bytes), rest)
}

// Inspect reads the header of an image of type t up to its dimensions. Errors: ImageInvalid if the header is unreadable, of another
// type, or without pixels; ImageTooManyPixels with metadata maxPixels and actualPixels; the error of reading image. Inspect does not
// check the pixels: the file may still be damaged after its header.
func (p *Processor) Inspect(t share.FileType, image io.Reader) (share.ImageInfo, error) {
	src := &source{ctx: context.Background(), r: image, left: p.cfg.MaxSourceBytes}
	config, err := p.readHeader(t, src, src)
	if err != nil {
		return share.ImageInfo{}, err
	}
	return share.ImageInfo{Width: config.Width, Height: config.Height}, nil
}

// readHeader reads a header from r, which reads from src, and validates it.
func (p *Processor) readHeader(t share.FileType, r io.Reader, src *source) (image.Config, error) {
	config, err := p.decodeConfig(t, r)
	switch {
	case src.err != nil && !errors.Is(src.err, errSourceTooLong):
		return image.Config{}, src.err
	case share.Is(err, share.Internal): // a panic, which was logged
		return image.Config{}, err
	case err != nil:
		return image.Config{}, share.Errorf(share.ImageInvalid,
			fmt.Sprintf("the file does not begin with a valid %s header", t), err)
	case config.Width <= 0 || config.Height <= 0:
		return image.Config{}, share.Errorf(share.ImageInvalid, "the image has no pixels: its width or height is 0", nil)
	}
	if n := pixels(config.Width, config.Height); n > p.cfg.MaxPixels {
		e := share.Errorf(share.ImageTooManyPixels,
			fmt.Sprintf("the image has %d by %d pixels, the limit is %d", config.Width, config.Height, p.cfg.MaxPixels), nil)
		e.Metadata = map[string]string{
			"maxPixels":    strconv.FormatInt(p.cfg.MaxPixels, 10),
			"actualPixels": strconv.FormatInt(n, 10),
		}
		return image.Config{}, e
	}
	return config, nil
}

// decodeConfig reads the dimensions of an image of type t.
func (p *Processor) decodeConfig(t share.FileType, r io.Reader) (config image.Config, err error) {
	defer share.Recover(context.Background(), p.cfg.Log, &err)
	switch t {
	case share.JPEG:
		return jpeg.DecodeConfig(r)
	case share.PNG:
		return png.DecodeConfig(r)
	case share.GIF:
		return gif.DecodeConfig(r)
	}
	return image.Config{}, fmt.Errorf("%q is not an image type", t)
}

// pixels multiplies two positive sides. No format has sides of more than 31 bits, so the product does not overflow.
func pixels(width, height int) int64 { return int64(width) * int64(height) }
