package lpws

import (
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Types of requests, in the consumer dialect.
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

// request is a frame to LivePerson.
type request struct {
	Kind    string `json:"kind"`
	ID      string `json:"id"`
	Type    string `json:"type"`
	Headers []any  `json:"headers,omitempty"`
	Body    any    `json:"body,omitempty"`

	deadline time.Time // the frame must not be written at or after it, by the wall clock; zero: no deadline
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

// newConversationBody returns the body of a request for a conversation: nil if n is empty, which leaves everything to LivePerson.
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
