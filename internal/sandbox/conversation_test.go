package sandbox

import (
	"fmt"
	"testing"
)

const changed = "cqm.ExConversationChangeNotification"

func TestConversation(t *testing.T) {
	s := start(t, Options{})
	token := signUp(t, s)
	w := consumer(t, s, token, "Client-Properties", `{"type":".ClientProperties","deviceFamily":"DESKTOP","features":["PHOTO_SHARING","FILE_SHARING"]}`)

	// A subscription sends a notification even if there is no conversation.
	sub := w.ok("cqm.SubscribeExConversations", `{"minLastUpdatedTime":0,"convState":["OPEN","CLOSE"]}`).text("body.subscriptionId")
	first := w.note(changed)
	first.want(t, "body.subscriptionId", sub)
	first.want(t, "body.changes", "[]")

	d := w.ok("cm.ConsumerRequestConversation", `{"brandId":"12345678","channelType":"MESSAGING","ttrDefName":"URGENT","skillId":"-1",
		"campaignInfo":{"campaignId":"99999","engagementId":888888},
		"conversationContext":{"type":"SharkContext","lang":"en-US","interactionContextId":2,"features":["RICH_CONTENT"]}}`)
	d.want(t, "type", "cm.RequestConversationResponse")
	conv := d.text("body.conversationId")
	n := w.note(changed)
	n.want(t, "body.subscriptionId", sub)
	n.want(t, "body.changes.0.type", "UPSERT")
	n.want(t, "body.changes.0.result.convId", conv)
	details := dict(n.at("body.changes.0.result.conversationDetails").(map[string]any))
	for path, want := range map[string]any{
		"state": "OPEN", "stage": "OPEN", "brandId": acct, "skillId": "-1", "ttr.ttrType": "URGENT", "firstConversation": true,
		"participants.0.role": "CONSUMER", "participants.0.id": claimsOf(t, token).text("sub"),
		"dialogs.0.dialogId": conv, "dialogs.0.dialogType": "MAIN", "dialogs.0.participantsDetails.0.state": "ACTIVE",
		"campaignInfo.campaignId": "99999", "campaignInfo.engagementId": 888888, "context.lang": "en-US",
		"context.features": "[RICH_CONTENT]", "context.clientProperties.features": "[PHOTO_SHARING FILE_SHARING]",
	} {
		details.want(t, path, want)
	}

	// A list may be one bare element.
	close := fmt.Sprintf(`{"conversationId":%q,"conversationField":{"field":"ConversationStateField","conversationState":"CLOSE"}}`, conv)
	speed := fmt.Sprintf(`{"conversationId":%q,"conversationField":[{"field":"TTRField","ttrType":"PRIORITIZED","value":60}]}`, conv)
	w.ok("cm.UpdateConversationField", speed)
	w.note(changed).want(t, "body.changes.0.result.conversationDetails.ttr.value", 60)
	d = w.ok("cm.UpdateConversationField", close)
	d.want(t, "body", "OK Conversation resolved successfully")
	d.want(t, "type", ".ReqBody$StringResp")
	n = w.note(changed)
	n.want(t, "body.changes.0.type", "UPSERT")
	n.want(t, "body.changes.0.result.conversationDetails.state", "CLOSE")
	n.want(t, "body.changes.0.result.conversationDetails.closeReason", "CONSUMER")
	n.want(t, "body.changes.0.result.conversationDetails.dialogs.0.closedBy", "CONSUMER")
	w.refused(40004, "cm.UpdateConversationField", close)

	w.ok("cqm.UnsubscribeExConversations", fmt.Sprintf(`{"subscriptionId":%q}`, sub))
	w.refused(40403, "cqm.UnsubscribeExConversations", fmt.Sprintf(`{"subscriptionId":%q}`, sub))
	second := w.conversation()
	w.quiet(changed)

	dialog := fmt.Sprintf(`{"conversationId":%q,"conversationField":{"field":"DialogChange","type":"UPDATE","dialog":{"dialogId":%q,"state":"CLOSE","closedCause":"Enough"}}}`, second, second)
	w.ok("cm.UpdateConversationField", dialog)

	states := []string{}
	for _, c := range s.Journal().Conversations {
		states = append(states, c.State)
	}
	if fmt.Sprint(states) != "[OPEN CLOSE OPEN CLOSE]" {
		t.Errorf("journal: %v", states)
	}
}

