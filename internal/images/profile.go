package images

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"image"
	"io"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// maxProfile is the maximum size of a colour profile that is copied to an image that is encoded again. Profiles of displays and
// cameras have less than 4 KB; those of printers are larger, and do not describe RGB.
const maxProfile = 1 << 20

// readProfile returns the colour profile (ICC) in the first end bytes of a JPEG or PNG. It is empty if there is none, or if it is
// unreadable or too large.
func readProfile(t share.FileType, r io.Reader, end int64) (profile []byte) {
	if end > maxHeader+maxProfile {
		return nil
	}
	head := make([]byte, end)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil
	}
	switch t {
	case share.JPEG:
		for marker, data := range segments(head) {
			if isProfile(marker, data) { // in order, as all encoders write them
				profile = append(profile, data[len(iccHeader)+2:]...)
			}
		}
	case share.PNG:
		for at := len(pngSignature); at+8 <= len(head); {
			length, kind := int(binary.BigEndian.Uint32(head[at:])), string(head[at+4:at+8])
			if kind == "IDAT" || length > len(head)-at-8 {
				break
			}
			if kind == "iCCP" {
				_, packed, ok := bytes.Cut(head[at+8:at+8+length], []byte{0})
				if ok && len(packed) > 1 {
					profile = inflate(packed[1:])
				}
			}
			at += 12 + length
		}
	}
	if len(profile) > maxProfile {
		return nil
	}
	return profile
}

// inflate decompresses a colour profile, up to one byte more than maxProfile.
func inflate(packed []byte) []byte {
	z, err := zlib.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil
	}
	defer z.Close()
	b, err := io.ReadAll(io.LimitReader(z, maxProfile+1))
	if err != nil {
		return nil
	}
	return b
}

// matches reports whether the header of a profile names the colour space of img.
func matches(profile []byte, img image.Image) bool {
	space := "RGB "
	if _, gray := img.(*image.Gray); gray {
		space = "GRAY"
	}
	return len(profile) >= 128 && string(profile[16:20]) == space
}

// withProfile returns a writer that inserts a colour profile into the JPEG or PNG that is written to it.
func withProfile(w io.Writer, t share.FileType, profile []byte) io.Writer {
	if len(profile) == 0 {
		return w
	}
	if t == share.PNG {
		var b bytes.Buffer
		b.WriteString("ICC profile\x00\x00")
		z := zlib.NewWriter(&b)
		_, _ = z.Write(profile) // cannot fail: b is in memory
		_ = z.Close()
		return &splice{w: w, at: len(pngSignature) + 12 + 13, insert: pngChunk("iCCP", b.Bytes())} // after the header
	}
	const most = 0xffff - 2 - 14
	var b []byte
	count := (len(profile) + most - 1) / most
	for i := range count {
		part := profile[i*most : min((i+1)*most, len(profile))]
		b = binary.BigEndian.AppendUint16(append(b, 0xff, app2), uint16(2+14+len(part)))
		b = append(append(b, iccHeader...), byte(i+1), byte(count))
		b = append(b, part...)
	}
	return &splice{w: w, at: 2, insert: b} // after the first marker
}

// A splice passes bytes on, and inserts others after the first at bytes.
type splice struct {
	w      io.Writer
	at     int
	insert []byte // nil after it was inserted
}

// Write passes b on.
func (s *splice) Write(b []byte) (int, error) {
	n := 0
	if s.insert != nil {
		before := b[:min(len(b), s.at)]
		if _, err := s.w.Write(before); err != nil {
			return 0, err
		}
		n, s.at = len(before), s.at-len(before)
		if s.at > 0 {
			return n, nil
		}
		if _, err := s.w.Write(s.insert); err != nil {
			return n, err
		}
		s.insert = nil
	}
	m, err := s.w.Write(b[n:])
	return n + m, err
}
