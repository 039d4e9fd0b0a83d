package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/lpfileshare/lpfileshare/internal/audit"
	"github.com/lpfileshare/lpfileshare/internal/buildinfo"
	"github.com/lpfileshare/lpfileshare/internal/connlimit"
	"github.com/lpfileshare/lpfileshare/internal/httpguard"
	"github.com/lpfileshare/lpfileshare/internal/metrics"
	"github.com/lpfileshare/lpfileshare/internal/netrules"
	"github.com/lpfileshare/lpfileshare/internal/rejections"
)

// adminFlags say where platforms and operators look at the server; docs/admin.md lists the pages.
type adminFlags struct {
	Listen      string   `name:"admin-listen" placeholder:"ADDR" help:"Address to serve probes, metrics and pages for operators on, over HTTP. Default: none."`
	Open        []string `name:"admin-open" default:"health,metrics,version" enum:"health,metrics,version,none" placeholder:"SET" help:"Pages of --admin-listen that are open to all that can reach it: health, metrics, version, or none (${default}). They contain no secrets and no identifiers. The other pages require a client certificate or a loopback address."`
	ClientCA    string   `name:"admin-client-ca" placeholder:"FILE" help:"PEM file of the authorities whose client certificates open all pages of --admin-listen, which then has TLS with --tls-cert. It is reloaded: see --reload-every. Default: none."`
	DebugListen string   `name:"debug-listen" placeholder:"ADDR" help:"Loopback address to serve all pages on. Metrics are counted with --admin-listen only. Default: none."`
}

// The sets of pages that --admin-open names.
const (
	healthPages  = "health"
	metricsPages = "metrics"
	versionPages = "version"
	noPages      = "none"
	guardedPages = "" // cannot be opened
)

// Validate checks the addresses and the set.
func (f *adminFlags) Validate() error {
	var errs []error
	if f.Listen != "" {
		if _, _, err := net.SplitHostPort(f.Listen); err != nil {
			errs = append(errs, fmt.Errorf("--admin-listen %s is not an address; use HOST:PORT, or :PORT for all addresses of this machine", f.Listen))
		}
	}
	if f.DebugListen != "" && !isLoopbackAddress(f.DebugListen) {
		errs = append(errs, fmt.Errorf("--debug-listen %s is not a loopback address, and a heap profile can contain tokens; use 127.0.0.1:PORT", f.DebugListen))
	}
	if f.ClientCA != "" && f.Listen == "" {
		errs = append(errs, errors.New("--admin-client-ca has no effect without --admin-listen; add it, or leave both out"))
	}
	if slices.Contains(f.Open, noPages) && len(f.Open) > 1 {
		errs = append(errs, errors.New("--admin-open has none and other sets; leave one of them out"))
	}
	return errors.Join(errs...)
}

// isLoopbackAddress reports whether HOST:PORT is on this machine only.
func isLoopbackAddress(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && netrules.IsLoopback(host)
}

// maxAdminConnections is the maximum number of connections at once, of which each address has a share.
const maxAdminConnections = 64

// An adminServer serves what probes, Prometheus and operators read, on up to two addresses. Pages that can contain secrets or that
// change something are guarded.
type adminServer struct {
	flags       *adminFlags
	connections *connlimit.Limiter
	admin       net.Listener // nil without --admin-listen
	debug       net.Listener // nil without --debug-listen
	mux         *http.ServeMux
	servers     []*http.Server
	trail       *audit.Log // of requests; may be nil
	ended       sync.WaitGroup
}

// listenAdmin begins to listen. It returns nil without an address.
func listenAdmin(f *adminFlags, rejected *rejections.Tally) (_ *adminServer, err error) {
	if f.Listen == "" && f.DebugListen == "" {
		return nil, nil
	}
	a := &adminServer{flags: f, connections: connlimit.New(maxAdminConnections, rejected.Add), mux: http.NewServeMux()}
	if f.Listen != "" {
		if a.admin, err = net.Listen("tcp", f.Listen); err != nil {
			return nil, fmt.Errorf("--admin-listen: %w", err)
		}
	}
	if f.DebugListen != "" {
		if a.debug, err = net.Listen("tcp", f.DebugListen); err != nil {
			if a.admin != nil {
				a.admin.Close()
			}
			return nil, fmt.Errorf("--debug-listen: %w", err)
		}
	}
	return a, nil
}

