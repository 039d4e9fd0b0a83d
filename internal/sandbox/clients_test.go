package sandbox

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// These tests send what LivePerson's published clients send, in the clients' own form.

// unscript returns the JSON in a script that calls callback.
func unscript(t *testing.T, resp *http.Response, script []byte, callback string) dict {
	t.Helper()
	body, begins := strings.CutPrefix(string(script), callback+"(")
	body, ends := strings.CutSuffix(body, ");")
	var d dict
	if resp.StatusCode != 200 || !begins || !ends || json.Unmarshal([]byte(body), &d) != nil ||
		!strings.HasPrefix(resp.Header.Get("Content-Type"), "application/javascript") || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Fatalf("no call of %s: %s %s", callback, resp.Status, script)
	}
	return d
}

func TestDomains_Forms(t *testing.T) {
	s := start(t, Options{})
	host := strings.TrimPrefix(s.URL(), "http://")
	for _, root := range []string{"/api", "/csdr"} {
		base := s.URL() + root + "/account/" + acct + "/service/"
		for _, name := range []string{"baseURI.json", "baseURI"} {
			_, d := ask(t, "GET", base+name+"?version=1.0", "")
			d.want(t, "baseURIs.5.service", "asyncMessagingEnt")
			d.want(t, "baseURIs.5.baseURI", host)
			_, d = ask(t, "GET", base+"swift/"+name+"?version=1.0", "")
			d.want(t, "service", "swift")
			d.want(t, "account", acct)
			d.want(t, "baseURI", host)
			resp, data := fetch(t, "GET", base+"idp/"+name+"?version=1.0&cb=setCallback", "")
			unscript(t, resp, data, "setCallback").want(t, "baseURI", host)
		}

		script := func(path, callback string) dict {
			t.Helper()
			resp, data := fetch(t, "GET", base+path, "")
			return unscript(t, resp, data, callback)
		}
		script("asyncMessagingEnt/baseURI.lpCsds?version=1.0&cb=domainCallback&_=1", "domainCallback").want(t, "ResultSet.lpData.0.lpServer", host)
		script("idp/baseURI.lpCsds?version=1.0&callback=a.b_1.$c", "a.b_1.$c").want(t, "ResultSet.lpData.0.lpServer", host)
		script("idp/baseURI.lpCsds?version=1.0&lpCallId=7", "lpConnLib.Process").want(t, "ResultSet.lpCallId", "7")
		script("baseURI.lpCsds?version=1.0", "lpConnLib.Process").want(t, "ResultSet.lpData.baseURIs.7.service", "idp")
		for _, failing := range []string{"nothing/baseURI.lpCsds?version=1.0", "idp/baseURI.lpCsds", "../../1/service/adminArea/baseURI.lpCsds?version=1.0"} {
			separator := "&"
			if !strings.Contains(failing, "?") {
				separator = "?"
			}
			d := script(failing+separator+"cb=f", "f")
			if d.text("ResultSet.lpCallError") == "" || d.at("ResultSet.lpData") != nil {
				t.Errorf("%s%s: %s", root, failing, d)
			}
		}
		for _, bad := range []string{"alert(1)", "a-b", "1a", "a.", ".a", "a%0Ab", "%22", strings.Repeat("a", 129), ""} {
			resp, data := fetch(t, "GET", base+"idp/baseURI.lpCsds?version=1.0&cb="+bad, "")
			if resp.StatusCode != 400 || strings.Contains(resp.Header.Get("Content-Type"), "javascript") {
				t.Errorf("callback %q: %s %s", bad, resp.Status, data)
			}
		}
		for path, want := range map[string]int{"idp/baseURI.json": 400, "IDP/baseURI?version=1.0": 404, "../../1/service/baseURI.json?version=1.0": 404} {
			if resp, _ := fetch(t, "GET", base+path, ""); resp.StatusCode != want {
				t.Errorf("%s%s: %s, want %d", root, path, resp.Status, want)
			}
		}
	}
}

