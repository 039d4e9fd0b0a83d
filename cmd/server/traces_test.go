package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

// A collector receives spans over OTLP.
type collector struct {
	collectorpb.UnimplementedTraceServiceServer
	mu    sync.Mutex
	bytes []byte // of all requests
	spans []*tracepb.Span
}

// startCollector starts a collector and configures servers of this process to export to it. Tests that call it cannot be parallel.
func startCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(server, c)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		<-served
	})
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+listener.Addr().String())
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "10") // milliseconds
	return c
}

// Export implements the service.
func (c *collector) Export(_ context.Context, r *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	encoded, err := proto.Marshal(r)
	if err != nil {
		return nil, err
	}
	c.bytes = append(c.bytes, encoded...)
	for _, resource := range r.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

// tree returns the names of the spans below parent in a trace, with the status of those that failed, sorted by name at each level.
func (c *collector) tree(trace, parent string) []string {
	var found []string
	for _, s := range c.spans {
		if hex.EncodeToString(s.GetTraceId()) != trace || hex.EncodeToString(s.GetParentSpanId()) != parent {
			continue
		}
		name := s.GetName()
		if s.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR {
			name += " failed"
		}
		if inner := c.tree(trace, hex.EncodeToString(s.GetSpanId())); len(inner) > 0 {
			name += " (" + strings.Join(inner, ", ") + ")"
		}
		found = append(found, name)
	}
	slices.Sort(found)
	return found
}

const (
	callerTrace = "0af7651916cd43dd8448eb211c80319c"
	callerSpan  = "b7ad6b7169203331"
)

// TestTraces_Upload looks at one upload as one trace. It cannot be parallel, because the environment configures the exporter.
func TestTraces_Upload(t *testing.T) {
	spans := startCollector(t)
	var requests harness.Requests
	clamd, stopClamd := harness.Clamd(t, "stream: OK")
	t.Cleanup(stopClamd)
	w := newWorld(t, sandbox.Options{OnRequest: requests.Add}, "--admin-listen=127.0.0.1:0", "--scan=clamd://"+clamd)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	c := w.consumer()
	conv := w.conversation(c.Client)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", "00-"+callerTrace+"-"+callerSpan+"-01", "tracestate", "a=secret-state", "baggage", "a=secret-baggage")
	o := lpfileshare.UploadOptions{Conversation: conv, DisplayName: "secret-name.jpg", Caption: "secret-caption", RetryFor: -1}
	uploaded, err := c.Upload(ctx, o, bytes.NewReader(photo(t, 20_000)))
	if err != nil {
		t.Fatal(err)
	}
	w.sb.Inject(sandbox.Fault{On: "ms.PublishEvent", Status: 403, Count: 1})
	if _, err := c.Upload(t.Context(), o, bytes.NewReader(photo(t, 20_000))); err == nil {
		t.Fatal("an upload succeeded that LivePerson refused to publish")
	}
	unknown, err := grpc.NewClient("passthrough:///"+w.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer unknown.Close()
	_ = unknown.Invoke(t.Context(), "/lpfileshare.v1.FileSharingService/secret-method", &pb.StatFileRequest{}, &pb.File{})
	exemplars := openMetrics(t, "http://"+w.server.Admin+"/metrics")
	harness.Eventually(t, "both uploads are exported", func() bool {
		spans.mu.Lock()
		defer spans.mu.Unlock()
		n := 0
		for _, s := range spans.spans {
			if s.GetName() == "lpfileshare.v1.FileSharingService/Upload" { // it ends after those of its steps
				n++
			}
		}
		return n == 2
	})
	w.stop()

	spans.mu.Lock()
	defer spans.mu.Unlock()
	want := "lpfileshare.v1.FileSharingService/Upload (ledger save, ledger save, ledger save, " +
		"liveperson publish, liveperson upload_url, scanner scan, store PUT)"
	if got := strings.Join(spans.tree(callerTrace, callerSpan), "\n"); got != want {
		t.Errorf("the trace of the upload is\n%s\nwant\n%s", got, want)
	}
	var refused bool
	for _, s := range spans.spans {
		refused = refused || s.GetName() == "liveperson publish" && s.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR
		if s.GetStatus().GetMessage() != "" || s.GetTraceState() != "" || len(s.GetEvents()) > 0 {
			t.Errorf("the span %s has text: %v", s.GetName(), s)
		}
	}
	if !refused {
		t.Error("no span of a message that was refused has failed")
	}
	if !bytes.Contains(spans.bytes, []byte("LP_FORBIDDEN")) {
		t.Error("the kind of the error is in no span")
	}

	if traced := requests.Traced(); len(traced) > 0 {
		t.Errorf("LivePerson or the store got headers of traces: %v", traced)
	}
	secrets := requests.Secrets()
	if len(secrets) < 3 {
		t.Fatalf("the requests had only %d secrets, so the search below has no meaning", len(secrets))
	}
	forbidden := []string{"secret-", c.token, c.id, conv, uploaded.GetFile().GetName(), account, "temp_url", "Bearer", "127.0.0.1", "http://", "ws://"}
	for _, text := range append(forbidden, secrets...) {
		if bytes.Contains(spans.bytes, []byte(text)) {
			t.Errorf("the spans contain %q", text)
		}
	}
	if !contains(w.logs.String(), `msg="finished call" method=FileSharingService/Upload code=OK`) || w.logs.Count("finished call", "trace_id="+callerTrace, "span_id=") != 1 {
		t.Error("the line of the upload does not have the id of its trace")
	}
	if !strings.Contains(exemplars, `# {trace_id="`+callerTrace+`"}`) {
		t.Error("no metric has the trace as an exemplar")
	}
}

// openMetrics requests metrics in the format that has exemplars.
func openMetrics(t *testing.T, url string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A wrong sampler does not stop the server. The log names it, and nothing is printed outside of the log.
func TestTraces_LogsWrongSampler(t *testing.T) {
	startCollector(t)
	t.Setenv("OTEL_TRACES_SAMPLER", "traceidratio")
	t.Setenv("OTEL_TRACES_SAMPLER_ARG", "lots")
	w := newWorld(t, sandbox.Options{})
	w.logged("tracing failed", "lots")
	w.stop()
	for line := range strings.Lines(w.logs.String()) {
		if !strings.HasPrefix(line, "time=") {
			t.Errorf("printed: %s", line)
		}
	}
}
