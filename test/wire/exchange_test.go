package wire

import (
	"strings"
	"testing"
)

// TestChecker_DocumentedExchanges checks LivePerson's documented exchanges of the Connector API, and invalid variants of them.
func TestChecker_DocumentedExchanges(t *testing.T) {
	const (
		profile = `{"kind":"req","id":"1,","type":"userprofile.SetUserProfile","body":{"firstName":"Joe"}}`
		begin   = `{"kind":"req","id":"2,","type":"cm.ConsumerRequestConversation","body":{"brandId":"12345678","channelType":"MESSAGING"}}`
		set     = `{"code":"OK","body":{"msg":"OK User Profile set successfully"},"reqId":"1,"}`
		begun   = `{"code":"OK","body":{"conversationId":"8602832d-dce1-446b-8445-0d51f5926a42"},"reqId":"2,"}`
		batch   = `[` + profile + `,` + begin + `]`
		answers = `[` + set + `,` + begun + `]`
		say     = `{"kind":"req","id":"1","type":"ms.PublishEvent","body":{"dialogId":"c","event":{"type":"ContentEvent","contentType":"text/plain","message":"hi"}}}`
		said    = `{"reqId":"1","code":"OK","body":{"sequence":0}}`
		upload  = `{"kind":"req","id":"3","type":"ms.GenerateURLForUploadFile","body":{"fileSize":"1000","fileType":"PNG"}}`
		url     = `{"code":"OK","reqId":"3","body":{"relativePath":"/v1/AUTH_async-images/64467156/x_04-06-2018_04-10-59-845.PNG","queryParams":{"temp_url_sig":"0cff08d2d5618d100bc1353f32872c002180711f","temp_url_expires":"1528099919"}}}`
		closing = `{"kind":"req","id":"1","type":"cm.UpdateConversationField","body":{"conversationId":"c","conversationField":{"field":"ConversationStateField","conversationState":"CLOSE"}}}`
		closed  = `{"code":"OK","body":{"msg":"OK Conversation resolved successfully"},"reqId":"1"}`
		missing = `{"code":401,"body":{"title":"AppJWT is missing","details":"AUTHORIZATION header is not present","errorCode":40105},"kind":"resp","type":".ReqBody$ErrorResp"}`
		token   = `{"access_token":"e30.e30.c2ln","token_type":"Bearer"}`
		text    = `{"kind":"notification","type":"ms.MessagingEventNotification","body":{"changes":[{"sequence":6,"originatorId":"x","serverTimestamp":1515321942786,"event":{"type":"ContentEvent","contentType":"text/plain","message":"hi"},"conversationId":"c","dialogId":"c"}]}}`
		change  = `{"kind":"notification","type":"cqm.ExConversationChangeNotification","body":{"changes":[{"type":"UPSERT","result":{"convId":"c","conversationDetails":{"state":"OPEN","startTs":1544178732211,"participants":[]}}}]}}`
	)
	instead := strings.ReplaceAll
	for _, c := range []struct {
		name     string
		exchange Exchange
		refused  string // part of the refusal; empty: the exchange is valid
	}{
		{"a token", Exchange{"token", []byte("client_id=x"), 200, []byte(token)}, ""},
		{"a token of another type", Exchange{"token", nil, 200, []byte(instead(token, "Bearer", "jwt"))}, "token_type"},
		{"no token", Exchange{"token", nil, 401, []byte(`{"error":{"internalCode":401,"message":"wrong"}}`)}, ""},
		{"a consumer", Exchange{"consumer", []byte(`{"ext_consumer_id":"John_Doe_facebook12345"}`), 201, []byte(`{"token":"e30.e30.c2ln"}`)}, ""},
		{"a consumer that is only OK", Exchange{"consumer", []byte(`{"ext_consumer_id":"x"}`), 200, []byte(`{"token":"e30.e30.c2ln"}`)}, "status 200"},
		{"a consumer without an AppJWT", Exchange{"consumer", []byte(`{"ext_consumer_id":"x"}`), 401, []byte(missing)}, ""},
		{"a batch", Exchange{"conversation", []byte(batch), 200, []byte(answers)}, ""},
		{"a batch the wrong way round", Exchange{"conversation", []byte(`[` + begin + `,` + profile + `]`), 200, []byte(answers)}, "SetUserProfile"},
		{"a batch of one", Exchange{"conversation", []byte(`[` + begin + `]`), 400, []byte(instead(missing, "401", "400"))}, "minItems"},
		{"a batch without a brand", Exchange{"conversation", []byte(instead(batch, `"brandId":"12345678",`, "")), 0, nil}, "brandId"},
		{"half the answers", Exchange{"conversation", []byte(batch), 200, []byte(`[` + set + `]`)}, "response.conversation"},
		{"answers with each other's ids", Exchange{"conversation", []byte(batch), 200, []byte(instead(instead(answers, "1,", "x"), "2,", "1,"))}, `want "1,"`},
		{"a message", Exchange{"send", []byte(say), 200, []byte(said)}, ""},
		{"a message whose answer was lost", Exchange{"send", []byte(say), 0, nil}, ""},
		{"a message answered as on a socket", Exchange{"send", []byte(say), 200, []byte(`{"kind":"resp","reqId":"1","code":200,"type":"ms.PublishEventResponse","body":{"sequence":0}}`)}, "/code"},
		{"another message's answer", Exchange{"send", []byte(say), 200, []byte(instead(said, `"1"`, `"2"`))}, `answer to "2"`},
		{"another request's answer", Exchange{"send", []byte(say), 200, []byte(url)}, "published"},
		{"an upload", Exchange{"send", []byte(upload), 200, []byte(url)}, ""},
		{"an upload for a number of bytes", Exchange{"send", []byte(instead(upload, `"1000"`, `1000`)), 0, nil}, "fileSize"},
		{"a conversation closed", Exchange{"send", []byte(closing), 200, []byte(closed)}, ""},
		{"what cannot be sent", Exchange{"send", []byte(begin), 0, nil}, "cannot be sent"},
		{"no identity", Exchange{"send", []byte(say), 401, []byte(missing)}, ""},
		{"a refusal of another status", Exchange{"send", []byte(say), 403, []byte(missing)}, "code 401"},
		{"a webhook", Exchange{"webhook", []byte(text), 200, []byte("anything")}, ""},
		{"a webhook for agents only", Exchange{"webhook", []byte(instead(text, `"dialogId"`, `"messageAudience":"AGENTS_AND_MANAGERS","dialogId"`)), 200, nil}, "messageAudience"},
		{"a webhook of a change", Exchange{"webhook", []byte(change), 200, nil}, ""},
		{"a webhook with a subscription", Exchange{"webhook", []byte(instead(change, `"changes"`, `"subscriptionId":"s","changes"`)), 200, nil}, "subscriptionId"},
		{"a webhook of half a body", Exchange{"webhook", []byte(text[:50]), 200, nil}, "not JSON"},
		{"unknown endpoint", Exchange{"coffee", []byte(`{}`), 0, nil}, "unknown endpoint"},
	} {
		checker := freshChecker(t)
		err := checker.CheckExchange(c.exchange)
		switch {
		case c.refused == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)):
			t.Errorf("%s: %v, which does not mention %q", c.name, err, c.refused)
		case (checker.Err() == nil) != (err == nil):
			t.Errorf("%s: Err() = %v", c.name, checker.Err())
		}
	}

	// The requests of another client are not checked, but their answers are.
	c := freshChecker(t)
	number := []byte(instead(upload, `"1000"`, `1000`))
	if err := c.CheckForeignExchange(Exchange{"send", number, 200, []byte(url)}); err != nil {
		t.Error(err)
	}
	if c.CheckForeignExchange(Exchange{"send", number, 200, []byte(said)}) == nil {
		t.Error("no error for an invalid answer to a foreign client")
	}
	if n := c.Counts()[foreign]; n != 2 {
		t.Errorf("%d foreign requests counted, want 2", n)
	}

	for name, c := range map[string]struct {
		exchange Exchange
		frames   int
	}{
		"token": {Exchange{"token", nil, 200, []byte(token)}, 0}, "batch": {Exchange{"conversation", []byte(batch), 200, []byte(answers)}, 4},
		"send": {Exchange{"send", []byte(say), 200, []byte(said)}, 2}, "lost": {Exchange{"send", []byte(say), 0, nil}, 1},
		"webhook": {Exchange{"webhook", []byte(text), 200, nil}, 1}, "refused batch": {Exchange{"conversation", []byte(batch), 401, []byte(missing)}, 3},
	} {
		if n := len(c.exchange.Frames()); n != c.frames {
			t.Errorf("%s: %d frames, want %d", name, n, c.frames)
		}
	}
}
