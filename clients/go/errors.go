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

// An Error is a call that failed, told for people. It is also a gRPC status: status.FromError and status.Code see the
// server's own. errors.Is knows context.Canceled and context.DeadlineExceeded in it.
type Error struct {
	// Op is what was being done.
	Op string
	// Code is gRPC's code.
	Code codes.Code
	// Reason is the named condition. Unspecified where the error is not the server's own: a lost connection, a deadline.
	Reason pb.ErrorReason
	// Message is what the server, or gRPC, said.
	Message string
	// Metadata are the details that the reason promises, for example "maxBytes".
	Metadata map[string]string
	// Violations are the fields that are wrong, if that is what is wrong.
	Violations []FieldViolation
	// RetryAfter is how long the server asks to wait before the call is repeated. 0: it does not ask.
	RetryAfter time.Duration
	// RequestID is the request id of a failed upload: give it again to repeat the upload. Empty for other calls.
	RequestID string
	// Attempts is how many times an upload, download or watch was tried. 0 for other calls.
	Attempts int
	// NotRepeated says why a transient error was not answered by another attempt. Empty where that does not apply.
	NotRepeated string
	// Finished says of a failed upload that it was sent to its end at least once: it may have been published. Else it was not.
	Finished bool

	status *status.Status
}

// A FieldViolation is one field of a request that is wrong.
type FieldViolation struct {
	// Field is the path of the field, for example "spec.file_type".
	Field string
	// Description is what is wrong with it.
	Description string
}

