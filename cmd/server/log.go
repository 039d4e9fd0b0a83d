package main

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/boundedlog"
	"github.com/lpfileshare/lpfileshare/internal/service"
	"github.com/lpfileshare/lpfileshare/internal/traces"
	"google.golang.org/grpc/codes"
)

// logFlags say what the log contains.
type logFlags struct {
	Level  slog.Level `name:"log-level" default:"info" placeholder:"LEVEL" help:"Minimum level of log lines: debug, info, warn or error (${default})."`
	Format string     `name:"log-format" enum:"text,json" default:"text" help:"Format of the log on stderr: text or json (${default})."`
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
	level  *slog.LevelVar // which the admin server can change
	out    *boundedlog.Writer
	bounds *boundedlog.Handler // nil if the level was debug at the start: then nothing is left out
}

// openLog returns a log that writes to w. The caller must close it.
func openLog(f *logFlags, w io.Writer) *serverLog {
	l := &serverLog{level: &slog.LevelVar{}}
	l.level.Set(f.Level)
	newHandler := func(w io.Writer) slog.Handler {
		opts := &slog.HandlerOptions{Level: l.level}
		if f.Format == "json" {
			return slog.NewJSONHandler(w, opts)
		}
		return slog.NewTextHandler(w, opts)
	}
	l.out = boundedlog.NewWriter(w, func(w io.Writer, lines int64) error {
		r := slog.NewRecord(time.Now(), slog.LevelWarn, "log lines were dropped, because stderr could not be written", 0)
		r.AddAttrs(slog.Int64("lines", lines))
		return newHandler(w).Handle(context.Background(), r)
	})
	handler := newHandler(l.out)
	if traces.Configured() {
		handler = traces.LogHandler(handler)
	}
	if f.Level > slog.LevelDebug {
		l.bounds = boundedlog.NewHandler(handler, maxLines)
		handler = l.bounds
	}
	l.Logger = slog.New(handler)
	return l
}

// always logs a line at the level info, or at the level of the log if that is higher: some lines must never be missing.
func (l *serverLog) always(message string, attrs ...slog.Attr) {
	l.LogAttrs(context.Background(), max(slog.LevelInfo, l.level.Level()), message, attrs...)
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
