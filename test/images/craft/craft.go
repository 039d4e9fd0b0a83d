// Package craft writes images that no encoder writes: odd, broken, hostile, or with a past. It is for tests.
package craft

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
	"slices"
)

// Segment writes a marker segment of a JPEG.
func Segment(marker byte, data []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0xff, marker}, uint16(2+len(data)))
	return append(b, data...)
}

// WithSegments puts n segments of full length behind the first marker of a JPEG.
func WithSegments(jpeg []byte, marker byte, n int) []byte {
	return bytes.Join([][]byte{jpeg[:2], bytes.Repeat(Segment(marker, make([]byte, 0xfff0)), n), jpeg[2:]}, nil)
}

// FlatJPEG writes a JPEG of one colour with the frame header sof (0xc0 baseline, 0xc2 progressive with its first scan only),
// one component per level; a level is what the pixels are away from 128, between 64 and 127 or their negatives.
func FlatJPEG(sof byte, w, h int, levels ...int) []byte {
	out := []byte{0xff, 0xd8}
	if len(levels) == 4 {
		out = append(out, Segment(0xee, []byte("Adobe\x00\x64\x00\x00\x00\x00\x00"))...)
	}
	out = append(out, Segment(0xdb, append([]byte{0}, bytes.Repeat([]byte{8}, 64)...))...)
	frame := []byte{8, byte(h >> 8), byte(h), byte(w >> 8), byte(w), byte(len(levels))}
	scan := []byte{byte(len(levels))}
	for i := range levels {
		frame = append(frame, byte(i+1), 0x11, 0)
		scan = append(scan, byte(i+1), 0)
	}
	out = append(out, Segment(sof, frame)...)
	counts := func(n1, n2 byte) []byte { return append([]byte{n1, n2}, make([]byte, 14)...) }
	out = append(out, Segment(0xc4, append(append([]byte{0x00}, counts(0, 2)...), 0, 7))...) // DC: 00 is no change, 01 seven bits
	out = append(out, Segment(0xc4, append(append([]byte{0x10}, counts(1, 0)...), 0))...)    // AC: 0 is the end of the block
	last := byte(63)
	if sof == 0xc2 {
		last = 0 // the first coefficient only
	}
	out = append(out, Segment(0xda, append(scan, 0, last, 0))...)

	var bits []byte
	put := func(v, n int) {
		for i := n - 1; i >= 0; i-- {
			bits = append(bits, byte(v>>i&1))
		}
	}
	for block := range (w + 7) / 8 * ((h + 7) / 8) {
		for _, level := range levels {
			if block == 0 {
				put(1, 2)
				if level < 0 {
					level += 127
				}
				put(level, 7)
			} else {
				put(0, 2)
			}
			if sof != 0xc2 {
				put(0, 1)
			}
		}
	}
	for len(bits)%8 != 0 {
		bits = append(bits, 1)
	}
	for i := 0; i < len(bits); i += 8 {
		var b byte
		for _, bit := range bits[i : i+8] {
			b = b<<1 | bit
		}
		out = append(out, b)
		if b == 0xff {
			out = append(out, 0)
		}
	}
	return append(out, 0xff, 0xd9)
}

// PNGBomb is a PNG of 48 KB that claims to have width by height pixels.
func PNGBomb(width, height uint32) []byte {
	header := binary.BigEndian.AppendUint32(nil, width)
	header = binary.BigEndian.AppendUint32(header, height)
	return PNG(Chunk("IHDR", append(header, 8, 0, 0, 0, 0)), Chunk("IDAT", make([]byte, 48<<10)))
}

// Chunk writes a chunk of a PNG.
func Chunk(kind string, data []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
	b = append(append(b, kind...), data...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[4:]))
}

// PNG puts the signature before chunks, and the last chunk behind them.
func PNG(chunks ...[]byte) []byte {
	return slices.Concat([]byte("\x89PNG\r\n\x1a\n"), slices.Concat(chunks...), Chunk("IEND", nil))
}

// EXIF is what a camera writes of a picture: its maker, an orientation (1 to 8), and, in a directory of its own, the place where it
// was taken (GPS): 48°51'29.6" N, 2°17'40.2" E.
func EXIF(orientation uint16) []byte {
	var b bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			_ = binary.Write(&b, binary.LittleEndian, v) // into memory
		}
	}
	entry := func(tag, kind uint16, count uint32, value any) { put(tag, kind, count, value) }
	const ifd0, gps, strings = 8, 8 + 2 + 3*12 + 4, 8 + 2 + 3*12 + 4 + 2 + 4*12 + 4
	b.WriteString("II")
	put(uint16(42), uint32(ifd0))
	put(uint16(3))
	entry(0x010f, 2, 8, uint32(strings))     // Make
	entry(0x0112, 3, 1, uint32(orientation)) // Orientation
	entry(0x8825, 4, 1, uint32(gps))         // the directory of GPS
	put(uint32(0))                           // no further directory
	put(uint16(4))                           // GPS:
	entry(1, 2, 2, [4]byte{'N'})             // latitude, north
	entry(2, 5, 3, uint32(strings+8))        // degrees, minutes, seconds as fractions
	entry(3, 2, 2, [4]byte{'E'})             // longitude, east
	entry(4, 5, 3, uint32(strings+8+3*8))
	put(uint32(0)) // no further directory
	b.WriteString("Kodak 7\x00")
	put([]uint32{48, 1, 51, 1, 296, 10})
	put([]uint32{2, 1, 17, 1, 402, 10})
	return b.Bytes()
}

// Profile is a colour profile (ICC) for RGB: the primaries red, green and blue as XYZ, and one curve for all three.
func Profile(xyz [9]float64, curve []byte) []byte {
	fixed := func(b []byte, values ...float64) []byte {
		for _, v := range values {
			b = binary.BigEndian.AppendUint32(b, uint32(int32(math.Round(v*65536))))
		}
		return b
	}
	curve = append(slices.Clone(curve), make([]byte, -len(curve)&3)...)
	names := []string{"rXYZ", "gXYZ", "bXYZ", "rTRC", "gTRC", "bTRC"}
	var table, body []byte
	for i, name := range names {
		data := curve
		if i < 3 {
			data = fixed([]byte("XYZ \x00\x00\x00\x00"), xyz[3*i:3*i+3]...)
		}
		table = append(table, name...)
		table = binary.BigEndian.AppendUint32(table, uint32(132+12*len(names)+len(body)))
		table = binary.BigEndian.AppendUint32(table, uint32(len(data)))
		body = append(body, data...)
	}
	head := make([]byte, 128)
	binary.BigEndian.PutUint32(head, uint32(132+len(table)+len(body)))
	copy(head[8:], "\x02\x20\x00\x00mntrRGB XYZ ")
	copy(head[36:], "acsp")
	copy(head[68:], fixed(nil, .9642, 1, .8249))
	return slices.Concat(head, []byte{0, 0, 0, byte(len(names))}, table, body)
}
