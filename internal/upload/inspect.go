package upload

import (
	"context"

	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// An inspector checks a file as its bytes arrive. To add a check, add an inspector to transfer.inspect. A check that waits for another
// program, such as a malware scanner, would keep the client waiting: see scanning.go.
type inspector interface {
	// Inspect gets the next bytes, in order. more reports that others follow. An error rejects the upload at once.
	Inspect(p []byte, more bool) error
	// Verdict is called once, when all bytes have arrived. An error rejects the upload: the store has not got the last byte yet.
	Verdict(ctx context.Context, file *spool) error
}

// An inspection passes the bytes of one file to its inspectors.
type inspection struct {
	spec       *Spec
	turns      *admission.Transfer
	sums       *Sums
	image      *imageInspector
	inspectors []inspector
	off        int64
	parts      [][]byte             // of the latest block
	usual      [partsOfBlock][]byte // which parts uses, as long as it is large enough
	hash       func()               // adds them to sums
}

// inspect returns the inspection of the uploaded bytes.
func (t *transfer) inspect(md5 bool) *inspection {
	in := &inspection{
		spec:  &t.spec,
		turns: t.turns(),
		sums:  NewSums(SumKinds{MD5: md5, SHA256: t.spec.WantSHA256}),
		image: &imageInspector{images: t.Images, spec: &t.spec},
	}
	in.parts = in.usual[:0]
	in.inspectors = []inspector{
		&typeInspector{declared: t.spec.FileType},
		&officeInspector{declared: t.spec.FileType},
		in.image,
	}
	in.hash = func() {
		for _, p := range in.parts {
			in.sums.hash(p)
		}
	}
	return in
}

// advance inspects what has arrived since, and returns a channel that is closed when there is more. The reader computes the CRC-32C.
func (in *inspection) advance(file *spool) (more <-chan struct{}, err error) {
	for {
		parts, end, next := file.next(in.parts[:0], in.off, blockBytes, false)
		in.parts = parts
		if len(parts) == 0 && !end {
			return next, nil
		}
		if end {
			return nil, in.inspect(nil, false)
		}
		for _, p := range parts {
			if err := in.inspect(p, true); err != nil {
				return nil, err
			}
			in.off += int64(len(p))
		}
		if in.sums.hashes() {
			in.turns.Compute(in.hash)
		}
	}
}

func (in *inspection) inspect(p []byte, more bool) error {
	for _, i := range in.inspectors {
		if err := i.Inspect(p, more); err != nil {
			return err
		}
	}
	return nil
}

// finish checks the whole file. late are the checksums that the client declared at the end.
func (in *inspection) finish(ctx context.Context, file *spool, late share.Checksums) error {
	if _, err := in.advance(file); err != nil {
		return err
	}
	if sum := Differ(in.spec.Declared, late); sum != "" {
		return share.InvalidFields(share.Violation{Field: "finish.checksums." + sum, Description: "differs from the one in spec"})
	}
	switch {
	case in.off == 0:
		return share.Reject(share.FileEmpty, "the file is empty")
	case in.spec.Size >= 0 && in.off < in.spec.Size:
		return share.Reject(share.UploadIncomplete, "finish arrived after %d of %d bytes; nothing was stored", in.off, in.spec.Size).
			With("receivedBytes", share.Itoa(in.off))
	}
	if len(late.SHA256) > 0 { // declared only now, but the whole file is still here
		if err := in.sums.addSHA256(file.reader()); err != nil {
			return err
		}
	}
	have := in.sums.Checksums()
	for _, want := range []share.Checksums{in.spec.Declared, late} {
		if sum := Differ(want, have); sum != "" {
			return share.Reject(share.FileChecksumMismatch, "the %s of the received bytes is not the declared one; nothing was stored", sum)
		}
	}
	for _, i := range in.inspectors {
		if err := i.Verdict(ctx, file); err != nil {
			return err
		}
	}
	return nil
}

// A typeInspector compares the first bytes with the declared type.
type typeInspector struct {
	declared share.FileType
	head     []byte
	done     bool
}

func (i *typeInspector) Inspect(p []byte, more bool) error {
	if i.done {
		return nil
	}
	info, _ := i.declared.Info()
	enough := info.ShownBytes()
	i.head = append(i.head, p[:min(len(p), enough-len(i.head))]...)
	if more && len(i.head) < enough || len(i.head) == 0 {
		return nil
	}
	i.done = true
	found, ok := info.Shown(i.head, more)
	if ok {
		return nil
	}
	what := "those of type " + found
	if foreign, ok := share.FindForeignFormat(i.head); found == "" && ok {
		found, what = foreign.Format, "those of "+foreign.String()
	} else if found == "" {
		found, what = "unknown", "not those of any accepted type"
	}
	return share.Reject(share.FileTypeMismatch, "the file was declared as %s, but its first bytes are %s", i.declared, what).
		With("detectedType", found)
}

func (i *typeInspector) Verdict(context.Context, *spool) error { return nil }

// An imageInspector reads the header of an image.
type imageInspector struct {
	images Images
	spec   *Spec
	info   share.ImageInfo // after the verdict
}

func (i *imageInspector) Inspect([]byte, bool) error { return nil }

func (i *imageInspector) Verdict(_ context.Context, file *spool) error {
	if !i.spec.FileType.IsImage() {
		return nil
	}
	info, err := i.images.Inspect(i.spec.FileType, file.reader())
	if err != nil {
		return err
	}
	pixels := int64(info.Width) * int64(info.Height)
	if limit := i.spec.Limits.MaxImagePixels; pixels > limit {
		return share.Reject(share.ImageTooManyPixels, "the image has %d by %d pixels, the account allows %d in all", info.Width, info.Height, limit).
			With("maxPixels", share.Itoa(limit), "actualPixels", share.Itoa(pixels))
	}
	i.info = info
	return nil
}
