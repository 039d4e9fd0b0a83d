package service

import (
	"bytes"
	"context"
	"encoding/base64"
	"testing"
	"testing/synctest"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// fitting lets the account fit images of up to 600,000 bytes.
func fitting(c *Config) { set(func(s *Settings) { s.MaxImageInputBytes = 600_000 })(c) }

func fit(s *pb.UploadSpec)   { s.Image = &pb.ImageOptions{Fit: true} }
func strip(s *pb.UploadSpec) { s.Image = &pb.ImageOptions{StripMetadata: true} }

// png returns n bytes that begin like a PNG.
func png(n int) []byte {
	b := picture(n)
	copy(b, "\x89PNG\r\n\x1a\n")
	return b
}

func asPNG(s *pb.UploadSpec) { s.FileType = pb.FileType_FILE_TYPE_PNG }

func TestUploadFit_StoresTheFittedImage(t *testing.T) {
	for name, change := range map[string]func(*pb.UploadSpec){"declared": fit, "undeclared": func(s *pb.UploadSpec) { fit(s); undeclared(s) }} {
		t.Run(name, inBubble(func(t *testing.T) {
			h := newHarness(t, fitting)
			sent := png(500_000)
			r := h.put(sent, change, asPNG, func(s *pb.UploadSpec) {
				s.Checksums = sumsOf(sent)
				s.Preview = &pb.Preview{Source: &pb.Preview_Generate{Generate: true}}
			})
			stored := sent[:250_000]
			msg := h.wantPublished(stored)
			if msg.File.FileType != "JPG" || msg.File.Preview != fittedPreview {
				t.Errorf("the message is %+v", msg.File)
			}
			if tries := h.store.recordedPuts(); len(tries) != 1 || tries[0].size != 250_000 || !bytes.HasSuffix([]byte(tries[0].path), []byte(".JPG")) {
				t.Errorf("the PUT was to %s, of %d bytes", tries[0].path, tries[0].size)
			}
			f := r.GetFile()
			if f.GetFileType() != pb.FileType_FILE_TYPE_JPEG || f.GetStoredSizeBytes() != 250_000 || !proto.Equal(f.GetUploadedChecksums(), sumsOf(stored)) || f.GetEtag() != string(describe(stored).ETag) {
				t.Errorf("the file is %v", f)
			}
			want := &pb.ImageChange{
				InputSizeBytes: 500_000, InputChecksums: sumsOf(sent), InputFileType: pb.FileType_FILE_TYPE_PNG,
				InputWidth: 40, InputHeight: 30, Width: 15, Height: 20, Recoded: true, Rotated: true, Scaled: true, JpegQuality: 82,
				RemovedMetadata:      []pb.ImageMetadata{pb.ImageMetadata_IMAGE_METADATA_EXIF, pb.ImageMetadata_IMAGE_METADATA_OTHER},
				TrailingBytesRemoved: 7,
			}
			if !proto.Equal(r.GetImage(), want) {
				t.Errorf("the change is\n%v, want\n%v", r.GetImage(), want)
			}
			up, err := h.files.GetUpload(h.alice(), &pb.GetUploadRequest{Name: accountName(account) + "/uploads/" + r.GetRequestId()})
			if err != nil || !proto.Equal(up.GetUpload().GetImage(), want) {
				t.Errorf("GetUpload returned %v, %v", up.GetUpload().GetImage(), err)
			}
		}))
	}
}

func TestUploadFit_RetryReturnsTheFirstResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, fitting)
		sent := picture(500_000)
		id := uuid.NewString()
		one := h.put(sent, fit, withID(id), func(s *pb.UploadSpec) { s.Checksums = sumsOf(sent) })
		two := h.put(sent, fit, withID(id), func(s *pb.UploadSpec) { s.Checksums = sumsOf(sent) })
		if !two.GetReplayed() || !proto.Equal(one.GetImage(), two.GetImage()) || one.GetImage() == nil || !proto.Equal(one.GetFile(), two.GetFile()) {
			t.Errorf("the results are\n%v\n%v", one, two)
		}
		for name, other := range map[string][]func(*pb.UploadSpec){
			"stripped too":             {func(s *pb.UploadSpec) { s.Image = &pb.ImageOptions{Fit: true, StripMetadata: true} }},
			"another size":             {fit, func(s *pb.UploadSpec) { s.SizeBytes = proto.Int64(250_000) }},
			"sums of the stored bytes": {fit, func(s *pb.UploadSpec) { s.Checksums = sumsOf(sent[:250_000]) }},
		} {
			_, err := h.upload(h.alice(), whole(spec(sent, append(other, withID(id))...), sent, 64<<10)...)
			t.Log(name)
			wantError(t, err, share.RequestIDConflict)
		}
		if h.images.count("Fit") != 1 {
			t.Errorf("Fit was called %d times", h.images.count("Fit"))
		}
	})
}

