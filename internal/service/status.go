package service

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// ErrorDomain is the domain of every ErrorInfo. It is the name of the project and never changes: clients compare it
// (docs/adr/0018-contract-v1.md).
const ErrorDomain = "lpfileshare"

// A condition is a row of the error table: how a named condition is reported to a gRPC client.
type condition struct {
	code codes.Code
	// retryAfter is the delay in RetryInfo unless the error asks for a longer one. 0: the status has no RetryInfo, whatever the
	// error asks for, so this table alone decides which conditions clients retry.
	retryAfter time.Duration
	// precondition is the type of the PreconditionFailure violation, for FAILED_PRECONDITION. subject is its subject if the error has
	// none.
	precondition, subject string
	// resource is the type of the ResourceInfo, for a resource that does not exist or is in the wrong state.
	resource string
}

// conditions is the error table of the contract. The comments of ErrorReason say the same in words.
var conditions = map[share.Kind]condition{
	share.StreamProtocolViolation: {code: codes.InvalidArgument},
	share.InvalidField:            {code: codes.InvalidArgument},
	share.UnsupportedFileType:     {code: codes.InvalidArgument},
	share.FileTypeMismatch:        {code: codes.InvalidArgument},
	share.FileTooLarge:            {code: codes.InvalidArgument},
	share.PreviewTooLarge:         {code: codes.InvalidArgument},
	share.FileEmpty:               {code: codes.InvalidArgument},
	share.UploadIncomplete:        {code: codes.InvalidArgument},
	share.FileChecksumMismatch:    {code: codes.InvalidArgument},
	share.LPRejectedFile:          {code: codes.InvalidArgument},
	share.StoragePathInvalid:      {code: codes.InvalidArgument},
	share.ImageInvalid:            {code: codes.InvalidArgument},
	share.ImageTooManyPixels:      {code: codes.InvalidArgument},
	share.ImageCannotFit:          {code: codes.InvalidArgument},
	share.PageTokenInvalid:        {code: codes.InvalidArgument},
	share.FileRejectedByScanner:   {code: codes.InvalidArgument},

	share.OffsetMismatch:      {code: codes.OutOfRange},
	share.SizeExceeded:        {code: codes.OutOfRange},
	share.RangeNotSatisfiable: {code: codes.OutOfRange},
	share.WatchReset:          {code: codes.OutOfRange},

	share.ChunkChecksumMismatch: {code: codes.Aborted, retryAfter: 100 * time.Millisecond},
	share.UploadTakenOver:       {code: codes.Aborted},
	share.UploadIdle:            {code: codes.Aborted, retryAfter: time.Second},
	share.FileChanged:           {code: codes.Aborted},

	share.UploadNotFound:       {code: codes.NotFound, resource: "lpfileshare.v1.Upload"},
	share.ConversationNotFound: {code: codes.NotFound, resource: "lpfileshare.v1.Conversation"},
	share.FileNotFound:         {code: codes.NotFound, resource: "lpfileshare.v1.File"},

	share.RequestIDConflict: {code: codes.AlreadyExists},

	share.TokenInvalid:           {code: codes.Unauthenticated},
	share.LPIdentityExpired:      {code: codes.Unauthenticated},
	share.CallerNotAuthenticated: {code: codes.Unauthenticated},
	share.NotAllowed:             {code: codes.PermissionDenied},
	share.LPForbidden:            {code: codes.PermissionDenied},
	share.CallerNotPermitted:     {code: codes.PermissionDenied},

	share.IdentityNotConfigured: {code: codes.FailedPrecondition, precondition: "CREDENTIALS"},
	share.LPCredentialsRejected: {code: codes.FailedPrecondition, precondition: "CREDENTIALS"},
	share.StorageDenied:         {code: codes.FailedPrecondition, precondition: "STORAGE_ACCESS"},
	share.FileSharingDisabled:   {code: codes.FailedPrecondition, precondition: "SITE_PROPERTY", subject: "messaging.file.sharing.enabled"},
	share.WebhookNotConfigured:  {code: codes.FailedPrecondition, precondition: "WEBHOOK", subject: "ms.MessagingEventNotification.ContentEvent"},
	share.UploadNotStored:       {code: codes.FailedPrecondition, precondition: "UPLOAD_STATE", resource: "lpfileshare.v1.Upload"},
	share.ConversationClosed:    {code: codes.FailedPrecondition, precondition: "CONVERSATION_STATE", resource: "lpfileshare.v1.Conversation"},

	share.MessageTooLarge:      {code: codes.ResourceExhausted},
	share.ConversationTooLarge: {code: codes.ResourceExhausted},
	share.TooManyUploads:       {code: codes.ResourceExhausted, retryAfter: admission.MinRetryAfter},
	share.LPRateLimited:        {code: codes.ResourceExhausted, retryAfter: time.Second},
	share.StorageRateLimited:   {code: codes.ResourceExhausted, retryAfter: time.Second},
	share.StorageFull:          {code: codes.ResourceExhausted},
	share.WatchTooSlow:         {code: codes.ResourceExhausted, retryAfter: time.Second},
	share.SessionLimit:         {code: codes.ResourceExhausted, retryAfter: 5 * time.Second},
	share.TooManyStreams:       {code: codes.ResourceExhausted, retryAfter: 5 * time.Second},
	share.LedgerShare:          {code: codes.ResourceExhausted, retryAfter: time.Minute},

	share.ServerDraining:       {code: codes.Unavailable, retryAfter: time.Second},
	share.LPUnavailable:        {code: codes.Unavailable, retryAfter: 5 * time.Second},
	share.LPTimeout:            {code: codes.Unavailable, retryAfter: time.Second},
	share.LPPublishUnconfirmed: {code: codes.Unavailable, retryAfter: 5 * time.Second},
	share.StorageURLRejected:   {code: codes.Unavailable, retryAfter: 5 * time.Second},
	share.StorageUnavailable:   {code: codes.Unavailable, retryAfter: time.Second},
	share.StorageTruncated:     {code: codes.Unavailable, retryAfter: time.Second},
	share.LedgerUnavailable:    {code: codes.Unavailable, retryAfter: time.Second},
	share.ScannerUnavailable:   {code: codes.Unavailable, retryAfter: 5 * time.Second},

	share.CallerKeysUnavailable: {code: codes.Unavailable, retryAfter: 5 * time.Second},

	share.StorageCorrupted: {code: codes.DataLoss},

	share.LPProtocolError:      {code: codes.Internal},
	share.StorageProtocolError: {code: codes.Internal},
	share.Internal:             {code: codes.Internal},
	share.MethodNotImplemented: {code: codes.Unimplemented},
}

