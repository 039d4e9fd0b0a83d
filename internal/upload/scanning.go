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

// A scanning has what will be stored, and the preview that the client sent, scanned for malware. It follows the spool as the PUT
// does, so it needs no copy of the bytes, and a slow scanner does not slow down the client or the store: only the last byte waits.
type scanning struct {
	cancel   context.CancelFunc
	done     chan struct{} // closed when nothing reads the spool any more
	rejected chan struct{} // closed with done, if err is not nil
	err      error         // set then
}

// startScanning begins to scan a spool and the preview; nil: there is no scanner. The caller calls stop.
func (t *transfer) startScanning(ctx context.Context, s *spool) *scanning {
	if t.Scanner == nil {
		return nil
	}
	p := &scanning{done: make(chan struct{}), rejected: make(chan struct{})}
	ctx, p.cancel = context.WithCancel(ctx)
	owner, preview := t.session.Principal(), t.spec.Preview
	t.Drain.Go(func() {
		defer func() {
			if p.err != nil {
				close(p.rejected)
			}
			close(p.done)
		}()
		defer share.Recover(ctx, t.Log, &p.err) // a panic here would end the process
		if p.err = t.scanPreview(ctx, owner, preview); p.err != nil {
			return
		}
		p.err = t.Scanner.Scan(ctx, share.ScanJob{
			Owner: owner, Part: "file",
			Open:    func(ctx context.Context) share.ScanReader { return s.follow(ctx, false) },
			Arrived: s.awaitSeal,
		})
	})
	return p
}

// scanPreview scans the preview that the client sent, which is published as the client sent it. A preview that the server generates is
// not scanned: it has no bytes of the file, only its pixels, encoded by this server.
func (t *transfer) scanPreview(ctx context.Context, owner share.Principal, preview string) error {
	if preview == "" {
		return nil
	}
	_, data, _ := share.SplitDataURI(preview) // the spec was validated
	return t.Scanner.Scan(ctx, share.ScanJob{
		Owner: owner, Part: "preview",
		Open:    func(context.Context) share.ScanReader { return &wholeReader{left: data} },
		Arrived: func(context.Context) error { return nil },
	})
}

// failed returns a channel that is closed when the file must not be stored; of a nil scanning it never is.
func (p *scanning) failed() <-chan struct{} {
	if p == nil {
		return nil
	}
	return p.rejected
}

// wait waits for the verdict: nil if the file may be stored.
func (p *scanning) wait(ctx context.Context) error {
	if p == nil {
		return nil
	}
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return context.Cause(ctx)
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