func TestUploadFit_EmptyOptionsAreNoOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, fitting)
		b, id := picture(1000), uuid.NewString()
		h.put(b, withID(id))
		if r := h.put(b, withID(id), func(s *pb.UploadSpec) { s.Image = &pb.ImageOptions{} }); !r.GetReplayed() {
			t.Error("the second call was a new upload")
		}
	})
}

func TestUploadFit_SmallImageIsNotChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, fitting)
		r := h.put(picture(300_000), fit)
		h.wantPublished(picture(300_000))
		if h.images.count("Fit") != 0 || r.GetImage() != nil {
			t.Errorf("the image was changed: %v", r.GetImage())
		}
	})
}

func TestUploadStrip(t *testing.T) {
	for name, c := range map[string]struct {
		config func(*Config)
		change func(*pb.UploadSpec)
	}{
		"requested":      {fitting, strip},
		"by the account": {set(func(s *Settings) { s.StripImages = true }), undeclared},
	} {
		t.Run(name, inBubble(func(t *testing.T) {
			h := newHarness(t, c.config)
			b := picture(200_000)
			r := h.put(b, c.change)
			h.wantPublished(b[:100_000])
			if r.GetImage().GetInputSizeBytes() != 200_000 || r.GetImage().GetInputFileType() != 0 {
				t.Errorf("the change is %v", r.GetImage())
			}
		}))
	}
	for name, change := range map[string]func(*pb.UploadSpec){"declared": strip, "undeclared": func(s *pb.UploadSpec) { strip(s); undeclared(s) }} {
		t.Run("larger than the limit, "+name, inBubble(func(t *testing.T) {
			h := newHarness(t)
			b := picture(500_000)
			h.put(b, change)
			h.wantPublished(b[:250_000])
		}))
	}
	t.Run("preview", inBubble(func(t *testing.T) {
		h := newHarness(t)
		given := base64.StdEncoding.EncodeToString([]byte("a preview, secret"))
		h.put(picture(1000), strip, func(s *pb.UploadSpec) {
			s.Preview = &pb.Preview{Source: &pb.Preview_DataUri{DataUri: "data:image/png;base64," + given}}
		})
		want := "data:image/png;base64," + base64.StdEncoding.EncodeToString([]byte("a previe"))
		if got := h.wantPublished(picture(1000)[:500]).File.Preview; got != want {
			t.Errorf("the preview is %q, want %q", got, want)
		}
		h.images.fail("Fit", kindError(share.ImageInvalid))
		b := picture(1000)
		_, err := h.upload(h.alice(), whole(spec(b, strip, func(s *pb.UploadSpec) {
			s.Preview = &pb.Preview{Source: &pb.Preview_DataUri{DataUri: "data:image/png;base64," + given}}
		}), b, 64<<10)...)
		wantError(t, err, share.InvalidField)
		if names := fields(err); len(names) != 1 || names[0] != "spec.preview.data_uri" {
			t.Errorf("fields %v", names)
		}
	}))
	t.Run("preview that is no image", inBubble(func(t *testing.T) {
		h := newHarness(t)
		html := base64.StdEncoding.EncodeToString([]byte("<html>"))
		for _, validate := range []bool{false, true} {
			b := picture(1000)
			_, err := h.upload(h.alice(), whole(spec(b, func(s *pb.UploadSpec) {
				s.ValidateOnly = validate
				s.Preview = &pb.Preview{Source: &pb.Preview_DataUri{DataUri: "data:image/jpeg;base64," + html}}
			}), b, 64<<10)...)
			wantError(t, err, share.InvalidField)
			if names := fields(err); len(names) != 1 || names[0] != "spec.preview.data_uri" {
				t.Errorf("fields %v", names)
			}
		}
		h.wantNothingStored(0)
	}))
	t.Run("clean image is not changed", inBubble(func(t *testing.T) {
		h := newHarness(t)
		b := append(picture(200_000), "clean"...)
		r := h.put(b, strip)
		h.wantPublished(b)
		if r.GetImage() != nil || h.images.count("Fit") != 1 || !proto.Equal(r.GetFile().GetUploadedChecksums(), sumsOf(b)) {
			t.Errorf("the result is %v", r)
		}
	}))
	t.Run("document is not changed", inBubble(func(t *testing.T) {
		h := newHarness(t, set(func(s *Settings) { s.StripImages, s.Documents = true, share.Documents() }))
		b := []byte("only text")
		h.put(b, func(s *pb.UploadSpec) { s.FileType = pb.FileType_FILE_TYPE_TXT })
		h.wantPublished(b)
	}))
}

