package share

import "time"

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
