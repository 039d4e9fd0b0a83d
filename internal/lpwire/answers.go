package lpwire

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

const (
	// UnavailableWait is what LivePerson asks callers to wait before the first repeat.
	UnavailableWait = 5 * time.Second
	// ThrottledWait is the least wait after a 429.
	ThrottledWait = time.Second
)

// A Step is what was asked of LivePerson. Where it fails, that decides what the failure means. Its text is the metadata "step".
type Step string

// The steps.
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

// Failure is the condition that an answer with a status over 399 stands for; number is its ErrorNumber. LivePerson's own words go
// nowhere. Of a 401 it says that the caller's own identity is over.
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
		return e(share.FileSharingDisabled, "file sharing is switched off for the account; an administrator switches it on by setting the site "+
			"property messaging.file.sharing.enabled to true (AccountService.SetFileSharing)")
	case status == 403:
		return e(share.LPForbidden, "LivePerson forbids this to the identity")
	case status == 404 && s == StepDownloadURL:
		return e(share.FileNotFound, "LivePerson has no such file for this identity")
	case status == 404 && s != StepUploadURL:
		return e(share.ConversationNotFound, "LivePerson knows no such conversation or dialog")
	case status == 429:
		err := e(share.LPRateLimited, "LivePerson asks for fewer requests")
		err.RetryAfter = ThrottledWait
		return err
	case status >= 500 && s == StepPublish && status != 501 && status != 503:
		// These say that something broke or took too long somewhere behind LivePerson's door, not that nothing was done, or they say
		// nothing that is known; and what may have been published must never be published again unseen, or be called refused.
		err := e(share.LPPublishUnconfirmed, "LivePerson reported trouble of its own, and may or may not have published the message; repeat under the "+
			"same request_id")
		err.RetryAfter = UnavailableWait
		return err
	case status >= 500 && status <= 599:
		err := e(share.LPUnavailable, "LivePerson reports trouble of its own")
		err.RetryAfter = UnavailableWait
		return err
	case (status == 400 || status == 413) && (s == StepUploadURL || s == StepDownloadURL || s == StepPublish):
		return withCode(e(share.LPRejectedFile, "LivePerson refuses the file; check its size and type against the account's limits"))
	case status == 400 && s == StepCreate:
		return withCode(e(share.InvalidField, "LivePerson refuses the conversation as it was asked for; check skill, campaign, engagement and context"))
	}
	return withCode(e(share.LPProtocolError, "LivePerson refused a request for no reason that is known here; please report it"))
}

// Unreadable says that an answer of LivePerson does not hold what it must.
func Unreadable(what string) *share.Error {
	return share.Errorf(share.LPProtocolError, "LivePerson's answer cannot be read: "+what+"; please report it", nil)
}

// Unconfirmed says that a message may have been published, and why that is not known.
func Unconfirmed(cause error) *share.Error {
	return share.Errorf(share.LPPublishUnconfirmed, "LivePerson did not confirm the message, which may or may not have been published; repeat under the "+
		"same request_id: that never publishes twice", cause)
}

// ReadTempURL reads the answer to either request for a signed URL. asked is the path that a download was asked for; empty for an
// upload.
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
	// What LivePerson says is where bytes are sent to: it must not lead out of the account's own container.
	if share.CheckStoragePath(account, u.Path) != nil {
		return share.TempURL{}, Unreadable("the path of a signed URL")
	}
	if asked != "" && asked != u.Path {
		return share.TempURL{}, Unreadable("a signed URL of another file")
	}
	u.ExpireTime = time.Unix(seconds, 0)
	return u, nil
}

// isHex reports whether a signature is what Swift's are, so that nothing else gets into a URL.
func isHex(sig string) bool {
	for _, c := range []byte(sig) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return len(sig) >= 32 && len(sig) <= 128
}

// ReadSequence reads the answer to ms.PublishEvent; false where it does not tell the message's sequence.
func ReadSequence(body json.RawMessage) (int64, bool) {
	var answer struct {
		Sequence Number `json:"sequence"`
	}
	if json.Unmarshal(body, &answer) != nil || !answer.Sequence.OK || answer.Sequence.N < 0 {
		return 0, false
	}
	return answer.Sequence.N, true
}

// ReadConversationID reads the answer to cm.ConsumerRequestConversation; false where it has none.
func ReadConversationID(body json.RawMessage) (string, bool) {
	var answer struct {
		ID Text `json:"conversationId"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.ID == "" || len(answer.ID) > 64 {
		return "", false
	}
	return string(answer.ID), true
}
