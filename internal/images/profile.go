package images

import (
	"bytes"
	"compress/zlib"
	"image"
	"io"
)

// maxProfile is the maximum size of a colour profile that is copied to an image that is encoded again. Profiles of displays and
// cameras have less than 4 KB; those of printers are larger, and do not describe RGB.
const maxProfile = 1 << 20

// profileParts collects the colour profile (ICC) of an image.
type profileParts struct {
	icc   []byte // empty if there is none, or if it is unreadable or too large
	found bool
}

// add appends a part. The parts of a JPEG are in order, as all encoders write them.
func (p *profileParts) add(part []byte) {
	if p.found && p.icc == nil || len(p.icc)+len(part) > maxProfile {
		part, p.icc = nil, nil
	}
	p.found, p.icc = true, append(p.icc, part...)
}

// maxPackedProfile is the maximum size of a chunk iCCP. Without it a small file could decompress to a thousand times its size.
const maxPackedProfile = 64 << 10

// addPNG decompresses the profile in the data of a chunk iCCP; empty data is that of a chunk that is too large. The first chunk counts.
func (p *profileParts) addPNG(data []byte) {
	if p.found {
		return
	}
	_, packed, ok := bytes.Cut(data, []byte{0})
	if !ok || len(packed) < 2 {
		p.found = true
		return
	}
	p.add(inflate(packed[1:]))
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

// matches reports whether the header of a profile names the colour space in which img, as decoded, is encoded again: gray of 16 bits and
// gray with alpha become RGB.
func matches(profile []byte, img image.Image) bool {
	space := "RGB "
	if _, gray := img.(*image.Gray); gray {
		space = "GRAY"
	}
	return len(profile) >= 128 && string(profile[16:20]) == space
}

// jpegProfile returns the segments of a JPEG with a colour profile.
func jpegProfile(profile []byte) (b []byte) {
	const most = 0xffff - 2 - 14
	count := (len(profile) + most - 1) / most
	for i := range count {
		part := profile[i*most : min((i+1)*most, len(profile))]
		b = appendSegment(b, app2, append(append(bytes.Clone(iccHeader), byte(i+1), byte(count)), part...))
	}
	return b
}

// withPNGProfile returns a writer that inserts a colour profile into the PNG that is written to it.
func withPNGProfile(w io.Writer, profile []byte) io.Writer {
	if len(profile) == 0 {
		return w
	}
	var b bytes.Buffer
	b.WriteString("ICC profile\x00\x00")
	z := zlib.NewWriter(&b)
	_, _ = z.Write(profile) // cannot fail: b is in memory
	_ = z.Close()
	return &splice{w: w, at: len(pngSignature) + 12 + 13, insert: pngChunk("iCCP", b.Bytes())} // after the header
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
