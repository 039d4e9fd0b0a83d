package sandbox

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/liveperson"
)

const (
	tokenPath = "/sentinel/api/account/" + acct + "/app/token"
	jwsPath   = "/api/account/" + acct + "/consumer?v=1.0"
	batchPath = "/api/account/" + acct + "/messaging/consumer/conversation?v=3"
	sendPath  = "/api/account/" + acct + "/messaging/consumer/conversation/send?v=3"

	profileRequest = `{"kind":"req","id":"2,","type":"userprofile.SetUserProfile","body":{"firstName":"Joe"}}`
	beginRequest   = `{"kind":"req","id":"1,","type":"cm.ConsumerRequestConversation","body":{"brandId":"` + acct + `","channelType":"MESSAGING","skillId":"-1"}}`
)

// appToken returns an AppJWT of the default app install.
func appToken(t *testing.T, s *Sandbox) string {
	t.Helper()
	form := url.Values{"client_id": {DefaultAppID}, "client_secret": {DefaultAppSecret}}
	resp, d := ask(t, "POST", s.URL()+tokenPath+"?v=1.0&grant_type=client_credentials", form.Encode(), "Content-Type", "application/x-www-form-urlencoded")
	if resp.StatusCode != 200 || d.text("token_type") != "Bearer" {
		t.Fatalf("app token: %s %s", resp.Status, d)
	}
	return d.text("access_token")
}

// A patron is a consumer of the Connector API.
type patron struct {
	t        *testing.T
	s        *Sandbox
	app, jws string
	header   []string // more of them
	next     int
}

// patronOf returns the consumer with that ext_consumer_id.
func patronOf(t *testing.T, s *Sandbox, name string) *patron {
	t.Helper()
	p := &patron{t: t, s: s, app: appToken(t, s)}
	resp, d := ask(t, "POST", s.URL()+jwsPath, fmt.Sprintf(`{"ext_consumer_id":%q}`, name), "Authorization", p.app)
	if resp.StatusCode != 201 {
		t.Fatalf("ConsumerJWS: %s %s", resp.Status, d)
	}
	p.jws = d.text("token")
	return p
}

// id returns LivePerson's id of the consumer.
func (p *patron) id() string { return claimsOf(p.t, p.jws).text("lp_consumer_id") }

func (p *patron) post(path, body string) (*http.Response, []byte) {
	p.t.Helper()
	return fetch(p.t, "POST", p.s.URL()+path, body, append([]string{"Authorization", p.app, "X-LP-ON-BEHALF", p.jws, "Content-Type", "application/json"}, p.header...)...)
}

// call sends one request and returns status and answer.
func (p *patron) call(typ, body string) (int, dict) {
	p.t.Helper()
	p.next++
	resp, data := p.post(sendPath, fmt.Sprintf(`{"kind":"req","id":"%d","type":%q,"body":%s}`, p.next, typ, body))
	var d dict
	if err := json.Unmarshal(data, &d); err != nil {
		p.t.Fatalf("%s: %s %s", typ, resp.Status, data)
	}
	d.want(p.t, "reqId", p.next)
	return resp.StatusCode, d
}

// ok is a call that must succeed.
func (p *patron) ok(typ, body string) dict {
	p.t.Helper()
	status, d := p.call(typ, body)
	if status != 200 || d["code"] != "OK" || d["kind"] != nil || d["type"] != nil {
		p.t.Fatalf("%s %s: %d %s", typ, body, status, d)
	}
	return d
}

// refused is a call that must fail with that error code.
func (p *patron) refused(errorCode int, typ, body string) {
	p.t.Helper()
	status, d := p.call(typ, body)
	if status != errorCode/100 {
		p.t.Errorf("%s %s: %d, want %d", typ, body, status, errorCode/100)
	}
	d.want(p.t, "code", errorCode/100)
	d.want(p.t, "body.errorCode", errorCode)
	d.want(p.t, "kind", "resp")
	d.want(p.t, "type", ".ReqBody$ErrorResp")
}

