package admission

import (
	"math/rand/v2"
	"time"
)

// A retrySpread gives each rejected caller a different Retry-After, spread over the time that admitting all of them takes.
type retrySpread struct {
	waiting int           // rejected, less those admitted since
	last    time.Time     // of the latest admission
	gap     time.Duration // recent average between two admissions
}

// Bounds of Retry-After.
const (
	// MinRetryAfter is the shortest delay that a rejected caller is given.
	MinRetryAfter = 2 * time.Second
	maxRetryAfter = 30 * time.Second
)

func (s *retrySpread) admitted(now time.Time) {
	s.waiting = max(0, s.waiting-1)
	if !s.last.IsZero() {
		s.gap += (min(max(now.Sub(s.last), 0), time.Second) - s.gap) / 8
	}
	s.last = now
}

func (s *retrySpread) rejected() time.Duration {
	s.waiting++
	spread := min(time.Second+time.Duration(s.waiting)*s.gap, maxRetryAfter-MinRetryAfter)
	return MinRetryAfter + rand.N(spread)
}
