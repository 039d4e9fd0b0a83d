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
	// Omitted is the number of bytes of the preview and the caption that File lacks. 0: File is complete.
	Omitted int `json:",omitempty"`
	// CaptionOmitted reports whether File lacks its caption.
	CaptionOmitted bool `json:",omitempty"`
}

const (
	// keptCaption is the length up to which Brief keeps a caption, in bytes.
	keptCaption = 512
	// eventOverhead is the approximate size of a FileEvent without its strings, in bytes.
	eventOverhead = 256
)

// Brief returns the event without its preview, and without its caption if that is long. What remains has a bounded size.
func (e FileEvent) Brief() FileEvent {
	e.Omitted += len(e.File.Preview)
	e.File.Preview = ""
	if len(e.File.Caption) > keptCaption {
		e.Omitted += len(e.File.Caption)
		e.File.Caption, e.CaptionOmitted = "", true
	}
	return e
}

// Size is the approximate size of the event in memory, in bytes.
func (e *FileEvent) Size() int64 {
	return int64(eventOverhead + len(e.File.StoragePath) + len(e.File.FileType) + len(e.File.Caption) + len(e.File.Preview) + len(e.SenderID))
}

// DialogFiles are the files of one dialog, by sequence. They are shared: a caller must not change them.
type DialogFiles struct {
	Conversation, Dialog string
	Files                []FileEvent
}

// A FileList is what a session can read of the files of one or all conversations.
type FileList struct {
	// Dialogs are in order: by conversation (oldest first), the main dialog first.
	Dialogs []DialogFiles
	// Cursor is the position after the files. It has every dialog that was read.
	Cursor Cursor
	// Unreadable are the dialogs that are left out.
	Unreadable []UnreadableDialog
}

// An UnreadableDialog is a dialog that is left out of a list or a watch, because it could not be read. As an error it does not end
// a watch.
type UnreadableDialog struct {
	Conversation, Dialog string
	// Last is the last sequence that is known to exist; -1 if none is.
	Last int64
	// Err is why it could not be read.
	Err *Error
}

// Error returns the reason, for logs.
func (u *UnreadableDialog) Error() string {
	return "dialog " + u.Dialog + " cannot be read: " + u.Err.Error()
}

// Unwrap returns the reason.
func (u *UnreadableDialog) Unwrap() error { return u.Err }

// OfDialog reports whether an error of reading a dialog concerns this dialog only, so that the others can still be read.
func OfDialog(err error) bool {
	return Is(err, ConversationNotFound, ConversationTooLarge, LPForbidden, LPTimeout, LPProtocolError)
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
