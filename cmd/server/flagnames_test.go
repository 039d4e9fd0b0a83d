package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

var update = flag.Bool("update", false, "write the golden files")

// TestFlags_Names compares the names of all flags with testdata/flags.txt, from which the tests of cmd/client learn them.
func TestFlags_Names(t *testing.T) {
	t.Parallel()
	k, err := kong.New(&flags{}, kong.Vars{"version": "", "documents": ""}, kong.DefaultEnvars("LPFILESHARE"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range k.Model.Flags {
		want := "LPFILESHARE_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		for _, env := range f.Envs {
			if env != want {
				t.Errorf("--%s is set by %s, want %s", f.Name, env, want)
			}
		}
		if len(f.Aliases) > 0 {
			t.Errorf("--%s has the second names %v", f.Name, f.Aliases)
		}
		lines = append(lines, strings.TrimSpace(fmt.Sprintln(f.Name, strings.Join(f.Envs, " "))))
	}
	slices.Sort(lines)
	got := strings.Join(lines, "\n") + "\n"
	if *update {
		if err := os.WriteFile("testdata/flags.txt", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile("testdata/flags.txt"); err != nil || got != string(want) {
		t.Errorf("%v: the flags have changed; run go test ./cmd/server -run TestFlags_Names -update", err)
	}
}
