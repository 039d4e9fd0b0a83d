package web

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// A deadlineRecorder has the write deadline of each write and flush.
type deadlineRecorder struct {
	*httptest.ResponseRecorder
	now    time.Time   // the deadline
	during []time.Time // writes and flushes
}

func (r *deadlineRecorder) SetWriteDeadline(t time.Time) error {
	r.now = t
	return nil
}

func (r *deadlineRecorder) Write(p []byte) (int, error) {
	r.during = append(r.during, r.now)
	return r.ResponseRecorder.Write(p)
}

func (r *deadlineRecorder) FlushError() error {
	r.during = append(r.during, r.now)
	return nil
}

// In HTTP/2 a write deadline ends a stream even if nothing is written, as on most watches.
func TestBoundedWriter_HasADeadlineOnlyWhileItWrites(t *testing.T) {
	t.Parallel()
	r := &deadlineRecorder{ResponseRecorder: httptest.NewRecorder()}
	w := &boundedWriter{r, http.NewResponseController(r), time.Hour}
	if _, err := w.Write([]byte("a")); err != nil || !r.now.IsZero() {
		t.Errorf("a deadline of %v stays, %v", r.now, err)
	}
	if w.Flush(); !r.now.IsZero() {
		t.Errorf("a deadline of %v stays", r.now)
	}
	for _, deadline := range r.during {
		if left := time.Until(deadline); left <= 0 || left > time.Hour {
			t.Errorf("the deadline of a write is in %v", left)
		}
	}
	if len(r.during) != 2 {
		t.Errorf("%d writes and flushes", len(r.during))
	}
}