func TestSignUp_Script(t *testing.T) {
	s := start(t, Options{})
	base := s.URL() + "/api/account/" + acct
	for _, query := range []string{"callback=jsonp_callback_123", "cb=jsonp_callback_123"} {
		resp, data := fetch(t, "GET", base+"/signup.jsonp?"+query, "")
		token := unscript(t, resp, data, "jsonp_callback_123").text("jwt")
		consumer(t, s, token).ok("GetClock", "")
	}
	if _, d := ask(t, "GET", base+"/signup.jsonp", ""); d.text("jwt") == "" {
		t.Error("no token without a callback")
	}
	if _, d := ask(t, "POST", base+"/signup?callback=f", ""); d.text("jwt") == "" {
		t.Error("a POST was answered with a script")
	}
	for path, want := range map[string]int{"/signup.jsonp?callback=f()": 400, "/signup?callback=f": 405} {
		if resp, _ := fetch(t, "GET", base+path, ""); resp.StatusCode != want {
			t.Errorf("GET %s: %s, want %d", path, resp.Status, want)
		}
	}
	if resp, _ := fetch(t, "GET", s.URL()+"/api/account/1/signup.jsonp?callback=f", ""); resp.StatusCode != 404 {
		t.Errorf("no such account: %s", resp.Status)
	}
}

// TestPages_OtherOrigins sends what a browser sends for a page of another origin.
func TestPages_OtherOrigins(t *testing.T) {
	s := start(t, Options{})
	base := s.URL() + "/api/account/" + acct
	for _, path := range []string{"/authenticate", "/signup", "/anonymous/authorize", "/app/x/authenticate", "/service/idp/baseURI.json"} {
		resp, _ := fetch(t, "OPTIONS", base+path, "", "Origin", "https://shop.example", "Access-Control-Request-Headers", "content-type")
		h := resp.Header
		if resp.StatusCode != 204 || h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Access-Control-Allow-Headers") != "content-type" {
			t.Errorf("preflight of %s: %s %v", path, resp.Status, h)
		}
	}
	resp, _ := fetch(t, "POST", base+"/signup", "", "Origin", "https://shop.example")
	if resp.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("sign-up: %v", resp.Header)
	}
}

// TestConsumer_Profile opens a socket as windows do, which send everything at once and wait for the profile.
func TestConsumer_Profile(t *testing.T) {
	s := start(t, Options{})
	token := signUp(t, s)
	me := claimsOf(t, token).text("sub")
	w := dial(t, s, consumerPath)
	w.send(fmt.Sprintf(`{"kind":"req","type":"InitConnection","body":{},"id":12345,"headers":[{"type":".ams.headers.ConsumerAuthentication","jwt":%q},
		{"type":".ams.headers.ClientProperties","appId":null,"features":["RICH_CONTENT"]}]}`, token))
	w.send(`{"kind":"req","type":"userprofile.GetUserProfile","body":{},"id":"p1"}`)
	w.send(`{"kind":"req","type":"GetClock","id":1}`)
	w.answer("12345").want(t, "code", 200)
	d := w.answer("p1")
	d.want(t, "code", 200)
	d.want(t, "body.userId", me)
	w.answer("1").want(t, "code", 200)
	for _, body := range []string{"", "null", `""`, fmt.Sprintf("%q", me), fmt.Sprintf(`{"userId":%q}`, me)} {
		w.ok("userprofile.GetUserProfile", body).want(t, "body.userId", me)
	}
	w.ok("up.GetUserProfile", "{}").want(t, "body.userId", me)
	w.ok("userprofile.SetUserProfile", `{"firstName":"Jo"}`)
	w.ok("userprofile.GetUserProfile", "{}").want(t, "body.firstName", "Jo")

	// A consumer sees the agents in its conversations, and nobody else.
	in := logIn(t, s, "ann")
	ann, other := fmt.Sprintf("%q", in.text("config.userPid")), signUp(t, s)
	consumer(t, s, other).ok("GetClock", "")
	w.refused(40405, "userprofile.GetUserProfile", ann)
	w.refused(40405, "userprofile.GetUserProfile", fmt.Sprintf("%q", claimsOf(t, other).text("sub")))
	conv := w.conversation()
	agent(t, s, in).ok("cm.UpdateConversationField", participants(conv, `"type":"ADD","role":"AGENT"`))
	w.ok("userprofile.GetUserProfile", ann).want(t, "body.userId", in.text("config.userPid"))

	_, d = ask(t, "GET", s.URL()+"/api/account/"+acct+"/configuration/le-users/users/"+in.text("config.userPid"), "")
	d.want(t, "nickname", "ann")
	resp, data := fetch(t, "GET", s.URL()+"/api/account/"+acct+"/configuration/le-users/users/"+in.text("config.userPid")+"?cb=apCallback", "")
	unscript(t, resp, data, "apCallback").want(t, "fullName", "ann")
	if resp, _ := ask(t, "GET", s.URL()+"/api/account/"+acct+"/configuration/le-users/users/nobody", ""); resp.StatusCode != 404 {
		t.Errorf("no such agent: %s", resp.Status)
	}
}

