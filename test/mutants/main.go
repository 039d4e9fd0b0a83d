// Mutants shows that the tests notice breakages. Each patch in this folder breaks one promise, and names the test that must then
// fail; see README.md.
//
//	go run ./test/mutants [-only TEXT]     run those whose name holds the text
//	go run ./test/mutants -write NAME      make a patch anew of the changes in the working tree
//
// It exits with 1 if a patch does not apply any more, if its test stays green or does not fail as a test does, and if the test is
// not green without it. The working tree is left alone: what a patch changes goes into a copy, and the go command builds with that
// copy in the file's place (-overlay).
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"
)

const (
	// folder is where the patches are, below the module's root.
	folder = "test/mutants"
	// testTimeout is how long the named test may take.
	testTimeout = 60 * time.Second
	// atOnce is how many are built and run at the same time.
	atOnce = 2
)

func main() {
	only := flag.String("only", "", "run the patches whose name holds this `text`")
	write := flag.String("write", "", "make the patch of this `name` anew of the changes in the working tree")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *only, *write)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only, write string) error {
	root, err := output(ctx, "", "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return err
	}
	root = strings.TrimSpace(root)
	if write != "" {
		return rewrite(ctx, root, write)
	}
	patches, err := load(root, only)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "lpfileshare-mutants")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	begun := time.Now()
	lab := &lab{root: root, work: work}
	if err := lab.control(ctx, patches); err != nil {
		return err
	}
	results := lab.all(ctx, patches)
	if err := ctx.Err(); err != nil {
		return err
	}
	return report(results, time.Since(begun))
}

// A patch is one breakage.
type patch struct {
	name, file string
	breaks     string   // the promise that it breaks
	pkg, test  string   // the package, and the test in it, as "TestX" or "TestX/case"
	touches    []string // files, below the module's root
}

var (
	breaksLine = regexp.MustCompile(`(?m)^Breaks: (.+)$`)
	testLine   = regexp.MustCompile(`(?m)^Test: (\./\S+) (Test\w+(?:/\S+)?)$`)
	diffLine   = regexp.MustCompile(`(?m)^diff --git a/(\S+) b/(\S+)$`)
)

// load reads the patches.
func load(root, only string) ([]*patch, error) {
	files, err := filepath.Glob(filepath.Join(root, folder, "*"+only+"*.patch"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no patch in %s has a name with %q in it", folder, only)
	}
	var patches []*patch
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		p, err := parse(strings.TrimSuffix(filepath.Base(file), ".patch"), text)
		if err != nil {
			return nil, err
		}
		p.file = file
		patches = append(patches, p)
	}
	return patches, nil
}

// parse reads a patch with its header.
func parse(name string, text []byte) (*patch, error) {
	header, _, _ := bytes.Cut(text, []byte("\ndiff --git "))
	breaks, test := breaksLine.FindSubmatch(header), testLine.FindSubmatch(header)
	if breaks == nil || test == nil {
		return nil, fmt.Errorf("%s: the header wants a line 'Breaks: promise' and a line 'Test: ./package TestName'", name)
	}
	p := &patch{name: name, breaks: string(breaks[1]), pkg: string(test[1]), test: string(test[2])}
	for _, m := range diffLine.FindAllSubmatch(text, -1) {
		if string(m[1]) != string(m[2]) {
			return nil, fmt.Errorf("%s: a patch that moves files is not understood here", name)
		}
		if strings.HasSuffix(string(m[1]), "_test.go") {
			return nil, fmt.Errorf("%s: it changes a test", name)
		}
		p.touches = append(p.touches, string(m[1]))
	}
	if len(p.touches) == 0 {
		return nil, fmt.Errorf("%s: no file is changed in it", name)
	}
	return p, nil
}

// A lab builds and runs tests of the tree, or of a broken copy of it.
type lab struct{ root, work string }

// A verdict is what a test said.
type verdict int

const (
	broken verdict = iota // it was not built, did not run, or ended otherwise than as a test
	green
	red
)

// control runs all named tests on the unbroken tree: each must be there, and green.
func (l *lab) control(ctx context.Context, patches []*patch) error {
	byPackage := map[string][]*patch{}
	for _, p := range patches {
		byPackage[p.pkg] = append(byPackage[p.pkg], p)
	}
	var mu sync.Mutex
	var errs []error
	each(byPackage, func(pkg string, ps []*patch) {
		binary := filepath.Join(l.work, "unbroken-"+strings.ReplaceAll(strings.Trim(pkg, "./"), "/", "-"))
		said, err := l.build(ctx, pkg, binary, "")
		for _, p := range ps {
			v := broken
			if err == nil {
				v, said = l.test(ctx, binary, p)
			}
			if v != green {
				mu.Lock()
				errs = append(errs, fmt.Errorf("without any breakage %s %s is not green:\n%s", p.pkg, p.test, tail(said)))
				mu.Unlock()
			}
		}
	})
	return errors.Join(errs...)
}

// A result is what became of a patch.
type result struct {
	*patch
	caught bool
	why    string // that it was not
	took   time.Duration
}

func (l *lab) all(ctx context.Context, patches []*patch) []result {
	results := make([]result, len(patches))
	at := map[int]*patch{}
	for i, p := range patches {
		at[i] = p
	}
	each(at, func(i int, p *patch) {
		begun := time.Now()
		why := l.try(ctx, p)
		results[i] = result{p, why == "", why, time.Since(begun)}
		fmt.Printf("%-8s %5.1f s  %s\n", map[bool]string{true: "caught", false: "MISSED"}[why == ""], results[i].took.Seconds(), p.name)
	})
	return results
}

