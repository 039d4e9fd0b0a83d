package sandbox

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
)

const (
	ringWaiting   = "WAITING"
	ringAccepted  = "ACCEPTED"
	ringRejected  = "REJECTED"
	ringCancelled = "CANCELLED"
	ringExpired   = "EXPIRED"

	stateOnline  = "ONLINE"
	stateOffline = "OFFLINE"
)

// ringLifetime is how long an agent may let a conversation ring.
const ringLifetime = 72 * time.Second

// availabilities are what an agent can set itself to.
var availabilities = []string{stateOnline, "OCCUPIED", "AWAY", "BACK_SOON", stateOffline}

// A ring offers a conversation to an agent. LivePerson rings one agent at a time; here it rings all at once, and the first to
// accept has it. Sandbox.mu guards it.
type ring struct {
	id      string
	conv    *conversation
	agent   *person
	state   string
	expires time.Time
	weight  int64
}

// subscribeRouting answers routing.SubscribeRoutingTasks.
func (k *socket) subscribeRouting(c *call) reply {
	for _, conv := range k.account.ordered {
		k.s.route(&c.b, conv, k) // before there is a subscription to tell of it, as the first notification will
	}
	id := uuid.NewString()
	k.routeSubs[id] = true
	initial := changes{SubscriptionID: id, Changes: []change{}}
	for _, r := range k.account.ringsOf(k.who) {
		initial.Changes = append(initial.Changes, change{"UPSERT", r.view()})
	}
	return reply{
		code: 200, typ: "routing.SubscribeRoutingTasksResponse", body: map[string]string{"subscriptionId": id},
		then: [][]byte{notification(".ams.routing.RoutingTaskNotification", initial)},
	}
}

// route rings for a conversation that nobody looks after, at every agent who is online, listens, and has not refused it.
// Those in listening are about to listen.
func (s *Sandbox) route(b *batch, conv *conversation, listening ...*socket) {
	if conv.state != stateOpen || conv.assigned() != nil {
		return
	}
	var only *person
	for _, p := range conv.participants {
		if p.state == suggested {
			only = p.who
		}
	}
	acct := conv.account
	for k := range acct.team {
		who := k.who
		if len(k.routeSubs) == 0 && !slices.Contains(listening, k) {
			continue
		}
		if acct.states[who.id] != stateOnline || conv.rejected[who.id] || (only != nil && only != who) {
			continue
		}
		if slices.ContainsFunc(acct.ringsOf(who), func(r *ring) bool { return r.conv == conv }) {
			continue
		}
		now := s.now()
		r := &ring{conv: conv, agent: who, state: ringWaiting, expires: now.Add(ringLifetime), weight: now.UnixMilli()}
		for at := now.UnixMilli(); r.id == "" || acct.rings[r.id] != nil; at++ {
			r.id = fmt.Sprintf("%s_%s_%d", conv.id, acct.id, at)
		}
		acct.rings[r.id] = r
		s.ringChanged(b, r)
	}
}

// assign gives a conversation that nobody looks after to an agent who is at hand, if the sandbox was asked to.
func (s *Sandbox) assign(conv *conversation) bool {
	if !s.opts.AutoAssign || conv.state != stateOpen || conv.assigned() != nil {
		return false
	}
	for k := range conv.account.team {
		if len(k.routeSubs) == 0 && k.ownOnly() && conv.participant(k.who) == nil {
			conv.seat(k.who, roleAssigned, active)
			conv.touch(s.now().UnixMilli())
			return true
		}
	}
	return false
}

// ownOnly reports whether the agent's socket subscribed to its own conversations, as somebody at work does.
func (k *socket) ownOnly() bool {
	for _, sub := range k.convSubs {
		if len(sub.agents) > 0 {
			return true
		}
	}
	return false
}

// ringsOf returns an agent's waiting rings, oldest first.
func (a *account) ringsOf(who *person) []*ring {
	var of []*ring
	for _, r := range a.rings {
		if r.agent == who {
			of = append(of, r)
		}
	}
	slices.SortFunc(of, func(x, y *ring) int { return x.expires.Compare(y.expires) })
	return of
}

// settle ends a ring.
func (s *Sandbox) settle(b *batch, r *ring, state string) {
	r.state = state
	delete(r.conv.account.rings, r.id)
	s.ringChanged(b, r)
}

// cancelRings ends all rings of a conversation.
func (s *Sandbox) cancelRings(b *batch, conv *conversation) {
	for _, r := range conv.account.rings {
		if r.conv == conv {
			s.settle(b, r, ringCancelled)
		}
	}
}