// update returns an update of one field of a conversation.
func update(conv, field string) string {
	return fmt.Sprintf(`{"conversationId":%q,"conversationField":%s}`, conv, field)
}

func TestUpdate_Fields(t *testing.T) {
	s := start(t, Options{})
	w := consumer(t, s, signUp(t, s))
	w.ok("cqm.SubscribeExConversations", "{}")
	w.note(changed)
	conv := w.conversation()
	w.note(changed)
	a := agent(t, s, logIn(t, s, "ann"))
	const details = "body.changes.0.result.conversationDetails."
	const ttr, skill = `{"field":"TTRField","ttrType":"CUSTOM","value":1800}`, `{"field":"Skill","type":"UPDATE","skill":"4711"}`

	a.refused(40302, "cm.UpdateConversationField", update(conv, ttr))
	a.ok("cm.UpdateConversationField", participants(conv, `"type":"ADD","role":"ASSIGNED_AGENT"`))
	w.note(changed)
	a.ok(".ams.cm.UpdateConversationField", update(conv, ttr))
	n := w.note(changed)
	n.want(t, details+"ttr.ttrType", "CUSTOM")
	n.want(t, details+"ttr.value", 1800)
	a.ok(".ams.cm.UpdateConversationField", update(conv, "["+skill+"]"))
	w.note(changed).want(t, details+"skillId", "4711")

	// Only the consumer rates a conversation, also when it is closed.
	const rate = `{"field":"CSATRate","csatRate":5,"csatResolutionConfirmation":true,"status":"FILLED"}`
	a.refused(40304, "cm.UpdateConversationField", update(conv, rate))
	w.refused(40304, "cm.UpdateConversationField", update(conv, skill))
	for _, bad := range []string{
		`{"field":"CSATRate","csatRate":6,"csatResolutionConfirmation":true,"status":"FILLED"}`, `{"field":"CSATRate","csatRate":5}`,
	} {
		w.refused(40002, "cm.UpdateConversationField", update(conv, bad))
	}
	w.refused(40001, "cm.UpdateConversationField", update(conv, `{"field":"CSATRate","csatRate":5,"status":"FILLED"}`))
	a.refused(40002, "cm.UpdateConversationField", update(conv, `{"field":"Skill","type":"UPDATE","skill":"x"}`))
	a.refused(40002, "cm.UpdateConversationField", update(conv, `{"field":"TTRField","ttrType":"SLOW","value":1}`))
	a.ok("cm.UpdateConversationField", update(conv, `{"field":"ConversationStateField","conversationState":"CLOSE"}`))
	w.note(changed).want(t, details+"state", "CLOSE")
	w.ok("cm.UpdateConversationField", update(conv, `{"field":"CSATRate","csatRate":null,"csatResolutionConfirmation":null,"status":"SKIPPED"}`))
	w.note(changed).want(t, details+"csat", nil)
	w.ok("cm.UpdateConversationField", update(conv, rate))
	n = w.note(changed)
	n.want(t, details+"csat.csatRate", 5)
	n.want(t, details+"csat.field", "CSATRate")
	w.refused(40004, "cm.UpdateConversationField", update(conv, ttr))
}

// TestUpdate_Transfer moves a conversation from one agent to another, and back to the queue, in one request each.
func TestUpdate_Transfer(t *testing.T) {
	s := start(t, Options{})
	w := consumer(t, s, signUp(t, s))
	conv := w.conversation()
	ann, bob := logIn(t, s, "ann"), logIn(t, s, "bob")
	a, b := agent(t, s, ann), agent(t, s, bob)
	one := func(in dict, typ string) string {
		return fmt.Sprintf(`{"field":"ParticipantsChange","type":%q,"role":"ASSIGNED_AGENT","userId":"%s.%s"}`, typ, acct, in.text("config.userId"))
	}
	a.ok("cm.UpdateConversationField", update(conv, one(ann, "ADD")))
	b.refused(40002, "cm.UpdateConversationField", update(conv, one(bob, "ADD")))
	b.refused(40302, "cm.UpdateConversationField", update(conv, one(ann, "REMOVE")))
	b.ok("cm.UpdateConversationField", update(conv, "["+one(bob, "ADD")+","+one(ann, "REMOVE")+"]"))
	a.refused(40302, "ms.PublishEvent", textEvent(conv, "no longer here"))
	b.publishText(conv, "I take over")
	b.ok("cm.UpdateConversationField", update(conv, `[{"field":"ParticipantsChange","type":"REMOVE","role":"ASSIGNED_AGENT"},
		{"field":"Skill","type":"UPDATE","skill":"12"}]`))
	b.refused(40302, "ms.PublishEvent", textEvent(conv, "gave it away"))

	// Nothing of a request is applied if a part of it is refused.
	a.refused(40405, "cm.UpdateConversationField", update(conv, "["+one(ann, "ADD")+`,{"field":"ParticipantsChange","type":"ADD","role":"AGENT","userId":"nobody"}]`))
	a.refused(40302, "ms.PublishEvent", textEvent(conv, "did not join"))
}

