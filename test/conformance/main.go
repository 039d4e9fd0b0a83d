// Command conformance runs the same cases with the client of each language, and writes the matrix: see README.md.
//
//	conformance [flags]            the cases
//	conformance [flags] cuts       uploads while connections are cut at random, for the auditor
//	conformance [flags] ratios     the time of 3 MB against the Go client
//	conformance [flags] examples   the examples of the clients' READMEs
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lpfileshare/lpfileshare/test/harness"
	"github.com/lpfileshare/lpfileshare/test/process"
)

// languages are the columns of the matrix. The driver of each is the program test/conformance/LANGUAGE/driver.
var languages = []string{"go", "python", "python-async", "typescript", "java", "rust"}

type options struct {
	languages []string
	run       *regexp.Regexp
	drivers   map[string][]string
	parallel  int
	together  int
	uploads   int
	update    bool
	noPage    bool
	verbose   bool
	root      string
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run() error {
	o := options{drivers: map[string][]string{}}
	names := flag.String("languages", "go", "languages to run, separated by commas: "+strings.Join(languages, ", "))
	pattern := flag.String("run", "", "run only the cases whose names match this regular expression")
	flag.Func("driver", "LANGUAGE=COMMAND: the command that starts the driver of a language; repeatable", func(s string) error {
		language, command, ok := strings.Cut(s, "=")
		if !ok || command == "" {
			return errors.New("must be LANGUAGE=COMMAND")
		}
		o.drivers[language] = strings.Fields(command)
		return nil
	})
	flag.IntVar(&o.parallel, "parallel", 8, "number of cases at a time, of each language")
	flag.IntVar(&o.together, "together", 3, "number of languages at a time, except for ratios")
	flag.IntVar(&o.uploads, "uploads", 1000, "number of uploads of cuts, for each language")
	flag.BoolVar(&o.update, "update", false, "write docs/conformance.md; requires all cases and all languages")
	flag.BoolVar(&o.noPage, "no-page", false, "do not compare docs/conformance.md, because some languages are left out")
	flag.BoolVar(&o.verbose, "v", false, "print each case")
	flag.Parse()
	var err error
	if o.run, err = regexp.Compile(*pattern); err != nil {
		return err
	}
	o.languages = strings.Split(*names, ",")
	if o.update && !slices.Equal(o.languages, languages) {
		return errors.New("-update requires -languages " + strings.Join(languages, ","))
	}
	for _, l := range o.languages {
		if !slices.Contains(languages, l) && o.drivers[l] == nil {
			return fmt.Errorf("unknown language %q", l)
		}
	}
	if o.root, err = root(); err != nil {
		return err
	}
	return o.all(flag.Arg(0))
}

// root returns the folder of the repository.
func root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("run it in the repository")
		}
		dir = parent
	}
}

// all does what the argument says in every language.
func (o *options) all(what string) error {
	tmp, err := os.MkdirTemp("", "lpfileshare-conformance")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	server := filepath.Join(tmp, "lpfileshare-server")
	if err := process.Build(server, "github.com/lpfileshare/lpfileshare/cmd/server"); err != nil {
		return err
	}
	certs, err := newCertificates(tmp)
	if err != nil {
		return err
	}
	servers := newServers(server, certs)
	defer servers.Close()
	files := &Files{dir: tmp, made: map[string][]byte{}}
	fixtures := &Fixtures{made: map[string]harness.Consumer{}}
	var runners []*Runner
	for _, language := range o.languages {
		r := &Runner{
			language: language, root: o.root, tmp: tmp, files: files, servers: servers, certs: certs, fixtures: fixtures, argv: o.drivers[language],
		}
		if r.argv == nil {
			r.argv = []string{"test/conformance/" + language + "/driver"}
		}
		runners = append(runners, r)
	}
	switch what {
	case "":
		return o.matrix(runners)
	case "examples":
		return o.each(runners, func(r *Runner) error {
			if _, ok := fences[r.language]; !ok { // python-async is another form of python
				return nil
			}
			return r.examples()
		})
	case "cuts", "ratios":
		return o.measure(what, runners)
	}
	return fmt.Errorf("unknown argument %q; it is cuts, ratios or examples", what)
}

