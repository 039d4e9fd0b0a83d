package sandbox

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// anonymous returns an anonymous consumer's token.
func anonymous(t *testing.T, s *Sandbox) string {
	t.Helper()
	idp := s.URL() + "/api/account/" + acct
	_, d := ask(t, "POST", idp+"/anonymous/authorize", "")
	_, d = ask(t, "POST", idp+"/app/x/authenticate?v=3.0", fmt.Sprintf(`{"id_token":%q}`, d.text("token")))
	return d.text("token")
}

func TestConsumer_Upgrade(t *testing.T) {
	c := newClock()
	s := start(t, Options{Now: c.Now, TokenLifetime: time.Minute, Accounts: []string{acct, "87654321"}})
	token := signUp(t, s)
	_, foreign := ask(t, "POST", s.URL()+"/api/account/87654321/signup", "")
	other := start(t, Options{OwnKey: true})
	parts := strings.Split(token, ".")
	unsigned := "eyJhbGciOiJub25lIn0." + parts[1] + "."
	for _, scheme := range []string{"jwt ", "JWT ", "Jwt  "} {
		dial(t, s, consumerPath+"&extra=1", "Authorization", scheme+token).ok("GetClock", "")
	}
	refused := func(name, path, authorization string, want int) {
		t.Helper()
		_, resp, err := tryDial(t, s, path, "Authorization", authorization)
		if err == nil || resp == nil || resp.StatusCode != want {
			t.Errorf("%s: %v %v, want %d", name, resp, err, want)
		}
	}
	for _, path := range []string{"?v=2", "?v=3", "/" + token + "?v=2", "/" + token + "?v=3"} {
		header := []string{"Authorization", "jwt " + token}
		if path[0] == '/' {
			header = nil
		}
		dial(t, s, strings.TrimSuffix(consumerPath, "?v=3")+path, header...).ok("GetClock", "")
	}
	inPath := func(token string) string { return strings.Replace(consumerPath, "consumer", "consumer/"+token, 1) }
	refused("v=1", strings.Replace(consumerPath, "v=3", "v=1", 1), "jwt "+token, 404)
	refused("no v behind a token", strings.TrimSuffix(inPath(token), "?v=3"), "", 404)
	refused("a wrong token in the path", inPath(parts[0]+"."+parts[1]+".AAAA"), "", 401)
	refused("another account's token in the path", inPath(foreign.text("jwt")), "", 401)
	refused("no v", strings.TrimSuffix(consumerPath, "?v=3"), "jwt "+token, 404)
	refused("Bearer", consumerPath, "Bearer "+token, 401)
	refused("no token", consumerPath, "jwt", 401)
	refused("wrong signature", consumerPath, "jwt "+parts[0]+"."+parts[1]+"."+strings.Repeat("A", len(parts[2])), 401)
	refused("unsigned", consumerPath, "jwt "+unsigned, 401)
	refused("another sandbox's", consumerPath, "jwt "+signUp(t, other), 401)
	refused("another account's", consumerPath, "jwt "+foreign.text("jwt"), 401)
	refused("no such account", strings.Replace(consumerPath, acct, "1", 1), "jwt "+token, 401)
	c.advance(2 * time.Minute)
	refused("expired", consumerPath, "jwt "+token, 401)
	refused("expired in the path", inPath(token), "", 401)
}