// conversation creates a conversation and returns its id.
func (p *patron) conversation() string {
	p.t.Helper()
	resp, data := p.post(batchPath, "["+profileRequest+","+beginRequest+"]")
	var answers []dict
	if err := json.Unmarshal(data, &answers); err != nil || resp.StatusCode != 200 || len(answers) != 2 {
		p.t.Fatalf("batch: %s %s", resp.Status, data)
	}
	return answers[1].text("body.conversationId")
}

// upload stores a file and returns its path.
func (p *patron) upload(fileType string, data []byte) string {
	p.t.Helper()
	d := p.ok("ms.GenerateURLForUploadFile", fmt.Sprintf(`{"fileSize":"%d","fileType":%q}`, len(data), fileType))
	if resp, body := fetch(p.t, "PUT", fileURL(p.s, d), string(data)); resp.StatusCode != 201 {
		p.t.Fatalf("PUT: %s %s", resp.Status, body)
	}
	return d.text("body.relativePath")
}

func TestConnector_AppToken(t *testing.T) {
	c := newClock()
	s := start(t, Options{Now: c.Now, Accounts: []string{acct, "87654321"}, AppInstalls: []AppInstall{
		{ID: "one", Secret: "s1"}, {Account: "87654321", ID: "two", Secret: "s2"},
	}})
	const query = "?v=1.0&grant_type=client_credentials"
	form := []string{"Content-Type", "application/x-www-form-urlencoded"}
	post := func(want int, path, body string) dict {
		t.Helper()
		resp, d := ask(t, "POST", s.URL()+path, body, form...)
		if resp.StatusCode != want {
			t.Errorf("%s %s: %s %s, want %d", path, body, resp.Status, d, want)
		}
		return d
	}
	d := post(200, tokenPath+query, "client_id=one&client_secret=s1")
	if len(d) != 2 || d.text("token_type") != "Bearer" {
		t.Errorf("answer %s", d)
	}
	claims := claimsOf(t, d.text("access_token"))
	for name, want := range map[string]any{"aud": acct, "azp": "one", "scope": "msg.consumer", "iss": "Sentinel"} {
		claims.want(t, name, want)
	}
	if life := claims.at("exp").(float64) - claims.at("iat").(float64); life < 3600 || life > 3601 {
		t.Errorf("a life of %v s", life)
	}
	post(200, tokenPath+query+"&client_id=one&client_secret=s1", "") // as the demo app has it
	post(200, tokenPath, "v=1.0&grant_type=client_credentials&client_id=one&client_secret=s1")

	post(401, tokenPath+query, "client_id=one&client_secret=s2")
	post(401, tokenPath+query, "client_id=two&client_secret=s2") // of the other account
	post(200, strings.Replace(tokenPath, acct, "87654321", 1)+query, "client_id=two&client_secret=s2")
	post(401, strings.Replace(tokenPath, acct, "1", 1)+query, "client_id=one&client_secret=s1")
	post(400, tokenPath+query, "client_id=one")
	post(400, tokenPath+"?v=1.0", "client_id=one&client_secret=s1")
	post(400, tokenPath+"?v=1.0&grant_type=password", "client_id=one&client_secret=s1")
	post(400, tokenPath+"?grant_type=client_credentials", "client_id=one&client_secret=s1")

	_, domain := ask(t, "GET", s.URL()+"/api/account/"+acct+"/service/sentinel/baseURI.json?version=1.0", "")
	domain.want(t, "baseURI", strings.TrimPrefix(s.URL(), "http://"))
}

func TestConnector_InvalidAppInstalls(t *testing.T) {
	for name, apps := range map[string][]AppInstall{
		"no id":         {{Secret: "x"}},
		"no secret":     {{ID: "x"}},
		"twice":         {{ID: "x", Secret: "x"}, {ID: "x", Secret: "y"}},
		"no account":    {{Account: "1", ID: "x", Secret: "x"}},
		"bad webhook":   {{ID: "x", Secret: "x", Webhooks: Webhooks{Endpoints: AllEvents("http://example.com/")}}},
		"bad retention": {{ID: "x", Secret: "x", Webhooks: Webhooks{Retention: time.Second}}},
	} {
		if s, err := Start(Options{AppInstalls: apps}); err == nil {
			t.Errorf("%s: started", name)
			_ = s.Close()
		}
	}
}

