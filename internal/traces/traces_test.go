package traces

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

const (
	callerTrace = "0af7651916cd43dd8448eb211c80319c"
	callerSpan  = "b7ad6b7169203331"
)

// call makes a health check with the headers of a caller that is traced, through a server with traces, and returns its span.
func call(t *testing.T, trusted bool, service string) tracetest.SpanStub {
	t.Helper()
	kept := tracetest.NewInMemoryExporter()
	traced := newTraces(keepOpen{kept}, resource.Empty(), "v1")
	server := grpc.NewServer(traced.ServerOption(map[string]bool{healthpb.Health_Check_FullMethodName: true}, func(context.Context) bool { return trusted }))
	healthpb.RegisterHealthServer(server, health.NewServer())
	listener := bufconn.Listen(1 << 16)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	client, err := grpc.NewClient("passthrough:///", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return listener.Dial() }))
	if err != nil {
		t.Fatal(err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", "00-"+callerTrace+"-"+callerSpan+"-01", "tracestate", "secret=state", "baggage", "secret=baggage")
	_, err = healthpb.NewHealthClient(client).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
	if (err != nil) != (service != "") {
		t.Errorf("the check of %q: %v", service, err)
	}
	if err := client.Invoke(ctx, "/secret/method", &healthpb.HealthCheckRequest{}, &healthpb.HealthCheckResponse{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("an unknown method: %v", err)
	}
	client.Close()
	server.GracefulStop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	traced.Close()
	spans := kept.GetSpans()
	if len(spans) != 1 {
		t.Fatalf("%d spans of one known method: %+v", len(spans), spans)
	}
	return spans[0]
}

// keepOpen keeps the spans after the end of the exporter.
type keepOpen struct{ *tracetest.InMemoryExporter }

func (keepOpen) Shutdown(context.Context) error { return nil }

func TestServerOption_ParentOfTrustedCallers(t *testing.T) {
	span := call(t, true, "")
	if span.SpanContext.TraceID().String() != callerTrace || span.Parent.SpanID().String() != callerSpan || len(span.Links) != 0 {
		t.Errorf("the span is in trace %s below %s with the links %v", span.SpanContext.TraceID(), span.Parent.SpanID(), span.Links)
	}
	if got := span.SpanContext.TraceState().String() + span.Parent.TraceState().String(); got != "" {
		t.Errorf("the span has the caller's trace state %q", got)
	}
}

func TestServerOption_LinkToOtherCallers(t *testing.T) {
	span := call(t, false, "")
	if span.SpanContext.TraceID().String() == callerTrace || span.Parent.IsValid() {
		t.Errorf("the span is in the caller's trace: %s below %s", span.SpanContext.TraceID(), span.Parent.SpanID())
	}
	if len(span.Links) != 1 || span.Links[0].SpanContext.TraceID().String() != callerTrace || span.Links[0].SpanContext.TraceState().Len() != 0 {
		t.Errorf("the links are %+v", span.Links)
	}
}

func TestServerOption_NoTextOfErrors(t *testing.T) {
	span := call(t, true, "secret service")
	for _, a := range span.Attributes {
		if strings.Contains(a.Value.String(), "secret") {
			t.Errorf("the span has the attribute %s %q", a.Key, a.Value.String())
		}
	}
}

func TestRedactor(t *testing.T) {
	kept := tracetest.NewInMemoryExporter()
	traced := newTraces(keepOpen{kept}, resource.Empty(), "v1")
	_, span := traced.tracer.Start(t.Context(), "call")
	span.SetStatus(2, "secret")
	span.RecordError(errors.New("secret"))
	span.AddEvent("secret")
	span.SetAttributes(attribute.String("server.address", "secret.example"), attribute.String("lpfs.step", "PUT"))
	span.End()
	traced.Close()
	got := kept.GetSpans()[0]
	if got.Status.Description != "" || len(got.Events) != 0 || len(got.Attributes) != 1 || got.Attributes[0].Key != "lpfs.step" {
		t.Errorf("exported: %+v", got)
	}
}

func TestStepObserver(t *testing.T) {
	kept := tracetest.NewInMemoryExporter()
	traced := newTraces(keepOpen{kept}, resource.Empty(), "v1")
	var observed error
	step := traced.StepObserver(func(ctx context.Context, _ share.System, _ string) (context.Context, func(error)) {
		if IDOf(ctx) == "" {
			t.Error("the metric of the step cannot name its trace")
		}
		return ctx, func(err error) { observed = err }
	})
	refused := share.Errorf(share.LPForbidden, "secret", nil)
	outer, endOuter := step.Begin(t.Context(), share.SystemLivePerson, "open")
	_, end := step.Begin(outer, share.SystemLivePerson, "login")
	end(refused)
	endOuter(nil)
	traced.Close()
	spans := kept.GetSpans()
	if len(spans) != 2 || observed != nil {
		t.Fatalf("%d spans; the last result was %v", len(spans), observed)
	}
	login, open := spans[0], spans[1]
	if login.Name != "liveperson login" || login.SpanKind != trace.SpanKindClient || login.Parent.SpanID() != open.SpanContext.SpanID() {
		t.Errorf("the inner step is %+v", login)
	}
	want := attribute.NewSet(attribute.String("lpfs.system", "liveperson"), attribute.String("lpfs.step", "login"), attribute.String("error.type", "LP_FORBIDDEN"))
	if got := attribute.NewSet(login.Attributes...); !got.Equals(&want) {
		t.Errorf("the attributes are %v", login.Attributes)
	}
}

// A stuckExporter exports nothing until its context ends, as to a collector that is down.
type stuckExporter struct {
	shutdown chan struct{}
	once     sync.Once
}

func (e *stuckExporter) ExportSpans(ctx context.Context, _ []sdktrace.ReadOnlySpan) error {
	select {
	case <-ctx.Done():
	case <-e.shutdown:
	}
	return status.Error(codes.Unavailable, "secret address")
}

func (e *stuckExporter) Shutdown(context.Context) error {
	e.once.Do(func() { close(e.shutdown) })
	return nil
}

func TestClose_CollectorDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		traced := newTraces(&stuckExporter{shutdown: make(chan struct{})}, resource.Empty(), "v1")
		_, end := traced.StepObserver(nil).Begin(t.Context(), share.SystemStore, "PUT")
		end(nil)
		begun := time.Now()
		traced.Close()
		if took := time.Since(begun); took > shutdownTimeout {
			t.Errorf("Close took %s", took)
		}
	})
}

func TestLogHandler(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(LogHandler(slog.NewTextHandler(&out, nil))).With("a", 1)
	traced := newTraces(keepOpen{tracetest.NewInMemoryExporter()}, resource.Empty(), "v1")
	defer traced.Close()
	ctx, span := traced.tracer.Start(t.Context(), "call")
	defer span.End()
	log.InfoContext(ctx, "inside")
	log.InfoContext(t.Context(), "outside")
	inside, outside, _ := strings.Cut(out.String(), "\n")
	if id := span.SpanContext(); !strings.Contains(inside, "trace_id="+id.TraceID().String()+" span_id="+id.SpanID().String()) {
		t.Errorf("inside of a span: %s", inside)
	}
	if strings.Contains(outside, "trace_id") {
		t.Errorf("outside of a span: %s", outside)
	}
}

func TestErrorLog_NoAddresses(t *testing.T) {
	var out bytes.Buffer
	errorLog{slog.New(slog.NewTextHandler(&out, nil))}.Handle(status.Error(codes.Unavailable, "dial secret"))
	if got := out.String(); strings.Contains(got, "secret") || !strings.Contains(got, "code=Unavailable") {
		t.Errorf("logged: %s", got)
	}
}
