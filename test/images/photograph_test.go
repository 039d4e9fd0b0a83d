package images

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bep/imagemeta"
	"golang.org/x/sync/errgroup"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/test/images/craft"
)

// photograph is a JPEG of 12 megapixels and about 8 MB as a telephone writes it: 4000 by 3000 pixels that are to be turned
// clockwise (orientation 6), with the place in its EXIF. The corner that is stored top left is red: seen it is top right.
func photograph(t testing.TB) []byte {
	t.Helper()
	const w, h = 4000, 3000
	rng := rand.New(rand.NewPCG(4, 2))
	img := image.NewYCbCr(image.Rect(0, 0, w, h), image.YCbCrSubsampleRatio420)
	for y := range h {
		for x := range w {
			v := 128 + 60*math.Sin(float64(x)/170)*math.Cos(float64(y)/110) + float64(rng.Uint32()%90) - 45 // hills, and the sensor's noise
			img.Y[y*img.YStride+x] = byte(v)
		}
	}
	for y := range h / 2 {
		for x := range w / 2 {
			img.Cb[y*img.CStride+x], img.Cr[y*img.CStride+x] = byte(100+x/50), byte(110+y/60)
		}
	}
	luma, cb, cr := color.RGBToYCbCr(255, 0, 0)
	for y := range h / 4 {
		for x := range w / 4 {
			img.Y[img.YOffset(x, y)], img.Cb[img.COffset(x, y)], img.Cr[img.COffset(x, y)] = luma, cb, cr
		}
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: 95}); err != nil {
		t.Fatal(err)
	}
	exif := craft.Segment(0xe1, append([]byte("Exif\x00\x00"), craft.EXIF(6)...))
	photo := slices.Concat(b.Bytes()[:2], exif, b.Bytes()[2:])
	if len(photo) < 7_500_000 || len(photo) > 8_500_000 {
		t.Fatalf("the photograph has %d bytes, and should have about 8 MB", len(photo))
	}
	return photo
}