func TestConnector_ConsumerJWS(t *testing.T) {
	s := start(t, Options{})
	joe := patronOf(t, s, "John_Doe_facebook12345")
	claims := claimsOf(t, joe.jws)
	claims.want(t, "account_id", acct)
	claims.want(t, "ext_consumer_id", "John_Doe_facebook12345")
	if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(joe.id()) || len(claims) != 3 {
		t.Errorf("claims %s", claims)
	}
	if again := patronOf(t, s, "John_Doe_facebook12345"); again.id() != joe.id() {
		t.Error("the same name is another consumer")
	}
	if other := patronOf(t, s, "Jane"); other.id() == joe.id() {
		t.Error("another name is the same consumer")
	}
	for body, want := range map[string]int{`{}`: 400, ``: 400, `[`: 400, `{"ext_consumer_id":""}`: 400, `{"ext_consumer_id":"x"}`: 201} {
		if resp, _ := ask(t, "POST", s.URL()+jwsPath, body, "Authorization", joe.app); resp.StatusCode != want {
			t.Errorf("%q: %s, want %d", body, resp.Status, want)
		}
	}
	if resp, _ := ask(t, "POST", s.URL()+strings.TrimSuffix(jwsPath, "?v=1.0"), `{"ext_consumer_id":"x"}`, "Authorization", joe.app); resp.StatusCode != 400 {
		t.Errorf("no v: %s", resp.Status)
	}
	resp, d := ask(t, "POST", s.URL()+jwsPath, `{"ext_consumer_id":"x"}`)
	if resp.StatusCode != 401 {
		t.Errorf("no AppJWT: %s", resp.Status)
	}
	d.want(t, "body.errorCode", 40105)
	// A ConsumerJWS does not open a socket.
	if _, resp, err := tryDial(t, s, consumerPath, "Authorization", "jwt "+joe.jws); err == nil || resp.StatusCode != 401 {
		t.Errorf("a socket for a ConsumerJWS: %v", err)
	}
}

