// Package monitoring tests packaging/monitoring with Debian's Prometheus: its cases of the rules, and every query of the dashboard and
// of docs/metrics.md against a Prometheus that scrapes a server under load. `make test-monitoring` prints what each query returned.
package monitoring

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
	"github.com/lpfileshare/lpfileshare/test/process"
	"github.com/lpfileshare/lpfileshare/test/wire"
)

const files = "../../packaging/monitoring/"

var (
	// program is the server, without the race detector.
	program harness.Program
	// frames are those of all sandboxes here.
	frames = wire.NewSuite("monitoring")
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m, frames, &program)) }

// TestRules runs the cases of rules_test.yaml, and checks that each alert has cases and a runbook.
func TestRules(t *testing.T) {
	t.Log(promtool(t, nil, "check", "rules", files+"rules.yaml"))
	t.Log(promtool(t, nil, "test", "rules", files+"rules_test.yaml"))

	rules, cases, guide := read(t, files+"rules.yaml"), read(t, files+"rules_test.yaml"), read(t, "../../docs/operations.md")
	alerts := regexp.MustCompile(`(?m)^ +- alert: Lpfileshare(\w+)$`).FindAllStringSubmatch(rules, -1)
	if len(alerts) < 12 {
		t.Errorf("%d alerts found", len(alerts))
	}
	for _, m := range alerts {
		alert := "Lpfileshare" + m[1]
		if want := "docs/operations.md#" + strings.ToLower(alert) + "\n"; strings.Count(rules, want) != 1 {
			t.Errorf("%s has no runbook_url that ends with %q", alert, want)
		}
		if !strings.Contains(guide, "\n### "+alert+"\n") {
			t.Errorf("docs/operations.md has no runbook with the heading %q", alert)
		}
		// The cases of the two alerts of the error budget are the same.
		subject := regexp.MustCompile(`Burn(Fast|Slow)$`).ReplaceAllString(m[1], "")
		var fires, silent bool
		for _, c := range strings.Split(cases, "\n  - name: ")[1:] {
			fires = fires || strings.Contains(c, `alertname="`+alert+`"`)
			silent = silent || strings.HasPrefix(c, "'"+subject+":") && strings.Contains(c, "exp_samples: []")
		}
		if !fires || !silent {
			t.Errorf("%s: rules_test.yaml has a case in which it fires: %v; one in which it does not: %v", alert, fires, silent)
		}
	}
}

// TestRules_Reasons checks that each reason whose code counts as a failure is either excluded from those of this server, or named here.
func TestRules_Reasons(t *testing.T) {
	ours := []string{"CALLER_KEYS_UNAVAILABLE", "INTERNAL", "LEDGER_UNAVAILABLE", "SCANNER_UNAVAILABLE", "STORAGE_URL_REJECTED"} // the last one: a wrong clock
	rules := read(t, files+"rules.yaml")
	match := func(pattern string) *regexp.Regexp {
		m := regexp.MustCompile(pattern).FindStringSubmatch(rules)
		if m == nil {
			t.Fatalf("rules.yaml has no %s", pattern)
		}
		return regexp.MustCompile("^(" + m[1] + ")$")
	}
	failed := match(`grpc_code=~"([^"]+)"`)
	elsewhere := match(`reason=~"([^"]*SERVER_DRAINING)"`)
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| `([A-Z_]+)` \\|").FindAllStringSubmatch(read(t, "../../docs/errors.md"), -1) {
		reason, code := m[1], ""
		for word := range strings.SplitSeq(strings.ToLower(m[2]), "_") {
			code += strings.ToUpper(word[:1]) + word[1:]
		}
		want := failed.MatchString(code) && !slices.Contains(ours, reason)
		if got := elsewhere.MatchString(reason); got != want {
			t.Errorf("%s (%s): excluded from the failures of this server: %v, want %v", reason, code, got, want)
		}
	}
}

// A query is one of a dashboard or of a page.
type query struct{ from, expr string }

// TestQueries runs every query against a Prometheus that scrapes a server. Each must return data.
func TestQueries(t *testing.T) {
	w := newWorld(t)
	queries := slices.Concat(dashboardQueries(t), pageQueries(t))
	if len(queries) < 30 {
		t.Fatalf("%d queries found", len(queries))
	}
	t.Log(promtool(t, w.metrics(), "check", "metrics"))

	results := make([]sample, len(queries))
	defer func() { print(queries, results) }() // also if one returned nothing
	harness.Eventually(t, "every query returns data", func() bool {
		w.load() // so that the rates are not 0
		w.checkAlive()
		all := true
		for i, q := range queries {
			if results[i].count == 0 {
				results[i] = w.query(q.expr)
			}
			all = all && results[i].count > 0
		}
		return all
	})
	w.checkRules()
}

