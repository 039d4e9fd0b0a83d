package images

import (
	"bytes"
	"compress/zlib"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// TestStrip_DamagedScan damages the bytes after FF within coded pixels. What no encoder writes there is copied, because decoders continue
// behind it. A segment that is none, and an early end, are ImageInvalid. test/images/cases has all values.
func TestStrip_DamagedScan(t *testing.T) {
	plain := asJPEG(t, noise(64, 48))
	scan := bytes.Index(plain, []byte{0xff, sos})
	places := 0
	for at := scan + 14; at < len(plain)-2; at++ {
		if plain[at] != 0xff || plain[at+1] != 0 {
			continue
		}
		places++
		for v, harmless := range map[byte]bool{0x01: true, 0x41: true, 0xbf: true, soi: true, 0xd3: true, 0xe1: false, com: false, dht: false, eoi: false} {
			b := bytes.Clone(plain)
			b[at+1] = v
			var out bytes.Buffer
			_, err := strip(share.JPEG, bytes.NewReader(b), &out)
			if harmless && (err != nil || !bytes.Equal(out.Bytes(), b)) {
				t.Errorf("FF %02X at %d: %d of %d bytes: %v", v, at, out.Len(), len(b), err)
			}
			if !harmless && !share.Is(err, share.ImageInvalid) {
				t.Errorf("FF %02X at %d: %d of %d bytes: %v", v, at, out.Len(), len(b), err)
			}
		}
	}
	if places < 3 {
		t.Fatalf("%d places", places)
	}
}

// TestStrip_SecondEnd appends what writers leave behind the end of a JPEG: zeros and another end marker.
func TestStrip_SecondEnd(t *testing.T) {
	plain := asJPEG(t, noise(64, 48))
	for _, tail := range []string{"\xff\xd9", "\x00\x00\xff\xd9", "\x00\xff\xd9", "\xff\xff\xd9", "text \xff\xd9 text"} {
		var out bytes.Buffer
		seen, err := strip(share.JPEG, strings.NewReader(string(plain)+tail), &out)
		if err != nil || seen.trailing != int64(len(tail)) || !bytes.Equal(out.Bytes(), plain) {
			t.Errorf("%x: %d bytes trail, %d of %d are left: %v", tail, seen.trailing, out.Len(), len(plain), err)
		}
	}
	for _, tail := range []string{"\x11\xff\xd9", "\xff\x00\xff\xd9 text"} {
		if _, err := strip(share.JPEG, strings.NewReader(string(plain)+tail), io.Discard); !share.Is(err, share.ImageInvalid) {
			t.Errorf("%x: %v", tail, err)
		}
	}
}

// TestStrip_ManyEXIF has many EXIF segments: the first counts, and the others are not parsed.
func TestStrip_ManyEXIF(t *testing.T) {
	plain := asJPEG(t, corners(8, 6))
	exif := func(o int) []byte {
		return appendSegment(nil, app1, append(bytes.Clone(exifHeader), onlyOrientation(o, 1000)...))
	}
	allocated := func(segment []byte) float64 {
		b := slices.Concat(plain[:2], exif(6), bytes.Repeat(segment, 500), plain[2:])
		return testing.AllocsPerRun(1, func() {
			seen, err := strip(share.JPEG, bytes.NewReader(b), io.Discard)
			if err != nil || seen.orientation != 6 {
				t.Errorf("orientation %d: %v", seen.orientation, err)
			}
		})
	}
	if exif, other := allocated(exif(3)), allocated(appendSegment(nil, com, nil)); exif > other+1000 {
		t.Errorf("%v allocations with EXIF, %v with comments", exif, other)
	}
}

// TestSurvey_PNGProfiles has several chunks with a profile: the first counts, and the others are not decompressed.
func TestSurvey_PNGProfiles(t *testing.T) {
	plain := asPNG(t, corners(8, 6))
	chunk := func(profile []byte) []byte {
		var b bytes.Buffer
		b.WriteString("name\x00\x00")
		z := zlib.NewWriter(&b)
		_, _ = z.Write(profile)
		_ = z.Close()
		return pngChunk("iCCP", b.Bytes())
	}
	first, second := iccProfile("RGB "), iccProfile("GRAY")
	random := make([]byte, maxPackedProfile)
	_, _ = rand.NewChaCha8([32]byte{}).Read(random)
	for name, c := range map[string]struct {
		chunks [][]byte
		want   []byte
	}{
		"one": {[][]byte{chunk(first)}, first}, "two": {[][]byte{chunk(first), chunk(second)}, first},
		"a damaged one": {[][]byte{pngChunk("iCCP", []byte("name\x00\x00damaged")), chunk(second)}, nil}, "an empty one": {[][]byte{pngChunk("iCCP", nil), chunk(second)}, nil},
		"a large one": {[][]byte{chunk(random), chunk(second)}, nil}, "a bomb": {[][]byte{chunk(make([]byte, maxProfile+1)), chunk(second)}, nil},
	} {
		seen, err := survey(share.PNG, bytes.NewReader(slices.Concat(plain[:33], slices.Concat(c.chunks...), plain[33:])))
		if err != nil || !seen.profile.found || !bytes.Equal(seen.profile.icc, c.want) {
			t.Errorf("%s: found %t, %d bytes: %v", name, seen.profile.found, len(seen.profile.icc), err)
		}
	}
}

// TestFit_StrippedIsLonger has images whose copy would be longer than they are, with their size as the limit.
func TestFit_StrippedIsLonger(t *testing.T) {
	still := gifOf(t, 30, 20)
	still = still[:len(still)-1] // without a trailer
	if _, fitted := orderOf(share.GIF, still, int64(len(still)), stripped).fit(t); fitted != nil {
		t.Errorf("a GIF without a trailer was changed: %+v", fitted.Change)
	}
	comment := append(bytes.Clone(still), "!\xfe\x01c\x00"...)
	if got, fitted := orderOf(share.GIF, comment, int64(len(comment)), stripped).fit(t); fitted == nil || !bytes.Equal(got, append(still, ';')) {
		t.Errorf("%d bytes are left of %d: %+v", len(got), len(comment), fitted)
	}
	// EXIF of one entry in little endian, without the offset of the next directory.
	exif := []byte("II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00")
	plainJPEG, plainPNG := asJPEG(t, corners(16, 12)), asPNG(t, corners(16, 12))
	for ft, b := range map[share.FileType][]byte{
		share.JPEG: slices.Concat(plainJPEG[:2], appendSegment(nil, app1, append(bytes.Clone(exifHeader), exif...)), plainJPEG[2:]),
		share.PNG:  slices.Concat(plainPNG[:33], pngChunk("eXIf", exif), plainPNG[33:]),
	} {
		got, fitted := orderOf(ft, b, int64(len(b)), stripped).fit(t)
		if fitted == nil || len(got) != len(b) {
			t.Fatalf("%s: %d bytes are left of %d", ft, len(got), len(b))
		}
		if seen, err := strip(ft, bytes.NewReader(got), io.Discard); err != nil || seen.orientation != 6 || len(seen.removed) > 0 {
			t.Errorf("%s: orientation %d, removed %v: %v", ft, seen.orientation, seen.removed, err)
		}
	}
	// The entries begin within the header.
	if o := exifOrientation([]byte("MM\x00*\x00\x00\x00\x06\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00")); o != 1 {
		t.Errorf("the orientation of overlapping EXIF is %d", o)
	}
}
