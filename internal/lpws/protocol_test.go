package lpws

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

func TestWatch_SkipsHiddenEvents(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		p.add("c", fileEvent("c", 0, "a"), textEvent(2), fileEvent("c", 5, "b"))
		s := p.session()
		w, err := s.WatchFiles(ctxOf(t), "c", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if e := next(t, w); e.Sequence != 0 || e.SenderID != "her" || e.SenderRole != share.RoleAssignedAgent || !e.Time.Equal(time.UnixMilli(1000)) {
			t.Errorf("%+v", e)
		}
		if e := next(t, w); e.Sequence != 5 || w.Cursor()["c"] != 5 {
			t.Errorf("%+v %v", e, w.Cursor())
		}
		p.publish(fileEvent("c", 6, "live"))
		if e := next(t, w); e.Sequence != 6 {
			t.Errorf("%+v", e)
		}
		p.publish(fileEvent("c", 9, "late"))
		if e := next(t, w); e.Sequence != 9 {
			t.Errorf("%+v", e)
		}
		files, cursor, err := listFiles(s, ctxOf(t), "c")
		if err != nil || names(files) != "a@0 b@5 live@6 late@9" || cursor["c"] != 9 {
			t.Errorf("%s %v %v", names(files), cursor, err)
		}
	})
}

func TestWatch_OrdersEvents(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		s := p.session()
		w, err := s.WatchFiles(ctxOf(t), "", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		time.Sleep(time.Second) // of the fake clock: past Config.Grace
		if at := w.Cursor(); len(at) != 1 || at["c"] != -1 {
			t.Errorf("the cursor of an empty dialog is %v", at)
		}
		var events []string
		for i := range 30 {
			events = append(events, fileEvent("c", i, fmt.Sprint(i)))
		}
		p.add("c", events...)
		p.mu.Lock()
		k := p.sockets[0]
		p.mu.Unlock()
		for i := range 30 { // in reverse order within groups of three, each one twice
			e := events[i/3*3+2-i%3]
			k.push(e, e)
		}
		for i := range 30 {
			if e := next(t, w); e.Sequence != int64(i) {
				t.Fatalf("event %d is %d", i, e.Sequence)
			}
		}
		nothing(t, w)
	})
}

func TestFindFile_WaitsForLateEvents(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		p.lag = 60 * time.Millisecond
		p.last = `,"lastContentEventNotification":{"sequence":1,"dialogId":"c"}`
		p.add("c", textEvent(0), fileEvent("c", 1, "a"))
		s := p.session(func(c *Config) { c.Grace = 2 * time.Second })
		if e, err := s.FindFile(ctxOf(t), "c", "", folder+"a"); err != nil || e.Sequence != 1 {
			t.Errorf("%+v %v", e, err)
		}
		unknown := newPeer(t) // an old conversation without known messages
		unknown.lag = 10 * time.Millisecond
		unknown.add("c", textEvent(0), fileEvent("c", 1, "a"))
		if e, err := unknown.session(func(c *Config) { c.Grace = time.Second }).FindFile(ctxOf(t), "c", "", folder+"a"); err != nil || e.Sequence != 1 {
			t.Errorf("%+v %v", e, err)
		}
		// No event is missing now, so the call does not wait.
		begun := time.Now()
		_, err := s.FindFile(ctxOf(t), "c", "", folder+"z")
		want(t, err, share.FileNotFound)
		if took := time.Since(begun); took > 0 {
			t.Errorf("took %v", took)
		}
	})
}

