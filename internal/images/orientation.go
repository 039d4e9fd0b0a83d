package images

import (
	"bytes"
	"image"
	"image/draw"

	"github.com/bep/imagemeta"
)

// exifHeader begins the EXIF segment of a JPEG.
var exifHeader = []byte("Exif\x00\x00")

// exifOrientation returns the tag Orientation (0x0112) of EXIF 2.3: 1 to 8, and 1 if it is missing. Errors are ignored: an image with
// damaged camera data is shown as stored.
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

// onlyOrientation returns EXIF with the orientation and nothing else. It is not longer than size, the size of the EXIF that it replaces:
// the offset of the next directory, which some writers leave out, is left out.
func onlyOrientation(o, size int) []byte {
	b := []byte{
		'M', 'M', 0, 42, 0, 0, 0, 8, // big endian; the first directory is at 8
		0, 1, // one entry
		0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, byte(o), 0, 0, // Orientation, SHORT, one
		0, 0, 0, 0, // no further directory
	}
	return b[:min(max(size, len(b)-4), len(b))]
}

// upright returns img rotated and mirrored so that it is upright. Gray, YCbCr, NRGBA and RGBA keep their type if their subsampling
// permits; any other type becomes RGBA. img is not changed.
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

// turnedRatio returns the chroma subsampling of the rotated image; false if the image package has no constant for it.
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

// turn copies a plane of w by h pixels of size bytes each, and rotates it.
func turn(dst []byte, dstStride int, src []byte, srcStride, size, w, h, orientation int) {
	dw, dh := w, h
	if orientation >= 5 {
		dw, dh = h, w
	}
	for y := range dh {
		row := dst[y*dstStride:]
		// Along a row of the rotated picture the offset in src changes by a constant step.
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

// toRGBA copies img to an RGBA image whose bounds begin at 0, 0.
func toRGBA(img image.Image) *image.RGBA {
	b := img.Bounds()
	dst := image.NewRGBA(image.Rect(0, 0, b.Dx(), b.Dy()))
	draw.Draw(dst, dst.Rect, img, b.Min, draw.Src)
	return dst
}

// seenFrom returns the pixel of a stored image of w by h that is shown at x, y.
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
	case 6: // rotate clockwise to view
		return y, h - 1 - x
	case 7: // swapped along the other diagonal
		return w - 1 - y, h - 1 - x
	case 8: // rotate counter-clockwise to view
		return w - 1 - y, x
	}
	return x, y
}
