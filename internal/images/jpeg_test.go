package images

import (
	"bytes"
	"encoding/binary"
)

// segment writes a marker segment of a JPEG.
func segment(marker byte, data []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0xff, marker}, uint16(2+len(data)))
	return append(b, data...)
}

// withSegments puts n segments of full length behind the first marker of a JPEG.
func withSegments(jpeg []byte, marker byte, n int) []byte {
	return bytes.Join([][]byte{jpeg[:2], bytes.Repeat(segment(marker, make([]byte, 0xfff0)), n), jpeg[2:]}, nil)
}

// withEXIF puts an APP1 segment with the one tag Orientation into a JPEG, in the byte order "II" or "MM", behind an XMP packet
// as cameras write it too.
func withEXIF(jpeg []byte, order string, orientation uint16) []byte {
	var tiff bytes.Buffer
	var bo binary.ByteOrder = binary.LittleEndian
	if order == "MM" {
		bo = binary.BigEndian
	}
	put := func(v any) { _ = binary.Write(&tiff, bo, v) }
	tiff.WriteString(order)
	put(uint16(42))
	put(uint32(8))      // where the first directory is
	put(uint16(2))      // its entries
	put(uint16(0x0100)) // ImageWidth, LONG, one
	put(uint16(4))
	put(uint32(1))
	put(uint32(640))
	put(uint16(0x0112)) // Orientation, SHORT, one
	put(uint16(3))
	put(uint32(1))
	put(orientation)
	put(uint16(0))
	put(uint32(0)) // no further directory
	exif := segment(0xe1, append([]byte("Exif\x00\x00"), tiff.Bytes()...))
	xmp := segment(0xe1, []byte("http://ns.adobe.com/xap/1.0/\x00<x:xmpmeta/>"))
	return bytes.Join([][]byte{jpeg[:2], xmp, exif, jpeg[2:]}, nil)
}

// flatJPEG writes a JPEG of one colour with the frame header sof (0xc0 baseline, 0xc2 progressive with its first scan only),
// one component per level; a level is what the pixels are away from 128, between 64 and 127 or their negatives.
func flatJPEG(sof byte, w, h int, levels ...int) []byte {
	out := []byte{0xff, 0xd8}
	if len(levels) == 4 {
		out = append(out, segment(0xee, []byte("Adobe\x00\x64\x00\x00\x00\x00\x00"))...)
	}
	out = append(out, segment(0xdb, append([]byte{0}, bytes.Repeat([]byte{8}, 64)...))...)
	frame := []byte{8, byte(h >> 8), byte(h), byte(w >> 8), byte(w), byte(len(levels))}
	scan := []byte{byte(len(levels))}
	for i := range levels {
		frame = append(frame, byte(i+1), 0x11, 0)
		scan = append(scan, byte(i+1), 0)
	}
	out = append(out, segment(sof, frame)...)
	counts := func(n1, n2 byte) []byte { return append([]byte{n1, n2}, make([]byte, 14)...) }
	out = append(out, segment(0xc4, append(append([]byte{0x00}, counts(0, 2)...), 0, 7))...) // DC: 00 is no change, 01 seven bits
	out = append(out, segment(0xc4, append(append([]byte{0x10}, counts(1, 0)...), 0))...)    // AC: 0 is the end of the block
	last := byte(63)
	if sof == 0xc2 {
		last = 0 // the first coefficient only
	}
	out = append(out, segment(0xda, append(scan, 0, last, 0))...)

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
