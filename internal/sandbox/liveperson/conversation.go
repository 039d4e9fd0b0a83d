package liveperson

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/journal"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/jsonhttp"
)

const (
	stateOpen   = "OPEN"
	stateClosed = "CLOSE"

	roleConsumer   = "CONSUMER"
	roleAssigned   = "ASSIGNED_AGENT"
	roleAgent      = "AGENT"
	roleManager    = "MANAGER"
	roleReader     = "READER"
	roleController = "CONTROLLER"
)

// maxListed is the maximum number of conversations in the first notification of an agent's subscription.
const maxListed = 1000

// A conversation is between one consumer and a brand. Service.mu guards it.
type conversation struct {
	id           string
	account      *account
	consumer     *person
	listener     Listener // nil if none
	main         *dialog  // the only one: surveys are not implemented
	participants []participant
	skill        string
	ttr          ttr
	csat         *csat // nil until the consumer has answered
	first        bool  // the consumer's first
	state        string
	closedBy     string
	closedCause  string
	started      int64
	ended        int64
	changed      int64 // strictly increasing, so that a client can tell which of two updates is newer
	campaign     json.RawMessage
	context      json.RawMessage
	last         *event // the last with content
	rings        []*ring
	suggested    *person // the only agent at which the conversation rings; nil for all
}

type participant struct {
	who  *person
	role string
}

type ttr struct {
	Type  string `json:"ttrType"`
	Value int64  `json:"value"`
}

// A convSubscription is one cqm.SubscribeExConversations. Service.mu guards it.
type convSubscription struct {
	id       string
	states   []string
	stages   []string
	agents   []string
	since    int64
	reported map[*conversation]bool // reported as UPSERT and not as DELETE since
}

// begin starts a conversation.
func (s *Service) begin(acct *account, consumer *person) *conversation {
	now := s.now().UnixMilli()
	conv := &conversation{
		id: uuid.NewString(), account: acct, consumer: consumer, skill: "-1", ttr: ttr{"NORMAL", 600},
		first: len(acct.of[consumer.id]) == 0, state: stateOpen, started: now, changed: now,
		participants: []participant{{consumer, roleConsumer}}, listener: s.opts.Listener(acct.id, consumer.id),
	}
	conv.main = &dialog{id: conv.id, conv: conv}
	acct.conversations[conv.id] = conv
	acct.dialogs[conv.main.id] = conv.main
	acct.ordered = append(acct.ordered, conv)
	acct.of[consumer.id] = append(acct.of[consumer.id], conv)
	s.opts.Journal.Conversation(journal.ConversationChange{Account: acct.id, ID: conv.id, State: stateOpen, Consumer: consumer.id})
	return conv
}

// touch updates the time of the last change.
func (conv *conversation) touch(now int64) { conv.changed = max(now, conv.changed+1) }

// participant returns the participant with that identity, or nil.
func (conv *conversation) participant(who *person) *participant {
	for i := range conv.participants {
		if conv.participants[i].who.id == who.id {
			return &conv.participants[i]
		}
	}
	return nil
}

// hasParticipant reports whether the person may read and write in the conversation.
func (conv *conversation) hasParticipant(who *person) bool { return conv.participant(who) != nil }

// assigned returns the assigned agent, or nil.
func (conv *conversation) assigned() *person {
	for _, p := range conv.participants {
		if p.role == roleAssigned {
			return p.who
		}
	}
	return nil
}