// try breaks a copy and runs the test on it. It returns why the breakage was not caught; "" if it was.
func (l *lab) try(ctx context.Context, p *patch) (why string) {
	dir := filepath.Join(l.work, p.name)
	overlay, err := l.apply(ctx, p, dir)
	if err != nil {
		return "the patch does not apply any more: " + err.Error()
	}
	binary := filepath.Join(dir, "broken.test")
	if said, err := l.build(ctx, p.pkg, binary, overlay); err != nil {
		return "it does not build, so nothing is shown:\n" + tail(said)
	}
	v, said := l.test(ctx, binary, p)
	_ = os.Remove(binary)
	switch v {
	case red:
		return ""
	case green:
		return "the test stays green"
	}
	return "the test did not fail as a test does:\n" + tail(said)
}

// apply makes the broken copies of a patch's files in dir, and the overlay that puts them in the place of the real ones.
func (l *lab) apply(ctx context.Context, p *patch, dir string) (overlay string, err error) {
	var replace []string
	for _, name := range p.touches {
		text, err := os.ReadFile(filepath.Join(l.root, name))
		if err != nil {
			return "", err
		}
		to := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return "", err
		}
		if err := os.WriteFile(to, text, 0o600); err != nil {
			return "", err
		}
		replace = append(replace, fmt.Sprintf("%q: %q", filepath.Join(l.root, name), to))
	}
	if said, err := output(ctx, dir, "git", "apply", p.file); err != nil {
		return "", errors.New(strings.TrimSpace(cmp.Or(said, err.Error())))
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, []byte(`{"Replace": {`+strings.Join(replace, ", ")+`}}`), 0o600)
}

func (l *lab) build(ctx context.Context, pkg, binary, overlay string) (said string, err error) {
	args := []string{"test", "-c", "-ldflags=-s -w", "-o", binary}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	return output(ctx, l.root, "go", append(args, pkg)...)
}

// test runs one test of a binary, in its package's folder as go test does.
func (l *lab) test(ctx context.Context, binary string, p *patch) (v verdict, said string) {
	var pattern []string
	for part := range strings.SplitSeq(p.test, "/") {
		pattern = append(pattern, "^"+regexp.QuoteMeta(part)+"$")
	}
	ctx, cancel := context.WithTimeout(ctx, testTimeout+10*time.Second)
	defer cancel()
	said, err := output(ctx, filepath.Join(l.root, p.pkg), binary, "-test.v", "-test.run", strings.Join(pattern, "/"), "-test.timeout", testTimeout.String())
	outcome := func(word string) bool {
		return regexp.MustCompile(`(?m)^\s*--- ` + word + `: ` + regexp.QuoteMeta(p.test) + ` \(`).MatchString(said)
	}
	switch {
	case err != nil && outcome("FAIL"):
		return red, said
	case err == nil && outcome("PASS"):
		return green, said
	}
	return broken, said
}

// report prints the table, and is an error if a breakage was not caught.
func report(results []result, took time.Duration) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nBREAKAGE\tWHAT IT BREAKS\tTHE TEST\tSECONDS\t")
	missed := 0
	for _, r := range results {
		verdict := "caught"
		if !r.caught {
			verdict = "MISSED"
			missed++
		}
		fmt.Fprintf(w, "%s\t%s\t%s %s\t%.1f\t%s\n", r.name, r.breaks, r.pkg, r.test, r.took.Seconds(), verdict)
	}
	w.Flush()
	for _, r := range results {
		if !r.caught {
			fmt.Printf("\n%s: %s\n", r.name, r.why)
		}
	}
	fmt.Printf("mutants: %d of %d breakages caught, in %.0f s\n", len(results)-missed, len(results), took.Seconds())
	if missed > 0 {
		return fmt.Errorf("%d breakages were not caught", missed)
	}
	return nil
}

// rewrite makes a patch of what the working tree has changed; its header stays. A new one gets a header to fill in.
func rewrite(ctx context.Context, root, name string) error {
	diff, err := output(ctx, root, "git", "diff", "-U1", "--no-color", "--no-ext-diff", "--", ".", ":!"+folder)
	if err != nil {
		return err
	}
	if diff == "" {
		return errors.New("the working tree has no changes: make the breakage first")
	}
	file := filepath.Join(root, folder, name+".patch")
	header := []byte("Breaks: \nTest: ./ Test\n")
	if text, err := os.ReadFile(file); err == nil {
		header, _, _ = bytes.Cut(text, []byte("\ndiff --git "))
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(file, append(append(header, '\n'), diff...), 0o644); err != nil {
		return err
	}
	fmt.Printf("wrote %s/%s.patch; now take the breakage out of the working tree again (git checkout)\n", folder, name)
	return nil
}

// each calls f for each of m, some at a time.
func each[K comparable, V any](m map[K]V, f func(K, V)) {
	var work sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for k, v := range m {
		slots <- struct{}{}
		work.Go(func() {
			defer func() { <-slots }()
			f(k, v)
		})
	}
	work.Wait()
}

// output runs a program in a folder, and returns all that it says.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// tail is the end of a program's words.
func tail(said string) string {
	const lines = 25
	all := strings.Split(strings.TrimRight(said, "\n"), "\n")
	return strings.Join(all[max(len(all)-lines, 0):], "\n")
}
