// Package imports states which of our packages may import which, as a test.
package imports

import (
	"fmt"
	"maps"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/lpfileshare/lpfileshare"

// A rule says what a package's code, its tests aside, may import.
type rule struct {
	// ours are the packages of this module that it may import; "..." at the end stands for anything below. A package may
	// always import what lies below itself.
	ours []string
	// stdlibOnly forbids everything that is neither ours nor Go's.
	stdlibOnly bool
	// never are packages that it must not import itself, and what lies below them.
	never []string
}

var everything = []string{"..."}

// rules are the packages of nouns and rules that every adapter may import.
var rules = []string{"internal/share", "internal/netrules", "internal/retry"}

// transports must not be imported by the engines, which know no gRPC, no HTTP and no sockets.
var transports = []string{"google.golang.org/grpc", "google.golang.org/protobuf", "net/http", "github.com/gorilla/websocket"}

// table is the architecture. A name that ends in "/..." is a rule for all below it; the longest match counts.
var table = map[string]rule{
	"gen/go/...":             {},
	"internal/accounts":      {ours: append([]string{"internal/policy"}, rules...)},
	"internal/callers":       {ours: append([]string{"internal/policy", "internal/recvlimit"}, rules...)},
	"internal/policy":        {ours: []string{"internal/share"}, stdlibOnly: true},
	"internal/share":         {stdlibOnly: true},
	"internal/netrules":      {stdlibOnly: true},
	"internal/retry":         {ours: rules, stdlibOnly: true},
	"internal/drain":         {ours: []string{"internal/share"}, stdlibOnly: true},
	"internal/rejections":    {stdlibOnly: true},
	"internal/boundedlog":    {stdlibOnly: true},
	"internal/cmdline":       {},
	"internal/admission":     {ours: []string{"internal/share"}, stdlibOnly: true},
	"internal/upload":        {ours: append([]string{"internal/admission", "internal/crc32c", "internal/drain"}, rules...), never: transports},
	"internal/download":      {ours: append([]string{"internal/drain"}, rules...), never: transports},
	"internal/conversations": {ours: append([]string{"internal/admission"}, rules...), never: transports},
	"internal/chunkcodec":    {ours: []string{"gen/go/..."}},
	"internal/service": {
		ours:  append([]string{"gen/go/...", "internal/admission", "internal/chunkcodec", "internal/crc32c", "internal/drain", "internal/policy", "internal/rejections", "internal/upload", "internal/download", "internal/conversations"}, rules...),
		never: []string{"net/http", "github.com/gorilla/websocket"},
	},
	"internal/audit":             {ours: []string{"internal/policy", "internal/service", "internal/share"}},
	"internal/metrics":           {ours: []string{"internal/service", "internal/share"}},
	"internal/traces":            {ours: []string{"internal/share"}},
	"internal/httpguard":         {ours: []string{"internal/netrules"}, stdlibOnly: true},
	"internal/lpwire":            {ours: rules},
	"internal/lpws":              {ours: append([]string{"internal/admission", "internal/filecache", "internal/lpwire"}, rules...)},
	"internal/swift":             {ours: rules},
	"internal/images":            {ours: rules},
	"internal/scan":              {ours: append([]string{"internal/admission"}, rules...), stdlibOnly: true},
	"internal/ledger":            {ours: append([]string{"internal/rejections"}, rules...)},
	"internal/ledger/ledgertest": {ours: []string{"internal/share"}},
	"internal/lprest":            {ours: append([]string{"internal/lpwire"}, rules...)},
	"internal/connector":         {ours: append([]string{"internal/lprest", "internal/lpwire", "internal/filecache", "internal/rejections"}, rules...)},
	"internal/filecache":         {ours: []string{"internal/share"}, stdlibOnly: true},
	"internal/sandbox":           {ours: []string{"internal/httpguard"}},
	"internal/recvlimit":         {},
	"internal/bufpool":           {stdlibOnly: true},
	"internal/buildinfo":         {stdlibOnly: true},
	"internal/crc32c":            {stdlibOnly: true},
	"internal/filewatch":         {stdlibOnly: true},
	"internal/connlimit":         {ours: append([]string{"internal/admission"}, rules...)},
	"internal/web":               {ours: append([]string{"internal/admission"}, rules...)},
	// The sandbox's parts know each other as little as possible.
	"internal/sandbox/feed":       {ours: []string{"internal/sandbox/jsonhttp"}, stdlibOnly: true},
	"internal/sandbox/fault":      {ours: []string{"internal/sandbox/feed"}, stdlibOnly: true},
	"internal/sandbox/jsonhttp":   {stdlibOnly: true},
	"internal/sandbox/page":       {stdlibOnly: true},
	"internal/sandbox/journal":    {ours: []string{"internal/sandbox/feed"}, stdlibOnly: true},
	"internal/sandbox/swift":      {ours: []string{"internal/sandbox/fault", "internal/sandbox/feed", "internal/sandbox/journal"}, stdlibOnly: true},
	"internal/sandbox/liveperson": {ours: []string{"internal/sandbox/fault", "internal/sandbox/feed", "internal/sandbox/journal", "internal/sandbox/jsonhttp"}},
	"internal/sandbox/connector": {ours: []string{
		"internal/sandbox/fault", "internal/sandbox/feed", "internal/sandbox/journal", "internal/sandbox/jsonhttp", "internal/sandbox/liveperson",
	}},
	"clients/go":        {ours: []string{"gen/go/...", "internal/share", "internal/netrules"}},
	"cmd/client":        {ours: []string{"clients/go", "gen/go/...", "internal/buildinfo", "internal/cmdline", "internal/share", "internal/netrules"}},
	"cmd/server":        {ours: everything},
	"bench":             {ours: everything},
	"bench/...":         {ours: everything},
	"test/...":          {ours: everything},
	"test/wire":         {},
	"test/wire/cmd/...": {ours: []string{"test/wire"}},
}

// sandboxUsers are the only code, besides tests, that may import internal/sandbox.
var sandboxUsers = []string{"cmd/server", "bench/...", "test/..."}

// namelessNames say nothing of what a package is for.
var namelessNames = []string{"util", "utils", "common", "helper", "helpers", "types", "models"}

// A pkg is one package of the module. Names of ours are without the module's.
type pkg struct {
	path, name string
	imports    []string
}

// TestTable lists the module's packages and holds each against the table.
func TestTable(t *testing.T) {
	pkgs := list(t)
	if len(pkgs) < 3 {
		t.Fatalf("only %d packages found", len(pkgs))
	}
	for _, p := range pkgs {
		for _, fault := range faults(p) {
			t.Error(fault)
		}
	}
}

// TestTableCatches shows that each sentence of the table can fail.
func TestTableCatches(t *testing.T) {
	for _, c := range []struct {
		pkg  pkg
		want string // part of the fault; empty: there is none
	}{
		{pkg{"internal/service", "service", []string{module + "/gen/go/lpfileshare/v1", module + "/internal/share", "google.golang.org/grpc"}}, ""},
		{pkg{"internal/service", "service", []string{module + "/internal/lpws"}}, "may not import internal/lpws"},
		{pkg{"internal/service", "service", []string{"net/http"}}, "may not import net/http"},
		{pkg{"internal/service", "service", []string{"net/http/httptest"}}, "may not import net/http/httptest"},
		{pkg{"internal/service", "service", []string{"github.com/gorilla/websocket"}}, "may not import github.com/gorilla/websocket"},
		{pkg{"internal/lpws", "lpws", []string{module + "/internal/share", "net/http"}}, ""},
		{pkg{"internal/lpws", "lpws", []string{module + "/gen/go/lpfileshare/v1"}}, "may not import gen/go/lpfileshare/v1"},
		{pkg{"internal/share", "share", []string{"log/slog"}}, ""},
		{pkg{"internal/share", "share", []string{"golang.org/x/sync/errgroup"}}, "standard library"},
		{pkg{"internal/sandbox", "sandbox", []string{module + "/internal/share"}}, "may not import internal/share"},
		{pkg{"clients/go", "lpfileshare", []string{module + "/internal/share"}}, ""},
		{pkg{"clients/go", "lpfileshare", []string{module + "/internal/service"}}, "may not import internal/service"},
		{pkg{"internal/retry", "retry", []string{module + "/internal/share"}}, ""},
		{pkg{"internal/retry", "retry", []string{module + "/internal/swift"}}, "may not import internal/swift"},
		{pkg{"cmd/client", "main", []string{module + "/clients/go", module + "/gen/go/lpfileshare/v1"}}, ""},
		{pkg{"cmd/client", "main", []string{module + "/internal/sandbox"}}, "may not import internal/sandbox"},
		{pkg{"cmd/server", "main", []string{module + "/internal/sandbox", module + "/internal/service"}}, ""},
		{pkg{"internal/lpws/frames", "frames", nil}, "not in the table"},
		{pkg{"internal/news", "news", nil}, "not in the table"},
		{pkg{"test/help", "helpers", nil}, "says nothing"},
		{pkg{"test/types", "wiretypes", nil}, "says nothing"},
	} {
		got := strings.Join(faults(c.pkg), "; ")
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s importing %v: %q, want %q", c.pkg.path, c.pkg.imports, got, c.want)
		}
	}
}

