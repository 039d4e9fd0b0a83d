package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// maxID is the longest id that a request may have.
const maxID = 64

// noID is the reqId of an answer to a frame whose id could not be read: an answer must have one.
const noID = "0"

// A request is one frame from a client.
type request struct {
	id       string
	typ      string // without the ".ams." or "." that agents may put before it
	body     json.RawMessage
	headers  json.RawMessage
	metadata json.RawMessage
}

// parseRequest reads a frame. On failure the request has at least an id to answer to.
func parseRequest(data []byte) (request, error) {
	req := request{id: noID}
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
		req.id = string(id)
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
	req.typ = strings.TrimPrefix(strings.TrimPrefix(frame.Type, ".ams."), ".")
	req.body, req.headers, req.metadata = given(frame.Body), given(frame.Headers), given(frame.Metadata)
	return req, nil
}

// given returns raw, or nil if it is JSON's null: node-agent-sdk writes null for what it leaves out.
func given(raw json.RawMessage) json.RawMessage {
	if string(bytes.TrimSpace(raw)) == "null" {
		return nil
	}
	return raw
}

// decode reads the request's body into v. A missing body counts as an empty object.
func (r *request) decode(v any) error {
	if r.body == nil {
		return nil
	}
	return json.Unmarshal(r.body, v)
}

// A reply is the answer to a request, and what follows it.
type reply struct {
	code int
	typ  string
	body any
	then [][]byte // frames for the same socket, straight after the answer
	shut int      // close code, if the answer ends the socket
}

// Types of answers. LivePerson prints several names for most of them, and no client may depend on one.
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

// say is a string answer.
func say(code int, text string) reply { return reply{code: code, typ: typeString, body: text} }

// Error codes: the status, then two digits. LivePerson has published 40001, and 40102 to 40105 of the Connector API; the rest
// are ours.
const (
	errMissing       = 40001 // a mandatory member is missing
	errInvalid       = 40002 // a member is wrong
	errUnknownType   = 40003 // no such request
	errClosed        = 40004 // the conversation is closed
	errNotStored     = 40005 // nothing was uploaded to the path
	errNotYours      = 40006 // the path was given to somebody else, or to nobody
	errNoIdentity    = 40101 // no InitConnection yet
	errToken         = 40102 // the token is no good
	errAppJWT        = 40102 // Connector API: the AppJWT is no good
	errConsumerJWS   = 40103 // the ConsumerJWS is no good
	errNoConsumerJWS = 40104 // no X-LP-ON-BEHALF
	errNoAppJWT      = 40105 // no Authorization
	errSharingOff    = 40301 // file sharing is switched off
	errForeign       = 40302 // a conversation of other people
	errForeignFile   = 40303 // a file of another account
	errRole          = 40304 // not for this kind of participant
	errNoConv        = 40401 // no such conversation or dialog
	errNoFile        = 40402 // no such file
	errNoSub         = 40403 // no such subscription
	errNoRing        = 40404 // no such ring
	errNoPerson      = 40405 // no such consumer or agent
	errVersion       = 40406 // no such version of the endpoint
	errFileTooLarge  = 41301
	errPreviewTooBig = 41302
	errBodyTooLarge  = 41303
	errThrottled     = 42901
	errStorage       = 50201 // the store does not answer
)

// title is the title of an error answer of that status.
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

// refuse is an error answer.
func refuse(errorCode int, format string, args ...any) reply {
	return refuseWith(errorCode/100, errorCode, fmt.Sprintf(format, args...))
}

func refuseWith(code, errorCode int, details string) reply {
	return reply{code: code, typ: typeError, body: errorBody{Title: title(code), Details: details, ErrorCode: errorCode}}
}

// encode writes the answer to the request of that id as a frame.
func (a reply) encode(id string) []byte {
	return frame(struct {
		Kind  string `json:"kind"`
		ReqID string `json:"reqId"`
		Code  int    `json:"code"`
		Body  any    `json:"body"`
		Type  string `json:"type"`
	}{"resp", id, a.code, a.body, a.typ})
}

// notification writes one notification as a frame.
func notification(typ string, body any) []byte {
	return frame(struct {
		Kind string `json:"kind"`
		Body any    `json:"body"`
		Type string `json:"type"`
	}{"notification", body, typ})
}

// frame writes v as JSON. What is written is the sandbox's own, or was checked when it came in, so it can always be written.
func frame(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic("sandbox: unwritable frame: " + err.Error())
	}
	return data
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

// A list is an array, or one bare element that stands for an array of one.
type list[T any] []T

// UnmarshalJSON takes both forms; null is an empty list.
func (l *list[T]) UnmarshalJSON(data []byte) error {
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

// number reads whole numbers, written as numbers or as strings of decimal digits.
func (t jsonText) number() (int64, bool) {
	n, err := strconv.ParseInt(string(t), 10, 64)
	return n, err == nil
}
