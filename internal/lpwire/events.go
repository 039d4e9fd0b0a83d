package lpwire

import (
	"encoding/json"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// EventChanges is the body of a MessagingEventNotification.
type EventChanges struct {
	Changes List[Event] `json:"changes"`
}

// Event is one event of a dialog.
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

// Sender is the originatorMetadata of an event.
type Sender struct {
	ID   Text `json:"id"`
	Role Text `json:"role"`
}

// Content is the content of an event.
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

// MaxPreview is the maximum length of a message's preview, in bytes; longer ones are dropped. LivePerson's own limit is 30 KB.
const MaxPreview = 64 << 10

// File returns the hosted file of the event, and reports whether there is one. A file whose path is outside the account's own
// container is ignored, because it could not be downloaded.
func (e *Event) File(account string) (share.HostedFile, bool) {
	content := &e.Event.V
	if content.ContentType != "hosted/file" || content.Type != "" && content.Type != "ContentEvent" {
		return share.HostedFile{}, false
	}
	var f hostedFile
	if !(&cursor{data: content.Message}).object(&f) || share.CheckStoragePath(account, string(f.RelativePath)) != nil {
		return share.HostedFile{}, false
	}
	if len(f.Preview) > MaxPreview {
		f.Preview = ""
	}
	return share.HostedFile{
		StoragePath: string(f.RelativePath), FileType: string(f.FileType), Caption: string(f.Caption), Preview: string(f.Preview),
	}, true
}

// SenderID returns the id of the sender: the current id where there is one, otherwise the old one. In the brand dialect, events
// of agents have both.
func (e *Event) SenderID() string {
	switch {
	case e.OriginatorPID != "":
		return string(e.OriginatorPID)
	case e.OriginatorID != "":
		return string(e.OriginatorID)
	}
	return string(e.Originator.V.ID)
}
