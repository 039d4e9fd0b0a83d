package images

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"io"
)

// Markers of a JPEG, without the preceding FF.
const (
	sof0  = 0xc0
	sof2  = 0xc2
	dht   = 0xc4
	soi   = 0xd8
	eoi   = 0xd9
	sos   = 0xda
	dqt   = 0xdb
	exp   = 0xdf
	app0  = 0xe0
	app1  = 0xe1
	app2  = 0xe2
	app13 = 0xed
	app14 = 0xee
	com   = 0xfe
)

// hasData reports whether a marker begins a segment with data. A stuffed byte or a standalone marker does not.
func hasData(marker byte) bool {
	return marker != 0 && marker != 0x01 && (marker < 0xd0 || marker > eoi)
}

// jpegParts is what the segments of a JPEG say about decoding it.
type jpegParts struct {
	frame  jpegFrameHeader // the first one
	scans  int
	tables bool // Huffman tables, before the first scan
	jfif   bool
	adobe  int // the colour transform of Adobe's segment, plus 1; 0: there is no such segment
}

// note records a segment.
func (j *jpegParts) note(marker byte, data []byte) {
	switch {
	case marker == app0 && bytes.HasPrefix(data, []byte("JFIF\x00")):
		j.jfif = true
	case marker == app14 && len(data) >= 12 && bytes.HasPrefix(data, []byte("Adobe")):
		j.adobe = int(data[11]) + 1
	case marker == dht && j.scans == 0:
		j.tables = true
	case j.frame.components == 0:
		if f, ok := parseFrame(marker, data); ok {
			j.frame = f
		}
	}
}

// config returns the size of the image, and its colours as Go's decoder returns them.
func (j *jpegParts) config() image.Config {
	c := image.Config{Width: j.frame.width, Height: j.frame.height, ColorModel: color.CMYKModel}
	switch j.frame.components {
	case 1:
		c.ColorModel = color.GrayModel
	case 3:
		c.ColorModel = color.YCbCrModel
		if !j.jfif && (j.adobe == 1 || j.adobe == 0 && j.frame.ids == [4]byte{'R', 'G', 'B'}) {
			c.ColorModel = color.RGBAModel
		}
	}
	return c
}

// A jpegFrameHeader is the frame header (SOF) of a JPEG.
type jpegFrameHeader struct {
	marker        byte
	precision     int // bits of a sample
	width, height int
	components    int
	ids           [4]byte
	// samples is the number of blocks of each component in a unit of maxH by maxV blocks; 0: no such component.
	samples    [4]int
	maxH, maxV int
}

func (f jpegFrameHeader) progressive() bool { return f.marker == sof2 }

// parseFrame parses a frame header of any coding.
func parseFrame(marker byte, data []byte) (f jpegFrameHeader, ok bool) {
	if marker < sof0 || marker > 0xcf || marker == dht || marker == 0xc8 || marker == 0xcc || len(data) < 6 {
		return f, false
	}
	f = jpegFrameHeader{
		marker: marker, precision: int(data[0]), height: int(data[1])<<8 | int(data[2]), width: int(data[3])<<8 | int(data[4]),
		components: int(data[5]), maxH: 1, maxV: 1,
	}
	if f.components == 0 || len(data) != 6+3*f.components {
		return jpegFrameHeader{}, false
	}
	for i := range min(f.components, 4) {
		h, v := int(data[7+3*i]>>4), int(data[7+3*i]&0xf)
		if h < 1 || h > 4 || v < 1 || v > 4 {
			return jpegFrameHeader{}, false
		}
		if f.components == 1 { // not interleaved, whatever the factors are
			h, v = 1, 1
		}
		f.ids[i], f.samples[i], f.maxH, f.maxV = data[6+3*i], h*v, max(f.maxH, h), max(f.maxV, v)
	}
	return f, true
}

