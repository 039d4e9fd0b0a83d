package images

import (
	"image"
	"image/color"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A memoryUse is an upper bound of the bytes that Go's decoder uses for an image.
type memoryUse struct {
	decoding int64 // including the result
	result   int64
}

// decodingMemory returns the memory of Go's decoders.
func decodingMemory(t share.FileType, config image.Config, seen *anatomy) memoryUse {
	n := pixels(config.Width, config.Height)
	switch t {
	case share.GIF:
		return memoryUse{n, n}
	case share.PNG:
		// An interlaced PNG is decoded in passes, the largest of which has half of the pixels.
		per := pngBytesPerPixel(config.ColorModel)
		return memoryUse{(3*per + 1) / 2 * n, per * n}
	}
	use := memoryUse{result: seen.jpeg.frame.sampleBytes(config.Width, config.Height)}
	use.decoding = use.result
	if seen.jpeg.frame.progressive() {
		use.decoding *= 5 // every coefficient is kept until the last scan, in four bytes
	}
	if m := seen.jpeg.config().ColorModel; m != color.YCbCrModel && m != color.GrayModel { // CMYK, or RGB
		use.decoding, use.result = use.decoding+8*n, 4*n
	}
	return use
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

// previewMemory returns the memory for making a decoded image small: a row of it, and rows and weights of the preview.
func previewMemory(config image.Config) int64 {
	sides := int64(config.Width) + int64(config.Height)
	return 48*sides + 4<<20
}

// symbolMemory returns the maximum memory of the symbols of a JPEG of at most so many bytes. Those of photographs need about 5/2 of its
// size, those of nearly empty pictures up to 8 times theirs.
func symbolMemory(most int64) int64 { return 3*most + 8<<20 }

// fitMemory returns an upper bound of the memory to decode an image and encode it again, with at most so many bytes. What a step
// does not need any more is collected before the next one.
func fitMemory(t share.FileType, config image.Config, seen *anatomy, most int64) int64 {
	n := pixels(config.Width, config.Height)
	use := decodingMemory(t, config, seen)
	var canvas int64 // RGBA, which palettes, 16 bits and CMYK become first
	final := 3*n/2 + 2*int64(config.Width+config.Height)
	if t == share.JPEG {
		switch seen.jpeg.config().ColorModel {
		case color.GrayModel:
			final = use.result
		case color.CMYKModel:
			canvas = 4 * n
		}
	} else if config.ColorModel == color.GrayModel {
		final = n
	} else {
		if pngBytesPerPixel(config.ColorModel) != 4 {
			canvas = 4 * n
		}
		if config.ColorModel != color.RGBAModel && config.ColorModel != color.RGBA64Model && config.ColorModel != color.Gray16Model {
			final = 4 * n // it may be transparent
		}
	}
	steps := max(use.decoding, use.result+canvas, max(use.result, canvas)+final)
	if seen.orientation > 1 {
		steps = max(steps, 2*final)
	}
	coded := symbolMemory(most) + 8<<20 // the sample, tables
	return max(steps, 2*final+coded) + 4<<20
}
