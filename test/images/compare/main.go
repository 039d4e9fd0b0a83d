// Compare makes photographs fit a size and measures what became of them, for compare/run.
//
//	compare fit LIMIT FROM TO     prints the bytes, the quality, and the CPU time in milliseconds
//	compare ssim A B              prints the structural similarity of two JPEGs, of luma, at the size of A
package main

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/jpeg"
	"io"
	"log"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/image/draw"

	"github.com/lpfileshare/lpfileshare/internal/images"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

func main() {
	switch {
	case len(os.Args) == 5 && os.Args[1] == "fit":
		limit, err := strconv.ParseInt(os.Args[2], 10, 64)
		if err != nil {
			log.Fatal(err)
		}
		fit(limit, os.Args[3], os.Args[4])
	case len(os.Args) == 4 && os.Args[1] == "ssim":
		fmt.Printf("%.5f\n", ssim(luma(os.Args[2], image.Point{}), os.Args[3]))
	default:
		log.Fatal("usage: compare fit LIMIT FROM TO | compare ssim A B")
	}
}

func fit(limit int64, from, to string) {
	data, err := os.ReadFile(from)
	if err != nil {
		log.Fatal(err)
	}
	var out bytes.Buffer
	before := cpu()
	fitted, err := images.New(images.Config{}).Fit(context.Background(), share.ImageJob{
		Type: share.JPEG, Size: int64(len(data)), MaxBytes: limit, Fit: true,
		Open:   func() io.Reader { return bytes.NewReader(data) },
		Create: func() io.Writer { out.Reset(); return &out },
	})
	took := cpu() - before
	if err != nil {
		log.Fatal(err)
	}
	if fitted == nil {
		out.Write(data)
		fitted = &share.FittedImage{}
	}
	if err := os.WriteFile(to, out.Bytes(), 0o600); err != nil {
		log.Fatal(err)
	}
	fmt.Println(out.Len(), fitted.Change.JPEGQuality, took.Milliseconds())
}

// cpu returns the processor time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		log.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// luma decodes a JPEG, and scales it to size unless that is zero.
func luma(name string, size image.Point) *image.Gray {
	b, err := os.ReadFile(name)
	if err != nil {
		log.Fatal(err)
	}
	img, err := jpeg.Decode(bytes.NewReader(b))
	if err != nil {
		log.Fatal(err)
	}
	gray, ok := img.(*image.Gray)
	if ycc, is := img.(*image.YCbCr); is {
		gray, ok = &image.Gray{Pix: ycc.Y, Stride: ycc.YStride, Rect: ycc.Rect}, true
	}
	if !ok {
		log.Fatalf("%s: %T", name, img)
	}
	if size == (image.Point{}) || size == gray.Rect.Size() {
		return gray
	}
	large := image.NewGray(image.Rectangle{Max: size})
	draw.CatmullRom.Scale(large, large.Rect, gray, gray.Rect, draw.Src, nil)
	return large
}

// ssim returns the mean structural similarity in windows of 8 by 8 pixels, every 4 pixels.
func ssim(a *image.Gray, name string) float64 {
	b := luma(name, a.Rect.Size())
	const c1, c2 = (0.01 * 255) * (0.01 * 255), (0.03 * 255) * (0.03 * 255)
	var sum float64
	var n int
	for y := 0; y+8 <= a.Rect.Dy(); y += 4 {
		for x := 0; x+8 <= a.Rect.Dx(); x += 4 {
			var sa, sb, saa, sbb, sab int
			for j := range 8 {
				ra, rb := a.Pix[(y+j)*a.Stride+x:][:8], b.Pix[(y+j)*b.Stride+x:][:8]
				for i := range 8 {
					u, v := int(ra[i]), int(rb[i])
					sa, sb, saa, sbb, sab = sa+u, sb+v, saa+u*u, sbb+v*v, sab+u*v
				}
			}
			ma, mb := float64(sa)/64, float64(sb)/64
			va, vb, cov := float64(saa)/64-ma*ma, float64(sbb)/64-mb*mb, float64(sab)/64-ma*mb
			sum += (2*ma*mb + c1) * (2*cov + c2) / ((ma*ma + mb*mb + c1) * (va + vb + c2))
			n++
		}
	}
	return sum / float64(n)
}