func TestConversation_Filters(t *testing.T) {
	c := newClock()
	s := start(t, Options{Now: c.Now})
	w := consumer(t, s, signUp(t, s))
	closed, open := w.conversation(), ""
	end := func(conv string) {
		w.ok("cm.UpdateConversationField", fmt.Sprintf(`{"conversationId":%q,"conversationField":{"field":"ConversationStateField","conversationState":"CLOSE"}}`, conv))
	}
	end(closed)
	c.advance(1e9)
	later := c.Now().UnixMilli()
	open = w.conversation()
	for _, f := range []struct {
		filter string
		want   []string
	}{
		{`{}`, []string{closed, open}},
		{`{"convState":["OPEN"]}`, []string{open}},
		{`{"convState":"CLOSE"}`, []string{closed}},
		{`{"stage":["OPEN"]}`, []string{open}},
		{fmt.Sprintf(`{"minLastUpdatedTime":%d}`, later), []string{open}},
		{fmt.Sprintf(`{"minLastUpdatedTime":"%d"}`, later+5000), nil},
	} {
		id := w.ok("cqm.SubscribeExConversations", f.filter).text("body.subscriptionId")
		var got []string
		for _, change := range w.note(changed).at("body.changes").([]any) {
			got = append(got, dict(change.(map[string]any)).text("result.convId"))
		}
		if fmt.Sprint(got) != fmt.Sprint(f.want) {
			t.Errorf("%s: %v, want %v", f.filter, got, f.want)
		}
		w.ok("cqm.UnsubscribeExConversations", fmt.Sprintf(`{"subscriptionId":%q}`, id))
	}
	w.refused(40002, "cqm.SubscribeExConversations", `{"convState":["AJAR"]}`)
	w.refused(40002, "cqm.SubscribeExConversations", `{"minLastUpdatedTime":-1}`)

	// A conversation that no longer matches is deleted.
	w.ok("cqm.SubscribeExConversations", `{"convState":["OPEN"]}`)
	w.note(changed)
	end(open)
	w.note(changed).want(t, "body.changes.0.type", "DELETE")

	// A later update has a later time even if the clock does not advance.
	conv := w.conversation()
	last := 0.0
	for range 3 {
		at := w.note(changed).at("body.changes.0.result.conversationDetails.metaDataLastUpdateTs").(float64)
		if at <= last {
			t.Errorf("update of %v after update of %v", at, last)
		}
		last = at
		w.ok("cm.UpdateConversationField", fmt.Sprintf(`{"conversationId":%q,"conversationField":{"field":"TTRField","ttrType":"NORMAL","value":1}}`, conv))
	}
}

func TestConversation_Refusals(t *testing.T) {
	s := start(t, Options{})
	w, other := consumer(t, s, signUp(t, s)), consumer(t, s, signUp(t, s))
	conv := w.conversation()
	for body, want := range map[string]int{
		`[]`:                               40002,
		`{"brandId":"87654321"}`:           40002,
		`{"channelType":"FAX"}`:            40002,
		`{"skillId":"12345678901"}`:        40002,
		`{"ttrDefName":"SLOW"}`:            40002,
		`{"conversationContext":"string"}`: 40002,
		`{"campaignInfo":["one","two"]}`:   40002,
	} {
		w.refused(want, "cm.ConsumerRequestConversation", body)
	}
	field := func(conv, field string) string {
		return fmt.Sprintf(`{"conversationId":%q,"conversationField":%s}`, conv, field)
	}
	for body, want := range map[string]int{
		`{}`:              40001,
		field(conv, `[]`): 40001,
		field("nope", `{"field":"ConversationStateField","conversationState":"CLOSE"}`):                   40401,
		field(conv, `{"field":"ConversationStateField","conversationState":"OPEN"}`):                      40002,
		field(conv, `{"field":"Weather"}`):                                                                40002,
		field(conv, `{"field":"TTRField","ttrType":"NORMAL","value":-1}`):                                 40002,
		field(conv, `{"field":"ParticipantsChange","type":"ADD","role":"MANAGER"}`):                       40304,
		field(conv, `{"field":"DialogChange","type":"UPDATE","dialog":{"dialogId":"x","state":"CLOSE"}}`): 40401,
	} {
		w.refused(want, "cm.UpdateConversationField", body)
	}
	other.refused(40302, "cm.UpdateConversationField", field(conv, `{"field":"ConversationStateField","conversationState":"CLOSE"}`))

	// No change is applied if one is refused.
	w.refused(40002, "cm.UpdateConversationField", field(conv, `[{"field":"ConversationStateField","conversationState":"CLOSE"},{"field":"Weather"}]`))
	w.publishText(conv, "still open")

	// A consumer's list does not have conversations of others.
	other.ok("cqm.SubscribeExConversations", "{}")
	other.note(changed).want(t, "body.changes", "[]")
}

func TestUserProfile(t *testing.T) {
	s := start(t, Options{})
	token := signUp(t, s)
	w := consumer(t, s, token)
	w.ok("userprofile.SetUserProfile", `{"firstName":"Jo","privateData":{"mail":"jo@example.com"}}`).want(t, "type", ".ReqBody$StringResp")
	w.ok("userprofile.SetUserProfile", "")
	w.ok("userprofile.SetUserProfile", `{"firstName":"Jo"}`)
	w.refused(40002, "userprofile.SetUserProfile", `"Jo"`)

	a := agent(t, s, logIn(t, s, "ann"))
	id := claimsOf(t, token).text("sub")
	for _, body := range []string{fmt.Sprintf("%q", id), fmt.Sprintf(`{"userId":%q}`, id)} {
		d := a.ok(".ams.userprofile.GetUserProfile", body)
		d.want(t, "type", ".ams.userprofile.GetUserProfile$Response")
		d.want(t, "body.firstName", "Jo")
		d.want(t, "body.claims.lp_sdes", "[]")
	}
	a.ok(".ams.userprofile.GetUserProfile", "{}")
	a.refused(40405, ".ams.userprofile.GetUserProfile", `"nobody"`)
}
