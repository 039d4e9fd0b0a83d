package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lpfileshare/lpfileshare/test/wire"
)

// schemas is a folder with the layout and the faults of LivePerson's, and as strict where these tests need it.
const schemas = "testdata/schemas"

const path = `"relativePath":"/v1/AUTH_a/12345678/x.JPG"`

func client(dialect, data string) wire.Frame {
	return wire.Frame{FromClient: true, Dialect: dialect, Data: []byte(data)}
}
func server(dialect, data string) wire.Frame {
	return wire.Frame{Dialect: dialect, Data: []byte(data)}
}

func publish(event string) string {
	return `{"kind":"req","id":"1","type":"ms.PublishEvent","body":{"dialogId":"c","event":` + event + `}}`
}

func file(message string) string {
	return `{"type":"ContentEvent","contentType":"hosted/file","message":{` + message + `}}`
}

func update(field string) string {
	return `{"kind":"req","id":"1","type":"cm.UpdateConversationField","body":{"conversationId":"c","conversationField":` + field + `}}`
}

func telling(event string) string { return `"originatorId":"x","dialogId":"c","event":` + event }

func conversations(typ, participants string) string {
	return `{"kind":"notification","type":"` + typ + `","body":{"subscriptionId":"s","changes":[{"type":"UPSERT","result":{"convId":"c",` +
		`"conversationDetails":{"metaDataLastUpdateTs":1,"participants":` + participants + `}}}]}}`
}

