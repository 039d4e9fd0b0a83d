package share

import "time"

// A FileType is a file's type in the spelling of LivePerson's wire ("fileType": upper case, no dot).
type FileType string

// The types that may be uploaded. JPEG goes out as "JPG", the one spelling that every LivePerson schema lists.
const (
	JPEG FileType = "JPG"
	PNG  FileType = "PNG"
	GIF  FileType = "GIF"
	PDF  FileType = "PDF"
	TXT  FileType = "TXT"
	DOCX FileType = "DOCX"
	XLSX FileType = "XLSX"
	PPTX FileType = "PPTX"
)

// Documents are the types that are no images.
func Documents() []FileType { return []FileType{PDF, TXT, DOCX, XLSX, PPTX} }

// IsImage reports whether t is one of the image types.
func (t FileType) IsImage() bool { return t == JPEG || t == PNG || t == GIF }

// MediaType is the MIME type of t, for the store's Content-Type.
func (t FileType) MediaType() string {
	switch t {
	case JPEG:
		return "image/jpeg"
	case PNG:
		return "image/png"
	case GIF:
		return "image/gif"
	case PDF:
		return "application/pdf"
	case TXT:
		return "text/plain; charset=utf-8"
	case DOCX:
		return "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
	case XLSX:
		return "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
	case PPTX:
		return "application/vnd.openxmlformats-officedocument.presentationml.presentation"
	}
	return "application/octet-stream"
}

// A HostedFile is the content of a "hosted/file" message.
type HostedFile struct {
	// StoragePath is LivePerson's relativePath.
	StoragePath string
	// FileType is the message's fileType as it stands there; what comes in may be any spelling ("JPEG", "IMG", ...).
	FileType string
	// Caption may be empty.
	Caption string
	// Preview is a data URI, or empty.
	Preview string
}

// A FileEvent is a hosted file as it stands in a conversation.
type FileEvent struct {
	Conversation, Dialog string
	// Sequence numbers the events of a dialog, from 0.
	Sequence int64
	// SenderID is the originatorId.
	SenderID   string
	SenderRole Role
	// Time is the serverTimestamp.
	Time time.Time
	File HostedFile
}

// A Cursor is a place in a conversation, or in several: of each dialog the last sequence that was seen. Sequences begin at 0;
// a dialog that was seen empty stands with -1, and of one that is not in the Cursor nothing was seen.
type Cursor map[string]int64

// Checksums are sums over a file's bytes.
type Checksums struct {
	// CRC32C is over all bytes (Castagnoli); nil: not known.
	CRC32C *uint32 `json:",omitempty"`
	// SHA256 has 32 bytes; nil: not known.
	SHA256 []byte `json:",omitempty"`
}
