package main

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/lpfileshare/lpfileshare/bench/load"
)

// A figure is one number of a measurement.
type figure struct {
	name   string
	of     func(s scenario, r *load.Result) float64
	format string
}

// text formats a value of the figure. 0 means that the peer does not report it.
func (f figure) text(v float64) string {
	if v == 0 {
		return "–"
	}
	return fmt.Sprintf(f.format, v)
}

func perFile(n float64, r *load.Result) float64 { return n / float64(max(r.Files, 1)) }

func milliseconds(d time.Duration) float64 { return float64(d) / 1e6 }

// The figures of the tables.
var (
	throughput  = figure{"MB/s", func(_ scenario, r *load.Result) float64 { return r.Rate / 1e6 }, "%.0f"}
	fileRate    = figure{"files/s", func(s scenario, r *load.Result) float64 { return r.Rate / float64(s.size) }, "%.0f"}
	p50         = figure{"p50 ms", func(_ scenario, r *load.Result) float64 { return milliseconds(r.P50) }, "%.1f"}
	p99         = figure{"p99 ms", func(_ scenario, r *load.Result) float64 { return milliseconds(r.P99) }, "%.1f"}
	cpuPerGB    = figure{"CPU-s/GB", func(s scenario, r *load.Result) float64 { return perFile(r.CPU.Seconds(), r) / float64(s.size) * 1e9 }, "%.2f"}
	cpuPerFile  = figure{"CPU ms/file", func(_ scenario, r *load.Result) float64 { return perFile(milliseconds(r.CPU), r) }, "%.2f"}
	peak        = figure{"peak MiB", func(_ scenario, r *load.Result) float64 { return float64(r.Peak) / (1 << 20) }, "%.0f"}
	allocated   = figure{"KB allocated/file", func(_ scenario, r *load.Result) float64 { return perFile(float64(r.Allocated)/1e3, r) }, "%.0f"}
	allocations = figure{"allocations/file", func(_ scenario, r *load.Result) float64 { return perFile(float64(r.Mallocs), r) }, "%.0f"}
)

var figures = []figure{throughput, fileRate, p50, p99, cpuPerGB, cpuPerFile, peak, allocated, allocations}

// A spread is the median of some numbers, with the least and the most.
type spread struct{ median, least, most float64 }

// String returns "median (least-most)", or nothing if there were no numbers.
func (s spread) String() string {
	if s == (spread{}) {
		return "–"
	}
	if s.least == s.most {
		return fmt.Sprintf("%.2f", s.median)
	}
	return fmt.Sprintf("%.2f (%.2f-%.2f)", s.median, s.least, s.most)
}

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	slices.Sort(values)
	n := len(values)
	return spread{(values[(n-1)/2] + values[n/2]) / 2, values[0], values[n-1]}
}

// figures returns a figure of a peer over the rounds.
func (m *measured) figure(f figure, peer string) spread {
	var values []float64
	for _, r := range m.results[peer] {
		values = append(values, f.of(m.scenario, r))
	}
	return spreadOf(values)
}

// ratio returns a figure of a peer divided by that of another one in the same round.
func (m *measured) ratio(f figure, of, to string) spread {
	a, b := m.results[of], m.results[to]
	var values []float64
	for i := range min(len(a), len(b)) {
		if d := f.of(m.scenario, b[i]); d > 0 {
			values = append(values, f.of(m.scenario, a[i])/d)
		}
	}
	return spreadOf(values)
}

// printTables prints one table for each scenario of a suite, and the ratios of its first peer to the others.
func printTables(w io.Writer, s *suite) {
	for i := range s.measured {
		m := &s.measured[i]
		fmt.Fprintf(w, "\n%s, %s; ratios to the peer: median (least-most)\n%-20s", s.title, m.scenario, "")
		for _, f := range figures {
			fmt.Fprintf(w, " %17s", f.name)
		}
		fmt.Fprintf(w, "   %-20s %-20s %-20s of\n", throughput.name, cpuPerFile.name, p50.name)
		for _, p := range s.peers {
			if len(m.results[p.name]) == 0 {
				continue
			}
			first := s.against(p)
			fmt.Fprintf(w, "%-20s", p.name)
			for _, f := range figures {
				fmt.Fprintf(w, " %17s", f.text(m.figure(f, p.name).median))
			}
			fmt.Fprintf(w, "   %-20s %-20s %-20s %s\n", m.ratio(throughput, first, p.name), m.ratio(cpuPerFile, first, p.name), m.ratio(p50, first, p.name), first)
		}
	}
}
