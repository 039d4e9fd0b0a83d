package cmdline

import (
	"fmt"
	"testing"

	"github.com/alecthomas/kong"
)

func TestRawStrings(t *testing.T) {
	const name = "lat\xe9,a\\b.jpg"
	var line struct {
		Dir   string
		From  string   `env:"CMDLINE_TEST_FROM"`
		Files []string `arg:"" sep:"none"`
	}
	t.Setenv("CMDLINE_TEST_FROM", name)
	parser, err := kong.New(&line, RawStrings())
	if err == nil {
		_, err = parser.Parse([]string{"--dir", name, name, "b"})
	}
	if got, want := fmt.Sprintf("%q", line), fmt.Sprintf("%q", struct {
		Dir, From string
		Files     []string
	}{name, name, []string{name, "b"}}); err != nil || got != want {
		t.Errorf("%v, parsed %s, want %s", err, got, want)
	}
}
