package share

import (
	"context"
	"io"
)

// A ScanJob is content that is scanned for malware before it is stored or published.
type ScanJob struct {
	// Owner is the identity whose upload it is.
	Owner Principal
	// Part names the content in errors: "file" or "preview".
	Part string
	// Open returns the content from its first byte on. It can be called again when the reader that it returned last is closed.
	Open func(ctx context.Context) ScanReader
	// Arrived waits until all bytes have arrived. It returns the cause of ctx's end.
	Arrived func(ctx context.Context) error
}

// A ScanReader reads content while it arrives.
type ScanReader interface {
	// ReadBuffers returns the next bytes, at least one and at most limit, and waits for them. io.EOF: there are no more. They are valid
	// until Close, and the slice of them until the next call. The end of the context that the reader was opened with ends the wait.
	ReadBuffers(limit int64) ([][]byte, error)
	io.Closer
}
