// Package corpus strips the pictures that Go and Pillow test themselves with, and compares what they decode to. fetch fetches Pillow's.
package corpus

import (
	"bytes"
	"fmt"
	"image"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lpfileshare/lpfileshare/internal/images"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// least is the number of pictures that Go and Pillow have at least.
const least = 300

func TestStrip(t *testing.T) {
	if _, err := os.Stat("cache"); err != nil {
		t.Skip("Pillow's pictures are missing: run test/images/corpus/fetch, which needs Python with pip and a package index")
	}
	goRoot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	found := map[share.FileType]int{}
	var all, decoded, changed int
	p := images.New(images.Config{})
	for _, root := range []string{"cache", filepath.Join(strings.TrimSpace(string(goRoot)), "src", "image")} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			row, ok := share.FileTypeByExtension(strings.Replace(filepath.Ext(path), ".apng", ".png", 1))
			if err != nil || d.IsDir() || !ok || !row.Image {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if share.SniffFormat(b[:min(len(b), share.SniffBytes)], true) != row.DetectedFormat() {
				return nil // another type, for Pillow's own tests
			}
			all++
			found[row.Type]++
			var out bytes.Buffer
			fitted, err := p.Fit(t.Context(), share.ImageJob{
				Type: row.Type, Size: int64(len(b)), MaxBytes: 1 << 30, Strip: true,
				Open:   func() io.Reader { return bytes.NewReader(b) },
				Create: func() io.Writer { out.Reset(); return &out },
			})
			before, was := pixels(row.Type, b)
			if was == nil {
				decoded++
			}
			switch {
			case err != nil:
				if was == nil {
					t.Logf("%s can be decoded, and not stripped: %v", path, err)
				}
			case fitted != nil:
				changed++
				after, is := pixels(row.Type, out.Bytes())
				if was == nil && (is != nil || before != after) {
					t.Errorf("%s: %d of %d bytes, and other pixels: %v", path, out.Len(), len(b), is)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	fmt.Printf("%d pictures %v, %d of which Go decodes; %d were changed\n", all, found, decoded, changed)
	if all < least {
		t.Errorf("%d pictures, want at least %d", all, least)
	}
}

// pixels decodes all frames of an image, and returns a text that differs if any pixel, time or number of repetitions does.
func pixels(ft share.FileType, b []byte) (string, error) {
	r := bytes.NewReader(b)
	if ft == share.GIF {
		all, err := gif.DecodeAll(r)
		if err != nil {
			return "", err
		}
		var s strings.Builder
		for _, frame := range all.Image {
			fmt.Fprint(&s, frame.Rect, frame.Palette)
			s.Write(frame.Pix)
		}
		fmt.Fprint(&s, all.Delay, all.LoopCount, all.Disposal, all.Config.Width, all.Config.Height)
		return s.String(), nil
	}
	decode := jpeg.Decode
	if ft == share.PNG {
		decode = png.Decode
	}
	config, _, err := image.DecodeConfig(bytes.NewReader(b))
	if err != nil || config.Width*config.Height > 30_000_000 {
		return "", fmt.Errorf("%d by %d pixels: %w", config.Width, config.Height, err)
	}
	img, err := decode(r)
	if err != nil {
		return "", err
	}
	var s strings.Builder
	for y := img.Bounds().Min.Y; y < img.Bounds().Max.Y; y++ {
		for x := img.Bounds().Min.X; x < img.Bounds().Max.X; x++ {
			r, g, b, a := img.At(x, y).RGBA()
			s.Write([]byte{byte(r >> 8), byte(r), byte(g >> 8), byte(g), byte(b >> 8), byte(b), byte(a >> 8), byte(a)})
		}
	}
	return s.String(), nil
}