// consumerRequestConversation answers cm.ConsumerRequestConversation.
func (k *caller) consumerRequestConversation(c *call) Reply {
	var body struct {
		BrandID     jsonText        `json:"brandId"`
		ChannelType string          `json:"channelType"`
		TTR         string          `json:"ttrDefName"`
		Skill       jsonText        `json:"skillId"`
		Campaign    json.RawMessage `json:"campaignInfo"`
		Context     json.RawMessage `json:"conversationContext"`
	}
	if err := c.decode(&body); err != nil {
		return Refuse(CodeInvalid, "the body has the wrong shape")
	}
	context, ok := contextOf(body.Context, k.properties)
	switch {
	case body.BrandID != "" && string(body.BrandID) != k.account.id:
		return Refuse(CodeInvalid, "brandId is another account")
	case body.ChannelType != "" && body.ChannelType != "MESSAGING":
		return Refuse(CodeInvalid, "channelType must be MESSAGING")
	case body.TTR != "" && !slices.Contains(ttrTypes, body.TTR):
		return Refuse(CodeInvalid, "ttrDefName is not a known value")
	case !goodSkill(string(body.Skill)):
		return Refuse(CodeInvalid, "skillId is not a skill id")
	case given(body.Campaign) != nil && !isObject(body.Campaign), !ok:
		return Refuse(CodeInvalid, "campaignInfo and conversationContext must be objects")
	}
	conv := k.s.begin(k.account, k.who)
	conv.campaign, conv.context = given(body.Campaign), context
	if body.Skill != "" {
		conv.skill = string(body.Skill)
	}
	if body.TTR != "" {
		conv.ttr.Type = body.TTR
	}
	k.s.assign(conv)
	k.s.conversationChanged(&c.b, conv, false)
	k.s.ring(&c.b, conv)
	return Reply{Code: 200, Type: typeConversation, Body: map[string]string{"conversationId": conv.id}}
}

// agentRequestConversation answers cm.AgentRequestConversation: an agent starts a conversation with a known consumer.
func (k *socket) agentRequestConversation(c *call) Reply {
	var body struct {
		Consumer    jsonText `json:"consumerId"`
		ChannelType string   `json:"channelType"`
		Skill       jsonText `json:"skillId"`
	}
	if err := c.decode(&body); err != nil || !goodSkill(string(body.Skill)) {
		return Refuse(CodeInvalid, "the body has the wrong shape")
	}
	if body.Consumer == "" {
		return Refuse(CodeMissing, "consumerId is missing")
	}
	id := string(body.Consumer)
	if len(k.account.of[id]) == 0 && len(k.account.present[id]) == 0 || k.account.agentsByID[id] != nil {
		return Refuse(CodeNoPerson, "no such consumer")
	}
	conv := k.s.begin(k.account, &person{id: id, oldID: id})
	if body.Skill != "" {
		conv.skill = string(body.Skill)
	}
	conv.participants = append(conv.participants, participant{k.who, roleAssigned})
	k.s.conversationChanged(&c.b, conv, false)
	return Reply{Code: 200, Type: typeConversation, Body: map[string]string{"conversationId": conv.id}}
}

// ttrTypes are the classes of target response times.
var ttrTypes = []string{"CUSTOM", "NORMAL", "PRIORITIZED", "URGENT"}

// goodSkill reports whether id can be a skill id: up to ten digits, -1 for any skill, or empty.
func goodSkill(id string) bool {
	return id == "" || id == "-1" || (len(id) <= 10 && strings.Trim(id, "0123456789") == "")
}

// contextOf returns the context of a conversation: what its creator sent, with the creator's client properties.
func contextOf(sent, properties json.RawMessage) (context json.RawMessage, ok bool) {
	members := map[string]json.RawMessage{}
	if given(sent) != nil && (json.Unmarshal(sent, &members) != nil || members == nil) {
		return nil, false
	}
	if properties != nil {
		members["clientProperties"] = properties
	}
	if len(members) == 0 {
		return nil, true
	}
	if members["type"] == nil {
		members["type"] = json.RawMessage(`"SharkContext"`)
	}
	return jsonhttp.Encode(members), true
}

// isObject reports whether raw is a JSON object.
func isObject(raw json.RawMessage) bool {
	var members map[string]json.RawMessage
	return json.Unmarshal(raw, &members) == nil && members != nil
}

