package share

import (
	"errors"
	"time"
)

// An UploadState is the state of an upload.
type UploadState string

// The states of an upload, in order. Failed may follow any state except Published.
const (
	Receiving  UploadState = "RECEIVING"
	Stored     UploadState = "STORED"
	Publishing UploadState = "PUBLISHING"
	Published  UploadState = "PUBLISHED"
	Failed     UploadState = "FAILED"
)

// A Record is the ledger's record of an upload's request id. It is written by compare-and-set, so that only one of two attempts under
// one id continues.
type Record struct {
	// Owner is the caller whose share of the ledger the record uses. The ledger does not store it.
	Owner Principal `json:"-"`
	// Largest is the size in bytes that the record may grow to while Attempt works on it, for which the ledger reserves space. 0: unknown.
	// The ledger does not store it.
	Largest int64 `json:"-"`
	// Attempt identifies the attempt that owns the record; empty once the upload is published.
	Attempt string `json:",omitempty"`
	// AttemptTime is when that attempt started.
	AttemptTime time.Time `json:",omitzero"`
	// Expires is when the record may be deleted.
	Expires time.Time
	// Fingerprint is a hash of the request without its request id. The same id with another fingerprint is a conflict.
	Fingerprint []byte `json:",omitempty"`
	// DeclaredSize and Declared are compared only if both attempts have them, so they are not part of Fingerprint. Once there is a
	// File, its size and checksums are compared instead.
	DeclaredSize *int64    `json:",omitempty"`
	Declared     Checksums `json:",omitzero"`

	State UploadState `json:",omitempty"`
	// File is the stored file; set from Stored on. Its preview and caption are kept only until the file is published.
	File *StoredFile `json:",omitempty"`
	// UploadKey is the key of another record, which has the file. It is set only in the record that finds a stored file by its path.
	UploadKey string `json:",omitempty"`
	// PublishDeadline is the time after which this attempt does not send the message. It is set while the state is Publishing, and
	// after that while the state is Stored because LivePerson denied the message.
	PublishDeadline time.Time `json:",omitzero"`
	// Failure and FailureMessage are the reason of Failed.
	Failure        Kind   `json:",omitempty"`
	FailureMessage string `json:",omitempty"`
}

// A CreationRecord is the ledger's record of the request id of a CreateConversation. It is written by compare-and-set, so that only one
// of two calls under one id creates a conversation. Its JSON names are those of the time when uploads and conversations shared one
// record.
type CreationRecord struct {
	// Owner is the caller whose share of the ledger the record uses. The ledger does not store it.
	Owner Principal `json:"-"`
	// AttemptTime is when the latest call started.
	AttemptTime time.Time
	// Expires is when the record may be deleted.
	Expires time.Time
	// Fingerprint is a hash of the request without its request id. The same id with another fingerprint is a conflict.
	Fingerprint []byte
	// Deadline is when the latest call ends. Until then, and for the settle time after it, its conversation may appear.
	Deadline time.Time `json:"PublishDeadline"`
	// State is Publishing from before the request to LivePerson until its result is known. Otherwise it is empty.
	State UploadState `json:",omitempty"`
	// ConversationID is the created conversation; empty until there is one.
	ConversationID string `json:",omitempty"`
	// Denied means, if State is Publishing, that LivePerson answered that it created no conversation, and none was found.
	Denied bool `json:",omitempty"`
	// Known are the conversations that existed before, if State is Publishing.
	Known []string `json:",omitempty"`
	// Claimant is the key of the request id whose conversation ConversationID is. It is set only in the record that finds that key by
	// the conversation.
	Claimant string `json:",omitempty"`
}

// A StoredFile is the uploader's own view of a file.
type StoredFile struct {
	Conversation, Dialog string
	DisplayName          string
	File                 HostedFile
	Size                 int64
	ETag                 string
	Checksums            Checksums
	// Sequence is that of the message; nil if the file is not published.
	Sequence *int64 `json:",omitempty"`
	// Time is that of the message, or of the store's response if there is no message.
	Time           time.Time
	SenderID       string
	SenderRole     Role
	PreviewOmitted bool `json:",omitempty"`
	// Width and Height are the stored image's, in pixels; 0: not an image, or not known.
	Width, Height int `json:",omitempty"`
	// Image describes how the image was changed before it was stored; nil if unchanged. Size, ETag and Checksums are those of the
	// stored file.
	Image *ImageChange `json:",omitempty"`
}

// ErrIncomplete is the cause of FileNotFound if the messages that LivePerson has were not read to the last one. It is also the error of a
// list of conversations that may lack some.
var ErrIncomplete = errors.New("not all could be read")

// ErrStale is the ledger's error when another attempt has changed the record.
var ErrStale = errors.New("the record was changed by another attempt")
