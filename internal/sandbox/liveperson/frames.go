package liveperson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/jsonhttp"
)

// maxID is the maximum length of a request's id.
const maxID = 64

// noID is the reqId of an answer to a frame without a readable id, because an answer must have one.
const noID = "0"

// A Request is one request frame from a client.
type Request struct {
	ID       string
	Type     string // without the prefix ".ams." or "." that agents may use
	Body     json.RawMessage
	headers  json.RawMessage
	metadata json.RawMessage
}

// ParseRequest parses a frame. If it fails the request still has an ID to answer with.
func ParseRequest(data []byte) (Request, error) {
	req := Request{ID: noID}
	var frame struct {
		Kind     string          `json:"kind"`
		ID       json.RawMessage `json:"id"`
		Type     string          `json:"type"`
		Body     json.RawMessage `json:"body"`
		Headers  json.RawMessage `json:"headers"`
		Metadata json.RawMessage `json:"metadata"`
	}
	err := json.Unmarshal(data, &frame)
	var id jsonText
	if len(frame.ID) > 0 && json.Unmarshal(frame.ID, &id) == nil && id != "" && len(id) <= maxID {
		req.ID = string(id)
	}
	switch {
	case err != nil:
		return req, fmt.Errorf("the frame is not a JSON object of the right shape")
	case frame.Kind != "" && frame.Kind != "req":
		return req, fmt.Errorf("kind is not req")
	case id == "" || len(id) > maxID:
		return req, fmt.Errorf("id must be 1 to %d characters", maxID)
	case frame.Type == "":
		return req, fmt.Errorf("type is missing")
	}
	req.Type = strings.TrimPrefix(strings.TrimPrefix(frame.Type, ".ams."), ".")
	req.Body, req.headers, req.metadata = given(frame.Body), given(frame.Headers), given(frame.Metadata)
	return req, nil
}

// given returns raw, or nil if it is null: node-agent-sdk sends null for missing members.
func given(raw json.RawMessage) json.RawMessage {
	if string(bytes.TrimSpace(raw)) == "null" {
		return nil
	}
	return raw
}

// decode decodes the request's body into v. A missing body counts as an empty object.
func (r *Request) decode(v any) error {
	if r.Body == nil {
		return nil
	}
	return json.Unmarshal(r.Body, v)
}

// A Reply is the answer to a request.
type Reply struct {
	Code int
	Type string
	Body any
	then [][]byte // frames for the same socket, directly after the answer
	shut int      // close code, if the answer ends the socket
}

// Types of answers. LivePerson's documentation has several names for most of them, so clients cannot depend on one.
const (
	typeString        = ".ReqBody$StringResp"
	typeError         = ".ReqBody$ErrorResp"
	typeClock         = "GetClockResponse"
	typeConversation  = "cm.RequestConversationResponse"
	typeSubscribeConv = "cqm.SubscribeExConversationsResponse"
	typeSubscribe     = "GenericSubscribeResponse"
	typeQuery         = ".ams.ms.QueryMessages$Response"
	typePublish       = "ms.PublishEventResponse"
	typeURL           = "ms.BaseGenerateURLResponse"
	typeProfile       = ".ams.userprofile.GetUserProfile$Response"
)

// text returns an answer whose body is a string.
func text(code int, message string) Reply { return Reply{Code: code, Type: typeString, Body: message} }

// Error codes: the status, then two digits. LivePerson has published 40001 and, for the Connector API, 40102 to 40105; the others
// are the sandbox's own.
const (
	CodeMissing         = 40001 // a mandatory member is missing
	CodeInvalid         = 40002 // a member is invalid
	CodeUnknownType     = 40003 // no such request
	CodeClosed          = 40004 // the conversation is closed
	CodeNotStored       = 40005 // nothing was uploaded to the path
	CodeNotYours        = 40006 // the upload URL for the path was not issued to the caller
	CodeNoIdentity      = 40101 // no InitConnection yet
	CodeToken           = 40102 // the token is invalid
	CodeSharingOff      = 40301 // file sharing is off
	CodeForeign         = 40302 // the caller is not a participant of the conversation
	CodeForeignFile     = 40303 // the file belongs to another account
	CodeRole            = 40304 // not for this kind of participant
	CodeNoConversation  = 40401 // no such conversation or dialog
	CodeNoFile          = 40402 // no such file
	CodeNoSubscription  = 40403 // no such subscription
	CodeNoRing          = 40404 // no such ring
	CodeNoPerson        = 40405 // no such consumer or agent
	CodeVersion         = 40406 // no such version of the endpoint
	CodeFileTooLarge    = 41301 // the file exceeds Options.MaxFileSize
	CodePreviewTooLarge = 41302 // the preview exceeds maxPreview
	CodeBodyTooLarge    = 41303 // the request exceeds MaxFrame
	CodeStorage         = 50201 // the store does not answer
)

