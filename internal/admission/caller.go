// Package admission limits what callers use at once: memory, streams and processors. It knows no caller by name.
package admission

import (
	"crypto/sha256"
	"strconv"
	"sync"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A Caller identifies whose quota a call uses: the credential before the identity is proved, the principal afterwards. It is a
// hash, so it contains no secret.
type Caller [sha256.Size]byte

// ByCredential returns the Caller of a credential that is not proved yet.
func ByCredential(c share.Credential) Caller {
	return Hash("credential", string(c.Scheme), c.Account, c.Caller, c.Secret)
}

// ByPrincipal returns the Caller of a principal.
func ByPrincipal(p share.Principal) Caller {
	return Hash("principal", p.Account, string(p.Role), p.ID, p.Caller)
}

// Hash hashes parts, each of which may contain anything: no two lists of parts are written the same way.
func Hash(parts ...string) [sha256.Size]byte {
	var buf [1024]byte // the list fits, with most tokens
	list := buf[:0]
	for _, part := range parts {
		list = append(strconv.AppendInt(list, int64(len(part)), 10), ':')
		list = append(append(list, part...), ',')
	}
	return sha256.Sum256(list)
}

// Streams limits the downloads and watches that each caller has open.
type Streams struct {
	maxPerCaller int

	mu   sync.Mutex
	open map[Caller]int
}

// NewStreams returns Streams with a limit per caller.
func NewStreams(maxPerCaller int) *Streams {
	return &Streams{maxPerCaller: maxPerCaller, open: make(map[Caller]int)}
}

// Acquire counts one more stream. TooManyStreams if the caller has reached its limit. The caller of Acquire calls release once,
// when the stream has ended.
func (s *Streams) Acquire(c Caller) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[c] >= s.maxPerCaller {
		return nil, share.Reject(share.TooManyStreams, "this caller has %d downloads and watches open, which is the limit; end some first", s.maxPerCaller)
	}
	s.open[c]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.open[c]--; s.open[c] == 0 {
			delete(s.open, c)
		}
	}, nil
}

// Open returns the number of callers with open streams.
func (s *Streams) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}