// TestConnector_Authorization has every error that LivePerson documents.
func TestConnector_Authorization(t *testing.T) {
	c := newClock()
	s := start(t, Options{Now: c.Now, Accounts: []string{acct, "87654321"}})
	joe := patronOf(t, s, "joe")
	_, d := ask(t, "POST", s.URL()+strings.Replace(tokenPath, acct, "87654321", 1)+"?v=1.0&grant_type=client_credentials&client_id="+DefaultAppID+"&client_secret="+DefaultAppSecret, "")
	foreignApp := d.text("access_token")
	_, d = ask(t, "POST", s.URL()+strings.Replace(jwsPath, acct, "87654321", 1), `{"ext_consumer_id":"joe"}`, "Authorization", foreignApp)
	foreignJWS := d.text("token")
	if foreignJWS == "" {
		t.Fatalf("no foreign token: %s", d)
	}
	signed := func(claims jwt.MapClaims) string {
		token, err := s.signer.Sign(claims)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	app := func(change func(jwt.MapClaims)) string {
		claims := jwt.MapClaims{
			"aud": acct, "azp": DefaultAppID, "scope": "msg.consumer", "iss": "Sentinel", "iat": c.Now().Unix(), "exp": c.Now().Add(time.Minute).Unix(),
		}
		change(claims)
		return signed(claims)
	}
	good := app(func(jwt.MapClaims) {})
	parts := strings.Split(good, ".")
	forged := parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2]))
	for _, test := range []struct {
		name, app, jws, title string
		code                  int
	}{
		{"good", good, joe.jws, "", 0},
		{"no AppJWT", "", joe.jws, "AppJWT is missing", 40105},
		{"neither", "", "", "AppJWT is missing", 40105},
		{"a scheme before it", "Bearer " + good, joe.jws, "Invalid AppJWT", 40102},
		{"forged", forged, joe.jws, "Invalid AppJWT", 40102},
		{"another account's", foreignApp, joe.jws, "Invalid AppJWT", 40102},
		{"expired", app(func(m jwt.MapClaims) { m["exp"] = c.Now().Add(-time.Second).Unix() }), joe.jws, "Invalid AppJWT", 40102},
		{"an app that is not installed", app(func(m jwt.MapClaims) { m["azp"] = "x" }), joe.jws, "Invalid AppJWT", 40102},
		{"another issuer", app(func(m jwt.MapClaims) { m["iss"] = "https://idp.liveperson.net" }), joe.jws, "Invalid AppJWT", 40102},
		{"another scope", app(func(m jwt.MapClaims) { m["scope"] = "msg.consumer.read" }), joe.jws, "Invalid AppJWT", 40102},
		{"a consumer's token", signUp(t, s), joe.jws, "Missing parameter", 40001},
		{"no brand", app(func(m jwt.MapClaims) { delete(m, "aud") }), joe.jws, "Missing parameter", 40001},
		{"no end", app(func(m jwt.MapClaims) { delete(m, "exp") }), joe.jws, "Missing parameter", 40001},
		{"no ConsumerJWS", good, "", "ConsumerJWS is missing", 40104},
		{"another account's consumer", good, foreignJWS, "Invalid ConsumerJWS", 40103},
		{"an AppJWT for a consumer", good, good, "Invalid ConsumerJWS", 40103},
		{"no token at all", good, "joe", "Invalid ConsumerJWS", 40103},
	} {
		for _, path := range []string{batchPath, sendPath} {
			body := "[" + profileRequest + "," + beginRequest + "]"
			if path == sendPath {
				body = profileRequest
			}
			resp, data := fetch(t, "POST", s.URL()+path, body, "Authorization", test.app, "X-LP-ON-BEHALF", test.jws)
			if test.code == 0 {
				if resp.StatusCode != 200 {
					t.Errorf("%s: %s %s", test.name, resp.Status, data)
				}
				continue
			}
			var d dict
			if err := json.Unmarshal(data, &d); err != nil || resp.StatusCode != test.code/100 {
				t.Errorf("%s: %s %s, want %d", test.name, resp.Status, data, test.code/100)
				continue
			}
			d.want(t, "body.errorCode", test.code)
			d.want(t, "body.title", test.title)
			d.want(t, "code", test.code/100)
			d.want(t, "kind", "resp")
			d.want(t, "type", ".ReqBody$ErrorResp")
			d.want(t, "reqId", nil)
		}
	}
	c.advance(2 * time.Hour)
	if resp, data := joe.post(sendPath, profileRequest); resp.StatusCode != 401 || !strings.Contains(string(data), "40102") {
		t.Errorf("an hour later: %s %s", resp.Status, data)
	}
	joe.app = appToken(t, s)
	joe.conversation() // the ConsumerJWS has no end
}

