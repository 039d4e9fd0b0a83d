package sandbox

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const (
	events   = "ms.MessagingEventNotification"
	jpegWish = `{"fileSize":1000,"fileType":"JPEG"}`
)

func TestMessages(t *testing.T) {
	s := start(t, Options{})
	token := signUp(t, s)
	w := consumer(t, s, token)
	conv := w.conversation()
	second := consumer(t, s, token)
	second.ok("GetClock", "")
	me := claimsOf(t, token).text("sub")

	for want := range 3 {
		if got := w.publishText(conv, fmt.Sprint("message ", want)); got != want {
			t.Errorf("sequence %d, want %d", got, want)
		}
	}
	d := w.ok("ms.PublishEvent", fmt.Sprintf(`{"dialogId":%q,"conversationId":%q,"event":{"type":"AcceptStatusEvent","status":"READ","sequenceList":2}}`, conv, conv))
	d.want(t, "type", "ms.PublishEventResponse")
	d.want(t, "body.sequence", 3) // receipts count too
	d = w.ok("ms.PublishEvent", fmt.Sprintf(`{"dialogId":%q,"event":{"type":"ChatStateEvent","chatState":"COMPOSING"}}`, conv))
	d.want(t, "body.sequence", 0) // typing does not
	w.ok("ms.PublishEvent", fmt.Sprintf(`{"dialogId":%q,"event":{"type":"RichContentEvent","content":{"type":"vertical","elements":[{"type":"text","text":"rich"}]}}}`, conv)).
		want(t, "body.sequence", 4)

	// Every socket of the consumer gets each event once, including the sender's, with or without a subscription.
	for _, k := range []*wire{w, second} {
		for _, want := range []any{0, 1, 2, 3, nil, 4} {
			n := k.note(events)
			n.want(t, "body.changes.0.sequence", want)
			n.want(t, "body.changes.0.originatorId", me)
			n.want(t, "body.changes.0.originatorMetadata.role", "CONSUMER")
			n.want(t, "body.changes.0.dialogId", conv)
			if want == 3 {
				n.want(t, "body.changes.0.event.sequenceList", "[2]")
			}
			if (n.at("body.changes.0.serverTimestamp") == nil) != (want == nil) {
				t.Errorf("timestamp of %s", n)
			}
		}
		k.quiet(events)
	}

	// A subscription sends the backlog in one notification, or none if it is empty.
	for from, want := range map[string]int{`0`: 5, `3`: 2, `"4"`: 1} {
		w.ok("ms.SubscribeMessagingEvents", fmt.Sprintf(`{"dialogId":%q,"fromSeq":%s}`, conv, from)).want(t, "type", "GenericSubscribeResponse")
		if n := w.note(events).at("body.changes").([]any); len(n) != want {
			t.Errorf("from %s: %d events, want %d", from, len(n), want)
		}
	}
	w.ok("ms.SubscribeMessagingEvents", fmt.Sprintf(`{"dialogId":%q,"fromSeq":5}`, conv))
	w.quiet(events)
	w.publishText(conv, "once")
	w.note(events).want(t, "body.changes.0.event.message", "once")
	w.quiet(events)

	for body, want := range map[string]int{`"newerThanSequence":4`: 2, `"fromSeq":2`: 4} {
		d = w.ok("ms.QueryMessages", fmt.Sprintf(`{"dialogId":%q,%s}`, conv, body))
		d.want(t, "type", ".ams.ms.QueryMessages$Response")
		if n := d.at("body").([]any); len(n) != want {
			t.Errorf("%s: %d events, want %d", body, len(n), want)
		}
	}
	w.quiet(events)

	w.send(fmt.Sprintf(`{"kind":"req","id":"m","type":"ms.PublishEvent","metadata":[{"type":"ExternalId","id":"7"}],"body":%s}`, textEvent(conv, "with metadata")))
	w.answer("m").want(t, "code", 200)
	w.note(events).want(t, "body.changes.0.metadata.0.id", "7")
}

