package lpws

import (
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

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

// newConversationBody is the body of a request for a conversation: none where the caller leaves everything to LivePerson.
func newConversationBody(account string, n share.NewConversation) any {
	if n.SkillID == "" && n.CampaignID == "" && n.EngagementID == "" && n.Context == nil {
		return nil
	}
	return lpwire.NewConversationBody(account, n)
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
