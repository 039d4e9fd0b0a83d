package wire

import (
	"encoding/json"
	"strings"
)

// answers has the answer to each type of request. The types of responses vary too much to identify them; see the reference, sections
// 6.2 and 13.2.
var answers = map[string]string{
	"InitConnection":                        "string",
	"GetClock":                              "clock",
	"KeepAlive":                             "string",
	"cm.ConsumerRequestConversation":        "conversation",
	"cm.AgentRequestConversation":           "conversation",
	"cm.UpdateConversationField":            "string",
	"cqm.SubscribeExConversations":          "subscription",
	"cqm.UnsubscribeExConversations":        "string",
	"aam.SubscribeExConversations":          "subscription",
	"aam.UnsubscribeExConversations":        "string",
	"ms.SubscribeMessagingEvents":           "subscribed",
	"ms.QueryMessages":                      "messages",
	"ms.PublishEvent":                       "published",
	"ms.GenerateURLForUploadFile":           "url",
	"ms.GenerateURLForDownloadFile":         "url",
	"routing.SubscribeRoutingTasks":         "subscription",
	"routing.UpdateRoutingTaskSubscription": "string",
	"routing.SubscribeAgentsState":          "subscription",
	"routing.UpdateRingState":               "string",
	"routing.SetAgentState":                 "string",
	"userprofile.GetUserProfile":            "profile",
	"up.GetUserProfile":                     "profile",
	"userprofile.SetUserProfile":            "string",
}

// bare returns a frame's type without the brand dialect's prefix.
func bare(typ string) string {
	if rest, ok := strings.CutPrefix(typ, ".ams."); ok {
		return rest
	}
	return strings.TrimPrefix(typ, ".")
}

// requestKind returns the part of a schema's name for a request: its type and, for a publish, the kind of its event.
func requestKind(v any) string {
	typ := bare(text(v, "type"))
	if typ != "ms.PublishEvent" {
		return typ
	}
	event := member(member(v, "body"), "event")
	switch t := text(event, "type"); {
	case t == "ContentEvent" && text(event, "contentType") == "text/plain":
		return typ + ".text"
	case t == "ContentEvent" && text(event, "contentType") == "hosted/file":
		return typ + ".hosted-file"
	case t == "AcceptStatusEvent":
		return typ + ".receipt"
	case t == "ChatStateEvent":
		return typ + ".chat-state"
	}
	return typ
}

// member returns the named member of an object, or nil.
func member(v any, name string) any {
	m, _ := v.(map[string]any)
	return m[name]
}

// text returns the named member of an object if it is a string.
func text(v any, name string) string {
	s, _ := member(v, name).(string)
	return s
}

// noID is the reqId of the sandbox's answer to a frame without a valid id.
const noID = "0"

// idText returns a request's id as an answer repeats it: a number becomes a string.
func idText(v any) string {
	id := text(v, "id")
	if n, ok := member(v, "id").(json.Number); ok {
		id = n.String()
	}
	if id == "" || len(id) > 64 {
		return noID
	}
	return id
}
