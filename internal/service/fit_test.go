package service

import (
	"bytes"
	"context"
	"encoding/base64"
	"testing"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// fitting lets the account make images of up to 600,000 bytes fit.
func fitting(c *Config) { set(func(s *Settings) { s.MaxImageInputBytes = 600_000 })(c) }

func fit(s *pb.UploadSpec)   { s.Image = &pb.ImageOptions{Fit: true} }
func strip(s *pb.UploadSpec) { s.Image = &pb.ImageOptions{StripMetadata: true} }

// png makes a PNG of n bytes, as far as its first bytes go.
func png(n int) []byte {
	b := picture(n)
	copy(b, "\x89PNG\r\n\x1a\n")
	return b
}

func asPNG(s *pb.UploadSpec) { s.FileType = pb.FileType_FILE_TYPE_PNG }

func TestAnImageIsMadeToFit(t *testing.T) {
	for name, change := range map[string]func(*pb.UploadSpec){"declared": fit, "undeclared": func(s *pb.UploadSpec) { fit(s); undeclared(s) }} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, fitting)
			sent := png(500_000)
			r := h.put(sent, change, asPNG, func(s *pb.UploadSpec) {
				s.Checksums = sumsOf(sent)
				s.Preview = &pb.Preview{Source: &pb.Preview_Generate{Generate: true}}
			})
			stored := sent[:250_000]
			msg := h.published(stored)
			if msg.File.FileType != "JPG" || msg.File.Preview != fittedPreview {
				t.Errorf("the message is %+v", msg.File)
			}
			if tries := h.store.tries(); len(tries) != 1 || tries[0].size != 250_000 || !bytes.HasSuffix([]byte(tries[0].path), []byte(".JPG")) {
				t.Errorf("the URL was asked for, and used, so: %s %d", tries[0].path, tries[0].size)
			}
			f := r.GetFile()
			if f.GetFileType() != pb.FileType_FILE_TYPE_JPEG || f.GetStoredSizeBytes() != 250_000 || !proto.Equal(f.GetUploadedChecksums(), sumsOf(stored)) || f.GetEtag() != describe(stored).ETag {
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
				t.Errorf("GetUpload says %v, %v", up.GetUpload().GetImage(), err)
			}
		})
	}
}

func TestARepeatOfAFittedUploadGetsTheFirstAnswer(t *testing.T) {
	h := newHouse(t, fitting)
	sent := picture(500_000)
	id := uuid.NewString()
	one := h.put(sent, fit, withID(id), func(s *pb.UploadSpec) { s.Checksums = sumsOf(sent) })
	two := h.put(sent, fit, withID(id), func(s *pb.UploadSpec) { s.Checksums = sumsOf(sent) })
	if !two.GetReplayed() || !proto.Equal(one.GetImage(), two.GetImage()) || one.GetImage() == nil || !proto.Equal(one.GetFile(), two.GetFile()) {
		t.Errorf("the answers are\n%v\n%v", one, two)
	}
	for name, other := range map[string][]func(*pb.UploadSpec){
		"stripped too":             {func(s *pb.UploadSpec) { s.Image = &pb.ImageOptions{Fit: true, StripMetadata: true} }},
		"another size":             {fit, func(s *pb.UploadSpec) { s.SizeBytes = proto.Int64(250_000) }},
		"sums of the stored bytes": {fit, func(s *pb.UploadSpec) { s.Checksums = sumsOf(sent[:250_000]) }},
	} {
		_, err := h.upload(h.alice(), whole(spec(sent, append(other, withID(id))...), sent, 64<<10)...)
		t.Run(name, func(t *testing.T) { refused(t, err, share.RequestIDConflict) })
	}
	if h.look.count("Fit") != 1 {
		t.Errorf("it was made to fit %d times", h.look.count("Fit"))
	}
}

func TestOptionsThatAskNothingAreNone(t *testing.T) {
	h := newHouse(t, fitting)
	b, id := picture(1000), uuid.NewString()
	h.put(b, withID(id))
	if r := h.put(b, withID(id), func(s *pb.UploadSpec) { s.Image = &pb.ImageOptions{} }); !r.GetReplayed() {
		t.Error("it is another upload")
	}
}

