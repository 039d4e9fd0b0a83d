package service

import (
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"strings"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// receiveFitAndStore takes an image in whole, has it changed as its spec asks, and stores what comes of it. Nothing of it reaches
// LivePerson or the store before that: the signed URL is asked for with the final size and type.
func (s *Server) receiveFitAndStore(ctx context.Context, in *receiver, room *reservation, session Session, spec uploadSpec, settings Settings) (*share.StoredFile, error) {
	input := newSpool(s.admission, spec.size)
	defer input.discard()
	check := newChecker(s, spec, input, sumKinds{sha256: spec.wantSHA256})
	if err := s.receive(ctx, in, check, nil); err != nil {
		return nil, err
	}
	if spec.strip && spec.preview != "" {
		var err error
		if spec.preview, err = s.stripPreview(ctx, spec.preview); err != nil {
			return nil, err
		}
	}
	output := &outlet{from: s.admission}
	defer output.discard()
	fitted, err := s.fit(ctx, spec, settings, input, output)
	if err != nil {
		return nil, err
	}
	sp := input
	if fitted != nil {
		input.discard()
		sp, spec.fileType = output.spool, fitted.Type
		fitted.Change.InputChecksums = check.sums.checksums()
	}
	sp.seal()
	room.shrink(sp.len())
	spec.size = sp.len()

	sums := newSums(sumKinds{md5: settings.CheckETag, sha256: check.sums.sha256 != nil})
	if _, err := io.Copy(sums, sp.reader()); err != nil {
		return nil, err
	}
	stored := check.image
	if fitted != nil {
		stored = fitted.Change.Stored
	}
	file := newStoredFile(session, spec, spec.size, sums, stored)
	p := s.startStoring(ctx, session, spec, sp)
	defer p.stop()
	p.etag = sums.etag()
	sp.release()
	if fitted != nil {
		file.Image = &fitted.Change
	}
	if spec.makePreview {
		if fitted != nil && fitted.Preview != "" {
			file.File.Preview = fitted.Preview
		} else { // while the store writes
			s.addPreview(ctx, file, spec.fileType, sp)
		}
	}
	return p.wait(ctx, file)
}

// fit has a whole image changed; nil: it stays as it came.
func (s *Server) fit(ctx context.Context, spec uploadSpec, settings Settings, input *spool, output *outlet) (*share.FittedImage, error) {
	job := share.ImageJob{
		Type: spec.fileType, Size: input.len(), Open: input.reader, Create: output.create,
		MaxBytes: settings.MaxFileBytes, Fit: spec.fit, Strip: spec.strip,
	}
	if spec.makePreview {
		job.PreviewChars = maxPreviewChars
	}
	return s.ports.Images.Fit(ctx, job)
}

// stripPreview strips the preview that a caller gave: what is not to be told by a picture is not to be told by its preview.
func (s *Server) stripPreview(ctx context.Context, uri string) (string, error) {
	t, data, _ := splitDataURI(uri) // which checkSpec has checked
	var out bytes.Buffer
	fitted, err := s.ports.Images.Fit(ctx, share.ImageJob{
		Type: t, Size: int64(len(data)), Open: func() io.Reader { return bytes.NewReader(data) },
		Create: func() io.Writer { out.Reset(); return &out }, MaxBytes: int64(len(data)), Strip: true,
	})
	switch {
	case share.Is(err, share.ImageInvalid, share.ImageTooManyPixels, share.FileTooLarge):
		var v violations
		v.add("spec.preview.data_uri", "cannot be stripped: it is not an image of the type that it says")
		return "", v.err()
	case err != nil || fitted == nil:
		return uri, err
	}
	head, _, _ := strings.Cut(uri, ",")
	return head + "," + base64.StdEncoding.EncodeToString(out.Bytes()), nil
}

// An outlet is the spool that a changed image is written into. Each try begins a new one.
type outlet struct {
	from  *admission
	spool *spool // of the latest try
}

func (o *outlet) create() io.Writer {
	o.discard()
	o.spool = newSpool(o.from, -1)
	return o.spool
}

func (o *outlet) discard() {
	if o.spool != nil {
		o.spool.discard()
	}
}

// imageChangeToProto tells what was done to a file's image; nil: nothing.
func imageChangeToProto(f *share.StoredFile) *lpfilesharev1.ImageChange {
	c := f.Image
	if c == nil {
		return nil
	}
	p := &lpfilesharev1.ImageChange{
		InputSizeBytes: c.InputSize, InputChecksums: checksumsToProto(c.InputChecksums),
		InputWidth: int32(c.Input.Width), InputHeight: int32(c.Input.Height),
		Width: int32(c.Stored.Width), Height: int32(c.Stored.Height),
		Recoded: c.Recoded, Rotated: c.Rotated, Scaled: c.Scaled, JpegQuality: int32(c.JPEGQuality),
		TrailingBytesRemoved: c.TrailingBytes,
	}
	if string(c.InputType) != f.File.FileType {
		p.InputFileType = fileTypeToProto(string(c.InputType))
	}
	for _, kind := range c.Removed {
		p.RemovedMetadata = append(p.RemovedMetadata, lpfilesharev1.ImageMetadata(lpfilesharev1.ImageMetadata_value["IMAGE_METADATA_"+string(kind)]))
	}
	return p
}