func TestMaxStripInput(t *testing.T) {
	for name, c := range map[string]struct{ file, fits, budget, most, want int64 }{
		"twice a file":     {3_000_000, 0, 256 << 20, 1 << 40, 6_000_000},
		"an account fits":  {3_000_000, 25_000_000, 256 << 20, 1 << 40, 25_000_000},
		"a small file":     {3_000_000, 0, 256 << 20, MaxSmallFileBytes, MaxSmallFileBytes},
		"a small budget":   {3_000_000, 0, 8_000_000, 1 << 40, 8_000_000 - 3_000_000 - 2*admission.BlockBytes},
		"the least budget": {3_000_000, 0, 2 * (3_000_000 + admission.BlockBytes), 1 << 40, 3_000_000},
	} {
		if got := maxStripInput(Settings{MaxFileBytes: c.file, MaxImageInputBytes: c.fits}, c.budget, c.most); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestUploadFit_Rejections(t *testing.T) {
	for name, c := range map[string]struct {
		config func(*Config)
		b      []byte
		change func(*pb.UploadSpec)
		kind   share.Kind
		max    string
	}{
		"not requested":                    {fitting, picture(300_001), func(*pb.UploadSpec) {}, share.FileTooLarge, "300000"},
		"over the limit of stripping":      {func(*Config) {}, picture(600_001), strip, share.FileTooLarge, "600000"},
		"not allowed":                      {func(*Config) {}, picture(300_001), fit, share.FileTooLarge, "300000"},
		"over the input limit":             {fitting, picture(600_001), fit, share.FileTooLarge, "600000"},
		"over the input limit, undeclared": {fitting, picture(600_001), func(s *pb.UploadSpec) { fit(s); undeclared(s) }, share.FileTooLarge, "600000"},
		"not an image":                     {set(func(s *Settings) { s.Documents = share.Documents() }), []byte("text"), func(s *pb.UploadSpec) { fit(s); s.FileType = pb.FileType_FILE_TYPE_TXT }, share.InvalidField, ""},
		"of another type":                  {fitting, png(500_000), fit, share.FileTypeMismatch, ""},
		"with other checksums":             {fitting, picture(500_000), func(s *pb.UploadSpec) { fit(s); s.Checksums = sumsOf([]byte("x")) }, share.FileChecksumMismatch, ""},
	} {
		t.Run(name, inBubble(func(t *testing.T) {
			h := newHarness(t, c.config)
			_, err := h.upload(h.alice(), whole(spec(c.b, c.change), c.b, 64<<10)...)
			info := wantError(t, err, c.kind)
			if info.GetMetadata()["maxBytes"] != c.max {
				t.Errorf("metadata is %v", info.GetMetadata())
			}
			h.wantNothingStored(len(c.b))
			if n := h.images.count("Fit"); n != 0 {
				t.Errorf("Fit was called %d times", n)
			}
		}))
	}
}

func TestUploadFit_FailureStoresNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, kind := range []share.Kind{share.ImageCannotFit, share.ImageInvalid, share.TooManyUploads} {
			h := newHarness(t, fitting)
			h.images.fail("Fit", share.Errorf(kind, "a message", nil))
			b, id := picture(500_000), uuid.NewString()
			_, err := h.upload(h.alice(), whole(spec(b, fit, withID(id)), b, 64<<10)...)
			wantError(t, err, kind)
			h.wantNothingStored(len(b))
			if n := h.lp.count("UploadURL"); n != 0 {
				t.Errorf("%d URLs were requested", n)
			}
			h.put(b, fit, withID(id)) // the id can be used for a retry
		}
	})
}

