package images

import (
	"image"
	"image/color"
	"image/draw"
	"math"
)

// rows are the rows of an image to be resampled, with n interleaved components of one byte each.
type rows struct {
	width, height, n int
	row              func(y int) []byte // valid until the next call
}

// resample writes src with w by h pixels to dst. Each pixel is a weighted mean of all pixels that it covers (Catmull-Rom, as wide as the
// pixel). It needs memory for few rows only, unlike the scalers of golang.org/x/image/draw, which keep 32 bytes for each pixel of the
// whole height.
func resample(dst []byte, stride, w, h int, src rows) {
	across, down := kernel(w, src.width), kernel(h, src.height)
	line := w * src.n
	ring := make([][]float32, down.most+1)
	for i := range ring {
		ring[i] = make([]float32, line)
	}
	sum := make([]float32, line)
	have := 0 // rows in the ring so far, each at its number modulo the length
	for y := range h {
		first, weights := down.at(y)
		have = max(have, first)
		for ; have < first+len(weights); have++ {
			across.apply(ring[have%len(ring)], src.row(have), src.n)
		}
		clear(sum)
		for i, weight := range weights {
			for x, v := range ring[(first+i)%len(ring)] {
				sum[x] += weight * v
			}
		}
		out := dst[y*stride:][:line]
		for x, v := range sum {
			out[x] = byte(min(max(v+0.5, 0), 255))
		}
	}
}

// weights are the weights of the source pixels for each pixel of a row or column.
type weights struct {
	first []int
	sum   [][]float32
	most  int // weights of a pixel
}

func (k *weights) at(i int) (first int, w []float32) { return k.first[i], k.sum[i] }

// kernel returns the weights for to pixels from from.
func kernel(to, from int) *weights {
	k := &weights{first: make([]int, to), sum: make([][]float32, to)}
	ratio := float64(from) / float64(to)
	scale := max(ratio, 1)
	for i := range to {
		center := (float64(i) + 0.5) * ratio
		low, high := max(0, int(math.Ceil(center-2*scale-0.5))), min(from-1, int(math.Floor(center+2*scale-0.5)))
		w := make([]float32, high-low+1)
		var total float64
		for j := range w {
			v := catmullRom((float64(low+j) + 0.5 - center) / scale)
			w[j] = float32(v)
			total += v
		}
		for j := range w {
			w[j] /= float32(total)
		}
		k.first[i], k.sum[i], k.most = low, w, max(k.most, len(w))
	}
	return k
}

func catmullRom(t float64) float64 {
	t = math.Abs(t)
	switch {
	case t < 1:
		return (1.5*t-2.5)*t*t + 1
	case t < 2:
		return ((-0.5*t+2.5)*t-4)*t + 2
	}
	return 0
}

// apply resamples a row of n components.
func (k *weights) apply(dst []float32, src []byte, n int) {
	switch n {
	case 1:
		for x := range k.first {
			var v float32
			at := src[k.first[x]:]
			for i, weight := range k.sum[x] {
				v += weight * float32(at[i])
			}
			dst[x] = v
		}
	case 4:
		for x := range k.first {
			var r, g, b, a float32
			at := src[4*k.first[x]:]
			for i, weight := range k.sum[x] {
				p := at[4*i:][:4]
				r += weight * float32(p[0])
				g += weight * float32(p[1])
				b += weight * float32(p[2])
				a += weight * float32(p[3])
			}
			out := dst[4*x:][:4]
			out[0], out[1], out[2], out[3] = r, g, b, a
		}
	}
}

// planeRows returns the rows of a plane.
func planeRows(pix []byte, stride, w, h int) rows {
	return rows{w, h, 1, func(y int) []byte { return pix[y*stride:] }}
}

// rgbaRows returns the rows of any image, as RGBA with premultiplied alpha.
func rgbaRows(img image.Image) rows {
	b := img.Bounds()
	if p, ok := img.(*image.RGBA); ok {
		return rows{b.Dx(), b.Dy(), 4, func(y int) []byte { return p.Pix[y*p.Stride:] }}
	}
	row := image.NewRGBA(image.Rect(0, 0, b.Dx(), 1))
	return rows{b.Dx(), b.Dy(), 4, func(y int) []byte {
		draw.Draw(row, row.Rect, img, image.Pt(b.Min.X, b.Min.Y+y), draw.Src)
		return row.Pix
	}}
}

