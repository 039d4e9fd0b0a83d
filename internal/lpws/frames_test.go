package lpws

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// examples returns the frames in testdata/frames: LivePerson's own examples, from its documentation and schemas.
func examples(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/frames/*.json")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	all := map[string][]byte{}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(name)] = data
	}
	return all
}

func TestParseFrame_Examples(t *testing.T) {
	t.Parallel()
	for name, data := range examples(t) {
		f, err := parseFrame(data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		switch name {
		case "resp-error.json":
			if !f.failed() || f.errorCode() != 50201 {
				t.Errorf("%s: %+v", name, f)
			}
		case "resp-error-string.json":
			if !f.failed() || f.errorCode() != 400 {
				t.Errorf("%s: %+v", name, f)
			}
		case "event-file.json":
			var body lpwire.EventChanges
			if err := json.Unmarshal(f.Body, &body); err != nil || len(body.Changes) != 1 || f.name() != "MessagingEventNotification" {
				t.Fatalf("%s: %v %+v", name, err, body)
			}
			e := body.Changes[0]
			file, ok := e.File("qa57221676")
			if !ok || file.FileType != "JPG" || file.Preview == "" || e.SenderID() != "consumerId" || e.Sequence.N != 6 {
				t.Errorf("%s: %+v %+v", name, e, file)
			}
			if _, ok := e.File("12345678"); ok {
				t.Error("a file of another account is shown")
			}
		case "conversation-change.json":
			var body lpwire.ConversationChanges
			if err := json.Unmarshal(f.Body, &body); err != nil || len(body.Changes) != 1 {
				t.Fatalf("%s: %v %+v", name, err, body)
			}
			d := body.Changes[0].Result.V.Details.V
			if len(d.Participants) != 2 || len(d.Dialogs) != 1 || d.State != "OPEN" || d.StartTs.N != 1544178732211 {
				t.Errorf("%s: %+v", name, d)
			}
		default:
			if f.isAnswer() && f.failed() || !f.isAnswer() && f.Kind != "notification" {
				t.Errorf("%s: %+v", name, f)
			}
		}
	}
}

func TestRequest_Encoding(t *testing.T) {
	t.Parallel()
	for want, r := range map[string]request{
		`{"kind":"req","id":"1","type":"GetClock"}`:                                                                                  {Type: reqClock},
		`{"kind":"req","id":"1","type":"cm.ConsumerRequestConversation"}`:                                                            {Type: reqNewConversation, Body: newConversationBody("1", share.NewConversation{})},
		`{"kind":"req","id":"1","type":"ms.GenerateURLForUploadFile","body":{"fileSize":"1000","fileType":"JPG"}}`:                   {Type: reqUploadURL, Body: lpwire.NewUploadURLBody(1000, share.JPEG)},
		`{"kind":"req","id":"1","type":"ms.GenerateURLForDownloadFile","body":{"relativePath":"/v1/x"}}`:                             {Type: reqDownloadURL, Body: lpwire.DownloadURLBody{RelativePath: "/v1/x"}},
		`{"kind":"req","id":"1","type":"cqm.SubscribeExConversations","body":{"minLastUpdatedTime":0,"convState":["OPEN","CLOSE"]}}`: {Type: reqSubscribeConvs, Body: consumer{}.subscription(false)},
		`{"kind":"req","id":"1","type":"ms.SubscribeMessagingEvents","body":{"dialogId":"d","conversationId":"c","fromSeq":0}}`:      {Type: reqSubscribeEvents, Body: subscribeEvents{"d", "c", 0}},
		`{"kind":"req","id":"1","type":".ams.ms.QueryMessages","body":{"dialogId":"d","newerThanSequence":0,"fromSeq":0}}`:           {Type: agent{}.requestType(reqQueryMessages), Body: queryMessages{"d", 0, 0}},
		`{"kind":"req","id":"1","type":".ams.aam.SubscribeExConversations","body":{"minLastUpdatedTime":0,"convState":["OPEN"],"agentIds":["1.2"]}}`: {
			Type: agent{}.requestType(reqSubscribeConvs), Body: agent{share.AgentGrant{Account: "1", UserID: "2"}}.subscription(true)},
		`{"kind":"req","id":"1","type":"cm.UpdateConversationField","body":{"conversationId":"c","conversationField":[{"field":"ConversationStateField","conversationState":"CLOSE"}]}}`: {
			Type: reqUpdate, Body: lpwire.CloseBody("c")},
		`{"kind":"req","id":"1","type":"ms.PublishEvent","body":{"dialogId":"d","conversationId":"c","event":{"type":"ContentEvent","contentType":"hosted/file","message":{"caption":"","relativePath":"/v1/x","fileType":"JPG"}}}}`: {
			Type: reqPublish, Body: lpwire.Publish{DialogID: "d", ConversationID: "c", Event: lpwire.NewFileEvent(share.HostedFile{StoragePath: "/v1/x", FileType: "JPG"})}},
		`{"kind":"req","id":"1","type":"InitConnection","headers":[{"type":".ams.headers.ClientProperties","features":["PHOTO_SHARING","FILE_SHARING"]},{"type":".ams.headers.ConsumerAuthentication","jwt":"T"}]}`: {
			Type: reqInit, Headers: func() []any { h, _ := consumer{token: "T"}.initHeaders(); return h }()},
	} {
		r.Kind, r.ID = "req", "1"
		if got, err := json.Marshal(r); err != nil || string(got) != want {
			t.Errorf("%s\nis not\n%s", got, want)
		}
	}
}

// FuzzFrame decodes any input as a frame and as each kind of body. Nothing may panic, and decoding must be deterministic.
func FuzzFrame(f *testing.F) {
	for _, data := range examples(f) {
		f.Add(data)
	}
	f.Add([]byte(`{"kind":"resp","reqId":1,"code":"OK","body":[{"sequence":"1e3"},null,{"event":{"message":[]}}]}`))
	f.Add([]byte(`{"body":{"changes":{"result":{"conversationDetails":{"participants":{"id":{},"X":[1,"2",{}]}}}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		fr, err := parseFrame(data)
		if !bytes.Equal(before, data) {
			t.Fatal("the input was changed")
		}
		if err != nil {
			return
		}
		fr.isAnswer()
		fr.name()
		fr.failed()
		fr.errorCode()
		var events, again lpwire.EventChanges
		if json.Unmarshal(fr.Body, &events) == nil {
			if json.Unmarshal(fr.Body, &again); !reflect.DeepEqual(events, again) {
				t.Fatal("read differently the second time")
			}
			for i := range events.Changes {
				if file, ok := events.Changes[i].File("12345678"); ok && share.CheckStoragePath("12345678", file.StoragePath) != nil {
					t.Fatalf("a bad path passed: %q", file.StoragePath)
				}
				events.Changes[i].SenderID()
			}
		}
		var one lpwire.Event
		_ = json.Unmarshal(fr.Body, &one)
		var list lpwire.List[lpwire.Event]
		_ = json.Unmarshal(fr.Body, &list)
		_, _ = lpwire.ReadTempURL(fr.Body, "12345678", "")
		subscriptionID(&fr)

		b := newTestBook(5)
		fr.connection = 1
		b.apply(&fr)
		b.apply(&fr)
		if len(b.conversations.byID) > 5 {
			t.Fatal("too many conversations")
		}
	})
}
