package sandbox

import (
	"fmt"
	"strings"
	"testing"
)

const (
	brandChanged = ".ams.aam.ExConversationChangeNotification"
	live         = ".ams.ms.OnlineEventDistribution"
)

// participants returns an update of a conversation's participants.
func participants(conv, members string) string {
	return fmt.Sprintf(`{"conversationId":%q,"conversationField":[{"field":"ParticipantsChange",%s}]}`, conv, members)
}

func TestAgent_Upgrade(t *testing.T) {
	s := start(t, Options{Accounts: []string{acct, "87654321"}})
	in := logIn(t, s, "ann")
	path := "/ws_api/account/" + acct + "/messaging/brand/" + in.text("bearer")
	dial(t, s, path+"?v=2").ok(".GetClock", "{}")
	dial(t, s, path+"?v=2.1").ok(".GetClock", "{}")
	for bad, want := range map[string]int{
		path + "?v=3": 404,
		path:          404,
		strings.Replace(path, in.text("bearer"), "wrong", 1) + "?v=2.1": 401,
		strings.Replace(path, acct, "87654321", 1) + "?v=2.1":           401,
	} {
		if _, resp, err := tryDial(t, s, bad); err == nil || resp == nil || resp.StatusCode != want {
			t.Errorf("%s: %v %v, want %d", bad, resp, err, want)
		}
	}
}

func TestAgent_Conversation(t *testing.T) {
	s := start(t, Options{})
	token := signUp(t, s)
	w := consumer(t, s, token)
	conv := w.conversation()
	who := claimsOf(t, token).text("sub")
	w.publishText(conv, "hello")
	w.note(events)

	in := logIn(t, s, "ann")
	oldID, pid := acct+"."+in.text("config.userId"), in.text("config.userPid")
	a := agent(t, s, in)
	a.ok(".ams.aam.SubscribeExConversations", fmt.Sprintf(`{"convState":["OPEN"],"agentIds":[%q]}`, oldID))
	a.note(brandChanged).want(t, "body.changes", "[]") // no conversation of this agent yet
	all := a.ok(".ams.aam.SubscribeExConversations", `{"convState":["OPEN"]}`).text("body.subscriptionId")
	a.note(brandChanged).want(t, "body.changes.0.result.convId", conv)
	a.ok(".ams.aam.UnsubscribeExConversations", fmt.Sprintf(`{"subscriptionId":%q}`, all))

	a.refused(40302, ".ams.ms.PublishEvent", textEvent(conv, "not a participant yet"))
	a.ok(".ams.cm.UpdateConversationField", participants(conv, fmt.Sprintf(`"type":"ADD","role":"MANAGER","userId":%q`, oldID))).
		want(t, "body", "OK Agent added successfully")
	n := a.note(brandChanged)
	details := dict(n.at("body.changes.0.result.conversationDetails").(map[string]any))
	details.want(t, "participants.MANAGER.0", oldID)
	details.want(t, "participants.CONSUMER.0", who)
	details.want(t, "participantsPId.MANAGER.0", pid)
	details.want(t, "dialogs.0.participantsDetails.1.id", oldID)
	details.want(t, "dialogs.0.channelType", "MESSAGING")
	n.want(t, "body.changes.0.result.lastContentEventNotification.event.message", "hello")

	// The answer to a query has the backlog. Later events arrive as notifications, with both ids of the originator.
	d := a.ok(".ams.ms.QueryMessages", fmt.Sprintf(`{"dialogId":%q,"newerThanSequence":0}`, conv))
	d.want(t, "type", ".ams.ms.QueryMessages$Response")
	d.want(t, "body.0.event.message", "hello")
	d.want(t, "body.0.originatorPId", who)
	a.ok("ms.PublishEvent", textEvent(conv, "hello yourself"))
	n = a.note(live)
	n.want(t, "body.originatorId", oldID)
	n.want(t, "body.originatorPId", pid)
	n.want(t, "body.sequence", 1)
	n.want(t, "body.dialogId", conv)
	n = w.note(events)
	n.want(t, "body.changes.0.originatorId", pid)
	n.want(t, "body.changes.0.originatorMetadata.role", "MANAGER")
	n.want(t, "body.changes.0.originatorPId", nil)

	// Consumers do not get messages for agents.
	a.ok(".ams.ms.PublishEvent", fmt.Sprintf(`{"dialogId":%q,"messageAudience":"AGENTS_AND_MANAGERS","event":{"type":"ContentEvent","contentType":"text/plain","message":"for agents"}}`, conv))
	a.note(live).want(t, "body.messageAudience", "AGENTS_AND_MANAGERS")
	w.quiet(events)
	if n := w.ok("ms.QueryMessages", fmt.Sprintf(`{"dialogId":%q}`, conv)).at("body").([]any); len(n) != 2 {
		t.Errorf("the consumer sees %d events", len(n))
	}

	// Both can send files.
	sent := w.upload(s, "JPG", jpeg)
	a.refused(40402, ".ams.ms.GenerateURLForDownloadFile", fmt.Sprintf(`{"relativePath":%q}`, sent))
	w.ok("ms.PublishEvent", fileEvent(conv, sent, "JPG"))
	a.ok(".ams.ms.GenerateURLForDownloadFile", fmt.Sprintf(`{"relativePath":%q}`, sent)).want(t, "type", "ms.BaseGenerateURLResponse")
	reply := a.upload(s, "JPEG", jpeg)
	a.ok(".ams.ms.PublishEvent", fileEvent(conv, reply, "JPEG"))
	w.ok("ms.GenerateURLForDownloadFile", fmt.Sprintf(`{"relativePath":%q}`, reply))
	secret := a.upload(s, "JPEG", jpeg)
	a.ok("ms.PublishEvent", strings.Replace(fileEvent(conv, secret, "JPEG"), `{"dialogId"`, `{"messageAudience":"AGENTS_AND_MANAGERS","dialogId"`, 1))
	w.refused(40402, "ms.GenerateURLForDownloadFile", fmt.Sprintf(`{"relativePath":%q}`, secret))

	// Notifications report when the consumer disconnects and returns; they are not stored.
	_ = w.conn.Close()
	presence := func(state string) {
		t.Helper()
		a.expect(state, func(d dict) bool { return d["type"] == live && d.text("body.event.chatState") == state })
	}
	presence("BACKGROUND")
	consumer(t, s, token)
	presence("ACTIVE")

	a.refused(40002, ".ams.cm.UpdateConversationField", participants(conv, `"type":"REMOVE","role":"ASSIGNED_AGENT"`))
	a.ok(".ams.cm.UpdateConversationField", participants(conv, `"type":"REMOVE","role":"MANAGER"`)).want(t, "body", "OK Agent removed successfully")
	a.expect("DELETE", func(d dict) bool { return d["type"] == brandChanged && d.text("body.changes.0.type") == "DELETE" })
	a.refused(40302, "ms.PublishEvent", textEvent(conv, "no longer a participant"))
}

