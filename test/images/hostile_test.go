package images

import (
	"archive/zip"
	"bytes"
	"compress/zlib"
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/test/images/craft"
)

var update = flag.Bool("update", false, "write docs/hostile-files.md anew")

// payload is what must not be left in a file that was stripped or encoded anew.
const payload = "PAYLOAD"

// A hostile file is one row of the table: bytes, the type that they are declared as, and what becomes of them.
type hostile struct {
	name string
	as   pb.FileType
	data []byte
	// plain is what comes of it without options; preview, whether a preview could be made.
	plain, preview string
	// fitted is what comes of it where it is to fit 4,000 bytes; stripped, where metadata is to be removed.
	fitted, stripped string
}

const (
	asJPEG = pb.FileType_FILE_TYPE_JPEG
	asPNG  = pb.FileType_FILE_TYPE_PNG
	asGIF  = pb.FileType_FILE_TYPE_GIF
)

func noise(w, h int) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range img.Pix {
		img.Pix[i] = byte(rng.Uint32()) | byte(i%4/3)*0xff
	}
	return img
}

func encoded(t *testing.T, as pb.FileType, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	var err error
	switch as {
	case asJPEG:
		err = jpeg.Encode(&b, img, nil)
	case asPNG:
		err = png.Encode(&b, img)
	default:
		err = gif.Encode(&b, img, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// archive is a ZIP with a class in it.
func archive(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.CreateHeader(&zip.FileHeader{Name: "Evil.class", Method: zip.Store})
	if err == nil {
		_, err = w.Write([]byte("\xca\xfe\xba\xbe" + payload))
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// animation is a GIF of three frames.
func animation(t *testing.T, w, h int) []byte {
	t.Helper()
	all := &gif.GIF{}
	palette := color.Palette{color.Black, color.White, color.RGBA{0xff, 0, 0, 0xff}, color.RGBA{0, 0, 0xff, 0xff}}
	rng := rand.New(rand.NewPCG(3, 4))
	for range 3 {
		p := image.NewPaletted(image.Rect(0, 0, w, h), palette)
		for i := range p.Pix {
			p.Pix[i] = byte(rng.Uint32() & 3)
		}
		all.Image, all.Delay = append(all.Image, p), append(all.Delay, 10)
	}
	var b bytes.Buffer
	if err := gif.EncodeAll(&b, all); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// animatedPNG has two frames: those of a plain one, twice.
func animatedPNG(b []byte, w, h byte) []byte {
	idat, iend := bytes.Index(b, []byte("IDAT"))-4, len(b)-12
	control := func(seq byte) []byte {
		return craft.Chunk("fcTL", []byte{0, 0, 0, seq, 0, 0, 0, w, 0, 0, 0, h, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 10, 0, 0})
	}
	length := binary.BigEndian.Uint32(b[idat:])
	return slices.Concat(b[:idat], craft.Chunk("acTL", []byte{0, 0, 0, 2, 0, 0, 0, 0}), control(0), b[idat:iend], control(1),
		craft.Chunk("fdAT", append([]byte{0, 0, 0, 2}, b[idat+8:idat+8+int(length)]...)), b[iend:])
}

// tinyGIF is a GIF of one frame of 10 by 10 on a canvas of any size.
func tinyGIF(t *testing.T, w, h uint16) []byte {
	b := encoded(t, asGIF, image.NewPaletted(image.Rect(0, 0, 10, 10), color.Palette{color.Black, color.White}))
	binary.LittleEndian.PutUint16(b[6:], w)
	binary.LittleEndian.PutUint16(b[8:], h)
	return b
}

func deflated(b []byte) []byte {
	var z bytes.Buffer
	w := zlib.NewWriter(&z)
	_, _ = w.Write(b) // into memory
	_ = w.Close()
	return z.Bytes()
}

// exif puts EXIF into a JPEG.
func exif(b, tiff []byte) []byte {
	return slices.Concat(b[:2], craft.Segment(0xe1, append([]byte("Exif\x00\x00"), tiff...)), b[2:])
}

// insert puts chunks behind a PNG's header.
func insert(b []byte, chunks ...[]byte) []byte {
	return slices.Concat(b[:33], slices.Concat(chunks...), b[33:])
}

// hostileFiles are the rows.
func hostileFiles(t *testing.T) []hostile {
	photo, drawing, moving := encoded(t, asJPEG, noise(200, 150)), encoded(t, asPNG, noise(120, 90)), animation(t, 120, 90)
	still := encoded(t, asGIF, noise(120, 90))
	second := 4 + int(binary.BigEndian.Uint16(photo[4:])) // where the second segment begins
	script := []byte("<html><script>" + payload + "</script>")
	progressive := craft.FlatJPEG(0xc2, 1600, 1200, 100)
	little := craft.FlatJPEG(0xc2, 64, 48, 100)
	littleScan := little[bytes.LastIndex(little, []byte{0xff, 0xda}) : len(little)-2]
	deep := image.NewNRGBA64(image.Rect(0, 0, 120, 90))
	copy(deep.Pix, bytes.Repeat(noise(120, 90).Pix, 2))
	wrongSum := bytes.Clone(drawing)
	wrongSum[len(wrongSum)-13] ^= 1 // of the pixels
	wrongHead := bytes.Clone(drawing)
	wrongHead[32] ^= 1
	noRows := bytes.Clone(still)
	noRows[8], noRows[9] = 0, 0
	flat := func(w, h uint32) []byte {
		head := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, w), h)
		return craft.PNG(craft.Chunk("IHDR", append(head, 8, 0, 0, 0, 0)), craft.Chunk("IDAT", deflated(nil)))
	}
	jpegWithoutRows := bytes.Clone(photo)
	sof := bytes.Index(jpegWithoutRows, []byte{0xff, 0xc0})
	jpegWithoutRows[sof+5], jpegWithoutRows[sof+6] = 0, 0
	loop := slices.Concat([]byte("II*\x00\x08\x00\x00\x00"), []byte{1, 0, 0x69, 0x87, 4, 0, 1, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0}) // its sub-directory, and its next one, are itself
	long := slices.Concat([]byte("II*\x00\x08\x00\x00\x00"), []byte{0xff, 0xff, 0x12, 0x01, 3, 0, 0xff, 0xff, 0xff, 0xff, 6, 0, 0, 0})
	js := tinyGIF(t, 0x2a2f, 10) // its width is written "/*"
	js = append(js, "*/=1;alert('"+payload+"')//"...)

	return []hostile{
		{"PNG of 48 KB that claims 20,000 x 20,000 pixels", asPNG, craft.PNGBomb(20_000, 20_000), "IMAGE_TOO_MANY_PIXELS", "", "IMAGE_TOO_MANY_PIXELS", "IMAGE_TOO_MANY_PIXELS"},
		{"PNG that claims 2^31 - 1 x 2^31 - 1 pixels", asPNG, craft.PNGBomb(1<<31-1, 1<<31-1), "IMAGE_INVALID", "", "IMAGE_INVALID", "IMAGE_INVALID"},
		{"PNG that claims 65,536 x 65,536 pixels (0 in 32 bits)", asPNG, craft.PNGBomb(1<<16, 1<<16), "IMAGE_TOO_MANY_PIXELS", "", "IMAGE_TOO_MANY_PIXELS", "IMAGE_TOO_MANY_PIXELS"},
		{"PNG that claims 7,000 x 7,000 pixels and has none", asPNG, craft.PNGBomb(7000, 7000), "as it came", "none", "IMAGE_CANNOT_FIT: memory", "as it came"},
		{"PNG of 48 million pixels, all black, in 50 KB", asPNG, blackPNG(t, 8000, 6000), "as it came", "none", "IMAGE_CANNOT_FIT: memory", "as it came"},
		{"GIF with a canvas of 65,535 x 65,535", asGIF, tinyGIF(t, 65_535, 65_535), "IMAGE_TOO_MANY_PIXELS", "", "IMAGE_TOO_MANY_PIXELS", "IMAGE_TOO_MANY_PIXELS"},
		{"GIF with a canvas of 7,000 x 7,000 and a frame of 10 x 10", asGIF, tinyGIF(t, 7000, 7000), "as it came", "yes", "as it came", "as it came"},
		{"GIF with a frame outside of its canvas", asGIF, tinyGIF(t, 5, 5), "as it came", "none", "as it came", "as it came"},
		{"JPEG of 49 million pixels, progressive, in 200 KB", asJPEG, craft.FlatJPEG(0xc2, 7000, 7000, 100), "as it came", "none", "IMAGE_CANNOT_FIT: memory", "as it came"},
		{"JPEG, progressive, of 5,000 scans", asJPEG, slices.Concat(little[:len(little)-2], bytes.Repeat(littleScan, 5000), little[len(little)-2:]), "as it came", "none", "IMAGE_INVALID", "as it came"},
		{"PNG with text that decompresses to 64 MB", asPNG, insert(drawing, craft.Chunk("zTXt", append([]byte("Comment\x00\x00"), deflated(make([]byte, 64<<20))...))), "as it came", "yes", "JPEG", "without comment"},
		{"PNG with a colour profile that decompresses to 64 MB", asPNG, insert(drawing, craft.Chunk("iCCP", append([]byte("p\x00\x00"), deflated(make([]byte, 64<<20))...))), "as it came", "yes", "JPEG", "as it came"},

		{"GIF89a<script>...", asGIF, append([]byte("GIF89a"), script...), "IMAGE_TOO_MANY_PIXELS", "", "IMAGE_TOO_MANY_PIXELS", "IMAGE_TOO_MANY_PIXELS"},
		{"GIF that is also JavaScript", asGIF, js, "as it came", "yes", "as it came", "without tail"},
		{"GIF followed by a JAR (GIFAR)", asGIF, append(bytes.Clone(still), archive(t)...), "as it came", "yes", "JPEG", "without tail"},
		{"PNG followed by a ZIP", asPNG, append(bytes.Clone(drawing), archive(t)...), "as it came", "yes", "JPEG", "without tail"},
		{"JPEG followed by a ZIP", asJPEG, append(bytes.Clone(photo), archive(t)...), "as it came", "yes", "JPEG, with fewer pixels", "without tail"},
		{"JPEG of less than 4,000 bytes followed by 4,000 bytes", asJPEG, slices.Concat(encoded(t, asJPEG, noise(64, 48)), []byte(payload), make([]byte, 4000)), "as it came", "yes", "without tail", "without tail"},
		{"JPEG followed by HTML", asJPEG, append(bytes.Clone(photo), script...), "as it came", "yes", "JPEG, with fewer pixels", "without tail"},
		{"JPEG with a script in its comment", asJPEG, slices.Concat(photo[:2], craft.Segment(0xfe, script), photo[2:]), "as it came", "yes", "JPEG, with fewer pixels", "without comment"},
		{"JPEG with a script between two segments", asJPEG, slices.Concat(photo[:second], script, photo[second:]), "as it came", "yes", "JPEG, with fewer pixels", "without other"},
		{"PNG with a script in its text", asPNG, insert(drawing, craft.Chunk("tEXt", append([]byte("Comment\x00"), script...))), "as it came", "yes", "JPEG", "without comment"},
		{"HTML declared as a PNG", asPNG, script, "FILE_TYPE_MISMATCH", "", "FILE_TYPE_MISMATCH", "FILE_TYPE_MISMATCH"},

		{"JPEG in CMYK", asJPEG, craft.FlatJPEG(0xc0, 800, 600, 100, 100, 100, 100), "as it came", "yes", "JPEG", "as it came"},
		{"JPEG, progressive", asJPEG, progressive, "as it came", "yes", "JPEG, with fewer pixels", "as it came"},
		{"PNG of 16 bits, with transparency", asPNG, encoded(t, asPNG, deep), "as it came", "yes", "PNG, with fewer pixels", "as it came"},
		{"GIF, animated", asGIF, moving, "as it came", "yes", "IMAGE_CANNOT_FIT: animated", "as it came"},
		{"GIF of one frame", asGIF, still, "as it came", "yes", "JPEG", "as it came"},
		{"PNG, animated (APNG)", asPNG, animatedPNG(drawing, 120, 90), "as it came", "yes", "IMAGE_CANNOT_FIT: animated", "as it came"},
		{"JPEG, rotated, with a position in its EXIF", asJPEG, exif(photo, append(craft.EXIF(6), payload...)), "as it came", "yes", "JPEG, turned upright, with fewer pixels", "without exif"},

		{"JPEG, its second half missing", asJPEG, photo[:len(photo)/2], "as it came", "none", "IMAGE_INVALID", "IMAGE_INVALID"},
		{"JPEG, its last two bytes missing", asJPEG, photo[:len(photo)-2], "as it came", "none", "IMAGE_INVALID", "IMAGE_INVALID"},
		{"PNG, its second half missing", asPNG, drawing[:len(drawing)/2], "as it came", "none", "IMAGE_INVALID", "IMAGE_INVALID"},
		{"PNG, its end missing", asPNG, drawing[:len(drawing)-12], "as it came", "none", "IMAGE_INVALID", "IMAGE_INVALID"},
		{"GIF, its second half missing", asGIF, still[:len(still)/2], "as it came", "none", "IMAGE_INVALID", "IMAGE_INVALID"},
		{"PNG with a wrong checksum of its header", asPNG, wrongHead, "IMAGE_INVALID", "", "IMAGE_INVALID", "IMAGE_INVALID"},
		{"PNG with a wrong checksum of its pixels", asPNG, wrongSum, "as it came", "none", "IMAGE_INVALID", "IMAGE_INVALID"},
		{"PNG of 0 x 10 pixels", asPNG, flat(0, 10), "IMAGE_INVALID", "", "IMAGE_INVALID", "IMAGE_INVALID"},
		{"GIF of 120 x 0 pixels", asGIF, noRows, "IMAGE_INVALID", "", "IMAGE_INVALID", "IMAGE_INVALID"},
		{"JPEG of 200 x 0 pixels", asJPEG, jpegWithoutRows, "IMAGE_INVALID", "", "IMAGE_INVALID", "IMAGE_INVALID"},
		{"JPEG of magic bytes only", asJPEG, []byte("\xff\xd8\xff\xe0"), "IMAGE_INVALID", "", "IMAGE_INVALID", "IMAGE_INVALID"},

		{"WebP declared as a JPEG", asJPEG, []byte("RIFF\x24\x00\x00\x00WEBPVP8 "), "FILE_TYPE_MISMATCH", "", "FILE_TYPE_MISMATCH", "FILE_TYPE_MISMATCH"},
		{"HEIC declared as a JPEG", asJPEG, []byte("\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"), "FILE_TYPE_MISMATCH", "", "FILE_TYPE_MISMATCH", "FILE_TYPE_MISMATCH"},
		{"SVG declared as a JPEG", asJPEG, []byte(`<svg xmlns="http://www.w3.org/2000/svg"><script>` + payload + `</script></svg>`), "FILE_TYPE_MISMATCH", "", "FILE_TYPE_MISMATCH", "FILE_TYPE_MISMATCH"},
		{"PNG declared as a JPEG", asJPEG, drawing, "FILE_TYPE_MISMATCH", "", "FILE_TYPE_MISMATCH", "FILE_TYPE_MISMATCH"},

		{"JPEG with 2.6 MB of application data", asJPEG, craft.WithSegments(photo, 0xee, 40), "as it came", "yes", "JPEG, with fewer pixels", "without other"},
		{"JPEG whose EXIF is a loop", asJPEG, exif(photo, loop), "as it came", "yes", "JPEG, with fewer pixels", "without exif"},
		{"JPEG whose EXIF claims 65,535 tags of 4 GB", asJPEG, exif(photo, long), "as it came", "yes", "JPEG, with fewer pixels", "without exif"},
		{"JPEG whose EXIF is truncated", asJPEG, exif(photo, craft.EXIF(6)[:20]), "as it came", "yes", "JPEG, with fewer pixels", "without exif"},
	}
}

func blackPNG(t *testing.T, w, h int) []byte {
	t.Helper()
	return encoded(t, asPNG, image.NewGray(image.Rect(0, 0, w, h)))
}

// become sends a file and says in a few words what became of it; the response, unless it was refused.
func (s *server) become(c *lpfileshare.Client, conversation string, h hostile, o *pb.ImageOptions) (string, *pb.UploadResponse) {
	s.t.Helper()
	r, err := c.Upload(s.t.Context(), lpfileshare.UploadOptions{
		Conversation: conversation, DisplayName: "file", FileType: h.as, Image: o, RetryFor: -1,
		Preview: &pb.Preview{Source: &pb.Preview_Generate{Generate: true}},
	}, bytes.NewReader(h.data))
	if err != nil {
		e, ok := err.(*lpfileshare.Error)
		if !ok || e.Reason == pb.ErrorReason_ERROR_REASON_UNSPECIFIED || e.Reason == pb.ErrorReason_ERROR_REASON_INTERNAL {
			s.t.Fatalf("%s: %v", h.name, err)
		}
		said := lpfileshare.ReasonName(e.Reason)
		if why := e.Metadata["why"]; why != "" {
			said += ": " + why
		}
		return said, nil
	}
	ch := r.GetImage()
	if ch == nil {
		return "as it came", r
	}
	if ch.GetRecoded() {
		said := strings.TrimPrefix(r.GetFile().GetFileType().String(), "FILE_TYPE_")
		if ch.GetRotated() {
			said += ", turned upright"
		}
		if ch.GetScaled() {
			said += ", with fewer pixels"
		}
		return said, r
	}
	var without []string
	for _, m := range ch.GetRemovedMetadata() {
		without = append(without, strings.ToLower(strings.TrimPrefix(m.String(), "IMAGE_METADATA_")))
	}
	if ch.GetTrailingBytesRemoved() > 0 {
		without = append(without, "tail")
	}
	return "without " + strings.Join(without, ", "), r
}

// checkClean wants that what was changed is what the answer says, can be decoded, and has nothing of the payload.
func (s *server) checkClean(c *lpfileshare.Client, h hostile, r *pb.UploadResponse) {
	s.t.Helper()
	if r.GetImage() == nil {
		return
	}
	b := s.download(c, r.GetFile().GetName())
	if bytes.Contains(b, []byte(payload)) {
		s.t.Errorf("%s: the payload is left", h.name)
	}
	if sum := sha256.Sum256(b); !bytes.Equal(sum[:], r.GetFile().GetUploadedChecksums().GetSha256()) {
		s.t.Errorf("%s: the answer has other checksums than the stored bytes", h.name)
	}
	config, _, err := image.DecodeConfig(bytes.NewReader(b))
	if err != nil || config.Width != int(r.GetImage().GetWidth()) || config.Height != int(r.GetImage().GetHeight()) {
		s.t.Errorf("%s: what is stored is %+v, %v, and not %v", h.name, config, err, r.GetImage())
	}
	if r.GetImage().GetRecoded() {
		if _, _, err := image.Decode(bytes.NewReader(b)); err != nil {
			s.t.Errorf("%s: what is stored cannot be decoded: %v", h.name, err)
		}
	}
}

// TestHostileFiles sends every row three times: as it is, to be made to fit 4,000 bytes, and to be stripped.
func TestHostileFiles(t *testing.T) {
	const files, decoding = 64 * mib, 64 * mib
	budgets := []string{fmt.Sprintf("--memory-budget=%d", files), fmt.Sprintf("--preview-memory=%d", decoding)}
	usual := startServer(t, budgets...)
	narrow := startServer(t, append(budgets, "--fit-images", "--max-file-bytes=4000")...)
	usualClients, usualConv := usual.Clients(t, 1)
	narrowClients, narrowConv := narrow.Clients(t, 1)
	var slowest time.Duration
	rows := hostileFiles(t)
	for i := range rows {
		h, want := &rows[i], rows[i]
		begun := time.Now()
		var r *pb.UploadResponse
		if h.plain, r = usual.become(usualClients[0], usualConv, *h, nil); r != nil {
			if h.preview = "yes"; r.GetPreviewOmitted() {
				h.preview = "none"
			}
			if r.GetImage() != nil || !bytes.Equal(usual.download(usualClients[0], r.GetFile().GetName()), h.data) {
				t.Errorf("%s: it was changed without being asked", h.name)
			}
		}
		h.fitted, r = narrow.become(narrowClients[0], narrowConv, *h, &pb.ImageOptions{Fit: true})
		narrow.checkClean(narrowClients[0], *h, r)
		h.stripped, r = usual.become(usualClients[0], usualConv, *h, &pb.ImageOptions{StripMetadata: true})
		usual.checkClean(usualClients[0], *h, r)
		slowest = max(slowest, time.Since(begun))
		if got := [4]string{h.plain, h.preview, h.fitted, h.stripped}; got != [4]string{want.plain, want.preview, want.fitted, want.stripped} {
			t.Errorf("%s: %q", h.name, got)
		}
	}
	table := hostileTable(rows)
	fmt.Printf("%s\n%d files, three times each; the slowest took %.1f s; peak %d MiB and %d MiB of %d\n",
		table, len(rows), slowest.Seconds(), usual.peak()/mib, narrow.peak()/mib, (files+decoding+rest)/mib)
	for _, s := range []*server{usual, narrow} {
		if peak := s.peak(); peak > files+decoding+rest {
			t.Errorf("a server had %d MiB resident", peak/mib)
		}
	}
	const page = "../../docs/hostile-files.md"
	text := hostileHead + table
	if *update {
		if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if committed, err := os.ReadFile(page); err != nil || string(committed) != text {
		t.Errorf("docs/hostile-files.md is outdated (%v): run go test ./test/images -run Hostile -update", err)
	}
}

const hostileHead = `# Hostile files

What the server does with files that are damaged, unusual, or malicious. ` + "`go test ./test/images -run Hostile -v`" + ` sends each file to the
server three times, compares the answers with this table and the stored files with the answers, and prints time and memory. The
limit for "made to fit" is 4,000 bytes, the decoding memory is 64 MiB. "As it came" means that no byte was changed.

An image is accepted by its header. The data after the header is the responsibility of the reader, and of LivePerson, which rebuilds
files after upload. A client that wants to pass on nothing but the picture requests stripping.

`

// hostileTable is the table in Markdown.
func hostileTable(rows []hostile) string {
	var b strings.Builder
	b.WriteString("| file | as it is | preview | made to fit | stripped |\n| --- | --- | --- | --- | --- |\n")
	for _, h := range rows {
		preview := h.preview
		if preview == "" {
			preview = "–"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", strings.ReplaceAll(h.name, "<", `\<`), h.plain, preview, h.fitted, h.stripped)
	}
	return b.String()
}
