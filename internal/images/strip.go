package images

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// An anatomy is the result of parsing a whole image.
type anatomy struct {
	orientation int // 1 to 8
	frames      int // of an animation; 1 for anything else
	jpeg        jpegParts
	png         pngColor
	profile     profileParts
	removed     []share.ImageMetadata // each kind once
	trailing    int64                 // bytes after the end of the image
}

func (a *anatomy) remove(kind share.ImageMetadata) {
	if !slices.Contains(a.removed, kind) {
		a.removed = append(a.removed, kind)
	}
}

// strip copies an image without its invisible data, and does not change or decode pixels. It keeps the orientation of EXIF, without
// which the picture would be shown rotated. A file that violates its format is ImageInvalid.
//
// A damaged image is never made shorter: whatever decoders may use of it is copied unchanged, and where that is not known, the image is
// ImageInvalid.
func strip(t share.FileType, r io.Reader, w io.Writer) (*anatomy, error) {
	c := newCarver(r, w)
	var err error
	switch t {
	case share.JPEG:
		err = c.jpeg()
	case share.PNG:
		err = c.png()
	case share.GIF:
		err = c.gif()
	default:
		err = fmt.Errorf("%q is not an image type", t)
	}
	if err != nil {
		return &c.found, err
	}
	var tail codedTail
	c.found.trailing, err = io.Copy(&tail, c.r)
	if err == nil && t == share.JPEG && tail.isCoded() {
		err = damaged("it ends within its pixels")
	}
	return &c.found, err
}

// survey parses an image for its orientation, its colours and the memory that decoding needs: a JPEG up to its pixels, a PNG as a
// whole. Errors are those of strip; what was found before one is valid.
func survey(t share.FileType, r io.Reader) (*anatomy, error) {
	c := newCarver(r, io.Discard)
	switch t {
	case share.JPEG:
		c.upTo = sos
		return &c.found, c.jpeg()
	case share.PNG:
		return &c.found, c.png()
	}
	return &c.found, nil
}

// A carver parses an image and copies the parts to keep.
type carver struct {
	r     *bufio.Reader
	w     io.Writer
	upTo  byte // stop after the first segment of a JPEG with this marker, or after its frame header if the marker is sof; 0: at its end
	exif  bool // an EXIF segment of a JPEG was read
	found anatomy
}

func newCarver(r io.Reader, w io.Writer) *carver {
	return &carver{r: bufio.NewReaderSize(r, 16<<10), w: w, found: anatomy{orientation: 1, frames: 1}}
}

// damaged returns the error of an image that violates its format.
func damaged(format string, args ...any) error {
	return share.Errorf(share.ImageInvalid, "the image is damaged: "+fmt.Sprintf(format, args...), nil)
}

// truncated returns err, or ImageInvalid if err is the end of the input.
func truncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return damaged("it is truncated")
	}
	return err
}

// read reads n bytes. Fewer are an error.
func (c *carver) read(n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(c.r, b); err != nil {
		return nil, truncated(err)
	}
	return b, nil
}

// keep reads and copies n bytes.
func (c *carver) keep(n int) ([]byte, error) {
	b, err := c.read(n)
	if err == nil {
		_, err = c.w.Write(b)
	}
	return b, err
}

// jpeg copies the segments that decoding needs, and the colour profile.
func (c *carver) jpeg() error {
	if b, err := c.keep(2); err != nil {
		return err
	} else if b[0] != 0xff || b[1] != soi {
		return damaged("it does not begin with a JPEG marker")
	}
	for {
		marker, err := c.marker()
		switch {
		case err != nil:
			return err
		case marker == eoi:
			_, err := c.w.Write([]byte{0xff, eoi})
			return err
		case !hasData(marker):
			c.found.remove(share.MetadataOther) // no meaning here
			continue
		case marker < sof0:
			return damaged("its marker %#x is not defined", marker)
		}
		if err := c.jpegSegment(marker); err != nil {
			return err
		}
		if c.upTo == marker || c.upTo == sof0 && c.found.jpeg.frame.components > 0 {
			return nil
		}
		if marker == sos {
			c.found.jpeg.scans++
			if err := c.entropy(); err != nil {
				return err
			}
		}
	}
}

// jpegSegment copies the part to keep of the segment that begins with marker.
func (c *carver) jpegSegment(marker byte) error {
	size, err := c.read(2)
	if err != nil {
		return err
	}
	length := int(binary.BigEndian.Uint16(size))
	if length < 2 {
		return damaged("a segment has a length of %d", length)
	}
	data, err := c.read(length - 2)
	if err != nil {
		return err
	}
	c.found.jpeg.note(marker, data)
	if tiff, ok := bytes.CutPrefix(data, exifHeader); ok && marker == app1 {
		data = c.jpegEXIF(tiff)
	} else {
		data = c.segment(marker, data)
	}
	if data == nil {
		return nil
	}
	head := []byte{0xff, marker, 0, 0}
	binary.BigEndian.PutUint16(head[2:], uint16(len(data)+2))
	_, err = c.w.Write(append(head, data...))
	return err
}