// scaled returns img with w by h pixels. Gray images stay gray, YCbCr becomes ratio, any other becomes RGBA.
func scaled(img image.Image, w, h int, ratio image.YCbCrSubsampleRatio) image.Image {
	size := img.Bounds().Size()
	r := image.Rect(0, 0, w, h)
	switch img := img.(type) {
	case *image.Gray:
		dst := image.NewGray(r)
		resample(dst.Pix, dst.Stride, w, h, planeRows(img.Pix, img.Stride, size.X, size.Y))
		return dst
	case *image.YCbCr:
		dst := image.NewYCbCr(r, ratio)
		cw, ch := chromaSize(img.SubsampleRatio, size.X, size.Y)
		dw, dh := chromaSize(ratio, w, h)
		resample(dst.Y, dst.YStride, w, h, planeRows(img.Y, img.YStride, size.X, size.Y))
		resample(dst.Cb, dst.CStride, dw, dh, planeRows(img.Cb, img.CStride, cw, ch))
		resample(dst.Cr, dst.CStride, dw, dh, planeRows(img.Cr, img.CStride, cw, ch))
		return dst
	}
	dst := image.NewRGBA(r)
	resample(dst.Pix, dst.Stride, w, h, rgbaRows(img))
	for i := 0; i < len(dst.Pix); i += 4 { // the kernel overshoots, and no colour is more than its alpha
		a := dst.Pix[i+3]
		dst.Pix[i], dst.Pix[i+1], dst.Pix[i+2] = min(dst.Pix[i], a), min(dst.Pix[i+1], a), min(dst.Pix[i+2], a)
	}
	return dst
}

// to420 returns an opaque image with half as many samples of colour in both directions, as JPEGs of photographs have. Gray images stay
// gray. The result may share the luma of img.
func to420(img image.Image) image.Image {
	size := img.Bounds().Size()
	switch img := img.(type) {
	case *image.Gray:
		return img
	case *image.YCbCr:
		if img.SubsampleRatio == image.YCbCrSubsampleRatio420 {
			return img
		}
		dst := &image.YCbCr{Y: img.Y, YStride: img.YStride, SubsampleRatio: image.YCbCrSubsampleRatio420, Rect: img.Rect}
		cw, ch := chromaSize(img.SubsampleRatio, size.X, size.Y)
		dw, dh := chromaSize(dst.SubsampleRatio, size.X, size.Y)
		dst.CStride, dst.Cb, dst.Cr = dw, make([]byte, dw*dh), make([]byte, dw*dh)
		resample(dst.Cb, dw, dw, dh, planeRows(img.Cb, img.CStride, cw, ch))
		resample(dst.Cr, dw, dw, dh, planeRows(img.Cr, img.CStride, cw, ch))
		return dst
	case *image.NRGBA:
		return pixTo420(img.Pix, img.Stride, size)
	case *image.RGBA:
		return pixTo420(img.Pix, img.Stride, size)
	}
	return to420(toRGBA(img))
}

// pixTo420 converts opaque pixels of four bytes.
func pixTo420(pix []byte, stride int, size image.Point) *image.YCbCr {
	dst := image.NewYCbCr(image.Rectangle{Max: size}, image.YCbCrSubsampleRatio420)
	for y := 0; y < size.Y; y += 2 {
		for x := 0; x < size.X; x += 2 {
			var cb, cr, n int
			for j := y; j < min(y+2, size.Y); j++ {
				for i := x; i < min(x+2, size.X); i++ {
					p := pix[j*stride+4*i:][:3]
					l, b, r := color.RGBToYCbCr(p[0], p[1], p[2])
					dst.Y[j*dst.YStride+i] = l
					cb, cr, n = cb+int(b), cr+int(r), n+1
				}
			}
			at := y/2*dst.CStride + x/2
			dst.Cb[at], dst.Cr[at] = byte((cb+n/2)/n), byte((cr+n/2)/n)
		}
	}
	return dst
}