// statusOf turns the error of a handler into the status that the client sees. The second result is for the log: it has causes that
// the client must not see.
func statusOf(ctx context.Context, err error) (*status.Status, error) {
	// The client's own cancellation or deadline comes before any error that it caused.
	if cause := ctx.Err(); cause != nil {
		return status.FromContextError(cause), err
	}
	if e, ok := errors.AsType[*share.Error](err); ok {
		return statusOfKind(e), e
	}
	if errors.Is(err, context.DeadlineExceeded) { // the server's own timeout
		return statusOfKind(share.Errorf(share.LPTimeout, "the call took too long; retry it", nil)), err
	}
	if s, ok := status.FromError(err); ok && s.Code() == codes.Unimplemented {
		return statusOfKind(share.Errorf(share.MethodNotImplemented, "this server does not implement the method", nil)), err
	}
	return statusOfKind(share.Errorf(share.Internal, "internal error", nil)), err
}

// StatusOf returns the status of a condition of a call that was rejected before it got here.
func StatusOf(e *share.Error) *status.Status { return statusOfKind(e) }

func statusOfKind(e *share.Error) *status.Status {
	row, ok := conditions[e.Kind]
	if !ok {
		e, row = share.Errorf(share.Internal, "internal error", e), conditions[share.Internal]
	}
	message := share.Clip(e.Message, maxMessage)
	info := &errdetails.ErrorInfo{Reason: string(e.Kind), Domain: ErrorDomain, Metadata: clippedMetadata(e.Metadata)}
	details := []protoadapt.MessageV1{info}
	if len(e.Violations) > 0 {
		bad := &errdetails.BadRequest{}
		for i, v := range e.Violations {
			if i == maxViolations {
				break
			}
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
				Field: share.Clip(v.Field, 100), Description: share.Clip(v.Description, 160),
			})
		}
		details = append(details, bad)
	}
	if row.retryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(max(row.retryAfter, e.RetryAfter))})
	}
	subject := e.Metadata["subject"]
	if subject == "" {
		subject = row.subject
	}
	if row.resource != "" {
		details = append(details, &errdetails.ResourceInfo{ResourceType: row.resource, ResourceName: share.Clip(subject, 300)})
	}
	if row.precondition != "" {
		details = append(details, &errdetails.PreconditionFailure{Violations: []*errdetails.PreconditionFailure_Violation{
			{Type: row.precondition, Subject: share.Clip(subject, 300), Description: message},
		}})
	}
	s, err := status.New(row.code, message).WithDetails(details...)
	if err != nil { // only an OK code causes it, and the table has none
		return status.New(codes.Internal, "internal error")
	}
	return s
}

// reasonOf returns the reason of a status of the contract, or "" if it has none.
func reasonOf(s *status.Status) string {
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// limitOf returns the name of the server's limit that ended a call with a status and its cause: the reason, and after a slash the limit
// that the metadata names. It returns "" if no limit did, or one of LivePerson.
func limitOf(s *status.Status, cause error) string {
	e, ok := errors.AsType[*share.Error](cause)
	if !ok || reasonOf(s) != string(e.Kind) { // such as a call that the client cancelled
		return ""
	}
	switch e.Kind {
	case share.LPRateLimited, share.StorageRateLimited, share.StorageFull:
		return ""
	case share.UploadIdle, share.LedgerUnavailable, share.ScannerUnavailable:
	default:
		if s.Code() != codes.ResourceExhausted {
			return ""
		}
	}
	if limit := e.Metadata["limit"]; limit != "" {
		return string(e.Kind) + "/" + limit
	}
	return string(e.Kind)
}

// clippedMetadata bounds what an error repeats of a request. Fields are validated before errors name them; this is for what a
// validation forgets.
func clippedMetadata(m map[string]string) map[string]string {
	clipped := maps.Clone(m)
	for k, v := range clipped {
		clipped[k] = share.Clip(v, maxMetadata)
	}
	return clipped
}

// Limits of a status. It is sent in a header, with its message twice, and peers stop at 8 KiB. Within these it stays under 3 KiB.
const (
	maxMessage    = 400
	maxMetadata   = 300
	maxViolations = 6
)

// errorReason returns the contract's value of a condition.
func errorReason(k share.Kind) lpfilesharev1.ErrorReason {
	return lpfilesharev1.ErrorReason(lpfilesharev1.ErrorReason_value["ERROR_REASON_"+string(k)])
}

// violations collects the invalid fields of a request, so that all of them are reported at once.
type violations []share.Violation

func (v *violations) add(field, format string, args ...any) {
	*v = append(*v, share.Violation{Field: field, Description: fmt.Sprintf(format, args...)})
}

// err returns InvalidField with all violations, or nil.
func (v violations) err() error {
	if len(v) == 0 {
		return nil
	}
	return share.InvalidFields(v...)
}
