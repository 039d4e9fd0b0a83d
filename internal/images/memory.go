package images

import (
	"image/color"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// memory estimates what decoding and shrinking the image to a preview takes, in bytes, from above: as Go's decoders allocate, and as the
// scaler does, which keeps four float64 for each pixel of an image as wide as the small one and as high as the large one.
func (h *header) memory() int64 {
	width, _ := fit(h.config.Width, h.config.Height, longerSide)
	n := pixels(h.config.Width, h.config.Height)
	scaler := 32 * pixels(width, h.config.Height)
	columns := 32 * (int64(h.config.Width) + int64(h.config.Height)) // its weights
	return n*h.bytesPerPixel() + scaler + columns
}

// bytesPerPixel is what a decoder takes for each pixel.
func (h *header) bytesPerPixel() int64 {
	switch h.fileType {
	case share.GIF:
		return 1
	case share.PNG:
		// An interlaced PNG is put together of passes, the largest of which has half of the pixels.
		return (pngBytesPerPixel(h.config.ColorModel)*3 + 1) / 2
	default:
		progressive, components := jpegFrame(h.bytes)
		per := components
		if components == 4 {
			per = 8 // planes, and then their conversion
		}
		if components == 3 {
			per = 7 // as above, for the rare JPEG that holds RGB
			if h.config.ColorModel == color.YCbCrModel {
				per = 3
			}
		}
		if progressive {
			per += 4 * components // every coefficient is kept until the end
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

// jpegFrame finds the frame header among the segments of head, and says whether the JPEG is progressive and how many components it
// has. Where there is none to be found it says the worst.
func jpegFrame(head []byte) (progressive bool, components int64) {
	for marker, data := range segments(head) {
		if f, ok := parseFrame(marker, data); ok {
			return f.progressive, int64(f.components)
		}
	}
	return true, 4
}
