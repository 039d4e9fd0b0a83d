package sandbox

import (
	"encoding/json"
	"slices"
)

// A fieldChange is one element of conversationField, of any kind.
type fieldChange struct {
	Field  string   `json:"field"`
	Type   string   `json:"type"`
	State  string   `json:"conversationState"`
	Role   string   `json:"role"`
	UserID jsonText `json:"userId"`
	Skill  jsonText `json:"skill"`
	Dialog struct {
		ID          jsonText `json:"dialogId"`
		State       string   `json:"state"`
		ClosedCause string   `json:"closedCause"`
	} `json:"dialog"`
	TTRType    string   `json:"ttrType"`
	Value      jsonText `json:"value"`
	Rate       int      `json:"csatRate"`
	Resolution *bool    `json:"csatResolutionConfirmation"`
	Status     string   `json:"status"`
}

// An update is one change that has been found good and not been made yet.
type update struct {
	said  string // what the answer says
	apply func()
}

// updateConversation answers cm.UpdateConversationField. All of its changes are made, or none.
func (k *caller) updateConversation(c *call) reply {
	var body struct {
		Conversation jsonText          `json:"conversationId"`
		Fields       list[fieldChange] `json:"conversationField"`
	}
	if err := c.decode(&body); err != nil {
		return refuse(errInvalid, "the body has the wrong shape")
	}
	if body.Conversation == "" || len(body.Fields) == 0 {
		return refuse(errMissing, "conversationId and conversationField are wanted")
	}
	conv := k.account.conversations[string(body.Conversation)]
	if conv == nil {
		return refuse(errNoConv, "no such conversation")
	}
	if !k.who.agent && conv.consumer.id != k.who.id {
		return refuse(errForeign, "not your conversation")
	}
	var updates []update
	for _, f := range body.Fields {
		u, refusal := k.check(conv, f)
		if refusal != nil {
			return *refusal
		}
		updates = append(updates, u)
	}
	for _, u := range updates {
		u.apply()
	}
	conv.touch(k.s.now().UnixMilli())
	if conv.state == stateClose || conv.assigned() != nil {
		k.s.cancelRings(&c.b, conv)
	}
	k.s.conversationChanged(&c.b, conv, false)
	k.s.route(&c.b, conv)
	return say(200, updates[0].said)
}

// check says whether one change may be made.
func (k *caller) check(conv *conversation, f fieldChange) (update, *reply) {
	const updated = "OK Conversation field updated successfully"
	refused := func(errorCode int, why string) (update, *reply) {
		a := refuse(errorCode, "%s", why)
		return update{}, &a
	}
	joins := f.Field == "ParticipantsChange" && f.Type == "ADD"
	agents := f.Field == "ParticipantsChange" || f.Field == "Skill"
	consumers := f.Field == "TTRField" || f.Field == "CSATRate"
	switch {
	case agents && !k.who.agent, consumers && k.who.agent:
		return refused(errRole, f.Field+" is not yours to change")
	case k.who.agent && !joins && !k.who.admin && !conv.takesPart(k.who):
		return refused(errForeign, "you take no part in this conversation")
	case conv.state == stateClose && f.Field != "CSATRate": // which consumers are asked for at the end
		return refused(errClosed, "the conversation is closed")
	}
	switch f.Field {
	case "ConversationStateField":
		if f.State != stateClose {
			return refused(errInvalid, "conversationState can only become CLOSE")
		}
		return update{"OK Conversation resolved successfully", func() { k.end(conv, "") }}, nil
	case "DialogChange":
		if f.Type != "UPDATE" || f.Dialog.State != stateClose {
			return refused(errInvalid, "a dialog can only be closed, by an UPDATE")
		}
		if string(f.Dialog.ID) != conv.main.id {
			return refused(errNoConv, "no such dialog in this conversation")
		}
		return update{"OK Dialog closed successfully", func() { k.end(conv, f.Dialog.ClosedCause) }}, nil
	case "TTRField":
		value, ok := f.Value.number()
		if !slices.Contains(ttrTypes, f.TTRType) || !ok || value < 0 {
			return refused(errInvalid, "ttrType or value is wrong")
		}
		return update{updated, func() { conv.ttr = ttr{f.TTRType, value} }}, nil
	case "CSATRate":
		if f.Rate < 1 || f.Rate > 5 || !slices.Contains([]string{"FILLED", "PARTIALLY_FILLED", "SKIPPED"}, f.Status) {
			return refused(errInvalid, "csatRate must be 1 to 5, with a status")
		}
		csat := map[string]any{"field": "CSATRate", "csatRate": f.Rate, "status": f.Status}
		if f.Resolution != nil {
			csat["csatResolutionConfirmation"] = *f.Resolution
		}
		return update{updated, func() { conv.csat = json.RawMessage(frame(csat)) }}, nil
	case "Skill":
		if f.Type != "UPDATE" || f.Skill == "" || !goodSkill(string(f.Skill)) {
			return refused(errInvalid, "skill is not a skill's id, or type is not UPDATE")
		}
		return update{updated, func() {
			conv.skill = string(f.Skill)
			clear(conv.rejected) // another skill, other agents
		}}, nil
	case "ParticipantsChange":
		return k.checkParticipants(conv, f)
	default:
		return refused(errInvalid, "field is none that there is")
	}
}

