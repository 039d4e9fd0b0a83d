package recvlimit

import "encoding/binary"

// Frame types and flags of HTTP/2 (RFC 9113, section 6) that open, fill and end streams.
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	frameRSTStream    = 0x3
	frameWindowUpdate = 0x8
	frameContinuation = 0x9

	flagEndStream  = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8

	frameHeaderLen = 9
	prefaceLen     = 24
	prefixLen      = 5 // of a gRPC message: one byte of flags, four of length
)

// perFrame is what grpc-go holds for a DATA frame beside its payload: a queue or slice entry and the objects that point to the
// buffer. BenchmarkSmallFrames measures 46 bytes, payload included; slices grow by a quarter.
const perFrame = 64

// progressBytes is what a message must bring in slowAfter to be no slow one.
const progressBytes = 16 << 10

// frameCost is the memory that grpc-go holds for a DATA frame of n bytes, padding included: small frames have a buffer of their
// own, larger ones take one from a pool of 4 KiB and 16 KiB buffers.
func frameCost(n int) int64 {
	switch {
	case n == 0:
		return 0
	case n <= 1<<10:
		return int64(n) + perFrame
	case n <= 4<<10:
		return 4<<10 + perFrame
	}
	return 16<<10 + perFrame
}

// A stream is a call whose client may still send.
type stream struct {
	held   int64 // memory of the unfinished message; 0 between messages
	begun  int64 // when the unfinished message began, in nanoseconds
	moved  int64 // when it began or the latest progressBytes of it were complete
	since  int   // bytes that arrived after moved
	left   int64 // bytes of the message that have not arrived; only after its prefix
	prefix [prefixLen]byte
	have   int8 // bytes of prefix that have arrived
	ending bool // the Limiter chose it; cleared when the message is complete
}

// An account follows the frames that a client sends over one connection, and knows what each unfinished message holds. It reads
// frame headers and message prefixes and skips everything else. It never fails: grpc-go reports protocol errors, and the account
// of a connection that breaks the protocol is worth nothing and does no harm.
type account struct {
	streams map[uint32]*stream
	held    int64 // sum over streams

	preface int // bytes of the client preface that have not arrived
	header  [frameHeaderLen]byte
	have    int  // bytes of header that have arrived
	left    int  // bytes of the frame's payload that have not arrived
	block   bool // in a header block: only CONTINUATION may follow

	// Of a DATA frame on a stream in streams; nil for all other frames.
	data      *stream
	id        uint32
	cost      int64
	content   int // bytes of the payload that have not arrived and are not padding
	padded    bool
	endStream bool
}

func newAccount() account { return account{preface: prefaceLen} }

// betweenFrames reports whether a frame could be inserted here.
func (a *account) betweenFrames() bool {
	return a.preface == 0 && a.have == 0 && a.left == 0 && !a.block
}

// toBoundary returns how many bytes may be read at most so that a frame is not passed: up to the end of its header or payload.
func (a *account) toBoundary() int {
	switch {
	case a.preface > 0:
		return a.preface
	case a.left > 0:
		return a.left
	}
	return frameHeaderLen - a.have
}

// read follows the next bytes from the client, which arrived at now.
func (a *account) read(p []byte, now int64) {
	for len(p) > 0 {
		switch {
		case a.preface > 0:
			n := min(a.preface, len(p))
			a.preface -= n
			p = p[n:]
		case a.left > 0:
			n := min(a.left, len(p))
			if a.data != nil {
				a.payload(p[:n], now)
			}
			a.left -= n
			p = p[n:]
			if a.left == 0 {
				a.endFrame()
			}
		default:
			n := copy(a.header[a.have:], p)
			a.have += n
			p = p[n:]
			if a.have == frameHeaderLen {
				a.have = 0
				a.beginFrame(now)
			}
		}
	}
}

func (a *account) beginFrame(now int64) {
	h := &a.header
	a.left = int(h[0])<<16 | int(h[1])<<8 | int(h[2])
	flags := h[4]
	id := binary.BigEndian.Uint32(h[5:]) & (1<<31 - 1)
	switch h[3] {
	case frameData:
		if a.data = a.streams[id]; a.data == nil {
			break // grpc-go drops it
		}
		a.id, a.cost, a.content = id, frameCost(a.left), a.left
		a.padded = flags&flagPadded != 0
		a.endStream = flags&flagEndStream != 0
		if !a.padded {
			a.hold(now)
		}
	case frameHeaders:
		a.block = flags&flagEndHeaders == 0
		if flags&flagEndStream != 0 {
			a.end(id)
		} else if a.streams[id] == nil {
			if a.streams == nil {
				a.streams = make(map[uint32]*stream)
			}
			a.streams[id] = &stream{}
		}
	case frameContinuation:
		a.block = flags&flagEndHeaders == 0
	case frameRSTStream:
		a.end(id)
	}
	if a.left == 0 {
		a.endFrame()
	}
}

// hold counts the current frame.
func (a *account) hold(now int64) {
	if a.content == 0 {
		return
	}
	s := a.data
	if s.held == 0 {
		s.begun, s.moved, s.since = now, now, 0
	}
	if s.since += a.content; s.since >= progressBytes {
		s.moved, s.since = now, 0
	}
	s.held += a.cost
	a.held += a.cost
}

// payload follows the payload of a DATA frame.
func (a *account) payload(p []byte, now int64) {
	if a.padded {
		a.padded = false
		a.content = max(0, a.content-1-int(p[0]))
		a.hold(now)
		p = p[1:]
	}
	p = p[:min(len(p), a.content)]
	for s := a.data; len(p) > 0; {
		if s.left == 0 {
			n := copy(s.prefix[s.have:], p)
			s.have += int8(n)
			a.content -= n
			p = p[n:]
			if s.have < prefixLen {
				return
			}
			s.have = 0
			s.left = int64(binary.BigEndian.Uint32(s.prefix[1:]))
		}
		n := int(min(s.left, int64(len(p))))
		s.left -= int64(n)
		a.content -= n
		p = p[n:]
		if s.left == 0 { // the message is complete, and what follows it in this frame keeps the frame's buffer
			a.held -= s.held
			s.held, s.ending = 0, false
			a.hold(now)
		}
	}
}

func (a *account) endFrame() {
	if a.data != nil && a.endStream {
		a.end(a.id)
	}
	a.data, a.endStream, a.padded = nil, false, false
}

// end closes the account of a stream.
func (a *account) end(id uint32) {
	s := a.streams[id]
	if s == nil {
		return
	}
	a.held -= s.held
	delete(a.streams, id)
	if a.data == s {
		a.data = nil
	}
}
