package images

import (
	"bytes"
	"encoding/binary"

	"github.com/lpfileshare/lpfileshare/test/images/craft"
)

// withEXIF inserts an APP1 segment with the tag Orientation into a JPEG, in the byte order "II" or "MM", after an XMP packet as
// cameras write it.
func withEXIF(jpeg []byte, order string, orientation uint16) []byte {
	var tiff bytes.Buffer
	var bo binary.ByteOrder = binary.LittleEndian
	if order == "MM" {
		bo = binary.BigEndian
	}
	put := func(v any) { _ = binary.Write(&tiff, bo, v) }
	tiff.WriteString(order)
	put(uint16(42))
	put(uint32(8))      // offset of the first directory
	put(uint16(2))      // number of entries
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
	exif := craft.Segment(0xe1, append([]byte("Exif\x00\x00"), tiff.Bytes()...))
	xmp := craft.Segment(0xe1, []byte("http://ns.adobe.com/xap/1.0/\x00<x:xmpmeta/>"))
	return bytes.Join([][]byte{jpeg[:2], xmp, exif, jpeg[2:]}, nil)
}
