package lpwire

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// documents are bodies in many shapes, also of wrong types.
func documents(tb testing.TB) []string {
	docs := []string{
		`null`, `7`, `[]`, `{}`, `"text"`, ` { } `, `{"changes":null}`, `{"changes":7}`, `{"changes":{}}`, `{"changes":[]}`, `{"changes":[null,1,"x",[],{}]}`,
		`{"subscriptionId":"a\"b\\","changes":[{"type":"UPSERT","result":{"convId":"c\u00e9","conversationDetails":{"skillId":-1,"startTs":"1544178732211",` +
			`"participants":[{"id":"1","role":"CONSUMER"},{"id":""}],"participantsPId":{"CONSUMER":["2"],"READER":"3"},"dialogs":[{"dialogId":"d","dialogType":"MAIN",` +
			`"state":"OPEN","participantsDetails":[{"id":"p","role":"r","state":"ACTIVE"}]},null]},"lastContentEventNotification":{"sequence":3,"event":null}}}]}`,
		`{"changes":{"result":{"conversationDetails":{"participants":{"id":{},"X":[1,"2",{}]}}}}}`,
		`{"changes":[{"sequence":"1e3","originatorMetadata":{"id":"x","role":"CONSUMER"},"event":{"type":"ContentEvent","contentType":"hosted/file","message":` +
			`{"caption":"\ud83d\ude00 \\\" {[","relativePath":"/v1/x","a":[[{"b":"]}"}]]}}},{"event":[]},{"event":{"message":"}"}}]}`,
		`{"sequence":1.5,"unknown":{"a":[1,2,{"b":true}]},"dialogId":"d","event":{"message":{}}}`,
		`{"\u0073equence":4,"sequence":5,"sequence":"x","dialogId":null,"event":{"type":"a"},"event":7}`,
		"{\n\t\"changes\" : [ { \"sequence\" : 1 } , { \"sequence\" : 2 } ]\r\n}",
	}
	files, _ := filepath.Glob("../lpws/testdata/frames/*.json")
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			tb.Fatal(err)
		}
		var frame struct{ Body json.RawMessage }
		if json.Unmarshal(data, &frame) == nil && len(frame.Body) > 0 {
			docs = append(docs, string(frame.Body))
		}
	}
	return docs
}

// The cursor reads what package json reads.
func TestCursor_ReadsAsPackageJSON(t *testing.T) {
	t.Parallel()
	for _, doc := range documents(t) {
		compare(t, doc, ReadConversationChanges)
		compare(t, doc, ReadEventChanges)
		compare(t, doc, ReadEvent)
	}
}

func compare[T any](t *testing.T, doc string, read func([]byte) (T, bool)) {
	t.Helper()
	var want T
	valid := json.Unmarshal([]byte(doc), &want) == nil
	got, ok := read([]byte(doc))
	if ok != valid || ok && !reflect.DeepEqual(got, want) {
		t.Errorf("%s\nis read as %+v, %t\nwant %+v, %t", doc, got, ok, want, valid)
	}
}

func TestReadFrame(t *testing.T) {
	t.Parallel()
	for doc, want := range map[string]Frame{
		`{"kind":"resp","reqId":7,"code":"200","type":".ams.X","body":{"a":"}"}}`: {Kind: "resp", ReqID: "7", Code: 200, Type: ".ams.X", Body: json.RawMessage(`{"a":"}"}`)},
		` {"body": null , "code":null}`:                                           {Code: 200, Body: json.RawMessage(`null`)},
		`{"kind":{"kind":"x"}}`:                                                   {},
	} {
		if f, ok := ReadFrame([]byte(doc)); !ok || !reflect.DeepEqual(f, want) {
			t.Errorf("%s is %+v, want %+v", doc, f, want)
		}
	}
	for _, doc := range []string{``, `7`, `[]`, `{`, `{}{}`, `{"kind":"resp"`, `{"kind" "resp"}`, `null`} {
		if f, ok := ReadFrame([]byte(doc)); ok {
			t.Errorf("%s is %+v, want no frame", doc, f)
		}
	}
}

// JSON that is not valid stops the cursor: it neither panics nor runs without end.
func FuzzCursor(f *testing.F) {
	for _, doc := range documents(f) {
		f.Add(doc)
		f.Add(doc[:len(doc)/2])
	}
	f.Fuzz(func(t *testing.T, doc string) {
		ReadConversationChanges([]byte(doc))
		ReadEventChanges([]byte(doc))
		ReadEvent([]byte(doc))
		ReadFrame([]byte(doc))
	})
}
