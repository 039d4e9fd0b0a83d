package wire_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/wire"
)

const account = "12345678"

// TestSandbox_Frames makes every request of the server as a consumer and as an agent, and checks every frame in both directions.
func TestSandbox_Frames(t *testing.T) {
	checker, err := wire.New()
	if err != nil {
		t.Fatal(err)
	}
	sb, err := sandbox.Start(sandbox.Options{OnFrame: func(f sandbox.Frame) {
		if err := checker.Check(wire.Frame(f)); err != nil {
			t.Errorf("%v\n\t%s", err, f.Data)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	talk(t, sb)
	if err := sb.Close(); err != nil { // after which no frame is sent
		t.Error(err)
	}
	if err := checker.Err(); err != nil {
		t.Error(err)
	}
	for kind, n := range map[string]int{
		"consumer.notification.ms.MessagingEventNotification": 5, "brand.notification.ms.OnlineEventDistribution": 5,
		"consumer.response.error": 2, "consumer.response.url": 2, "brand.response.messages": 1,
	} {
		if got := checker.Counts()[kind]; got < n {
			t.Errorf("%d of %s, want at least %d", got, kind, n)
		}
	}
	t.Log("\n" + checker.Report())
}

// TestSandbox_OtherClients makes the requests that only other clients make.
func TestSandbox_OtherClients(t *testing.T) {
	checker, err := wire.New()
	if err != nil {
		t.Fatal(err)
	}
	sb, err := sandbox.Start(sandbox.Options{OnFrame: func(f sandbox.Frame) {
		if err := checker.CheckForeign(wire.Frame(f)); err != nil {
			t.Errorf("%v\n\t%s", err, f.Data)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	var token struct {
		JWT string `json:"jwt"`
	}
	post(t, sb.URL()+"/api/account/"+account+"/signup?v=1.0", `{}`, &token)
	var agent struct {
		Bearer string `json:"bearer"`
	}
	post(t, sb.URL()+"/api/account/"+account+"/login?v=1.3", `{"username":"bob","password":"sandbox"}`, &agent)
	ws := "ws" + strings.TrimPrefix(sb.URL(), "http") + "/ws_api/account/" + account + "/messaging/"
	brand := open(t, "brand", ws+"brand/"+agent.Bearer+"?v=2.1")
	brand.ask(200, ".ams.routing.SubscribeAgentsState", `{"brandId":"12345678"}`)
	brand.ask(202, ".ams.routing.SetAgentState", `{"availability":"ONLINE"}`)
	brand.ask(200, ".ams.userprofile.GetUserProfile", `{}`)
	brand.ask(200, ".ams.routing.SubscribeRoutingTasks", `{"channelType":"MESSAGING"}`)
	brand.ask(200, "cqm.SubscribeExConversations", `{}`)
	brand.write(`{"kind":"req","id":1,"type":"GetClock"}`)
	brand.answer("1", 200)
	brand.write(`no JSON`)
	brand.answer("0", 400)

	consumer := open(t, "consumer", ws+"consumer?v=3")
	consumer.write(fmt.Sprintf(`{"kind":"req","id":0,"type":"InitConnection","headers":[{"type":".ams.headers.ConsumerAuthentication","jwt":%q}]}`, token.JWT))
	consumer.answer("0", 200)
	consumer.ask(200, "userprofile.GetUserProfile", `{}`)
	consumer.ask(200, "cm.ConsumerRequestConversation", `{"campaignInfo":{"campaignId":1,"engagementId":2}}`)
	brand.await("ExConversationChangeNotification")
	brand.await("RoutingTaskNotification")
	if err := errors.Join(sb.Close(), checker.Err()); err != nil {
		t.Error(err)
	}
	for _, kind := range []string{
		"brand.notification.routing.AgentStateNotification", "brand.response.profile", "brand.notification.routing.RoutingTaskNotification",
		"consumer.response.profile",
	} {
		if checker.Counts()[kind] == 0 {
			t.Errorf("no %s", kind)
		}
	}
}

// talk makes the requests of the test.
func talk(t *testing.T, sb *sandbox.Sandbox) {
	var token struct {
		JWT string `json:"jwt"`
	}
	post(t, sb.URL()+"/api/account/"+account+"/signup?v=1.0", `{}`, &token)
	var agent struct {
		Bearer string `json:"bearer"`
		Config struct {
			UserID any `json:"userId"`
		} `json:"config"`
	}
	post(t, sb.URL()+"/api/account/"+account+"/login?v=1.3", `{"username":"ann","password":"sandbox"}`, &agent)

	ws := "ws" + strings.TrimPrefix(sb.URL(), "http") + "/ws_api/account/" + account + "/messaging/"
	consumer, brand := open(t, "consumer", ws+"consumer?v=3"), open(t, "brand", ws+"brand/"+agent.Bearer+"?v=2.1")

	consumer.ask(401, "GetClock", "")
	consumer.write(fmt.Sprintf(`{"kind":"req","id":"init","type":"InitConnection","headers":[
		{"type":".ams.headers.ClientProperties","features":["PHOTO_SHARING","FILE_SHARING"]},
		{"type":".ams.headers.ConsumerAuthentication","jwt":%q}]}`, token.JWT))
	consumer.answer("init", 200)
	consumer.ask(200, "GetClock", "")
	brand.ask(200, ".GetClock", "")
	subscription := consumer.ask(200, "cqm.SubscribeExConversations", `{"convState":["OPEN","CLOSE"],"minLastUpdatedTime":0}`)
	brand.ask(200, ".ams.aam.SubscribeExConversations", `{"convState":["OPEN"]}`)

	var conv struct {
		ID string `json:"conversationId"`
	}
	unmarshal(t, consumer.ask(200, "cm.ConsumerRequestConversation", `{"brandId":"12345678","channelType":"MESSAGING","skillId":"-1",
		"campaignInfo":{"campaignId":"1","engagementId":"2"},"conversationContext":{"type":"SharkContext","lang":"en-US"}}`), &conv)
	dialog := fmt.Sprintf(`"dialogId":%q,"conversationId":%q`, conv.ID, conv.ID)
	consumer.ask(200, "ms.SubscribeMessagingEvents", `{`+dialog+`,"fromSeq":0}`)
	brand.ask(200, ".ams.cm.UpdateConversationField", fmt.Sprintf(
		`{"conversationId":%q,"conversationField":[{"field":"ParticipantsChange","type":"ADD","role":"ASSIGNED_AGENT","userId":"%s.%v"}]}`,
		conv.ID, account, agent.Config.UserID))

	var upload struct {
		Path string `json:"relativePath"`
		URL  struct {
			Sig     string `json:"temp_url_sig"`
			Expires string `json:"temp_url_expires"`
		} `json:"queryParams"`
	}
	unmarshal(t, consumer.ask(200, "ms.GenerateURLForUploadFile", `{"fileSize":"3","fileType":"JPG"}`), &upload)
	put(t, sb.URL()+upload.Path+"?temp_url_sig="+upload.URL.Sig+"&temp_url_expires="+upload.URL.Expires)
	file := fmt.Sprintf(`{"type":"ContentEvent","contentType":"hosted/file","message":{"caption":"","relativePath":%q,"fileType":"JPG","preview":"data:image/jpeg;base64,/9j/"}}`, upload.Path)
	for _, event := range []string{
		file, `{"type":"ContentEvent","contentType":"text/plain","message":"hello"}`, `{"type":"ChatStateEvent","chatState":"COMPOSING"}`,
		`{"type":"AcceptStatusEvent","status":"ACCEPT","sequenceList":[0]}`,
	} {
		consumer.ask(200, "ms.PublishEvent", `{`+dialog+`,"event":`+event+`}`)
	}
	consumer.ask(200, "ms.GenerateURLForDownloadFile", fmt.Sprintf(`{"relativePath":%q}`, upload.Path))
	consumer.ask(404, "ms.GenerateURLForDownloadFile", fmt.Sprintf(`{"relativePath":%q}`, upload.Path+"x"))
	consumer.ask(200, ".ams.ms.QueryMessages", `{`+dialog+`,"fromSeq":0}`)

	brand.ask(200, ".ams.ms.QueryMessages", `{`+dialog+`,"fromSeq":0,"newerThanSequence":0}`)
	brand.ask(200, ".ams.ms.GenerateURLForUploadFile", `{"fileSize":"3","fileType":"JPG"}`)
	brand.ask(200, ".ams.ms.GenerateURLForDownloadFile", fmt.Sprintf(`{"relativePath":%q}`, upload.Path))
	for _, event := range []string{
		`{"type":"ContentEvent","contentType":"text/plain","message":"thanks"}`, `{"type":"AcceptStatusEvent","status":"ACCESS","sequenceList":[0]}`,
		`{"type":"ChatStateEvent","chatState":"ACTIVE"}`,
	} {
		brand.ask(200, ".ams.ms.PublishEvent", `{`+dialog+`,"messageAudience":"ALL","event":`+event+`}`)
	}
	brand.ask(200, ".ams.ms.SubscribeMessagingEvents", `{`+dialog+`,"fromSeq":0}`)

	consumer.ask(200, "cm.UpdateConversationField", fmt.Sprintf(
		`{"conversationId":%q,"conversationField":[{"field":"ConversationStateField","conversationState":"CLOSE"}]}`, conv.ID))
	consumer.ask(200, "cqm.UnsubscribeExConversations", string(subscription))
}

// A peer is a client's end of a socket.
type peer struct {
	t    *testing.T
	name string
	conn *websocket.Conn
	sent int
}

func open(t *testing.T, name, url string) *peer {
	t.Helper()
	conn, resp, err := websocket.DefaultDialer.Dial(url, nil)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	_ = resp.Body.Close()
	t.Cleanup(func() { _ = conn.Close() })
	return &peer{t: t, name: name, conn: conn}
}

// ask sends a request and returns the body of its answer, which must have the code.
func (p *peer) ask(code int, typ, body string) json.RawMessage {
	p.t.Helper()
	p.sent++
	id := fmt.Sprint(p.name, p.sent)
	if body != "" {
		body = `,"body":` + body
	}
	p.write(fmt.Sprintf(`{"kind":"req","id":%q,"type":%q%s}`, id, typ, body))
	return p.answer(id, code)
}

func (p *peer) write(frame string) {
	p.t.Helper()
	if err := p.conn.WriteMessage(websocket.TextMessage, []byte(frame)); err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
}

// answer reads frames until the answer to a request.
func (p *peer) answer(id string, code int) json.RawMessage {
	p.t.Helper()
	for {
		_ = p.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, data, err := p.conn.ReadMessage()
		if err != nil {
			p.t.Fatalf("%s: %v", p.name, err)
		}
		var got struct {
			ReqID string          `json:"reqId"`
			Code  int             `json:"code"`
			Body  json.RawMessage `json:"body"`
		}
		unmarshal(p.t, data, &got)
		if got.ReqID != id {
			continue
		}
		if got.Code != code {
			p.t.Fatalf("%s: %s, want code %d", p.name, data, code)
		}
		return got.Body
	}
}

// await reads frames until one that contains word.
func (p *peer) await(word string) {
	p.t.Helper()
	for {
		_ = p.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, data, err := p.conn.ReadMessage()
		if err != nil {
			p.t.Fatalf("%s: %v", p.name, err)
		}
		if strings.Contains(string(data), word) {
			return
		}
	}
}

func unmarshal(t *testing.T, data []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
}

func post(t *testing.T, url, body string, answer any) {
	t.Helper()
	resp, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %s %v", url, resp.Status, data, err)
	}
	unmarshal(t, data, answer)
}

func put(t *testing.T, url string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPut, url, strings.NewReader("abc"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("PUT: %s", resp.Status)
	}
}
