package main

import (
	"bytes"
	"fmt"
	"html"
	"maps"
	"math"
	"slices"
)

// A line is one series of a plot. Its points are in the order of x.
type line struct {
	name   string
	points [][2]float64 // x, y
}

// A panel is one plot: x on a logarithmic scale, y from 0.
type panel struct {
	title, x string
	lines    []line
}

// Sizes, in pixels. Two panels are beside each other, with the names of the lines to the right of each.
const (
	panelWidth, panelHeight = 560, 260
	left, top               = 60, 30
	plotWidth               = panelWidth - left - 150
	plotHeight              = panelHeight - top - 45
)

var colours = []string{"#d62728", "#ff9896", "#1f77b4", "#aec7e8", "#9467bd", "#2ca02c", "#8c564b", "#c49c94", "#7f7f7f", "#bcbd22", "#17becf"}

// drawSuite draws a figure of all peers by the number of streams, a panel for each size and direction.
func drawSuite(s *suite, f figure) []byte {
	var panels []panel
	for _, group := range bySize(s.measured) {
		for _, up := range []bool{true, false} {
			p := panel{x: "transfers at once"}
			for _, peer := range s.peers {
				l := line{name: peer.name}
				for _, m := range group {
					if m.scenario.up == up && len(m.results[peer.name]) > 0 {
						p.title = fmt.Sprintf("%s %s, %s", m.scenario.way(), sizeName(m.scenario.size), f.name)
						l.points = append(l.points, [2]float64{float64(m.scenario.streams), m.figure(f, peer.name).median})
					}
				}
				p.lines = append(p.lines, l)
			}
			panels = append(panels, p)
		}
	}
	return draw(panels)
}

// draw draws panels as an SVG.
func draw(panels []panel) []byte {
	var b bytes.Buffer
	rows := (len(panels) + 1) / 2
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", 2*panelWidth, rows*panelHeight)
	fmt.Fprintln(&b, `<rect width="100%" height="100%" fill="white"/>`)
	for i, p := range panels {
		fmt.Fprintf(&b, `<g transform="translate(%d,%d)">`+"\n", i%2*panelWidth+left, i/2*panelHeight+top)
		p.draw(&b)
		fmt.Fprintln(&b, "</g>")
	}
	fmt.Fprintln(&b, "</svg>")
	return b.Bytes()
}

func (p *panel) draw(b *bytes.Buffer) {
	least, most, high := math.Inf(1), 0.0, 0.0
	seen := map[float64]bool{}
	for _, l := range p.lines {
		for _, at := range l.points {
			least, most, high = min(least, at[0]), max(most, at[0]), max(high, at[1])
			seen[at[0]] = true
		}
	}
	high = roundUp(high)
	place := func(x float64) float64 {
		if most <= least {
			return 0
		}
		return math.Log(x/least) / math.Log(most/least) * plotWidth
	}
	fmt.Fprintf(b, `<text y="-12" font-weight="bold">%s</text>`+"\n", p.title)
	for i := range 5 {
		y := plotHeight - float64(i)*plotHeight/4
		fmt.Fprintf(b, `<path d="M0 %.1fH%d" stroke="#ddd"/><text x="-6" y="%.1f" text-anchor="end">%g</text>`+"\n", y, plotWidth, y+4, high*float64(i)/4)
	}
	for _, x := range slices.Sorted(maps.Keys(seen)) {
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle">%g</text>`+"\n", place(x), plotHeight+16, x)
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", plotWidth/2, plotHeight+32, p.x)
	row := 0
	for i, l := range p.lines {
		if len(l.points) == 0 {
			continue
		}
		colour := colours[i%len(colours)]
		fmt.Fprintf(b, `<text x="%d" y="%d" fill="%s">%s</text>`+"\n", plotWidth+12, 10+15*row, colour, html.EscapeString(l.name))
		fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="1.5" points="`, colour)
		for _, at := range l.points {
			fmt.Fprintf(b, "%.1f,%.1f ", place(at[0]), plotHeight*(1-at[1]/high))
		}
		fmt.Fprintln(b, `"/>`)
		row++
	}
}

// roundUp rounds up to a number that is easy to read, with its quarters.
func roundUp(v float64) float64 {
	if v <= 0 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 4, 6, 8} {
		if v <= m*unit {
			return m * unit
		}
	}
	return 10 * unit
}
