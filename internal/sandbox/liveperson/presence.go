package liveperson

import (
	"slices"

	"github.com/google/uuid"
)

const (
	online  = "ONLINE"
	offline = "OFFLINE"
)

// availabilities are the values of an agent's state.
var availabilities = []string{online, "OCCUPIED", "AWAY", "BACK_SOON", offline}

// setState answers routing.SetAgentState.
func (k *socket) setState(c *call) Reply {
	var body struct {
		Availability string `json:"availability"`
	}
	if err := c.decode(&body); err != nil || !slices.Contains(availabilities, body.Availability) {
		return Refuse(CodeInvalid, "availability is not a known value")
	}
	k.s.setAgentState(&c.b, k.account, k.who, body.Availability)
	for _, conv := range k.account.ordered {
		k.s.notifyRing(&c.b, k.s.offer(conv, k.who))
	}
	return text(202, "Agent state updated successfully")
}

// setAgentState sets an agent's availability and notifies the agent's sockets.
func (s *Service) setAgentState(b *batch, acct *account, who *person, availability string) {
	acct.states[who.id] = availability
	for k := range acct.present[who.id] {
		for id := range k.stateSubs {
			b.add(k, stateNotification(id, who, availability))
		}
	}
}

// subscribeStates answers routing.SubscribeAgentsState.
func (k *socket) subscribeStates() Reply {
	id := uuid.NewString()
	k.stateSubs[id] = true
	state := k.account.states[k.who.id]
	if state == "" {
		state = offline
	}
	return Reply{
		Code: 200, Type: "routing.SubscribeAgentsStateResponse", Body: map[string]string{"subscriptionId": id},
		then: [][]byte{stateNotification(id, k.who, state)},
	}
}

func stateNotification(subscription string, who *person, availability string) []byte {
	return notification(".ams.routing.AgentStateNotification", changes{
		SubscriptionID: subscription,
		Changes: []change{{"UPSERT", map[string]any{
			"channels": []string{"MESSAGING"}, "availability": availability, "description": "", "agentUserId": who.oldID,
		}}},
	})
}

// assign assigns an unassigned conversation to an agent who subscribes to their own conversations, if Options.AutoAssign is set.
// It reports whether it did.
func (s *Service) assign(conv *conversation) bool {
	if !s.opts.AutoAssign || conv.state != stateOpen || conv.assigned() != nil {
		return false
	}
	for k := range conv.account.agentSockets {
		if k.ownOnly() && conv.participant(k.who) == nil {
			conv.join(k.who, roleAssigned)
			conv.touch(s.now().UnixMilli())
			return true
		}
	}
	return false
}

// ownOnly reports whether the agent's socket has a subscription to its own conversations, as a working agent has.
func (k *socket) ownOnly() bool {
	for _, sub := range k.convSubs {
		if len(sub.agents) > 0 {
			return true
		}
	}
	return false
}
