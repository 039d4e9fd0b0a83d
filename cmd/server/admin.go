package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"time"

	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/lpfileshare/lpfileshare/internal/audit"
	"github.com/lpfileshare/lpfileshare/internal/buildinfo"
	"github.com/lpfileshare/lpfileshare/internal/connlimit"
	"github.com/lpfileshare/lpfileshare/internal/metrics"
	"github.com/lpfileshare/lpfileshare/internal/rejections"
)

// adminFlags say where a platform looks at the server.
type adminFlags struct {
	Listen string `name:"admin-listen" placeholder:"ADDR" help:"Address to serve /livez, /readyz, /metrics and /version on, over HTTP, to all that can reach it. They contain no secrets and no identifiers. Default: none."`
}

// Validate checks the address.
func (f *adminFlags) Validate() error {
	if f.Listen == "" {
		return nil
	}
	if _, _, err := net.SplitHostPort(f.Listen); err != nil {
		return fmt.Errorf("--admin-listen %s is not an address; use HOST:PORT, or :PORT for all addresses of this machine", f.Listen)
	}
	return nil
}

// maxAdminConnections is the maximum number of connections at once, of which each address has a share.
const maxAdminConnections = 64

// An adminServer serves what probes and Prometheus read. It has no operation that changes anything. What may contain secrets is on the
// debug server, which is on loopback only.
type adminServer struct {
	listener    net.Listener
	connections *connlimit.Limiter
	http        *http.Server
	ended       chan struct{}
}

// listenAdmin begins to listen. It returns nil without --admin-listen.
func listenAdmin(f *adminFlags, rejected *rejections.Tally) (*adminServer, error) {
	if f.Listen == "" {
		return nil, nil
	}
	listener, err := net.Listen("tcp", f.Listen)
	if err != nil {
		return nil, fmt.Errorf("--admin-listen: %w", err)
	}
	connections := connlimit.New(maxAdminConnections, rejected.Add)
	return &adminServer{listener: connections.Listener(listener), connections: connections, ended: make(chan struct{})}, nil
}

// start serves until close.
func (a *adminServer) start(m *metrics.Metrics, serving *health.Server, trail *audit.Log, log *slog.Logger) {
	mux := http.NewServeMux()
	// A process that answers lives. Nothing that it depends on may restart it.
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { writeReadiness(w, r, serving) })
	mux.Handle("GET /metrics", m.Handler())
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, map[string]string{"version": buildinfo.Version(), "revision": buildinfo.Revision(), "go": runtime.Version()})
	})
	a.http = &http.Server{
		Handler: auditRequests(trail, "admin", mux), ConnState: a.connections.ConnState, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug), MaxHeaderBytes: 16 << 10,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 20 * time.Second, IdleTimeout: 2 * time.Minute,
	}
	go func() {
		defer close(a.ended)
		if err := a.http.Serve(a.listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("admin server failed", "error", err)
		}
	}()
}

// close ends the server, after the drain: until then probes see that the process lives and is not ready. It may be called without
// start.
func (a *adminServer) close() {
	if a.http == nil {
		a.listener.Close()
		return
	}
	a.http.Close()
	<-a.ended
}

// writeReadiness answers 200 if this server can do all that an upload needs, else 503: the health service says the same to gRPC clients.
// With the query "verbose" it lists the parts.
func writeReadiness(w http.ResponseWriter, r *http.Request, serving *health.Server) {
	var lines strings.Builder
	status := http.StatusOK
	for _, part := range []struct {
		name, health string
		decides      bool // whether the status depends on it
	}{
		{"server", "", true}, {"ledger", ledgerHealth, true}, {"events", eventsHealth, true}, {"callers", callersHealth, true}, {"uploads", readyHealth, true},
		{"audit", auditHealth, true}, {"scanner", scannerHealth, false},
	} {
		mark := "+"
		if !isServing(serving, part.health) {
			mark = "-"
			if part.decides {
				status = http.StatusServiceUnavailable
			}
		}
		fmt.Fprintf(&lines, "[%s] %s\n", mark, part.name)
	}
	w.WriteHeader(status)
	if r.URL.Query().Has("verbose") {
		fmt.Fprint(w, lines.String())
		return
	}
	fmt.Fprintln(w, map[bool]string{true: "ok", false: "not ready"}[status == http.StatusOK])
}

// isServing reports whether the health service says SERVING for a name.
func isServing(serving *health.Server, name string) bool {
	answer, err := serving.Check(context.Background(), &healthpb.HealthCheckRequest{Service: name})
	return err == nil && answer.GetStatus() == healthpb.HealthCheckResponse_SERVING
}
