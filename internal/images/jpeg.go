package images

import (
	"bytes"
	"encoding/binary"
	"iter"
)

// Markers of a JPEG, without the preceding FF.
const (
	soi   = 0xd8
	eoi   = 0xd9
	sos   = 0xda
	app0  = 0xe0
	app1  = 0xe1
	app2  = 0xe2
	app13 = 0xed
	app14 = 0xee
	com   = 0xfe
)

// segments returns the complete segments at the beginning of a JPEG, each marker with its data. Like the decoder, it skips bytes
// between two segments.
func segments(head []byte) iter.Seq2[byte, []byte] {
	return func(yield func(byte, []byte) bool) {
		for i := 2; i+4 <= len(head); {
			if marker := head[i+1]; head[i] != 0xff || marker == 0xff || !hasData(marker) {
				i++
				continue
			}
			length := int(binary.BigEndian.Uint16(head[i+2:]))
			if length < 2 || i+2+length > len(head) || !yield(head[i+1], head[i+4:i+2+length]) || head[i+1] == sos {
				return
			}
			i += 2 + length
		}
	}
}

// hasData reports whether a marker begins a segment with data. A stuffed byte or a standalone marker does not.
func hasData(marker byte) bool {
	return marker != 0 && marker != 0x01 && (marker < 0xd0 || marker > eoi)
}

// A jpegFrameHeader has the parts of the frame header (SOF) that determine the memory for decoding.
type jpegFrameHeader struct {
	progressive bool
	components  int
	// samples is the number of blocks of each component in a unit of maxH by maxV blocks; 0: no such component.
	samples    [4]int
	maxH, maxV int
}

// parseFrame parses a frame header of the kinds that the decoder supports, SOF0 to SOF2.
func parseFrame(marker byte, data []byte) (f jpegFrameHeader, ok bool) {
	if marker < 0xc0 || marker > 0xc2 || len(data) < 6 {
		return f, false
	}
	f = jpegFrameHeader{progressive: marker == 0xc2, components: min(int(data[5]), 4), maxH: 1, maxV: 1}
	if f.components > 1 && len(data) >= 6+3*f.components {
		for i := range f.components {
			h, v := int(data[7+3*i]>>4), int(data[7+3*i]&0xf)
			f.samples[i], f.maxH, f.maxV = h*v, max(f.maxH, h), max(f.maxV, v)
		}
	} else {
		f.samples[0] = 1
	}
	return f, true
}

// sampleBytes returns the number of samples, of one byte each, of an image of width by height, in whole blocks.
func (f jpegFrameHeader) sampleBytes(width, height int) int64 {
	units := pixels((width+8*f.maxH-1)/(8*f.maxH), (height+8*f.maxV-1)/(8*f.maxV))
	var n int64
	for _, s := range f.samples {
		n += units * int64(s) * 64
	}
	return n
}

// iccHeader begins an APP2 segment with a part of a colour profile; the part's number and the number of parts follow.
var iccHeader = []byte("ICC_PROFILE\x00")

// isProfile reports whether a segment contains a part of a colour profile.
func isProfile(marker byte, data []byte) bool {
	return marker == app2 && len(data) >= len(iccHeader)+2 && bytes.HasPrefix(data, iccHeader)
}
