package lpwire

import (
	"strconv"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// ClientProperties tell LivePerson what the caller's side can do: agents' tools go by it when they offer to attach files.
type ClientProperties struct {
	Type     string   `json:"type"`
	Features []string `json:"features"`
}

// NewClientProperties are those of this gateway. The type is .ClientProperties in a header, and another one in a frame.
func NewClientProperties(typ string) ClientProperties {
	return ClientProperties{Type: typ, Features: []string{"PHOTO_SHARING", "FILE_SHARING"}}
}

// A NewConversation is the body of cm.ConsumerRequestConversation.
type NewConversation struct {
	BrandID     string        `json:"brandId"`
	ChannelType string        `json:"channelType"`
	SkillID     string        `json:"skillId,omitempty"`
	Campaign    *campaignInfo `json:"campaignInfo,omitempty"`
	Context     *sharkContext `json:"conversationContext,omitempty"`
}

type campaignInfo struct {
	CampaignID   string `json:"campaignId,omitempty"`
	EngagementID string `json:"engagementId,omitempty"`
}

type sharkContext struct {
	Type                 string `json:"type"`
	Lang                 string `json:"lang,omitempty"`
	VisitorID            string `json:"visitorId,omitempty"`
	SessionID            string `json:"sessionId,omitempty"`
	InteractionContextID string `json:"interactionContextId,omitempty"`
}

// NewConversationBody is a NewConversation of an account.
func NewConversationBody(account string, n share.NewConversation) NewConversation {
	body := NewConversation{BrandID: account, ChannelType: "MESSAGING", SkillID: n.SkillID}
	if n.CampaignID != "" || n.EngagementID != "" {
		body.Campaign = &campaignInfo{n.CampaignID, n.EngagementID}
	}
	if c := n.Context; c != nil {
		body.Context = &sharkContext{"SharkContext", c.Language, c.VisitorID, c.SessionID, c.InteractionContextID}
	}
	return body
}

// An UpdateConversation is the body of cm.UpdateConversationField.
type UpdateConversation struct {
	ConversationID string              `json:"conversationId"`
	Fields         []conversationField `json:"conversationField"`
}

type conversationField struct {
	Field string `json:"field"`
	State string `json:"conversationState"`
}

// CloseBody closes a conversation with all its dialogs.
func CloseBody(conversation string) UpdateConversation {
	return UpdateConversation{conversation, []conversationField{{"ConversationStateField", "CLOSE"}}}
}

// An UploadURLBody is the body of ms.GenerateURLForUploadFile.
type UploadURLBody struct {
	FileSize string `json:"fileSize"`
	FileType string `json:"fileType"`
}

// NewUploadURLBody asks for leave to store so many bytes.
func NewUploadURLBody(size int64, t share.FileType) UploadURLBody {
	return UploadURLBody{strconv.FormatInt(size, 10), string(t)}
}

// A DownloadURLBody is the body of ms.GenerateURLForDownloadFile.
type DownloadURLBody struct {
	RelativePath string `json:"relativePath"`
}

// A Publish is the body of ms.PublishEvent.
type Publish struct {
	DialogID       string `json:"dialogId"`
	ConversationID string `json:"conversationId,omitempty"`
	Event          any    `json:"event"`
}

// A FileEvent is the event that shows a hosted file.
type FileEvent struct {
	Type        string      `json:"type"`
	ContentType string      `json:"contentType"`
	Message     fileMessage `json:"message"`
}

type fileMessage struct {
	Caption      string `json:"caption"`
	RelativePath string `json:"relativePath"`
	FileType     string `json:"fileType"`
	Preview      string `json:"preview,omitempty"`
}

// NewFileEvent shows a file.
func NewFileEvent(f share.HostedFile) FileEvent {
	return FileEvent{"ContentEvent", "hosted/file", fileMessage{f.Caption, f.StoragePath, f.FileType, f.Preview}}
}

// An AcceptStatus is the event of a receipt.
type AcceptStatus struct {
	Type      string  `json:"type"`
	Status    string  `json:"status"`
	Sequences []int64 `json:"sequenceList"`
}

// NewReceipt tells what became of a message: ACCEPT, READ, ACCESS.
func NewReceipt(status string, sequence int64) AcceptStatus {
	return AcceptStatus{"AcceptStatusEvent", status, []int64{sequence}}
}
