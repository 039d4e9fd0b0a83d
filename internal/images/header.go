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

// maxHeader is how much Preview keeps of what comes before an image's dimensions: colour profiles and camera data are smaller.
// An image where more comes first gets no preview.
const maxHeader = 1 << 20

// A header is the beginning of an image, and what it says.
type header struct {
	fileType share.FileType
	config   image.Config
	bytes    []byte // all that was read of the image so far
}

// whole is the image from its first byte on.
func (h *header) whole(rest io.Reader) io.Reader {
	return io.MultiReader(bytes.NewReader(h.bytes), rest)
}

// Inspect reads the header of an image of type t, as far as its dimensions and no further. ImageInvalid if it is not readable,
// not of that type, or has no pixels; ImageTooManyPixels, with metadata maxPixels and actualPixels; and what image failed
// with. It does not look at the pixels: a file may still turn out to be broken behind its header.
func (p *Processor) Inspect(t share.FileType, image io.Reader) (share.ImageInfo, error) {
	src := &source{ctx: context.Background(), r: image, left: p.cfg.MaxSourceBytes}
	config, err := p.readHeader(t, src, src)
	if err != nil {
		return share.ImageInfo{}, err
	}
	return share.ImageInfo{Width: config.Width, Height: config.Height}, nil
}

// readHeader reads a header from r, which reads from src, and checks it.
func (p *Processor) readHeader(t share.FileType, r io.Reader, src *source) (image.Config, error) {
	config, err := decodeConfig(t, r)
	switch {
	case src.err != nil && !errors.Is(src.err, errSourceTooLong):
		return image.Config{}, src.err
	case err != nil:
		return image.Config{}, share.Errorf(share.ImageInvalid,
			fmt.Sprintf("the file's header is not that of a readable %s image", t), err)
	case config.Width <= 0 || config.Height <= 0:
		return image.Config{}, share.Errorf(share.ImageInvalid, "the image has no pixels: a side of it is 0", nil)
	}
	if n := pixels(config.Width, config.Height); n > p.cfg.MaxPixels {
		e := share.Errorf(share.ImageTooManyPixels,
			fmt.Sprintf("the image has %d by %d pixels; at most %d are accepted", config.Width, config.Height, p.cfg.MaxPixels), nil)
		e.Metadata = map[string]string{
			"maxPixels":    strconv.FormatInt(p.cfg.MaxPixels, 10),
			"actualPixels": strconv.FormatInt(n, 10),
		}
		return image.Config{}, e
	}
	return config, nil
}

// decodeConfig reads the dimensions of an image of exactly type t.
func decodeConfig(t share.FileType, r io.Reader) (config image.Config, err error) {
	defer recoverTo(&err)
	switch t {
	case share.JPEG:
		return jpeg.DecodeConfig(r)
	case share.PNG:
		return png.DecodeConfig(r)
	case share.GIF:
		return gif.DecodeConfig(r)
	}
	return image.Config{}, fmt.Errorf("%q is no image type", t)
}

// pixels multiplies two positive sides. No format has sides over 31 bits, so that the product fits.
func pixels(width, height int) int64 { return int64(width) * int64(height) }
