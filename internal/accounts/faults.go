package accounts

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Fault is one error in an accounts file. It never shows a secret, nor a value in the place of a secret's name.
type Fault struct {
	File string
	// Line counts from 1; 0 means the file as a whole.
	Line int
	// Text says what is wrong and what to do.
	Text string
}

// String returns "FILE:LINE: TEXT".
func (f Fault) String() string {
	if f.Line == 0 {
		return f.File + ": " + f.Text
	}
	return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Text)
}

// Faults are all errors in an accounts file, by line.
type Faults []Fault

// Error returns one line for each fault.
func (f Faults) Error() string { return f.join("\n") }

// OneLine returns all faults on one line, for a log.
func (f Faults) OneLine() string { return f.join("; ") }

func (f Faults) join(separator string) string {
	texts := make([]string, len(f))
	for i, fault := range f {
		texts[i] = fault.String()
	}
	return strings.Join(texts, separator)
}

func (f Faults) sort() {
	slices.SortStableFunc(f, func(a, b Fault) int { return cmp.Compare(a.Line, b.Line) })
}