// jpegEXIF returns the part of an EXIF segment to keep: the orientation, if there is one. The first of several segments counts.
func (c *carver) jpegEXIF(tiff []byte) []byte {
	o := 1
	if !c.exif {
		c.exif, o = true, exifOrientation(tiff)
	}
	if o == 1 {
		c.found.remove(share.MetadataEXIF)
		return nil
	}
	c.found.orientation = o
	least := onlyOrientation(o, len(tiff))
	if !bytes.Equal(least, tiff) {
		c.found.remove(share.MetadataEXIF)
	}
	return append(bytes.Clone(exifHeader), least...)
}

// segment returns the part of a segment's data to keep; nil: nothing.
func (c *carver) segment(marker byte, data []byte) []byte {
	switch {
	case marker == app0 && len(data) >= 14 && bytes.HasPrefix(data, []byte("JFIF\x00")):
		if len(data) > 14 { // a thumbnail follows
			c.found.remove(share.MetadataOther)
			data = append(bytes.Clone(data[:12]), 0, 0)
		}
		return data
	case isProfile(marker, data):
		c.found.profile.add(data[len(iccHeader)+2:])
		return data
	case marker == app14 && len(data) >= 12 && bytes.HasPrefix(data, []byte("Adobe")):
		if len(data) > 12 {
			c.found.remove(share.MetadataOther)
		}
		return data[:12] // defines the colour transform
	case marker == com:
		c.found.remove(share.MetadataComment)
		return nil
	case marker == app1 && bytes.HasPrefix(data, []byte("http://ns.adobe.com/")):
		c.found.remove(share.MetadataXMP)
		return nil
	case marker == app13:
		c.found.remove(share.MetadataIPTC)
		return nil
	case marker > exp: // neither a frame, tables nor a scan
		c.found.remove(share.MetadataOther)
		return nil
	}
	return data
}

// marker returns the next marker. Before the first scan it skips bytes that belong to no segment, as decoders do. Later such bytes
// are pixels: what looked like a segment was a damaged byte of a scan.
func (c *carver) marker() (byte, error) {
	for {
		b, err := c.r.ReadByte()
		if err != nil {
			return 0, truncated(err)
		}
		for fill := 0; b == 0xff; fill++ {
			if fill > 0 {
				c.found.remove(share.MetadataOther)
			}
			if b, err = c.r.ReadByte(); err != nil {
				return 0, truncated(err)
			}
			if b != 0 && b != 0xff && (hasData(b) || b == eoi || c.found.jpeg.scans == 0) {
				return b, nil
			}
		}
		if c.found.jpeg.scans > 0 {
			return 0, damaged("its pixels contain a segment that is none")
		}
		c.found.remove(share.MetadataOther)
	}
}

// entropy copies coded pixels up to the next marker that can follow them. It copies everything else unchanged, also bytes that are
// damaged, because decoders continue behind those.
func (c *carver) entropy() error {
	for {
		if _, err := c.r.Peek(1); err != nil {
			return truncated(err)
		}
		b, _ := c.r.Peek(c.r.Buffered())
		n := bytes.IndexByte(b, 0xff)
		if n != 0 {
			if n < 0 {
				n = len(b)
			}
			if _, err := c.w.Write(b[:n]); err != nil {
				return err
			}
			_, _ = c.r.Discard(n)
			continue
		}
		if b, err := c.r.Peek(2); err != nil {
			return truncated(err)
		} else if b[1] >= sof0 && b[1] != 0xff && (hasData(b[1]) || b[1] == eoi) {
			return nil
		}
		if _, err := c.keep(1); err != nil { // the second byte may begin a marker
			return err
		}
	}
}

// A codedTail reads what follows the end marker of a JPEG. If it is the coded pixels of the same image up to another end marker, the
// first end marker was a damaged byte.
type codedTail struct {
	ff    bool  // the last byte was FF
	coded int64 // FF 00, and markers that are between coded pixels
	plain bool  // other bytes that can be coded pixels; zeros are not, because some writers append them
	other bool  // another marker than those and the end
	ended bool
	after int64 // bytes after the end
}

// Write inspects b.
func (t *codedTail) Write(b []byte) (int, error) {
	for _, c := range b {
		switch {
		case t.ended || t.other:
			t.after++
		case !t.ff:
			t.ff = c == 0xff
			t.plain = t.plain || c != 0 && !t.ff
		case c == eoi:
			t.ended = true
		case c == 0 || c >= 0xd0 && c <= 0xd7 || c == dht || c == sos:
			t.coded++
			t.ff = false
		default:
			t.other = c != 0xff
		}
	}
	return len(b), nil
}

