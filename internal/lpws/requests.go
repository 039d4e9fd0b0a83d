package lpws

import (
	"strconv"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// What we send is written to the letter of LivePerson's schemas where they are right: ids and fileSize as strings, lists as
// arrays, a caption always.

// The requests, by their names in the consumers' dialect.
const (
	reqInit            = "InitConnection"
	reqClock           = "GetClock"
	reqSubscribeConvs  = "cqm.SubscribeExConversations"
	reqUnsubscribe     = "cqm.UnsubscribeExConversations"
	reqNewConversation = "cm.ConsumerRequestConversation"
	reqUpdate          = "cm.UpdateConversationField"
	reqSubscribeEvents = "ms.SubscribeMessagingEvents"
	reqQueryMessages   = "ms.QueryMessages"
	reqPublish         = "ms.PublishEvent"
	reqUploadURL       = "ms.GenerateURLForUploadFile"
	reqDownloadURL     = "ms.GenerateURLForDownloadFile"
)

// A request is one frame to LivePerson.
type request struct {
	Kind    string `json:"kind"`
	ID      string `json:"id"`
	Type    string `json:"type"`
	Headers []any  `json:"headers,omitempty"`
	Body    any    `json:"body,omitempty"`

	until time.Time // from when on it must not be written any more, by the wall clock; zero: there is no such time
}

// clientProperties tell LivePerson what the caller's side can do: agents' tools go by it when they offer to attach files.
type clientProperties struct {
	Type     string   `json:"type"`
	Features []string `json:"features"`
}

func newClientProperties(typ string) clientProperties {
	return clientProperties{Type: typ, Features: []string{"PHOTO_SHARING", "FILE_SHARING"}}
}

type consumerAuthentication struct {
	Type string `json:"type"`
	JWT  string `json:"jwt"`
}

type subscribeConversations struct {
	MinLastUpdatedTime int64    `json:"minLastUpdatedTime"`
	ConvState          []string `json:"convState"`
	AgentIDs           []string `json:"agentIds,omitempty"`
}

type unsubscribe struct {
	SubscriptionID string `json:"subscriptionId"`
}

type newConversation struct {
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

// newConversationBody is the body of a request for a conversation: none where the caller leaves everything to LivePerson.
func newConversationBody(account string, n share.NewConversation) any {
	if n.SkillID == "" && n.CampaignID == "" && n.EngagementID == "" && n.Context == nil {
		return nil
	}
	body := newConversation{BrandID: account, ChannelType: "MESSAGING", SkillID: n.SkillID}
	if n.CampaignID != "" || n.EngagementID != "" {
		body.Campaign = &campaignInfo{n.CampaignID, n.EngagementID}
	}
	if c := n.Context; c != nil {
		body.Context = &sharkContext{"SharkContext", c.Language, c.VisitorID, c.SessionID, c.InteractionContextID}
	}
	return body
}

type updateConversation struct {
	ConversationID string              `json:"conversationId"`
	Fields         []conversationField `json:"conversationField"`
}

type conversationField struct {
	Field string `json:"field"`
	State string `json:"conversationState"`
}

func closeBody(conversation string) updateConversation {
	return updateConversation{conversation, []conversationField{{"ConversationStateField", "CLOSE"}}}
}

type subscribeEvents struct {
	DialogID       string `json:"dialogId"`
	ConversationID string `json:"conversationId,omitempty"`
	FromSeq        int64  `json:"fromSeq"`
}

type queryMessages struct {
	DialogID string `json:"dialogId"`
	Newer    int64  `json:"newerThanSequence"`
	FromSeq  int64  `json:"fromSeq"`
}

type uploadURLBody struct {
	FileSize string `json:"fileSize"`
	FileType string `json:"fileType"`
}

func newUploadURLBody(size int64, t share.FileType) uploadURLBody {
	return uploadURLBody{strconv.FormatInt(size, 10), string(t)}
}

type downloadURLBody struct {
	RelativePath string `json:"relativePath"`
}

type publish struct {
	DialogID       string `json:"dialogId"`
	ConversationID string `json:"conversationId,omitempty"`
	Event          any    `json:"event"`
}

type fileEvent struct {
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

func newFileEvent(f share.HostedFile) fileEvent {
	return fileEvent{"ContentEvent", "hosted/file", fileMessage{f.Caption, f.StoragePath, f.FileType, f.Preview}}
}

type acceptStatus struct {
	Type      string  `json:"type"`
	Status    string  `json:"status"`
	Sequences []int64 `json:"sequenceList"`
}
