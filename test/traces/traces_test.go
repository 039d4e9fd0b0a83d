// Package traces exports one upload as one trace to a real OpenTelemetry Collector. `make test-traces` builds the collector.
package traces

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
	"github.com/lpfileshare/lpfileshare/test/process"
	"github.com/lpfileshare/lpfileshare/test/wire"
)

var (
	update = flag.Bool("update", false, "write the trace into docs/traces.md")
	// program is the server, without the race detector.
	program harness.Program
	frames  = wire.NewSuite("traces")
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(harness.Main(m, frames, &program))
}

const (
	page      = "../../docs/traces.md"
	collector = "../../bin/collector"

	callerTrace = "0af7651916cd43dd8448eb211c80319c"
	callerSpan  = "b7ad6b7169203331"
)

// startCollector starts a collector that writes what it receives to file, and configures later servers to export to it.
func startCollector(t *testing.T, file string) *process.Process {
	t.Helper()
	ports, err := process.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", ports[0])
	t.Setenv("COLLECTOR_CONFIG", `
receivers: {otlp: {protocols: {grpc: {endpoint: "`+address+`"}}}}
exporters: {file: {path: "`+file+`"}}
service:
  telemetry: {metrics: {level: none}}
  pipelines: {traces: {receivers: [otlp], exporters: [file]}}
`)
	p, _, err := process.Start(regexp.MustCompile("Everything is ready"), collector, "--config=env:COLLECTOR_CONFIG")
	if err != nil {
		t.Fatalf("%v; make test-traces builds the collector", err)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+address)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "10") // milliseconds
	return p
}

// A span is one line of OTLP's JSON, as far as it is shown.
type span struct {
	TraceID, SpanID, ParentSpanID, Name string
	Kind                                int
	Attributes                          []struct {
		Key   string
		Value struct{ StringValue string }
	}
}

// readSpans reads what the collector has written.
func readSpans(t *testing.T, text []byte) (spans []span) {
	t.Helper()
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var request struct {
			ResourceSpans []struct{ ScopeSpans []struct{ Spans []span } }
		}
		if err := json.Unmarshal(lines.Bytes(), &request); err != nil {
			t.Fatal(err)
		}
		for _, r := range request.ResourceSpans {
			for _, s := range r.ScopeSpans {
				spans = append(spans, s.Spans...)
			}
		}
	}
	return spans
}

// kinds are OTLP's kinds of spans.
var kinds = map[int]string{2: "server", 3: "client"}

// tree returns the spans below parent as text, sorted by name.
func tree(spans []span, trace, parent, indent string) (text string) {
	below := slices.DeleteFunc(slices.Clone(spans), func(s span) bool { return s.TraceID != trace || s.ParentSpanID != parent })
	slices.SortFunc(below, func(a, b span) int { return strings.Compare(a.Name, b.Name) })
	for _, s := range below {
		text += indent + s.Name + " (" + kinds[s.Kind] + ")"
		for _, a := range s.Attributes {
			text += " " + a.Key + "=" + a.Value.StringValue
		}
		text += "\n" + tree(spans, trace, s.SpanID, indent+"  ")
	}
	return text
}

func TestCollector(t *testing.T) {
	exported := filepath.Join(t.TempDir(), "spans.json")
	received := startCollector(t, exported)
	var requests harness.Requests
	sb := harness.Sandbox(t, frames, sandbox.Options{OnRequest: requests.Add})
	clamd, stopClamd := harness.Clamd(t, "stream: OK")
	t.Cleanup(stopClamd)
	server, err := harness.Start(program, append(harness.Before(sb), "--ledger=memory", "--drain-notice=0s", "--log-level=debug", "--admin-listen=127.0.0.1:0", "--scan=clamd://"+clamd)...)
	if err != nil {
		t.Fatal(err)
	}
	server.Stopped(t)
	c, err := harness.SignUpAndTalk(t.Context(), server.Dial(t), harness.Account)
	if err != nil {
		t.Fatal(err)
	}
	agent, err := server.Dial(t).Raw().Identity.SignInAgent(t.Context(), &pb.SignInAgentRequest{
		Account:     harness.AccountPath,
		Credentials: &pb.SignInAgentRequest_Password{Password: &pb.PasswordCredentials{Username: "admin", Password: "sandbox"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", "00-"+callerTrace+"-"+callerSpan+"-01")
	o := lpfileshare.UploadOptions{Conversation: c.Conversation, DisplayName: "secret-name.jpg", Caption: "secret-caption", RetryFor: -1}
	uploaded, err := c.Upload(ctx, o, bytes.NewReader(harness.Photo(t, 1, 20_000)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Download(t.Context(), lpfileshare.DownloadOptions{Name: uploaded.GetFile().GetName()}, io.Discard); err != nil {
		t.Fatal(err)
	}
	metrics := read(t, "http://"+server.Admin+"/metrics")
	for _, p := range []*process.Process{server.Process, received} { // each writes what it still has
		if err := p.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(exported)
	if err != nil {
		t.Fatal(err)
	}
	spans := readSpans(t, text)
	compare(t, tree(spans, callerTrace, callerSpan, ""))

	secrets := requests.Secrets()
	if traced := requests.Traced(); len(secrets) < 3 || len(traced) > 0 { // two signatures and a token
		t.Errorf("the requests had %d secrets; with headers of traces: %v", len(secrets), traced)
	}
	secrets = append(secrets, c.Token, agent.GetAgentToken(), "temp_url_sig", "secret-")
	for name, output := range map[string]string{"the collector's file": string(text), "the log": server.Logs.String(), "the metrics": metrics} {
		if len(output) < 1000 {
			t.Errorf("%s: only %q", name, output)
		}
		for _, secret := range secrets {
			if strings.Contains(output, secret) {
				t.Errorf("%s contains %q", name, secret)
			}
		}
	}
	t.Logf("%d spans, %d secrets searched in %d bytes of spans, %d of the log and %d of metrics\n%s",
		len(spans), len(secrets), len(text), len(server.Logs.String()), len(metrics), tree(spans, callerTrace, callerSpan, ""))
}

// compare compares a trace with the page, or writes it there.
func compare(t *testing.T, trace string) {
	t.Helper()
	const begin, end = "<!-- trace -->\n```text\n", "```\n<!-- end -->\n"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	shown, after, found := strings.Cut(rest, end)
	if !ok || !found {
		t.Fatalf("%s has no trace between %q and %q", page, begin, end)
	}
	if *update {
		if err := os.WriteFile(page, []byte(before+begin+trace+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if shown != trace {
		t.Errorf("the trace is\n%s\n%s shows\n%s\nrun make test-traces TRACE=-update", trace, page, shown)
	}
}

func read(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
