package lpwire

import (
	"encoding/json"
	"errors"
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

// hasEffect reports whether a request of the step must not take effect twice.
func (s Step) hasEffect() bool { return s == StepPublish || s == StepCreate }

// An API is a way to LivePerson.
type API int

// The APIs. What became of a message can be looked up over the messaging socket only.
const (
	Socket API = iota
	Connector
)

// An Outcome is what an error answer proves about a request with an effect: a message, or a new conversation.
type Outcome int

const (
	// NotDone means that nothing was done: LivePerson checks this before anything else.
	NotDone Outcome = iota
	// Denied means that LivePerson says so. The effect is looked for before that is believed, where it can be.
	Denied
	// Unknown means that the request may have taken effect.
	Unknown
)

// OutcomeOf decides what an error answer proves. number is its [ErrorNumber]. docs/adr/0024-error-answers.md has the reasons.
//
//	answer                        Socket    Connector
//	401                           NotDone   NotDone
//	429                           Unknown   Denied
//	408                           Unknown   Unknown
//	other 4xx, 501                Denied    Denied
//	503, other 5xx, all others    Unknown   Unknown
func OutcomeOf(a API, status, number int) Outcome {
	switch {
	case isIdentity(status, number):
		return NotDone
	case status == 408, status == 429 && a == Socket:
		return Unknown
	case status/100 == 4, status == 501:
		return Denied
	}
	return Unknown
}

func isIdentity(status, number int) bool { return status == 401 || number/100 == 401 }

// EffectFailure is [Failure] for a request with an effect. LPPublishUnconfirmed: it may have taken effect. An error that is Denied:
// LivePerson says that it has not. Any other error: it certainly has not.
func EffectFailure(a API, s Step, status, number int) *share.Error {
	e := Failure(s, status, number)
	switch OutcomeOf(a, status, number) {
	case Denied:
		e.Denied = true
	case Unknown:
		unconfirmed := Unconfirmed(s, e.Cause)
		unconfirmed.RetryAfter = max(e.RetryAfter, UnavailableWait)
		return unconfirmed
	}
	return e
}

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
	case isIdentity(status, number):
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
	if len(body) == 0 || body[0] != '"' { // nearly always
		return false
	}
	var said string
	if json.Unmarshal(body, &said) != nil {
		return false
	}
	said = strings.ToLower(said)
	return !strings.HasPrefix(said, "ok") && slices.ContainsFunc(refusals, func(words string) bool { return strings.Contains(said, words) })
}

// Refused returns the error for an answer that [IsRefusal].
func Refused(s Step) *share.Error {
	e := share.Errorf(share.LPForbidden, "LivePerson does not permit this request for the identity",
		fmt.Errorf("liveperson refused %s by the text of a successful answer", s))
	e.Denied = s.hasEffect()
	return e
}

// Unreadable returns the error for an answer that lacks a required value, named by what.
func Unreadable(what string) *share.Error {
	return share.Errorf(share.LPProtocolError, "LivePerson's answer is malformed: "+what+"; please report it", nil)
}

// Unconfirmed returns the error for a message or a conversation that may or may not exist. cause is the reason for the doubt; its kind
// is dropped, because it would say that nothing was done.
func Unconfirmed(s Step, cause error) *share.Error {
	if share.KindOf(cause) != "" {
		cause = errors.New(cause.Error())
	}
	if s == StepCreate {
		return share.Errorf(share.LPPublishUnconfirmed, "LivePerson did not confirm the conversation, which may or may not have been created", cause)
	}
	return share.Errorf(share.LPPublishUnconfirmed, "LivePerson did not confirm the message, which may or may not have been published; retry with the "+
		"same request_id, which never publishes twice", cause)
}

// ReadTempURL reads the answer to a request for a signed URL. asked is the requested path of a download; empty for an upload.
// It returns LPProtocolError for an answer that leads outside the account's container.
func ReadTempURL(body json.RawMessage, account, asked string) (share.TempURL, error) {
	var answer tempURLAnswer
	if !json.Valid(body) || !readBody(body, &answer) {
		return share.TempURL{}, Unreadable("a signed URL")
	}
	u := share.TempURL{Path: string(answer.path), Sig: string(answer.query.sig), Expires: string(answer.query.expires)}
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
	var answer publishAnswer
	if !json.Valid(body) || !readBody(body, &answer) || !answer.sequence.OK || answer.sequence.N < 0 {
		return 0, false
	}
	return answer.sequence.N, true
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