func TestCheck_Verdicts(t *testing.T) {
	p, err := load(schemas)
	if err != nil {
		t.Fatal(err)
	}
	const (
		text   = `{"type":"ContentEvent","contentType":"text/plain","message":"hi"}`
		typing = `{"type":"ChatStateEvent","chatState":"COMPOSING"}`
		number = `"sequence":1,"serverTimestamp":2,`
	)
	good := file(`"caption":"",` + path + `,"fileType":"JPG","preview":"data:"`)
	for _, c := range []struct {
		name    string
		frame   wire.Frame
		reasons []string // nil and not failing: the frame passes as it is
		fails   bool
	}{
		{"a file", client("consumer", publish(good)), nil, false},
		{"a sequence as text", server("consumer", `{"kind":"resp","reqId":"1","code":200,"type":"ms.PublishEventResponse","body":{"sequence":"4"}}`), nil, true},
		{"an unknown request", client("consumer", `{"kind":"req","id":"1","type":"ms.Unheard"}`), nil, true},
		{"half a frame", server("brand", `{"kind":"re`), nil, true},
		{"no object", server("brand", `[]`), nil, true},

		{"an agent's type", client("brand", strings.Replace(publish(text), "ms.", ".ams.ms.", 1)), []string{"brand names"}, false},
		{"an agent's type from a consumer", client("consumer", strings.Replace(publish(text), "ms.", ".ams.ms.", 1)), nil, true},
		{"aam", client("brand", `{"kind":"req","id":"1","type":".ams.aam.SubscribeExConversations"}`), []string{"brand names"}, false},
		{"two reasons", client("brand", `{"kind":"req","id":1,"type":".GetClock"}`), []string{"brand names", "numeric id"}, false},
		{"a consumer's GetClock", client("consumer", `{"kind":"req","id":"1","type":"GetClock"}`), []string{"keep-alive of a consumer"}, false},
		{"a list's own GetClock", client("brand", `{"kind":"req","id":"1","type":"GetClock"}`), nil, false},
		{"no id at all", client("brand", `{"kind":"req","type":"GetClock"}`), nil, true},
		{"an agent's upload", client("brand", `{"kind":"req","id":"1","type":"ms.GenerateURLForUploadFile","body":{"fileSize":"1","fileType":"JPG"}}`), []string{"file URL for an agent"}, false},
		{"a profile", client("consumer", `{"kind":"req","id":"1","type":"userprofile.SetUserProfile","body":{}}`), []string{"request without schema"}, false},
		{"a number as fileSize", client("consumer", `{"kind":"req","id":"1","type":"ms.GenerateURLForUploadFile","body":{"fileSize":5020,"fileType":"JPG"}}`), []string{"numeric fileSize"}, false},
		{"a fraction as fileSize", client("consumer", `{"kind":"req","id":"1","type":"ms.GenerateURLForUploadFile","body":{"fileSize":50.5,"fileType":"JPG"}}`), nil, true},
		{"upload of PDF", client("consumer", `{"kind":"req","id":"1","type":"ms.GenerateURLForUploadFile","body":{"fileSize":"1","fileType":"PDF"}}`), []string{"file type in a URL request"}, false},
		{"upload of EXE", client("consumer", `{"kind":"req","id":"1","type":"ms.GenerateURLForUploadFile","body":{"fileSize":"1","fileType":"EXE"}}`), nil, true},
		{"JPEG", client("consumer", publish(file(`"caption":"",`+path+`,"fileType":"JPEG"`))), []string{"file type in a message"}, false},
		{"EXE", client("consumer", publish(file(`"caption":"",`+path+`,"fileType":"EXE"`))), nil, true},
		{"JPEG without caption", client("consumer", publish(file(path+`,"fileType":"JPEG"`))), []string{"file type in a message", "no caption"}, false},
		{"JPEG in a notification", server("consumer", `{"kind":"notification","type":"ms.MessagingEventNotification","body":{"changes":[{`+number+telling(file(`"caption":"",`+path+`,"fileType":"JPEG"`))+`}]}}`), []string{"file type in a message"}, false},
		{"no path", client("consumer", publish(file(`"caption":"","fileType":"JPG"`))), nil, true},
		{"features", client("consumer", `{"kind":"req","id":"1","type":"InitConnection","headers":[{"features":["PHOTO_SHARING","FILE_SHARING"]}]}`), []string{"features"}, false},
		{"a feature nobody knows", client("consumer", `{"kind":"req","id":"1","type":"InitConnection","headers":[{"features":["FILE_SHARING","FLYING"]}]}`), nil, true},
		{"a bare field", client("consumer", update(`{"field":"ConversationStateField","conversationState":"CLOSE"}`)), []string{"one conversationField"}, false},
		{"a dialog closed", client("consumer", update(`[{"field":"DialogChange","type":"UPDATE","dialog":{"dialogId":"c","state":"CLOSE"}}]`)), []string{"DialogChange"}, false},
		{"a dialog opened", client("consumer", update(`[{"field":"DialogChange","type":"UPDATE","dialog":{"dialogId":"c","state":"OPEN"}}]`)), nil, true},
		{"no body", server("consumer", `{"kind":"resp","reqId":"1","code":200,"type":"GenericSubscribeResponse"}`), []string{"answer without body"}, false},
		{"messages", server("brand", `{"kind":"resp","reqId":"1","code":200,"type":".ams.ms.QueryMessages$Response","body":[{`+number+telling(text)+`}]}`), []string{"messages asked for"}, false},
		{"messages without a number", server("brand", `{"kind":"resp","reqId":"1","code":200,"type":".ams.ms.QueryMessages$Response","body":[{`+telling(text)+`}]}`), nil, true},
		{"one message", server("brand", `{"kind":"notification","type":".ams.ms.OnlineEventDistribution","body":{`+number+telling(text)+`}}`), []string{"OnlineEventDistribution"}, false},
		{"typing", server("consumer", `{"kind":"notification","type":"ms.MessagingEventNotification","body":{"changes":[{`+telling(typing)+`}]}}`), []string{"chat state without number"}, false},
		{"text without number", server("consumer", `{"kind":"notification","type":"ms.MessagingEventNotification","body":{"changes":[{`+telling(text)+`}]}}`), nil, true},
		{"gone away", server("brand", `{"kind":"notification","type":".ams.ms.OnlineEventDistribution","body":{`+telling(strings.Replace(typing, "COMPOSING", "BACKGROUND", 1))+`}}`), []string{"OnlineEventDistribution", "chat state without number", "BACKGROUND"}, false},
		{"rich content", client("consumer", publish(`{"type":"RichContentEvent","content":{"type":"vertical","elements":[]}}`)), []string{"rich content"}, false},
		{"no rich content", client("consumer", publish(`{"type":"RichContentEvent"}`)), nil, true},
		{"by role", server("brand", conversations(".ams.aam.ExConversationChangeNotification", `{"CONSUMER":["x"]}`)), []string{"brand names", "participants by role"}, false},
		{"roles", server("consumer", conversations("cqm.ExConversationChangeNotification", `[{"id":"x","role":"READER"}]`)), []string{"roles"}, false},
		{"a role nobody knows", server("consumer", conversations("cqm.ExConversationChangeNotification", `[{"id":"x","role":"KING"}]`)), nil, true},
		{"an answer of the Send API", server("connector", `{"code":"OK","body":{"sequence":4},"reqId":"1"}`), []string{"Send API answer"}, false},
		{"a string of the Send API", server("connector", `{"code":"OK","body":{"msg":"done"},"reqId":"1"}`), []string{"Send API answer"}, false},
		{"a wrong answer of the Send API", server("connector", `{"code":"OK","body":{"sequence":"4"},"reqId":"1"}`), nil, true},
		{"an answer of the Send API on a socket", server("consumer", `{"code":"OK","body":{"sequence":4},"reqId":"1"}`), nil, true},
		{"a batch's first answer without an id", server("connector", `{"code":"OK","body":{"msg":"done"}}`), nil, true},
		{"a refusal before any request", server("connector", `{"code":401,"kind":"resp","type":".ReqBody$ErrorResp","body":{}}`), []string{"refusal before any request"}, false},
		{"a refusal without an id on a socket", server("consumer", `{"code":401,"kind":"resp","type":".ReqBody$ErrorResp","body":{}}`), nil, true},
		{"a webhook", server("connector", strings.Replace(conversations("cqm.ExConversationChangeNotification", `[{"id":"x","role":"MANAGER"}]`), `"subscriptionId":"s",`, "", 1)), []string{"webhook without subscription"}, false},
		{"no subscription on a socket", server("consumer", strings.Replace(conversations("cqm.ExConversationChangeNotification", `[{"id":"x","role":"MANAGER"}]`), `"subscriptionId":"s",`, "", 1)), nil, true},
		{"a URL answer without expiry", server("consumer", `{"kind":"resp","reqId":"1","code":200,"type":"ms.GenerateURLResponse","body":{`+path+`,"queryParams":{"temp_url_sig":"x"}}}`), nil, true},
	} {
		v := p.check(c.frame)
		if (v.failure != nil) != c.fails || !slices.Equal(v.reasons, c.reasons) {
			t.Errorf("%s: reasons %q, failure %v; want %q, failing: %v", c.name, v.reasons, v.failure, c.reasons, c.fails)
		}
	}
}

