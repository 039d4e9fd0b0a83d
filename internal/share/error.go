package share

import (
	"errors"
	"fmt"
	"time"
)

// A Kind is the reason of a failure, in the terms of the contract. Each Kind is the name of a value of lpfileshare.v1.ErrorReason
// without its prefix; package service maps it to a gRPC code in one table.
type Kind string

// The kinds. The contract documents with ErrorReason what each means and what a caller should do.
const (
	StreamProtocolViolation Kind = "STREAM_PROTOCOL_VIOLATION"
	InvalidField            Kind = "INVALID_FIELD"
	UnsupportedFileType     Kind = "UNSUPPORTED_FILE_TYPE"
	FileTypeMismatch        Kind = "FILE_TYPE_MISMATCH"
	FileTooLarge            Kind = "FILE_TOO_LARGE"
	PreviewTooLarge         Kind = "PREVIEW_TOO_LARGE"
	FileEmpty               Kind = "FILE_EMPTY"
	UploadIncomplete        Kind = "UPLOAD_INCOMPLETE"
	OffsetMismatch          Kind = "OFFSET_MISMATCH"
	SizeExceeded            Kind = "SIZE_EXCEEDED"
	ChunkChecksumMismatch   Kind = "CHUNK_CHECKSUM_MISMATCH"
	FileChecksumMismatch    Kind = "FILE_CHECKSUM_MISMATCH"
	MessageTooLarge         Kind = "MESSAGE_TOO_LARGE"
	UploadNotFound          Kind = "UPLOAD_NOT_FOUND"
	UploadTakenOver         Kind = "UPLOAD_TAKEN_OVER"
	UploadIdle              Kind = "UPLOAD_IDLE"
	RequestIDConflict       Kind = "REQUEST_ID_CONFLICT"
	TooManyUploads          Kind = "TOO_MANY_UPLOADS"
	ServerDraining          Kind = "SERVER_DRAINING"
	TokenInvalid            Kind = "TOKEN_INVALID"
	NotAllowed              Kind = "NOT_ALLOWED"
	LPUnavailable           Kind = "LP_UNAVAILABLE"
	LPIdentityExpired       Kind = "LP_IDENTITY_EXPIRED"
	LPCredentialsRejected   Kind = "LP_CREDENTIALS_REJECTED"
	FileSharingDisabled     Kind = "FILE_SHARING_DISABLED"
	LPForbidden             Kind = "LP_FORBIDDEN"
	ConversationNotFound    Kind = "CONVERSATION_NOT_FOUND"
	ConversationClosed      Kind = "CONVERSATION_CLOSED"
	LPRejectedFile          Kind = "LP_REJECTED_FILE"
	LPRateLimited           Kind = "LP_RATE_LIMITED"
	LPTimeout               Kind = "LP_TIMEOUT"
	LPPublishUnconfirmed    Kind = "LP_PUBLISH_UNCONFIRMED"
	LPProtocolError         Kind = "LP_PROTOCOL_ERROR"
	StorageProtocolError    Kind = "STORAGE_PROTOCOL_ERROR"
	StorageURLRejected      Kind = "STORAGE_URL_REJECTED"
	StorageDenied           Kind = "STORAGE_DENIED"
	FileNotFound            Kind = "FILE_NOT_FOUND"
	StorageUnavailable      Kind = "STORAGE_UNAVAILABLE"
	StorageRateLimited      Kind = "STORAGE_RATE_LIMITED"
	RangeNotSatisfiable     Kind = "RANGE_NOT_SATISFIABLE"
	StorageFull             Kind = "STORAGE_FULL"
	StorageCorrupted        Kind = "STORAGE_CORRUPTED"
	FileChanged             Kind = "FILE_CHANGED"
	StorageTruncated        Kind = "STORAGE_TRUNCATED"
	StoragePathInvalid      Kind = "STORAGE_PATH_INVALID"
	ImageInvalid            Kind = "IMAGE_INVALID"
	ImageTooManyPixels      Kind = "IMAGE_TOO_MANY_PIXELS"
	ImageCannotFit          Kind = "IMAGE_CANNOT_FIT"
	PageTokenInvalid        Kind = "PAGE_TOKEN_INVALID"
	LedgerUnavailable       Kind = "LEDGER_UNAVAILABLE"
	WatchTooSlow            Kind = "WATCH_TOO_SLOW"
	SessionLimit            Kind = "SESSION_LIMIT"
	TooManyStreams          Kind = "TOO_MANY_STREAMS"
	MethodNotImplemented    Kind = "METHOD_NOT_IMPLEMENTED"
	WebhookNotConfigured    Kind = "WEBHOOK_NOT_CONFIGURED"
	Internal                Kind = "INTERNAL"
	IdentityNotConfigured   Kind = "IDENTITY_NOT_CONFIGURED"
	CallerNotAuthenticated  Kind = "CALLER_NOT_AUTHENTICATED"
	CallerNotPermitted      Kind = "CALLER_NOT_PERMITTED"
	WatchReset              Kind = "WATCH_RESET"
	UploadNotStored         Kind = "UPLOAD_NOT_STORED"
	LedgerShare             Kind = "LEDGER_SHARE"
	ConversationTooLarge    Kind = "CONVERSATION_TOO_LARGE"
	FileRejectedByScanner   Kind = "FILE_REJECTED_BY_SCANNER"
	ScannerUnavailable      Kind = "SCANNER_UNAVAILABLE"
	CallerKeysUnavailable   Kind = "CALLER_KEYS_UNAVAILABLE"
)

