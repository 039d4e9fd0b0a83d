package share

import (
	"errors"
	"time"
)

// An UploadState says how far an upload got.
type UploadState string

// The states of an upload, in their order. Failed may follow any but Published.
const (
	Receiving  UploadState = "RECEIVING"
	Stored     UploadState = "STORED"
	Publishing UploadState = "PUBLISHING"
	Published  UploadState = "PUBLISHED"
	Failed     UploadState = "FAILED"
)

// A Record is what is remembered of a request id: of an upload, or of a conversation that was created. It is written by
// compare-and-set, so that of two attempts under one id only one goes on.
type Record struct {
	// Attempt names the attempt that the record belongs to now.
	Attempt string
	// AttemptTime is when that attempt began.
	AttemptTime time.Time
	// Expires is when the record may be forgotten.
	Expires time.Time
	// Fingerprint sums up the request without its request id: the same id with another is a conflict.
	Fingerprint []byte
	// DeclaredSize and Declared are compared only where both attempts have them, hence not in Fingerprint.
	DeclaredSize *int64    `json:",omitempty"`
	Declared     Checksums `json:"Declared"`

	State UploadState `json:",omitempty"`
	// File is what was stored; set from Stored on.
	File *StoredFile `json:",omitempty"`
	// PublishDeadline is the instant after which this attempt no longer sends the message; set from Publishing on.
	PublishDeadline time.Time
	// Failure and FailureMessage say why, for Failed.
	Failure        Kind   `json:",omitempty"`
	FailureMessage string `json:",omitempty"`

	// ConversationID is the conversation that was created, in the record of a CreateConversation.
	ConversationID string `json:",omitempty"`
	// Known are the conversations that were there before, in the record of a CreateConversation whose session does not see all.
	// Such a record is Publishing from before LivePerson is asked until it is known what came of it.
	Known []string `json:",omitempty"`
}

// A StoredFile is the uploader's own view of a file.
type StoredFile struct {
	Conversation, Dialog string
	DisplayName          string
	File                 HostedFile
	Size                 int64
	ETag                 string
	Checksums            Checksums
	// Sequence of the message; nil: not published.
	Sequence *int64 `json:",omitempty"`
	// Time of the message, or of the store's answer where there is no message.
	Time           time.Time
	SenderID       string
	SenderRole     Role
	PreviewOmitted bool `json:",omitempty"`
	// Width and Height are the stored image's, in pixels; 0: not an image, or not known.
	Width, Height int `json:",omitempty"`
	// Image is what was done to the image before it was stored; nil: nothing. Size, ETag and Checksums are of what is stored.
	Image *ImageChange `json:",omitempty"`
}

// ErrStale is what a ledger answers when the record was changed by somebody else.
var ErrStale = errors.New("the record was changed by another attempt")