// addresses returns the addresses for the ready line. a may be nil.
func (a *adminServer) addresses() (attrs []slog.Attr) {
	if a == nil {
		return nil
	}
	if a.admin != nil {
		attrs = append(attrs, slog.String("admin", a.admin.Addr().String()))
	}
	if a.debug != nil {
		attrs = append(attrs, slog.String("debug", a.debug.Addr().String()))
	}
	return attrs
}

// start serves the pages that need no other part of the server, until close. m may be nil. secure has the certificate for --admin-client-ca.
func (a *adminServer) start(m *metrics.Metrics, serving *health.Server, secure *serverTLS, trail *audit.Log, log *slog.Logger) {
	a.trail = trail
	// A process that answers lives. Nothing that it depends on may restart it.
	a.page("GET /livez", healthPages, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	a.page("GET /readyz", healthPages, func(w http.ResponseWriter, r *http.Request) { writeReadiness(w, r, serving) })
	if m != nil {
		a.page("GET /metrics", metricsPages, m.Handler().ServeHTTP)
	}
	a.page("GET /version", versionPages, func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, map[string]string{"version": buildinfo.Version(), "revision": buildinfo.Revision(), "go": runtime.Version()})
	})
	if a.admin != nil {
		var config *tls.Config
		if a.flags.ClientCA != "" {
			config = secure.forAdmin()
		}
		a.serve("admin", a.admin, isLoopbackAddress(a.flags.Listen), config, log)
	}
	if a.debug != nil {
		a.serve("debug", a.debug, true, nil, log)
	}
}

// page adds a page, which belongs to one of the sets of pages.
func (a *adminServer) page(pattern, set string, handler http.HandlerFunc) {
	if set != guardedPages && slices.Contains(a.flags.Open, set) {
		a.mux.HandleFunc(pattern, handler)
		return
	}
	a.mux.Handle(pattern, guard(handler))
}

// localKey is the key of contexts of requests to a listener on loopback.
type localKey struct{}

// guard serves requests with a client certificate, and those to a listener on loopback. The address of a connection alone proves nothing:
// those that a sidecar proxy forwards come from loopback too.
func guard(page http.Handler) http.Handler {
	local, remote := httpguard.LocalOnly(page), httpguard.SameOrigin(page)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.TLS != nil && len(r.TLS.VerifiedChains) > 0:
			remote.ServeHTTP(w, r)
		case r.Context().Value(localKey{}) != nil:
			local.ServeHTTP(w, r)
		default:
			http.Error(w, "this page requires a client certificate (--admin-client-ca) or the loopback address of --debug-listen", http.StatusForbidden)
		}
	})
}

// serve serves a listener, whose name is for the audit stream; local: it is on loopback. Without config there is no TLS.
func (a *adminServer) serve(name string, listener net.Listener, local bool, config *tls.Config, log *slog.Logger) {
	ctx := context.Background()
	if local {
		ctx = context.WithValue(ctx, localKey{}, true)
	}
	server := &http.Server{
		Handler: auditRequests(a.trail, name, a.mux), ConnState: a.connections.ConnState, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug), MaxHeaderBytes: 16 << 10,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 20 * time.Second, IdleTimeout: 2 * time.Minute,
		BaseContext: func(net.Listener) context.Context { return ctx }, TLSConfig: config,
	}
	a.servers = append(a.servers, server)
	serve := server.Serve
	if config != nil {
		serve = func(l net.Listener) error { return server.ServeTLS(l, "", "") }
	}
	limited := a.connections.Listener(listener)
	a.ended.Go(func() {
		if err := serve(limited); !errors.Is(err, http.ErrServerClosed) {
			log.Error("admin server failed", "error", err)
		}
	})
}

// close ends the server, after the drain: until then probes see that the process lives and is not ready.
func (a *adminServer) close() {
	for _, s := range a.servers {
		s.Close()
	}
	a.ended.Wait()
}

// healthParts are the parts of readiness, with their names in the health service.
var healthParts = []struct {
	name, health string
	decides      bool // whether the status depends on it
}{
	{"server", "", true}, {"ledger", ledgerHealth, true}, {"events", eventsHealth, true}, {"callers", callersHealth, true}, {"uploads", readyHealth, true},
	{"audit", auditHealth, true}, {"scanner", scannerHealth, false},
}

// writeReadiness answers 200 if this server can do all that an upload needs, else 503: the health service says the same to gRPC clients.
// With the query "verbose" it lists the parts.
func writeReadiness(w http.ResponseWriter, r *http.Request, serving *health.Server) {
	var lines strings.Builder
	status := http.StatusOK
	for _, part := range healthParts {
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