func TestMessages_Refusals(t *testing.T) {
	s := start(t, Options{})
	w, outsider := consumer(t, s, signUp(t, s)), consumer(t, s, signUp(t, s))
	conv, other := w.conversation(), w.conversation()
	event := func(event string) string { return fmt.Sprintf(`{"dialogId":%q,"event":%s}`, conv, event) }
	for body, want := range map[string]int{
		`{}`:                                 40001,
		textEvent("nope", "x"):               40401,
		fmt.Sprintf(`{"dialogId":%q}`, conv): 40001,
		event(`[]`):                          40002,
		event(`{"type":"SmokeSignal"}`):      40002,
		event(`{"type":"ContentEvent"}`):     40002,
		event(`{"type":"ContentEvent","contentType":"HostedFile","message":{}}`):                                                                              40002,
		event(`{"type":"ContentEvent","contentType":"text/plain","message":{}}`):                                                                              40002,
		event(`{"type":"ContentEvent","contentType":"text/plain"}`):                                                                                           40002,
		event(`{"type":"AcceptStatusEvent","status":"LIKED","sequenceList":[0]}`):                                                                             40002,
		event(`{"type":"AcceptStatusEvent","status":"READ","sequenceList":[]}`):                                                                               40002,
		event(`{"type":"ChatStateEvent","chatState":"YAWNING"}`):                                                                                              40002,
		event(`{"type":"RichContentEvent"}`):                                                                                                                  40002,
		fmt.Sprintf(`{"dialogId":%q,"conversationId":%q,"event":{"type":"ContentEvent","contentType":"text/plain","message":"x"}}`, conv, other):              40002,
		fmt.Sprintf(`{"dialogId":%q,"messageAudience":"AGENTS_AND_MANAGERS","event":{"type":"ContentEvent","contentType":"text/plain","message":"x"}}`, conv): 40002,
	} {
		w.refused(want, "ms.PublishEvent", body)
	}
	at := fmt.Sprintf(`{"dialogId":%q}`, conv)
	outsider.refused(40302, "ms.PublishEvent", textEvent(conv, "x"))
	outsider.refused(40302, "ms.SubscribeMessagingEvents", at)
	outsider.refused(40302, "ms.QueryMessages", at)
	w.refused(40002, "ms.QueryMessages", fmt.Sprintf(`{"dialogId":%q,"fromSeq":"x"}`, conv))

	if n := w.publishText(conv, "first after all"); n != 0 {
		t.Errorf("refused events took %d sequences", n)
	}
	outsider.quiet(events)
	w.ok("cm.UpdateConversationField", fmt.Sprintf(`{"conversationId":%q,"conversationField":{"field":"ConversationStateField","conversationState":"CLOSE"}}`, conv))
	w.refused(40004, "ms.PublishEvent", textEvent(conv, "too late"))
	w.ok("ms.QueryMessages", at) // earlier messages remain readable
}

func TestUploadURL(t *testing.T) {
	s := start(t, Options{MaxFileSize: 1000})
	w := consumer(t, s, signUp(t, s))
	for body, want := range map[string]int{
		`{"fileSize":1000,"fileType":"JPEG"}`:  0,
		`{"fileSize":"1","fileType":"DOCX"}`:   0,
		`{"fileSize":1001,"fileType":"JPG"}`:   41301,
		`{"fileSize":"9999","fileType":"JPG"}`: 41301,
		`{"fileSize":0,"fileType":"JPG"}`:      40002,
		`{"fileSize":-1,"fileType":"JPG"}`:     40002,
		`{"fileSize":1.5,"fileType":"JPG"}`:    40002,
		`{"fileSize":"1k","fileType":"JPG"}`:   40002,
		`{"fileSize":{},"fileType":"JPG"}`:     40002,
		`{"fileSize":10,"fileType":"EXE"}`:     40002,
		`{"fileSize":10,"fileType":"jpg"}`:     40002,
		`{"fileSize":10}`:                      40001,
		`{"fileType":"JPG"}`:                   40001,
	} {
		if want == 0 {
			w.ok("ms.GenerateURLForUploadFile", body)
		} else {
			w.refused(want, "ms.GenerateURLForUploadFile", body)
		}
	}
}

func TestUploadURL_Lifetime(t *testing.T) {
	c := newClock()
	s := start(t, Options{Now: c.Now})
	w := consumer(t, s, signUp(t, s))
	d := w.ok("ms.GenerateURLForUploadFile", jpegWish)
	c.advance(59 * time.Second)
	if resp, _ := fetch(t, "PUT", fileURL(s, d), "x"); resp.StatusCode != 201 {
		t.Errorf("after 59 s: %s", resp.Status)
	}
	c.advance(2 * time.Second)
	if resp, _ := fetch(t, "PUT", fileURL(s, d), "x"); resp.StatusCode != 401 {
		t.Errorf("after 61 s: %s", resp.Status)
	}
}

