package accounts

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Fault is one thing that is wrong with an accounts file. It never shows a secret, nor what stands where one was to be named.
type Fault struct {
	File string
	// Line counts from 1; 0: it is about the file as a whole.
	Line int
	// Text says what is wrong, and what to do.
	Text string
}

// String is FILE:LINE: and the text.
func (f Fault) String() string {
	if f.Line == 0 {
		return f.File + ": " + f.Text
	}
	return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Text)
}

// Faults are all that is wrong with an accounts file, by line.
type Faults []Fault

// Error gives each fault a line of its own.
func (f Faults) Error() string { return f.join("\n") }

// OneLine is Error for a log.
func (f Faults) OneLine() string { return f.join("; ") }

func (f Faults) join(between string) string {
	texts := make([]string, len(f))
	for i, fault := range f {
		texts[i] = fault.String()
	}
	return strings.Join(texts, between)
}

func (f Faults) sort() {
	slices.SortStableFunc(f, func(a, b Fault) int { return cmp.Compare(a.Line, b.Line) })
}
