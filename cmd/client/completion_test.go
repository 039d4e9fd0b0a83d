package main

import (
	"strings"
	"testing"
)

func TestCompletion(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g)
	s.session = ""
	s.ok("--profile", "work", "sign-in", "--address", g.address)
	s.signIn()
	write(t, "cat.jpg", picture(10))
	short := shortName(s.ok("upload", "cat.jpg"))
	s.ok("ls")
	for line, want := range map[string]string{
		"lpfileshare who": "whoami", "lpfileshare conversation cl": "close", "lpfileshare upload --paral": "--parallel",
		"lpfileshare upload ca": "cat.jpg", "lpfileshare stat ": short, "lpfileshare --profile ": "work", "lpfileshare conversation list --state cl": "closed",
	} {
		t.Setenv("COMP_LINE", line)
		if code, out, errs := s.run(t.Context()); code != exitOK || errs != "" || strings.TrimSpace(out) != want {
			t.Errorf("%q is completed with %q, want %q; exit code %d, %s", line, out, want, code, errs)
		}
	}
	t.Setenv("COMP_LINE", "")
	for shell, want := range map[string]string{"bash": "complete -o", "zsh": "bashcompinit", "fish": "complete -f -c lpfileshare"} {
		if got := s.ok("completion", "-c", shell); !strings.Contains(got, want) {
			t.Errorf("%s: %s", shell, got)
		}
	}
}
