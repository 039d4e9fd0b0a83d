package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lpfileshare/lpfileshare/bench/load"
)

// A sweep measures the server while one thing grows.
type sweep struct {
	title, x, unit, y string // what grows, the unit of a slope, and what is measured
	// reason says why the result is neither flat nor a line, if it is not.
	reason string
	lines  []line
	left   []string
}

// point measures one value. Several rounds give several values, of which the median counts.
type point func(ctx context.Context) (float64, error)

// add measures a line of a sweep. What cannot be measured is left out and named.
func (s *sweep) add(ctx context.Context, name string, rounds int, xs []float64, at func(x float64) point) error {
	l := line{name: name}
	for _, x := range xs {
		var values []float64
		for range rounds {
			v, err := at(x)(ctx)
			if ctx.Err() != nil || errors.Is(err, errWrongBytes) {
				return err
			}
			if err != nil {
				s.left = append(s.left, fmt.Sprintf("%s, %g %s: %v", name, x, s.x, err))
				values = nil
				break
			}
			values = append(values, v)
		}
		if len(values) == 0 {
			continue
		}
		l.points = append(l.points, [2]float64{x, spreadOf(values).median})
	}
	s.lines = append(s.lines, l)
	fmt.Fprintf(os.Stderr, "%s, %s: %.3g: %s\n", s.title, name, l.points, s.verdict(l))
	return nil
}

// How far the points may be from a constant, and from a line, relative to themselves.
const (
	flatWithin = 0.25
	lineWithin = 0.25
)

// verdict says whether a line is flat or straight, and with what slope.
func (s *sweep) verdict(l line) string {
	if len(l.points) < 3 {
		return "too few points"
	}
	least, most := math.Inf(1), 0.0
	for _, p := range l.points {
		least, most = min(least, p[1]), max(most, p[1])
	}
	if most <= least*(1+2*flatWithin) {
		return "flat"
	}
	if a, b, off := fit(l.points); off <= lineWithin {
		return fmt.Sprintf("line: %.3g + %.3g per %s", a, b, s.unit)
	}
	return "neither: " + s.reason
}

// fit returns the line y = a + b*x with the least squares of relative errors, and the largest relative error.
func fit(points [][2]float64) (a, b, off float64) {
	var w, wx, wy, wxx, wxy float64
	for _, p := range points {
		weight := 1 / (p[1] * p[1])
		w, wx, wy = w+weight, wx+weight*p[0], wy+weight*p[1]
		wxx, wxy = wxx+weight*p[0]*p[0], wxy+weight*p[0]*p[1]
	}
	b = (w*wxy - wx*wy) / (w*wxx - wx*wx)
	a = (wy - b*wx) / w
	for _, p := range points {
		off = max(off, math.Abs(a+b*p[0]-p[1])/p[1])
	}
	return a, b, off
}

// A grower measures how cost grows.
type grower struct {
	rig    *rig
	rounds int
	pace   pace
	sweeps []*sweep
	// facts are rows of the capacity table.
	facts [][3]string
}

// growth measures all sweeps, and writes the page if there is one to write.
func growth(ctx context.Context, args []string) error {
	set := flag.NewFlagSet("bench growth", flag.ContinueOnError)
	program := set.String("server", "", "server to measure; default: the one of this source tree, which is built")
	rounds := set.Int("rounds", 3, "number of measurements of each point")
	busy := set.Float64("calm", calm, "CPU that other programs may use during a measurement, in `cores`; with more it is repeated once")
	out := set.String("out", "", "folder of performance.md, which gets the tables and plots; default: none")
	if err := set.Parse(args); err != nil {
		return err
	}
	r, err := newRig(*program, 0, 0)
	if err != nil {
		return err
	}
	defer r.close()
	g := &grower{rig: r, rounds: *rounds, pace: pace{warm: 300 * time.Millisecond, window: time.Second, calm: *busy}}
	begun := time.Now()
	for _, step := range []func(context.Context) error{g.streams, g.sizes, g.chunks, g.providerRTT, g.clientRTT, g.sessions, g.ledger} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "\n%s It took %s, with %d measurements of each point.\n", machine(*program), time.Since(begun).Round(time.Second), *rounds)
	g.write(&b)
	if *out == "" {
		_, err := os.Stdout.Write(b.Bytes())
		return err
	}
	if err := os.WriteFile(filepath.Join(*out, "performance-growth.svg"), g.draw(), 0o644); err != nil {
		return err
	}
	b.WriteString("\n![How cost grows](performance-growth.svg)\n\n")
	return replaceSection(filepath.Join(*out, pageName), "bench-growth", b.Bytes())
}