func TestRun(t *testing.T) {
	good := client("brand", `{"kind":"req","id":"1","type":"GetClock"}`)
	odd := client("consumer", `{"kind":"req","id":1,"type":"GetClock"}`)
	bad := client("consumer", `{"kind":"req","id":"1","type":"ms.Unheard"}`)
	for _, c := range []struct {
		name     string
		frames   []wire.Frame
		ok       bool
		lastLine string
	}{
		{"nothing", nil, false, "check-wire: 0 frames checked, 0 explained exceptions, 0 unexplained"},
		{"good and odd", []wire.Frame{good, odd}, true, "check-wire: 2 frames checked, 1 explained exceptions, 0 unexplained"},
		{"one bad", []wire.Frame{good, odd, bad}, false, "check-wire: 3 frames checked, 1 explained exceptions, 1 unexplained"},
	} {
		dir := t.TempDir()
		r, err := wire.Record(filepath.Join(dir, "one"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range c.frames {
			r.Add(f)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if err := run(schemas, dir, []string{"one"}, &out); (err == nil) != c.ok {
			t.Errorf("%s: error %v, want none: %v", c.name, err, c.ok)
		}
		silent, err := wire.Record(filepath.Join(dir, "another"))
		if err != nil {
			t.Fatal(err)
		}
		if err := silent.Close(); err != nil {
			t.Fatal(err)
		}
		if err := run(schemas, dir, []string{"one", "another"}, io.Discard); err == nil {
			t.Errorf("%s: no error for a suite without frames", c.name)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if last := lines[len(lines)-1]; last != c.lastLine {
			t.Errorf("%s: the last line is %q, want %q", c.name, last, c.lastLine)
		}
	}
	if run(schemas, t.TempDir(), []string{"missing"}, &strings.Builder{}) == nil {
		t.Error("no error without a folder of frames")
	}
}

// TestLoad_Errors expects that unknown faults of schemas are errors.
func TestLoad_Errors(t *testing.T) {
	if _, err := load(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("no error for a missing folder")
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(schemas)); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "infra", "req.json")
	if err := os.WriteFile(name, []byte(`{"type":"any"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := load(dir); err == nil {
		t.Error("no error for an unknown type")
	}
}

func TestExceptions_Distinct(t *testing.T) {
	seen := map[string]bool{}
	for _, e := range exceptions {
		if e.name == "" || e.reason == "" || seen[e.name] {
			t.Errorf("exception %q has no name or reason, or occurs twice", e.name)
		}
		seen[e.name] = true
	}
}