func TestSocket_Envelope(t *testing.T) {
	s := start(t, Options{})
	w := consumer(t, s, signUp(t, s))

	// A numeric id is answered as a string, and unknown members are ignored.
	for i := range 20 {
		w.send(fmt.Sprintf(`{"kind":"req","id":%d,"type":"GetClock","headers":null,"extra":{}}`, i))
	}
	for i := range 20 {
		w.answer(fmt.Sprint(i)).want(t, "code", 200)
	}
	w.send(`{"id":"a","type":"KeepAlive"}`)
	w.answer("a").want(t, "type", ".ReqBody$StringResp")
	w.send(`{"id":"1,","type":".ams.GetClock"}`)
	if w.answer("1,").at("body.currentTime").(float64) < 1e12 {
		t.Error("the clock is not in milliseconds")
	}

	for name, bad := range map[string]struct{ frame, id string }{
		"no JSON":      {`{`, "0"},
		"no object":    {`[]`, "0"},
		"no id":        {`{"kind":"req","type":"GetClock"}`, "0"},
		"long id":      {`{"kind":"req","id":"` + strings.Repeat("x", 65) + `","type":"GetClock"}`, "0"},
		"no type":      {`{"kind":"req","id":"b"}`, "b"},
		"a response":   {`{"kind":"resp","id":"c","type":"GetClock"}`, "c"},
		"unknown type": {`{"kind":"req","id":"d","type":"ms.MakeCoffee"}`, "d"},
		"agents only":  {`{"kind":"req","id":"e","type":"routing.SetAgentState"}`, "e"},
	} {
		w.send(bad.frame)
		d := w.answer(bad.id)
		d.want(t, "code", 400)
		d.want(t, "type", ".ReqBody$ErrorResp")
		if d.text("body.title") == "" || d.text("body.details") == "" {
			t.Errorf("%s: %s", name, d)
		}
	}

	if err := w.conn.WriteMessage(websocket.BinaryMessage, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if code := w.closed(); code != websocket.CloseUnsupportedData {
		t.Errorf("binary: %d", code)
	}
	w = consumer(t, s, signUp(t, s))
	w.send(`{"kind":"req","id":"big","type":"GetClock","body":"` + strings.Repeat("x", 900_000) + `"}`)
	w.answer("big")
	w.send(`{"kind":"req","id":"big","type":"GetClock","body":"` + strings.Repeat("x", 1<<20) + `"}`)
	if code := w.closed(); code != websocket.CloseMessageTooBig {
		t.Errorf("over 1 MiB: %d", code)
	}
}

func TestSocket_InitConnection(t *testing.T) {
	s := start(t, Options{InitTimeout: 300 * time.Millisecond})
	token := signUp(t, s)
	init := func(id, token string) string {
		return fmt.Sprintf(`{"kind":"req","id":%q,"type":"InitConnection","headers":[`+
			`{"type":".ams.headers.ClientProperties","deviceFamily":"MOBILE","os":"ANDROID"},`+
			`{"type":".ams.headers.ConsumerAuthentication","jwt":%q}]}`, id, token)
	}

	w := dial(t, s, consumerPath)
	w.refused(40101, "cm.ConsumerRequestConversation", "")
	w.send(init("i", token))
	w.send(`{"kind":"req","id":"c","type":"cm.ConsumerRequestConversation"}`) // at once, as third parties do
	w.answer("i").want(t, "code", 200)
	w.answer("c").want(t, "code", 200)
	w.ok("cqm.SubscribeExConversations", "{}")
	n := w.note("cqm.ExConversationChangeNotification")
	n.want(t, "body.changes.0.result.conversationDetails.context.clientProperties.os", "ANDROID")
	n.want(t, "body.changes.0.result.conversationDetails.context.clientProperties.type", ".ClientProperties")

	// Requests do not overtake a delayed InitConnection.
	s.Inject(Fault{On: "InitConnection", Count: 1, Delay: 100 * time.Millisecond})
	w = dial(t, s, consumerPath)
	w.send(init("i", token))
	w.send(`{"kind":"req","id":"c","type":"cm.ConsumerRequestConversation"}`)
	w.answer("c").want(t, "code", 200)

	w = dial(t, s, consumerPath)
	w.send(init("i", "x.y.z"))
	w.answer("i").want(t, "body.errorCode", 40102)
	if code := w.closed(); code != 4401 {
		t.Errorf("bad token: %d", code)
	}

	begun := time.Now()
	if code := dial(t, s, consumerPath).closed(); code != 4401 {
		t.Errorf("silence: %d", code)
	} else if waited := time.Since(begun); waited < 300*time.Millisecond {
		t.Errorf("only %v of patience", waited)
	}
}

func TestSocket_TokenExpiry(t *testing.T) {
	c := newClock()
	s := start(t, Options{Now: c.Now, TokenLifetime: time.Minute})
	_, d := ask(t, "POST", s.URL()+"/api/account/"+acct+"/authenticate",
		fmt.Sprintf(`{"authCode":%q}`, customerToken(t, "joe", "acc:"+acct, c.Now().Add(time.Hour))))
	sockets := map[string]*wire{
		"signed up":     consumer(t, s, signUp(t, s)),
		"authenticated": consumer(t, s, d.text("jwt")),
		"anonymous":     consumer(t, s, anonymous(t, s)),
	}
	for _, w := range sockets {
		w.ok("GetClock", "")
	}
	c.advance(2 * time.Minute)
	for name, want := range map[string]int{"signed up": 4401, "authenticated": 4401, "anonymous": 4407} {
		if code := sockets[name].closed(); code != want {
			t.Errorf("%s: %d, want %d", name, code, want)
		}
	}
	eventually(t, "all sockets gone", func() bool { return s.Sockets() == 0 })
}

func TestSocket_IdleTimeout(t *testing.T) {
	s := start(t, Options{IdleTimeout: 50 * time.Millisecond})
	if code := consumer(t, s, signUp(t, s)).closed(); code != 1001 {
		t.Errorf("closed with %d, want 1001", code)
	}
}

func TestDropSockets(t *testing.T) {
	s := start(t, Options{})
	for want, code := range map[int]int{0: 0, 4401: 4401, 1011: 1011} {
		a, b := consumer(t, s, signUp(t, s)), agent(t, s, logIn(t, s, "ann"))
		a.ok("GetClock", "")
		b.ok("GetClock", "")
		if n := s.DropSockets(code); n != 2 {
			t.Errorf("dropped %d", n)
		}
		if got := []int{a.closed(), b.closed()}; got[0] != want || got[1] != want {
			t.Errorf("code %d: %v", code, got)
		}
		eventually(t, "all sockets gone", func() bool { return s.Sockets() == 0 })
	}
}

func TestSocket_SlowReader(t *testing.T) {
	s := start(t, Options{maxQueued: 1 << 16})
	token := signUp(t, s)
	smallBuffer := func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return conn, conn.(*net.TCPConn).SetReadBuffer(4096) // otherwise the kernel takes many of the messages
	}
	slow, _, err := (&websocket.Dialer{NetDialContext: smallBuffer}).DialContext(t.Context(), "ws"+strings.TrimPrefix(s.URL(), "http")+consumerPath,
		map[string][]string{"Authorization": {"jwt " + token}})
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	w := consumer(t, s, token)
	conv := w.conversation()
	big := strings.Repeat("x", 1<<18)
	for range 60 {
		w.publishText(conv, big)
		if s.Sockets() == 1 {
			return
		}
	}
	t.Error("a client that does not read is still connected after 15 MB")
}

func TestOptions_OnFrame(t *testing.T) {
	seen := make(chan Frame, 100)
	s := start(t, Options{OnFrame: func(f Frame) { seen <- f }})
	consumer(t, s, signUp(t, s)).ok("GetClock", "")
	in, out := <-seen, <-seen
	if !in.FromClient || out.FromClient || in.Dialect != "consumer" || !strings.Contains(string(out.Data), "currentTime") {
		t.Errorf("%+v %+v", in, out)
	}
	agent(t, s, logIn(t, s, "ann")).ok(".GetClock", "")
	if f := <-seen; f.Dialect != "brand" {
		t.Errorf("%+v", f)
	}
}