// sweep begins a sweep.
func (g *grower) sweep(title, x, unit, y, reason string) *sweep {
	s := &sweep{title: title, x: x, unit: unit, y: y, reason: reason}
	g.sweeps = append(g.sweeps, s)
	return s
}

// ways calls do for uploads and for downloads.
func ways(do func(up bool, way string) error) error {
	if err := do(true, "up"); err != nil {
		return err
	}
	return do(false, "down")
}

// value measures a figure of this server in a scenario.
func (g *grower) value(s scenario, f figure) point {
	return func(ctx context.Context) (float64, error) {
		r, err := measureAgain(ctx, g.rig, server(ours, "", "", false), s, g.pace)
		if err != nil {
			return 0, err
		}
		return f.of(s, r), nil
	}
}

func (g *grower) streams(ctx context.Context) error {
	const size = 100_000
	cpu := g.sweep("Transfers at once, files of 100 KB", "transfers at once", "transfer", cpuPerFile.name, "a single transfer pays for the wake-ups that many share")
	memory := g.sweep("Transfers at once, files of 100 KB", "transfers at once", "transfer", peak.name, "memory is within the budgets of uploads and downloads")
	xs := []float64{1, 8, 64, 256, 1000, 2000}
	return ways(func(up bool, way string) error {
		results := map[float64][]*load.Result{}
		at := func(x float64) scenario { return scenario{up: up, size: size, streams: int(x)} }
		peaks := line{name: way}
		err := cpu.add(ctx, way, g.rounds, xs, func(x float64) point {
			return func(ctx context.Context) (float64, error) {
				r, err := measureAgain(ctx, g.rig, server(ours, "", "", false), at(x), g.pace)
				if err != nil {
					return 0, err
				}
				results[x] = append(results[x], r)
				return cpuPerFile.of(at(x), r), nil
			}
		})
		if err != nil {
			return err
		}
		for _, p := range cpu.lines[len(cpu.lines)-1].points {
			var values []float64
			for _, r := range results[p[0]] {
				values = append(values, peak.of(at(p[0]), r))
			}
			peaks.points = append(peaks.points, [2]float64{p[0], spreadOf(values).median})
		}
		memory.lines = append(memory.lines, peaks)
		return nil
	})
}

func (g *grower) sizes(ctx context.Context) error {
	s := g.sweep("Size of a file, 8 transfers at once", "MB", "MB", cpuPerFile.name, "")
	return ways(func(up bool, way string) error {
		err := s.add(ctx, way, g.rounds, []float64{0.001, 0.01, 0.1, 0.3, 1, 3}, func(x float64) point {
			return g.value(scenario{up: up, size: int(x * 1e6), streams: 8}, cpuPerFile)
		})
		if err != nil {
			return err
		}
		points := s.lines[len(s.lines)-1].points
		for _, p := range points {
			if p[0] == 0.1 || p[0] == 3 {
				g.fact(fmt.Sprintf("transfers %s of %s per second and core", way, sizeName(int(p[0]*1e6))), fmt.Sprintf("%.0f", 1000/p[1]),
					fmt.Sprintf("%.2f ms of the server's CPU time each", p[1]))
			}
		}
		return nil
	})
}

func (g *grower) chunks(ctx context.Context) error {
	s := g.sweep("Number of chunks, files of 3 MB, 8 transfers at once", "chunks per file", "chunk", cpuPerFile.name, "")
	const size = 3_000_000
	return ways(func(up bool, way string) error {
		xs := []float64{3, 6, 12, 23, 46, 184, 733}
		return s.add(ctx, way, g.rounds, xs, func(x float64) point {
			chunk := int(math.Ceil(size / x))
			return g.value(scenario{up: up, size: size, streams: 8, chunk: chunk}, cpuPerFile)
		})
	})
}

var rtts = []float64{1, 20, 80}

