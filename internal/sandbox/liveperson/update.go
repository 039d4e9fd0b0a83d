package liveperson

import (
	"slices"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/journal"
)

// A fieldChange is one element of conversationField, of any kind.
type fieldChange struct {
	Field  string   `json:"field"`
	Type   string   `json:"type"`
	State  string   `json:"conversationState"`
	Role   string   `json:"role"`
	UserID jsonText `json:"userId"`
	Dialog struct {
		ID          jsonText `json:"dialogId"`
		State       string   `json:"state"`
		ClosedCause string   `json:"closedCause"`
	} `json:"dialog"`
	TTRType string   `json:"ttrType"`
	Value   jsonText `json:"value"`
}

// An update is a valid change that has not been applied yet.
type update struct {
	answer string
	apply  func()
}

// A field is a field of a conversation that can be changed.
type field struct {
	// agents and consumers say who may change it.
	agents, consumers bool
	// check validates a change.
	check func(k *caller, conv *conversation, f fieldChange) (update, *Reply)
}

var fields = map[string]field{
	"ConversationStateField": {agents: true, consumers: true, check: (*caller).checkState},
	"DialogChange":           {agents: true, consumers: true, check: (*caller).checkDialog},
	"TTRField":               {consumers: true, check: (*caller).checkTTR},
	"ParticipantsChange":     {agents: true, check: (*caller).checkParticipants},
}

// updateConversation answers cm.UpdateConversationField. It applies all of the changes or none.
func (k *caller) updateConversation(c *call) Reply {
	var body struct {
		Conversation jsonText          `json:"conversationId"`
		Fields       List[fieldChange] `json:"conversationField"`
	}
	if err := c.decode(&body); err != nil {
		return Refuse(CodeInvalid, "the body has the wrong shape")
	}
	if body.Conversation == "" || len(body.Fields) == 0 {
		return Refuse(CodeMissing, "conversationId and conversationField are required")
	}
	conv := k.account.conversations[string(body.Conversation)]
	if conv == nil {
		return Refuse(CodeNoConversation, "no such conversation")
	}
	if !k.who.agent && conv.consumer.id != k.who.id {
		return Refuse(CodeForeign, "the conversation belongs to another consumer")
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
	k.s.conversationChanged(&c.b, conv, false)
	return text(200, updates[0].answer)
}

// refuseUpdate returns the refusal of a change.
func refuseUpdate(code int, details string) (update, *Reply) {
	a := Refuse(code, "%s", details)
	return update{}, &a
}

// check validates one change.
func (k *caller) check(conv *conversation, f fieldChange) (update, *Reply) {
	joins := f.Field == "ParticipantsChange" && f.Type == "ADD"
	field, known := fields[f.Field]
	switch {
	case known && (k.who.agent && !field.agents || !k.who.agent && !field.consumers):
		return refuseUpdate(CodeRole, "your role may not change "+f.Field)
	case k.who.agent && !joins && !k.who.admin && !conv.hasParticipant(k.who):
		return refuseUpdate(CodeForeign, "you are not a participant of this conversation")
	case conv.state == stateClosed:
		return refuseUpdate(CodeClosed, "the conversation is closed")
	case !known:
		return refuseUpdate(CodeInvalid, "field is not a known value")
	}
	return field.check(k, conv, f)
}

func (k *caller) checkState(conv *conversation, f fieldChange) (update, *Reply) {
	if f.State != stateClosed {
		return refuseUpdate(CodeInvalid, "conversationState can only become CLOSE")
	}
	return update{"OK Conversation resolved successfully", func() { k.end(conv, "") }}, nil
}

func (k *caller) checkDialog(conv *conversation, f fieldChange) (update, *Reply) {
	if f.Type != "UPDATE" || f.Dialog.State != stateClosed {
		return refuseUpdate(CodeInvalid, "a dialog can only be closed, by an UPDATE")
	}
	if string(f.Dialog.ID) != conv.main.id {
		return refuseUpdate(CodeNoConversation, "no such dialog in this conversation")
	}
	return update{"OK Dialog closed successfully", func() { k.end(conv, f.Dialog.ClosedCause) }}, nil
}

func (k *caller) checkTTR(conv *conversation, f fieldChange) (update, *Reply) {
	value, ok := f.Value.number()
	if !slices.Contains(ttrTypes, f.TTRType) || !ok || value < 0 {
		return refuseUpdate(CodeInvalid, "ttrType or value is invalid")
	}
	return update{"OK Conversation field updated successfully", func() { conv.ttr = ttr{f.TTRType, value} }}, nil
}

// checkParticipants validates adding or removing an agent, or changing an agent's role.
func (k *caller) checkParticipants(conv *conversation, f fieldChange) (update, *Reply) {
	if !slices.Contains([]string{roleAssigned, roleManager, roleReader}, f.Role) {
		return refuseUpdate(CodeInvalid, "role must be ASSIGNED_AGENT, MANAGER or READER")
	}
	who := k.who
	if f.UserID != "" {
		if who = k.account.agentsByID[string(f.UserID)]; who == nil {
			return refuseUpdate(CodeNoPerson, "no such agent")
		}
	}
	switch f.Type {
	case "ADD", "UPDATE":
		if f.Type == "UPDATE" && conv.participant(who) == nil {
			return refuseUpdate(CodeInvalid, "the agent is not a participant of this conversation")
		}
		if assigned := conv.assigned(); f.Role == roleAssigned && assigned != nil && assigned != who {
			return refuseUpdate(CodeInvalid, "another agent is assigned")
		}
		return update{"OK Agent added successfully", func() { conv.join(who, f.Role) }}, nil
	case "REMOVE":
		if f.UserID == "" && f.Role == roleAssigned && conv.assigned() != nil {
			who = conv.assigned()
		}
		if part := conv.participant(who); part == nil || part.role != f.Role {
			return refuseUpdate(CodeInvalid, "there is no such agent in this conversation")
		}
		return update{"OK Agent removed successfully", func() { conv.leave(who) }}, nil
	default:
		return refuseUpdate(CodeInvalid, "type must be ADD, REMOVE or UPDATE")
	}
}

// join makes an agent a participant, or changes the role of one.
func (conv *conversation) join(who *person, role string) {
	if p := conv.participant(who); p != nil {
		p.role = role
		return
	}
	conv.participants = append(conv.participants, participant{who, role})
}

// leave removes an agent.
func (conv *conversation) leave(who *person) {
	conv.participants = slices.DeleteFunc(conv.participants, func(p participant) bool { return p.who == who })
}

// end closes a conversation.
func (k *caller) end(conv *conversation, cause string) {
	if conv.state == stateClosed {
		return
	}
	conv.state, conv.closedBy, conv.closedCause = stateClosed, roleConsumer, "Closed by consumer"
	if k.who.agent {
		conv.closedBy, conv.closedCause = "AGENT", "Closed by agent"
	}
	if cause != "" {
		conv.closedCause = cause
	}
	conv.ended = k.s.now().UnixMilli()
	k.s.opts.Journal.Conversation(journal.ConversationChange{Account: k.account.id, ID: conv.id, State: stateClosed})
}