func TestAgent_Subscription(t *testing.T) {
	s := start(t, Options{})
	w := consumer(t, s, signUp(t, s))
	conv := w.conversation()
	w.publishText(conv, "before")
	a := agent(t, s, logIn(t, s, "ann"))
	w.publishText(conv, "before the subscription")
	a.quiet(live)
	a.ok("ms.SubscribeMessagingEvents", fmt.Sprintf(`{"dialogId":%q,"fromSeq":0}`, conv)).want(t, "type", ".ams.GenericSubscribe$Response")
	a.note(events).want(t, "body.changes.1.event.message", "before the subscription")
	w.publishText(conv, "after")
	a.note(live).want(t, "body.event.message", "after")
}

func TestAgent_RequestConversation(t *testing.T) {
	s := start(t, Options{})
	token := signUp(t, s)
	w := consumer(t, s, token)
	w.ok("cqm.SubscribeExConversations", "{}")
	w.note(changed)
	a := agent(t, s, logIn(t, s, "ann"))
	conv := a.ok(".ams.cm.AgentRequestConversation", fmt.Sprintf(`{"consumerId":%q,"channelType":"MESSAGING"}`, claimsOf(t, token).text("sub"))).text("body.conversationId")
	n := w.note(changed)
	n.want(t, "body.changes.0.result.convId", conv)
	n.want(t, "body.changes.0.result.conversationDetails.participants.1.role", "ASSIGNED_AGENT")
	a.publishText(conv, "hello")
	w.note(events)
	a.refused(40405, ".ams.cm.AgentRequestConversation", `{"consumerId":"nobody"}`)
	a.refused(40001, ".ams.cm.AgentRequestConversation", `{}`)
}

func TestAgent_State(t *testing.T) {
	s := start(t, Options{})
	a := agent(t, s, logIn(t, s, "ann"))
	const state = ".ams.routing.AgentStateNotification"
	a.ok(".ams.routing.SubscribeAgentsState", "{}")
	a.note(state).want(t, "body.changes.0.result.availability", "OFFLINE")
	d := a.ok(".ams.routing.SetAgentState", `{"availability":"ONLINE","channels":["MESSAGING"]}`)
	d.want(t, "code", 202)
	d.want(t, "body", "Agent state updated successfully")
	a.note(state).want(t, "body.changes.0.result.availability", "ONLINE")
	a.refused(40002, "routing.SetAgentState", `{"availability":"ASLEEP"}`)
}

func TestAgent_Assignment(t *testing.T) {
	s := start(t, Options{})
	w := consumer(t, s, signUp(t, s))
	conv := w.conversation()
	a, b := agent(t, s, logIn(t, s, "ann")), agent(t, s, logIn(t, s, "bob"))
	a.ok("cm.UpdateConversationField", participants(conv, `"type":"ADD","role":"ASSIGNED_AGENT"`))
	a.publishText(conv, "hello")
	w.note(events).want(t, "body.changes.0.originatorMetadata.role", "ASSIGNED_AGENT")
	b.refused(40002, "cm.UpdateConversationField", participants(conv, `"type":"ADD","role":"ASSIGNED_AGENT"`))
	a.ok("cm.UpdateConversationField", participants(conv, `"type":"REMOVE","role":"ASSIGNED_AGENT"`)).
		want(t, "body", "OK Agent removed successfully")
	b.ok("cm.UpdateConversationField", participants(conv, `"type":"ADD","role":"ASSIGNED_AGENT"`))
	a.refused(40302, "ms.PublishEvent", textEvent(conv, "removed"))
}
