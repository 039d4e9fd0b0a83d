package share

import "time"

// A HostedFile is the content of a "hosted/file" message.
type HostedFile struct {
	// StoragePath is LivePerson's relativePath.
	StoragePath string
	// FileType is the message's fileType. Received messages may have any spelling ("JPEG", "IMG", ...): see FileTypeBySpelling.
	FileType string
	// Caption may be empty.
	Caption string `json:",omitempty"`
	// Preview is a data URI, or empty.
	Preview string `json:",omitempty"`
}

// A FileEvent is a message of a conversation that shows a file.
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

// A Cursor is a position in one or several conversations: by dialog, the last sequence that was read. Sequences start at 0; -1 means
// that the dialog was empty. A dialog that is not in the Cursor was not read.
type Cursor map[string]int64

// Checksums are checksums of a file's bytes.
type Checksums struct {
	// CRC32C is over all bytes (Castagnoli); nil if not known.
	CRC32C *uint32 `json:",omitempty"`
	// SHA256 has 32 bytes; nil if not known.
	SHA256 []byte `json:",omitempty"`
}
