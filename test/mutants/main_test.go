package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPatches_AreWellFormed reads all patches, so that a mistake in a header is found before they are run.
func TestPatches_AreWellFormed(t *testing.T) {
	patches, err := load(filepath.Join("..", ".."), "")
	if err != nil {
		t.Fatal(err)
	}
	if len(patches) < 10 {
		t.Errorf("only %d patches", len(patches))
	}
	promises := map[string]bool{}
	for _, p := range patches {
		if promises[p.breaks] {
			t.Errorf("%s breaks what another breaks too", p.name)
		}
		promises[p.breaks] = true
	}
}

// A tree is a module with one function and its tests.
func tree(t *testing.T) *lab {
	t.Helper()
	l := &lab{root: t.TempDir(), work: t.TempDir()}
	for name, text := range map[string]string{
		"go.mod":      "module tree\n\ngo 1.26\n",
		"sum/sum.go":  "package sum\n\nfunc Sum(a, b int) int {\n\treturn a + b\n}\n",
		"sum/file.go": "package sum\n",
		"sum/sum_test.go": `package sum

import "testing"

func TestSum(t *testing.T) {
	for name, b := range map[string]int{"zero": 0, "one": 1} {
		t.Run(name, func(t *testing.T) {
			if got := Sum(2, b); got != 2+b {
				t.Error(got)
			}
		})
	}
}

func TestNothing(t *testing.T) {}

func TestWrong(t *testing.T) { t.Error("is never green") }

func TestLeftOut(t *testing.T) { t.Skip() }
`,
	} {
		file := filepath.Join(l.root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func (l *lab) patch(t *testing.T, name, test, was, is string) *patch {
	t.Helper()
	text := "Breaks: the sum\nTest: ./sum " + test + "\n\ndiff --git a/sum/sum.go b/sum/sum.go\n--- a/sum/sum.go\n+++ b/sum/sum.go\n" +
		"@@ -3,3 +3,3 @@\n func Sum(a, b int) int {\n-\t" + was + "\n+\t" + is + "\n }\n"
	p, err := parse(name, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	p.file = filepath.Join(l.work, name+".patch")
	if err := os.WriteFile(p.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRun_ReportsEachWayToMissAMutant(t *testing.T) {
	l := tree(t)
	const right, wrong = "return a + b", "return a - b"
	for _, c := range []struct{ name, test, was, is, want string }{
		{"caught", "TestSum", right, wrong, ""},
		{"caught-by-a-case", "TestSum/one", right, wrong, ""},
		{"green", "TestNothing", right, wrong, "stays green"},
		{"green-case", "TestSum/zero", right, wrong, "stays green"},
		{"no-such-test", "TestSomething", right, wrong, "did not fail as a test does"},
		{"skipped", "TestLeftOut", right, wrong, "did not fail as a test does"},
		{"gone", "TestSum", "return b + a", wrong, "does not apply any more"},
		{"unbuilt", "TestSum", right, "return c", "does not build"},
		{"dies", "TestNothing", right, "return a - b\n+}\n+\n+func init() {\n+\tpanic(0)", "did not fail as a test does"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := l.patch(t, c.name, c.test, c.was, c.is)
			if c.name == "dies" {
				lengthen(t, p)
			}
			why := l.try(t.Context(), p)
			if (why == "") != (c.want == "") || !strings.Contains(why, c.want) {
				t.Errorf("it says %q, and not %q", why, c.want)
			}
			if text, err := os.ReadFile(filepath.Join(l.root, "sum", "sum.go")); err != nil || !strings.Contains(string(text), right) {
				t.Errorf("the tree was changed: %s %v", text, err)
			}
		})
	}
}

// lengthen corrects the line count of a patch that adds four more.
func lengthen(t *testing.T, p *patch) {
	t.Helper()
	text, err := os.ReadFile(p.file)
	if err == nil {
		err = os.WriteFile(p.file, []byte(strings.Replace(string(text), "+3,3 @@", "+3,7 @@", 1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestRun_RequiresGreenTree(t *testing.T) {
	l := tree(t)
	patches := func(tests ...string) (ps []*patch) {
		for _, test := range tests {
			ps = append(ps, l.patch(t, strings.ReplaceAll(test, "/", "-"), test, "return a + b", "return a - b"))
		}
		return ps
	}
	if err := l.control(t.Context(), patches("TestSum", "TestSum/one", "TestNothing")); err != nil {
		t.Error(err)
	}
	for _, test := range []string{"TestWrong", "TestSomething", "TestLeftOut", "TestSum/two"} {
		if err := l.control(t.Context(), patches("TestSum", test)); err == nil || !strings.Contains(err.Error(), test) {
			t.Errorf("%s: %v", test, err)
		}
	}
}

func TestReport(t *testing.T) {
	p := &patch{name: "n", breaks: "b", pkg: "./p", test: "TestT"}
	if err := report([]result{{patch: p, caught: true}}, 0); err != nil {
		t.Error(err)
	}
	if report([]result{{patch: p, caught: true}, {patch: p, why: "the test stays green"}}, 0) == nil {
		t.Error("a breakage that was missed is no error")
	}
}

func TestPatches_RejectsInvalid(t *testing.T) {
	const diff = "\ndiff --git a/x.go b/x.go\n"
	for what, text := range map[string]string{
		"no header":       diff,
		"no test":         "Breaks: x\n" + diff,
		"no promise":      "Test: ./x TestX\n" + diff,
		"two tests":       "Breaks: x\nTest: ./x TestX TestY\n" + diff,
		"no package":      "Breaks: x\nTest: TestX\n" + diff,
		"no change":       "Breaks: x\nTest: ./x TestX\n",
		"a test changed":  "Breaks: x\nTest: ./x TestX\n\ndiff --git a/x_test.go b/x_test.go\n",
		"a file is moved": "Breaks: x\nTest: ./x TestX\n\ndiff --git a/x.go b/y.go\n",
	} {
		if _, err := parse("x", []byte(text)); err == nil {
			t.Errorf("%s is no error", what)
		}
	}
	if _, err := load(t.TempDir(), ""); err == nil {
		t.Error("no patches are no error")
	}
}

// TestPatches_Refresh goes the way that README.md shows for a patch whose context has changed.
func TestPatches_Refresh(t *testing.T) {
	l := tree(t)
	ctx := context.Background()
	git := func(args ...string) {
		t.Helper()
		args = append([]string{"-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"}, args...)
		if said, err := output(ctx, l.root, "git", args...); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, said)
		}
	}
	git("init", "-q")
	dir := filepath.Join(l.root, folder)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	p := l.patch(t, "old", "TestSum", "return b + a", "return a - b")
	if err := os.Rename(p.file, filepath.Join(dir, "old.patch")); err != nil {
		t.Fatal(err)
	}
	git("add", ".")
	git("commit", "-q", "-m", "x")
	if rewrite(ctx, l.root, "old") == nil {
		t.Error("a patch was made of nothing")
	}
	file := filepath.Join(l.root, "sum", "sum.go")
	text, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, []byte(strings.Replace(string(text), "a + b", "a * b", 1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"old", "new"} {
		if err := rewrite(ctx, l.root, name); err != nil {
			t.Fatal(err)
		}
	}
	git("checkout", "--", "sum")
	patches, err := load(l.root, "old")
	if err != nil {
		t.Fatal(err)
	}
	if why := l.try(ctx, patches[0]); why != "" || patches[0].breaks != "the sum" {
		t.Errorf("the patch of %q: %s", patches[0].breaks, why)
	}
	if _, err := load(l.root, "new"); err == nil {
		t.Error("a header that is not filled in is no error")
	}
}