func (t *codedTail) isCoded() bool {
	return t.ended && !t.other && (t.coded > 0 || t.plain && t.after == 0)
}

// pngKept are the chunks to keep: pixels, their interpretation, and the frames of an animation.
var pngKept = []string{
	"IHDR", "PLTE", "IDAT", "IEND", "tRNS", "cHRM", "gAMA", "iCCP", "sBIT", "sRGB", "cICP", "mDCV", "cLLI", "bKGD", "pHYs", "acTL", "fcTL", "fdAT",
}

const pngSignature = "\x89PNG\r\n\x1a\n"

// png copies the chunks of pngKept and verifies all checksums.
func (c *carver) png() error {
	if b, err := c.keep(len(pngSignature)); err != nil {
		return err
	} else if string(b) != pngSignature {
		return damaged("it does not begin with the PNG signature")
	}
	for first := true; ; first = false {
		head, err := c.read(8)
		if err != nil {
			return err
		}
		length, kind := binary.BigEndian.Uint32(head), string(head[4:])
		switch {
		case length > 1<<31-1:
			return damaged("a chunk has a length of %d", length)
		case first && (kind != "IHDR" || length != 13):
			return damaged("its first chunk is not a header")
		case kind == "eXIf" && length <= 0xffff:
			err = c.pngEXIF(head)
		case slices.Contains(pngKept, kind):
			err = c.pngChunk(head, c.w)
		case kind[0]&0x20 == 0: // an upper-case letter marks a chunk that decoders must know
			return damaged("chunk %q is unknown and not optional", kind)
		default:
			c.found.remove(c.pngMetadata(kind))
			err = c.pngChunk(head, io.Discard)
		}
		if err != nil || kind == "IEND" {
			return err
		}
	}
}

// pngMetadata returns what a chunk that is not kept contains.
func (c *carver) pngMetadata(kind string) share.ImageMetadata {
	switch kind {
	case "tEXt", "zTXt", "iTXt":
		const xmp = "XML:com.adobe.xmp\x00"
		if keyword, _ := c.r.Peek(len(xmp)); string(keyword) == xmp {
			return share.MetadataXMP
		}
		return share.MetadataComment
	case "eXIf":
		return share.MetadataEXIF
	}
	return share.MetadataOther
}

// pngChunk copies a chunk to w and verifies its checksum. It notes the number of frames of an animation, and what chunks say of the
// colours.
func (c *carver) pngChunk(head []byte, w io.Writer) error {
	if _, err := w.Write(head); err != nil {
		return err
	}
	sum := crc32.NewIEEE()
	sum.Write(head[4:])
	out := io.MultiWriter(w, sum)
	length, kind := int64(binary.BigEndian.Uint32(head)), string(head[4:])
	var noted bytes.Buffer
	if most, ok := pngNoted[kind]; ok && length <= most {
		out = io.MultiWriter(w, sum, &noted)
	}
	if _, err := io.CopyN(out, c.r, length); err != nil {
		return truncated(err)
	}
	if err := c.pngSum(head, sum.Sum32(), w); err != nil {
		return err
	}
	if kind == "acTL" && noted.Len() == 8 {
		c.found.frames = int(min(binary.BigEndian.Uint32(noted.Bytes()), 1<<20))
	} else if noted.Len() > 0 || kind == "iCCP" {
		c.found.png.note(kind, noted.Bytes(), &c.found.profile)
	}
	return nil
}

// pngSum copies the checksum of a chunk, which must be want.
func (c *carver) pngSum(head []byte, want uint32, w io.Writer) error {
	b, err := c.read(4)
	if err != nil {
		return err
	}
	if binary.BigEndian.Uint32(b) != want {
		return damaged("the checksum of its chunk %q is wrong", head[4:])
	}
	_, err = w.Write(b)
	return err
}

// pngEXIF copies the orientation of EXIF, if there is one.
func (c *carver) pngEXIF(head []byte) error {
	tiff, err := c.read(int(binary.BigEndian.Uint32(head)))
	if err != nil {
		return err
	}
	if err := c.pngSum(head, crc32.Update(crc32.ChecksumIEEE(head[4:]), crc32.IEEETable, tiff), io.Discard); err != nil {
		return err
	}
	o := exifOrientation(tiff)
	if o == 1 || c.found.orientation > 1 {
		c.found.remove(share.MetadataEXIF)
		return nil
	}
	c.found.orientation = o
	least := onlyOrientation(o, len(tiff))
	if !bytes.Equal(least, tiff) {
		c.found.remove(share.MetadataEXIF)
	}
	_, err = c.w.Write(pngChunk("eXIf", least))
	return err
}