// A world is a server before a sandbox, its load, and a Prometheus that scrapes it.
type world struct {
	*testing.T
	sb         *sandbox.Sandbox
	server     *harness.Server
	caller     harness.Consumer
	prometheus *process.Process
	url        string
	rounds     int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, sb: harness.Sandbox(t, frames, sandbox.Options{})}
	var err error
	w.server, err = harness.Start(program, append(harness.Before(w.sb), "--admin-listen=127.0.0.1:0", "--documents", "--data-dir="+t.TempDir(),
		"--max-streams-per-caller=1", "--heartbeat-interval=200ms")...)
	if err != nil {
		t.Fatal(err)
	}
	w.server.Stopped(t)
	w.caller = w.server.Consumer(t)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)

	dir := t.TempDir()
	rules := filepath.Join(dir, "rules.yaml")
	faster := strings.Replace(read(t, files+"rules.yaml"), "interval: 30s", "interval: 1s", 1)
	if err := os.WriteFile(rules, []byte(faster), 0o644); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\nrule_files: [%q]\n"+
		"scrape_configs:\n  - {job_name: lpfileshare, static_configs: [{targets: [%q]}]}\n", rules, w.server.Admin)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	promtool(t, nil, "check", "config", config)
	for try := 1; ; try++ { // another program may take the port meanwhile
		ports, err := process.FreePorts(1)
		if err != nil {
			t.Fatal(err)
		}
		address := fmt.Sprintf("127.0.0.1:%d", ports[0])
		w.url = "http://" + address
		w.prometheus, _, err = process.Start(regexp.MustCompile("Server is ready to receive web requests"), "prometheus",
			"--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
		if err == nil {
			break
		} else if errors.Is(err, exec.ErrNotFound) {
			t.Fatal("this test needs Prometheus: apt-get install --no-install-recommends prometheus")
		} else if try == 3 {
			t.Fatal(err)
		}
	}
	t.Cleanup(w.prometheus.Kill)
	return w
}

// load makes calls of all kinds: those that succeed, one that LivePerson's store fails at first, and some that are rejected.
func (w *world) load() {
	w.Helper()
	w.rounds++
	w.sb.Inject(sandbox.Fault{On: "store:PUT", Status: 503, Count: 1})
	var work sync.WaitGroup
	for n := range 4 {
		work.Go(func() {
			data := harness.Text(uint64(100*w.rounds+n), 50_000)
			file, err := w.caller.Upload(w.Context(), lpfileshare.UploadOptions{
				Conversation: w.caller.Conversation, FileType: pb.FileType_FILE_TYPE_TXT, DisplayName: "load.txt",
			}, bytes.NewReader(data))
			if err != nil {
				w.Error(err)
				return
			}
			_, err = w.caller.Raw().Files.StatFile(w.Context(), &pb.StatFileRequest{Source: &pb.StatFileRequest_Name{Name: file.GetFile().GetName() + "0"}})
			if lpfileshare.ErrorReason(err) == pb.ErrorReason_ERROR_REASON_UNSPECIFIED {
				w.Errorf("the stat of a file that does not exist: %v", err)
			}
		})
	}
	work.Wait()
	small, err := w.caller.Raw().Files.UploadSmallFile(w.Context(), &pb.UploadSmallFileRequest{Data: []byte("small"), Spec: &pb.UploadSpec{
		Conversation: w.caller.Conversation, DisplayName: "small.txt", FileType: pb.FileType_FILE_TYPE_TXT,
	}})
	if err != nil {
		w.Fatal(err)
	}
	if _, err := w.caller.Download(w.Context(), lpfileshare.DownloadOptions{Name: small.GetResult().GetFile().GetName()}, io.Discard); err != nil {
		w.Fatal(err)
	}
	w.exceedStreams()
}

// exceedStreams opens a watch, and another one, which --max-streams-per-caller rejects.
func (w *world) exceedStreams() {
	w.Helper()
	ctx, cancel := context.WithCancel(w.Context())
	defer cancel()
	watch := func() error {
		stream, err := w.caller.Raw().Files.WatchFiles(ctx, &pb.WatchFilesRequest{Parent: w.caller.Conversation})
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	}
	// The previous round's watch may still be ending.
	harness.Eventually(w, "a watch begins", func() bool { return watch() == nil })
	if err := watch(); lpfileshare.ErrorReason(err) != pb.ErrorReason_ERROR_REASON_TOO_MANY_STREAMS {
		w.Errorf("a second watch: %v", err)
	}
}

func (w *world) checkAlive() {
	w.Helper()
	if w.prometheus.Over() {
		w.Fatalf("Prometheus has ended: %s", w.prometheus.Logs.Tail())
	}
}

// A sample is one of the results of a query.
type sample struct {
	count         int
	labels, value string
}

