package wire_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/wire"
)

// TestSandbox_ConnectorExchanges shares files in both directions between a consumer of the Connector API and an agent on a socket, and
// checks every request, answer and webhook.
func TestSandbox_ConnectorExchanges(t *testing.T) {
	checker, err := wire.New()
	if err != nil {
		t.Fatal(err)
	}
	webhooks := make(chan string, 100)
	endpoint := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		webhooks <- string(body)
	}))
	defer endpoint.Close()
	sb, err := sandbox.Start(sandbox.Options{
		AppInstalls: []sandbox.AppInstall{{ID: "app", Secret: "secret", Webhooks: sandbox.Webhooks{
			Endpoints: sandbox.AllEvents(endpoint.URL), Retention: time.Minute,
		}}},
		OnFrame: func(f sandbox.Frame) {
			if err := checker.Check(wire.Frame(f)); err != nil {
				t.Errorf("%v\n\t%s", err, f.Data)
			}
		},
		OnExchange: func(x sandbox.Exchange) {
			if err := checker.CheckExchange(wire.Exchange(x)); err != nil {
				t.Errorf("%v\n\t%s\n\t%s", err, x.Request, x.Answer)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	connect(t, sb)
	const deliveries = 7 // three changes (created, agent added, closed) and four events
	for range deliveries {
		select {
		case <-webhooks:
		case <-time.After(10 * time.Second):
			t.Fatal("a webhook is missing")
		}
	}
	if err := sb.Close(); err != nil { // after which no exchange is in progress
		t.Error(err)
	}
	if err := checker.Err(); err != nil {
		t.Error(err)
	}
	for kind, n := range map[string]int{
		"connector.notification.ms.MessagingEventNotification": 4, "connector.notification.cqm.ExConversationChangeNotification": 3,
		"connector.request.conversation": 2, "connector.response.conversation": 1, "connector.request.ms.PublishEvent.hosted-file": 1,
		"connector.response.published": 2, "connector.response.url": 2, "connector.response.string": 2, "connector.response.error": 4,
		"connector.response.token": 1, "connector.response.consumer": 1, "connector.response.failure": 1,
	} {
		if got := checker.Counts()[kind]; got != n {
			t.Errorf("%d of %s, want %d", got, kind, n)
		}
	}
	t.Log("\n" + checker.Report())
}

// connect makes the requests of the test.
func connect(t *testing.T, sb *sandbox.Sandbox) {
	base := sb.URL() + "/api/account/" + account
	tokenURL := sb.URL() + "/sentinel/api/account/" + account + "/app/token?v=1.0&grant_type=client_credentials&client_id=app&client_secret="
	exchange(t, 401, tokenURL+"wrong", "")
	var app struct {
		Token string `json:"access_token"`
	}
	unmarshal(t, exchange(t, 200, tokenURL+"secret", ""), &app)
	exchange(t, 401, base+"/consumer?v=1.0", `{"ext_consumer_id":"joe"}`)
	var consumer struct {
		Token string `json:"token"`
	}
	unmarshal(t, exchange(t, 201, base+"/consumer?v=1.0", `{"ext_consumer_id":"joe"}`, app.Token), &consumer)

	conversations := base + "/messaging/consumer/conversation"
	const batch = `[{"kind":"req","id":"1,","type":"userprofile.SetUserProfile","body":{"firstName":"Joe"}},
		{"kind":"req","id":"2,","type":"cm.ConsumerRequestConversation","body":{"brandId":"12345678","channelType":"MESSAGING","skillId":"-1"}}]`
	exchange(t, 401, conversations+"?v=3", batch, app.Token, "x")
	var answers []struct {
		Body struct {
			Conversation string `json:"conversationId"`
		} `json:"body"`
	}
	unmarshal(t, exchange(t, 200, conversations+"?v=3", batch, app.Token, consumer.Token), &answers)
	conv := answers[1].Body.Conversation

	sent := 0
	send := func(status int, typ, body string) json.RawMessage {
		t.Helper()
		sent++
		var answer struct {
			Body json.RawMessage `json:"body"`
		}
		request := fmt.Sprintf(`{"kind":"req","id":"%d","type":%q,"body":%s}`, sent, typ, body)
		unmarshal(t, exchange(t, status, conversations+"/send?v=3", request, app.Token, consumer.Token), &answer)
		return answer.Body
	}
	var agent struct {
		Bearer string `json:"bearer"`
		Config struct {
			UserID any `json:"userId"`
		} `json:"config"`
	}
	post(t, base+"/login?v=1.3", `{"username":"ann","password":"sandbox"}`, &agent)
	brand := open(t, "brand", "ws"+strings.TrimPrefix(sb.URL(), "http")+"/ws_api/account/"+account+"/messaging/brand/"+agent.Bearer+"?v=2.1")
	brand.ask(200, ".ams.cm.UpdateConversationField", fmt.Sprintf(
		`{"conversationId":%q,"conversationField":[{"field":"ParticipantsChange","type":"ADD","role":"ASSIGNED_AGENT","userId":"%s.%v"}]}`,
		conv, account, agent.Config.UserID))

	var upload struct {
		Path string `json:"relativePath"`
		URL  struct {
			Sig     string `json:"temp_url_sig"`
			Expires string `json:"temp_url_expires"`
		} `json:"queryParams"`
	}
	unmarshal(t, send(200, "ms.GenerateURLForUploadFile", `{"fileSize":"3","fileType":"JPG"}`), &upload)
	put(t, sb.URL()+upload.Path+"?temp_url_sig="+upload.URL.Sig+"&temp_url_expires="+upload.URL.Expires)
	dialog := fmt.Sprintf(`"dialogId":%q,"conversationId":%q`, conv, conv)
	send(200, "ms.PublishEvent", fmt.Sprintf(
		`{%s,"event":{"type":"ContentEvent","contentType":"hosted/file","message":{"caption":"","relativePath":%q,"fileType":"JPG"}}}`, dialog, upload.Path))
	send(200, "ms.GenerateURLForDownloadFile", fmt.Sprintf(`{"relativePath":%q}`, upload.Path))
	send(404, "ms.GenerateURLForDownloadFile", fmt.Sprintf(`{"relativePath":%q}`, upload.Path+"x"))
	send(404, "ms.PublishEvent", `{"dialogId":"none","event":{"type":"ContentEvent","contentType":"text/plain","message":"lost"}}`)
	send(200, "ms.PublishEvent", `{`+dialog+`,"event":{"type":"AcceptStatusEvent","status":"ACCESS","sequenceList":[0]}}`)
	send(200, "userprofile.SetUserProfile", `{}`)
	for _, event := range []string{`{"type":"ContentEvent","contentType":"text/plain","message":"thanks"}`, `{"type":"ChatStateEvent","chatState":"ACTIVE"}`} {
		brand.ask(200, ".ams.ms.PublishEvent", `{`+dialog+`,"messageAudience":"ALL","event":`+event+`}`)
	}
	send(200, "cm.UpdateConversationField", fmt.Sprintf(
		`{"conversationId":%q,"conversationField":{"field":"ConversationStateField","conversationState":"CLOSE"}}`, conv))
}

// exchange makes a request of the Connector API with an optional AppJWT and ConsumerJWS, and returns the answer.
func exchange(t *testing.T, status int, url, body string, tokens ...string) []byte {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i, token := range tokens {
		req.Header.Set([]string{"Authorization", "X-LP-ON-BEHALF"}[i], token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status {
		t.Fatalf("%s: %s %s %v, want %d", url, resp.Status, data, err, status)
	}
	return data
}
