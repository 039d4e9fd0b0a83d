package images

import (
	"bytes"
	"image"
	"image/draw"

	"github.com/bep/imagemeta"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// exifHeader begins a JPEG's segment of EXIF.
var exifHeader = []byte("Exif\x00\x00")

// orientation reads how a JPEG is to be turned.
func (h *header) orientation() int {
	if h.fileType == share.JPEG {
		for marker, data := range segments(h.bytes) {
			if tiff, ok := bytes.CutPrefix(data, exifHeader); ok && marker == app1 {
				return exifOrientation(tiff)
			}
		}
	}
	return 1
}

// exifOrientation reads the tag Orientation of EXIF (2.3, tag 0x0112): 1 to 8, and 1 where it does not say. Errors do not matter:
// an image with broken camera data is shown as it lies.
func exifOrientation(tiff []byte) (o int) {
	o = 1
	defer func() {
		if recover() != nil {
			o = 1
		}
	}()
	_, _ = imagemeta.Decode(imagemeta.Options{
		R:           bytes.NewReader(tiff),
		ImageFormat: imagemeta.TIFF,
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

// onlyOrientation is EXIF that says the orientation and nothing else.
func onlyOrientation(o int) []byte {
	return []byte{
		'M', 'M', 0, 42, 0, 0, 0, 8, // big endian; the first directory is at 8
		0, 1, // one entry
		0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, byte(o), 0, 0, // Orientation, SHORT, one
		0, 0, 0, 0, // no further directory
	}
}

// upright turns img so that it stands as orientation says that it was seen. Gray, YCbCr, NRGBA and RGBA stay what they are as far
// as their samples allow; anything else becomes RGBA. Img is not changed.
func upright(img image.Image, orientation int) image.Image {
	if orientation <= 1 || orientation > 8 {
		return img
	}
	b := img.Bounds()
	w, h := b.Dx(), b.Dy()
	r := image.Rect(0, 0, w, h)
	if orientation >= 5 {
		r = image.Rect(0, 0, h, w)
	}
	switch src := img.(type) {
	case *image.Gray:
		dst := image.NewGray(r)
		turn(dst.Pix, dst.Stride, src.Pix, src.Stride, 1, w, h, orientation)
		return dst
	case *image.RGBA:
		dst := image.NewRGBA(r)
		turn(dst.Pix, dst.Stride, src.Pix, src.Stride, 4, w, h, orientation)
		return dst
	case *image.NRGBA:
		dst := image.NewNRGBA(r)
		turn(dst.Pix, dst.Stride, src.Pix, src.Stride, 4, w, h, orientation)
		return dst
	case *image.YCbCr:
		ratio, ok := turnedRatio(src.SubsampleRatio, orientation)
		if !ok {
			break
		}
		dst := image.NewYCbCr(r, ratio)
		turn(dst.Y, dst.YStride, src.Y, src.YStride, 1, w, h, orientation)
		cw, ch := chromaSize(src.SubsampleRatio, w, h)
		turn(dst.Cb, dst.CStride, src.Cb, src.CStride, 1, cw, ch, orientation)
		turn(dst.Cr, dst.CStride, src.Cr, src.CStride, 1, cw, ch, orientation)
		return dst
	}
	return upright(toRGBA(img), orientation)
}

// turnedRatio is how chroma is sampled when rows have become columns; false if there is no name for it.
func turnedRatio(ratio image.YCbCrSubsampleRatio, orientation int) (image.YCbCrSubsampleRatio, bool) {
	switch ratio {
	case image.YCbCrSubsampleRatio444, image.YCbCrSubsampleRatio420:
		return ratio, true
	case image.YCbCrSubsampleRatio422:
		if orientation >= 5 {
			return image.YCbCrSubsampleRatio440, true
		}
		return ratio, true
	case image.YCbCrSubsampleRatio440:
		if orientation >= 5 {
			return image.YCbCrSubsampleRatio422, true
		}
		return ratio, true
	}
	return ratio, orientation < 5
}

func chromaSize(ratio image.YCbCrSubsampleRatio, w, h int) (int, int) {
	switch ratio {
	case image.YCbCrSubsampleRatio422:
		return (w + 1) / 2, h
	case image.YCbCrSubsampleRatio420:
		return (w + 1) / 2, (h + 1) / 2
	case image.YCbCrSubsampleRatio440:
		return w, (h + 1) / 2
	case image.YCbCrSubsampleRatio411:
		return (w + 3) / 4, h
	case image.YCbCrSubsampleRatio410:
		return (w + 3) / 4, (h + 1) / 2
	}
	return w, h
}

// turn copies a plane of w by h pixels of size bytes each, turned.
func turn(dst []byte, dstStride int, src []byte, srcStride, size, w, h, orientation int) {
	dw, dh := w, h
	if orientation >= 5 {
		dw, dh = h, w
	}
	for y := range dh {
		row := dst[y*dstStride:]
		// Along a row of the turned picture the place in src moves by a constant step.
		x0, y0 := seenFrom(orientation, 0, y, w, h)
		at, step := y0*srcStride+x0*size, 0
		if dw > 1 {
			x1, y1 := seenFrom(orientation, 1, y, w, h)
			step = y1*srcStride + x1*size - at
		}
		if size == 1 {
			for x := range dw {
				row[x] = src[at]
				at += step
			}
			continue
		}
		for x := range dw {
			copy(row[x*size:(x+1)*size], src[at:at+size])
			at += step
		}
	}
}

// toRGBA copies img into an RGBA whose bounds begin at 0, 0.
func toRGBA(img image.Image) *image.RGBA {
	b := img.Bounds()
	dst := image.NewRGBA(image.Rect(0, 0, b.Dx(), b.Dy()))
	draw.Draw(dst, dst.Rect, img, b.Min, draw.Src)
	return dst
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