func TestSession_AcceptsUnusualForms(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		p.details = `,"participantsPId":{"CONSUMER":"me","ASSIGNED_AGENT":["her"]},"participants":{"ASSIGNED_AGENT":["12345678.1"]},"skillId":7,
			"dialogs":{"dialogId":"survey","dialogType":"POST_SURVEY","state":"OPEN"},"unknown":[{}]`
		p.answer = func(k *peerSocket, typ, id string, body map[string]any) bool {
			switch typ {
			case reqUploadURL: // a number for an id, odd types, numbers for strings
				k.send(`{"kind":"resp","reqId":%s,"code":"OK","type":7,"body":{"relativePath":"%sx.PNG","queryParams":{"temp_url_sig":"%040d","temp_url_expires":1523947094}}}`,
					id, folder, 7)
			case reqPublish:
				k.send(`{"reqId":%q,"body":{"sequence":"4"}}`, id)
			case reqSubscribeConvs:
				k.send(`{"kind":"resp","reqId":%q,"code":202,"body":{"subscriptionId":9}}`, id)
				k.send(`{"kind":"notification","type":"unheard.Of","body":{}}`)
				k.send(`{"kind":"other"}`)
				k.send(`{"kind":"resp","reqId":"unknown","code":200}`)
				k.send(`{"kind":"notification","type":"ms.MessagingEventNotification","body":[]}`)
				k.send(`{"kind":"notification","type":".ams.aam.ExConversationChangeNotification","body":{"changes":%s}}`, upsert("OPEN", 100, p.details, ""))
			default:
				return false
			}
			return true
		}
		p.add("survey", `{"sequence":"0","originatorPId":"her","originatorId":"12345678.1","dialogId":"survey","event":{"type":"ContentEvent",
			"contentType":"hosted/file","message":{"relativePath":"`+folder+`s","fileType":"IMG"}}}`)
		p.add("c", `{"sequence":0,"dialogId":"c","event":"not an object"}`,
			`{"sequence":1,"dialogId":"c","event":{"type":"ContentEvent","contentType":"hosted/file","message":"no object"}}`,
			fileEvent("c", 2, "../87654321/stolen"),
			strings.Replace(fileEvent("c", 3, "ok"), `"fileType"`, `"caption":null,"preview":"`+strings.Repeat("x", lpwire.MaxPreview+1)+`","fileType"`, 1))
		s := p.session()
		c, err := s.Conversation(ctxOf(t), "c")
		if err != nil || c.SkillID != "7" || len(c.Participants) != 2 || len(c.Dialogs) != 1 || c.Dialogs[0].ID != "survey" {
			t.Errorf("%+v %v", c, err)
		}
		u, err := s.UploadURL(ctxOf(t), 1, share.PNG)
		if err != nil || u.Path != folder+"x.PNG" || u.ExpireTime.Unix() != 1523947094 || u.Expires != "1523947094" {
			t.Errorf("%+v %v", u, err)
		}
		if seq, err := s.PublishFile(ctxOf(t), "c", "survey", hosted(u.Path, "")); err != nil || seq != 4 {
			t.Errorf("%d %v", seq, err)
		}
		k := p.sockets[0]
		k.send(`{"kind":"notification","type":".ams.ms.OnlineEventDistribution","body":%s}`, fileEvent("c", 4, "one"))
		p.add("c", fileEvent("c", 4, "one"))
		files, cursor, err := listFiles(s, ctxOf(t), "c")
		if err != nil || names(files) != "ok@3 one@4 s@0" || cursor["c"] != 4 || cursor["survey"] != 0 {
			t.Errorf("%s %v %v", names(files), cursor, err)
		}
		if e := files[2]; e.SenderID != "her" || e.SenderRole != share.RoleAssignedAgent || e.Dialog != "survey" || e.Conversation != "c" {
			t.Errorf("%+v", e)
		}
		if files[0].File.Preview != "" {
			t.Error("a preview over the limit was kept")
		}
		// An outdated change is ignored. A dialog is known from its first event.
		k.send(`{"kind":"notification","type":"cqm.ExConversationChangeNotification","body":{"subscriptionId":9,"changes":[%s]}}`, upsert("CLOSE", 99, p.details, ""))
		p.add("second", fileEvent("second", 0, "t"))
		k.push(fileEvent("second", 0, "t"))
		synctest.Wait()
		if c, err = s.Conversation(ctxOf(t), "c"); err != nil || len(c.Dialogs) != 2 {
			t.Errorf("dialogs are %v, %v", c.Dialogs, err)
		}
		if !c.Open {
			t.Error("an outdated change was applied")
		}
		if e, err := s.FindFile(ctxOf(t), "c", "second", folder+"t"); err != nil || e.Sequence != 0 {
			t.Errorf("%+v %v", e, err)
		}
		k.send(`{"kind":"notification","type":"cqm.ExConversationChangeNotification","body":{"subscriptionId":9,"changes":{"type":"DELETE","result":{"convId":"c"}}}}`)
		synctest.Wait()
		if all, err := s.ListConversations(ctxOf(t)); err != nil || len(all) != 0 {
			t.Errorf("a removed conversation is listed: %v %v", all, err)
		}
	})
}

