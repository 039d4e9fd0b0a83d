package lpws

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
)

// A frame is what came from LivePerson: an answer or a notification.
type frame struct {
	Kind  lpwire.Text     `json:"kind"`
	ReqID lpwire.Text     `json:"reqId"`
	Code  lpwire.Code     `json:"code"`
	Type  lpwire.Text     `json:"type"`
	Body  json.RawMessage `json:"body"`
}

// errFrame says that a frame cannot be read. What stood in it stays out of logs: it may hold anything.
var errFrame = errors.New("a frame that is no JSON object")

// parseFrame reads one frame. It keeps nothing of data.
func parseFrame(data []byte) (frame, error) {
	var f frame
	data = bytes.TrimSpace(data)
	if len(data) == 0 || data[0] != '{' || json.Unmarshal(data, &f) != nil {
		return frame{}, errFrame
	}
	return f, nil
}

// isAnswer reports whether f answers a request. Some answers lack their kind.
func (f *frame) isAnswer() bool { return f.Kind == "resp" || f.Kind == "" && f.ReqID != "" }

// name is the type without the prefixes that differ between dialects: "ExConversationChangeNotification".
func (f *frame) name() string {
	s := string(f.Type)
	return s[strings.LastIndexByte(s, '.')+1:]
}

// failed reports whether an answer says that its request failed.
func (f *frame) failed() bool { return f.Code > 399 }

// errorCode is the number that an error answer gives for programs.
func (f *frame) errorCode() int { return lpwire.ErrorNumber(int(f.Code), f.Body) }
