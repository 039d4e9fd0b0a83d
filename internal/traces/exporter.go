package traces

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// exportTimeout is the time limit of an export, unless OTEL_EXPORTER_OTLP_TIMEOUT has another.
const exportTimeout = 10 * time.Second

// A client sends spans to a collector by OTLP over gRPC. OpenTelemetry's own clients import gRPC's gzip, which would register it for the
// whole process: the server would then accept compressed messages, whose size no limit knows.
type client struct {
	headers metadata.MD
	timeout time.Duration
	conn    *grpc.ClientConn
}

// newClient returns a client that the variables OTEL_EXPORTER_OTLP_* configure. It connects in the background.
func newClient() (*client, error) {
	endpoint, secure, err := endpointOf(setting("ENDPOINT"))
	if err != nil {
		return nil, err
	}
	c := &client{timeout: exportTimeout}
	if c.headers, err = headersOf(setting("HEADERS")); err != nil {
		return nil, err
	}
	if text := setting("TIMEOUT"); text != "" {
		ms, err := strconv.Atoi(text)
		if err != nil || ms <= 0 {
			return nil, errors.New("OTEL_EXPORTER_OTLP_TIMEOUT is not a number of milliseconds")
		}
		c.timeout = time.Duration(ms) * time.Millisecond
	}
	transport := insecure.NewCredentials()
	if secure {
		config, err := tlsOf(setting("CERTIFICATE"), setting("CLIENT_CERTIFICATE"), setting("CLIENT_KEY"))
		if err != nil {
			return nil, err
		}
		transport = credentials.NewTLS(config)
	}
	c.conn, err = grpc.NewClient(endpoint, grpc.WithTransportCredentials(transport), grpc.WithUserAgent("lpfileshare"))
	if err != nil {
		return nil, errors.New("OTEL_EXPORTER_OTLP_ENDPOINT is not an address")
	}
	return c, nil
}

// setting returns the value of a variable for traces, or of the one for all signals.
func setting(name string) string {
	if v := os.Getenv("OTEL_EXPORTER_OTLP_TRACES_" + name); v != "" {
		return v
	}
	return os.Getenv("OTEL_EXPORTER_OTLP_" + name)
}

// endpointOf returns host and port of an endpoint, and whether it uses TLS. An error does not quote it: a URL can contain a password.
func endpointOf(text string) (address string, secure bool, err error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
		return "", false, errors.New("the endpoint is not http://HOST:PORT or https://HOST:PORT")
	}
	address, secure = u.Host, u.Scheme == "https"
	if u.Port() == "" {
		address += ":4317"
	}
	return address, secure, nil
}

// headersOf reads KEY=VALUE,KEY=VALUE, in which values are encoded as in URLs.
func headersOf(text string) (metadata.MD, error) {
	headers := metadata.MD{}
	for pair := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if key = strings.TrimSpace(key); !ok || key == "" || err != nil {
			return nil, errors.New("OTEL_EXPORTER_OTLP_HEADERS is invalid; write KEY=VALUE,KEY=VALUE")
		}
		headers.Append(key, value)
	}
	return headers, nil
}

// tlsOf reads the files of the collector's authority and of the server's own certificate. Empty: the system's authorities, and none.
func tlsOf(authority, cert, key string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if authority != "" {
		pem, err := os.ReadFile(authority)
		if err != nil {
			return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_CERTIFICATE: %w", err)
		}
		if config.RootCAs = x509.NewCertPool(); !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_CERTIFICATE: %s has no certificate in PEM", authority)
		}
	}
	if cert != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and _CLIENT_KEY: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// Start implements otlptrace.Client.
func (c *client) Start(context.Context) error { return nil }

// Stop implements otlptrace.Client. It ends a running export.
func (c *client) Stop(context.Context) error { return c.conn.Close() }

// UploadTraces implements otlptrace.Client. What a collector does not accept is dropped, as the batches that do not fit are.
func (c *client) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	ctx, cancel := context.WithTimeout(metadata.NewOutgoingContext(ctx, c.headers), c.timeout)
	defer cancel()
	answer, err := collectorpb.NewTraceServiceClient(c.conn).Export(ctx, &collectorpb.ExportTraceServiceRequest{ResourceSpans: spans}, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	if n := answer.GetPartialSuccess().GetRejectedSpans(); n > 0 {
		return fmt.Errorf("the collector rejected %d spans", n)
	}
	return nil
}
