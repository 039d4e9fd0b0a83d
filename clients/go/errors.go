package lpfileshare

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// errorDomain is the domain of the server's ErrorInfo.
const errorDomain = "lpfileshare"

const reasonPrefix = "ERROR_REASON_"

// An Error is a failed call. It converts to the gRPC status of the call: status.FromError and status.Code work on it. errors.Is
// matches context.Canceled if the caller cancelled (not if the server did), context.DeadlineExceeded and [ErrWatchReset].
type Error struct {
	// Op is the operation that failed, for example "upload cat.jpg".
	Op string
	// Code is the gRPC code.
	Code codes.Code
	// Reason is the named condition. Unspecified if the server did not create the error, for example a lost connection or a deadline.
	Reason pb.ErrorReason
	// Message is the message of the status.
	Message string
	// Metadata has the details that the reason's comment promises, for example "maxBytes".
	Metadata map[string]string
	// Violations are the invalid fields of the request, if any.
	Violations []FieldViolation
	// RetryAfter is the delay that the server asks for before a repeat. 0: the server did not ask for one.
	RetryAfter time.Duration
	// RequestID is the request id of a failed upload. Pass it in UploadOptions to repeat the upload. Empty for other calls.
	RequestID string
	// Attempts is the number of attempts that were made.
	Attempts int
	// NotRepeated is the reason why a repeatable error was not followed by another attempt. Empty if that does not apply.
	NotRepeated string
	// Finished reports whether a failed upload was sent to its end at least once. If so, it may have been published; otherwise it was
	// not.
	Finished bool

	advice string // instead of that for the reason or code; empty: none
	status *status.Status
	cause  error // of the context that ended; nil: the call's status is the cause
}

// A FieldViolation is an invalid field of a request.
type FieldViolation struct {
	// Field is the path of the field, for example "spec.file_type".
	Field string
	// Description is what is wrong with it.
	Description string
}

// What returns what happened, without the advice.
func (e *Error) What() string {
	var b strings.Builder
	b.WriteString(e.Op + ": " + e.Message)
	sep := ": "
	for _, v := range e.Violations {
		if text := v.Field + ": " + v.Description; !strings.Contains(e.Message, text) { // the message may contain it already
			b.WriteString(sep + text)
			sep = "; "
		}
	}
	if e.Reason != pb.ErrorReason_ERROR_REASON_UNSPECIFIED {
		b.WriteString(" [" + ReasonName(e.Reason) + "]")
	} else {
		b.WriteString(" [" + e.Code.String() + "]")
	}
	if e.Attempts > 1 {
		fmt.Fprintf(&b, " (after %d attempts)", e.Attempts)
	}
	if e.NotRepeated != "" {
		b.WriteString("; not repeated: " + e.NotRepeated)
	}
	return b.String()
}

// Advice returns what to do about the error. Empty if there is no advice.
func (e *Error) Advice() string {
	if e.advice != "" {
		return e.advice
	}
	if e.Reason != pb.ErrorReason_ERROR_REASON_UNSPECIFIED {
		return adviceByReason[e.Reason]
	}
	return adviceByCode[e.Code]
}

// Error returns what happened and what to do about it, on one line.
func (e *Error) Error() string {
	if a := e.Advice(); a != "" {
		return e.What() + ". " + a
	}
	return e.What()
}

// GRPCStatus returns the status of the call.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// Is matches context.Canceled, context.DeadlineExceeded and ErrWatchReset. The code CANCELLED of a server, or of a connection that
// broke, is not the caller's cancellation.
func (e *Error) Is(target error) bool {
	return target == context.Canceled && e.Code == codes.Canceled && e.cause != nil ||
		target == context.DeadlineExceeded && e.Code == codes.DeadlineExceeded ||
		target == ErrWatchReset && e.Reason == pb.ErrorReason_ERROR_REASON_WATCH_RESET
}

// Unwrap returns the cause of the context that ended the call, if one did.
func (e *Error) Unwrap() error { return e.cause }

// ReasonName returns a reason as ErrorInfo spells it, for example "FILE_TOO_LARGE".
func ReasonName(r pb.ErrorReason) string { return strings.TrimPrefix(r.String(), reasonPrefix) }

