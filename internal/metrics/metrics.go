// Package metrics has the server's metrics in Prometheus' terms. docs/metrics.md lists them.
//
// All labels have values from fixed sets: methods and codes of the contract, kinds of errors, names of steps and limits. No account, no
// caller and no text of a caller's becomes a label.
package metrics

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/lpfileshare/lpfileshare/internal/service"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// failedName is the name of the counter of calls that failed.
const failedName = "lpfs_calls_failed_total"

// otherKind is the label of errors that have no kind of their own.
const otherKind = "OTHER"

var (
	callSeconds = []float64{.005, .025, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 600}
	stepSeconds = []float64{.001, .005, .025, .1, .25, .5, 1, 2.5, 5, 10, 30}
	fileBytes   = []float64{16 << 10, 64 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 3 << 20, 5 << 20, 10 << 20, 25 << 20}
)

// Metrics are the metrics of one server. It is safe for concurrent use. The zero pointer stands for a server without metrics: only
// StepObserver, LinkTraces and Reloaded may be called.
type Metrics struct {
	registry  *prometheus.Registry
	grpc      *middleware.ServerMetrics
	exemplar  func(context.Context) prometheus.Labels // nil without traces
	exemplars []middleware.Option

	failed     *prometheus.CounterVec   // by method and reason
	uploaded   prometheus.Counter       // bytes
	downloaded prometheus.Counter       // bytes
	sizes      prometheus.Histogram     // of uploaded files
	steps      *prometheus.HistogramVec // by system and step
	stepErrors *prometheus.CounterVec   // by system, step and kind
	reloaded   *prometheus.GaugeVec     // by file: whether the latest reload succeeded
	reloadedAt *prometheus.GaugeVec     // by file: when one succeeded last
}

// New returns the metrics of a server of a version. Revision identifies its source code; it may be empty.
func New(version, revision, goVersion string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		grpc:     middleware.NewServerMetrics(middleware.WithServerHandlingTimeHistogram(middleware.WithHistogramBuckets(callSeconds))),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: failedName, Help: "Calls that failed, by method and ErrorReason.",
		}, []string{"method", "reason"}),
		uploaded:   prometheus.NewCounter(prometheus.CounterOpts{Name: "lpfs_upload_bytes_total", Help: "Bytes of files received in uploads, finished or not."}),
		downloaded: prometheus.NewCounter(prometheus.CounterOpts{Name: "lpfs_download_bytes_total", Help: "Bytes of files sent in downloads."}),
		sizes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "lpfs_upload_size_bytes", Help: "Size of the files whose upload succeeded, as received.", Buckets: fileBytes,
		}),
		steps: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "lpfs_step_duration_seconds", Help: "Duration of requests to LivePerson, the store and the ledger, by step. A GET ends with its first byte.",
			Buckets: stepSeconds,
		}, []string{"system", "step"}),
		stepErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lpfs_step_errors_total", Help: "Requests to LivePerson, the store and the ledger that failed, by step and kind of error.",
		}, []string{"system", "step", "kind"}),
		reloaded: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "lpfs_config_last_reload_success", Help: "1 if the latest reload of a file succeeded, else 0: the previous content is in use.",
		}, []string{"file"}),
		reloadedAt: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "lpfs_config_last_reload_success_timestamp_seconds", Help: "When a file was loaded last with success.",
		}, []string{"file"}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "lpfs_build_info", Help: "Always 1.",
		ConstLabels: prometheus.Labels{"version": version, "revision": revision, "goversion": goVersion},
	})
	info.Set(1)
	m.registry.MustRegister(
		m.grpc, m.failed, m.uploaded, m.downloaded, m.sizes, m.steps, m.stepErrors, m.reloaded, m.reloadedAt, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// Handler serves the metrics in the formats of Prometheus.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry, EnableOpenMetrics: true, MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
}

// Unary and Stream are the interceptors that count calls. They must be the outermost, so that they see the statuses of the others.
func (m *Metrics) Unary() grpc.UnaryServerInterceptor {
	return m.grpc.UnaryServerInterceptor(m.exemplars...)
}

// Stream is Unary for streams.
func (m *Metrics) Stream() grpc.StreamServerInterceptor {
	return m.grpc.StreamServerInterceptor(m.exemplars...)
}

// LinkTraces adds exemplars to the metrics of calls and steps, with the trace that traceID returns for a context; "": none. It must be
// called before calls and steps begin. m may be nil.
func (m *Metrics) LinkTraces(traceID func(context.Context) string) {
	if m == nil {
		return
	}
	m.exemplar = func(ctx context.Context) prometheus.Labels {
		if id := traceID(ctx); id != "" {
			return prometheus.Labels{"trace_id": id}
		}
		return nil
	}
	m.exemplars = []middleware.Option{middleware.WithExemplarFromContext(m.exemplar)}
}

