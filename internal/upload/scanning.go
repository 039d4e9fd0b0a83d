package upload

import (
	"context"
	"io"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A Scanner looks for malware.
type Scanner interface {
	// Scan returns nil if the content may be stored and published. FileRejectedByScanner; ScannerUnavailable. It reads the content
	// while it arrives, and reads nothing any more when it has returned. ctx ends it.
	Scan(ctx context.Context, job share.ScanJob) error
}

// A scanning has what will be stored, and the preview that the client sent, scanned for malware, both at once. It follows the spool as the
// PUT does, so it needs no copy of the bytes, and a slow scanner does not slow down the client or the store: only the last byte waits.
type scanning struct {
	cancel   context.CancelFunc
	done     chan struct{} // closed when nothing reads the spool any more
	rejected chan struct{} // closed when err is set
	err      error         // of the first scan that failed
}

// startScanning begins to scan a spool and the preview; nil: there is no scanner. The caller calls stop.
func (t *transfer) startScanning(ctx context.Context, s *spool) *scanning {
	if t.Scanner == nil {
		return nil
	}
	owner := t.session.Principal()
	jobs := []share.ScanJob{{
		Owner: owner, Part: "file", Arrived: s.awaitSeal,
		Open: func(ctx context.Context) share.ScanReader { return s.follow(ctx, false) },
	}}
	// The preview of the spec is published as it is. One that the server generates is not scanned: it has no bytes of the file, only its
	// pixels, encoded by this server.
	if t.spec.Preview != "" {
		_, data, _ := share.SplitDataURI(t.spec.Preview) // the spec was validated
		jobs = append(jobs, share.ScanJob{
			Owner: owner, Part: "preview", Arrived: s.awaitSeal, // the time for both verdicts begins with the file's last byte
			Open: func(context.Context) share.ScanReader { return &wholeReader{left: data} },
		})
	}
	p := &scanning{done: make(chan struct{}), rejected: make(chan struct{})}
	ctx, p.cancel = context.WithCancel(ctx)
	results := make(chan error, len(jobs))
	for _, job := range jobs {
		t.Drain.Go(func() { results <- t.scan(ctx, job) })
	}
	t.Drain.Go(func() {
		defer close(p.done)
		for range jobs {
			if err := <-results; err != nil && p.err == nil {
				p.err = err
				close(p.rejected)
				p.cancel()
			}
		}
	})
	return p
}

func (t *transfer) scan(ctx context.Context, job share.ScanJob) (err error) {
	defer share.Recover(ctx, t.Log, &err) // a panic here would end the process
	return t.Scanner.Scan(ctx, job)
}

// failed returns a channel that is closed when the file must not be stored; of a nil scanning it never is.
func (p *scanning) failed() <-chan struct{} {
	if p == nil {
		return nil
	}
	return p.rejected
}

// wait waits for the verdict: nil if the file may be stored. A storing that fails before that ends it too.
func (p *scanning) wait(ctx context.Context, storing *storing) error {
	if p == nil {
		return nil
	}
	stored := storing.ended()
	for {
		select {
		case <-p.done:
			return p.err
		case <-stored:
			if err := storing.outcome.err; err != nil {
				return err
			}
			stored = nil // the store had these bytes already, so it did not wait for the last one; the verdict still counts
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// stop ends the scan, and returns when nothing reads the spool any more.
func (p *scanning) stop() {
	if p == nil {
		return
	}
	p.cancel()
	<-p.done
}

// A wholeReader reads bytes that are all there.
type wholeReader struct{ left []byte }

func (r *wholeReader) ReadBuffers(limit int64) ([][]byte, error) {
	n := min(limit, int64(len(r.left)))
	if n == 0 {
		return nil, io.EOF
	}
	next := r.left[:n]
	r.left = r.left[n:]
	return [][]byte{next}, nil
}

func (r *wholeReader) Close() error { return nil }
