package main

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// An exception is a known difference between LivePerson's schemas and the frames on its sockets.
type exception struct {
	name string
	// reason explains why the frame is correct and the schema is not.
	reason string
	// change converts the frame to what the schemas describe, and reports whether it changed anything.
	change func(*subject) bool
}

// exceptions are applied in this order. Names are first, because later exceptions depend on them.
var exceptions = []exception{
	{
		"brand names", "types in agents' frames have the prefix .ams., and aam for cqm; the schemas have the consumers' names only",
		func(s *subject) bool {
			bare := bareType(s.frame)
			if rest, ok := strings.CutPrefix(bare, "aam."); ok {
				bare = "cqm." + rest
			}
			// In a list of responses, types do not matter.
			if s.dialect != "brand" || s.frame["kind"] == "resp" || bare == s.frame["type"] {
				return false
			}
			s.frame["type"] = bare
			return true
		},
	},
	{
		"Send API answer", "the Connector API answers without kind and type, with the code OK, and with strings as msg; the schemas describe sockets only",
		func(s *subject) bool {
			body := object(s.frame["body"])
			if s.dialect != "connector" || s.fromClient || s.frame["code"] != "OK" || body == nil {
				return false
			}
			s.frame["kind"], s.frame["code"] = "resp", json.Number("200")
			s.root = consumerResponses
			for name, typ := range map[string]string{
				"conversationId": "cm.RequestConversationResponse", "sequence": "ms.PublishEventResponse",
				"relativePath": "ms.BaseGenerateURLResponse", "msg": ".ReqBody$StringResp",
			} {
				if body[name] != nil {
					s.frame["type"] = typ
				}
			}
			if text := body["msg"]; text != nil && len(body) == 1 {
				s.frame["body"] = text
			}
			return true
		},
	},
	{
		"refusal before any request", "the Connector API refuses identities before it parses a request, so there is no id to repeat",
		func(s *subject) bool {
			if _, has := s.frame["reqId"]; has || s.dialect != "connector" || s.frame["type"] != ".ReqBody$ErrorResp" {
				return false
			}
			s.frame["reqId"] = "0"
			return true
		},
	},
	{
		"webhook without subscription", "a webhook has no subscription; the schema is that of the notification on a socket",
		func(s *subject) bool {
			body := object(s.frame["body"])
			if _, has := body["subscriptionId"]; has || body == nil || s.dialect != "connector" || s.frame["type"] != "cqm.ExConversationChangeNotification" {
				return false
			}
			body["subscriptionId"] = "webhook"
			return true
		},
	},
	{
		"routing names", "the schemas have routing notifications in lower case, agents' sockets capitalize them",
		func(s *subject) bool {
			switch s.frame["type"] {
			case "routing.RoutingTaskNotification":
				s.frame["type"] = "routing.routingTaskNotification"
			case "routing.AgentStateNotification":
				s.frame["type"] = "routing.agentStateNotification"
			default:
				return false
			}
			return true
		},
	},
	{
		"keep-alive of a consumer", "GetClock and KeepAlive are documented for consumers but are in the agents' schema only",
		func(s *subject) bool {
			if s.root != consumerRequests || (s.frame["type"] != "GetClock" && s.frame["type"] != "KeepAlive") {
				return false
			}
			s.root = agentRequests
			return true
		},
	},
	{
		"file URL for an agent", "agents request file URLs too; the requests are in the consumers' schema only",
		func(s *subject) bool {
			if s.root != agentRequests || !strings.HasPrefix(bareType(s.frame), "ms.GenerateURLFor") {
				return false
			}
			s.root = consumerRequests
			return true
		},
	},
	{
		"request without schema", "LivePerson published no schema for this request; only its envelope is checked",
		func(s *subject) bool {
			switch bareType(s.frame) {
			case "userprofile.SetUserProfile", "routing.UpdateRoutingTaskSubscription", "ms.token.GenerateDownloadToken":
			case "userprofile.GetUserProfile": // described with a string as the body only
				if _, ok := s.frame["body"].(map[string]any); !ok {
					return false
				}
			default:
				return false
			}
			if !s.fromClient {
				return false
			}
			s.root = anyRequest
			return true
		},
	},
	{
		"numeric id", "most of LivePerson's examples send a number, and it works",
		func(s *subject) bool { return s.fromClient && numberToText(s.frame, "id") },
	},
	{
		"numeric fileSize", "LivePerson's shell example and node-agent-sdk send a number",
		func(s *subject) bool { return s.fromClient && numberToText(object(s.frame["body"]), "fileSize") },
	},
	{
		"file type in a URL request", "PDF, TXT, DOCX, XLSX and PPTX are newer than the schema",
		func(s *subject) bool {
			return s.fromClient && replaceOneOf(object(s.frame["body"]), "fileType", "JPG", "PDF", "TXT", "DOCX", "XLSX", "PPTX", "IMG")
		},
	},
	{
		"file type in a message", "JPEG, DOCX, XLSX and PPTX are documented and sent, and missing from the schema",
		func(s *subject) bool {
			return forEvents(s, func(event map[string]any) bool {
				return replaceOneOf(object(event["message"]), "fileType", "JPG", "JPEG", "DOCX", "XLSX", "PPTX")
			})
		},
	},
	{
		"no caption", "the schema requires one, the documentation does not",
		func(s *subject) bool {
			return forEvents(s, func(event map[string]any) bool {
				message := object(event["message"])
				if _, has := message["caption"]; has || event["contentType"] != "hosted/file" || message == nil {
					return false
				}
				message["caption"] = ""
				return true
			})
		},
	},
	{
		"rich content", "all clients have it in content, the schema in message",
		func(s *subject) bool {
			return forEvents(s, func(event map[string]any) bool {
				if event["type"] != "RichContentEvent" || event["content"] == nil {
					return false
				}
				event["message"] = event["content"]
				delete(event, "content")
				return true
			})
		},
	},
	{
		"features", "FILE_SHARING, QUICK_REPLIES and MULTI_DIALOG are newer than the schema's list",
		func(s *subject) bool {
			changed := false
			for _, header := range array(s.frame["headers"]) {
				h := object(header)
				features := array(h["features"])
				known := slices.DeleteFunc(slices.Clone(features), func(f any) bool {
					return f == "FILE_SHARING" || f == "QUICK_REPLIES" || f == "MULTI_DIALOG"
				})
				if len(known) < len(features) {
					h["features"] = known
					changed = true
				}
			}
			return changed
		},
	},
	{
		"one conversationField", "a single element may stand for an array of one",
		func(s *subject) bool {
			body := object(s.frame["body"])
			field := object(body["conversationField"])
			if !s.fromClient || field == nil {
				return false
			}
			body["conversationField"] = []any{field}
			return true
		},
	},
	{
		"DialogChange", "the documented way to close one dialog is in no schema",
		func(s *subject) bool {
			fields := array(object(s.frame["body"])["conversationField"])
			changed := false
			for i, f := range fields {
				if f := object(f); f["field"] == "DialogChange" && f["type"] == "UPDATE" && object(f["dialog"])["state"] == "CLOSE" {
					fields[i] = map[string]any{"field": "ConversationStateField", "conversationState": "CLOSE"}
					changed = true
				}
			}
			return changed
		},
	},
	{
		"OCCUPIED", "an availability that node-agent-sdk uses and the schema lacks",
		func(s *subject) bool {
			if replaceOneOf(object(s.frame["body"]), "availability", "AWAY", "OCCUPIED") {
				return true
			}
			changed := false
			for _, c := range array(object(s.frame["body"])["changes"]) {
				changed = replaceOneOf(object(object(c)["result"]), "availability", "AWAY", "OCCUPIED") || changed
			}
			return changed
		},
	},
	{
		"answer without body", "a documented answer to a subscription has none",
		func(s *subject) bool {
			typ, _ := s.frame["type"].(string)
			if _, has := s.frame["body"]; has || !strings.Contains(typ, "GenericSubscribe") {
				return false
			}
			s.frame["body"] = map[string]any{}
			return true
		},
	},
	{
		"messages asked for", "the answer to QueryMessages is in no schema; its body is checked as a notification",
		func(s *subject) bool {
			changes, ok := s.frame["body"].([]any)
			if !ok || s.frame["type"] != ".ams.ms.QueryMessages$Response" || s.frame["code"] != json.Number("200") {
				return false
			}
			if id, ok := s.frame["reqId"].(string); !ok || id == "" {
				return false
			}
			s.asMessages(changes)
			return true
		},
	},
	{
		"OnlineEventDistribution", "agents get single messages with this type, which is in no schema; checked as a notification of one message",
		func(s *subject) bool {
			if s.dialect != "brand" || bareType(s.frame) != "ms.OnlineEventDistribution" {
				return false
			}
			s.asMessages([]any{s.frame["body"]})
			return true
		},
	},
	{
		"chat state without number", "chat states have neither sequence nor time, which the schema requires of every event",
		func(s *subject) bool {
			changed := false
			for _, c := range array(object(s.frame["body"])["changes"]) {
				c := object(c)
				_, sequence := c["sequence"]
				_, time := c["serverTimestamp"]
				if object(c["event"])["type"] == "ChatStateEvent" && !sequence && !time {
					c["sequence"], c["serverTimestamp"] = json.Number("0"), json.Number("0")
					changed = true
				}
			}
			return changed
		},
	},
	{
		"BACKGROUND", "the chat state that the server itself sends when a consumer's socket closes is not in the schema",
		func(s *subject) bool {
			return !s.fromClient && forEvents(s, func(event map[string]any) bool {
				return replaceOneOf(event, "chatState", "INACTIVE", "BACKGROUND")
			})
		},
	},
	{
		"participants by role", "agents' sockets give participants as a map of role to ids, the schema describes a list",
		func(s *subject) bool {
			return forConversations(s, func(details map[string]any) bool {
				byRole := object(details["participants"])
				if byRole == nil {
					return false
				}
				listed := []any{}
				for _, role := range slices.Sorted(maps.Keys(byRole)) {
					for _, id := range array(byRole[role]) {
						listed = append(listed, map[string]any{"id": id, "role": role})
					}
				}
				details["participants"] = listed
				return true
			})
		},
	},
	{
		"roles", "AGENT, READER and CONTROLLER are documented but not in the schema",
		func(s *subject) bool {
			return forConversations(s, func(details map[string]any) bool {
				changed := false
				for _, p := range array(details["participants"]) {
					changed = replaceOneOf(object(p), "role", "MANAGER", "AGENT", "READER", "CONTROLLER") || changed
				}
				return changed
			})
		},
	},
}