func TestWhatFitsStreamsThrough(t *testing.T) {
	h := newHouse(t, fitting)
	r := h.put(picture(300_000), fit)
	h.published(picture(300_000))
	if h.look.count("Fit") != 0 || r.GetImage() != nil {
		t.Errorf("it was touched: %v", r.GetImage())
	}
}

func TestImagesAreStrippedWhenAskedOrAlways(t *testing.T) {
	for name, c := range map[string]struct {
		config func(*Config)
		change func(*pb.UploadSpec)
	}{
		"asked":  {fitting, strip},
		"always": {set(func(s *Settings) { s.StripImages = true }), undeclared},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, c.config)
			b := picture(200_000)
			r := h.put(b, c.change)
			h.published(b[:100_000])
			if r.GetImage().GetInputSizeBytes() != 200_000 || r.GetImage().GetInputFileType() != 0 {
				t.Errorf("the change is %v", r.GetImage())
			}
		})
	}
	t.Run("a preview too", func(t *testing.T) {
		h := newHouse(t)
		given := base64.StdEncoding.EncodeToString([]byte("a preview, secret"))
		h.put(picture(1000), strip, func(s *pb.UploadSpec) {
			s.Preview = &pb.Preview{Source: &pb.Preview_DataUri{DataUri: "data:image/png;base64," + given}}
		})
		want := "data:image/png;base64," + base64.StdEncoding.EncodeToString([]byte("a previe"))
		if got := h.published(picture(1000)[:500]).File.Preview; got != want {
			t.Errorf("the preview is %q, want %q", got, want)
		}
		h.look.fail("Fit", kindError(share.ImageInvalid))
		b := picture(1000)
		_, err := h.upload(h.alice(), whole(spec(b, strip, func(s *pb.UploadSpec) {
			s.Preview = &pb.Preview{Source: &pb.Preview_DataUri{DataUri: "data:image/png;base64," + given}}
		}), b, 64<<10)...)
		refused(t, err, share.InvalidField)
		if names := fields(err); len(names) != 1 || names[0] != "spec.preview.data_uri" {
			t.Errorf("fields %v", names)
		}
	})
	t.Run("what is clean stays", func(t *testing.T) {
		h := newHouse(t)
		b := append(picture(200_000), "clean"...)
		r := h.put(b, strip)
		h.published(b)
		if r.GetImage() != nil || h.look.count("Fit") != 1 || !proto.Equal(r.GetFile().GetUploadedChecksums(), sumsOf(b)) {
			t.Errorf("the answer is %v", r)
		}
	})
	t.Run("documents stay", func(t *testing.T) {
		h := newHouse(t, set(func(s *Settings) { s.StripImages, s.Documents = true, share.Documents() }))
		b := []byte("only text")
		h.put(b, func(s *pb.UploadSpec) { s.FileType = pb.FileType_FILE_TYPE_TXT })
		h.published(b)
	})
}

func TestWhatIsNotMadeToFit(t *testing.T) {
	for name, c := range map[string]struct {
		config func(*Config)
		b      []byte
		change func(*pb.UploadSpec)
		kind   share.Kind
		max    string
	}{
		"not asked":         {fitting, picture(300_001), strip, share.FileTooLarge, "300000"},
		"not allowed":       {func(*Config) {}, picture(300_001), fit, share.FileTooLarge, "300000"},
		"over the ceiling":  {fitting, picture(600_001), fit, share.FileTooLarge, "600000"},
		"over it, not said": {fitting, picture(600_001), func(s *pb.UploadSpec) { fit(s); undeclared(s) }, share.FileTooLarge, "600000"},
		"not an image":      {set(func(s *Settings) { s.Documents = share.Documents() }), []byte("text"), func(s *pb.UploadSpec) { fit(s); s.FileType = pb.FileType_FILE_TYPE_TXT }, share.InvalidField, ""},
		"of another type":   {fitting, png(500_000), fit, share.FileTypeMismatch, ""},
		"with other sums":   {fitting, picture(500_000), func(s *pb.UploadSpec) { fit(s); s.Checksums = sumsOf([]byte("x")) }, share.FileChecksumMismatch, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, c.config)
			_, err := h.upload(h.alice(), whole(spec(c.b, c.change), c.b, 64<<10)...)
			info := refused(t, err, c.kind)
			if info.GetMetadata()["maxBytes"] != c.max {
				t.Errorf("metadata is %v", info.GetMetadata())
			}
			h.nothingHappened(len(c.b))
			if n := h.look.count("Fit"); n != 0 {
				t.Errorf("it was made to fit %d times", n)
			}
		})
	}
}