// tags are the EXIF tags of a JPEG.
func tags(t testing.TB, b []byte) map[string]imagemeta.TagInfo {
	t.Helper()
	found := map[string]imagemeta.TagInfo{}
	_, err := imagemeta.Decode(imagemeta.Options{
		R: bytes.NewReader(b), ImageFormat: imagemeta.JPEG, Sources: imagemeta.EXIF | imagemeta.XMP | imagemeta.IPTC,
		ShouldHandleTag: func(imagemeta.TagInfo) bool { return true },
		HandleTag: func(tag imagemeta.TagInfo) error {
			found[tag.Tag] = tag
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// checkStored compares a stored photograph with the response.
func checkStored(t testing.TB, b []byte, r *pb.UploadResponse, preview string, limit int) {
	t.Helper()
	if len(b) > limit || int64(len(b)) != r.GetFile().GetStoredSizeBytes() {
		t.Errorf("%d bytes are stored, %d are reported, %d are allowed", len(b), r.GetFile().GetStoredSizeBytes(), limit)
	}
	if sum := sha256.Sum256(b); !bytes.Equal(sum[:], r.GetFile().GetUploadedChecksums().GetSha256()) {
		t.Error("the answer has other checksums than the stored bytes")
	}
	if found := tags(t, b); len(found) > 0 || bytes.Contains(b, []byte("Exif")) || bytes.Contains(b, []byte("Kodak")) {
		t.Errorf("EXIF is left: %v", found)
	}
	img, err := jpeg.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	s, c := img.Bounds().Size(), r.GetImage()
	if s.X*4 != s.Y*3 && s.X >= s.Y || int(c.GetWidth()) != s.X || int(c.GetHeight()) != s.Y {
		t.Errorf("it has %v pixels: %v", s, c)
	}
	isRed := func(at color.Color) bool {
		r, g, b, _ := at.RGBA()
		return r > 0xd000 && g < 0x3000 && b < 0x3000
	}
	if !isRed(img.At(s.X*9/10, s.Y/10)) || isRed(img.At(s.X/10, s.Y/10)) {
		t.Error("the image is not upright")
	}
	data, ok := strings.CutPrefix(preview, "data:image/jpeg;base64,")
	raw, err := base64.StdEncoding.DecodeString(data)
	if !ok || err != nil || len(preview) >= 30<<10 {
		t.Fatalf("the preview has %d characters: %.40q, %v", len(preview), preview, err)
	}
	small, err := jpeg.Decode(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if p := small.Bounds().Size(); p.X >= p.Y || !isRed(small.At(p.X*9/10, p.Y/10)) {
		t.Errorf("the preview of %v is not upright", p)
	}
}

// rest is what the server may take beside its budgets: what it tells the garbage collector of (48 MiB: connections, sessions, the
// ledger), the pages of its own program (some 30), and what the collector is late by.
const rest = 96 * mib

func fitted(conversation string) lpfileshare.UploadOptions {
	return lpfileshare.UploadOptions{
		Conversation: conversation, DisplayName: "photo.jpg", FileType: pb.FileType_FILE_TYPE_JPEG,
		Preview: &pb.Preview{Source: &pb.Preview_Generate{Generate: true}}, Image: &pb.ImageOptions{Fit: true, StripMetadata: true},
	}
}

func TestPhotograph_ArrivesUprightSmallAndClean(t *testing.T) {
	photo := photograph(t)
	if found := tags(t, photo); found["GPSLatitude"].Value == nil || found["Orientation"].Value != uint16(6) {
		t.Fatalf("the photograph has no place or orientation: %v", found)
	}
	s := startServer(t, "--fit-images")
	clients, conv := s.Clients(t, 1)
	c := clients[0]
	if _, err := c.Upload(t.Context(), lpfileshare.UploadOptions{Conversation: conv, DisplayName: "photo.jpg"}, bytes.NewReader(photo)); lpfileshare.ErrorReason(err) != pb.ErrorReason_ERROR_REASON_FILE_TOO_LARGE {
		t.Errorf("without being asked: %v", err)
	}
	before := s.peak()
	o := fitted(conv)
	begun := time.Now()
	r, err := c.Upload(t.Context(), o, bytes.NewReader(photo))
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(begun)
	peak := s.peak()
	b := s.download(c, r.GetFile().GetName())
	checkStored(t, b, r, s.previewOf(c, r.GetFile().GetName()), 3_000_000)
	change := r.GetImage()
	if sum := sha256.Sum256(photo); !bytes.Equal(change.GetInputChecksums().GetSha256(), sum[:]) || change.GetInputSizeBytes() != int64(len(photo)) || !change.GetRotated() {
		t.Errorf("the change is %v", change)
	}
	fmt.Printf("one photograph: %d bytes, %d x %d, orientation 6, GPS -> %d bytes, %d x %d, quality %d, upright, no EXIF; preview %d characters; %.2f s; peak %d MiB, %d MiB before\n",
		len(photo), change.GetInputWidth(), change.GetInputHeight(), len(b), change.GetWidth(), change.GetHeight(), change.GetJpegQuality(),
		len(s.previewOf(c, r.GetFile().GetName())), took.Seconds(), peak/mib, before/mib)

	o.RequestID = r.GetRequestId()
	again, err := c.Upload(t.Context(), o, bytes.NewReader(photo))
	if err != nil || !again.GetReplayed() || again.GetImage().String() != change.String() {
		t.Errorf("repeated: %v, %v", again, err)
	}
}

// TestMemory_PhotographsStayWithinTheBudget sends more photographs at once than fit into the memory for files, of which one caller may
// have half. They wait for it, and then for memory to be decoded in.
func TestMemory_PhotographsStayWithinTheBudget(t *testing.T) {
	const uploads, files, decoding = 12, 64 * mib, 192 * mib
	photo := photograph(t)
	s := startServer(t, "--fit-images", fmt.Sprintf("--memory-budget=%d", files), fmt.Sprintf("--preview-memory=%d", decoding), "--queue-time=5m")
	clients, conv := s.Clients(t, 8)
	var group errgroup.Group
	answers := make([]*pb.UploadResponse, uploads)
	begun := time.Now()
	for i := range uploads {
		group.Go(func() (err error) {
			o := fitted(conv)
			o.RetryFor = 5 * time.Minute
			answers[i], err = clients[i%len(clients)].Upload(t.Context(), o, bytes.NewReader(photo))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	took, peak := time.Since(begun), s.peak()
	for _, r := range answers {
		if r.GetPreviewOmitted() || !r.GetImage().GetRotated() || r.GetFile().GetStoredSizeBytes() > 3_000_000 {
			t.Errorf("one came out as %v", r)
		}
	}
	last := answers[uploads-1]
	checkStored(t, s.download(clients[0], last.GetFile().GetName()), last, s.previewOf(clients[0], last.GetFile().GetName()), 3_000_000)
	if n := len(s.sb.Journal().Published); n != uploads {
		t.Errorf("%d messages, want %d", n, uploads)
	}
	fmt.Printf("%d photographs of 12 megapixels at once: %.1f s, %.2f s each; peak %d MiB; budgets: files %d MiB, decoding %d MiB, the rest %d MiB\n",
		uploads, took.Seconds(), took.Seconds()/uploads, peak/mib, files/mib, decoding/mib, rest/mib)
	if peak == 0 || peak > files+decoding+rest {
		t.Errorf("the server had %d MiB resident", peak/mib)
	}
}

// TestMemory_ProgressiveJPEGsStayWithinTheBudget sends JPEGs whose decoder keeps every coefficient until the end. With 12 megapixels that is
// 180 MB, so that only one at a time fits.
func TestMemory_ProgressiveJPEGsStayWithinTheBudget(t *testing.T) {
	const uploads, files, decoding = 3, 64 * mib, 240 * mib
	b := craft.FlatJPEG(0xc2, 4000, 3000, 100, 64, -64)
	s := startServer(t, "--fit-images", "--max-file-bytes=100000", fmt.Sprintf("--memory-budget=%d", files), fmt.Sprintf("--preview-memory=%d", decoding))
	clients, conv := s.Clients(t, 2)
	var group errgroup.Group
	begun := time.Now()
	for i := range uploads {
		group.Go(func() error {
			r, err := clients[i%len(clients)].Upload(t.Context(), fitted(conv), bytes.NewReader(b))
			if err == nil && (!r.GetImage().GetRecoded() || r.GetPreviewOmitted() || r.GetFile().GetStoredSizeBytes() > 100_000) {
				t.Errorf("one came out as %v", r)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	peak := s.peak()
	fmt.Printf("%d progressive JPEGs of 12 megapixels at once (%d bytes each): %.1f s; peak %d MiB; budgets: files %d MiB, decoding %d MiB, the rest %d MiB\n",
		uploads, len(b), time.Since(begun).Seconds(), peak/mib, files/mib, decoding/mib, rest/mib)
	if peak == 0 || peak > files+decoding+rest {
		t.Errorf("the server had %d MiB resident", peak/mib)
	}
}