// What tells what happened, without what to do about it.
func (e *Error) What() string {
	var b strings.Builder
	b.WriteString(e.Op + ": " + e.Message)
	sep := ": "
	for _, v := range e.Violations {
		if text := v.Field + ": " + v.Description; !strings.Contains(e.Message, text) { // the message may tell it already
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

// Advice tells what to do about it. Empty where nothing is known that helps.
func (e *Error) Advice() string {
	if e.Reason != pb.ErrorReason_ERROR_REASON_UNSPECIFIED {
		return adviceByReason[e.Reason]
	}
	return adviceByCode[e.Code]
}

// Error tells what happened and what to do, on one line.
func (e *Error) Error() string {
	if a := e.Advice(); a != "" {
		return e.What() + ". " + a
	}
	return e.What()
}

// GRPCStatus is the status that the call ended with.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// Is makes a cancelled call equal to context.Canceled, and one out of time to context.DeadlineExceeded.
func (e *Error) Is(target error) bool {
	return target == context.Canceled && e.Code == codes.Canceled ||
		target == context.DeadlineExceeded && e.Code == codes.DeadlineExceeded
}

// ReasonName is a reason as ErrorInfo spells it, for example "FILE_TOO_LARGE".
func ReasonName(r pb.ErrorReason) string { return strings.TrimPrefix(r.String(), reasonPrefix) }

// ErrorReason gives the named condition of an error: of an [*Error], or of a plain gRPC status. Unspecified where there is
// none.
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

// RetryDelay gives the time that the server asks to wait before a call is repeated. ok is false where it does not ask.
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

// newError turns a call's error into an *Error. What is no status is only given its context; nil stays nil.
func newError(op string, err error) error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	st, ok := status.FromError(err)
	if !ok {
		if c := status.FromContextError(err); c.Code() == codes.Unknown {
			return fmt.Errorf("%s: %w", op, err)
		} else {
			st = c
		}
	}
	e = &Error{Op: op, Code: st.Code(), Message: st.Message(), Reason: ErrorReason(st.Err()), status: st}
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

// transient says whether the same call may succeed later, and may be made again: what the server says is passing, and what
// broke on the way to or from the server.
func transient(err error) bool {
	var damaged *damagedError
	if errors.As(err, &damaged) {
		return true
	}
	st, ok := status.FromError(err)
	if err == nil || !ok {
		return false
	}
	reason := ErrorReason(err)
	switch st.Code() {
	case codes.Unavailable:
		return true
	case codes.Aborted:
		return reason != pb.ErrorReason_ERROR_REASON_UPLOAD_TAKEN_OVER && reason != pb.ErrorReason_ERROR_REASON_FILE_CHANGED
	case codes.ResourceExhausted:
		_, asks := RetryDelay(err)
		return asks
	case codes.Internal, codes.Canceled, codes.Unknown:
		// Without a reason these are not the server's own words but a stream that was reset on the way, say by a proxy.
		return reason == pb.ErrorReason_ERROR_REASON_UNSPECIFIED && errorInfo(st) == nil
	default:
		return false
	}
}

// adviceByReason tells people what to do. The contract's comments on ErrorReason are for programmers.
var adviceByReason = map[pb.ErrorReason]string{
	pb.ErrorReason_ERROR_REASON_STREAM_PROTOCOL_VIOLATION: "This is a fault of the client: report it.",
	pb.ErrorReason_ERROR_REASON_INVALID_FIELD:             "Mend what is named and try again.",
	pb.ErrorReason_ERROR_REASON_UNSUPPORTED_FILE_TYPE:     "Send one of the types that the account allows; the capabilities list them.",
	pb.ErrorReason_ERROR_REASON_FILE_TYPE_MISMATCH:        "The file's bytes are not what its name or the given type says: check the file, or give the type that it really has.",
	pb.ErrorReason_ERROR_REASON_FILE_TOO_LARGE:            "Send a smaller file, or have an image made to fit; the capabilities tell the limits.",
	pb.ErrorReason_ERROR_REASON_PREVIEW_TOO_LARGE:         "Give a smaller preview, or have the server make one.",
	pb.ErrorReason_ERROR_REASON_FILE_EMPTY:                "Send a file that has bytes in it.",
	pb.ErrorReason_ERROR_REASON_UPLOAD_INCOMPLETE:         "Send the whole file again under the same request id.",
	pb.ErrorReason_ERROR_REASON_OFFSET_MISMATCH:           "Send the whole file again under the same request id.",
	pb.ErrorReason_ERROR_REASON_SIZE_EXCEEDED:             "The file grew while it was sent: send it again when it is at rest.",
	pb.ErrorReason_ERROR_REASON_CHUNK_CHECKSUM_MISMATCH:   "Bytes were damaged on the way: send the file again under the same request id.",
	pb.ErrorReason_ERROR_REASON_FILE_CHECKSUM_MISMATCH:    "The file changed while it was sent: send it again when it is at rest.",
	pb.ErrorReason_ERROR_REASON_MESSAGE_TOO_LARGE:         "Send smaller chunks.",
	pb.ErrorReason_ERROR_REASON_UPLOAD_NOT_FOUND:          "Check the request id; it is kept for a limited time, and only for who used it.",
	pb.ErrorReason_ERROR_REASON_UPLOAD_TAKEN_OVER:         "A newer attempt under the same request id goes on: wait for that one.",
	pb.ErrorReason_ERROR_REASON_UPLOAD_IDLE:               "Bytes came too slowly: send the file again under the same request id.",
	pb.ErrorReason_ERROR_REASON_REQUEST_ID_CONFLICT:       "The request id belongs to another file: use a new one.",
	pb.ErrorReason_ERROR_REASON_TOO_MANY_UPLOADS:          "Too many uploads at once, of yours or of all: try again in a while.",
	pb.ErrorReason_ERROR_REASON_SERVER_DRAINING:           "The server is going down: try again in a while.",
	pb.ErrorReason_ERROR_REASON_TOKEN_INVALID:             "Sign in again.",
	pb.ErrorReason_ERROR_REASON_NOT_ALLOWED:               "Sign in as somebody who may do this, in the account that it belongs to.",
	pb.ErrorReason_ERROR_REASON_LP_UNAVAILABLE:            "LivePerson has trouble: try again in a while.",
	pb.ErrorReason_ERROR_REASON_LP_IDENTITY_EXPIRED:       "Sign in again.",
	pb.ErrorReason_ERROR_REASON_LP_CREDENTIALS_REJECTED:   "Check the user name, password or keys; if they are the server's own, its operator must.",
	pb.ErrorReason_ERROR_REASON_FILE_SHARING_DISABLED:     "An administrator of the account has to enable file sharing.",
	pb.ErrorReason_ERROR_REASON_LP_FORBIDDEN:              "LivePerson does not allow this to you: ask an administrator of the account.",
	pb.ErrorReason_ERROR_REASON_CONVERSATION_NOT_FOUND:    "Check the conversation's name, and that you take part in it.",
	pb.ErrorReason_ERROR_REASON_CONVERSATION_CLOSED:       "Create another conversation.",
	pb.ErrorReason_ERROR_REASON_LP_REJECTED_FILE:          "LivePerson refuses this file: try another.",
	pb.ErrorReason_ERROR_REASON_LP_RATE_LIMITED:           "LivePerson asks for fewer requests: try again in a while.",
	pb.ErrorReason_ERROR_REASON_LP_TIMEOUT:                "Try again under the same request id.",
	pb.ErrorReason_ERROR_REASON_LP_PUBLISH_UNCONFIRMED:    "Try again under the same request id: that never publishes twice.",
	pb.ErrorReason_ERROR_REASON_LP_PROTOCOL_ERROR:         "Report this to the server's operator, with the request id.",
	pb.ErrorReason_ERROR_REASON_STORAGE_PROTOCOL_ERROR:    "Report this to the server's operator, with the request id.",
	pb.ErrorReason_ERROR_REASON_STORAGE_URL_REJECTED:      "Try again later; if it stays, the operator should check the server's clock.",
	pb.ErrorReason_ERROR_REASON_STORAGE_DENIED:            "The server's operator must act: the store denies access.",
	pb.ErrorReason_ERROR_REASON_FILE_NOT_FOUND:            "Check the file's name, and that you take part in its conversation.",
	pb.ErrorReason_ERROR_REASON_STORAGE_UNAVAILABLE:       "The store has trouble: try again in a while.",
	pb.ErrorReason_ERROR_REASON_STORAGE_RATE_LIMITED:      "The store asks for fewer requests: try again in a while.",
	pb.ErrorReason_ERROR_REASON_RANGE_NOT_SATISFIABLE:     "Ask for an offset within the file.",
	pb.ErrorReason_ERROR_REASON_STORAGE_FULL:              "The server's operator must act: the store is full.",
	pb.ErrorReason_ERROR_REASON_STORAGE_CORRUPTED:         "Report this to the server's operator, with the request id.",
	pb.ErrorReason_ERROR_REASON_FILE_CHANGED:              "The file was replaced meanwhile: download it from the beginning.",
	pb.ErrorReason_ERROR_REASON_STORAGE_TRUNCATED:         "The store broke off again and again: try again in a while.",
	pb.ErrorReason_ERROR_REASON_STORAGE_PATH_INVALID:      "Give the file's name, or its whole storage path, as the server gave it.",
	pb.ErrorReason_ERROR_REASON_IMAGE_INVALID:             "The image is damaged: open it in a program that shows it, save it anew, and send that.",
	pb.ErrorReason_ERROR_REASON_IMAGE_TOO_MANY_PIXELS:     "Scale the image down and send that.",
	pb.ErrorReason_ERROR_REASON_IMAGE_CANNOT_FIT:          "Make the image smaller in a program that shows it, and send that.",
	pb.ErrorReason_ERROR_REASON_PAGE_TOKEN_INVALID:        "Begin the listing or watch anew.",
	pb.ErrorReason_ERROR_REASON_LEDGER_UNAVAILABLE:        "The server has trouble: try again in a while.",
	pb.ErrorReason_ERROR_REASON_WATCH_TOO_SLOW:            "Read faster; watch again from the last token.",
	pb.ErrorReason_ERROR_REASON_SESSION_LIMIT:             "The server is full: try again in a while.",
	pb.ErrorReason_ERROR_REASON_TOO_MANY_STREAMS:          "Too many downloads and watches are open at once: end some, or try again in a while.",
	pb.ErrorReason_ERROR_REASON_METHOD_NOT_IMPLEMENTED:    "This server cannot do that: ask for a newer one.",
	pb.ErrorReason_ERROR_REASON_IDENTITY_NOT_CONFIGURED:   "Call with a token of the consumer's; or the server's operator gives the account an identity.",
	pb.ErrorReason_ERROR_REASON_CALLER_NOT_AUTHENTICATED:  "Connect by TLS with a client certificate that the server trusts, or call with a token of the consumer's.",
	pb.ErrorReason_ERROR_REASON_WEBHOOK_NOT_CONFIGURED:    "The account's operator registers webhooks; until then list the files.",
	pb.ErrorReason_ERROR_REASON_INTERNAL:                  "Report this to the server's operator, with the request id.",
	pb.ErrorReason_ERROR_REASON_WATCH_RESET:               "List the files again and watch from the listing's token.",
	pb.ErrorReason_ERROR_REASON_UPLOAD_NOT_STORED:         "Repeat the upload under the same request id.",
}

// adviceByCode is for errors that are not the server's own.
var adviceByCode = map[codes.Code]string{
	codes.Unavailable:      "Check the address, that the server runs, and whether it wants TLS.",
	codes.DeadlineExceeded: "Allow more time; if that does not help, check that the server can be reached.",
	codes.Unimplemented:    "What answers there is no lpfileshare server, or an older one.",
	codes.Unauthenticated:  "Sign in.",
}
