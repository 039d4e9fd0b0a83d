package preview

import (
	"bytes"
	"image"

	"github.com/bep/imagemeta"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// orientation reads how a JPEG is to be turned (EXIF 2.3, tag 0x0112): 1 to 8, and 1 where it does not say.
func (h *header) orientation() (o int) {
	if h.fileType != share.JPEG {
		return 1
	}
	o = 1
	defer func() {
		if recover() != nil {
			o = 1
		}
	}()
	// Errors do not matter: an image with broken camera data is shown as it lies.
	_, _ = imagemeta.Decode(imagemeta.Options{
		R:           bytes.NewReader(h.bytes),
		ImageFormat: imagemeta.JPEG,
		Sources:     imagemeta.EXIF,
		ShouldHandleTag: func(tag imagemeta.TagInfo) bool {
			return tag.Tag == "Orientation" && tag.Namespace == "IFD0"
		},
		HandleTag: func(tag imagemeta.TagInfo) error {
			var n int
			switch v := tag.Value.(type) {
			case uint16:
				n = int(v)
			case uint32:
				n = int(v)
			case uint8:
				n = int(v)
			}
			if n >= 1 && n <= 8 {
				o = n
			}
			return imagemeta.ErrStopWalking
		},
	})
	return o
}

// orient turns img so that it stands as orientation says that it was seen.
func orient(img *image.RGBA, orientation int) *image.RGBA {
	if orientation <= 1 || orientation > 8 {
		return img
	}
	w, h := img.Rect.Dx(), img.Rect.Dy()
	out := image.NewRGBA(image.Rect(0, 0, w, h))
	if orientation >= 5 {
		out = image.NewRGBA(image.Rect(0, 0, h, w))
	}
	for y := range out.Rect.Dy() {
		for x := range out.Rect.Dx() {
			sx, sy := seenFrom(orientation, x, y, w, h)
			copy(out.Pix[out.PixOffset(x, y):][:4], img.Pix[img.PixOffset(sx, sy):][:4])
		}
	}
	return out
}

// seenFrom says which pixel of a stored image of w by h is seen at x, y.
func seenFrom(orientation, x, y, w, h int) (sx, sy int) {
	switch orientation {
	case 2: // mirrored
		return w - 1 - x, y
	case 3: // upside down
		return w - 1 - x, h - 1 - y
	case 4: // upside down and mirrored
		return x, h - 1 - y
	case 5: // rows and columns swapped
		return y, x
	case 6: // to be turned clockwise
		return y, h - 1 - x
	case 7: // swapped along the other diagonal
		return w - 1 - y, h - 1 - x
	case 8: // to be turned counter-clockwise
		return w - 1 - y, x
	}
	return x, y
}
