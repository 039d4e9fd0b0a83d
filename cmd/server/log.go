package main

import (
	"fmt"
	"io"
	"log/slog"
	"net"

	"github.com/lpfileshare/lpfileshare/internal/netrules"
)

// logFlags say what an operator sees of the server.
type logFlags struct {
	DebugListen string     `placeholder:"ADDR" help:"Loopback address to serve Go's profiles and counters (pprof, expvar) on. Default: none."`
	Level       slog.Level `name:"log-level" default:"info" placeholder:"LEVEL" help:"Minimum level of log lines: debug, info, warn or error (${default})."`
	Format      string     `name:"log-format" enum:"text,json" default:"text" help:"Format of the log on stderr: text or json (${default})."`
}

// Validate checks the address of the debug server.
func (f *logFlags) Validate() error {
	if f.DebugListen == "" {
		return nil
	}
	if host, _, err := net.SplitHostPort(f.DebugListen); err != nil || !netrules.IsLoopback(host) {
		return fmt.Errorf("--debug-listen %s is not a loopback address, and a heap profile can contain tokens; use 127.0.0.1:PORT", f.DebugListen)
	}
	return nil
}

// newLogger returns a logger that writes to w. No token, signature or socket URL is logged anywhere in this program.
func newLogger(f *logFlags, w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: f.Level}
	if f.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
