package main

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// TestFlags_Settings compares the tables of settings in docs/operations.md with the flags.
func TestFlags_Settings(t *testing.T) {
	t.Parallel()
	const page = "../../docs/operations.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := []byte("<!-- settings -->\n"), []byte("<!-- /settings -->")
	before, rest, ok := bytes.Cut(text, begin)
	_, after, ok2 := bytes.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatal("docs/operations.md has no place for the settings")
	}
	want := slices.Concat(before, begin, []byte(settingsTable(t)), end, after)
	if *update {
		if err := os.WriteFile(page, want, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(text, want) {
		t.Error("the flags have changed; run go test ./cmd/server -run TestFlags_Settings -update")
	}
}

// settingsTable returns a table of flags for each group of the help.
func settingsTable(t *testing.T) string {
	t.Helper()
	k, err := kong.New(&flags{}, kong.Vars{"version": "", "documents": strings.Trim(fmt.Sprint(share.Documents()), "[]")}, kong.DefaultEnvars(envPrefix))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	group := ""
	for _, f := range k.Model.Flags {
		if f.Name == "help" || f.Name == "version" {
			continue
		}
		g := "Server"
		if f.Group != nil {
			g = strings.TrimSuffix(f.Group.Title, ":")
		}
		if g != group {
			fmt.Fprintf(&b, "\n### %s\n\n| flag | default | effect |\n| --- | --- | --- |\n", g)
			group = g
		}
		standard, effect := defaultOf(f)
		name := "--" + f.Name
		if f.Tag.Negatable != "" {
			name = "--[no-]" + f.Name
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, standard, strings.ReplaceAll(effect, "|", `\|`))
	}
	return b.String() + "\n"
}

// defaultOf returns the default of a flag, and its help without it.
func defaultOf(f *kong.Flag) (standard, effect string) {
	effect = f.Help
	switch {
	case f.HasDefault:
		standard = "`" + f.Default + "`"
		effect = strings.Replace(effect, " ("+f.Default+")", "", 1)
		effect = strings.Replace(effect, "("+f.Default+"; ", "(", 1)
		return standard, effect
	case f.IsBool():
		standard = "off"
	}
	if m := regexp.MustCompile(`^(.*?)\s*Default: (.*)\.$`).FindStringSubmatch(effect); m != nil {
		return m[2], m[1]
	}
	return cmp.Or(standard, "none"), effect
}
