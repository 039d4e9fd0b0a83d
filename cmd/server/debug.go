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
	"runtime"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/connector"
)

// debugServer serves Go's profiles and counters, on loopback only, because a heap dump contains tokens.
type debugServer struct {
	listener net.Listener
	http     *http.Server
	ended    chan struct{}
}

func startDebug(addr string, messenger *connector.Messenger, log *slog.Logger) (*debugServer, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("--debug-listen: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.Handle("/debug/vars", expvar.Handler())
	mux.HandleFunc("/debug/webhooks", func(w http.ResponseWriter, _ *http.Request) { // numbers of received webhooks
		_ = json.NewEncoder(w).Encode(messenger.Counts())
	})
	mux.HandleFunc("/debug/gc", func(w http.ResponseWriter, _ *http.Request) { // so that a measurement counts live memory only
		runtime.GC()
		fmt.Fprintln(w, runtime.NumGoroutine())
	})
	d := &debugServer{listener: listener, http: &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}, ended: make(chan struct{})}
	go func() {
		defer close(d.ended)
		if err := d.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("debug server failed", "error", err)
		}
	}()
	return d, nil
}

func (d *debugServer) close() {
	d.http.Close()
	<-d.ended
}