// providerRTT delays the answers of LivePerson's stand-in and of the store.
func (g *grower) providerRTT(ctx context.Context) error {
	s := g.sweep("Round trip to LivePerson and to the store, one transfer at a time of 100 KB", "ms of round trip", "ms", p50.name, "")
	rigs := map[float64]*rig{}
	defer func() {
		for _, r := range rigs {
			r.close()
		}
	}()
	for _, rtt := range rtts {
		delay := time.Duration(rtt * float64(time.Millisecond))
		var err error
		if rigs[rtt], err = newRig(g.rig.server, delay, delay); err != nil {
			return err
		}
	}
	return ways(func(up bool, way string) error {
		return s.add(ctx, way, g.rounds, rtts, func(x float64) point {
			other := *g
			other.rig = rigs[x]
			return other.value(scenario{up: up, size: 100_000, streams: 1}, p50)
		})
	})
}

// clientRTT puts a proxy that delays every byte between the client and the server.
func (g *grower) clientRTT(ctx context.Context) error {
	s := g.sweep("Round trip between the client and the server, one transfer at a time of 3 MB", "ms of round trip", "ms", p50.name, "")
	near := server(ours, "", "", false)
	return ways(func(up bool, way string) error {
		sc := scenario{up: up, size: 3_000_000, streams: 1}
		return s.add(ctx, way, g.rounds, rtts, func(x float64) point {
			far := near
			far.start = func(r *rig, job *load.Job) (func(), error) {
				stop, err := near.start(r, job)
				if err != nil {
					return nil, err
				}
				proxy, err := r.start("delay", "-target", job.Addr, "-rtt", fmt.Sprintf("%gms", x))
				if err != nil {
					stop()
					return nil, err
				}
				job.Addr, job.Beside = proxy.addr, append(job.Beside, proxy.PID())
				return func() { proxy.Kill(); stop() }, nil
			}
			return func(ctx context.Context) (float64, error) {
				r, err := measureAgain(ctx, g.rig, far, sc, pace{warm: time.Second, window: 2 * time.Second, calm: g.pace.calm})
				if err != nil {
					return 0, err
				}
				return p50.of(sc, r), nil
			}
		})
	})
}

func (g *grower) fact(what, value, note string) {
	g.facts = append(g.facts, [3]string{what, value, note})
}

// write writes the capacity table and a table of each sweep, with its verdicts.
func (g *grower) write(w io.Writer) {
	fmt.Fprintf(w, "\n| capacity | | |\n| --- | --: | --- |\n")
	for _, f := range g.facts {
		fmt.Fprintf(w, "| %s | %s | %s |\n", f[0], f[1], f[2])
	}
	for _, s := range g.sweeps {
		s.write(w)
	}
}

// write writes a row for each value of x, and the verdicts.
func (s *sweep) write(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %s\n\n| %s |", s.title, s.y, s.x)
	xs := map[float64]bool{}
	for _, l := range s.lines {
		fmt.Fprintf(w, " %s |", l.name)
		for _, p := range l.points {
			xs[p[0]] = true
		}
	}
	fmt.Fprintf(w, "\n| --: |%s\n", strings.Repeat(" --: |", len(s.lines)))
	for _, x := range slices.Sorted(maps.Keys(xs)) {
		fmt.Fprintf(w, "| %g |", x)
		for _, l := range s.lines {
			i := slices.IndexFunc(l.points, func(p [2]float64) bool { return p[0] == x })
			if i < 0 {
				fmt.Fprint(w, " – |")
				continue
			}
			fmt.Fprintf(w, " %.3g |", l.points[i][1])
		}
		fmt.Fprintln(w)
	}
	fmt.Fprint(w, "| verdict |")
	for _, l := range s.lines {
		fmt.Fprintf(w, " %s |", s.verdict(l))
	}
	fmt.Fprintln(w)
	for _, left := range s.left {
		fmt.Fprintf(w, "\nNot measured: %s.\n", left)
	}
}

func (g *grower) draw() []byte {
	var panels []panel
	for _, s := range g.sweeps {
		title, _, _ := strings.Cut(s.title, ",")
		panels = append(panels, panel{title: title + ": " + s.y, x: s.x, lines: s.lines})
	}
	return draw(panels)
}
