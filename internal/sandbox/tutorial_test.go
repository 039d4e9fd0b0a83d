package sandbox

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"testing"
)

// TestFileSharingTutorial makes the requests of LivePerson's File Sharing page exactly as they are written there.
func TestFileSharingTutorial(t *testing.T) {
	s := start(t, Options{FileSharingOff: true})
	api := s.URL() + "/api/account/" + acct

	// 1. Enable file sharing: a login at version 1.1, then what set_site_property.sh sends.
	_, in := ask(t, "POST", api+"/login?v=1.1", `{"username": "admin","password":"sandbox"}`,
		"Content-Type", "application/json", "Accept", "application/json", "Cache-Control", "no-cache")
	resp, _ := ask(t, "PUT", api+"/configuration/setting/properties/?v=3.0",
		`{"id":"messaging.file.sharing.enabled","type":1,"propertyValue":{"value":"true"},"deleted":"false"}`,
		"Authorization", "Bearer "+in.text("bearer"), "If-Match", "-1")
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("set_site_property: %s", resp.Status)
	}

	// 2. Create a conversation.
	_, up := ask(t, "POST", api+"/signup", "")
	w := dial(t, s, consumerPath, "Authorization", "jwt "+up.text("jwt"))
	w.send(`{"kind":"req","id":1,"type":"cm.ConsumerRequestConversation"}`)
	conv := w.answer("1").text("body.conversationId")

	// 3. Request an upload URL, in both forms that the page shows.
	w.send(`{ "kind": "req", "id": 1, "body": { "fileSize": "1000", "fileType": "JPG" }, "type": "ms.GenerateURLForUploadFile" }`)
	w.answer("1").want(t, "code", 200)
	w.send(`{"kind":"req","id":"3","body":{"fileSize":1000,"fileType":"PNG"},"type":"ms.GenerateURLForUploadFile"    }`)
	upload := w.answer("3")
	upload.want(t, "type", "ms.BaseGenerateURLResponse")
	path := upload.text("body.relativePath")
	if ok := regexp.MustCompile(`^/v1/AUTH_async-images/12345678/[0-9a-f-]{36}_uuid_[0-9a-f-]{36}_\d\d-\d\d-\d{4}_\d\d-\d\d-\d\d-\d{3}\.PNG$`).MatchString(path); !ok {
		t.Errorf("path %q", path)
	}
	if sig := upload.text("body.queryParams.temp_url_sig"); !regexp.MustCompile(`^[0-9a-f]{40}$`).MatchString(sig) {
		t.Errorf("signature %q", sig)
	}

	// 4. Upload the file.
	put, body := fetch(t, "PUT", fileURL(s, upload), string(jpeg))
	if put.StatusCode != http.StatusCreated {
		t.Fatalf("PUT: %s %s", put.Status, body)
	}
	// The page's URL pattern doubles the slash before the path, which makes it another path, without a signature.
	double, _ := fetch(t, "PUT", s.URL()+"/"+fileURL(s, upload)[len(s.URL()):], string(jpeg))
	if double.StatusCode != http.StatusUnauthorized {
		t.Errorf("PUT to a doubled slash: %s", double.Status)
	}

	// 5. Publish it.
	w.send(fmt.Sprintf(`{"kind":"req","id":"22","body":{"dialogId":%q,"event":{"type":"ContentEvent","message":{"caption":"LivePerson logo",`+
		`"relativePath":%q,"fileType":"PNG","preview":"data:image/png;base64,AAAA"},"contentType":"hosted/file"}},"type":"ms.PublishEvent"}`, conv, path))
	published := w.answer("22")
	published.want(t, "code", 200)
	published.want(t, "body.sequence", 0)
	note := w.note("ms.MessagingEventNotification")
	note.want(t, "body.changes.0.event.message.relativePath", path)
	note.want(t, "body.changes.0.sequence", 0)

	// 6. Request a download URL. The page's example is a file name without a path, which is not found.
	w.send(`{ "kind": "req", "id": 1, "body": { "relativePath": "1234.JPG" }, "type": "ms.GenerateURLForDownloadFile" }`)
	w.answer("1").want(t, "code", 404)
	w.send(fmt.Sprintf(`{"kind":"req","id":"33","body":{"relativePath":%q},"type":"ms.GenerateURLForDownloadFile"}`, path))
	download := w.answer("33")
	download.want(t, "body.relativePath", path)

	// 7. Download the file.
	got, body := fetch(t, "GET", fileURL(s, download), "")
	if got.StatusCode != http.StatusOK || !slices.Equal(body, jpeg) {
		t.Fatalf("GET: %s, %d bytes", got.Status, len(body))
	}
	if crossed, _ := fetch(t, "GET", fileURL(s, upload), ""); crossed.StatusCode != http.StatusUnauthorized {
		t.Errorf("GET with the upload's URL: %s", crossed.Status)
	}

	j := s.Journal()
	if len(j.Published) != 1 || j.Published[0].Path != path || j.Published[0].Originator == "" || j.Published[0].Caption != "LivePerson logo" {
		t.Errorf("journal: %+v", j.Published)
	}
	if len(j.Signed) != 3 || len(j.Stored) != 1 || len(j.Conversations) != 1 {
		t.Errorf("journal: %+v", j)
	}
}
