package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/lpfileshare/lpfileshare/test/harness"
)

// TestPage_Calls makes the calls of the sandbox's page: sign in, create a conversation, send a file, download it.
func TestPage_Calls(t *testing.T) {
	t.Parallel()
	s, err := harness.Start(harness.Func(run), "--sandbox", "--listen=127.0.0.1:0", "--drain-time=0s")
	if err != nil {
		t.Fatal(err)
	}
	s.Stopped(t)
	page := regexp.MustCompile(`page=(http://\S+/)`).FindStringSubmatch(s.Logs.String())[1]
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	post := func(method, contentType string, body []byte, header ...string) (*http.Response, []byte) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, page+"lpfileshare.v1."+method, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", contentType)
		req.Header.Set("Connect-Protocol-Version", "1")
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, data
	}
	call := func(method, body string, header ...string) (answer struct {
		ConsumerToken string
		Conversation  struct{ Name string }
		Result        struct {
			RequestID string
			File      struct{ Name string }
		}
		Code    string
		Details []struct {
			Type  string
			Debug struct{ Reason string }
		}
	}) {
		t.Helper()
		_, data := post(method, "application/json", []byte(body), header...)
		if err := json.Unmarshal(data, &answer); err != nil {
			t.Fatalf("%s: %v: %s", method, err, data)
		}
		return answer
	}
	const account = `"account":"accounts/12345678"`
	token := call("IdentityService/SignInConsumer", `{`+account+`,"signUp":{}}`).ConsumerToken
	conversation := call("ConversationService/CreateConversation", `{`+account+`}`, "lp-consumer-token", token).Conversation.Name
	picture := base64.StdEncoding.EncodeToString(tinyPNG(t))
	file := call("FileSharingService/UploadSmallFile", fmt.Sprintf(`{"spec":{"conversation":%q,"fileType":"FILE_TYPE_PNG"},"data":%q}`, conversation, picture),
		"lp-consumer-token", token).Result.File.Name
	if file == "" {
		t.Fatal("the file was not sent")
	}

	request := fmt.Appendf(nil, `{"name":%q}`, file)
	envelope := append([]byte{0, 0, 0, byte(len(request) >> 8), byte(len(request))}, request...)
	resp, stream := post("FileSharingService/Download", "application/connect+json", envelope, "lp-consumer-token", token)
	if text := string(stream); resp.StatusCode != 200 || !strings.Contains(text, picture) || !strings.Contains(text, `"trailer"`) || !strings.HasSuffix(text, "{}\n") {
		t.Errorf("download: %s %q", resp.Status, text)
	}

	refused := call("ConversationService/CreateConversation", `{`+account+`}`)
	if len(refused.Details) == 0 || refused.Code != "unauthenticated" || refused.Details[0].Type != "google.rpc.ErrorInfo" || refused.Details[0].Debug.Reason == "" {
		t.Errorf("a call without a token: %+v", refused)
	}
	for _, test := range []struct {
		method, contentType, body string
		header                    []string
		want                      int
	}{
		{"IdentityService/SignInConsumer", "text/plain", `{}`, nil, 415}, // what a form of another page could send
		{"IdentityService/SignInConsumer", "application/json", `{"nonsense":1}`, nil, 400},
		{"IdentityService/SignInConsumer", "application/json", strings.Repeat(" ", 8<<20), nil, 429},
		{"IdentityService/None", "application/json", `{}`, nil, 501},
		{"FileSharingService/Upload", "application/json", `{}`, nil, 501},
		{"AccountService/GetFileSharing", "application/json", `{` + account + `}`, []string{"lp-external-consumer-id", "joe"}, 401},
		{"IdentityService/SignInConsumer", "application/json", `{}`, []string{"Origin", "http://other.example"}, 403},
	} {
		if resp, body := post(test.method, test.contentType, []byte(test.body), test.header...); resp.StatusCode != test.want {
			t.Errorf("%s %s: %s %.200s, want %d", test.method, test.contentType, resp.Status, body, test.want)
		}
	}
	if strings.Contains(s.Logs.String(), token) {
		t.Error("the log has the token in it")
	}
}
