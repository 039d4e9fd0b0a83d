package images

import (
	"image"
	"image/color"
	"strings"
	"testing"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// defaultMemory is the default of --preview-memory.
const defaultMemory = 256 << 20

// A kindOfImage has the parts of an image that its memory depends on.
type kindOfImage struct {
	name    string // as in docs/limits.md
	ft      share.FileType
	model   color.Model
	sampled []byte // of a JPEG: the sampling factors of its components
	sof     byte
	turned  bool
	preview int // the largest preview and the largest image that is fitted, in megapixels of 3:2
	fit     int
}

var kindsOfImages = []kindOfImage{
	{name: "JPEG, 4:2:0", ft: share.JPEG, sampled: []byte{0x22, 0x11, 0x11}, sof: sof0, preview: 50, fit: 50},
	{name: "JPEG, 4:2:0, on its side", ft: share.JPEG, sampled: []byte{0x22, 0x11, 0x11}, sof: sof0, turned: true, preview: 50, fit: 50},
	{name: "JPEG, 4:4:4", ft: share.JPEG, sampled: []byte{0x11, 0x11, 0x11}, sof: sof0, preview: 50, fit: 50},
	{name: "JPEG, progressive, 4:2:0", ft: share.JPEG, sampled: []byte{0x22, 0x11, 0x11}, sof: sof2, preview: 35, fit: 35},
	{name: "JPEG, progressive, 4:4:4", ft: share.JPEG, sampled: []byte{0x11, 0x11, 0x11}, sof: sof2, preview: 17, fit: 17},
	{name: "JPEG, gray", ft: share.JPEG, sampled: []byte{0x11}, sof: sof0, preview: 50, fit: 50},
	{name: "JPEG, CMYK", ft: share.JPEG, sampled: []byte{0x11, 0x11, 0x11, 0x11}, sof: sof0, preview: 21, fit: 22},
	{name: "PNG, RGB", ft: share.PNG, model: color.RGBAModel, preview: 43, fit: 44},
	{name: "PNG, RGBA", ft: share.PNG, model: color.NRGBAModel, preview: 43, fit: 29},
	{name: "PNG, RGB of 16 bits", ft: share.PNG, model: color.RGBA64Model, preview: 21, fit: 22},
	{name: "GIF", ft: share.GIF, model: color.Palette{}, preview: 50, fit: 29},
}

func (k kindOfImage) parts(megapixels int) (image.Config, *anatomy) {
	height := 1
	for 3*height*height/2 < megapixels*1_000_000 {
		height++
	}
	seen := &anatomy{orientation: 1, frames: 1}
	config := image.Config{Width: height * 3 / 2, Height: height, ColorModel: k.model}
	if k.turned {
		seen.orientation = 6
	}
	if k.ft == share.JPEG {
		data := []byte{8, byte(config.Height >> 8), byte(config.Height), byte(config.Width >> 8), byte(config.Width), byte(len(k.sampled))}
		for i, s := range k.sampled {
			data = append(data, byte(i+1), s, 0)
		}
		seen.jpeg.note(k.sof, data)
		config = seen.jpeg.config()
	}
	return config, seen
}

// TestMemory_Default checks the table of docs/limits.md: what the default of the memory for decoding is enough for.
func TestMemory_Default(t *testing.T) {
	const most = 3_000_000
	for _, k := range kindsOfImages {
		largest := func(memory func(image.Config, *anatomy) int64) (n int) {
			for n = 50; n > 0; n-- {
				if config, seen := k.parts(n); memory(config, seen) <= defaultMemory {
					break
				}
			}
			return n
		}
		preview := largest(func(c image.Config, a *anatomy) int64 { return decodingMemory(k.ft, c, a).decoding + previewMemory(c) })
		fit := largest(func(c image.Config, a *anatomy) int64 { return fitMemory(k.ft, c, a, most) })
		if preview != k.preview || fit != k.fit {
			t.Errorf("%s: %d and %d megapixels, want %d and %d", k.name, preview, fit, k.preview, k.fit)
		}
		if strings.HasPrefix(k.name, "JPEG") && !strings.Contains(k.name, "4:4:4") && k.model == nil && len(k.sampled) == 3 && min(preview, fit) < 24 {
			t.Errorf("%s: photographs of 24 megapixels need more than the default", k.name)
		}
	}
}
