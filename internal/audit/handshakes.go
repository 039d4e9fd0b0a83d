package audit

import (
	"sync"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// maxDenied is the maximum number of lines about denied handshakes per second.
const maxDenied = 10

// deniedHandshakes bounds the lines about denied handshakes: a peer needs no identity for one, and it costs the peer little.
type deniedHandshakes struct {
	mu      sync.Mutex
	lines   int         // in this second
	counted int64       // further ones in this second
	second  *time.Timer // ends this second; nil: none has begun
	stopped bool
}

// HandshakeDenied writes the line of a connection whose TLS handshake failed, or counts it if there were too many in this second.
func (l *Log) HandshakeDenied(peer string, err error) {
	if l == nil || !l.denied.count(l) {
		return
	}
	l.write("handshake_denied", func(n line) {
		n.peer(peer)
		n.text("error", share.Clip(err.Error(), maxText))
	})
}

// count reports whether a handshake gets a line of its own.
func (d *deniedHandshakes) count(l *Log) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.second == nil && !d.stopped {
		d.second = time.AfterFunc(time.Second, func() { d.flush(l) }) // ends by itself, or with stop
	}
	if d.lines < maxDenied {
		d.lines++
		return true
	}
	d.counted++
	return false
}

// flush ends the second, and writes how many got no line.
func (d *deniedHandshakes) flush(l *Log) {
	d.mu.Lock()
	counted := d.counted
	d.lines, d.counted, d.second = 0, 0, nil
	d.mu.Unlock()
	if counted > 0 {
		l.write("handshakes_denied", func(n line) { n.number("count", counted) })
	}
}

func (d *deniedHandshakes) stop(l *Log) {
	d.mu.Lock()
	d.stopped = true
	if d.second != nil {
		d.second.Stop()
	}
	d.mu.Unlock()
	d.flush(l)
}
