package upload

import (
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// transformed is the result of a transform.
type transformed struct {
	output *spool // sealed; the input itself if nothing was changed
	sums   *Sums
	image  share.ImageInfo
	fitted *share.FittedImage // nil: nothing was changed
}

// transform changes the whole file as the spec asks: today images can be fitted and stripped. LivePerson and the store have got
// nothing of the file yet, because the signed URL is requested with the final size and type.
func (t *transfer) transform(ctx context.Context, input *spool, in *inspection) (transformed, error) {
	r := transformed{output: input, image: in.image.info}
	if err := t.stripPreview(ctx); err != nil {
		return r, err
	}
	if err := t.memory.Grow(ctx, wholeBlocks(input.len())+t.spec.Limits.MaxFileBytes, t.IdleTimeout, func() {}); err != nil {
		return r, err
	}
	out := &transformOutput{memory: t.Memory}
	fitted, err := t.Images.Fit(ctx, t.imageJob(input, out))
	if err != nil {
		out.discard()
		return r, err
	}
	if fitted == nil {
		out.discard()
	} else {
		input.discard()
		fitted.Change.InputChecksums = in.sums.Checksums()
		r.output, r.image, r.fitted, t.spec.FileType = out.spool, fitted.Change.Stored, fitted, fitted.Type
	}
	r.output.seal()
	t.spec.Size = r.output.len()
	t.memory.Shrink(t.spec.Size)
	r.sums = NewSums(SumKinds{MD5: t.spec.Limits.CheckETag, SHA256: in.sums.sha256 != nil})
	_, err = io.Copy(r.sums, r.output.reader())
	return r, err
}

func (t *transfer) imageJob(input *spool, out *transformOutput) share.ImageJob {
	job := share.ImageJob{
		Type: t.spec.FileType, Size: input.len(), Open: input.reader, Create: out.create,
		MaxBytes: t.spec.Limits.MaxFileBytes, Fit: t.spec.Fit, Strip: t.spec.Strip,
	}
	if t.spec.GeneratePreview {
		job.PreviewChars = MaxPreviewChars
	}
	return job
}

// stripPreview strips the preview that the client sent: it must not reveal what stripping removes from the file.
func (t *transfer) stripPreview(ctx context.Context) error {
	if !t.spec.Strip || t.spec.Preview == "" {
		return nil
	}
	format, data, _ := share.SplitDataURI(t.spec.Preview) // the spec was validated
	var out bytes.Buffer
	fitted, err := t.Images.Fit(ctx, share.ImageJob{
		Type: format, Size: int64(len(data)), Open: func() io.Reader { return bytes.NewReader(data) },
		Create: func() io.Writer { out.Reset(); return &out }, MaxBytes: int64(len(data)), Strip: true,
	})
	switch {
	case share.Is(err, share.ImageInvalid, share.ImageTooManyPixels, share.FileTooLarge):
		return share.InvalidFields(share.Violation{
			Field: "spec.preview.data_uri", Description: "cannot be stripped: it is not an image of the type that it names",
		})
	case err != nil || fitted == nil:
		return err
	}
	head, _, _ := strings.Cut(t.spec.Preview, ",")
	t.spec.Preview = head + "," + base64.StdEncoding.EncodeToString(out.Bytes())
	return nil
}

// checkPreview checks that the preview that the client sent is an image of the type that it names.
func (e *Engine) checkPreview(spec *Spec) error {
	if spec.Preview == "" {
		return nil
	}
	format, data, _ := share.SplitDataURI(spec.Preview) // the spec was validated
	if err := e.Images.Verify(format, bytes.NewReader(data)); err != nil {
		return share.InvalidFields(share.Violation{Field: "spec.preview.data_uri", Description: "is not an image of the type that it names: " + err.Error()})
	}
	return nil
}

// A transformOutput is the spool that a changed image is written to. Each attempt of the transform begins a new one.
type transformOutput struct {
	memory *admission.Memory
	spool  *spool // of the latest attempt
}

func (o *transformOutput) create() io.Writer {
	o.discard()
	o.spool = newSpool(o.memory, -1)
	return o.spool
}

func (o *transformOutput) discard() {
	if o.spool != nil {
		o.spool.discard()
	}
}

// addPreview generates a preview of a file that has arrived completely, or records that none could be generated.
func (t *transfer) addPreview(ctx context.Context, file *share.StoredFile, s *spool) {
	ctx, cancel := context.WithTimeout(ctx, previewTimeout)
	defer cancel()
	uri, err := t.Images.Preview(ctx, t.spec.FileType, s.reader, MaxPreviewChars)
	if err != nil {
		t.Log.LogAttrs(ctx, slog.LevelDebug, "no preview could be generated", slog.Any("error", err))
	}
	file.File.Preview, file.PreviewOmitted = uri, err != nil
}

// previewTimeout is how long an upload waits for its preview, including the wait for its turn, before it continues without.
const previewTimeout = 10 * time.Second