func TestUploadURL_RejectsOtherAccounts(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		var body string
		p.answer = func(k *peerSocket, typ, id string, _ map[string]any) bool {
			if typ == reqUploadURL || typ == reqDownloadURL {
				p.mu.Lock()
				defer p.mu.Unlock()
				k.send(`{"kind":"resp","reqId":%q,"code":200,"body":%s}`, id, body)
				return true
			}
			return false
		}
		s := p.session()
		const sig = "0cff08d2d5618d100bc1353f32872c002180711f"
		for _, b := range []string{
			`{}`, `null`, `"text"`, `[]`,
			`{"relativePath":"` + folder + `x"}`,
			`{"relativePath":"` + folder + `x","queryParams":{"temp_url_sig":"","temp_url_expires":"1"}}`,
			`{"relativePath":"` + folder + `x","queryParams":{"temp_url_sig":"` + sig + `&x=y","temp_url_expires":"1"}}`,
			`{"relativePath":"` + folder + `x","queryParams":{"temp_url_sig":"` + sig + `","temp_url_expires":"soon"}}`,
			`{"relativePath":"/v1/AUTH_async-images/87654321/x","queryParams":{"temp_url_sig":"` + sig + `","temp_url_expires":"1"}}`,
			`{"relativePath":"http://example.com/x","queryParams":{"temp_url_sig":"` + sig + `","temp_url_expires":"1"}}`,
			`{"relativePath":"` + folder + `../x","queryParams":{"temp_url_sig":"` + sig + `","temp_url_expires":"1"}}`,
		} {
			p.mu.Lock()
			body = b
			p.mu.Unlock()
			_, err := s.UploadURL(ctxOf(t), 1, share.PNG)
			want(t, err, share.LPProtocolError)
		}
		p.mu.Lock()
		body = `{"relativePath":"` + folder + `x","queryParams":{"temp_url_sig":"` + sig + `","temp_url_expires":"1"}}`
		p.mu.Unlock()
		_, err := s.DownloadURL(ctxOf(t), folder+"y")
		want(t, err, share.LPProtocolError)
		if _, err = s.DownloadURL(ctxOf(t), folder+"x"); err != nil {
			t.Error(err)
		}
	})
}

func TestPoolSession_ReadsIdentityAfterAcceptance(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		pool := p.pool()
		for payload, kind := range map[string]share.Kind{
			`{"sub":"me","aud":"acc:87654321"}`:         share.NotAllowed,
			`{"sub":"me","aud":["acc:87654321"]}`:       share.NotAllowed,
			`{"sub":"me"}`:                              share.NotAllowed,
			`{"aud":"acc:12345678"}`:                    share.TokenInvalid,
			`{"sub":"me","aud":"acc:12345678","exp":1}`: share.TokenInvalid,
			`no JSON`: share.TokenInvalid,
		} {
			_, err := pool.Session(ctxOf(t), tokenOf(payload))
			want(t, err, kind)
		}
		s, err := pool.Session(ctxOf(t), tokenOf(`{"sub":"me","aud":"acc:12345678","exp":4102444800}`))
		if err != nil {
			t.Fatal(err)
		}
		if at := s.Principal(); at.ID != "me" || at.Expires.Unix() != 4102444800 {
			t.Errorf("%+v", at)
		}
		s.Release()
		// A credential is accepted when LivePerson has answered with success and listed the conversations.
		for _, answer := range []string{`"code":401,"body":{"errorCode":40102}`, `"code":403,"body":"no"`, `"code":429`, `"code":500`, `"code":400`} {
			kind := map[string]share.Kind{"1": share.TokenInvalid, "3": share.NotAllowed, "9": share.LPRateLimited, "0": share.LPUnavailable}[answer[9:10]]
			if strings.HasSuffix(answer, "400") {
				kind = share.LPProtocolError
			}
			p := newPeer(t)
			p.answer = func(k *peerSocket, typ, id string, _ map[string]any) bool {
				k.send(`{"kind":"resp","reqId":%q,%s}`, id, answer)
				return true
			}
			_, err := p.pool().Session(ctxOf(t), tokenOf(mine))
			want(t, err, kind)
		}
		p = newPeer(t)
		p.answer = func(k *peerSocket, typ, id string, _ map[string]any) bool {
			k.send(`{"kind":"resp","reqId":%q,"code":200,"body":{"subscriptionId":"s"}}`, id)
			return true // without a list
		}
		_, err = p.pool(func(c *Config) { c.OpenTimeout = 100 * time.Millisecond }).Session(ctxOf(t), tokenOf(mine))
		want(t, err, share.LPUnavailable)
	})
}

func TestSession_FramesOverTheLimit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		small := func(c *Config) { c.MaxFrame = 10_000 }
		p := newPeer(t)
		p.answer = func(k *peerSocket, typ, id string, body map[string]any) bool {
			if typ == reqSubscribeConvs && len(body["convState"].([]any)) == 2 {
				k.send(`{"kind":"resp","reqId":%q,"code":200,"body":{"subscriptionId":"s"}}`, id)
				k.send(`{"kind":"notification","type":"cqm.ExConversationChangeNotification","body":{"changes":[],"x":%q}}`, strings.Repeat("x", 10_000))
				return true
			}
			return false
		}
		s := p.session(small)
		if _, err := s.Conversation(ctxOf(t), "c"); err != nil {
			t.Errorf("the open conversations are unknown: %v", err)
		}
		w, err := s.WatchFiles(ctxOf(t), "c", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		time.Sleep(time.Second) // of the fake clock: past Config.Grace
		p.add("c", strings.Replace(fileEvent("c", 0, "a"), `"fileType"`, `"preview":"`+strings.Repeat("x", 40_000)+`","fileType"`, 1))
		_, _, err = listFiles(s, ctxOf(t), "c")
		want(t, err, share.LPProtocolError)
		_, err = w.Next(ctxOf(t))
		want(t, err, share.LPProtocolError)
		if _, err = s.Conversation(ctxOf(t), "c"); err != nil {
			t.Errorf("the session ended: %v", err)
		}
	})
}

