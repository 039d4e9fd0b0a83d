package sandbox

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/google/uuid"
)

const (
	stateOpen  = "OPEN"
	stateClose = "CLOSE"

	roleConsumer = "CONSUMER"
	roleAssigned = "ASSIGNED_AGENT"
	roleManager  = "MANAGER"
	roleReader   = "READER"

	active    = "ACTIVE"
	suggested = "SUGGESTED" // an agent to whom a conversation is offered
)

// maxListed is how many conversations an agent's subscription begins with, at most.
const maxListed = 1000

// A conversation is one consumer's talk with a brand. Sandbox.mu guards it.
type conversation struct {
	id           string
	account      *account
	consumer     *person
	app          *install // the app install that created it, or speaks for its consumer; nil if none does
	main         *dialog  // the only one: there are no surveys here
	participants []participant
	skill        string
	ttr          ttr
	first        bool // the consumer's first
	state        string
	closedBy     string
	closedCause  string
	started      int64
	ended        int64
	changed      int64 // never twice the same, so that a client can tell old news from new
	campaign     json.RawMessage
	context      json.RawMessage
	csat         json.RawMessage
	last         *event          // the last with content
	rejected     map[string]bool // agents who do not want it
}

type participant struct {
	who   *person
	role  string
	state string
}

type ttr struct {
	Type  string `json:"ttrType"`
	Value int64  `json:"value"`
}

// A convSubscription is one cqm.SubscribeExConversations. Sandbox.mu guards it.
type convSubscription struct {
	id     string
	states []string
	stages []string
	agents []string
	since  int64
	told   map[*conversation]bool // what the client has been told of and not been told to forget
}

// begin starts a conversation.
func (s *Sandbox) begin(acct *account, consumer *person) *conversation {
	now := s.now().UnixMilli()
	conv := &conversation{
		id: uuid.NewString(), account: acct, consumer: consumer, skill: "-1", ttr: ttr{"NORMAL", 600},
		first: len(acct.of[consumer.id]) == 0, state: stateOpen, started: now, changed: now, rejected: map[string]bool{},
		participants: []participant{{consumer, roleConsumer, active}}, app: acct.appOf[consumer.id],
	}
	conv.main = &dialog{id: conv.id, conv: conv}
	acct.conversations[conv.id] = conv
	acct.dialogs[conv.main.id] = conv.main
	acct.ordered = append(acct.ordered, conv)
	acct.of[consumer.id] = append(acct.of[consumer.id], conv)
	s.journal.conversation(acct.id, conv.id, stateOpen)
	return conv
}

// touch notes that the conversation has changed.
func (conv *conversation) touch(now int64) { conv.changed = max(now, conv.changed+1) }

// participant returns who's part in the conversation, or nil.
func (conv *conversation) participant(who *person) *participant {
	for i := range conv.participants {
		if conv.participants[i].who.id == who.id {
			return &conv.participants[i]
		}
	}
	return nil
}

// takesPart reports whether who may read and write in the conversation; a mere suggestion does not let anybody in.
func (conv *conversation) takesPart(who *person) bool {
	p := conv.participant(who)
	return p != nil && p.state == active
}

// assigned returns the agent who is in charge, or nil.
func (conv *conversation) assigned() *person {
	for _, p := range conv.participants {
		if p.role == roleAssigned && p.state == active {
			return p.who
		}
	}
	return nil
}