// ErrorReason returns the named condition of an [*Error] or of a plain gRPC status. Unspecified if it has none.
func ErrorReason(err error) pb.ErrorReason {
	st, ok := status.FromError(err)
	if err == nil || !ok {
		return pb.ErrorReason_ERROR_REASON_UNSPECIFIED
	}
	if info := errorInfo(st); info != nil {
		return pb.ErrorReason(pb.ErrorReason_value[reasonPrefix+info.GetReason()])
	}
	return pb.ErrorReason_ERROR_REASON_UNSPECIFIED
}

// RetryDelay returns the delay that the server asks for before the call is repeated. ok reports whether the error carries one: an
// error of the server that carries none must not be repeated.
func RetryDelay(err error) (d time.Duration, ok bool) {
	st, isStatus := status.FromError(err)
	if err == nil || !isStatus {
		return 0, false
	}
	for _, d := range st.Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			return max(r.GetRetryDelay().AsDuration(), 0), true
		}
	}
	return 0, false
}

func errorInfo(st *status.Status) *errdetails.ErrorInfo {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == errorDomain {
			return info
		}
	}
	return nil
}

// newError converts the error of a call to an *Error. An error that is not a status only gets op as a prefix. nil stays nil.
func newError(op string, err error) error {
	if err == nil {
		return nil
	}
	if own, ok := errors.AsType[*ownError](err); ok {
		return fmt.Errorf("%s: %w", op, own.err)
	}
	if _, ok := errors.AsType[*Error](err); ok {
		return err
	}
	st, ok := status.FromError(err)
	var cause error
	if !ok {
		c := status.FromContextError(err)
		if c.Code() == codes.Unknown {
			return fmt.Errorf("%s: %w", op, err)
		}
		st, cause = c, err
	}
	e := &Error{Op: op, Code: st.Code(), Message: st.Message(), Reason: ErrorReason(st.Err()), status: st, cause: cause}
	if info := errorInfo(st); info != nil {
		e.Metadata = info.GetMetadata()
	}
	e.RetryAfter, _ = RetryDelay(st.Err())
	for _, d := range st.Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok {
			for _, v := range bad.GetFieldViolations() {
				e.Violations = append(e.Violations, FieldViolation{v.GetField(), v.GetDescription()})
			}
		}
	}
	return e
}

// contextError is the error of a call whose context ended. The contract says to ignore the status in that case: servers and
// languages report the caller's own cancellation and deadline in different ways.
func contextError(ctx context.Context, op string) error {
	st := status.FromContextError(ctx.Err())
	cause := context.Cause(ctx)
	return &Error{Op: op, Code: st.Code(), Message: cause.Error(), status: st, cause: cause}
}

// An ownError is an error of the caller's own: a source, a sink or a callback failed. It is never repeated, even if it is itself
// the status of another call.
type ownError struct{ err error }

func (e *ownError) Error() string { return e.err.Error() }
func (e *ownError) Unwrap() error { return e.err }