func TestCreateConversation_BeforeLivePersonReportsIt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		p.answer = func(k *peerSocket, typ, id string, _ map[string]any) bool {
			if typ == reqNewConversation {
				k.send(`{"kind":"resp","reqId":%q,"code":200,"body":{"conversationId":"new"}}`, id)
				return true
			}
			if typ == reqUpdate {
				k.send(`{"kind":"resp","reqId":%q,"code":200,"body":"OK"}`, id)
				return true
			}
			return false
		}
		s := p.session()
		ctx, cancel := context.WithTimeout(ctxOf(t), 50*time.Millisecond)
		defer cancel()
		c, err := s.CreateConversation(ctx, share.NewConversation{SkillID: "9"})
		if err != nil || c.ID != "new" || !c.Open || c.SkillID != "9" || c.Start.IsZero() {
			t.Errorf("%+v %v", c, err)
		}
		if _, err := s.Conversation(ctxOf(t), "unknown"); !share.Is(err, share.ConversationNotFound) { // a fresh list does not have it
			t.Error(err)
		}
		if _, err := s.Conversation(ctxOf(t), "new"); err != nil {
			t.Error(err)
		}
		ctx, cancel = context.WithTimeout(ctxOf(t), 50*time.Millisecond)
		defer cancel()
		if c, err = s.CloseConversation(ctx, "new"); err != nil || c.Open || c.End.IsZero() {
			t.Errorf("%+v %v", c, err)
		}
	})
}

func TestListConversations_IsLimited(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		p.answer = func(k *peerSocket, typ, id string, _ map[string]any) bool {
			if typ != reqSubscribeConvs {
				return false
			}
			var all []string
			for i := range 50 {
				state := "CLOSE"
				if i%10 == 0 {
					state = "OPEN"
				}
				all = append(all, fmt.Sprintf(`{"type":"UPSERT","result":{"convId":"c%d","conversationDetails":{"state":%q,"startTs":%d,"participants":{"id":"me","role":"CONSUMER"}}}}`, i, state, 1000+i))
			}
			k.send(`{"kind":"resp","reqId":%q,"code":200,"body":{"subscriptionId":"s"}}`, id)
			k.send(`{"kind":"notification","type":"cqm.ExConversationChangeNotification","body":{"subscriptionId":"s","changes":[%s]}}`, strings.Join(all, ","))
			return true
		}
		s := p.session(func(c *Config) { c.MaxConversations = 10 })
		all, err := s.ListConversations(ctxOf(t))
		if err != nil || len(all) != 10 || all[0].ID != "c49" || all[9].ID != "c0" {
			t.Errorf("%d %v %v", len(all), all, err)
		}
	})
}

func TestSession_ShowsOwnConversationsOnly(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		p.details = `,"participants":[{"id":"somebody","role":"CONSUMER"},{"id":"her","role":"ASSIGNED_AGENT"}]`
		p.add("c", fileEvent("c", 0, "a"))
		s := p.session()
		_, err := s.Conversation(ctxOf(t), "c")
		want(t, err, share.ConversationNotFound)
		_, err = s.FindFile(ctxOf(t), "c", "c", folder+"a")
		want(t, err, share.ConversationNotFound)
		w, err := s.WatchFiles(ctxOf(t), "", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		p.publish(fileEvent("c", 1, "b"))
		nothing(t, w)
		files, cursor, err := listFiles(s, ctxOf(t), "")
		if err != nil || len(files) != 0 || len(cursor) != 0 {
			t.Errorf("%v %v %v", files, cursor, err)
		}
		all, err := s.ListConversations(ctxOf(t))
		if err != nil || len(all) != 0 || p.requests(reqSubscribeEvents) != 0 {
			t.Errorf("%v %v, asked %d times", all, err, p.requests(reqSubscribeEvents))
		}
		// After joining, the consumer gets all files.
		p.sockets[0].send(`{"kind":"notification","type":"cqm.ExConversationChangeNotification","body":{"changes":[%s]}}`,
			upsert("OPEN", 101, `,"dialogs":[{"dialogId":"c","participantsDetails":[{"id":"me","role":"CONSUMER"}]}],"participants":[{"id":"me","role":"CONSUMER"}]`, ""))
		if e := next(t, w); e.Sequence != 0 {
			t.Errorf("%+v", e)
		}
		if e := next(t, w); e.Sequence != 1 {
			t.Errorf("%+v", e)
		}
	})
}
