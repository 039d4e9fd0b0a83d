package admission

import (
	"sync"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Probes limits streams that need no identity: those that watch the server's health, and reflection. Each connection may have one
// at any time, because a gRPC client that checks health keeps one for each connection and cannot use the connection without it.
type Probes struct {
	perConnection, more int

	mu       sync.Mutex
	open     map[string]int // by connection
	moreOpen int            // over all connections, without the first stream of each
}

// NewProbes returns Probes with a limit per connection, and one for all streams in addition to the first of each connection.
func NewProbes(perConnection, more int) *Probes {
	return &Probes{perConnection: perConnection, more: more, open: make(map[string]int)}
}

// Acquire counts one more stream of a connection. TooManyStreams if a limit is reached. The caller of Acquire calls release once, when
// the stream has ended.
func (p *Probes) Acquire(connection string) (release func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch n := p.open[connection]; {
	case n >= p.perConnection:
		return nil, share.Reject(share.TooManyStreams, "this connection has %d health watches and reflection streams, which is the limit; end some first", n).
			With("limit", "connection")
	case n > 0 && p.moreOpen >= p.more:
		return nil, share.Reject(share.TooManyStreams, "the server has too many health watches and reflection streams; use one for each connection").
			With("limit", "server")
	case n > 0:
		p.moreOpen++
	}
	p.open[connection]++
	return func() { p.release(connection) }, nil
}

func (p *Probes) release(connection string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open[connection]--; p.open[connection] == 0 {
		delete(p.open, connection)
	} else {
		p.moreOpen--
	}
}

// Open returns the number of open streams.
func (p *Probes) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open) + p.moreOpen
}