// subscribeConversations answers cqm.SubscribeExConversations, and aam.SubscribeExConversations of agents.
func (k *socket) subscribeConversations(c *call) Reply {
	var body struct {
		Since  jsonText       `json:"minLastUpdatedTime"`
		States List[string]   `json:"convState"`
		Stages List[string]   `json:"stage"`
		Agents List[jsonText] `json:"agentIds"`
	}
	if err := c.decode(&body); err != nil {
		return Refuse(CodeInvalid, "the body has the wrong shape")
	}
	for _, state := range append(slices.Clone(body.States), body.Stages...) {
		if state != stateOpen && state != stateClosed {
			return Refuse(CodeInvalid, "convState and stage must be lists of OPEN and CLOSE")
		}
	}
	sub := &convSubscription{id: uuid.NewString(), states: body.States, stages: body.Stages, reported: map[*conversation]bool{}}
	if body.Since != "" {
		since, ok := body.Since.number()
		if !ok || since < 0 {
			return Refuse(CodeInvalid, "minLastUpdatedTime is not a time")
		}
		sub.since = since
	}
	for _, id := range body.Agents {
		sub.agents = append(sub.agents, string(id))
	}
	k.convSubs[sub.id] = sub
	if k.who.agent {
		for _, conv := range k.account.ordered {
			if k.s.assign(conv) {
				k.s.conversationChanged(&c.b, conv, false)
			}
		}
	}

	visible := k.account.ordered
	if !k.who.agent {
		visible = k.account.of[k.who.id]
	}
	initial := changes{SubscriptionID: sub.id, Changes: []change{}}
	for _, conv := range visible {
		if sub.matches(conv) && (!k.who.agent || len(initial.Changes) < maxListed) {
			sub.reported[conv] = true
			initial.Changes = append(initial.Changes, change{"UPSERT", k.conversationView(conv)})
		}
	}
	return Reply{
		Code: 200, Type: typeSubscribeConv, Body: map[string]string{"subscriptionId": sub.id},
		then: [][]byte{notification(k.conversationType(), initial)},
	}
}

// unsubscribeConversations answers cqm.UnsubscribeExConversations, and aam.UnsubscribeExConversations of agents.
func (k *socket) unsubscribeConversations(c *call) Reply {
	var body struct {
		ID jsonText `json:"subscriptionId"`
	}
	if err := c.decode(&body); err != nil || body.ID == "" {
		return Refuse(CodeMissing, "subscriptionId is missing")
	}
	if k.convSubs[string(body.ID)] == nil {
		return Refuse(CodeNoSubscription, "no such subscription")
	}
	delete(k.convSubs, string(body.ID))
	return text(200, "OK Unsubscribed successfully")
}

// matches reports whether the subscription covers the conversation.
func (sub *convSubscription) matches(conv *conversation) bool {
	among := func(wanted []string, state string) bool { return len(wanted) == 0 || slices.Contains(wanted, state) }
	if conv.changed < sub.since || !among(sub.states, conv.state) || !among(sub.stages, conv.state) {
		return false
	}
	return len(sub.agents) == 0 || slices.ContainsFunc(conv.participants, func(p participant) bool {
		return p.who.agent && (slices.Contains(sub.agents, p.who.id) || slices.Contains(sub.agents, p.who.oldID))
	})
}

// conversationChanged notifies every subscriber. If only the content has changed it notifies agents only: consumers get content
// from the dialog's own notifications.
func (s *Service) conversationChanged(b *batch, conv *conversation, contentOnly bool) {
	if !contentOnly {
		for k := range conv.account.present[conv.consumer.id] {
			k.notifyConversation(b, conv)
		}
		conv.notifyChange()
	}
	for k := range conv.account.agentSockets {
		k.notifyConversation(b, conv)
	}
}

// notifyConversation sends the current state of a conversation to the socket's subscriptions that cover it, or covered it before.
func (k *socket) notifyConversation(b *batch, conv *conversation) {
	for _, sub := range k.convSubs {
		kind := "UPSERT"
		switch {
		case sub.matches(conv):
			sub.reported[conv] = true
		case sub.reported[conv]:
			delete(sub.reported, conv)
			kind = "DELETE"
		default:
			continue
		}
		b.add(k, notification(k.conversationType(), changes{
			SubscriptionID: sub.id, Changes: []change{{kind, k.conversationView(conv)}},
		}))
	}
}

// conversationType returns the type of the notification that a conversation has changed.
func (k *socket) conversationType() string {
	if k.dialect == brandDialect {
		return ".ams.aam.ExConversationChangeNotification"
	}
	return "cqm.ExConversationChangeNotification"
}

// notifyChange reports a change of the conversation to its listener. Unlike on a socket there is no subscription to name.
func (conv *conversation) notifyChange() {
	if conv.listener == nil {
		return
	}
	const typ = "cqm.ExConversationChangeNotification"
	conv.listener.Notify(conv.id, typ, nil, func() []byte {
		return notification(typ, changes{Changes: []change{{"UPSERT", conv.asConsumer().conversationView(conv)}}})
	})
}

// asConsumer returns the conversation's consumer as a caller, which determines the views of the listener.
func (conv *conversation) asConsumer() *caller {
	return &caller{account: conv.account, dialect: consumerDialect, who: conv.consumer}
}
