package liveperson

import (
	"cmp"
	"slices"
	"strings"

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
	Skill   jsonText `json:"skill"`
	csat
}

// A csat is how satisfied the consumer was. Rate and resolved are nil if the consumer did not answer.
type csat struct {
	Rate     *int   `json:"csatRate,omitempty"`
	Resolved *bool  `json:"csatResolutionConfirmation,omitempty"`
	Status   string `json:"status"`
}

// complete reports whether the consumer has answered everything; LivePerson's notifications have no incomplete answers.
func (c *csat) complete() bool { return c != nil && c.Rate != nil && c.Resolved != nil }

// A field is a field of a conversation that can be changed.
type field struct {
	// agents and consumers say who may change it, afterwards whether it can be changed in a closed conversation.
	agents, consumers, afterwards bool
	// change validates a change and applies it to next, which is a copy of the conversation. It returns the text of the answer.
	change func(k *caller, next *conversation, f fieldChange) (string, *Reply)
}

var fields = map[string]field{
	"ConversationStateField": {agents: true, consumers: true, change: (*caller).changeState},
	"DialogChange":           {agents: true, consumers: true, change: (*caller).changeDialog},
	"TTRField":               {agents: true, consumers: true, change: (*caller).changeTTR},
	"CSATRate":               {consumers: true, afterwards: true, change: (*caller).changeCSAT},
	"Skill":                  {agents: true, change: (*caller).changeSkill},
	"ParticipantsChange":     {agents: true, change: (*caller).changeParticipants},
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
	next := *conv
	next.participants = slices.Clone(conv.participants)
	var answer string
	for _, f := range body.Fields {
		done, refusal := k.change(conv, &next, f)
		if refusal != nil {
			return *refusal
		}
		answer = cmp.Or(answer, done)
	}
	if next.count(roleAssigned) > 1 {
		return Refuse(CodeInvalid, "another agent is assigned")
	}
	closes := next.state != conv.state
	*conv = next
	if closes {
		k.s.opts.Journal.Conversation(journal.ConversationChange{
			Account: k.account.id, ID: conv.id, State: conv.state, Consumer: conv.consumer.id,
		})
	}
	conv.touch(k.s.now().UnixMilli())
	k.s.conversationChanged(&c.b, conv, false)
	k.s.ring(&c.b, conv)
	return text(200, answer)
}

// refuseUpdate returns the refusal of a change.
func refuseUpdate(code int, details string) (string, *Reply) {
	a := Refuse(code, "%s", details)
	return "", &a
}

// change validates one change of conv and applies it to next, to which earlier changes of the same request were applied.
func (k *caller) change(conv, next *conversation, f fieldChange) (string, *Reply) {
	joins := f.Field == "ParticipantsChange" && f.Type == "ADD"
	field, known := fields[f.Field]
	switch {
	case known && (k.who.agent && !field.agents || !k.who.agent && !field.consumers):
		return refuseUpdate(CodeRole, "your role may not change "+f.Field)
	case k.who.agent && !joins && !k.who.admin && !conv.hasParticipant(k.who) && !next.hasParticipant(k.who):
		return refuseUpdate(CodeForeign, "you are not a participant of this conversation")
	case conv.state == stateClosed && !field.afterwards:
		return refuseUpdate(CodeClosed, "the conversation is closed")
	case !known:
		return refuseUpdate(CodeInvalid, "field is not a known value")
	}
	return field.change(k, next, f)
}

func (k *caller) changeState(next *conversation, f fieldChange) (string, *Reply) {
	if f.State != stateClosed {
		return refuseUpdate(CodeInvalid, "conversationState can only become CLOSE")
	}
	k.end(next, "")
	return "OK Conversation resolved successfully", nil
}

func (k *caller) changeDialog(next *conversation, f fieldChange) (string, *Reply) {
	if f.Type != "UPDATE" || f.Dialog.State != stateClosed {
		return refuseUpdate(CodeInvalid, "a dialog can only be closed, by an UPDATE")
	}
	if string(f.Dialog.ID) != next.main.id {
		return refuseUpdate(CodeNoConversation, "no such dialog in this conversation")
	}
	k.end(next, f.Dialog.ClosedCause)
	return "OK Dialog closed successfully", nil
}

