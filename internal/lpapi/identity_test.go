package lpapi

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// same compares requests with the lines "METHOD target body".
func same(t *testing.T, got []request, want ...string) {
	t.Helper()
	var lines []string
	for _, r := range got {
		lines = append(lines, r.method+" "+strings.TrimPrefix(r.target, "/api/account/"+testAccount)+" "+r.body)
	}
	if fmt.Sprintf("%q", lines) != fmt.Sprintf("%q", want) {
		t.Errorf("asked\n  %q\nwant\n  %q", lines, want)
	}
}

func TestSignUpAndAuthenticate(t *testing.T) {
	f := newFakeLP(t)
	c := clientOf(t, f)
	exp := time.Unix(1_900_000_000, 0)
	token := testJWT(map[string]any{"sub": "consumer-1", "aud": "acc:12345678", "exp": exp.Unix(), "iat": 1})
	f.on("/signup", says(200, `{"jwt":"`+token+`"}`))
	f.on("/authenticate", says(201, `{"token":"`+token+`","more":[1]}`)) // the other name
	want := share.SignIn{Token: token, Expires: exp, ID: "consumer-1"}

	got, err := c.SignUp(t.Context(), testAccount)
	if err != nil || got != want {
		t.Errorf("SignUp: %#v, %v", got, err)
	}
	same(t, f.asked(), "POST /signup ")

	got, err = c.Authenticate(t.Context(), testAccount, `c"ode`)
	if err != nil || got != want {
		t.Errorf("Authenticate: %#v, %v", got, err)
	}
	asked := f.asked()
	same(t, asked, `POST /authenticate {"authCode":"c\"ode"}`)
	if got := asked[0].header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q", got)
	}
}