// An Error is a failure with a Kind. Adapters create them; only package service turns them into a gRPC status.
type Error struct {
	Kind Kind
	// Message is for the caller: what happened, then what to do. It must not contain a signed URL, a token, a socket URL or a peer's
	// own text.
	Message string
	// RetryAfter is the minimum wait before another attempt, if the peer set one. 0 means the default of the Kind.
	RetryAfter time.Duration
	// Metadata becomes ErrorInfo.metadata. Keys are in lowerCamelCase and part of the contract.
	Metadata map[string]string
	// Denied means that LivePerson's answer says that a message was not published, or a conversation not created.
	Denied bool
	// Violations are the invalid fields of the request, for InvalidField and similar kinds.
	Violations []Violation
	// Cause is for the log only. It must not contain secrets either.
	Cause error
}

// A Violation is an invalid field of a request.
type Violation struct {
	// Field is the path of the field in the request message, with the proto's names: "spec.file_type".
	Field string
	// Description says what is wrong with the field.
	Description string
}

// Error returns the kind, the message and the cause, for logs.
func (e *Error) Error() string {
	s := string(e.Kind)
	if e.Message != "" {
		s += ": " + e.Message
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Errorf returns an Error with a message and a cause, which may be nil. It does not format.
func Errorf(kind Kind, message string, cause error) *Error {
	return &Error{Kind: kind, Message: message, Cause: cause}
}

// KindOf returns the Kind of err, or "" if it has none.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return ""
}

// Is reports whether err has one of the kinds.
func Is(err error, kinds ...Kind) bool {
	k := KindOf(err)
	for _, want := range kinds {
		if k != "" && k == want {
			return true
		}
	}
	return false
}

// Reject returns an Error with a formatted message.
func Reject(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

// With adds metadata to e and returns it: key, value, key, value.
func (e *Error) With(pairs ...string) *Error {
	if e.Metadata == nil {
		e.Metadata = make(map[string]string, len(pairs)/2)
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		e.Metadata[pairs[i]] = pairs[i+1]
	}
	return e
}

// InvalidFields returns InvalidField with all violations.
func InvalidFields(violations ...Violation) *Error {
	message := violations[0].Field + ": " + violations[0].Description
	if more := len(violations) - 1; more > 0 {
		message += fmt.Sprintf(" (and %d more)", more)
	}
	return &Error{Kind: InvalidField, Message: message, Violations: violations}
}