func TestConnector_CreateConversation(t *testing.T) {
	s := start(t, Options{})
	joe := patronOf(t, s, "joe")
	joe.header = []string{"Client-Properties", `{"type":".ClientProperties","features":["PHOTO_SHARING"]}`}
	ann := agent(t, s, logIn(t, s, "ann"))
	ann.ok("cqm.SubscribeExConversations", `{}`)
	ann.note(".ams.aam.ExConversationChangeNotification")

	resp, data := joe.post(batchPath, "["+profileRequest+","+beginRequest+"]")
	var answers []dict
	if err := json.Unmarshal(data, &answers); err != nil || resp.StatusCode != 200 || len(answers) != 2 {
		t.Fatalf("%s %s", resp.Status, data)
	}
	// LivePerson's own example, including the comma in the ids.
	conv := answers[1].text("body.conversationId")
	want := `[{"code":"OK","body":{"msg":"OK User Profile set successfully"},"reqId":"2,"},{"code":"OK","body":{"conversationId":"` + conv + `"},"reqId":"1,"}]`
	if string(data) != want {
		t.Errorf("%s\nwant %s", data, want)
	}
	n := ann.note(".ams.aam.ExConversationChangeNotification")
	n.want(t, "body.changes.0.result.convId", conv)
	n.want(t, "body.changes.0.result.conversationDetails.participantsPId.CONSUMER.0", joe.id())
	n.want(t, "body.changes.0.result.conversationDetails.context.clientProperties.features.0", "PHOTO_SHARING")
	ann.ok("userprofile.GetUserProfile", fmt.Sprintf("%q", joe.id())).want(t, "body.firstName", "Joe")

	for name, bad := range map[string]struct {
		path, body string
		errorCode  int
	}{
		"v=2":           {strings.Replace(batchPath, "v=3", "v=2", 1), "[" + profileRequest + "," + beginRequest + "]", 40406},
		"no v":          {strings.TrimSuffix(batchPath, "?v=3"), "[" + profileRequest + "," + beginRequest + "]", 40406},
		"order":         {batchPath, "[" + beginRequest + "," + profileRequest + "]", 40002},
		"one only":      {batchPath, "[" + beginRequest + "]", 40002},
		"bare":          {batchPath, beginRequest, 40002},
		"three":         {batchPath, "[" + profileRequest + "," + beginRequest + "," + beginRequest + "]", 40002},
		"nothing":       {batchPath, "", 40002},
		"no JSON":       {batchPath, "[", 40002},
		"no id":         {batchPath, "[" + strings.Replace(profileRequest, `"2,"`, `""`, 1) + "," + beginRequest + "]", 40002},
		"no brand":      {batchPath, "[" + profileRequest + "," + strings.Replace(beginRequest, "brandId", "brand", 1) + "]", 40001},
		"another brand": {batchPath, "[" + profileRequest + "," + strings.Replace(beginRequest, acct, "87654321", 1) + "]", 40002},
		"too large":     {batchPath, "[" + profileRequest + "," + beginRequest + strings.Repeat(" ", liveperson.MaxFrame) + "]", 41303},
	} {
		resp, data := joe.post(bad.path, bad.body)
		var d dict
		if err := json.Unmarshal(data, &d); err != nil || resp.StatusCode != bad.errorCode/100 {
			t.Errorf("%s: %s %s", name, resp.Status, data)
			continue
		}
		d.want(t, "body.errorCode", bad.errorCode)
	}
	if n := len(s.Journal().Conversations); n != 1 {
		t.Errorf("%d conversations began, want 1", n)
	}
}