// pngChunk returns a chunk.
func pngChunk(kind string, data []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
	b = append(append(b, kind...), data...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[4:]))
}

// gif copies the frames, and of the extensions those that affect the picture: timing, the number of repetitions, and the colour
// profile.
func (c *carver) gif() error {
	head, err := c.keep(13)
	if err != nil {
		return err
	}
	if s := string(head[:6]); s != "GIF87a" && s != "GIF89a" {
		return damaged("it does not begin with the GIF signature")
	}
	if err := c.gifColors(head[10]); err != nil {
		return err
	}
	for frames := 0; ; {
		b, err := c.r.ReadByte()
		if errors.Is(err, io.EOF) && frames > 0 {
			b, err = ';', nil // browsers play a GIF without a trailer
		}
		if err != nil {
			return truncated(err)
		}
		switch b {
		case 0: // browsers skip it
			c.found.remove(share.MetadataOther)
		case ';':
			if frames == 0 {
				return damaged("it has no frame")
			}
			_, err := c.w.Write([]byte{b})
			return err
		case ',':
			frames++
			c.found.frames = frames
			if _, err := c.w.Write([]byte{b}); err != nil {
				return err
			}
			d, err := c.keep(9)
			if err != nil {
				return err
			}
			if err := c.gifColors(d[8]); err != nil {
				return err
			}
			if _, err := c.keep(1); err != nil { // the minimum code size
				return err
			}
			if err := c.gifBlocks(c.w); err != nil {
				return err
			}
		case '!':
			if err := c.gifExtension(); err != nil {
				return err
			}
		default:
			return damaged("block type %#x is unknown", b)
		}
	}
}

// gifColors copies a colour table if flags has the bit for one.
func (c *carver) gifColors(flags byte) error {
	if flags&0x80 == 0 {
		return nil
	}
	_, err := c.keep(3 << (flags&7 + 1))
	return err
}

// gifBlocks copies blocks up to and including the empty one.
func (c *carver) gifBlocks(w io.Writer) error {
	for {
		n, err := c.r.ReadByte()
		if err != nil {
			return truncated(err)
		}
		if _, err := w.Write([]byte{n}); err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		b, err := c.read(int(n))
		if err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
}

func (c *carver) gifExtension() error {
	label, err := c.r.ReadByte()
	if err != nil {
		return truncated(err)
	}
	switch label {
	case 0xf9: // timing and transparency of the next frame
		if b, err := c.r.Peek(6); err != nil {
			return truncated(err)
		} else if b[0] != 4 || b[5] != 0 {
			return damaged("a graphic control extension does not have length 4")
		}
		if _, err := c.w.Write([]byte{'!', label}); err != nil {
			return err
		}
		return c.gifBlocks(c.w)
	case 0xfe, 0x01: // comments; plain text, which no viewer shows
		c.found.remove(share.MetadataComment)
		return c.gifBlocks(io.Discard)
	case 0xff:
		return c.gifApplication()
	}
	c.found.remove(share.MetadataOther)
	return c.gifBlocks(io.Discard)
}

// gifApplication copies an application extension if it affects the picture.
func (c *carver) gifApplication() error {
	n, err := c.r.ReadByte()
	if err != nil {
		return truncated(err)
	}
	name, err := c.read(int(n))
	if err != nil {
		return err
	}
	head := append([]byte{'!', 0xff, n}, name...)
	switch string(name) {
	case "NETSCAPE2.0", "ANIMEXTS1.0":
		return c.gifLoop(head)
	case "ICCRGBG1012":
		if _, err := c.w.Write(head); err != nil {
			return err
		}
		return c.gifBlocks(c.w)
	case "XMP DataXMP":
		c.found.remove(share.MetadataXMP)
		return c.gifBlocks(io.Discard)
	}
	if n == 0 { // the empty name was also the last block
		c.found.remove(share.MetadataOther)
		return nil
	}
	c.found.remove(share.MetadataOther)
	return c.gifBlocks(io.Discard)
}

// gifLoop copies the number of repetitions from the blocks that follow head. The other blocks are hints for loading.
func (c *carver) gifLoop(head []byte) error {
	for {
		n, err := c.r.ReadByte()
		if err != nil {
			return truncated(err)
		}
		if n == 0 {
			return nil
		}
		b, err := c.read(int(n))
		if err != nil {
			return err
		}
		if len(b) != 3 || b[0]&7 != 1 || head == nil {
			c.found.remove(share.MetadataOther)
			continue
		}
		if _, err := c.w.Write(append(append(head, n), append(b, 0)...)); err != nil {
			return err
		}
		head = nil
	}
}
