package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/scan"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/internal/upload"
)

// scanFlags say whether and how files are scanned for malware.
type scanFlags struct {
	Scanner     string        `name:"scan" placeholder:"URL" help:"Scan each file with ClamAV before it is stored: clamd://HOST:PORT or clamd:///PATH of a Unix socket. Default: none."`
	Timeout     time.Duration `name:"scan-timeout" default:"20s" help:"Maximum time that the verdict may take after the last byte of a file, including the wait for a connection (${default})."`
	Connections int           `name:"scan-connections" default:"64" placeholder:"N" help:"Maximum concurrent connections to clamd, of which each caller has a share (${default})."`
	Downloads   bool          `name:"scan-downloads" help:"Scan each file before it is downloaded too, whole and in --download-memory."`
	FailOpen    bool          `name:"scan-fail-open" help:"Store files without a scan, and log and count them, if clamd cannot be reached or gives no verdict. Default: reject them with SCANNER_UNAVAILABLE."`
}

// Validate checks the address and the limits.
func (f *scanFlags) Validate() error {
	errs := []error{positive("scan-timeout", f.Timeout), positive("scan-connections", f.Connections)}
	if f.Scanner != "" {
		if _, err := scan.ParseAddress(f.Scanner); err != nil {
			errs = append(errs, fmt.Errorf("--scan: %w", err))
		}
	} else if f.FailOpen || f.Downloads {
		errs = append(errs, errors.New("--scan-fail-open and --scan-downloads require a scanner; add --scan"))
	}
	return errors.Join(errs...)
}

// scanStartTime is how long the start of the server waits for clamd's answer.
const scanStartTime = 2 * time.Second

// newScanner returns the scanner, or nil if there is none. A clamd that does not answer yet is logged, and no error: it may start later.
func newScanner(ctx context.Context, f *scanFlags, step share.BeginStep, log *slog.Logger) *scan.Scanner {
	if f.Scanner == "" {
		return nil
	}
	address, _ := scan.ParseAddress(f.Scanner) // the flags were validated
	if !address.Local() {
		log.Warn("files are sent to clamd unencrypted over the network; use a network that others cannot read, or a clamd on this machine", "scan", f.Scanner)
	}
	ctx, cancel := context.WithTimeout(ctx, scanStartTime)
	defer cancel()
	if err := address.Ping(ctx); err != nil {
		log.Warn("clamd does not answer; until it does, files are "+f.withoutVerdict(), "scan", f.Scanner, "error", err)
	}
	return scan.New(scan.Config{Address: address, Timeout: f.Timeout, Connections: f.Connections, FailOpen: f.FailOpen, Step: step, Log: log})
}

func (f *scanFlags) withoutVerdict() string {
	if f.FailOpen {
		return "stored without a scan (--scan-fail-open)"
	}
	return "rejected with SCANNER_UNAVAILABLE"
}

// watchScanner reports when the scanner stops answering, and when it answers again, until stop is called.
func watchScanner(s *scan.Scanner, changed func(error)) (stop func()) {
	if s == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Watch(ctx, changed)
	}()
	return func() {
		cancel()
		<-ended
	}
}

// uploadScanner returns the interface without a scanner in it if there is none.
func uploadScanner(s *scan.Scanner) upload.Scanner {
	if s == nil {
		return nil
	}
	return s
}
