package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/boundedlog"
	"github.com/lpfileshare/lpfileshare/internal/netrules"
	"github.com/lpfileshare/lpfileshare/internal/service"
	"google.golang.org/grpc/codes"
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

// Limits of the log.
const (
	// maxFinishedCalls is the maximum number of lines about successful calls per second.
	maxFinishedCalls = 100
	// maxLinesPerKind is the same for lines of any other kind, such as calls that fail for one reason.
	maxLinesPerKind = 20
	// logFlushTime is how long the server waits, when it ends, for a reader of the log.
	logFlushTime = time.Second
)

// A serverLog is the log on stderr. No token, signature or socket URL is logged anywhere in this program. Logging never blocks and
// never fails, whatever happens to stderr.
type serverLog struct {
	*slog.Logger
	out    *boundedlog.Writer
	bounds *boundedlog.Handler // nil at the level debug, at which nothing is left out
}

// openLog returns a log that writes to w. The caller must close it.
func openLog(f *logFlags, w io.Writer) *serverLog {
	l := &serverLog{out: boundedlog.NewWriter(w, func(w io.Writer, lines int64) error {
		r := slog.NewRecord(time.Now(), slog.LevelWarn, "log lines were dropped, because stderr could not be written", 0)
		r.AddAttrs(slog.Int64("lines", lines))
		return newLogHandler(f, w).Handle(context.Background(), r)
	})}
	handler := newLogHandler(f, l.out)
	if f.Level > slog.LevelDebug {
		l.bounds = boundedlog.NewHandler(handler, maxLines)
		handler = l.bounds
	}
	l.Logger = slog.New(handler)
	return l
}

func newLogHandler(f *logFlags, w io.Writer) slog.Handler {
	opts := &slog.HandlerOptions{Level: f.Level}
	if f.Format == "json" {
		return slog.NewJSONHandler(w, opts)
	}
	return slog.NewTextHandler(w, opts)
}

// maxLines returns how many lines of a kind may be written per second.
func maxLines(kind boundedlog.Kind) int {
	if kind.Message == service.FinishedCall && kind.Code == codes.OK.String() {
		return maxFinishedCalls
	}
	return maxLinesPerKind
}

// counts returns the numbers of lines that were not written since the start, for /debug/vars.
func (l *serverLog) counts() map[string]int64 {
	counts := map[string]int64{"dropped": l.out.Dropped(), "left_out": 0}
	if l.bounds != nil {
		counts["left_out"] = l.bounds.LeftOut()
	}
	return counts
}

// close writes what has not been written, for at most logFlushTime.
func (l *serverLog) close() {
	if l.bounds != nil {
		l.bounds.Close()
	}
	l.out.Close(logFlushTime)
}