func TestAgent_Rings(t *testing.T) {
	s := start(t, Options{})
	w := consumer(t, s, signUp(t, s))
	early := w.conversation()
	bob := logIn(t, s, "bob")
	a, b := agent(t, s, logIn(t, s, "ann")), agent(t, s, bob)
	const rings = ".ams.routing.RoutingTaskNotification"
	const state, ring, task = "body.changes.0.result.ringsDetails.0.ringState", "body.changes.0.result.ringsDetails.0.ringId", "body.changes.0.result.conversationId"

	a.ok(".ams.routing.SubscribeRoutingTasks", `{"channelType":"MESSAGING"}`)
	a.note(rings).want(t, "body.changes", "[]") // not available yet
	a.ok("routing.SetAgentState", `{"availability":"ONLINE"}`)
	a.note(rings).want(t, task, early)
	b.ok("routing.SetAgentState", `{"availability":"ONLINE"}`)
	b.ok(".ams.routing.SubscribeRoutingTasks", "{}")
	b.note(rings).want(t, task, early)

	conv := w.conversation()
	forA, forB := a.note(rings), b.note(rings)
	forA.want(t, task, conv)
	forA.want(t, state, "WAITING")
	b.refused(40404, "routing.UpdateRingState", fmt.Sprintf(`{"ringId":%q,"ringState":"ACCEPTED"}`, forA.text(ring)))
	b.refused(40002, "routing.UpdateRingState", fmt.Sprintf(`{"ringId":%q,"ringState":"WAITING"}`, forB.text(ring)))
	a.ok(".ams.routing.UpdateRingState", fmt.Sprintf(`{"ringId":%q,"ringState":"ACCEPTED"}`, forA.text(ring))).want(t, "code", 202)
	a.note(rings).want(t, state, "ACCEPTED")
	b.note(rings).want(t, state, "CANCELLED")
	b.refused(40002, "routing.UpdateRingState", fmt.Sprintf(`{"ringId":%q,"ringState":"ACCEPTED"}`, forB.text(ring)))
	a.publishText(conv, "hello")

	// A suggested agent is the only one at which the conversation rings next.
	for _, bad := range []string{`"type":"SUGGEST","role":"MANAGER"`, `"type":"SUGGEST","role":"ASSIGNED_AGENT"`} {
		a.refused(40002, "cm.UpdateConversationField", participants(conv, bad))
	}
	bobs := acct + "." + bob.text("config.userId")
	a.ok("cm.UpdateConversationField", update(conv, fmt.Sprintf(`[{"field":"ParticipantsChange","type":"SUGGEST","role":"ASSIGNED_AGENT","userId":%q},
		{"field":"ParticipantsChange","type":"REMOVE","role":"ASSIGNED_AGENT"}]`, bobs)))
	suggested := b.note(rings)
	suggested.want(t, task, conv)
	a.quiet(rings)
	b.ok("routing.UpdateRingState", fmt.Sprintf(`{"ringId":%q,"ringState":"ACCEPTED"}`, suggested.text(ring)))
	b.note(rings).want(t, state, "ACCEPTED")
	b.ok("cm.UpdateConversationField", participants(conv, `"type":"REMOVE","role":"ASSIGNED_AGENT"`))
	back := a.note(rings)
	back.want(t, task, conv)
	b.note(rings)
	a.ok("routing.UpdateRingState", fmt.Sprintf(`{"ringId":%q,"ringState":"ACCEPTED"}`, back.text(ring)))
	a.note(rings).want(t, state, "ACCEPTED")
	b.note(rings).want(t, state, "CANCELLED")

	// A conversation that goes back to the queue rings again.
	a.ok("cm.UpdateConversationField", participants(conv, `"type":"REMOVE","role":"ASSIGNED_AGENT"`))
	again := b.note(rings)
	again.want(t, task, conv)
	b.ok("routing.UpdateRingState", fmt.Sprintf(`{"ringId":%q,"ringState":"REJECTED"}`, again.text(ring)))
	b.note(rings).want(t, state, "REJECTED")
	w.ok("cm.UpdateConversationField", update(conv, `{"field":"ConversationStateField","conversationState":"CLOSE"}`))
	a.note(rings).want(t, state, "WAITING")
	a.note(rings).want(t, state, "CANCELLED")
	b.quiet(rings)
}

