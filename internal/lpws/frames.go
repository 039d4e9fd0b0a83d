package lpws

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
)

// frame is an answer or a notification from LivePerson.
type frame struct {
	Kind, ReqID, Type lpwire.Text
	Code              lpwire.Code
	Body              json.RawMessage

	connection    uint64                      // id of the transport that received it
	conversations *lpwire.ConversationChanges // the body of a large frame with conversations, which is decoded already
}

// errFrame is the error for a malformed frame. It has nothing of the frame, which may contain secrets.
var errFrame = errors.New("the frame is not a JSON object")

// parseFrame decodes a frame. The result does not refer to data.
func parseFrame(data []byte) (frame, error) {
	f, ok := lpwire.ReadFrame(data)
	if !ok {
		return frame{}, errFrame
	}
	return frame{Kind: f.Kind, ReqID: f.ReqID, Code: f.Code, Type: f.Type, Body: bytes.Clone(f.Body)}, nil
}

// isAnswer reports whether f answers a request. Some answers have no kind.
func (f *frame) isAnswer() bool { return f.Kind == "resp" || f.Kind == "" && f.ReqID != "" }

// name returns the type without the prefix, which differs between dialects: "ExConversationChangeNotification".
func (f *frame) name() string {
	s := string(f.Type)
	return s[strings.LastIndexByte(s, '.')+1:]
}

// failed reports whether an answer means that its request failed.
func (f *frame) failed() bool { return f.Code > 399 || lpwire.IsRefusal(f.Body) }

// errorCode returns LivePerson's error code of an answer that failed.
func (f *frame) errorCode() int { return lpwire.ErrorNumber(int(f.Code), f.Body) }
