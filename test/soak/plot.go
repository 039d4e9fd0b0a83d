package main

import (
	"bytes"
	"fmt"
	"math"
)

// panels say which figures are drawn together.
var panels = []struct {
	title   string
	columns []int
}{
	{"memory, MiB", []int{0, 1}},
	{"goroutines and open files", []int{2, 3, 4}},
	{"ended, per second", []int{5, 6}},
	{"time taken, s", []int{7, 8, 9, 10}},
}

// Sizes, in pixels.
const (
	width, height    = 900, 200 // of a panel
	left, right, top = 60, 20, 40
	plotWidth        = width - left - right
	plotHeight       = height - top - 30
)

var colours = []string{"#1f77b4", "#d62728", "#2ca02c", "#9467bd"}

// draw draws the samples as an SVG: a panel over another, all from 0, over the same time.
func draw(all []sample) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height*len(panels))
	fmt.Fprintln(&b, `<rect width="100%" height="100%" fill="white"/>`)
	end := all[len(all)-1].at.Seconds()
	for n, p := range panels {
		most := 0.0
		for _, s := range all {
			for _, c := range p.columns {
				most = max(most, s.values[c])
			}
		}
		most = round(most)
		fmt.Fprintf(&b, `<g transform="translate(%d,%d)">`+"\n", left, n*height+top)
		fmt.Fprintf(&b, `<text y="-24" font-weight="bold">%s</text>`+"\n", p.title)
		for i := range 5 {
			y := plotHeight - float64(i)*plotHeight/4
			fmt.Fprintf(&b, `<path d="M0 %.1fH%d" stroke="#ddd"/><text x="-6" y="%.1f" text-anchor="end">%g</text>`+"\n", y, plotWidth, y+4, most*float64(i)/4)
		}
		for i := range 11 {
			x := float64(i) * plotWidth / 10
			fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%.0f s</text>`+"\n", x, plotHeight+18, end*float64(i)/10)
		}
		for i, c := range p.columns {
			fmt.Fprintf(&b, `<text x="%d" y="-8" fill="%s">%s</text>`+"\n", i*210, colours[i], columns[c].name)
			fmt.Fprintf(&b, `<polyline fill="none" stroke="%s" stroke-width="1.5" points="`, colours[i])
			for _, s := range all {
				fmt.Fprintf(&b, "%.1f,%.1f ", s.at.Seconds()/end*plotWidth, plotHeight*(1-s.values[c]/most))
			}
			fmt.Fprintln(&b, `"/>`)
		}
		fmt.Fprintln(&b, "</g>")
	}
	fmt.Fprintln(&b, "</svg>")
	return b.Bytes()
}

// round rounds up to a number that is easy to read, with its quarters.
func round(v float64) float64 {
	if v <= 0 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 4, 6, 8, 10} {
		if v <= m*unit {
			return m * unit
		}
	}
	return 10 * unit
}