func TestConnector_Send(t *testing.T) {
	s := start(t, Options{})
	joe, jane := patronOf(t, s, "joe"), patronOf(t, s, "jane")
	conv := joe.conversation()
	ann := agent(t, s, logIn(t, s, "ann"))
	ann.ok("cm.UpdateConversationField", fmt.Sprintf(`{"conversationId":%q,"conversationField":[{"field":"ParticipantsChange","type":"ADD","role":"ASSIGNED_AGENT"}]}`, conv))

	// The shapes that LivePerson documents.
	for body, want := range map[string]string{
		`{"kind":"req","id":"1","type":"ms.PublishEvent","body":` + textEvent(conv, "hello") + `}`:                                                    `{"code":"OK","body":{"sequence":0},"reqId":"1"}`,
		`{"kind":"req","id":7,"type":"ms.PublishEvent","body":{"dialogId":"` + conv + `","event":{"type":"ChatStateEvent","chatState":"COMPOSING"}}}`: `{"code":"OK","body":{"sequence":0},"reqId":"7"}`,
		strings.Replace(profileRequest, `"2,"`, `"x y"`, 1):                                                                                           `{"code":"OK","body":{"msg":"OK User Profile set successfully"},"reqId":"x y"}`,
	} {
		if resp, data := joe.post(sendPath, body); resp.StatusCode != 200 || string(data) != want {
			t.Errorf("%s: %s %s, want %s", body, resp.Status, data, want)
		}
	}
	path := joe.upload("JPEG", jpeg)
	if d := joe.ok("ms.PublishEvent", fileEvent(conv, path, "JPEG")); d.at("body.sequence") != 1.0 {
		t.Errorf("sequence of %s", d)
	}
	for {
		n := ann.note(".ams.ms.OnlineEventDistribution")
		if n.text("body.event.contentType") == "hosted/file" {
			n.want(t, "body.event.message.relativePath", path)
			n.want(t, "body.originatorId", joe.id())
			break
		}
	}
	published := s.Journal().Published
	if len(published) != 1 || published[0].Path != path || published[0].Originator != joe.id() || published[0].Conversation != conv || published[0].Sequence != 1 {
		t.Errorf("journal: %+v", published)
	}
	back := ann.ok("ms.GenerateURLForDownloadFile", fmt.Sprintf(`{"relativePath":%q}`, path))
	if resp, data := fetch(t, "GET", fileURL(s, back), ""); resp.StatusCode != 200 || string(data) != string(jpeg) {
		t.Errorf("download: %s, %d bytes", resp.Status, len(data))
	}

	// The agent answers with a file, and the consumer downloads it.
	answer := ann.upload(s, "PNG", []byte("\x89PNG"))
	ann.ok("ms.PublishEvent", fileEvent(conv, answer, "PNG"))
	got := joe.ok("ms.GenerateURLForDownloadFile", fmt.Sprintf(`{"relativePath":%q}`, answer))
	if resp, data := fetch(t, "GET", fileURL(s, got), ""); resp.StatusCode != 200 || string(data) != "\x89PNG" {
		t.Errorf("the agent's file: %s %q", resp.Status, data)
	}

	// Another consumer has no access.
	for _, p := range []string{path, answer} {
		jane.refused(40402, "ms.GenerateURLForDownloadFile", fmt.Sprintf(`{"relativePath":%q}`, p))
	}
	jane.refused(40302, "ms.PublishEvent", textEvent(conv, "intruder"))
	jane.refused(40006, "ms.PublishEvent", fileEvent(jane.conversation(), path, "JPEG"))
	jane.refused(40302, "cm.UpdateConversationField", fmt.Sprintf(`{"conversationId":%q,"conversationField":{"field":"ConversationStateField","conversationState":"CLOSE"}}`, conv))

	joe.refused(40401, "ms.PublishEvent", textEvent("x", "y"))
	joe.refused(40005, "ms.PublishEvent", fileEvent(conv, joe.ok("ms.GenerateURLForUploadFile", jpegWish).text("body.relativePath"), "JPEG"))
	joe.refused(41301, "ms.GenerateURLForUploadFile", `{"fileSize":"99999999","fileType":"JPEG"}`)
	joe.refused(40003, "cm.ConsumerRequestConversation", `{"brandId":"`+acct+`"}`)
	joe.refused(40003, "ms.SubscribeMessagingEvents", fmt.Sprintf(`{"dialogId":%q}`, conv))
	joe.refused(40003, "GetClock", `{}`)
	joe.refused(40304, "cm.UpdateConversationField", fmt.Sprintf(`{"conversationId":%q,"conversationField":[{"field":"ParticipantsChange","type":"ADD","role":"MANAGER"}]}`, conv))
	for _, body := range []string{"", "[]", "{", `{"kind":"req","type":"ms.PublishEvent"}`, "[" + profileRequest + "]"} {
		if resp, data := joe.post(sendPath, body); resp.StatusCode != 400 {
			t.Errorf("%q: %s %s", body, resp.Status, data)
		}
	}
	if resp, _ := joe.post(strings.TrimSuffix(sendPath, "3")+"2", profileRequest); resp.StatusCode != 404 {
		t.Errorf("v=2: %s", resp.Status)
	}

	joe.ok("cm.UpdateConversationField", fmt.Sprintf(`{"conversationId":%q,"conversationField":{"field":"ConversationStateField","conversationState":"CLOSE"}}`, conv)).
		want(t, "body.msg", "OK Conversation resolved successfully")
	joe.refused(40004, "ms.PublishEvent", textEvent(conv, "too late"))
}

func TestConnector_FileSharingOff(t *testing.T) {
	s := start(t, Options{FileSharingOff: true})
	patronOf(t, s, "joe").refused(40301, "ms.GenerateURLForUploadFile", jpegWish)
}