// adviceByReason says what people can do. The comments on ErrorReason in the contract are for programmers.
var adviceByReason = map[pb.ErrorReason]string{
	pb.ErrorReason_ERROR_REASON_STREAM_PROTOCOL_VIOLATION: "This is a bug of the client; report it.",
	pb.ErrorReason_ERROR_REASON_INVALID_FIELD:             "Correct the named fields and retry.",
	pb.ErrorReason_ERROR_REASON_UNSUPPORTED_FILE_TYPE:     "Send a type that the account allows; the capabilities list them.",
	pb.ErrorReason_ERROR_REASON_FILE_TYPE_MISMATCH:        "The first bytes do not match the file type. Check the file, or specify its real type.",
	pb.ErrorReason_ERROR_REASON_FILE_TOO_LARGE:            "Send a smaller file, or set the option that makes images fit. The capabilities list the limits.",
	pb.ErrorReason_ERROR_REASON_PREVIEW_TOO_LARGE:         "Use a smaller preview, or let the server generate one.",
	pb.ErrorReason_ERROR_REASON_FILE_EMPTY:                "Send a file that is not empty.",
	pb.ErrorReason_ERROR_REASON_UPLOAD_INCOMPLETE:         "The source was shorter than its declared size. Check the source.",
	pb.ErrorReason_ERROR_REASON_OFFSET_MISMATCH:           "This is a bug of the client; report it.",
	pb.ErrorReason_ERROR_REASON_SIZE_EXCEEDED:             "The source was longer than its declared size. Check the source, and send the file when it no longer changes.",
	pb.ErrorReason_ERROR_REASON_CHUNK_CHECKSUM_MISMATCH:   "Bytes were damaged in transit. Repeat the upload under the same request id.",
	pb.ErrorReason_ERROR_REASON_FILE_CHECKSUM_MISMATCH:    "The file changed during the upload. Send it when it no longer changes.",
	pb.ErrorReason_ERROR_REASON_MESSAGE_TOO_LARGE:         "Send smaller chunks.",
	pb.ErrorReason_ERROR_REASON_UPLOAD_NOT_FOUND:          "Check the request id. The server keeps it for a limited time, and only for the caller that used it.",
	pb.ErrorReason_ERROR_REASON_UPLOAD_TAKEN_OVER:         "Wait for the newer attempt under the same request id.",
	pb.ErrorReason_ERROR_REASON_UPLOAD_IDLE:               "The upload was too slow. Repeat it under the same request id.",
	pb.ErrorReason_ERROR_REASON_REQUEST_ID_CONFLICT:       "The request id belongs to another file, or to the same one with other settings. Use a new one.",
	pb.ErrorReason_ERROR_REASON_TOO_MANY_UPLOADS:          "The server has too many uploads. Retry later, with fewer uploads at the same time.",
	pb.ErrorReason_ERROR_REASON_SERVER_DRAINING:           "The server is shutting down. Retry later.",
	pb.ErrorReason_ERROR_REASON_TOKEN_INVALID:             "Sign in again.",
	pb.ErrorReason_ERROR_REASON_NOT_ALLOWED:               "Sign in with an identity that may do this, in the account that it belongs to.",
	pb.ErrorReason_ERROR_REASON_LP_UNAVAILABLE:            "LivePerson is not available. Retry later.",
	pb.ErrorReason_ERROR_REASON_LP_IDENTITY_EXPIRED:       "Sign in again.",
	pb.ErrorReason_ERROR_REASON_LP_CREDENTIALS_REJECTED:   "Check the user name, password or keys. If they are configured on the server, ask its operator.",
	pb.ErrorReason_ERROR_REASON_FILE_SHARING_DISABLED:     "Ask an administrator of the account to enable file sharing.",
	pb.ErrorReason_ERROR_REASON_LP_FORBIDDEN:              "LivePerson does not allow this to the identity. Ask an administrator of the account.",
	pb.ErrorReason_ERROR_REASON_CONVERSATION_NOT_FOUND:    "Check the name of the conversation, and that the caller takes part in it.",
	pb.ErrorReason_ERROR_REASON_CONVERSATION_TOO_LARGE:    "Its messages need more memory than the server's operator allows (--list-memory). Other conversations are not affected.",
	pb.ErrorReason_ERROR_REASON_CONVERSATION_CLOSED:       "Create another conversation.",
	pb.ErrorReason_ERROR_REASON_LP_REJECTED_FILE:          "LivePerson rejects this file. Send another one.",
	pb.ErrorReason_ERROR_REASON_LP_RATE_LIMITED:           "LivePerson asks for fewer requests. Retry later.",
	pb.ErrorReason_ERROR_REASON_LP_TIMEOUT:                "LivePerson did not respond in time. Retry later, an upload under the same request id.",
	pb.ErrorReason_ERROR_REASON_LP_PUBLISH_UNCONFIRMED:    "Repeat the upload under the same request id. It is never published twice.",
	pb.ErrorReason_ERROR_REASON_LP_PROTOCOL_ERROR:         "Report this to the server's operator, with the request id.",
	pb.ErrorReason_ERROR_REASON_STORAGE_PROTOCOL_ERROR:    "Report this to the server's operator, with the request id.",
	pb.ErrorReason_ERROR_REASON_STORAGE_URL_REJECTED:      "Retry later. If it persists, the operator should check the server's clock.",
	pb.ErrorReason_ERROR_REASON_STORAGE_DENIED:            "The server's operator must act: the store denies access.",
	pb.ErrorReason_ERROR_REASON_FILE_NOT_FOUND:            "Check the name of the file, and that the caller takes part in its conversation.",
	pb.ErrorReason_ERROR_REASON_STORAGE_UNAVAILABLE:       "The store is not available. Retry later.",
	pb.ErrorReason_ERROR_REASON_STORAGE_RATE_LIMITED:      "The store asks for fewer requests. Retry later.",
	pb.ErrorReason_ERROR_REASON_RANGE_NOT_SATISFIABLE:     "Use an offset inside the file.",
	pb.ErrorReason_ERROR_REASON_STORAGE_FULL:              "The server's operator must act: the store is full.",
	pb.ErrorReason_ERROR_REASON_STORAGE_CORRUPTED:         "Report this to the server's operator, with the request id.",
	pb.ErrorReason_ERROR_REASON_FILE_CHANGED:              "The file was replaced during the download. Download it from the beginning.",
	pb.ErrorReason_ERROR_REASON_STORAGE_TRUNCATED:         "The store ended the transfer early several times. Retry later.",
	pb.ErrorReason_ERROR_REASON_STORAGE_PATH_INVALID:      "Use the name of the file, or its whole storage path, as the server returned it.",
	pb.ErrorReason_ERROR_REASON_IMAGE_INVALID:             "The image is damaged. Open it in an image program, save it again, and send that.",
	pb.ErrorReason_ERROR_REASON_IMAGE_TOO_MANY_PIXELS:     "Scale the image down and send that.",
	pb.ErrorReason_ERROR_REASON_IMAGE_CANNOT_FIT:          "Make the image smaller in an image program and send that.",
	pb.ErrorReason_ERROR_REASON_PAGE_TOKEN_INVALID:        "Start the listing or watch again without a token.",
	pb.ErrorReason_ERROR_REASON_LEDGER_UNAVAILABLE:        "The server cannot reach its ledger. Retry later.",
	pb.ErrorReason_ERROR_REASON_WATCH_TOO_SLOW:            "Read faster, and continue from the last token.",
	pb.ErrorReason_ERROR_REASON_SESSION_LIMIT:             "The server has reached its limit of sessions. Retry later.",
	pb.ErrorReason_ERROR_REASON_TOO_MANY_STREAMS:          "Too many downloads and watches are open. End some, or retry later.",
	pb.ErrorReason_ERROR_REASON_LEDGER_SHARE:              "This caller has begun too many uploads or conversations. Retry when some request ids have expired.",
	pb.ErrorReason_ERROR_REASON_METHOD_NOT_IMPLEMENTED:    "This server does not implement the method. Use a newer server.",
	pb.ErrorReason_ERROR_REASON_IDENTITY_NOT_CONFIGURED:   "Call with a consumer token, or ask the server's operator to configure an identity for the account.",
	pb.ErrorReason_ERROR_REASON_CALLER_NOT_PERMITTED:      "Ask the server's operator for a rule that permits the client certificate to call for this account and identity.",
	pb.ErrorReason_ERROR_REASON_CALLER_NOT_AUTHENTICATED:  "Connect over TLS with a client certificate that the server trusts, send a bearer token of its issuer, or call with a consumer token.",
	pb.ErrorReason_ERROR_REASON_WEBHOOK_NOT_CONFIGURED:    "The operator must register webhooks for the account. Until then, list the files.",
	pb.ErrorReason_ERROR_REASON_INTERNAL:                  "Report this to the server's operator, with the request id.",
	pb.ErrorReason_ERROR_REASON_WATCH_RESET:               "List the files again, and watch from the token of the listing.",
	pb.ErrorReason_ERROR_REASON_UPLOAD_NOT_STORED:         "Repeat the upload under the same request id.",
	pb.ErrorReason_ERROR_REASON_FILE_REJECTED_BY_SCANNER:  "Do not send this file again: the server's malware scanner rejects it.",
	pb.ErrorReason_ERROR_REASON_SCANNER_UNAVAILABLE:       "The server's malware scanner gave no verdict. Repeat the upload later under the same request id.",
	pb.ErrorReason_ERROR_REASON_CALLER_KEYS_UNAVAILABLE:   "The server cannot verify bearer tokens now. Repeat the call later.",
}

// adviceByCode is for errors without an ErrorInfo of the server.
var adviceByCode = map[codes.Code]string{
	codes.Unavailable:      "Check the address, that the server is running, and whether it requires TLS.",
	codes.DeadlineExceeded: "Allow more time. If that does not help, check that the server can be reached.",
	codes.Unimplemented:    "The address is not an lpfileshare server, or an older one.",
	codes.Unauthenticated:  "Sign in.",
	codes.Internal: "A proxy between client and server may have rejected the request. Check its limits, for example on body size " +
		"(nginx: client_max_body_size 0).",
	codes.ResourceExhausted: "gRPC or a proxy rejected the size of a message. Send smaller messages.",
}