// expireRings ends the rings that nobody answered, and rings again.
func (s *Sandbox) expireRings(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b batch
	for _, acct := range s.accounts {
		for _, r := range acct.rings {
			if !now.Before(r.expires) {
				s.settle(&b, r, ringExpired)
				s.route(&b, r.conv)
			}
		}
	}
	b.send()
}

// ringChanged tells the agent's sockets that listen for rings.
func (s *Sandbox) ringChanged(b *batch, r *ring) {
	for k := range r.conv.account.here[r.agent.id] {
		for id := range k.routeSubs {
			b.add(k, notification(".ams.routing.RoutingTaskNotification", changes{
				SubscriptionID: id, Changes: []change{{"UPSERT", r.view()}},
			}))
		}
	}
}

// view tells of a ring.
func (r *ring) view() map[string]any {
	return map[string]any{
		"routingTaskId":  r.conv.id,
		"taskCompleted":  r.state != ringWaiting,
		"conversationId": r.conv.id,
		"consumerId":     r.conv.consumer.id,
		"skillId":        r.conv.skill,
		"brandId":        r.conv.account.id,
		"ringsDetails": []map[string]any{{
			"ringId": r.id, "ringState": r.state, "ringExpiration": ringLifetime.Milliseconds(),
			"ringExpirationTs": r.expires.UnixMilli(), "weight": r.weight, "convId": r.conv.id,
			"consumerId": r.conv.consumer.id, "skillId": r.conv.skill, "brandId": r.conv.account.id,
		}},
	}
}

// updateRing answers routing.UpdateRingState.
func (k *socket) updateRing(c *call) reply {
	var body struct {
		Ring  jsonText `json:"ringId"`
		State string   `json:"ringState"`
	}
	if err := c.decode(&body); err != nil {
		return refuse(errInvalid, "the body has the wrong shape")
	}
	if body.Ring == "" || (body.State != ringAccepted && body.State != ringRejected) {
		return refuse(errInvalid, "ringId is missing, or ringState neither ACCEPTED nor REJECTED")
	}
	r := k.account.rings[string(body.Ring)]
	if r == nil || r.agent != k.who {
		return refuse(errNoRing, "no such ring waits for you")
	}
	k.s.settle(&c.b, r, body.State)
	if body.State == ringRejected {
		r.conv.rejected[k.who.id] = true
		if p := r.conv.participant(k.who); p != nil && p.state == suggested {
			r.conv.unseat(k.who)
			k.s.conversationChanged(&c.b, r.conv, false)
			k.s.route(&c.b, r.conv)
		}
	} else {
		k.s.cancelRings(&c.b, r.conv)
		r.conv.seat(k.who, roleAssigned, active)
		r.conv.touch(k.s.now().UnixMilli())
		k.s.conversationChanged(&c.b, r.conv, false)
	}
	return say(202, "Ring state updated successfully")
}

// setState answers routing.SetAgentState.
func (k *socket) setState(c *call) reply {
	var body struct {
		Availability string `json:"availability"`
	}
	if err := c.decode(&body); err != nil || !slices.Contains(availabilities, body.Availability) {
		return refuse(errInvalid, "availability is none that there is")
	}
	k.s.setAgentState(&c.b, k.account, k.who, body.Availability)
	return say(202, "Agent state updated successfully")
}

// setAgentState notes whether an agent is there, tells its sockets, and rings or stops ringing.
func (s *Sandbox) setAgentState(b *batch, acct *account, who *person, availability string) {
	acct.states[who.id] = availability
	for k := range acct.here[who.id] {
		for id := range k.stateSubs {
			b.add(k, stateNotice(id, who, availability))
		}
	}
	if availability != stateOnline {
		for _, r := range acct.ringsOf(who) {
			s.settle(b, r, ringCancelled)
		}
		return
	}
	for _, conv := range acct.ordered {
		s.route(b, conv)
	}
}

// subscribeStates answers routing.SubscribeAgentsState.
func (k *socket) subscribeStates(c *call) reply {
	id := uuid.NewString()
	k.stateSubs[id] = true
	state := k.account.states[k.who.id]
	if state == "" {
		state = stateOffline
	}
	return reply{
		code: 200, typ: "routing.SubscribeAgentsStateResponse", body: map[string]string{"subscriptionId": id},
		then: [][]byte{stateNotice(id, k.who, state)},
	}
}

func stateNotice(subscription string, who *person, availability string) []byte {
	return notification(".ams.routing.AgentStateNotification", changes{
		SubscriptionID: subscription,
		Changes: []change{{"UPSERT", map[string]any{
			"channels": []string{"MESSAGING"}, "availability": availability, "description": "", "agentUserId": who.oldID,
		}}},
	})
}
