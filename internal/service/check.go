package service

import (
	"crypto/sha256"
	"io"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A checker follows the bytes of an upload: it counts, sums and sniffs them as they come.
type checker struct {
	s       *Server
	spec    uploadSpec
	spool   *spool
	sums    *sums
	off     int64
	sniffed bool
	image   share.ImageInfo // of an image, once finish has succeeded
}

func newChecker(s *Server, spec uploadSpec, sp *spool, kinds sumKinds) *checker {
	return &checker{s: s, spec: spec, spool: sp, sums: newSums(kinds)}
}

// advance takes in what has come since, and returns a channel that is closed when there is more.
func (c *checker) advance() (more <-chan struct{}, err error) {
	for {
		p, end, next := c.spool.at(c.off, false)
		if len(p) == 0 {
			if end || c.off >= share.SniffBytes {
				err = c.sniff(!end)
			}
			return next, err
		}
		_, _ = c.sums.Write(p)
		c.off += int64(len(p))
	}
}

// sniff compares the file's first bytes with its declared type, once. cut tells that more bytes will follow.
func (c *checker) sniff(cut bool) error {
	if c.sniffed || c.off == 0 {
		return nil
	}
	c.sniffed = true
	head, _, _ := c.spool.at(0, false)
	if len(head) > share.SniffBytes {
		head, cut = head[:share.SniffBytes], true
	}
	name := share.SniffFormat(head, cut)
	if declared, _ := c.spec.fileType.Info(); name == declared.DetectedFormat() {
		return nil
	}
	if name == "" {
		name = "unknown"
	}
	return with(refuse(share.FileTypeMismatch, "the file was declared as %s, and its first bytes are those of type %s", c.spec.fileType, name),
		"detectedType", name)
}

// finish checks the whole file. The spool is sealed.
func (c *checker) finish(f *lpfilesharev1.UploadFinish) error {
	if _, err := c.advance(); err != nil {
		return err
	}
	var v violations
	checkChecksums(&v, "finish.checksums", f.GetChecksums())
	late := checksumsFromProto(f.GetChecksums())
	if sum := disagree(c.spec.declared, late); sum != "" {
		v.add("finish.checksums."+sum, "is not the one that spec gave")
	}
	if err := v.err(); err != nil {
		return err
	}
	switch {
	case c.off == 0:
		return refuse(share.FileEmpty, "the file has no bytes")
	case c.spec.size >= 0 && c.off < c.spec.size:
		return with(refuse(share.UploadIncomplete, "finish came after %d of %d bytes; nothing was stored", c.off, c.spec.size),
			"receivedBytes", itoa(c.off))
	}
	if len(late.SHA256) > 0 && c.sums.sha256 == nil { // declared only now: the whole file is still here
		c.sums.sha256 = sha256.New()
		_, _ = io.Copy(c.sums.sha256, c.spool.reader())
	}
	have := c.sums.checksums()
	for _, want := range []share.Checksums{c.spec.declared, late} {
		if sum := disagree(want, have); sum != "" {
			return refuse(share.FileChecksumMismatch, "the %s of the received bytes is not the declared one; nothing was stored", sum)
		}
	}
	if c.spec.fileType.IsImage() {
		info, err := c.s.ports.Images.Inspect(c.spec.fileType, c.spool.reader())
		if err != nil {
			return err
		}
		c.image = info
		return checkPixels(info, c.spec.maxPixels)
	}
	return nil
}

// checkPixels holds an image against its account's limit; the Previewer has held it against that of all.
func checkPixels(image share.ImageInfo, most int64) error {
	has := int64(image.Width) * int64(image.Height)
	if has <= most {
		return nil
	}
	return with(refuse(share.ImageTooManyPixels, "the image has %d by %d pixels; the account allows %d", image.Width, image.Height, most),
		"maxPixels", itoa(most), "actualPixels", itoa(has))
}
