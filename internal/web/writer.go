package web

import (
	"net/http"
	"time"
)

// A boundedWriter ends a response whose client reads nothing for stall: net/http has no limit for one write.
type boundedWriter struct {
	http.ResponseWriter
	rc    *http.ResponseController
	stall time.Duration
}

// Unwrap is for http.ResponseController.
func (b *boundedWriter) Unwrap() http.ResponseWriter { return b.ResponseWriter }

func (b *boundedWriter) Write(p []byte) (int, error) {
	b.begin()
	defer b.end()
	return b.ResponseWriter.Write(p)
}

// Flush implements http.Flusher.
func (b *boundedWriter) Flush() {
	b.begin()
	defer b.end()
	_ = b.rc.Flush()
}

// begin limits the writes that follow.
func (b *boundedWriter) begin() { _ = b.rc.SetWriteDeadline(time.Now().Add(b.stall)) }

// end removes the limit: in HTTP/2 a deadline resets the stream even if nothing is written, and a watch writes seldom.
func (b *boundedWriter) end() { _ = b.rc.SetWriteDeadline(time.Time{}) }