// checkParticipants says whether an agent may be added, removed, suggested, or given another role.
func (k *caller) checkParticipants(conv *conversation, f fieldChange) (update, *reply) {
	refused := func(errorCode int, why string) (update, *reply) {
		a := refuse(errorCode, "%s", why)
		return update{}, &a
	}
	if !slices.Contains([]string{roleAssigned, roleManager, roleReader}, f.Role) {
		return refused(errInvalid, "role must be ASSIGNED_AGENT, MANAGER or READER")
	}
	who := k.who
	if f.UserID != "" {
		if who = k.account.byID[string(f.UserID)]; who == nil {
			return refused(errNoPerson, "no such agent")
		}
	}
	part := conv.participant(who)
	switch f.Type {
	case "ADD", "UPDATE":
		if f.Type == "UPDATE" && part == nil {
			return refused(errInvalid, "the agent takes no part in this conversation")
		}
		if in := conv.assigned(); f.Role == roleAssigned && in != nil && in != who {
			return refused(errInvalid, "another agent is assigned")
		}
		return update{"OK Agent added successfully", func() { conv.seat(who, f.Role, active) }}, nil
	case "SUGGEST":
		if f.Role != roleAssigned || f.UserID == "" {
			return refused(errInvalid, "only an agent can be suggested, as ASSIGNED_AGENT")
		}
		return update{"OK Agent suggested successfully", func() { conv.seat(who, f.Role, suggested) }}, nil
	case "REMOVE":
		if f.UserID == "" && f.Role == roleAssigned && conv.assigned() != nil {
			who = conv.assigned()
			part = conv.participant(who)
		}
		if part == nil || part.role != f.Role {
			return refused(errInvalid, "there is no such agent in this conversation")
		}
		return update{"OK Agent removed successfully", func() { conv.unseat(who) }}, nil
	default:
		return refused(errInvalid, "type must be ADD, REMOVE, UPDATE or SUGGEST")
	}
}

// seat gives an agent a role, instead of the one that he has.
func (conv *conversation) seat(who *person, role, state string) {
	if p := conv.participant(who); p != nil {
		p.role, p.state = role, state
		return
	}
	conv.participants = append(conv.participants, participant{who, role, state})
}

// unseat takes an agent out.
func (conv *conversation) unseat(who *person) {
	conv.participants = slices.DeleteFunc(conv.participants, func(p participant) bool { return p.who == who })
}

// end closes a conversation.
func (k *caller) end(conv *conversation, cause string) {
	if conv.state == stateClose {
		return
	}
	conv.state, conv.closedBy, conv.closedCause = stateClose, roleConsumer, "Closed by consumer"
	if k.who.agent {
		conv.closedBy, conv.closedCause = "AGENT", "Closed by agent"
	}
	if cause != "" {
		conv.closedCause = cause
	}
	conv.ended = k.s.now().UnixMilli()
	k.s.journal.conversation(k.account.id, conv.id, stateClose)
}
