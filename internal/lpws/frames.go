package lpws

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// LivePerson's own rule for readers is to accept unknown members, to take a bare element for an array of one, and to ignore
// values that are not known. The types here go a little further: a member of the wrong shape counts as absent, so that one odd
// event does not cost the others of its notification.

// A frame is what came from LivePerson: an answer or a notification.
type frame struct {
	Kind  text            `json:"kind"`
	ReqID text            `json:"reqId"`
	Code  code            `json:"code"`
	Type  text            `json:"type"`
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

// errorCode is the number that an error answer gives for programs: the status, then two digits; else the status.
func (f *frame) errorCode() int64 {
	var body struct {
		ErrorCode number `json:"errorCode"`
	}
	if json.Unmarshal(f.Body, &body) == nil && body.ErrorCode.ok {
		return body.ErrorCode.n
	}
	return int64(f.Code)
}

// A text is a string that may also come as a number.
type text string

// UnmarshalJSON takes strings and numbers; anything else is "".
func (t *text) UnmarshalJSON(data []byte) error {
	*t = ""
	if len(data) == 0 {
		return nil
	}
	switch c := data[0]; {
	case c == '"':
		var s string
		if json.Unmarshal(data, &s) == nil {
			*t = text(s)
		}
	case c == '-' || c >= '0' && c <= '9':
		*t = text(data)
	}
	return nil
}

// A number is a whole number that may also come as a string.
type number struct {
	n  int64
	ok bool
}

// UnmarshalJSON takes whole numbers, as such or in a string; anything else is absent.
func (v *number) UnmarshalJSON(data []byte) error {
	var t text
	_ = t.UnmarshalJSON(data)
	n, err := strconv.ParseInt(string(t), 10, 64)
	if err != nil {
		var f float64
		if f, err = strconv.ParseFloat(string(t), 64); err == nil && f == math.Trunc(f) && math.Abs(f) < 1<<53 {
			n = int64(f)
		} else {
			err = strconv.ErrSyntax
		}
	}
	*v = number{n, err == nil}
	if err != nil {
		v.n = 0
	}
	return nil
}

// A code is an answer's status: a number, the same in a string, or "OK". Absent and unreadable count as success, as they do for
// LivePerson's own client: failure is a number over 399.
type code int

// UnmarshalJSON never fails.
func (c *code) UnmarshalJSON(data []byte) error {
	var n number
	_ = n.UnmarshalJSON(data)
	*c = 200
	if n.ok && n.n >= 0 && n.n < 100000 {
		*c = code(n.n)
	}
	return nil
}

// A list is an array, or one bare element that stands for an array of one. Elements of the wrong shape are left out.
type list[T any] []T

// UnmarshalJSON never fails.
func (l *list[T]) UnmarshalJSON(data []byte) error {
	*l = nil
	var raw []json.RawMessage
	if json.Unmarshal(data, &raw) != nil {
		raw = []json.RawMessage{data}
	}
	for _, r := range raw {
		var one T
		if !isNull(r) && json.Unmarshal(r, &one) == nil {
			*l = append(*l, one)
		}
	}
	return nil
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// An object is a T, or its zero value where what came is none.
type object[T any] struct{ v T }

// UnmarshalJSON never fails.
func (o *object[T]) UnmarshalJSON(data []byte) error {
	var v T
	if json.Unmarshal(data, &v) == nil {
		o.v = v
	}
	return nil
}

// An eventChanges is the body of a MessagingEventNotification.
type eventChanges struct {
	Changes list[wireEvent] `json:"changes"`
}

// A wireEvent is one event of a dialog.
type wireEvent struct {
	Sequence       number              `json:"sequence"`
	OriginatorID   text                `json:"originatorId"`
	OriginatorPID  text                `json:"originatorPId"`
	Originator     object[wireSender]  `json:"originatorMetadata"`
	Timestamp      number              `json:"serverTimestamp"`
	ConversationID text                `json:"conversationId"`
	DialogID       text                `json:"dialogId"`
	Event          object[wireContent] `json:"event"`
}

type wireSender struct {
	ID   text `json:"id"`
	Role text `json:"role"`
}

type wireContent struct {
	Type        text            `json:"type"`
	ContentType text            `json:"contentType"`
	Message     json.RawMessage `json:"message"`
}

type wireFile struct {
	Caption      text `json:"caption"`
	RelativePath text `json:"relativePath"`
	FileType     text `json:"fileType"`
	Preview      text `json:"preview"`
}

// maxPreview is the longest preview that is kept of a message. LivePerson's own limit is 30 KB.
const maxPreview = 64 << 10

// file returns the hosted file that the event shows. There is none in most events, nor in one whose path is no plain path of
// the account's own container: nobody could download that.
func (e *wireEvent) file(account string) (share.HostedFile, bool) {
	content := &e.Event.v
	if content.ContentType != "hosted/file" || content.Type != "" && content.Type != "ContentEvent" {
		return share.HostedFile{}, false
	}
	var f wireFile
	if json.Unmarshal(content.Message, &f) != nil || share.CheckStoragePath(account, string(f.RelativePath)) != nil {
		return share.HostedFile{}, false
	}
	if len(f.Preview) > maxPreview {
		f.Preview = ""
	}
	return share.HostedFile{
		StoragePath: string(f.RelativePath), FileType: string(f.FileType), Caption: string(f.Caption), Preview: string(f.Preview),
	}, true
}

// sender is who sent the event. Agents' old ids come first in the brand's dialect, their ids of today beside them.
func (e *wireEvent) sender() string {
	switch {
	case e.OriginatorPID != "":
		return string(e.OriginatorPID)
	case e.OriginatorID != "":
		return string(e.OriginatorID)
	}
	return string(e.Originator.v.ID)
}

// A conversationChanges is the body of an ExConversationChangeNotification.
type conversationChanges struct {
	SubscriptionID text                     `json:"subscriptionId"`
	Changes        list[conversationChange] `json:"changes"`
}

type conversationChange struct {
	Type   text                     `json:"type"`
	Result object[wireConversation] `json:"result"`
}

type wireConversation struct {
	ConvID         text               `json:"convId"`
	LastUpdateTime number             `json:"lastUpdateTime"`
	Details        object[wireDetail] `json:"conversationDetails"`
	LastContent    object[wireEvent]  `json:"lastContentEventNotification"`
}

type wireDetail struct {
	SkillID         text             `json:"skillId"`
	State           text             `json:"state"`
	StartTs         number           `json:"startTs"`
	EndTs           number           `json:"endTs"`
	MetaDataTs      number           `json:"metaDataLastUpdateTs"`
	Participants    participants     `json:"participants"`
	ParticipantsPID participants     `json:"participantsPId"`
	Dialogs         list[wireDialog] `json:"dialogs"`
}

type wireDialog struct {
	DialogID     text              `json:"dialogId"`
	DialogType   text              `json:"dialogType"`
	State        text              `json:"state"`
	Participants list[wireDetails] `json:"participantsDetails"`
}

type wireDetails struct {
	ID    text `json:"id"`
	Role  text `json:"role"`
	State text `json:"state"`
}

// participants come as a list of ids with roles, or as an object with a list of ids for each role.
type participants []share.Participant

// UnmarshalJSON takes both forms and never fails.
func (p *participants) UnmarshalJSON(data []byte) error {
	*p = nil
	var byRole map[string]list[text]
	if json.Unmarshal(data, &byRole) == nil && byRole != nil && len(byRole["id"]) == 0 {
		for role, ids := range byRole {
			for _, id := range ids {
				*p = append(*p, share.Participant{ID: string(id), Role: share.Role(role)})
			}
		}
		return nil
	}
	var entries list[wireDetails]
	_ = entries.UnmarshalJSON(data)
	for _, e := range entries {
		if e.ID != "" {
			*p = append(*p, share.Participant{ID: string(e.ID), Role: share.Role(e.Role)})
		}
	}
	return nil
}

// A urlAnswer is the body of the answer to both requests for signed URLs.
type urlAnswer struct {
	RelativePath text `json:"relativePath"`
	QueryParams  struct {
		Sig     text `json:"temp_url_sig"`
		Expires text `json:"temp_url_expires"`
	} `json:"queryParams"`
}
