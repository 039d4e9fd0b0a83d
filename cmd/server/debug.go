package main

import (
	"encoding/json"
	"errors"
	"expvar"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/url"
	"runtime"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/audit"
	"github.com/lpfileshare/lpfileshare/internal/connector"
	"github.com/lpfileshare/lpfileshare/internal/netrules"
	"github.com/lpfileshare/lpfileshare/internal/recvlimit"
	"github.com/lpfileshare/lpfileshare/internal/rejections"
	"github.com/lpfileshare/lpfileshare/internal/scan"
)

// counters are what /debug/vars shows besides Go's own variables; docs/limits.md describes them.
type counters struct {
	rejected *rejections.Tally
	messages *recvlimit.Limiter
	webhooks *connector.Messenger
	scanner  *scan.Scanner // nil: none
	log      *serverLog
}

// vars returns the counters by name.
func (c *counters) vars() map[string]any {
	vars := map[string]any{"rejections": c.rejections(), "webhooks": c.webhooks.Counts(), "log_lines": c.log.counts()}
	if c.scanner != nil {
		vars["scans"] = c.scanner.Counts()
	}
	return vars
}

// rejections returns how often each limit rejected something.
func (c *counters) rejections() map[string]int64 {
	rejected := c.rejected.Counts()
	rejected["RECEIVE_MEMORY"] = c.messages.Ended()
	return rejected
}

// debugServer serves Go's profiles and counters, on loopback only, because a heap dump contains tokens.
type debugServer struct {
	listener net.Listener
	http     *http.Server
	ended    chan struct{}
}

func startDebug(addr string, c *counters, trail *audit.Log, log *slog.Logger) (*debugServer, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("--debug-listen: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("/debug/vars", func(w http.ResponseWriter, _ *http.Request) {
		vars := c.vars()
		expvar.Do(func(v expvar.KeyValue) { vars[v.Key] = json.RawMessage(v.Value.String()) })
		writeJSON(w, vars)
	})
	mux.HandleFunc("/debug/webhooks", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, c.webhooks.Counts()) })
	mux.HandleFunc("/debug/gc", func(w http.ResponseWriter, _ *http.Request) { // so that a measurement counts live memory only
		runtime.GC()
		fmt.Fprintln(w, runtime.NumGoroutine())
	})
	d := &debugServer{
		listener: listener, ended: make(chan struct{}),
		http: &http.Server{Handler: auditRequests(trail, "debug", localOnly(mux)), ReadHeaderTimeout: 10 * time.Second},
	}
	go func() {
		defer close(d.ended)
		if err := d.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("debug server failed", "error", err)
		}
	}()
	return d, nil
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// localOnly rejects requests of web pages of other origins, which a browser on this machine would send: those whose Host is not
// loopback, because its name can resolve to loopback (DNS rebinding), and those whose Origin or Sec-Fetch-Site names another origin.
func localOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin, site := r.Header.Get("Origin"), r.Header.Get("Sec-Fetch-Site")
		switch {
		case !netrules.IsLoopback((&url.URL{Host: r.Host}).Hostname()):
			http.Error(w, "the Host header must be localhost or a loopback address", http.StatusMisdirectedRequest)
		case origin != "" && origin != "http://"+r.Host, site != "" && site != "same-origin" && site != "none":
			http.Error(w, "requests of other origins are rejected", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func (d *debugServer) close() {
	d.http.Close()
	<-d.ended
}