// query runs a query as the dashboard does.
func (w *world) query(expr string) sample {
	w.Helper()
	expr = strings.NewReplacer("$__rate_interval", "30s", "$job", ".*").Replace(expr)
	var answer struct {
		Status, Error string
		Data          struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	w.get("/api/v1/query?query="+url.QueryEscape(expr), &answer)
	if answer.Status != "success" {
		w.Fatalf("%s: %s", expr, answer.Error)
	}
	var s sample
	for _, r := range answer.Data.Result {
		value := fmt.Sprint(r.Value[1])
		if value == "NaN" { // a quotient without calls
			continue
		}
		if s.count++; s.count > 1 && s.value != "0" {
			continue
		}
		var labels []string
		for name, value := range r.Metric {
			if name != "__name__" && name != "instance" && name != "job" {
				labels = append(labels, name+"="+value)
			}
		}
		slices.Sort(labels)
		s.labels, s.value = strings.Join(labels, " "), value
	}
	return s
}

// checkRules checks that Prometheus could evaluate every rule, that no alert fires, and that the server has every metric of the rules.
func (w *world) checkRules() {
	w.Helper()
	type rule struct{ Name, Health, LastError, State string }
	var rules []rule
	harness.Eventually(w, "each rule is evaluated", func() bool {
		var answer struct {
			Data struct{ Groups []struct{ Rules []rule } }
		}
		w.get("/api/v1/rules", &answer)
		rules = nil
		for _, g := range answer.Data.Groups {
			rules = append(rules, g.Rules...)
		}
		return !slices.ContainsFunc(rules, func(r rule) bool { return r.Health == "unknown" })
	})
	if len(rules) < 18 {
		w.Errorf("Prometheus has %d rules", len(rules))
	}
	for _, r := range rules {
		if r.Health != "ok" || r.State == "firing" {
			w.Errorf("rule %s: %s %s %s", r.Name, r.Health, r.State, r.LastError)
		}
	}
	optional := []string{"lpfs_audit_usable", "lpfs_scans_total", "lpfs_certificate_not_after_timestamp_seconds", "lpfs_config_last_reload_success"}
	for _, name := range regexp.MustCompile(`\b(?:lpfs|grpc_server)_[a-z_]+`).FindAllString(read(w.T, files+"rules.yaml"), -1) {
		if !slices.Contains(optional, name) && !bytes.Contains(w.metrics(), []byte("\n"+name)) {
			w.Errorf("rules.yaml uses %s, which the server does not have", name)
		}
	}
}

// metrics returns what the server reports.
func (w *world) metrics() []byte {
	w.Helper()
	return w.body("http://" + w.server.Admin + "/metrics")
}

func (w *world) get(path string, answer any) {
	w.Helper()
	if err := json.Unmarshal(w.body(w.url+path), answer); err != nil {
		w.Fatal(err)
	}
}

func (w *world) body(address string) []byte {
	w.Helper()
	resp, err := http.Get(address)
	if err != nil {
		w.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.Fatal(err)
	}
	return text
}

// dashboardQueries returns the queries of the dashboard's panels.
func dashboardQueries(t *testing.T) (found []query) {
	t.Helper()
	var dashboard struct {
		Panels []struct {
			Type, Title string
			Targets     []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, files+"dashboard.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	for _, p := range dashboard.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q has no query", p.Title)
		}
		for _, target := range p.Targets {
			found = append(found, query{p.Title, target.Expr})
		}
	}
	return found
}

// pageQueries returns the queries of docs/metrics.md.
func pageQueries(t *testing.T) (found []query) {
	t.Helper()
	_, table, ok := strings.Cut(read(t, "../../docs/metrics.md"), "\n## Questions\n")
	if !ok {
		t.Fatal("docs/metrics.md has no questions")
	}
	for _, m := range regexp.MustCompile("(?m)^\\| ([A-Z][^|]+) \\| `(.+)` \\|$").FindAllStringSubmatch(table, -1) {
		found = append(found, query{m[1], strings.ReplaceAll(m[2], `\|`, "|")})
	}
	return found
}

// print prints a table of one sample of each query.
func print(queries []query, results []sample) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "panel or question\tseries\tone of them")
	for i, q := range queries {
		fmt.Fprintf(w, "%s\t%d\t%.12s  %s\n", q.from, results[i].count, results[i].value, results[i].labels)
	}
	w.Flush()
}

// promtool runs promtool, which must succeed, and returns what it printed.
func promtool(t *testing.T, stdin []byte, args ...string) string {
	t.Helper()
	cmd := exec.Command("promtool", args...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Fatal("this test needs promtool: apt-get install --no-install-recommends prometheus")
	} else if err != nil {
		t.Fatalf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