// asMessages converts the frame to a notification of messages.
func (s *subject) asMessages(changes []any) {
	s.frame = map[string]any{
		"kind": "notification", "type": "ms.MessagingEventNotification", "body": map[string]any{"changes": changes},
	}
	s.root = consumerNotifications
}

// forEvents changes the events that a frame publishes or reports.
func forEvents(s *subject, change func(event map[string]any) bool) bool {
	body := object(s.frame["body"])
	changed := change(object(body["event"]))
	tellings := array(body["changes"])
	if answer, ok := s.frame["body"].([]any); ok {
		tellings = answer
	}
	for _, c := range tellings {
		changed = change(object(object(c)["event"])) || changed
	}
	return changed
}

// forConversations changes the details of the conversations in a notification.
func forConversations(s *subject, change func(details map[string]any) bool) bool {
	changed := false
	for _, c := range array(object(s.frame["body"])["changes"]) {
		details := object(object(object(c)["result"])["conversationDetails"])
		changed = change(details) || changed
	}
	return changed
}

// replaceOneOf replaces the value of a member if it is one of several. A nil object has no members.
func replaceOneOf(m map[string]any, name, with string, some ...string) bool {
	if was, ok := m[name].(string); !ok || !slices.Contains(some, was) {
		return false
	}
	m[name] = with
	return true
}

// numberToText converts an integer to a string.
func numberToText(m map[string]any, name string) bool {
	n, ok := m[name].(json.Number)
	if !ok || strings.Trim(n.String(), "0123456789") != "" {
		return false
	}
	m[name] = n.String()
	return true
}

// bareType returns a frame's type without the prefix of agents' sockets.
func bareType(frame map[string]any) string {
	typ, _ := frame["type"].(string)
	if rest, ok := strings.CutPrefix(typ, ".ams."); ok {
		return rest
	}
	return strings.TrimPrefix(typ, ".")
}

func object(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

func array(v any) []any {
	a, _ := v.([]any)
	return a
}
