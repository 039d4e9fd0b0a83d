package lpwire

import (
	"encoding/json"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// EventChanges is the body of a MessagingEventNotification.
type EventChanges struct {
	Changes List[Event] `json:"changes"`
}

// An Event is one event of a dialog.
type Event struct {
	Sequence       Number          `json:"sequence"`
	OriginatorID   Text            `json:"originatorId"`
	OriginatorPID  Text            `json:"originatorPId"`
	Originator     Object[Sender]  `json:"originatorMetadata"`
	Timestamp      Number          `json:"serverTimestamp"`
	ConversationID Text            `json:"conversationId"`
	DialogID       Text            `json:"dialogId"`
	Audience       Text            `json:"messageAudience"`
	Event          Object[Content] `json:"event"`
}

// A Sender is an event's originatorMetadata.
type Sender struct {
	ID   Text `json:"id"`
	Role Text `json:"role"`
}

// A Content is what happened.
type Content struct {
	Type        Text            `json:"type"`
	ContentType Text            `json:"contentType"`
	Message     json.RawMessage `json:"message"`
}

type hostedFile struct {
	Caption      Text `json:"caption"`
	RelativePath Text `json:"relativePath"`
	FileType     Text `json:"fileType"`
	Preview      Text `json:"preview"`
}

// MaxPreview is the longest preview that is kept of a message. LivePerson's own limit is 30 KB.
const MaxPreview = 64 << 10

// File returns the hosted file that the event shows. There is none in most events, nor in one whose path is no plain path of
// the account's own container: nobody could download that.
func (e *Event) File(account string) (share.HostedFile, bool) {
	content := &e.Event.V
	if content.ContentType != "hosted/file" || content.Type != "" && content.Type != "ContentEvent" {
		return share.HostedFile{}, false
	}
	var f hostedFile
	if json.Unmarshal(content.Message, &f) != nil || share.CheckStoragePath(account, string(f.RelativePath)) != nil {
		return share.HostedFile{}, false
	}
	if len(f.Preview) > MaxPreview {
		f.Preview = ""
	}
	return share.HostedFile{
		StoragePath: string(f.RelativePath), FileType: string(f.FileType), Caption: string(f.Caption), Preview: string(f.Preview),
	}, true
}

// SenderID is who sent the event. Agents' old ids come first in the brand's dialect, their ids of today beside them.
func (e *Event) SenderID() string {
	switch {
	case e.OriginatorPID != "":
		return string(e.OriginatorPID)
	case e.OriginatorID != "":
		return string(e.OriginatorID)
	}
	return string(e.Originator.V.ID)
}
