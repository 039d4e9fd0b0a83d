package liveperson

import (
	"fmt"

	"github.com/google/uuid"
)

const (
	ringWaiting   = "WAITING"
	ringAccepted  = "ACCEPTED"
	ringRejected  = "REJECTED"
	ringCancelled = "CANCELLED"
)

// A ring offers a conversation without an assigned agent to one agent. It does not expire. Service.mu guards it.
type ring struct {
	id    string
	conv  *conversation
	agent *person
	state string
}

// A routingTask is a conversation that needs an agent, as that agent sees it.
type routingTask struct {
	ID             string     `json:"routingTaskId"`
	Completed      bool       `json:"taskCompleted"`
	ConversationID string     `json:"conversationId"`
	ConsumerID     string     `json:"consumerId"`
	SkillID        string     `json:"skillId"`
	Rings          []ringView `json:"ringsDetails"`
}

type ringView struct {
	ID         string `json:"ringId"`
	State      string `json:"ringState"`
	Weight     int64  `json:"weight"`
	ConvID     string `json:"convId"`
	ConsumerID string `json:"consumerId"`
	SkillID    string `json:"skillId"`
}

// view returns the notification's entry for a ring.
func (r *ring) view() change {
	conv := r.conv
	return change{"UPSERT", routingTask{
		ID: conv.id, Completed: r.state != ringWaiting, ConversationID: conv.id, ConsumerID: conv.consumer.id, SkillID: conv.skill,
		Rings: []ringView{{r.id, r.state, conv.started, conv.id, conv.consumer.id, conv.skill}},
	}}
}

// subscribeRoutingTasks answers routing.SubscribeRoutingTasks. The first notification has the rings that wait for the agent.
func (k *socket) subscribeRoutingTasks() Reply {
	id := uuid.NewString()
	k.ringSubs[id] = true
	waiting := changes{SubscriptionID: id, Changes: []change{}}
	for _, conv := range k.account.ordered {
		k.s.offer(conv, k.who)
		if r := conv.ringOf(k.who); r != nil && r.state == ringWaiting {
			waiting.Changes = append(waiting.Changes, r.view())
		}
	}
	return Reply{
		Code: 200, Type: "routing.SubscribeRoutingTasksResponse", Body: map[string]string{"subscriptionId": id},
		then: [][]byte{notification(ringNotification, waiting)},
	}
}

const ringNotification = ".ams.routing.RoutingTaskNotification"

// updateRing answers routing.UpdateRingState, by which an agent accepts or rejects a ring.
func (k *socket) updateRing(c *call) Reply {
	var body struct {
		ID    jsonText `json:"ringId"`
		State string   `json:"ringState"`
	}
	if err := c.decode(&body); err != nil || body.State != ringAccepted && body.State != ringRejected {
		return Refuse(CodeInvalid, "ringState must be ACCEPTED or REJECTED")
	}
	r := k.account.rings[string(body.ID)]
	switch {
	case r == nil || r.agent != k.who:
		return Refuse(CodeNoRing, "no such ring")
	case r.state != ringWaiting:
		return Refuse(CodeInvalid, "the ring is no longer waiting")
	}
	r.state = body.State
	k.s.notifyRing(&c.b, r)
	if r.state == ringAccepted {
		r.conv.join(k.who, roleAssigned)
		r.conv.touch(k.s.now().UnixMilli())
		k.s.conversationChanged(&c.b, r.conv, false)
		k.s.ring(&c.b, r.conv)
	}
	return text(202, "Ring state updated successfully")
}

// ring offers a conversation to all available agents if it is open and has no assigned agent; otherwise it cancels the rings that
// wait.
func (s *Service) ring(b *batch, conv *conversation) {
	if conv.state == stateOpen && conv.assigned() == nil {
		for k := range conv.account.agentSockets {
			s.notifyRing(b, s.offer(conv, k.who))
		}
		return
	}
	if conv.assigned() == conv.suggested {
		conv.suggested = nil
	}
	for _, r := range conv.rings {
		if r.state == ringWaiting {
			r.state = ringCancelled
			s.notifyRing(b, r)
		}
	}
}

// offer returns a new ring for a conversation at one agent, or nil if the conversation has an assigned agent or already waits for
// this one, another one is suggested, or the agent is not available or has rejected it.
func (s *Service) offer(conv *conversation, agent *person) *ring {
	acct := conv.account
	if conv.state != stateOpen || conv.assigned() != nil || acct.states[agent.id] != online || !acct.routed(agent) {
		return nil
	}
	if conv.suggested != nil && conv.suggested != agent {
		return nil
	}
	if last := conv.ringOf(agent); last != nil && (last.state == ringWaiting || last.state == ringRejected) {
		return nil
	}
	r := &ring{id: fmt.Sprintf("c_%s_%d", acct.id, len(acct.rings)+1), conv: conv, agent: agent, state: ringWaiting}
	acct.rings[r.id] = r
	conv.rings = append(conv.rings, r)
	return r
}

// routed reports whether an agent has subscribed to routing tasks.
func (a *account) routed(agent *person) bool {
	for k := range a.present[agent.id] {
		if len(k.ringSubs) > 0 {
			return true
		}
	}
	return false
}

// ringOf returns the last ring for the conversation at an agent, or nil.
func (conv *conversation) ringOf(agent *person) *ring {
	for i := len(conv.rings) - 1; i >= 0; i-- {
		if conv.rings[i].agent == agent {
			return conv.rings[i]
		}
	}
	return nil
}

// notifyRing sends the state of a ring, if there is one, to the agent's subscriptions.
func (s *Service) notifyRing(b *batch, r *ring) {
	if r == nil {
		return
	}
	for k := range r.conv.account.present[r.agent.id] {
		for id := range k.ringSubs {
			b.add(k, notification(ringNotification, changes{SubscriptionID: id, Changes: []change{r.view()}}))
		}
	}
}