func TestUploadFit_ReservesMemoryForInputAndOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, fitting)
		b := picture(500_000)
		var fitting, storing int64
		h.images.on("Fit", func(ctx context.Context) error { fitting = h.server.MemoryBudget - h.budgetFree(); return nil })
		h.store.on("Put", func(ctx context.Context) error { storing = h.server.MemoryBudget - h.budgetFree(); return nil })
		h.put(b, fit)
		if want := admission.WholeBlocks(500_000) + admission.WholeBlocks(300_000); fitting != want {
			t.Errorf("%d bytes were reserved during the fit, want %d", fitting, want)
		}
		if want := admission.WholeBlocks(250_000); storing != want {
			t.Errorf("%d bytes were reserved during the PUT, want %d", storing, want)
		}
	})
}

func TestUploadFit_RetriesPut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, fitting)
		h.store.fail("Put", kindError(share.StorageUnavailable))
		h.put(picture(500_000), fit)
		h.wantPublished(picture(500_000)[:250_000])
	})
}

func TestUploadFit_ComparesETag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, fitting)
		h.store.answer = func(o *share.StoredObject) { o.ETag = describe([]byte("other")).ETag }
		b := picture(500_000)
		_, err := h.upload(h.alice(), whole(spec(b, fit), b, 64<<10)...)
		wantError(t, err, share.StorageCorrupted)
	})
}

func TestUploadFit_ClientDisconnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, fitting)
		entered := make(chan struct{})
		h.images.on("Fit", func(ctx context.Context) error {
			close(entered)
			<-ctx.Done()
			return ctx.Err()
		})
		stream := h.begin(h.alice(), spec(picture(500_000), fit))
		for _, m := range whole(nil, picture(500_000), 64<<10)[1:] {
			if err := stream.Send(m); err != nil {
				t.Fatal(err)
			}
		}
		_ = stream.CloseSend()
		<-entered
		h.conn.Close()
		h.eventually("the handler has ended", func() bool { return h.lp.sessions() == 0 })
		h.wantNothingStored(500_000)
	})
}

func TestUploadFit_ValidateOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, fitting)
		validate := func(s *pb.UploadSpec) { s.ValidateOnly = true }
		r, err := h.upload(h.alice(), first(spec(picture(500_000), fit, validate)))
		if err != nil || r.GetFile() != nil || r.GetImage() != nil {
			t.Errorf("%v, %v", r, err)
		}
		_, err = h.upload(h.alice(), first(spec(picture(600_001), fit, validate)))
		wantError(t, err, share.FileTooLarge)
	})
}

func TestGetCapabilities_ImageOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, fitting, set(func(s *Settings) { s.StripImages = true }))
		r, err := h.files.GetCapabilities(h.alice(), &pb.GetCapabilitiesRequest{Account: accountName(account)})
		if err != nil || r.GetMaxImageInputBytes() != 600_000 || !r.GetStripsImages() {
			t.Errorf("%v, %v", r, err)
		}
		r, err = newHarness(t).files.GetCapabilities(h.alice(), &pb.GetCapabilitiesRequest{Account: accountName(account)})
		if err != nil || r.GetMaxImageInputBytes() != 0 || r.GetStripsImages() {
			t.Errorf("%v, %v", r, err)
		}
	})
}