// A tlsClient finds the sandbox by plain http and uses it by TLS, as LivePerson's messaging SDK does.
type tlsClient struct {
	t      *testing.T
	http   *http.Client
	config *tls.Config
	host   string
}

// newTLSClient starts a sandbox and looks up its address.
func newTLSClient(t *testing.T) *tlsClient {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	s := start(t, Options{TLSListen: "127.0.0.1:0", CAFile: ca})
	text, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	config := &tls.Config{RootCAs: pool}
	_, d := ask(t, "GET", s.URL()+"/api/account/"+acct+"/service/asyncMessagingEnt/baseURI.json?version=1.0", "")
	transport := &http.Transport{TLSClientConfig: config.Clone()}
	t.Cleanup(transport.CloseIdleConnections)
	return &tlsClient{t, &http.Client{Transport: transport, Timeout: patience}, config, d.text("baseURI")}
}

// do makes a request by https and returns the status and the body.
func (c *tlsClient) do(method, path, body string) (int, []byte) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, "https://"+c.host+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode, data
}

// post makes a POST that must succeed.
func (c *tlsClient) post(path, body string) (d dict) {
	c.t.Helper()
	status, data := c.do("POST", path, body)
	if err := json.Unmarshal(data, &d); err != nil || status != 200 {
		c.t.Fatalf("POST %s: %d %s", path, status, data)
	}
	return d
}

// socket opens a socket by wss.
func (c *tlsClient) socket(path string) *wire {
	c.t.Helper()
	w, resp, err := dialURL(c.t, "wss://"+c.host+"/ws_api/account/"+acct+"/messaging/"+path, c.config.Clone())
	if err != nil {
		c.t.Fatalf("%s: %v %v", path, resp, err)
	}
	return w
}

// storage makes a request for the signed URL in an answer.
func (c *tlsClient) storage(method string, signed dict, content []byte) (int, []byte) {
	c.t.Helper()
	return c.do(method, signed.text("body.relativePath")+"?temp_url_sig="+signed.text("body.queryParams.temp_url_sig")+
		"&temp_url_expires="+signed.text("body.queryParams.temp_url_expires"), string(content))
}

// send uploads a file and publishes it.
func (c *tlsClient) send(w *wire, conv string, content []byte) {
	c.t.Helper()
	signed := w.ok("ms.GenerateURLForUploadFile", fmt.Sprintf(`{"fileSize":%d,"fileType":"JPEG"}`, len(content)))
	if status, body := c.storage("PUT", signed, content); status != 201 {
		c.t.Fatalf("PUT: %d %s", status, body)
	}
	w.ok("ms.PublishEvent", fileEvent(conv, signed.text("body.relativePath"), "JPEG"))
}

// receive downloads the file in an event.
func (c *tlsClient) receive(w *wire, path string) []byte {
	c.t.Helper()
	status, data := c.storage("GET", w.ok("ms.GenerateURLForDownloadFile", fmt.Sprintf(`{"relativePath":%q}`, path)), nil)
	if status != 200 {
		c.t.Fatalf("GET: %d %s", status, data)
	}
	return data
}

