package connector

import (
	"errors"
	"io"
	"net/netip"
	"sync"

	"github.com/lpfileshare/lpfileshare/internal/netrules"
)

const (
	// maxBodyMemory limits the memory for bodies that are not verified yet, and maxPeerMemory the part of one peer.
	maxBodyMemory = 64 << 20
	maxPeerMemory = maxBodyMemory / 4
	// firstBuffer is the size of a body's buffer before it grows.
	firstBuffer = 4 << 10
)

// errBodyMemory is the error of a body that was cut.
var errBodyMemory = errors.New("unverified bodies use too much memory")

// unverified limits the memory for bodies of deliveries that are not verified yet, so that anybody may send them. It is used as bodies
// arrive, not reserved. When there is too much, in all or of one peer, the body that has been arriving longest is cut: LivePerson's
// own deliveries take milliseconds.
type unverified struct {
	mu     sync.Mutex
	held   int64
	peers  map[netip.Prefix]*bodyPeer
	serial int64
}

// A bodyPeer is an address from which bodies arrive.
type bodyPeer struct {
	held   int64
	bodies map[*unverifiedBody]struct{}
}

// An unverifiedBody is a body that is being read. The caller must call release.
type unverifiedBody struct {
	memory *unverified
	prefix netip.Prefix
	peer   *bodyPeer
	serial int64  // order of begin
	held   int64  // bytes of its buffer that are counted
	stop   func() // ends a Read
	cut    bool
}

// begin counts a body from an address. stop ends a Read of it, and is not called after release.
func (u *unverified) begin(from netip.Addr, stop func()) *unverifiedBody {
	u.mu.Lock()
	defer u.mu.Unlock()
	prefix := netrules.PeerPrefix(from)
	if u.peers == nil {
		u.peers = make(map[netip.Prefix]*bodyPeer)
	}
	peer := u.peers[prefix]
	if peer == nil {
		peer = &bodyPeer{bodies: make(map[*unverifiedBody]struct{})}
		u.peers[prefix] = peer
	}
	u.serial++
	b := &unverifiedBody{memory: u, prefix: prefix, peer: peer, serial: u.serial, stop: stop}
	peer.bodies[b] = struct{}{}
	return b
}

// readAll reads the body from r. It fails with errBodyMemory if the body was cut.
func (b *unverifiedBody) readAll(r io.Reader) ([]byte, error) {
	var data []byte
	for {
		if len(data) == cap(data) {
			size := max(firstBuffer, 2*cap(data))
			if !b.grow(int64(size - cap(data))) {
				return nil, errBodyMemory
			}
			data = append(make([]byte, 0, size), data...)
		}
		n, err := r.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		switch {
		case b.wasCut():
			return nil, errBodyMemory
		case errors.Is(err, io.EOF):
			return data, nil
		case err != nil:
			return nil, err
		}
	}
}

// grow counts n more bytes of the body, and cuts bodies if that is too much. It reports whether this body remains.
func (b *unverifiedBody) grow(n int64) bool {
	u := b.memory
	u.mu.Lock()
	defer u.mu.Unlock()
	if b.cut {
		return false
	}
	b.held += n
	b.peer.held += n
	u.held += n
	for b.peer.held > maxPeerMemory {
		b.peer.oldest().cutOff()
	}
	for u.held > maxBodyMemory {
		u.largest().oldest().cutOff()
	}
	return !b.cut
}

func (b *unverifiedBody) wasCut() bool {
	b.memory.mu.Lock()
	defer b.memory.mu.Unlock()
	return b.cut
}

// release ends the counting of the body.
func (b *unverifiedBody) release() {
	b.memory.mu.Lock()
	defer b.memory.mu.Unlock()
	if !b.cut {
		b.remove()
	}
}

// cutOff ends the body. Its memory counts as free already: its reader returns at once. The caller must hold mu.
func (b *unverifiedBody) cutOff() {
	b.cut = true
	b.remove()
	b.stop()
}

// remove takes the body out of the sums. The caller must hold mu.
func (b *unverifiedBody) remove() {
	b.memory.held -= b.held
	b.peer.held -= b.held
	delete(b.peer.bodies, b)
	if len(b.peer.bodies) == 0 {
		delete(b.memory.peers, b.prefix)
	}
}

// largest returns the peer that holds most.
func (u *unverified) largest() (largest *bodyPeer) {
	for _, p := range u.peers {
		if largest == nil || p.held > largest.held {
			largest = p
		}
	}
	return largest
}

// oldest returns the body that has been arriving longest, of those that hold memory.
func (p *bodyPeer) oldest() (oldest *unverifiedBody) {
	for b := range p.bodies {
		if b.held > 0 && (oldest == nil || b.serial < oldest.serial) {
			oldest = b
		}
	}
	return oldest
}
