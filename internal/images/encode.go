package images

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"math"

	"image/draw"
)

const (
	// longerSide is the maximum longer side of a preview in pixels.
	longerSide = 320
	// shortestLongerSide is the longer side at which shrinking a preview ends.
	shortestLongerSide = 16
	// uriPrefix begins every preview.
	uriPrefix = "data:image/jpeg;base64,"
)

// qualities are the JPEG qualities tried, in this order.
var qualities = [...]int{85, 75, 65, 55, 45, 35}

// fit scales width by height down so that the longer side is at most side. It never enlarges and never returns 0.
func fit(width, height, side int) (int, int) {
	longer := max(width, height)
	if longer <= side {
		return width, height
	}
	f := float64(side) / float64(longer)
	return max(1, int(math.Round(float64(width)*f))), max(1, int(math.Round(float64(height)*f)))
}

// shrink draws img, a part of a canvas of width by height, onto a white canvas of at most longerSide, in sRGB.
func shrink(img image.Image, width, height int, toSRGB *conversion) *image.RGBA {
	w, h := fit(width, height, longerSide)
	canvas := image.NewRGBA(image.Rect(0, 0, w, h))
	draw.Draw(canvas, canvas.Rect, image.NewUniform(color.White), image.Point{}, draw.Src)
	b := img.Bounds()
	// The first frame of a GIF may cover only a part of its canvas.
	r := image.Rect(scale(b.Min.X, w, width), scale(b.Min.Y, h, height), scale(b.Max.X, w, width), scale(b.Max.Y, h, height))
	if r.Dx() == 0 {
		r.Max.X++
	}
	if r.Dy() == 0 {
		r.Max.Y++
	}
	draw.Draw(canvas, r, scaled(img, r.Dx(), r.Dy(), image.YCbCrSubsampleRatio444), image.Point{}, draw.Over)
	if toSRGB != nil {
		toSRGB.toSRGB(canvas)
	}
	return canvas
}

// scale maps a coordinate from a side of length from to a side of length to.
func scale(at, to, from int) int {
	return int(math.Round(float64(at) * float64(to) / float64(from)))
}

// encode returns img as a data URI of less than maxChars characters, with the best quality that fits, or else with fewer pixels.
func encode(img *image.RGBA, maxChars int) (string, error) {
	full := img
	for side := max(full.Rect.Dx(), full.Rect.Dy()); ; side = side * 3 / 4 {
		if w, h := fit(full.Rect.Dx(), full.Rect.Dy(), side); w != img.Rect.Dx() || h != img.Rect.Dy() {
			img = scaled(full, w, h, 0).(*image.RGBA)
		}
		var b bytes.Buffer
		for _, q := range qualities {
			b.Reset()
			if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: q}); err != nil {
				return "", fmt.Errorf("images: %w", err)
			}
			if len(uriPrefix)+base64.StdEncoding.EncodedLen(b.Len()) < maxChars {
				return uriPrefix + base64.StdEncoding.EncodeToString(b.Bytes()), nil
			}
		}
		if side <= shortestLongerSide {
			return "", fmt.Errorf("images: no preview has less than %d characters", maxChars)
		}
	}
}
