// Check-wire checks recorded frames against the JSON Schemas that LivePerson publishes.
//
//	check-wire -schemas FOLDER [-frames FOLDER] SUITE...
//
// The schemas' folder has the layout of LivePerson's "assets/schema". The frames' folder has a folder for each suite, written by a
// wire.Suite. Some correct frames fail because the schemas differ from LivePerson's services and clients. A table lists each such
// difference, with the reason, as a change that converts the frame to what the schemas describe. A failing frame is explained if it
// passes after such changes.
//
// It exits with 1 if a suite has no frame, or a frame fails without an explanation.
package main

import (
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/lpfileshare/lpfileshare/test/wire"
)

func main() {
	schemas := flag.String("schemas", "", "`folder` of LivePerson's schemas")
	frames := flag.String("frames", ".frames", "`folder` of recorded frames")
	flag.Parse()
	if *schemas == "" || flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*schemas, *frames, flag.Args(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "check-wire:", err)
		os.Exit(1)
	}
}

// run checks the frames of the suites and prints the result. The command exits with 1 if it returns an error.
func run(schemas, frames string, suites []string, out io.Writer) error {
	p, err := load(schemas)
	if err != nil {
		return err
	}
	t := tally{rows: map[string]*row{}, reasons: map[string]int{}}
	var silent []string
	for _, suite := range suites {
		before := t.frames
		for f, err := range wire.Recorded(filepath.Join(frames, suite)) {
			if err != nil {
				return err
			}
			t.add(p.check(f))
		}
		if n := t.frames - before; n == 0 {
			silent = append(silent, suite)
		} else {
			_, _ = fmt.Fprintf(out, "%s: %d frames\n", suite, n)
		}
	}
	t.print(out)
	switch {
	case len(silent) > 0:
		return fmt.Errorf("no frames of %s; record some first", strings.Join(silent, ", "))
	case t.unexplained > 0:
		return fmt.Errorf("%d frames fail without an explanation", t.unexplained)
	}
	return nil
}

// A verdict is the result for one frame.
type verdict struct {
	kind     string   // dialect, direction and type
	reasons  []string // names of the exceptions that explain a failure
	failure  error    // nil if the frame passed, or its failure is explained
	evidence []byte   // the frame
}

// A tally counts verdicts.
type tally struct {
	rows                           map[string]*row
	reasons                        map[string]int
	failures                       []string
	frames, explained, unexplained int
}

type row struct{ checked, passed, explained, unexplained int }

func (t *tally) add(v verdict) {
	r := t.rows[v.kind]
	if r == nil {
		r = &row{}
		t.rows[v.kind] = r
	}
	t.frames++
	r.checked++
	switch {
	case v.failure != nil:
		t.unexplained++
		r.unexplained++
		if len(t.failures) < 20 {
			t.failures = append(t.failures, fmt.Sprintf("%s: %v\n\t%s", v.kind, v.failure, shorten(string(v.evidence), 300)))
		}
	case len(v.reasons) > 0:
		t.explained++
		r.explained++
		for _, name := range v.reasons {
			t.reasons[name]++
		}
	default:
		r.passed++
	}
}

func (t *tally) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "CHECKED\tPASSED\tEXPLAINED\tUNEXPLAINED\tFRAMES")
	for _, kind := range slices.Sorted(maps.Keys(t.rows)) {
		r := t.rows[kind]
		_, _ = fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%s\n", r.checked, r.passed, r.explained, r.unexplained, kind)
	}
	if t.explained > 0 {
		_, _ = fmt.Fprintln(w, "\nFRAMES\tEXCEPTION\tREASON")
		for _, e := range exceptions {
			if n := t.reasons[e.name]; n > 0 {
				_, _ = fmt.Fprintf(w, "%d\t%s\t%s\n", n, e.name, e.reason)
			}
		}
	}
	_ = w.Flush()
	for _, f := range t.failures {
		_, _ = fmt.Fprintln(out, "unexplained:", f)
	}
	_, _ = fmt.Fprintf(out, "check-wire: %d frames checked, %d explained exceptions, %d unexplained\n", t.frames, t.explained, t.unexplained)
}

// shorten returns s on one line of limited length.
func shorten(s string, most int) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > most {
		s = s[:most] + "…"
	}
	return s
}