// TestJourney exchanges files between a consumer and an agent in each role, by TLS.
func TestJourney(t *testing.T) {
	for _, role := range []string{"ASSIGNED_AGENT", "AGENT", "MANAGER", "CONTROLLER", "READER"} {
		t.Run(role, func(t *testing.T) {
			c := newTLSClient(t)
			token := c.post("/api/account/"+acct+"/signup", "").text("jwt")
			w := c.socket("consumer/" + token + "?v=3")
			w.ok("userprofile.GetUserProfile", "{}")
			w.ok("cqm.SubscribeExConversations", `{"convState":["OPEN"]}`)
			w.note(changed)
			conv := w.conversation()
			w.note(changed)
			fromConsumer, fromAgent := append([]byte("consumer "), jpeg...), append([]byte("agent "), jpeg...)
			c.send(w, conv, fromConsumer)
			w.note(events).want(t, "body.changes.0.originatorMetadata.role", "CONSUMER")

			in := c.post("/api/account/"+acct+"/login", `{"username":"bot","appKey":"k","secret":"sandbox","accessToken":"dummy","accessTokenSecret":"dummy"}`)
			a := c.socket("brand/" + in.text("bearer") + "?v=2.1")
			a.ok(".ams.aam.SubscribeExConversations", `{"convState":["OPEN"]}`)
			a.note(brandChanged).want(t, "body.changes.0.result.convId", conv)
			a.ok(".ams.cm.UpdateConversationField", participants(conv, fmt.Sprintf(`"type":"ADD","role":%q`, role))).want(t, "body", "OK Agent added successfully")
			a.note(brandChanged).want(t, "body.changes.0.result.conversationDetails.participantsPId."+role+".0", in.text("config.userPid"))
			n := w.note(changed)
			n.want(t, "body.changes.0.result.conversationDetails.participants.1.role", role)
			n.want(t, "body.changes.0.result.conversationDetails.dialogs.0.participantsDetails.1.role", role)

			backlog := a.ok(".ams.ms.QueryMessages", fmt.Sprintf(`{"dialogId":%q,"newerThanSequence":0}`, conv))
			if got := c.receive(a, backlog.text("body.0.event.message.relativePath")); !bytes.Equal(got, fromConsumer) {
				t.Errorf("the agent received %d other bytes", len(got))
			}
			c.send(a, conv, fromAgent)
			n = w.note(events)
			n.want(t, "body.changes.0.originatorMetadata.role", role)
			if got := c.receive(w, n.text("body.changes.0.event.message.relativePath")); !bytes.Equal(got, fromAgent) {
				t.Errorf("the consumer received %d other bytes", len(got))
			}
			w.ok("ms.PublishEvent", fmt.Sprintf(`{"dialogId":%q,"event":{"type":"AcceptStatusEvent","status":"READ","sequenceList":[1]}}`, conv))

			a.ok(".ams.cm.UpdateConversationField", update(conv, `[{"field":"TTRField","ttrType":"CUSTOM","value":1800}]`))
			w.note(changed).want(t, "body.changes.0.result.conversationDetails.ttr.value", 1800)
			a.ok(".ams.cm.UpdateConversationField", participants(conv, fmt.Sprintf(`"type":"REMOVE","role":%q`, role))).want(t, "body", "OK Agent removed successfully")
			w.note(changed).want(t, "body.changes.0.result.conversationDetails.participants.1", nil)
			a.refused(40302, ".ams.ms.PublishEvent", textEvent(conv, "left"))
			w.ok("cm.UpdateConversationField", update(conv, `{"field":"ConversationStateField","conversationState":"CLOSE"}`))
		})
	}
}

func TestParticipants_ChangeOfRole(t *testing.T) {
	s := start(t, Options{})
	w := consumer(t, s, signUp(t, s))
	conv := w.conversation()
	a := agent(t, s, logIn(t, s, "ann"))
	a.refused(40302, "cm.UpdateConversationField", participants(conv, `"type":"UPDATE","role":"AGENT"`))
	a.ok("cm.UpdateConversationField", participants(conv, `"type":"ADD","role":"AGENT"`))
	for _, role := range []string{"CONTROLLER", "MANAGER", "READER", "ASSIGNED_AGENT", "AGENT"} {
		a.ok("cm.UpdateConversationField", participants(conv, fmt.Sprintf(`"type":"UPDATE","role":%q`, role)))
		a.publishText(conv, role)
		w.note(events).want(t, "body.changes.0.originatorMetadata.role", role)
	}
	for _, role := range []string{"CONSUMER", "BOSS", ""} {
		a.refused(40002, "cm.UpdateConversationField", participants(conv, fmt.Sprintf(`"type":"ADD","role":%q`, role)))
	}
	a.refused(40002, "cm.UpdateConversationField", participants(conv, `"type":"REMOVE","role":"CONTROLLER"`))
	a.ok("cm.UpdateConversationField", participants(conv, `"type":"REMOVE","role":"AGENT"`))
}