func TestAnonymous(t *testing.T) {
	f := newFakeLP(t)
	c := clientOf(t, f)
	f.on("/anonymous/authorize", says(200, `{"token":"EXT1"}`))
	f.on("/app/conn-1/authenticate", says(200, `{"token":"`+testJWT(map[string]any{"sub": "anon"})+`"}`))
	first, err := c.SignInAnonymous(t.Context(), testAccount, "conn-1")
	if err != nil || first.ID != "anon" || !first.Expires.IsZero() || first.RenewalSecret == "" {
		t.Fatalf("%#v, %v", first, err)
	}
	same(t, f.asked(), "POST /anonymous/authorize ", `POST /app/conn-1/authenticate?v=3.0 {"id_token":"EXT1"}`)

	f.on("/anonymous/authorize", says(200, `{"token":"EXT2"}`))
	second, err := c.Renew(t.Context(), testAccount, first.RenewalSecret)
	if err != nil || second.ID != "anon" {
		t.Fatalf("%#v, %v", second, err)
	}
	same(t, f.asked(), `POST /anonymous/authorize {"id_token":"EXT1"}`, `POST /app/conn-1/authenticate?v=3.0 {"id_token":"EXT2"}`)
	if second.RenewalSecret == first.RenewalSecret {
		t.Error("the renewal secret holds the old external token")
	}

	for name, secret := range map[string]string{
		"nothing":        "",
		"no base64":      "$$$",
		"no JSON":        base64.RawURLEncoding.EncodeToString([]byte("x")),
		"too long":       strings.Repeat("A", 1<<20),
		"an agent token": share.AgentGrant{Account: testAccount, UserID: "1", UserPID: "2", Bearer: "b"}.Token(),
		"a path":         renewal{testAccount, "../../x", "EXT"}.secret(),
		"no token":       renewal{testAccount, "conn-1", ""}.secret(),
		"a broken token": renewal{testAccount, "conn-1", "a\nb"}.secret(),
	} {
		_, err := c.Renew(t.Context(), testAccount, secret)
		if e, _ := errors.AsType[*share.Error](err); e == nil || e.Kind != share.TokenInvalid || !strings.Contains(e.Message, "sign in again") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.Renew(t.Context(), testAccount, renewal{"999", "conn-1", "EXT"}.secret()); !share.Is(err, share.NotAllowed) {
		t.Errorf("another account's: %v", err)
	}
	for _, connector := range []string{"", "..", "a/b", "a?b", "a b", strings.Repeat("a", 65)} {
		if _, err := c.SignInAnonymous(t.Context(), testAccount, connector); !share.Is(err, share.InvalidField) {
			t.Errorf("%q: %v", connector, err)
		}
	}
	if asked := f.asked(); len(asked) > 0 {
		t.Errorf("asked %v", asked)
	}
	f.on("/anonymous/authorize", says(401, `{}`))
	if _, err := c.Renew(t.Context(), testAccount, first.RenewalSecret); !share.Is(err, share.TokenInvalid) {
		t.Errorf("refused by LivePerson: %v", err)
	}
}

func TestUnreadableTokens(t *testing.T) {
	enc := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	for name, body := range map[string]string{
		"nothing":                          ``,
		"no token":                         `{}`,
		"an array":                         `[]`,
		"no JWT":                           `{"jwt":"abc"}`,
		"no JSON inside":                   `{"jwt":"a.b.c"}`,
		"no subject":                       `{"jwt":"a.` + enc(`{"exp":1}`) + `.c"}`,
		"a blank":                          `{"jwt":"a a.` + enc(`{"sub":"s"}`) + `.c"}`,
		"a line feed":                      `{"jwt":"a\n.` + enc(`{"sub":"s"}`) + `.c"}`,
		"a negative expiry":                `{"jwt":"a.` + enc(`{"sub":"s","exp":-1}`) + `.c"}`,
		"an absurd expiry":                 `{"jwt":"a.` + enc(`{"sub":"s","exp":1e300}`) + `.c"}`,
		"too long":                         `{"jwt":"a.` + enc(`{"sub":"`+strings.Repeat("s", maxToken)+`"}`) + `.c"}`,
		"right, but after 1 MiB of blanks": strings.Repeat(" ", maxBody) + `{"jwt":"` + testJWT(map[string]any{"sub": "s"}) + `"}`,
	} {
		f := newFakeLP(t)
		f.on("/signup", says(200, body))
		if got, err := clientOf(t, f).SignUp(t.Context(), testAccount); !share.Is(err, share.LPProtocolError) {
			t.Errorf("%s: %#v, %v", name, got, err)
		}
	}
}

func TestAgentLogin(t *testing.T) {
	f, clk := newFakeLP(t), newClock()
	c := newClient(t, Config{DomainAPI: f.URL, PlainHTTP: true, Now: clk.Now})
	f.on("/login", says(200, `{"csrf":"c","wsuk":"1","config":{"loginName":"n","userId":"3705342610","userPid":"734d9867","isAdmin":true},
		"csdsCollectionResponse":{"baseURIs":[{"account":"12345678","baseURI":"evil.com","service":"idp"}]},"sessionTTl":"28800000","bearer":"bea4e4"}`))
	got, err := c.SignInAgent(t.Context(), testAccount, "bob", "pass")
	if err != nil {
		t.Fatal(err)
	}
	same(t, f.asked(), `POST /login?v=1.3 {"username":"bob","password":"pass"}`)
	grant, err := share.ParseAgentToken(got.Token)
	expires := clk.Now().Add(8 * time.Hour)
	want := share.AgentGrant{Account: testAccount, UserID: "3705342610", UserPID: "734d9867", Bearer: "bea4e4", Expires: expires.Unix(), Lifetime: 8 * 3600}
	if err != nil || grant != want || got.ID != "734d9867" || !got.Expires.Equal(expires) || got.RenewalSecret != "" {
		t.Errorf("%+v, %v; grant %v", got, err, grant == want)
	}
	if base, err := c.BaseURL(t.Context(), testAccount, "idp"); err != nil || base != f.URL {
		t.Errorf("the login's list of hosts was believed: %q, %v", base, err)
	}

	_, err = c.SignInBot(t.Context(), testAccount, share.BotKeys{Username: "bot", AppKey: "k", Secret: "s", AccessToken: "t", AccessTokenSecret: "u"})
	if err != nil {
		t.Fatal(err)
	}
	same(t, f.asked(), `POST /login?v=1.3 {"username":"bot","appKey":"k","secret":"s","accessToken":"t","accessTokenSecret":"u"}`)

	for name, x := range map[string]struct {
		answer http.HandlerFunc
		kind   share.Kind
	}{
		"numbers for strings":   {says(200, `{"bearer":"b","sessionTTl":1000,"config":{"userId":1,"userPid":"2"}}`), ""},
		"no time to live":       {says(200, `{"bearer":"b","config":{"userId":"1","userPid":"2"}}`), ""},
		"a wild time to live":   {says(200, `{"bearer":"b","sessionTTl":"-5","config":{"userId":"1","userPid":"2"}}`), ""},
		"no bearer":             {says(200, `{"config":{"userId":"1","userPid":"2"}}`), share.LPProtocolError},
		"a bearer with a blank": {says(200, `{"bearer":"a b","config":{"userId":"1","userPid":"2"}}`), share.LPProtocolError},
		"no ids":                {says(200, `{"bearer":"b"}`), share.LPProtocolError},
		"an error with 200":     {says(200, `{"error":{"internalCode":7}}`), share.LPCredentialsRejected},
	} {
		f.on("/login", x.answer)
		if _, err := c.SignInAgent(t.Context(), testAccount, "bob", "pass"); share.KindOf(err) != x.kind || (x.kind == "") != (err == nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFileSharing(t *testing.T) {
	f, clk := newFakeLP(t), newClock()
	c := newClient(t, Config{DomainAPI: f.URL, PlainHTTP: true, Now: clk.Now})
	agent := share.AgentGrant{Account: testAccount, UserID: "1", UserPID: "2", Bearer: "bea4e4", Expires: clk.Now().Add(time.Hour).Unix()}
	const path = "/configuration/setting/properties/messaging.file.sharing.enabled"
	for name, x := range map[string]struct {
		answer http.HandlerFunc
		on     bool
		kind   share.Kind
	}{
		"on":              {says(200, `{"id":"messaging.file.sharing.enabled","type":2,"propertyValue":{"value":true},"deleted":false}`), true, ""},
		"on, as a string": {says(200, `{"propertyValue":{"value":"true"},"deleted":"false"}`), true, ""},
		"off":             {says(200, `{"id":"messaging.file.sharing.enabled","propertyValue":{"value":"false"}}`), false, ""},
		"deleted":         {says(200, `{"propertyValue":{"value":"true"},"deleted":"true"}`), false, ""},
		"in a list":       {says(200, `[{"id":"x","propertyValue":{"value":"7"}},{"id":"messaging.file.sharing.enabled","propertyValue":{"value":true}}]`), true, ""},
		"not there":       {says(404, `{}`), false, ""},
		"not in the list": {says(200, `[]`), false, ""},
		"no answer":       {says(200, `{}`), false, share.LPProtocolError},
		"not a boolean":   {says(200, `{"propertyValue":{"value":"maybe"}}`), false, share.LPProtocolError},
		"no login":        {says(401, ``), false, share.TokenInvalid},
		"no right":        {says(403, ``), false, share.NotAllowed},
		"trouble":         {says(500, ``), false, share.LPUnavailable},
	} {
		f.on(path, x.answer)
		on, err := c.FileSharing(t.Context(), agent)
		if on != x.on || share.KindOf(err) != x.kind || (x.kind == "") != (err == nil) {
			t.Errorf("%s: %t, %v", name, on, err)
		}
	}
	f.asked()

	for name, x := range map[string]struct{ there, sent string }{
		"with its type":       {`{"id":"messaging.file.sharing.enabled","type":2,"propertyValue":{"value":false}}`, "2"},
		"with a default type": {``, "4"},
	} {
		f.on(path, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.Method == http.MethodGet && x.there == "":
				w.WriteHeader(404)
			case r.Method == http.MethodGet:
				says(200, x.there)(w, r)
			}
		})
		if err := c.SetFileSharing(t.Context(), agent, true); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		asked := f.asked()
		same(t, asked, "GET "+path+"?v=3.0 ",
			"PUT "+path+`?v=3.0 {"id":"messaging.file.sharing.enabled","type":`+x.sent+`,"propertyValue":{"value":"true"},"deleted":"false"}`)
		if h := asked[1].header; h.Get("If-Match") != "-1" || h.Get("Authorization") != "Bearer bea4e4" {
			t.Errorf("%s: headers %v", name, h)
		}
	}

	for status, kind := range map[int]share.Kind{401: share.TokenInvalid, 403: share.NotAllowed, 412: share.LPProtocolError, 503: share.LPUnavailable} {
		f.on(path, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				w.WriteHeader(status)
				return
			}
			w.WriteHeader(404)
		})
		err := c.SetFileSharing(t.Context(), agent, false)
		if !share.Is(err, kind) {
			t.Errorf("PUT answered %d: %v", status, err)
		}
		if status == 403 && !strings.Contains(err.Error(), "administrator") {
			t.Errorf("403 does not say who may: %v", err)
		}
	}
	f.asked()
	for name, bad := range map[string]share.AgentGrant{
		"expired": {Account: testAccount, Bearer: "b", Expires: clk.Now().Unix()}, "a broken bearer": {Account: testAccount, Bearer: "a\r\nX: y"},
		"none": {Account: testAccount},
	} {
		if _, err := c.FileSharing(t.Context(), bad); !share.Is(err, share.TokenInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if asked := f.asked(); len(asked) > 0 {
		t.Errorf("asked %v", asked)
	}
}

// TestStatuses is what each trouble of LivePerson becomes, at a login and at a sign-up.
func TestStatuses(t *testing.T) {
	for _, x := range []struct {
		status     int
		retryAfter string
		kind       share.Kind
		wait       time.Duration // at a login
		waitIDP    time.Duration
	}{
		{400, "", share.LPCredentialsRejected, 0, 0},
		{401, "", share.LPCredentialsRejected, 0, 0},
		{403, "", share.LPCredentialsRejected, 0, 0},
		{404, "", share.LPCredentialsRejected, 0, 0},
		{451, "", share.LPCredentialsRejected, 0, 0},
		{429, "", share.LPRateLimited, 5 * time.Second, time.Second},
		{429, "20", share.LPRateLimited, 20 * time.Second, 20 * time.Second},
		{429, "999999999", share.LPRateLimited, 10 * time.Minute, 10 * time.Minute},
		{429, "-1", share.LPRateLimited, 5 * time.Second, time.Second},
		{408, "", share.LPUnavailable, 5 * time.Second, 5 * time.Second},
		{500, "", share.LPUnavailable, 5 * time.Second, 5 * time.Second},
		{503, "30", share.LPUnavailable, 30 * time.Second, 30 * time.Second},
		{302, "", share.LPProtocolError, 0, 0},
		{304, "", share.LPProtocolError, 0, 0},
		{405, "", share.LPProtocolError, 0, 0},
		{418, "", share.LPProtocolError, 0, 0},
	} {
		f := newFakeLP(t)
		answer := func(w http.ResponseWriter, r *http.Request) {
			if x.retryAfter != "" {
				w.Header().Set("Retry-After", x.retryAfter)
			}
			w.Header().Set("Location", f.URL+"/api/account/"+testAccount+"/elsewhere?secret=1")
			w.WriteHeader(x.status)
			_, _ = w.Write([]byte("\n\n peer text"))
		}
		f.on("/login", answer)
		f.on("/signup", answer)
		c := clientOf(t, f)
		_, errLogin := c.SignInAgent(t.Context(), testAccount, "bob", "pass")
		_, errSignUp := c.SignUp(t.Context(), testAccount)
		for i, err := range []error{errLogin, errSignUp} {
			e, ok := errors.AsType[*share.Error](err)
			if !ok || e.Kind != x.kind || e.RetryAfter != [...]time.Duration{x.wait, x.waitIDP}[i] {
				t.Errorf("%d %q: %v, retry after %v", x.status, x.retryAfter, err, e.RetryAfter)
			}
			if strings.Contains(fmt.Sprintf("%v", err), "peer text") {
				t.Errorf("%d: the error shows the peer's words: %v", x.status, err)
			}
		}
		if n := len(f.asked()); n != 2 {
			t.Errorf("%d: %d requests, want 2", x.status, n)
		}
	}
}

func TestBrokenConnections(t *testing.T) {
	reset := func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }
	stall := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	half := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte(`{"jwt":`))
	}
	slowBody := func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(`{"jwt":`))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	garbage := func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_, _ = conn.Write([]byte("220 mail.example ESMTP hunter2\r\n\r\n"))
			_ = conn.Close()
		}
	}
	for name, x := range map[string]struct {
		answer http.HandlerFunc
		kind   share.Kind
	}{
		"reset": {reset, share.LPUnavailable}, "no answer": {stall, share.LPTimeout}, "half an answer": {half, share.LPUnavailable},
		"an answer that stops": {slowBody, share.LPTimeout}, "another protocol": {garbage, share.LPUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeLP(t)
			f.on("/signup", x.answer)
			c := newClient(t, Config{DomainAPI: f.URL, PlainHTTP: true, Timeout: 100 * time.Millisecond})
			_, err := c.SignUp(t.Context(), testAccount)
			e, ok := errors.AsType[*share.Error](err)
			if !ok || e.Kind != x.kind || e.RetryAfter != 5*time.Second {
				t.Fatalf("err = %v", err)
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "/signup") {
				t.Errorf("the error shows too much: %v", err)
			}
			// The same with the caller's own end.
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			if _, err := c.SignUp(ctx, testAccount); x.kind == share.LPTimeout && (!errors.Is(err, context.DeadlineExceeded) || share.KindOf(err) != "") {
				t.Errorf("with a deadline of the caller's: %v", err)
			}
		})
	}
	for name, where := range map[string]string{"refused": "127.0.0.1:1", "no such name": "name-that-is-not-there.invalid"} {
		c := newClient(t, Config{Overrides: map[string]string{"idp": where}, Timeout: 5 * time.Second})
		if _, err := c.SignUp(t.Context(), testAccount); !share.Is(err, share.LPUnavailable, share.LPTimeout) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCertificatesAreChecked(t *testing.T) {
	f := &fakeLP{answers: map[string]http.HandlerFunc{}}
	f.Server = httptest.NewTLSServer(f)
	defer f.Close()
	f.Config.ErrorLog = log.New(io.Discard, "", 0)
	f.on("/signup", says(200, `{"jwt":"`+testJWT(map[string]any{"sub": "s"})+`"}`))

	c := newClient(t, Config{DomainAPI: f.URL, Suffixes: []string{"127.0.0.1"}})
	if _, err := c.SignUp(t.Context(), testAccount); !share.Is(err, share.LPUnavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown CA: %v", err)
	}
	c = newClient(t, Config{DomainAPI: f.URL, Suffixes: []string{"127.0.0.1"}, TLS: f.Client().Transport.(*http.Transport).TLSClientConfig})
	if _, err := c.SignUp(t.Context(), testAccount); err != nil {
		t.Errorf("a CA that is trusted: %v", err)
	}
	if ws, err := c.SocketURL(t.Context(), testAccount, share.ConsumerToken); err != nil || ws != "wss://"+f.host() {
		t.Errorf("%q, %v", ws, err)
	}
}

// TestSecretsStayInside runs every call, right and wrong, and looks for every secret in all errors and debug logs.
func TestSecretsStayInside(t *testing.T) {
	secrets := []string{"PASSWORDxyz", "AUTHCODExyz", "EXTxyz", "BEARERxyz", "APPKEYxyz", "BOTSECRETxyz", "PEERTEXTxyz", "COOKIExyz", "CSRFxyz", "v=3.0", "v=1.3"}
	jwt := testJWT(map[string]any{"sub": "s"})
	secrets = append(secrets, jwt)
	agent := share.AgentGrant{Account: testAccount, UserID: "1", UserPID: "2", Bearer: "BEARERxyz", Cookie: "COOKIExyz", CSRF: "CSRFxyz"}
	secret := renewal{testAccount, "conn", "EXTxyz"}.secret()
	secrets = append(secrets, secret, agent.Token())

	good := map[string]string{
		"/signup": `{"jwt":"` + jwt + `"}`, "/authenticate": `{"jwt":"` + jwt + `"}`, "/anonymous/authorize": `{"token":"EXTxyz"}`,
		"/app/conn/authenticate": `{"token":"` + jwt + `"}`,
		"/login":                 `{"bearer":"BEARERxyz","config":{"userId":"1","userPid":"2"}}`,
		"/logout":                `{}`,
		switchPath:               `{"propertyValue":{"value":"true"}}`,
	}
	echo := func(status int) http.HandlerFunc { // a peer that says it all again
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "https://evil.com/?"+r.Header.Get("Authorization"))
			w.WriteHeader(status)
			fmt.Fprintf(w, "PEERTEXTxyz %s %s", r.Header.Get("Authorization"), strings.Join(secrets, " "))
		}
	}
	tamper := func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_, _ = fmt.Fprintf(conn, "HTTP/1.1 200PEERTEXTxyz %s\r\nBEARERxyz\r\n\r\n", r.Header.Get("Authorization"))
			_ = conn.Close()
		}
	}
	answers := map[string]http.HandlerFunc{"tampered": tamper, "good": nil}
	for _, status := range []int{200, 302, 400, 401, 403, 404, 429, 451, 500} {
		answers[fmt.Sprint(status)] = echo(status)
	}
	for name, answer := range answers {
		f, book := newFakeLP(t), &logBook{}
		c := newClient(t, Config{DomainAPI: f.URL, PlainHTTP: true, Logger: book.logger()})
		for path, body := range good {
			if answer == nil {
				f.on(path, says(200, body))
			} else {
				f.on(path, answer)
			}
		}
		ctx := t.Context()
		var errs []error
		keep := func(_ any, err error) { errs = append(errs, err) }
		keep(c.SignUp(ctx, testAccount))
		keep(c.SignInAnonymous(ctx, testAccount, "conn"))
		keep(c.Authenticate(ctx, testAccount, "AUTHCODExyz"))
		keep(c.Renew(ctx, testAccount, secret))
		keep(c.SignInAgent(ctx, testAccount, "bob", "PASSWORDxyz"))
		keep(c.SignInBot(ctx, testAccount, share.BotKeys{Username: "b", AppKey: "APPKEYxyz", Secret: "BOTSECRETxyz", AccessToken: "BEARERxyz", AccessTokenSecret: "EXTxyz"}))
		keep(c.FileSharing(ctx, agent))
		keep(nil, c.SetFileSharing(ctx, agent, true))
		keep(nil, c.SignOutAgent(ctx, agent))
		keep(c.Renew(ctx, testAccount, secret+"!"))
		text := book.text()
		if !strings.Contains(text, "asked LivePerson") {
			t.Fatalf("%s: nothing was logged", name)
		}
		for i, err := range errs {
			signedOut := i == 8 && (name == "200" || name == "401") // of a logout the status alone counts
			if (name == "good" && i < 9) != (err == nil) && name != "404" && !signedOut {
				t.Errorf("%s: call %d: %v", name, i, err)
			}
			for e := err; e != nil; e = errors.Unwrap(e) {
				text += fmt.Sprintf("%v %+v %#v\n", e, e, e)
			}
		}
		for _, s := range secrets {
			if strings.Contains(text, s) {
				t.Errorf("%s: %q shows in:\n%s", name, s, text)
			}
		}
	}
}