// updated is the text of the answer to a change that has no text of its own.
const updated = "OK Conversation field updated successfully"

func (k *caller) changeTTR(next *conversation, f fieldChange) (string, *Reply) {
	value, ok := f.Value.number()
	if !slices.Contains(ttrTypes, f.TTRType) || !ok || value < 0 {
		return refuseUpdate(CodeInvalid, "ttrType or value is invalid")
	}
	next.ttr = ttr{f.TTRType, value}
	return updated, nil
}

func (k *caller) changeCSAT(next *conversation, f fieldChange) (string, *Reply) {
	switch {
	case !slices.Contains([]string{"FILLED", "PARTIALLY_FILLED", "SKIPPED"}, f.Status):
		return refuseUpdate(CodeInvalid, "status must be FILLED, PARTIALLY_FILLED or SKIPPED")
	case f.Rate != nil && (*f.Rate < 1 || *f.Rate > 5):
		return refuseUpdate(CodeInvalid, "csatRate must be from 1 to 5")
	case f.Status == "FILLED" && !f.csat.complete():
		return refuseUpdate(CodeMissing, "csatRate and csatResolutionConfirmation are required")
	}
	next.csat = &f.csat
	return updated, nil
}

func (k *caller) changeSkill(next *conversation, f fieldChange) (string, *Reply) {
	if f.Type != "UPDATE" || f.Skill == "" || !goodSkill(string(f.Skill)) {
		return refuseUpdate(CodeInvalid, "a skill can only be set, by an UPDATE with a skill id")
	}
	next.skill = string(f.Skill)
	return updated, nil
}

// agentRoles are the roles in which an agent can take part in a conversation.
var agentRoles = []string{roleAssigned, roleAgent, roleManager, roleReader, roleController}

// changeParticipants adds or removes an agent, or changes an agent's role.
func (k *caller) changeParticipants(next *conversation, f fieldChange) (string, *Reply) {
	if !slices.Contains(agentRoles, f.Role) {
		return refuseUpdate(CodeInvalid, "role must be one of "+strings.Join(agentRoles, " "))
	}
	who := k.who
	if f.UserID != "" {
		if who = k.account.agentsByID[string(f.UserID)]; who == nil {
			return refuseUpdate(CodeNoPerson, "no such agent")
		}
	}
	switch f.Type {
	case "ADD", "UPDATE":
		if f.Type == "UPDATE" && next.participant(who) == nil {
			return refuseUpdate(CodeInvalid, "the agent is not a participant of this conversation")
		}
		next.join(who, f.Role)
		return "OK Agent added successfully", nil
	case "REMOVE":
		if f.UserID == "" && f.Role == roleAssigned && next.assigned() != nil {
			who = next.assigned()
		}
		if part := next.participant(who); part == nil || part.role != f.Role {
			return refuseUpdate(CodeInvalid, "there is no such agent in this conversation")
		}
		next.leave(who)
		return "OK Agent removed successfully", nil
	case "SUGGEST":
		if f.Role != roleAssigned || f.UserID == "" {
			return refuseUpdate(CodeInvalid, "an agent with a userId can be suggested as ASSIGNED_AGENT only")
		}
		next.suggested = who
		return "OK Agent suggested successfully", nil
	default:
		return refuseUpdate(CodeInvalid, "type must be ADD, REMOVE, UPDATE or SUGGEST")
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

// count returns the number of participants in a role.
func (conv *conversation) count(role string) (n int) {
	for _, p := range conv.participants {
		if p.role == role {
			n++
		}
	}
	return n
}

// end closes a conversation.
func (k *caller) end(conv *conversation, cause string) {
	if conv.state == stateClosed {
		return
	}
	conv.state, conv.closedBy, conv.closedCause = stateClosed, roleConsumer, "Closed by consumer"
	if k.who.agent {
		conv.closedBy, conv.closedCause = roleAgent, "Closed by agent"
	}
	if cause != "" {
		conv.closedCause = cause
	}
	conv.ended = k.s.now().UnixMilli()
}