// title returns the title of error answers with a status.
func title(code int) string {
	switch code {
	case 400:
		return "Bad request"
	case 401:
		return "Unauthorized"
	case 403:
		return "Forbidden"
	case 404:
		return "Not found"
	case 413:
		return "Payload too large"
	case 429:
		return "Too many requests"
	case 502:
		return "Unable to access resource"
	default:
		return "Error " + strconv.Itoa(code)
	}
}

type errorBody struct {
	Title     string `json:"title"`
	Details   string `json:"details"`
	ErrorCode int    `json:"errorCode"`
}

// Refuse returns an error answer.
func Refuse(errorCode int, format string, args ...any) Reply {
	return RefuseWith(errorCode/100, errorCode, fmt.Sprintf(format, args...))
}

// RefuseWith returns an error answer with a code that is not derived from errorCode.
func RefuseWith(code, errorCode int, details string) Reply {
	return Reply{Code: code, Type: typeError, Body: errorBody{Title: title(code), Details: details, ErrorCode: errorCode}}
}

// RefuseTitled returns an error answer with a title from LivePerson's documentation.
func RefuseTitled(errorCode int, title, details string) Reply {
	return Reply{Code: errorCode / 100, Type: typeError, Body: errorBody{Title: title, Details: details, ErrorCode: errorCode}}
}

// encoded is JSON. Package json would read and copy it again for each object around it, which costs more than all else for long
// dialogs.
type encoded []byte

// encode returns the frame that answers the request with that id.
func (a Reply) encode(id string) []byte {
	body, isEncoded := a.Body.(encoded)
	if isEncoded {
		a.Body = nil
	}
	frame := jsonhttp.Encode(struct {
		Kind  string `json:"kind"`
		ReqID string `json:"reqId"`
		Code  int    `json:"code"`
		Body  any    `json:"body"`
		Type  string `json:"type"`
	}{"resp", id, a.Code, a.Body, a.Type})
	if isEncoded {
		return insertBody(frame, body)
	}
	return frame
}

// notification returns the frame of a notification.
func notification(typ string, body any) []byte {
	inner, isEncoded := body.(encoded)
	if isEncoded {
		body = nil
	}
	frame := jsonhttp.Encode(struct {
		Kind string `json:"kind"`
		Body any    `json:"body"`
		Type string `json:"type"`
	}{"notification", body, typ})
	if isEncoded {
		return insertBody(frame, inner)
	}
	return frame
}

// insertBody sets the body of a frame whose body is null. In strings of the frame the quotes are escaped, so the body is found.
func insertBody(frame []byte, body encoded) []byte {
	before, after, _ := bytes.Cut(frame, []byte(`"body":null`))
	return slices.Concat(before, []byte(`"body":`), body, after)
}

// changes is the body of most notifications.
type changes struct {
	SubscriptionID string   `json:"subscriptionId,omitempty"`
	Changes        []change `json:"changes"`
}

type change struct {
	Type   string `json:"type"`
	Result any    `json:"result"`
}

// A List decodes from an array, or from one element that stands for an array of one.
type List[T any] []T

// UnmarshalJSON accepts both forms; null is an empty list.
func (l *List[T]) UnmarshalJSON(data []byte) error {
	data = bytes.TrimSpace(data)
	if string(data) == "null" {
		return nil
	}
	if data[0] == '[' {
		return json.Unmarshal(data, (*[]T)(l))
	}
	var one T
	if err := json.Unmarshal(data, &one); err != nil {
		return err
	}
	*l = []T{one}
	return nil
}

// jsonText is a string that the client may have sent as a number.
type jsonText string

// UnmarshalJSON accepts a string or a number; null leaves the text empty.
func (t *jsonText) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil
	}
	if data[0] == '"' {
		return json.Unmarshal(data, (*string)(t))
	}
	var n json.Number
	if err := json.Unmarshal(data, &n); err != nil {
		return err
	}
	*t = jsonText(n)
	return nil
}

// number parses an integer, written as a number or as a string.
func (t jsonText) number() (int64, bool) {
	n, err := strconv.ParseInt(string(t), 10, 64)
	return n, err == nil
}
