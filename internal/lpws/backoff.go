package lpws

import (
	"math/rand/v2"
	"time"
)

// backoff computes the pauses between attempts. Each pause is twice as long as the one before, up to max, until reset.
type backoff struct {
	min, max time.Duration
	last     time.Duration // upper bound of the last pause; 0 after reset
}

// next returns the pause before the next attempt: a random duration between half of the bound and the bound. It is never shorter
// than retryAfter, the wait that the peer asked for; the random part is then added, so that clients do not return all at once.
func (b *backoff) next(retryAfter time.Duration) time.Duration {
	b.last = min(max(2*b.last, b.min), b.max)
	half := b.last / 2
	return max(half, retryAfter) + rand.N(half+1)
}

// reset starts again with the shortest pause.
func (b *backoff) reset() { b.last = 0 }
