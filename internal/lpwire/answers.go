package lpwire

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

const (
	// UnavailableWait is the wait that LivePerson asks for before the first retry.
	UnavailableWait = 5 * time.Second
	// ThrottledWait is the minimum wait after a 429.
	ThrottledWait = time.Second
)

// Step is the kind of a request to LivePerson. It decides what an error answer means. Its text is the error metadata "step".
type Step string

// All steps.
const (
	StepOpen        Step = "open"
	StepUploadURL   Step = "upload_url"
	StepDownloadURL Step = "download_url"
	StepPublish     Step = "publish"
	StepReceipt     Step = "receipt"
	StepCreate      Step = "create_conversation"
	StepClose       Step = "close_conversation"
	StepSubscribe   Step = "subscribe"
)

// Failure returns the error for an answer with a status over 399; number is its [ErrorNumber]. LivePerson's own text is dropped.
// A 401 means that LivePerson no longer accepts the caller's identity.
func Failure(s Step, status, number int) *share.Error {
	cause := fmt.Errorf("liveperson answered %s with %d (%d)", s, status, number)
	e := func(kind share.Kind, message string) *share.Error { return share.Errorf(kind, message, cause) }
	withCode := func(e *share.Error) *share.Error {
		e.Metadata = map[string]string{"lpErrorCode": strconv.Itoa(number), "step": string(s)}
		return e
	}
	switch {
	case status == 401 || number/100 == 401:
		return e(share.LPIdentityExpired, "LivePerson no longer accepts the identity; renew the token or sign in again")
	case status == 403 && s == StepUploadURL:
		return e(share.FileSharingDisabled, "file sharing is disabled for the account; an administrator enables it by setting the site "+
			"property messaging.file.sharing.enabled to true (AccountService.SetFileSharing)")
	case status == 403:
		return e(share.LPForbidden, "LivePerson does not permit this request for the identity")
	case status == 404 && s == StepDownloadURL:
		return e(share.FileNotFound, "LivePerson found no such file for the identity")
	case status == 404 && s != StepUploadURL:
		return e(share.ConversationNotFound, "LivePerson found no such conversation or dialog")
	case status == 429:
		err := e(share.LPRateLimited, "LivePerson's request limit is reached; send fewer requests")
		err.RetryAfter = ThrottledWait
		return err
	case status >= 500 && s == StepPublish && status != 501 && status != 503:
		// These statuses do not say that nothing was done, so the message may have been published. It must not be published again
		// without looking for it first, and must not be reported as rejected.
		err := e(share.LPPublishUnconfirmed, "LivePerson reported an internal error and may or may not have published the message; retry with the "+
			"same request_id")
		err.RetryAfter = UnavailableWait
		return err
	case status >= 500 && status <= 599:
		err := e(share.LPUnavailable, "LivePerson reported an internal error; retry later")
		err.RetryAfter = UnavailableWait
		return err
	case (status == 400 || status == 413) && (s == StepUploadURL || s == StepDownloadURL || s == StepPublish):
		return withCode(e(share.LPRejectedFile, "LivePerson rejected the file; check its size and type against the account's limits"))
	case status == 400 && s == StepCreate:
		return withCode(e(share.InvalidField, "LivePerson rejected the new conversation; check skill, campaign, engagement and context"))
	}
	return withCode(e(share.LPProtocolError, "LivePerson rejected a request for an unknown reason; please report it"))
}

// refusals are the words, in lower case, by which LivePerson refuses a request in the text of an answer with code 200.
var refusals = []string{
	"not allowed", "not permitted", "no permission", "not authori", "unauthori", "forbidden", "denied", "disabled", "not enabled",
}

// IsRefusal reports whether the body of a successful answer is a text that refuses the request, such as "Agent not allowed".
// LivePerson's texts of success are like "OK Agent added successfully".
func IsRefusal(body json.RawMessage) bool {
	var said string
	if len(body) == 0 || body[0] != '"' || json.Unmarshal(body, &said) != nil {
		return false
	}
	said = strings.ToLower(said)
	return !strings.HasPrefix(said, "ok") && slices.ContainsFunc(refusals, func(words string) bool { return strings.Contains(said, words) })
}

// Refused returns the error for an answer that [IsRefusal].
func Refused(s Step) *share.Error {
	return share.Errorf(share.LPForbidden, "LivePerson does not permit this request for the identity",
		fmt.Errorf("liveperson refused %s by the text of a successful answer", s))
}

// Unreadable returns the error for an answer that lacks a required value, named by what.
func Unreadable(what string) *share.Error {
	return share.Errorf(share.LPProtocolError, "LivePerson's answer is malformed: "+what+"; please report it", nil)
}

// Unconfirmed returns the error for a message that may or may not have been published. cause is the reason for the doubt.
func Unconfirmed(cause error) *share.Error {
	return share.Errorf(share.LPPublishUnconfirmed, "LivePerson did not confirm the message, which may or may not have been published; retry with the "+
		"same request_id, which never publishes twice", cause)
}

// ReadTempURL reads the answer to a request for a signed URL. asked is the requested path of a download; empty for an upload.
// It returns LPProtocolError for an answer that leads outside the account's container.
func ReadTempURL(body json.RawMessage, account, asked string) (share.TempURL, error) {
	var answer struct {
		RelativePath Text `json:"relativePath"`
		QueryParams  struct {
			Sig     Text `json:"temp_url_sig"`
			Expires Text `json:"temp_url_expires"`
		} `json:"queryParams"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return share.TempURL{}, Unreadable("a signed URL")
	}
	u := share.TempURL{Path: string(answer.RelativePath), Sig: string(answer.QueryParams.Sig), Expires: string(answer.QueryParams.Expires)}
	seconds, err := strconv.ParseInt(u.Expires, 10, 64)
	if err != nil || seconds <= 0 || !isHex(u.Sig) {
		return share.TempURL{}, Unreadable("the signature of a URL")
	}
	// File content is sent to this path, so it must stay in the account's own container.
	if share.CheckStoragePath(account, u.Path) != nil {
		return share.TempURL{}, Unreadable("the path of a signed URL")
	}
	if asked != "" && asked != u.Path {
		return share.TempURL{}, Unreadable("a signed URL of another file")
	}
	u.ExpireTime = time.Unix(seconds, 0)
	return u, nil
}

// isHex reports whether sig has the form of a Swift signature. Anything else must not get into a URL.
func isHex(sig string) bool {
	for _, c := range []byte(sig) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return len(sig) >= 32 && len(sig) <= 128
}

// ReadSequence reads the sequence in the answer to ms.PublishEvent, and reports whether there is one.
func ReadSequence(body json.RawMessage) (int64, bool) {
	var answer struct {
		Sequence Number `json:"sequence"`
	}
	if json.Unmarshal(body, &answer) != nil || !answer.Sequence.OK || answer.Sequence.N < 0 {
		return 0, false
	}
	return answer.Sequence.N, true
}

// ReadConversationID reads the id in the answer to cm.ConsumerRequestConversation, and reports whether there is one.
func ReadConversationID(body json.RawMessage) (string, bool) {
	var answer struct {
		ID Text `json:"conversationId"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.ID == "" || len(answer.ID) > 64 {
		return "", false
	}
	return string(answer.ID), true
}