// unsupported describes the coding of the image if the decoder does not support it; otherwise it is empty.
func (f jpegFrameHeader) unsupported() string {
	switch {
	case f.components == 0: // no frame, which the decoder reports
		return ""
	case f.marker == 0xc3 || f.marker == 0xc7 || f.marker == 0xcb || f.marker == 0xcf:
		return "lossless coding"
	case f.marker > 0xc8:
		return "arithmetic coding"
	case f.marker > sof2:
		return "hierarchical coding"
	case f.precision != 8:
		return fmt.Sprintf("%d bits per sample", f.precision)
	case f.components != 1 && f.components != 3 && f.components != 4:
		return fmt.Sprintf("%d components", f.components)
	}
	return ""
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

// complete returns r with the segments that decoding requires and that the JPEG, r, leaves out: Adobe's, without which four
// components have no meaning, and the Huffman tables, which frames of a Motion JPEG do not have.
func (j *jpegParts) complete(r io.Reader) io.Reader {
	var add []byte
	if j.frame.components == 4 && j.adobe == 0 {
		add = appendSegment(add, app14, []byte("Adobe\x00\x64\x00\x00\x00\x00\x00")) // CMYK: no transform
	}
	if !j.tables && j.frame.marker == sof0 {
		add = appendSegment(add, dht, standardHuffman())
	}
	if len(add) == 0 {
		return r
	}
	return io.MultiReader(io.LimitReader(r, 2), bytes.NewReader(add), r)
}

func appendSegment(b []byte, marker byte, data []byte) []byte {
	n := len(data) + 2
	return append(append(b, 0xff, marker, byte(n>>8), byte(n)), data...)
}

// invertCMYK turns what the decoder returns for an image that has got Adobe's segment from complete. Adobe writes inks inverted; other
// programs do not.
func (j *jpegParts) invertCMYK(img image.Image) {
	if cmyk, ok := img.(*image.CMYK); ok && j.adobe == 0 {
		for i, v := range cmyk.Pix {
			cmyk.Pix[i] = 255 - v
		}
	}
}

// maxScans is the maximum number of scans of a JPEG. Encoders write about ten; each costs a pass over all pixels, and few bytes.
const maxScans = 100

var errTooManyScans = fmt.Errorf("images: the JPEG has more than %d scans", maxScans)

// A scanLimit reads a JPEG and fails if it has too many scans.
type scanLimit struct {
	r     io.Reader
	scans int
	state int // one of the below
	skip  int // bytes of the current segment that follow
}

// The states of a scanLimit: between markers, after FF, after the marker of a segment, after the first byte of its length.
const (
	betweenMarkers = iota
	afterFF
	atLength
	inLength
)

// Read reads from r and counts scans.
func (s *scanLimit) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	for rest := p[:n]; len(rest) > 0; {
		if s.state == betweenMarkers {
			if m := min(s.skip, len(rest)); m > 0 {
				rest, s.skip = rest[m:], s.skip-m
				continue
			}
			i := bytes.IndexByte(rest, 0xff)
			if i < 0 {
				break
			}
			rest, s.state = rest[i+1:], afterFF
			continue
		}
		s.next(rest[0])
		rest = rest[1:]
	}
	if s.scans > maxScans {
		return 0, errTooManyScans
	}
	return n, err
}

// next advances by one byte of a marker or of a length.
func (s *scanLimit) next(b byte) {
	switch s.state {
	case afterFF:
		switch {
		case b == 0xff: // a fill byte
		case b < sof0 || !hasData(b):
			s.state = betweenMarkers
		default:
			if b == sos {
				s.scans++
			}
			s.state = atLength
		}
	case atLength:
		s.skip, s.state = int(b)<<8, inLength
	case inLength:
		s.skip, s.state = max(s.skip+int(b)-2, 0), betweenMarkers
	}
}

// iccHeader begins an APP2 segment with a part of a colour profile; the part's number and the number of parts follow.
var iccHeader = []byte("ICC_PROFILE\x00")

// isProfile reports whether a segment contains a part of a colour profile.
func isProfile(marker byte, data []byte) bool {
	return marker == app2 && len(data) >= len(iccHeader)+2 && bytes.HasPrefix(data, iccHeader)
}
