package images

import (
	"image/color"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// memory returns an upper bound of the memory in bytes to decode the image and shrink it to a preview: the allocations of Go's
// decoders, and of the scaler, which needs four float64 for each pixel of an image with the preview's width and the image's height.
func (h *header) memory() int64 {
	width, _ := fit(h.config.Width, h.config.Height, longerSide)
	n := pixels(h.config.Width, h.config.Height)
	scaler := 32 * pixels(width, h.config.Height)
	columns := 32 * (int64(h.config.Width) + int64(h.config.Height)) // the scaler's weights
	return n*h.bytesPerPixel() + scaler + columns
}

// bytesPerPixel returns the memory of a decoder for each pixel.
func (h *header) bytesPerPixel() int64 {
	switch h.fileType {
	case share.GIF:
		return 1
	case share.PNG:
		// An interlaced PNG is decoded in passes, the largest of which has half of the pixels.
		return (pngBytesPerPixel(h.config.ColorModel)*3 + 1) / 2
	default:
		progressive, components := jpegFrame(h.bytes)
		per := components
		if components == 4 {
			per = 8 // planes, and their conversion
		}
		if components == 3 {
			per = 7 // as above, for the rare JPEG in RGB
			if h.config.ColorModel == color.YCbCrModel {
				per = 3
			}
		}
		if progressive {
			per += 4 * components // every coefficient is kept until the last scan
		}
		return per
	}
}

func pngBytesPerPixel(m color.Model) int64 {
	switch m {
	case color.GrayModel:
		return 1
	case color.Gray16Model:
		return 2
	case color.NRGBAModel, color.RGBAModel:
		return 4
	case color.NRGBA64Model, color.RGBA64Model:
		return 8
	}
	return 1 // a palette
}

// jpegFrame returns whether a JPEG is progressive and its number of components, from the frame header in head. Without one it returns
// the most expensive values.
func jpegFrame(head []byte) (progressive bool, components int64) {
	for marker, data := range segments(head) {
		if f, ok := parseFrame(marker, data); ok {
			return f.progressive, int64(f.components)
		}
	}
	return true, 4
}
