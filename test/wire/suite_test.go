package wire

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestSuite_CountsAndRecords(t *testing.T) {
	const (
		ask    = `{"kind":"req","id":"1","type":"GetClock"}`
		answer = `{"kind":"resp","reqId":"1","code":200,"type":".GetClock$Response","body":{"currentTime":1513813587308}}`
		odd    = `{"kind":"req","id":1,"type":"GetClock"}`
	)
	dir := t.TempDir()
	t.Setenv(RecordEnv, dir)
	s := NewSuite("some")
	if s.End() == nil {
		t.Error("no error without a frame")
	}
	tap := func() *Tap {
		t.Helper()
		tap, err := s.Tap()
		if err != nil {
			t.Fatal(err)
		}
		return tap
	}
	good := tap()
	good.Check(fromClient(ask))
	good.Check(fromServer(answer))
	good.Check(fromServer(garbage))
	good.Exempt(fromClient(odd))
	other := tap()
	other.CheckForeign(fromClient(odd))
	other.CheckForeign(fromServer(answer))
	other.CheckForeign(fromServer(garbage))
	silent := tap()
	for name, tap := range map[string]*Tap{"good": good, "another's": other, "silent": silent} {
		if err := tap.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	bad := tap()
	bad.Check(fromClient(odd))
	if err := bad.Close(); err == nil || !strings.Contains(err.Error(), "1 of 1 frames are invalid") {
		t.Errorf("an invalid frame: %v", err)
	}
	if s.checked != 4 || s.exempt != 3 {
		t.Errorf("%d frames checked and %d exempt, want 4 and 3", s.checked, s.exempt)
	}
	if err := s.End(); err != nil {
		t.Error(err)
	}
	var got []string
	for f, err := range Recorded(filepath.Join(dir, "some")) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(f.Data))
	}
	if want := []string{ask, answer, answer, odd}; !slices.Equal(got, want) {
		t.Errorf("recorded:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// silent are the packages whose tests start sandboxes but open no socket.
var silent = []string{"internal/lprest", "internal/swift", "test/faults/audit"}

var (
	startsSandbox = regexp.MustCompile(`\bsandbox\.Start\(|\bStart\(opts\)`)
	suiteOf       = regexp.MustCompile(`\.NewSuite\("([\w-]+)"\)|check-frames -suite ([\w-]+)`)
	runsSandbox   = regexp.MustCompile(`lpfileshare-server(?:"|[^\n])*--sandbox\b|^  --sandbox\b`)
)

// TestSuites_CoverEverySandbox finds the packages and scripts that start a sandbox. Each must have a Suite, which must be in the
// Makefile's list for check-wire.
func TestSuites_CoverEverySandbox(t *testing.T) {
	root := filepath.Join("..", "..")
	starts, suites := map[string]bool{}, map[string]string{} // by folder
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if strings.HasPrefix(name, ".") && path != root && name != ".ci" || name == "node_modules" || name == "bin" {
				return fs.SkipDir
			}
			return nil
		}
		isTest, isScript := strings.HasSuffix(name, "_test.go"), name == "run" && d.Type().IsRegular()
		if !isTest && !isScript {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		folder, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		if folder == filepath.Join("test", "wire") { // checks its own frames
			return nil
		}
		if isTest && startsSandbox.Match(text) || isScript && runsSandbox.Match(text) {
			starts[filepath.ToSlash(folder)] = true
		}
		if m := suiteOf.FindSubmatch(text); m != nil {
			suites[filepath.ToSlash(folder)] = string(m[1]) + string(m[2])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(starts) < 8 {
		t.Errorf("only %v start sandboxes; check the search pattern", slices.Sorted(maps.Keys(starts)))
	}
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(makefile), "\nSUITES ")
	list, _, _ = strings.Cut(list, "\n.PHONY")
	listed := strings.Fields(strings.ReplaceAll(list, `\`, " "))
	for folder := range starts {
		if suites[folder] == "" && !slices.Contains(silent, folder) {
			t.Errorf("%s starts sandboxes whose frames are not checked; add a wire.Suite, or --sandbox-frames and check-frames", folder)
		}
	}
	for folder, suite := range suites {
		if suite != "some" && !slices.Contains(listed, suite) && !strings.HasPrefix(folder, "test/wire") {
			t.Errorf("%s has the suite %s, which is not among the SUITES of the Makefile", folder, suite)
		}
	}
}