func TestHostedFile(t *testing.T) {
	s := start(t, Options{Accounts: []string{acct, "87654321"}})
	w, other := consumer(t, s, signUp(t, s)), consumer(t, s, signUp(t, s))
	conv, foreign := w.conversation(), other.conversation()
	path := w.upload(s, "PNG", jpeg)
	promised := w.ok("ms.GenerateURLForUploadFile", jpegWish).text("body.relativePath")
	others := other.upload(s, "JPG", jpeg)

	message := func(members string) string {
		return fmt.Sprintf(`{"dialogId":%q,"event":{"type":"ContentEvent","contentType":"hosted/file","message":{%s}}}`, conv, members)
	}
	preview := func(n int) string {
		return message(fmt.Sprintf(`"relativePath":%q,"fileType":"JPG","preview":"data:image/png;base64,%s"`, path, strings.Repeat("A", n)))
	}
	for _, c := range []struct {
		name, body string
		want       int
	}{
		{"neither caption nor preview", message(fmt.Sprintf(`"relativePath":%q,"fileType":"JPEG"`, path)), 0},
		{"empty caption, null preview", message(fmt.Sprintf(`"relativePath":%q,"fileType":"IMG","caption":"","preview":null`, path)), 0},
		{"39 KB of preview", preview(39 << 10), 0},
		{"40 KB of preview", preview(40 << 10), 41302},
		{"unknown type", fileEvent(conv, path, "EXE"), 40002},
		{"no type", message(fmt.Sprintf(`"relativePath":%q`, path)), 40001},
		{"no path", message(`"fileType":"JPG"`), 40001},
		{"a list of properties", fmt.Sprintf(`{"dialogId":%q,"event":{"type":"ContentEvent","contentType":"hosted/file","message":[]}}`, conv), 40002},
		{"caption of another kind", message(fmt.Sprintf(`"relativePath":%q,"fileType":"JPG","caption":{}`, path)), 40002},
		{"not uploaded", fileEvent(conv, promised, "JPG"), 40005},
		{"never given", fileEvent(conv, "/v1/AUTH_async-images/12345678/x.JPG", "JPG"), 40006},
		{"given to another", fileEvent(conv, others, "JPG"), 40006},
		{"another account's", fileEvent(conv, "/v1/AUTH_async-images/87654321/x.JPG", "JPG"), 40303},
		{"a bare name", fileEvent(conv, "1234.JPG", "JPG"), 40002},
		{"a way around", fileEvent(conv, "/v1/AUTH_async-images/12345678/../87654321/x.JPG", "JPG"), 40002},
		{"without a slash", fileEvent(conv, path[1:], "JPG"), 40002},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.t = t
			if c.want == 0 {
				w.ok("ms.PublishEvent", c.body)
			} else {
				w.refused(c.want, "ms.PublishEvent", c.body)
			}
		})
	}
	w.t = t

	down := func(path string) string { return fmt.Sprintf(`{"relativePath":%q}`, path) }
	w.ok("ms.GenerateURLForDownloadFile", down(path))
	w.ok("ms.GenerateURLForDownloadFile", down(promised)) // one's own, though nobody has published it
	w.refused(40402, "ms.GenerateURLForDownloadFile", down(others))
	other.refused(40402, "ms.GenerateURLForDownloadFile", down(path))
	w.refused(40402, "ms.GenerateURLForDownloadFile", down("1234.JPG"))
	w.refused(40402, "ms.GenerateURLForDownloadFile", down("/v1/AUTH_async-images/87654321/x.JPG"))
	w.refused(40001, "ms.GenerateURLForDownloadFile", `{}`)
	other.ok("ms.PublishEvent", fileEvent(foreign, others, "JPG"))
	w.refused(40402, "ms.GenerateURLForDownloadFile", down(others))

	j := s.Journal()
	if len(j.Published) != 4 || j.Published[2].Preview != 22+39<<10 || j.Published[3].Conversation != foreign {
		t.Errorf("journal: %+v", j.Published)
	}
	open := start(t, Options{SignAnyPath: true})
	consumer(t, open, signUp(t, open)).ok("ms.GenerateURLForDownloadFile", down("/v1/AUTH_async-images/12345678/x.JPG"))
}

// TestHostedFile_RemoteSwift keeps the files in another Swift, which must have a file before it can be published.
func TestHostedFile_RemoteSwift(t *testing.T) {
	var asked, broken atomic.Bool
	stored := make(chan string, 1)
	stored <- "" // nothing yet
	swift := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(true)
		there := <-stored
		stored <- there
		switch q, _ := url.ParseQuery(r.URL.RawQuery); {
		case broken.Load():
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.Method != "HEAD" || len(q.Get("temp_url_sig")) != 64 || r.URL.Path != there:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer swift.Close()
	s := start(t, Options{SwiftURL: swift.URL, SwiftKey: "k", SwiftDigest: "sha256"})
	w := consumer(t, s, signUp(t, s))
	conv := w.conversation()
	path := w.ok("ms.GenerateURLForUploadFile", jpegWish).text("body.relativePath")
	w.refused(40006, "ms.PublishEvent", fileEvent(conv, "/v1/AUTH_async-images/12345678/x.JPG", "JPG"))
	if asked.Load() {
		t.Error("asked for a path that was never given out")
	}
	w.refused(40005, "ms.PublishEvent", fileEvent(conv, path, "JPG"))
	<-stored
	stored <- path
	w.ok("ms.PublishEvent", fileEvent(conv, path, "JPG"))
	joe := patronOf(t, s, "joe")
	ours, mine := joe.conversation(), joe.ok("ms.GenerateURLForUploadFile", jpegWish).text("body.relativePath")
	joe.refused(40005, "ms.PublishEvent", fileEvent(ours, mine, "JPG"))
	<-stored
	stored <- mine
	joe.ok("ms.PublishEvent", fileEvent(ours, mine, "JPG"))
	broken.Store(true)
	joe.refused(50201, "ms.PublishEvent", fileEvent(ours, mine, "JPG"))
	w.refused(50201, "ms.PublishEvent", fileEvent(conv, path, "JPG"))
	w.ok("ms.PublishEvent", textEvent(conv, "text needs no storage"))
	if resp, _ := fetch(t, "GET", s.URL()+path, ""); resp.StatusCode != 404 {
		t.Errorf("own store beside another: %s", resp.Status)
	}
}
