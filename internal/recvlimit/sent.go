package recvlimit

import (
	"bytes"
	"encoding/binary"
)

// refusedStream is the error code REFUSED_STREAM (RFC 9113, section 7), which clients report as UNAVAILABLE.
const refusedStream = 0x7

// A sentReader follows the frames that the server sends over one connection.
type sentReader struct {
	header [frameHeaderLen]byte
	have   int  // bytes of header that have been sent
	left   int  // bytes of the frame's payload that have not been sent
	patch  bool // in a RST_STREAM frame whose code is to be REFUSED_STREAM
}

// read follows the next bytes to the client. It calls ended for each stream that the server ends. If ended returns true for a
// stream that is reset, the code sent is REFUSED_STREAM: the result is then a changed copy of p, otherwise p.
func (r *sentReader) read(p []byte, ended func(id uint32, reset bool) bool) []byte {
	out := p
	for i := 0; i < len(p); {
		if r.left > 0 {
			n := min(r.left, len(p)-i)
			i += n
			r.left -= n
			if r.left == 0 && r.patch { // the code's last byte; grpc-go gave PROTOCOL_ERROR, which is 1
				if &out[0] == &p[0] {
					out = bytes.Clone(p)
				}
				out[i-1] = refusedStream
				r.patch = false
			}
			continue
		}
		n := copy(r.header[r.have:], p[i:])
		r.have += n
		i += n
		if r.have < frameHeaderLen {
			break
		}
		r.have = 0
		h := &r.header
		r.left = int(h[0])<<16 | int(h[1])<<8 | int(h[2])
		id := binary.BigEndian.Uint32(h[5:]) & (1<<31 - 1)
		switch {
		case h[3] == frameRSTStream:
			r.patch = ended(id, true)
		case (h[3] == frameData || h[3] == frameHeaders) && h[4]&flagEndStream != 0:
			ended(id, false)
		}
	}
	return out
}
