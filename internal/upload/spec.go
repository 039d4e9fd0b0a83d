package upload

import (
	"encoding/json"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// MaxPreviewChars is the length that a preview's data URI must stay under, in characters. LivePerson says "under 30 KB".
const MaxPreviewChars = 30 * 1024

// A Spec is a validated request to upload a file.
type Spec struct {
	Account, Conversation, Dialog string
	DisplayName, Caption          string
	FileType                      share.FileType
	// Size is the declared size in bytes; -1: not declared.
	Size int64
	// Declared are the declared checksums of the uploaded bytes.
	Declared share.Checksums
	// WantSHA256 asks for the SHA-256 of the file: it was requested, or declared.
	WantSHA256 bool
	// Preview is a data URI; empty: none. GeneratePreview asks for one.
	Preview         string
	GeneratePreview bool
	// Publish says whether the file is published once it is stored.
	Publish bool
	// RequestID is a UUID in its canonical spelling. CreatedID reports whether the server created it, because the request had none.
	RequestID string
	CreatedID bool
	// ValidateOnly asks for checks without effects.
	ValidateOnly bool
	// Fit and Strip are what may be done to an image.
	Fit, Strip bool
	// Fingerprint identifies what RequestID stands for.
	Fingerprint []byte
	// Limits are those of the account when the call began.
	Limits Limits
}

// Limits are an account's limits and rules for uploads.
type Limits struct {
	// MaxInputBytes is the maximum size of the uploaded file. MaxFileBytes is that of the stored file: it is smaller only for an
	// image that may be fitted or is stripped.
	MaxInputBytes, MaxFileBytes int64
	// MaxImagePixels is the maximum number of pixels of an image.
	MaxImagePixels int64
	// CheckETag compares the store's ETag with the MD5 of the stored bytes.
	CheckETag bool
}

// transforms reports whether the file may be changed before it is stored. It is then received completely first.
func (s *Spec) transforms() bool {
	return s.Strip || s.Fit && (s.Size < 0 || s.Size > s.Limits.MaxFileBytes)
}

// memory returns the bytes of memory that the upload needs at most: for the file, and for a changed copy of it.
func (s *Spec) memory() int64 {
	n := s.Size
	if n < 0 {
		n = s.Limits.MaxInputBytes
	}
	if s.transforms() {
		n = wholeBlocks(n) + s.Limits.MaxFileBytes
	}
	return n
}

// largestRecord returns the size in bytes that the record of the upload may have.
func (s *Spec) largestRecord() int64 {
	// rest is all but the caption and the preview. Its largest parts are the display name and the message of a failure, in which each
	// character may be escaped, and the path.
	const rest = 6 << 10
	preview := len(s.Preview)
	if s.GeneratePreview || s.Strip && s.Preview != "" {
		preview = MaxPreviewChars
	}
	caption, _ := json.Marshal(s.Caption) // a string can always be encoded
	return int64(rest + len(caption) + preview)
}

// A Source is the bytes of one upload. Its methods are called from one goroutine at a time.
type Source interface {
	// Next returns the next bytes, or io.EOF after the client has finished. It may block until the call ends, and ends at the
	// latest then. The slice of buffers is valid until the next call of Next.
	Next() (Chunk, error)
	// Finish returns the checksums that the client declared at the end. It is called after io.EOF.
	Finish() share.Checksums
	// Accept reports to the client that the upload was accepted. It is called once, before Next, and not at all for a replay.
	Accept() error
	// QueuedBytes is the number of bytes that the source holds already, outside the memory budget.
	QueuedBytes() int64
}

// A Chunk is a run of bytes of a file.
type Chunk struct {
	// Data are the bytes, in order. The engine frees each buffer.
	Data []Buffer
	// CRC32C is the CRC-32C of the bytes; nil: the source has not computed it.
	CRC32C *uint32
	// Whole reports that the chunk is the whole file, in one buffer without free space.
	Whole bool
}

// size returns the number of bytes.
func (c Chunk) size() int64 {
	n := 0
	for _, b := range c.Data {
		n += len(b.ReadOnlyData())
	}
	return int64(n)
}

// copy copies the bytes into memory of exactly their size, and frees the buffers.
func (c *Chunk) copy() {
	all := make(ownBuffer, 0, c.size())
	for _, b := range c.Data {
		all = append(all, b.ReadOnlyData()...)
		b.Free()
	}
	c.Data = []Buffer{all}
}

// An ownBuffer is a Buffer without a pool.
type ownBuffer []byte

func (b ownBuffer) ReadOnlyData() []byte { return b }

func (ownBuffer) Free() {}

// A Buffer is memory with bytes of a file, which nothing changes before it is freed. Buffers in a pool that are not larger than a page have
// sizes that are powers of two.
type Buffer interface {
	ReadOnlyData() []byte
	// Free returns the memory to its pool, if it has one. Nothing may read the bytes any more.
	Free()
}

// A Result is a finished upload.
type Result struct {
	// File is the stored file; nil for ValidateOnly.
	File *share.StoredFile
	// Replayed reports that an earlier attempt with the same request id stored it.
	Replayed bool
	// TookOver reports that an earlier attempt with the same request id had begun and not succeeded. It is set for uploads that succeed.
	TookOver bool
}
