// Shrink encodes a PNG again with as many colors as a palette has, which a picture of a page hardly needs more of.
//
//	shrink FILE
package main

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"slices"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: shrink FILE")
		os.Exit(2)
	}
	if err := shrink(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "shrink:", err)
		os.Exit(1)
	}
}

func shrink(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	in, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		return err
	}
	out := image.NewPaletted(in.Bounds(), frequent(in))
	nearest := map[color.Color]uint8{}
	for y := in.Bounds().Min.Y; y < in.Bounds().Max.Y; y++ {
		for x := in.Bounds().Min.X; x < in.Bounds().Max.X; x++ {
			c := in.At(x, y)
			i, ok := nearest[c]
			if !ok {
				i = uint8(out.Palette.Index(c))
				nearest[c] = i
			}
			out.SetColorIndex(x, y, i)
		}
	}
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, out); err != nil {
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}

// frequent returns the 256 most frequent colors, one of each group of neighbors.
func frequent(in image.Image) color.Palette {
	type group struct {
		count int
		of    map[color.Color]int
	}
	groups := map[[3]uint32]*group{}
	for y := in.Bounds().Min.Y; y < in.Bounds().Max.Y; y++ {
		for x := in.Bounds().Min.X; x < in.Bounds().Max.X; x++ {
			c := in.At(x, y)
			r, g, b, _ := c.RGBA()
			key := [3]uint32{r >> 11, g >> 11, b >> 11}
			if groups[key] == nil {
				groups[key] = &group{of: map[color.Color]int{}}
			}
			groups[key].count++
			groups[key].of[c]++
		}
	}
	sorted := slices.SortedFunc(maps.Values(groups), func(a, b *group) int { return b.count - a.count })
	var p color.Palette
	for _, g := range sorted[:min(len(sorted), 256)] {
		var most color.Color
		for c, n := range g.of {
			if most == nil || n > g.of[most] {
				most = c
			}
		}
		p = append(p, most)
	}
	return p
}