func TestWhatCannotBeMadeToFitReachesNobody(t *testing.T) {
	for _, kind := range []share.Kind{share.ImageCannotFit, share.ImageInvalid, share.TooManyUploads} {
		h := newHouse(t, fitting)
		h.look.fail("Fit", share.Errorf(kind, "a message", nil))
		b, id := picture(500_000), uuid.NewString()
		_, err := h.upload(h.alice(), whole(spec(b, fit, withID(id)), b, 64<<10)...)
		refused(t, err, kind)
		h.nothingHappened(len(b))
		if n := h.lp.count("UploadURL"); n != 0 {
			t.Errorf("%d URLs were asked for", n)
		}
		h.put(b, fit, withID(id)) // and the id is free for another try
	}
}

func TestAFittedUploadHoldsRoomForBoth(t *testing.T) {
	h := newHouse(t, fitting)
	b := picture(500_000)
	var fitting, storing int64
	h.look.on("Fit", func(ctx context.Context) error { fitting = h.server.MemoryBudget - h.budgetFree(); return nil })
	h.store.on("Put", func(ctx context.Context) error { storing = h.server.MemoryBudget - h.budgetFree(); return nil })
	h.put(b, fit)
	if want := admission.WholeBlocks(500_000) + admission.WholeBlocks(300_000); fitting != want {
		t.Errorf("%d bytes were reserved while it was made to fit, want %d", fitting, want)
	}
	if want := admission.WholeBlocks(250_000); storing != want {
		t.Errorf("%d bytes were reserved while it was stored, want %d", storing, want)
	}
}

func TestAFittedUploadIsStoredAgainWhenAPutFails(t *testing.T) {
	h := newHouse(t, fitting)
	h.store.fail("Put", kindError(share.StorageUnavailable))
	h.put(picture(500_000), fit)
	h.published(picture(500_000)[:250_000])
}

func TestTheETagOfAFittedUploadIsCompared(t *testing.T) {
	h := newHouse(t, fitting)
	h.store.answer = func(o *share.StoredObject) { o.ETag = describe([]byte("other")).ETag }
	b := picture(500_000)
	_, err := h.upload(h.alice(), whole(spec(b, fit), b, 64<<10)...)
	refused(t, err, share.StorageCorrupted)
}

func TestACallerWhoGoesWhileAnImageIsMadeToFit(t *testing.T) {
	h := newHouse(t, fitting)
	entered := make(chan struct{})
	h.look.on("Fit", func(ctx context.Context) error {
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
	h.eventually("it ends", func() bool { return h.lp.sessions() == 0 })
	h.nothingHappened(500_000)
}

func TestFittingValidateOnly(t *testing.T) {
	h := newHouse(t, fitting)
	validate := func(s *pb.UploadSpec) { s.ValidateOnly = true }
	r, err := h.upload(h.alice(), first(spec(picture(500_000), fit, validate)))
	if err != nil || r.GetFile() != nil || r.GetImage() != nil {
		t.Errorf("%v, %v", r, err)
	}
	_, err = h.upload(h.alice(), first(spec(picture(600_001), fit, validate)))
	refused(t, err, share.FileTooLarge)
}

func TestCapabilitiesTellOfFitting(t *testing.T) {
	h := newHouse(t, fitting, set(func(s *Settings) { s.StripImages = true }))
	r, err := h.files.GetCapabilities(h.alice(), &pb.GetCapabilitiesRequest{Account: accountName(account)})
	if err != nil || r.GetMaxImageInputBytes() != 600_000 || !r.GetStripsImages() {
		t.Errorf("%v, %v", r, err)
	}
	r, err = newHouse(t).files.GetCapabilities(h.alice(), &pb.GetCapabilitiesRequest{Account: accountName(account)})
	if err != nil || r.GetMaxImageInputBytes() != 0 || r.GetStripsImages() {
		t.Errorf("%v, %v", r, err)
	}
}
