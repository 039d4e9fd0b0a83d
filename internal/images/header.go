package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/gif"
	"image/png"
	"io"
	"strconv"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Inspect reads the header of an image of type t up to its dimensions. Errors: ImageInvalid if the header is unreadable, of another
// type, or without pixels; ImageTooManyPixels with metadata maxPixels and actualPixels; the error of reading image. Inspect does not
// check the pixels: the file may still be damaged after its header.
func (p *Processor) Inspect(t share.FileType, image io.Reader) (share.ImageInfo, error) {
	src := &source{ctx: context.Background(), r: image, left: p.cfg.MaxSourceBytes}
	config, err := p.readHeader(t, src)
	if err != nil {
		return share.ImageInfo{}, err
	}
	return share.ImageInfo{Width: config.Width, Height: config.Height}, nil
}

// Verify reads an image of type t as a whole, without decoding its pixels. Errors are those of Inspect, and ImageInvalid if its structure
// is damaged. Bytes may follow its end.
func (p *Processor) Verify(t share.FileType, image io.Reader) error {
	var head bytes.Buffer
	src := &source{ctx: context.Background(), r: image, left: p.cfg.MaxSourceBytes}
	if _, err := p.readHeader(t, &source{ctx: src.ctx, r: io.TeeReader(src, &head), left: src.left}); err != nil {
		return err
	}
	_, err := strip(t, io.MultiReader(&head, src), io.Discard)
	return err
}

// readHeader reads and validates a header.
func (p *Processor) readHeader(t share.FileType, src *source) (image.Config, error) {
	config, err := p.decodeConfig(t, src)
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
		return jpegConfig(r)
	case share.PNG:
		return png.DecodeConfig(r)
	case share.GIF:
		return gif.DecodeConfig(r)
	}
	return image.Config{}, fmt.Errorf("%q is not an image type", t)
}

// jpegConfig reads the size of a JPEG of any coding. Go's decoder reads only that of those that it can decode.
func jpegConfig(r io.Reader) (image.Config, error) {
	c := newCarver(r, io.Discard)
	c.upTo = sof0
	if err := c.jpeg(); err != nil {
		return image.Config{}, err
	}
	return c.found.jpeg.config(), nil
}

// pixels multiplies two positive sides. No format has sides of more than 31 bits, so the product does not overflow.
func pixels(width, height int) int64 { return int64(width) * int64(height) }