// Serves initializes the series of all methods of server, so that those without a call are 0 and not absent.
func (m *Metrics) Serves(server *grpc.Server) { m.grpc.InitializeMetrics(server) }

// Ended counts a call of the contract that has ended.
func (m *Metrics) Ended(_ context.Context, c *service.EndedCall) {
	_, method, _ := strings.Cut(c.Method, "/")
	switch method {
	case "Upload", "UploadSmallFile":
		m.uploaded.Add(float64(c.Bytes))
		if c.Code == codes.OK && c.Bytes > 0 { // not if it was only validated, or repeated
			m.sizes.Observe(float64(c.Bytes))
		}
	case "Download":
		m.downloaded.Add(float64(c.Bytes))
	}
	if c.Code != codes.OK {
		m.failed.WithLabelValues(c.Method, cmp.Or(c.Reason, otherKind)).Inc()
	}
}

// Failed returns how many calls have failed, by reason.
func (m *Metrics) Failed() map[string]int64 {
	byReason := map[string]int64{}
	families, _ := m.registry.Gather() // what could be read
	for _, family := range families {
		if family.GetName() != failedName {
			continue
		}
		for _, series := range family.GetMetric() {
			for _, label := range series.GetLabel() {
				if label.GetName() == "reason" {
					byReason[label.GetValue()] += int64(series.GetCounter().GetValue())
				}
			}
		}
	}
	return byReason
}

// StepObserver observes the steps of calls.
func (m *Metrics) StepObserver() share.BeginStep {
	if m == nil {
		return nil
	}
	return m.beginStep
}

func (m *Metrics) beginStep(ctx context.Context, system share.System, step string) (context.Context, func(error)) {
	begun := time.Now()
	return ctx, func(err error) {
		m.observe(ctx, m.steps.WithLabelValues(string(system), step), time.Since(begun).Seconds())
		if err != nil && err != share.ErrStale && !errors.Is(ctx.Err(), context.Canceled) { // a caller that left is no failure of the system
			m.stepErrors.WithLabelValues(string(system), step, string(cmp.Or(share.KindOf(err), otherKind))).Inc()
		}
	}
}

// observe adds a value to a histogram, with an exemplar if there is a trace.
func (m *Metrics) observe(ctx context.Context, h prometheus.Observer, value float64) {
	if m.exemplar != nil {
		if labels := m.exemplar(ctx); labels != nil {
			h.(prometheus.ExemplarObserver).ObserveWithExemplar(value, labels)
			return
		}
	}
	h.Observe(value)
}

// Reloaded records that a file was read again. file is the name of its flag, without dashes.
func (m *Metrics) Reloaded(file string, err error) {
	if m == nil {
		return
	}
	success := 0.0
	if err == nil {
		success = 1
		m.reloadedAt.WithLabelValues(file).SetToCurrentTime()
	}
	m.reloaded.WithLabelValues(file).Set(success)
}

// Gauge adds a metric that is read whenever metrics are requested. read must be safe for concurrent use.
func (m *Metrics) Gauge(name, help string, read func() float64, labels ...string) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: pairs(labels)}, read))
}

// Count adds a counter that is read whenever metrics are requested. read must be safe for concurrent use.
func (m *Metrics) Count(name, help string, read func() float64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, read))
}

// Counts adds a counter by one label, which is read whenever metrics are requested. The values of the label must be from a fixed set.
func (m *Metrics) Counts(name, help, label string, read func() map[string]int64) {
	m.registry.MustRegister(&counts{prometheus.NewDesc(name, help, []string{label}, nil), read})
}

func pairs(labels []string) prometheus.Labels {
	l := prometheus.Labels{}
	for i := 0; i+1 < len(labels); i += 2 {
		l[labels[i]] = labels[i+1]
	}
	return l
}

// counts is a prometheus.Collector of counters that others count.
type counts struct {
	desc *prometheus.Desc
	read func() map[string]int64
}

// Describe implements prometheus.Collector.
func (c *counts) Describe(to chan<- *prometheus.Desc) { to <- c.desc }

// Collect implements prometheus.Collector.
func (c *counts) Collect(to chan<- prometheus.Metric) {
	for value, n := range c.read() {
		to <- prometheus.MustNewConstMetric(c.desc, prometheus.CounterValue, float64(n), value)
	}
}