func TestConnector_Faults(t *testing.T) {
	s := start(t, Options{})
	joe := patronOf(t, s, "joe")
	conv := joe.conversation()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	publish := func(text string, f Fault) (*http.Response, error) {
		f.Count = 1
		client.Timeout = patience
		if f.Mute {
			client.Timeout = time.Second // long enough to process the request
		}
		s.Inject(f)
		req, err := http.NewRequest("POST", s.URL()+sendPath, strings.NewReader(`{"kind":"req","id":"1","type":"ms.PublishEvent","body":`+textEvent(conv, text)+`}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", joe.app)
		req.Header.Set("X-LP-ON-BEHALF", joe.jws)
		resp, err := client.Do(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		return resp, err
	}
	ann := agent(t, s, logIn(t, s, "ann"))
	published := func(text string) bool {
		return strings.Contains(ann.ok("ms.QueryMessages", fmt.Sprintf(`{"dialogId":%q}`, conv)).String(), text)
	}
	for name, c := range map[string]struct {
		fault Fault
		kept  bool
	}{
		"drop": {Fault{Drop: true}, false}, "drop after": {Fault{DropAfter: true}, true}, "mute": {Fault{Mute: true}, true},
	} {
		for _, on := range []string{"http:send", "ms.PublishEvent"} {
			c.fault.On = on
			text := name + " on " + on
			if _, err := publish(text, c.fault); err == nil {
				t.Errorf("%s: answered", text)
			}
			if published(text) != c.kept {
				t.Errorf("%s: kept: %v", text, !c.kept)
			}
		}
	}
	if resp, err := publish("never", Fault{On: "http:send", Status: 503, RetryAfter: 4}); err != nil || resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "4" || published("never") {
		t.Errorf("status: %v %v", resp, err)
	}
	if resp, err := publish("denied", Fault{On: "ms.PublishEvent", StatusAfter: 403}); err != nil || resp.StatusCode != 403 || !published("denied") {
		t.Errorf("status after: %v %v", resp, err)
	}
	begun := time.Now()
	if _, err := publish("late", Fault{On: "ms.PublishEvent", Delay: 50 * time.Millisecond, AnswerDelay: 50 * time.Millisecond}); err != nil || time.Since(begun) < 100*time.Millisecond {
		t.Errorf("delay: %v after %v", err, time.Since(begun))
	}
	s.Inject(Fault{On: "ms.PublishEvent", Count: 1, Status: 502, ErrorCode: 50201})
	if resp, data := joe.post(sendPath, `{"kind":"req","id":"1","type":"ms.PublishEvent","body":`+textEvent(conv, "x")+`}`); resp.StatusCode != 502 || !strings.Contains(string(data), `"errorCode":50201`) {
		t.Errorf("error code: %s %s", resp.Status, data)
	}
	s.Inject(Fault{On: "ms.PublishEvent", Count: 1, Status: 500})
	joe.ok("userprofile.SetUserProfile", `{}`) // another type is left alone
	s.ClearFaults()
	for on, try := range map[string]func() (*http.Response, []byte){
		"http:token": func() (*http.Response, []byte) {
			return fetch(t, "POST", s.URL()+tokenPath+"?v=1.0&grant_type=client_credentials&client_id="+DefaultAppID+"&client_secret="+DefaultAppSecret, "")
		},
		"http:consumer": func() (*http.Response, []byte) {
			return fetch(t, "POST", s.URL()+jwsPath, `{"ext_consumer_id":"x"}`, "Authorization", joe.app)
		},
		"http:conversation": func() (*http.Response, []byte) {
			return joe.post(batchPath, "["+profileRequest+","+beginRequest+"]")
		},
		"cm.ConsumerRequestConversation": func() (*http.Response, []byte) {
			return joe.post(batchPath, "["+profileRequest+","+beginRequest+"]")
		},
		"http:send": func() (*http.Response, []byte) { return joe.post(sendPath, profileRequest) },
	} {
		s.Inject(Fault{On: on, Count: 1, Status: 507})
		if resp, _ := try(); resp.StatusCode != 507 {
			t.Errorf("%s: %s", on, resp.Status)
		}
		s.Inject(Fault{On: on, Count: 1, Garbage: true})
		if _, data := try(); json.Valid(data) {
			t.Errorf("%s: no garbage: %s", on, data)
		}
		if resp, data := try(); resp.StatusCode/100 != 2 || !json.Valid(data) {
			t.Errorf("%s afterwards: %s %s", on, resp.Status, data)
		}
	}
}
