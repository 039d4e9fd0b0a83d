package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// pageName is the page that gets the results, between two markers.
const pageName = "performance.md"

// replaceSection replaces what is between <!-- NAME --> and <!-- /NAME --> in a page.
func replaceSection(file, name string, section []byte) error {
	page, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	begin, end := []byte("<!-- "+name+" -->\n"), []byte("<!-- /"+name+" -->")
	before, rest, found := bytes.Cut(page, begin)
	_, after, ended := bytes.Cut(rest, end)
	if !found || !ended {
		return fmt.Errorf("%s has no section %s", file, name)
	}
	return os.WriteFile(file, slices.Concat(before, begin, section, end, after), 0o644)
}

// machine describes where and when something was measured.
func machine(server string) string {
	cpu := "unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		_, rest, _ := strings.Cut(string(text), "model name")
		line, _, _ := strings.Cut(rest, "\n")
		cpu = strings.TrimLeft(line, "\t :")
	}
	what := "the server in " + filepath.Base(server)
	if out, err := exec.Command("git", "describe", "--always", "--dirty").Output(); server == "" && err == nil {
		what = "commit " + strings.TrimSpace(string(out))
	}
	return fmt.Sprintf("Measured on %s: %s, %s, %d cores (%s), %s.", time.Now().UTC().Format("2 January 2006"), what, runtime.Version(), runtime.NumCPU(), cpu, kernel())
}

func kernel() string {
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return runtime.GOOS
	}
	return "Linux " + strings.TrimSpace(string(text))
}

// writePage writes the results of a comparison and their plots into a folder.
func writePage(o *options, suites []*suite, left map[string]error, took time.Duration) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "\n%s It took %s, with %d rounds; with 512 transfers at once %d. Other programs used %.1f cores meanwhile (median).\n",
		machine(o.server), took, o.rounds, roundsOf512(o.rounds), others(suites).median)
	for _, name := range slices.Sorted(maps.Keys(left)) {
		fmt.Fprintf(&b, "Left out: %s (%v).\n", name, left[name])
	}
	for i, s := range suites {
		writeSuite(&b, s)
		if i > 0 {
			continue
		}
		for _, p := range []struct {
			file string
			f    figure
		}{{"performance-throughput.svg", throughput}, {"performance-cpu.svg", cpuPerGB}} {
			if err := os.WriteFile(filepath.Join(o.out, p.file), drawSuite(s, p.f), 0o644); err != nil {
				return err
			}
			fmt.Fprintf(&b, "\n![%s by the number of transfers at once](%s)\n", p.f.name, p.file)
		}
	}
	b.WriteString("\n")
	return replaceSection(filepath.Join(o.out, pageName), "bench", b.Bytes())
}

// others is what other programs used during the measurements, in cores.
func others(suites []*suite) spread {
	var values []float64
	for _, s := range suites {
		for _, m := range s.measured {
			for _, results := range m.results {
				for _, r := range results {
					values = append(values, r.Others)
				}
			}
		}
	}
	return spreadOf(values)
}

func writeSuite(w io.Writer, s *suite) {
	fmt.Fprintf(w, "\n### %s\n\n| peer | what it is |\n| --- | --- |\n", s.title)
	for _, p := range s.peers {
		fmt.Fprintf(w, "| %s | %s |\n", p.name, p.about)
	}
	for _, f := range []figure{throughput, cpuPerGB, p50} {
		fmt.Fprintf(w, "\n%s of this server divided by that of the peer, median of the rounds (least-most):\n", f.name)
		for _, group := range bySize(s.measured) {
			writeRatios(w, s, group, f)
		}
	}
	fmt.Fprintf(w, "\nMedians of the rounds:\n")
	for _, group := range bySize(s.measured) {
		for _, up := range []bool{true, false} {
			writeMedians(w, s, slices.DeleteFunc(slices.Clone(group), func(m *measured) bool { return m.scenario.up != up }))
		}
	}
}

// bySize groups measurements by the size of the files, uploads first.
func bySize(all []measured) (groups [][]*measured) {
	for i := range all {
		m := &all[i]
		if n := len(groups); n == 0 || groups[n-1][0].scenario.size != m.scenario.size {
			groups = append(groups, nil)
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], m)
	}
	for _, g := range groups {
		slices.SortStableFunc(g, func(a, b *measured) int {
			switch {
			case a.scenario.up == b.scenario.up:
				return 0
			case a.scenario.up:
				return -1
			default:
				return 1
			}
		})
	}
	return groups
}

// writeRatios writes a figure of this server against the others.
func writeRatios(w io.Writer, s *suite, group []*measured, f figure) {
	fmt.Fprintf(w, "\n| %s |", sizeName(group[0].scenario.size))
	for _, m := range group {
		fmt.Fprintf(w, " %s |", m.scenario.short())
	}
	fmt.Fprintf(w, "\n| --- |%s\n", strings.Repeat(" --: |", len(group)))
	for _, p := range s.peers[1:] {
		row := ""
		for _, m := range group {
			row += fmt.Sprintf(" %s |", m.ratio(f, s.against(p), p.name))
		}
		if strings.Trim(row, " –|") != "" {
			fmt.Fprintf(w, "| %s / %s |%s\n", s.against(p), p.name, row)
		}
	}
}

// writeMedians writes all figures of all peers for one size and direction.
func writeMedians(w io.Writer, s *suite, group []*measured) {
	if len(group) == 0 {
		return
	}
	fmt.Fprintf(w, "\n| %s %s | c |", group[0].scenario.way(), sizeName(group[0].scenario.size))
	for _, f := range figures {
		fmt.Fprintf(w, " %s |", f.name)
	}
	fmt.Fprintf(w, "\n| --- | --: |%s\n", strings.Repeat(" --: |", len(figures)))
	for _, p := range s.peers {
		for _, m := range group {
			if len(m.results[p.name]) == 0 {
				continue
			}
			fmt.Fprintf(w, "| %s | %d |", p.name, m.scenario.streams)
			for _, f := range figures {
				fmt.Fprintf(w, " %s |", f.text(m.figure(f, p.name).median))
			}
			fmt.Fprintln(w)
		}
	}
}
