// Package scan has files scanned for malware by ClamAV's clamd, while they arrive.
package scan

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Config is what a Scanner works with. Every field but Step is required.
type Config struct {
	Address Address
	// Timeout is how long the verdict may take after the last byte of a file has arrived, including the wait for a connection.
	Timeout time.Duration
	// Connections is the maximum number of connections to clamd at once.
	Connections int
	// FailOpen accepts files that clamd gives no verdict on, and logs and counts them.
	FailOpen bool
	// Step observes each attempt, which includes the time in which the content arrives.
	Step share.BeginStep
	Log  *slog.Logger
}

// A Scanner scans with one clamd. It is safe for concurrent use.
type Scanner struct {
	Config
	connections *admission.Scans

	clean, rejected, failed, unscanned atomic.Int64
	down                               atomic.Bool // clamd did not answer when Watch asked last
}

// New returns a Scanner. It connects to nothing.
func New(c Config) *Scanner {
	return &Scanner{Config: c, connections: admission.NewScans(c.Connections)}
}

// Counts returns the number of scans by result since the start: clean, rejected, failed, and unscanned (accepted because of FailOpen).
func (s *Scanner) Counts() map[string]int64 {
	return map[string]int64{
		"clean": s.clean.Load(), "rejected": s.rejected.Load(), "failed": s.failed.Load(), "unscanned": s.unscanned.Load(),
	}
}

// Waiting returns the number of files that have arrived and wait for a connection.
func (s *Scanner) Waiting() int {
	_, waiting := s.connections.InUse()
	return waiting
}

// Scan returns nil if the content may be stored. FileRejectedByScanner; ScannerUnavailable. It returns the cause of ctx's end if
// that ends it.
func (s *Scanner) Scan(ctx context.Context, job share.ScanJob) error {
	err := s.scan(ctx, job)
	switch {
	case err == nil:
		s.clean.Add(1)
	case ctx.Err() != nil: // the upload has ended
		return context.Cause(ctx)
	case share.Is(err, share.FileRejectedByScanner):
		s.rejected.Add(1)
	case s.FailOpen && failsOpen(err):
		s.unscanned.Add(1)
		s.Log.LogAttrs(ctx, slog.LevelWarn, "a file is accepted without a scan, because of --scan-fail-open",
			slog.String("account", job.Owner.Account), slog.String("part", job.Part), slog.Any("error", err))
		return nil
	default:
		s.failed.Add(1)
	}
	if e, ok := err.(*share.Error); ok {
		return e.With("part", job.Part)
	}
	return err
}

// attempts is how often the content is sent to a clamd that gives no verdict.
const attempts = 2

// scan sends the content to clamd while it arrives, if a connection is free for that, otherwise when all of it has arrived. If clamd gave no
// verdict it sends the content once more, when all of it has arrived. A clamd that cannot be reached is not tried again: the client
// does that.
func (s *Scanner) scan(ctx context.Context, job share.ScanJob) (err error) {
	ctx, cancel := s.untilTimeout(ctx, job)
	defer cancel()
	for n := range attempts {
		if n > 0 {
			s.Log.LogAttrs(ctx, slog.LevelDebug, "a scan failed and is repeated", slog.Any("error", err))
		}
		if err = s.scanOnce(ctx, job, n == 0); why(err) != whyFailed {
			return err
		}
	}
	return err
}

// scanOnce makes one attempt. arriving: a connection is taken while the content arrives, if one is free for that.
func (s *Scanner) scanOnce(ctx context.Context, job share.ScanJob, arriving bool) (err error) {
	end, err := s.begin(ctx, job, arriving)
	if err != nil {
		return err
	}
	defer end() // also after a panic, from which the upload recovers
	ctx, observed := s.Step.Begin(ctx, share.SystemScanner, "scan")
	defer func() {
		if share.Is(err, share.FileRejectedByScanner) { // the scanner did its work
			observed(nil)
			return
		}
		observed(err)
	}()
	return s.Address.scan(ctx, job)
}

// begin takes a connection. The caller calls end.
func (s *Scanner) begin(ctx context.Context, job share.ScanJob, arriving bool) (end func(), err error) {
	holder := admission.HolderOf(job.Owner)
	if arriving {
		if end, ok := s.connections.BeginArriving(holder); ok {
			return end, nil
		}
	}
	if err := job.Arrived(ctx); err != nil {
		return nil, err
	}
	end, err = s.connections.Begin(ctx, holder)
	if why(err) == whyTimeout {
		err = unavailable(whyBusy, "other files are being scanned", nil)
	}
	return end, err
}

// untilTimeout returns a context that ends Timeout after the content has arrived. Until then the upload's own limits apply. The caller
// calls cancel.
func (s *Scanner) untilTimeout(ctx context.Context, job share.ScanJob) (_ context.Context, cancel func()) {
	ctx, end := context.WithCancelCause(ctx)
	over := make(chan struct{})
	go func() { // ends with cancel
		defer close(over)
		if job.Arrived(ctx) != nil {
			return
		}
		timer := time.NewTimer(s.Timeout)
		defer timer.Stop()
		select {
		case <-timer.C:
			end(unavailable(whyTimeout, "the scan took longer than "+s.Timeout.String(), nil))
		case <-ctx.Done():
		}
	}()
	return ctx, func() { end(nil); <-over }
}

// Why there is no verdict, in the metadata of ScannerUnavailable.
const (
	whyUnreachable = "unreachable" // no connection can be made
	whyFailed      = "failed"      // clamd reports an error, or the connection broke
	whyTimeout     = "timeout"
	whyBusy        = "busy" // no connection became free
)

func unavailable(why, message string, cause error) *share.Error {
	return share.Errorf(share.ScannerUnavailable, "the malware scanner gave no verdict: "+message+"; retry later", cause).With("why", why)
}

// why returns why there is no verdict, or "" for any other error.
func why(err error) string {
	if e, ok := err.(*share.Error); ok && e.Kind == share.ScannerUnavailable {
		return e.Metadata["why"]
	}
	return ""
}

// failsOpen reports whether FailOpen accepts a file. It does not if this server's own limit of connections was reached: callers could
// reach it on purpose.
func failsOpen(err error) bool { return why(err) != "" && why(err) != whyBusy }
