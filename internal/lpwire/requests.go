package lpwire

import (
	"strconv"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// ClientProperties lists the features of the client. Agent tools offer file attachments according to it.
type ClientProperties struct {
	Type     string   `json:"type"`
	Features []string `json:"features"`
}

// NewClientProperties returns the ClientProperties of this server. typ differs between a header and a frame.
func NewClientProperties(typ string) ClientProperties {
	return ClientProperties{Type: typ, Features: []string{"PHOTO_SHARING", "FILE_SHARING"}}
}

// NewConversation is the body of cm.ConsumerRequestConversation.
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

// NewConversationBody converts n to a request body for the account.
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

// UpdateConversation is the body of cm.UpdateConversationField.
type UpdateConversation struct {
	ConversationID string              `json:"conversationId"`
	Fields         []conversationField `json:"conversationField"`
}

type conversationField struct {
	Field string `json:"field"`
	State string `json:"conversationState"`
}

// CloseBody returns the body that closes a conversation with all its dialogs.
func CloseBody(conversation string) UpdateConversation {
	return UpdateConversation{conversation, []conversationField{{"ConversationStateField", "CLOSE"}}}
}

// UploadURLBody is the body of ms.GenerateURLForUploadFile.
type UploadURLBody struct {
	FileSize string `json:"fileSize"`
	FileType string `json:"fileType"`
}

// NewUploadURLBody returns the body that requests a signed URL to upload size bytes.
func NewUploadURLBody(size int64, t share.FileType) UploadURLBody {
	return UploadURLBody{strconv.FormatInt(size, 10), string(t)}
}

// DownloadURLBody is the body of ms.GenerateURLForDownloadFile.
type DownloadURLBody struct {
	RelativePath string `json:"relativePath"`
}

// Publish is the body of ms.PublishEvent.
type Publish struct {
	DialogID       string `json:"dialogId"`
	ConversationID string `json:"conversationId,omitempty"`
	Event          any    `json:"event"`
}

// FileEvent is the event of a hosted file.
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

// NewFileEvent returns the event that publishes f.
func NewFileEvent(f share.HostedFile) FileEvent {
	return FileEvent{"ContentEvent", "hosted/file", fileMessage{f.Caption, f.StoragePath, f.FileType, f.Preview}}
}

// AcceptStatus is the event of a receipt.
type AcceptStatus struct {
	Type      string  `json:"type"`
	Status    string  `json:"status"`
	Sequences []int64 `json:"sequenceList"`
}

// NewReceipt returns the receipt for the message with that sequence. status is ACCEPT, READ or ACCESS.
func NewReceipt(status string, sequence int64) AcceptStatus {
	return AcceptStatus{"AcceptStatusEvent", status, []int64{sequence}}
}