// measure runs cuts or ratios.
func (o *options) measure(what string, runners []*Runner) (err error) {
	if what == "ratios" && runners[0].language != "go" {
		return errors.New("ratios needs go as the first language")
	}
	for _, r := range runners {
		if r.driver, err = startDriver(r.root, r.argv, nil); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, r.driver.Exit()) }()
	}
	if what == "ratios" {
		return ratios(runners)
	}
	return o.each(runners, func(r *Runner) error { return r.cuts(o.uploads) })
}

// each does something in every language, in some of them at a time. One that fails does not stop the others.
func (o *options) each(runners []*Runner, do func(*Runner) error) error {
	failed := make([]error, len(runners))
	var work sync.WaitGroup
	turns := make(chan struct{}, o.together)
	for i, r := range runners {
		turns <- struct{}{}
		work.Go(func() {
			defer func() { <-turns }()
			if err := do(r); err != nil {
				failed[i] = fmt.Errorf("%s: %w", r.language, err)
			}
		})
	}
	work.Wait()
	return errors.Join(failed...)
}

// matrix runs the cases in every language.
func (o *options) matrix(runners []*Runner) error {
	cases, err := parseCases(casesText)
	if err != nil {
		return err
	}
	chosen := slices.DeleteFunc(slices.Clone(cases), func(c *Case) bool { return !o.run.MatchString(c.Name) })
	if err := o.each(runners, func(r *Runner) error {
		begun, failed := time.Now(), 0
		for _, err := range r.cases(chosen, o) {
			if err != nil {
				failed++
			}
		}
		fmt.Printf("%-12s %d of %d cases passed in %v\n", r.language, len(chosen)-failed, len(chosen), time.Since(begun).Round(time.Second))
		if failed > 0 {
			return fmt.Errorf("%d cases failed", failed)
		}
		return nil
	}); err != nil {
		return err
	}
	if len(chosen) != len(cases) {
		if o.update {
			return errors.New("-update requires all cases")
		}
		return nil
	}
	file := filepath.Join(o.root, "docs", "conformance.md")
	want := page(cases, o.languages)
	if o.update {
		return os.WriteFile(file, []byte(want), 0o644)
	}
	if got, err := os.ReadFile(file); !o.noPage && (err != nil || string(got) != want) {
		return errors.New("every case passed, but docs/conformance.md is stale: run it again with -update")
	}
	return nil
}

// cases runs cases with one driver process. The long ones begin first.
func (r *Runner) cases(cases []*Case, o *options) map[string]error {
	results := map[string]error{}
	var err error
	if r.driver, err = startDriver(r.root, r.argv, nil); err != nil {
		for _, c := range cases {
			results[c.Name] = err
		}
		fmt.Printf("FAIL %s: %v\n", r.language, err)
		return results
	}
	order := slices.Clone(cases)
	slices.SortStableFunc(order, func(a, b *Case) int {
		rank := func(c *Case) int {
			if c.Long {
				return 0
			}
			return 1
		}
		return rank(a) - rank(b)
	})
	var mu sync.Mutex
	var work sync.WaitGroup
	note := func(c *Case, err error, took time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		results[c.Name] = err
		if err != nil {
			fmt.Printf("FAIL %s %s: %v\n", r.language, c.Name, err)
		} else if o.verbose {
			fmt.Printf("ok   %s %s (%v)\n", r.language, c.Name, took.Round(time.Millisecond))
		}
	}
	turns := make(chan struct{}, o.parallel)
	for _, c := range order {
		if c.At != "" {
			continue
		}
		turns <- struct{}{}
		work.Go(func() {
			defer func() { <-turns }()
			begun := time.Now()
			note(c, r.Run(c), time.Since(begun))
		})
	}
	work.Wait()
	exit := r.driver.Exit()
	for _, c := range cases {
		switch c.At {
		case "exit":
			note(c, exit, 0)
		case "stderr":
			var leaked error
			if r.leak(r.driver.stderr.String()) != "" {
				leaked = errors.New("a secret is in the driver's standard error")
			}
			note(c, leaked, 0)
		}
	}
	return results
}