// consumerRequestConversation answers cm.ConsumerRequestConversation.
func (k *caller) consumerRequestConversation(c *call) reply {
	var body struct {
		BrandID     jsonText        `json:"brandId"`
		ChannelType string          `json:"channelType"`
		TTR         string          `json:"ttrDefName"`
		Skill       jsonText        `json:"skillId"`
		Campaign    json.RawMessage `json:"campaignInfo"`
		Context     json.RawMessage `json:"conversationContext"`
	}
	if err := c.decode(&body); err != nil {
		return refuse(errInvalid, "the body has the wrong shape")
	}
	context, ok := contextOf(body.Context, k.properties)
	switch {
	case body.BrandID != "" && string(body.BrandID) != k.account.id:
		return refuse(errInvalid, "brandId is another account")
	case body.ChannelType != "" && body.ChannelType != "MESSAGING":
		return refuse(errInvalid, "channelType must be MESSAGING")
	case body.TTR != "" && !slices.Contains(ttrTypes, body.TTR):
		return refuse(errInvalid, "ttrDefName is none that there is")
	case !goodSkill(string(body.Skill)):
		return refuse(errInvalid, "skillId is not a skill's id")
	case given(body.Campaign) != nil && !isObject(body.Campaign), !ok:
		return refuse(errInvalid, "campaignInfo and conversationContext must be objects")
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
	k.s.route(&c.b, conv)
	return reply{code: 200, typ: typeConversation, body: map[string]string{"conversationId": conv.id}}
}

// agentRequestConversation answers cm.AgentRequestConversation: an agent begins a conversation with a consumer who is known.
func (k *socket) agentRequestConversation(c *call) reply {
	var body struct {
		Consumer    jsonText `json:"consumerId"`
		ChannelType string   `json:"channelType"`
		Skill       jsonText `json:"skillId"`
	}
	if err := c.decode(&body); err != nil || !goodSkill(string(body.Skill)) {
		return refuse(errInvalid, "the body has the wrong shape")
	}
	if body.Consumer == "" {
		return refuse(errMissing, "consumerId is missing")
	}
	id := string(body.Consumer)
	if len(k.account.of[id]) == 0 && len(k.account.here[id]) == 0 || k.account.byID[id] != nil {
		return refuse(errNoPerson, "no such consumer")
	}
	conv := k.s.begin(k.account, &person{id: id, oldID: id})
	if body.Skill != "" {
		conv.skill = string(body.Skill)
	}
	conv.participants = append(conv.participants, participant{k.who, roleAssigned, active})
	k.s.conversationChanged(&c.b, conv, false)
	return reply{code: 200, typ: typeConversation, body: map[string]string{"conversationId": conv.id}}
}

// ttrTypes are the labels of response times.
var ttrTypes = []string{"CUSTOM", "NORMAL", "PRIORITIZED", "URGENT"}

// goodSkill reports whether id can be a skill's: a number of up to ten digits, -1 for any, or nothing.
func goodSkill(id string) bool {
	return id == "" || id == "-1" || (len(id) <= 10 && strings.Trim(id, "0123456789") == "")
}

// contextOf is the context of a conversation: what its creator said, and what its client said of itself.
func contextOf(said, properties json.RawMessage) (context json.RawMessage, ok bool) {
	members := map[string]json.RawMessage{}
	if given(said) != nil && (json.Unmarshal(said, &members) != nil || members == nil) {
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
	return frame(members), true
}

func isObject(raw json.RawMessage) bool {
	var members map[string]json.RawMessage
	return json.Unmarshal(raw, &members) == nil && members != nil
}

// subscribeConversations answers cqm.SubscribeExConversations, and agents' aam. of the same name.
func (k *socket) subscribeConversations(c *call) reply {
	var body struct {
		Since  jsonText       `json:"minLastUpdatedTime"`
		States list[string]   `json:"convState"`
		Stages list[string]   `json:"stage"`
		Agents list[jsonText] `json:"agentIds"`
	}
	if err := c.decode(&body); err != nil {
		return refuse(errInvalid, "the body has the wrong shape")
	}
	for _, state := range append(slices.Clone(body.States), body.Stages...) {
		if state != stateOpen && state != stateClose {
			return refuse(errInvalid, "convState and stage are lists of OPEN and CLOSE")
		}
	}
	sub := &convSubscription{id: uuid.NewString(), states: body.States, stages: body.Stages, told: map[*conversation]bool{}}
	if body.Since != "" {
		since, ok := body.Since.number()
		if !ok || since < 0 {
			return refuse(errInvalid, "minLastUpdatedTime is not a time")
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
			sub.told[conv] = true
			initial.Changes = append(initial.Changes, change{"UPSERT", k.conversationView(conv)})
		}
	}
	return reply{
		code: 200, typ: typeSubscribeConv, body: map[string]string{"subscriptionId": sub.id},
		then: [][]byte{notification(k.conversationNotice(), initial)},
	}
}

// unsubscribeConversations answers cqm.UnsubscribeExConversations, and agents' aam. of the same name.
func (k *socket) unsubscribeConversations(c *call) reply {
	var body struct {
		ID jsonText `json:"subscriptionId"`
	}
	if err := c.decode(&body); err != nil || body.ID == "" {
		return refuse(errMissing, "subscriptionId is missing")
	}
	if k.convSubs[string(body.ID)] == nil {
		return refuse(errNoSub, "no such subscription")
	}
	delete(k.convSubs, string(body.ID))
	return say(200, "OK Unsubscribed successfully")
}

// matches reports whether the subscription asked for this conversation.
func (sub *convSubscription) matches(conv *conversation) bool {
	among := func(wanted []string, state string) bool { return len(wanted) == 0 || slices.Contains(wanted, state) }
	if conv.changed < sub.since || !among(sub.states, conv.state) || !among(sub.stages, conv.state) {
		return false
	}
	return len(sub.agents) == 0 || slices.ContainsFunc(conv.participants, func(p participant) bool {
		return p.who.agent && (slices.Contains(sub.agents, p.who.id) || slices.Contains(sub.agents, p.who.oldID))
	})
}

// conversationChanged tells every subscriber. News of content alone goes to agents only: a consumer subscribes to what is
// known about its conversations, and reads what is said in them elsewhere.
func (s *Sandbox) conversationChanged(b *batch, conv *conversation, contentOnly bool) {
	if !contentOnly {
		for k := range conv.account.here[conv.consumer.id] {
			k.tell(b, conv)
		}
		s.hookConversation(conv)
	}
	for k := range conv.account.team {
		k.tell(b, conv)
	}
}

// tell sends a socket's subscriptions what has become of a conversation.
func (k *socket) tell(b *batch, conv *conversation) {
	for _, sub := range k.convSubs {
		kind := "UPSERT"
		switch {
		case sub.matches(conv):
			sub.told[conv] = true
		case sub.told[conv]:
			delete(sub.told, conv)
			kind = "DELETE"
		default:
			continue
		}
		b.add(k, notification(k.conversationNotice(), changes{
			SubscriptionID: sub.id, Changes: []change{{kind, k.conversationView(conv)}},
		}))
	}
}

func (k *socket) conversationNotice() string {
	if k.dialect == brandDialect {
		return ".ams.aam.ExConversationChangeNotification"
	}
	return "cqm.ExConversationChangeNotification"
}
