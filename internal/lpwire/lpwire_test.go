package lpwire

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

const account = "12345678"

func TestValues_MalformedMembersAreAbsent(t *testing.T) {
	for text, want := range map[string]struct {
		text   Text
		number Number
		code   Code
		list   int
	}{
		`"7"`:         {"7", Number{7, true}, 7, 1},
		`7`:           {"7", Number{7, true}, 7, 1},
		`7.0`:         {"7.0", Number{7, true}, 7, 1},
		`7.5`:         {"7.5", Number{}, 200, 1},
		`"OK"`:        {"OK", Number{}, 200, 1},
		`null`:        {"", Number{}, 200, 0},
		`{}`:          {"", Number{}, 200, 1},
		`[1,"2",[3]]`: {"", Number{}, 200, 3},
		`-1`:          {"-1", Number{-1, true}, 200, 1},
	} {
		var got struct {
			Text   Text
			Number Number
			Code   Code
			List   List[Text]
		}
		if err := json.Unmarshal([]byte(`{"text":`+text+`,"number":`+text+`,"code":`+text+`,"list":`+text+`}`), &got); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if text == "null" {
			got.Code = 200 // encoding/json does not call UnmarshalJSON for null
		}
		if got.Text != want.text || got.Number != want.number || got.Code != want.code || len(got.List) != want.list {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
	}
}

func TestConversationRead_AcceptsThreeFormsOfParticipants(t *testing.T) {
	want := []share.Participant{{ID: "a", Role: "ASSIGNED_AGENT"}, {ID: "c", Role: "CONSUMER"}}
	for name, details := range map[string]string{
		"a list":      `"participants":[{"id":"c","role":"CONSUMER"},{"id":"a","role":"ASSIGNED_AGENT"}]`,
		"by role":     `"participantsPId":{"CONSUMER":["c"],"ASSIGNED_AGENT":"a"}`,
		"in a dialog": `"dialogs":[{"dialogId":"x","participantsDetails":[{"id":"c","role":"CONSUMER","state":"ACTIVE"},{"id":"a","role":"ASSIGNED_AGENT"},{"id":"gone","role":"READER","state":"INACTIVE"}]}]`,
	} {
		var w Conversation
		if err := json.Unmarshal([]byte(`{"convId":"x","conversationDetails":{"state":"OPEN","startTs":1544178732211,`+details+`}}`), &w); err != nil {
			t.Fatal(err)
		}
		c, members := w.Read()
		if !reflect.DeepEqual(c.Participants, want) || len(members) != 2 || !c.Open || c.Start.UnixMilli() != 1544178732211 {
			t.Errorf("%s: %+v %v", name, c, members)
		}
	}
}

func TestReadTempURL_RejectsOtherAccountsAndMalformedAnswers(t *testing.T) {
	const sig = "0cff08d2d5618d100bc1353f32872c002180711f"
	url := func(path, sig, expires string) json.RawMessage {
		return json.RawMessage(`{"relativePath":"` + path + `","queryParams":{"temp_url_sig":"` + sig + `","temp_url_expires":` + expires + `}}`)
	}
	good := "/v1/AUTH_x/" + account + "/a.PNG"
	if u, err := ReadTempURL(url(good, sig, `"1523947094"`), account, good); err != nil || u.Path != good || u.Sig != sig || u.ExpireTime.Unix() != 1523947094 {
		t.Errorf("%v %v", u, err)
	}
	for name, body := range map[string]json.RawMessage{
		"another account": url("/v1/AUTH_x/99/a.PNG", sig, `"1"`), "a step up": url("/v1/AUTH_x/"+account+"/../99/a", sig, `"1"`),
		"another file": url("/v1/AUTH_x/"+account+"/b", sig, `"1"`), "no signature": url(good, "", `"1"`),
		"a signature with a parameter": url(good, sig+"&x=1", `"1"`), "no expiry": url(good, sig, `""`), "an odd expiry": url(good, sig, `"1&x"`), "nothing": nil,
	} {
		if u, err := ReadTempURL(body, account, good); !share.Is(err, share.LPProtocolError) {
			t.Errorf("%s: %v %v", name, u, err)
		}
	}
}

func TestFailure_DependsOnStep(t *testing.T) {
	for _, x := range []struct {
		step           Step
		status, number int
		want           share.Kind
	}{
		{StepUploadURL, 403, 40300, share.FileSharingDisabled}, {StepPublish, 403, 40300, share.LPForbidden},
		{StepDownloadURL, 404, 404, share.FileNotFound}, {StepPublish, 404, 404, share.ConversationNotFound}, {StepUploadURL, 404, 404, share.LPProtocolError},
		{StepPublish, 400, 40001, share.LPRejectedFile}, {StepCreate, 400, 400, share.InvalidField}, {StepClose, 400, 400, share.LPProtocolError},
		{StepPublish, 500, 500, share.LPUnavailable}, {StepPublish, 503, 503, share.LPUnavailable}, {StepUploadURL, 500, 500, share.LPUnavailable},
		{StepPublish, 401, 40102, share.LPIdentityExpired}, {StepPublish, 429, 429, share.LPRateLimited},
	} {
		if got := Failure(x.step, x.status, x.number).Kind; got != x.want {
			t.Errorf("%s, %d: %s, want %s", x.step, x.status, got, x.want)
		}
	}
	for body, want := range map[string]bool{
		`"Agent not allowed"`: true, `"Consumer is NOT AUTHORIZED to upload"`: true, `"Access denied"`: true, `"No permission"`: true, `"File sharing is disabled"`: true, `"Agent added"`: false, `"OK Agent added; not allowed to close"`: false,
		`"OK Conversation resolved successfully"`: false, `""`: false, `{"details":"not allowed"}`: false, ``: false, `null`: false,
	} {
		if got := IsRefusal(json.RawMessage(body)); got != want {
			t.Errorf("IsRefusal(%s) is %v", body, got)
		}
	}
	if n := ErrorNumber(502, json.RawMessage(`{"errorCode":50201}`)); n != 50201 {
		t.Errorf("the number is %d", n)
	}
	if n := ErrorNumber(400, json.RawMessage(`"no"`)); n != 400 {
		t.Errorf("the number is %d", n)
	}
}

func TestEffectFailure_SaysWhatIsKnown(t *testing.T) {
	for _, x := range []struct {
		api            API
		step           Step
		status, number int
		want           share.Kind
		denied         bool
		after          time.Duration
	}{
		{Socket, StepPublish, 400, 40000, share.LPRejectedFile, true, 0},
		{Socket, StepPublish, 403, 40300, share.LPForbidden, true, 0},
		{Socket, StepPublish, 404, 40400, share.ConversationNotFound, true, 0},
		{Socket, StepPublish, 499, 49900, share.LPProtocolError, true, 0},
		{Socket, StepPublish, 501, 50100, share.LPUnavailable, true, UnavailableWait},
		{Socket, StepPublish, 401, 40102, share.LPIdentityExpired, false, 0},
		{Socket, StepPublish, 400, 40102, share.LPIdentityExpired, false, 0},
		{Socket, StepPublish, 408, 40800, share.LPPublishUnconfirmed, false, UnavailableWait},
		{Socket, StepPublish, 429, 42900, share.LPPublishUnconfirmed, false, UnavailableWait},
		{Socket, StepPublish, 500, 50000, share.LPPublishUnconfirmed, false, UnavailableWait},
		{Socket, StepPublish, 503, 50300, share.LPPublishUnconfirmed, false, UnavailableWait},
		{Socket, StepPublish, 600, 60000, share.LPPublishUnconfirmed, false, UnavailableWait},
		{Socket, StepCreate, 503, 50300, share.LPPublishUnconfirmed, false, UnavailableWait},
		{Connector, StepPublish, 429, 42900, share.LPRateLimited, true, ThrottledWait},
		{Connector, StepPublish, 413, 41300, share.LPRejectedFile, true, 0},
		{Connector, StepPublish, 503, 50300, share.LPPublishUnconfirmed, false, UnavailableWait},
		{Connector, StepCreate, 400, 40000, share.InvalidField, true, 0},
	} {
		if e := EffectFailure(x.api, x.step, x.status, x.number); e.Kind != x.want || e.Denied != x.denied || e.RetryAfter != x.after {
			t.Errorf("%d: %s, %d: %s, denied %t, after %s", x.api, x.step, x.status, e.Kind, e.Denied, e.RetryAfter)
		}
	}
	if e := Refused(StepPublish); !e.Denied {
		t.Error("a refusal by a text is not a denial")
	}
}
