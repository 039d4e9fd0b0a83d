package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lpfileshare/lpfileshare/bench/load"
)

func TestLimits_FileIsValid(t *testing.T) {
	limits, err := readLimits(limitsText)
	if err != nil || len(limits) == 0 {
		t.Fatal(limits, err)
	}
	for _, wrong := range []string{"speed up 1000 8 1", "peak-mib sideways 1000 8 1", "peak-mib up 1000 8", "peak-mib up 1000 eight 1"} {
		if _, err := readLimits(wrong); err == nil {
			t.Errorf("%q is accepted", wrong)
		}
	}
}

func TestRatio_IsOfTheSameRound(t *testing.T) {
	m := &measured{results: map[string][]*load.Result{"a": {{Rate: 10}, {Rate: 300}, {Rate: 40}}, "b": {{Rate: 5}, {Rate: 100}, {Rate: 40}}}}
	if got, want := m.ratio(throughput, "a", "b").String(), "2.00 (1.00-3.00)"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := m.ratio(throughput, "a", "c").String(); got != "–" {
		t.Errorf("without results: %q", got)
	}
}

func TestVerdict(t *testing.T) {
	s := &sweep{unit: "stream", reason: "why"}
	for _, c := range []struct {
		points [][2]float64
		want   string
	}{
		{[][2]float64{{1, 10}, {100, 11}, {1000, 9}}, "flat"},
		{[][2]float64{{1, 12}, {100, 210}, {1000, 2010}}, "line: 10 + 2 per stream"},
		{[][2]float64{{1, 1}, {100, 10_000}, {1000, 1_000_000}}, "neither: why"},
	} {
		if got := s.verdict(line{points: c.points}); got != c.want {
			t.Errorf("%v: %q, want %q", c.points, got, c.want)
		}
	}
}

func TestReplaceSection(t *testing.T) {
	file := filepath.Join(t.TempDir(), "page.md")
	const page = "before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n"
	if err := os.WriteFile(file, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := replaceSection(file, "bench", []byte("new\n")); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	if want := strings.Replace(page, "old", "new", 1); err != nil || string(got) != want {
		t.Errorf("%q, %v", got, err)
	}
	if err := replaceSection(file, "other", nil); err == nil {
		t.Error("a section that is not there was replaced")
	}
}