// list asks the go command for the packages and what their code imports; what tests import is free.
func list(t *testing.T) []pkg {
	t.Helper()
	root := strings.TrimSpace(run(t, ".", "list", "-m", "-f", "{{.Dir}}", module))
	var pkgs []pkg
	for line := range strings.Lines(run(t, root, "list", "-e", "-f", `{{.ImportPath}} {{.Name}} {{join .Imports " "}}`, "./...")) {
		words := strings.Fields(line)
		if len(words) < 2 { // nothing in it that can be read; building it will tell why
			t.Errorf("go list cannot read %q", line)
			continue
		}
		pkgs = append(pkgs, pkg{path: strings.TrimPrefix(words[0], module+"/"), name: words[1], imports: words[2:]})
	}
	return pkgs
}

func run(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// faults says what is wrong with a package.
func faults(p pkg) []string {
	var found []string
	for _, name := range []string{p.name, path.Base(p.path)} {
		if slices.Contains(namelessNames, name) {
			found = append(found, fmt.Sprintf("%s: the name %q says nothing of what the package is for", p.path, name))
		}
	}
	r, ok := ruleFor(p.path)
	if !ok {
		return append(found, fmt.Sprintf("%s is not in the table: say there what it may import", p.path))
	}
	for _, imported := range p.imports {
		if why := r.refuses(p.path, imported); why != "" {
			found = append(found, fmt.Sprintf("%s %s", p.path, why))
		}
	}
	return found
}

// ruleFor finds the longest match.
func ruleFor(path string) (rule, bool) {
	best := ""
	for _, name := range slices.Sorted(maps.Keys(table)) {
		if matches(name, path) && (best == "" || len(name) > len(best)) {
			best = name
		}
	}
	return table[best], best != ""
}

// refuses says why a package at path may not import another; nothing if it may.
func (r rule) refuses(path, imported string) string {
	for _, n := range r.never {
		if matches(n, imported) || matches(n+"/...", imported) {
			return "may not import " + imported
		}
	}
	name, ours := strings.CutPrefix(imported, module+"/")
	if !ours {
		first, _, _ := strings.Cut(imported, "/")
		if r.stdlibOnly && strings.Contains(first, ".") {
			return "may import the standard library only, and imports " + imported
		}
		return ""
	}
	allowed := func(name string, by []string) bool {
		return slices.ContainsFunc(by, func(pattern string) bool { return matches(pattern, name) })
	}
	switch {
	case name == "internal/sandbox" && !allowed(path, sandboxUsers):
		return "may not import internal/sandbox, which is for tests, benchmarks and cmd/server"
	case matches(path+"/...", name), allowed(name, r.ours):
		return ""
	}
	return "may not import " + name
}

// matches reports whether a path is what a pattern names, or lies below it if it ends in "...".
func matches(pattern, path string) bool {
	if prefix, wild := strings.CutSuffix(pattern, "..."); wild {
		return strings.HasPrefix(path, prefix)
	}
	return pattern == path
}
