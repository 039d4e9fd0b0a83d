package lprest

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/test/lpfake"
)

func TestSignInAgent(t *testing.T) {
	f, clk := lpfake.New(t), newClock()
	c := newClient(t, Config{DomainAPI: f.URL, PlainHTTP: true, Now: clk.Now})
	f.On("/login", lpfake.Says(200, `{"csrf":"c","wsuk":"1","config":{"loginName":"n","userId":"3705342610","userPid":"734d9867","isAdmin":true},
		"csdsCollectionResponse":{"baseURIs":[{"account":"12345678","baseURI":"evil.com","service":"idp"}]},"sessionTTl":"28800000","bearer":"bea4e4"}`))
	got, err := c.SignInAgent(t.Context(), lpfake.Account, "bob", "pass")
	if err != nil {
		t.Fatal(err)
	}
	same(t, f.Requests(), `POST /login?v=1.3 {"username":"bob","password":"pass"}`)
	grant, err := share.ParseAgentToken(got.Token)
	expires := clk.Now().Add(8 * time.Hour)
	want := share.AgentGrant{Account: lpfake.Account, UserID: "3705342610", UserPID: "734d9867", Bearer: "bea4e4", Expires: expires.Unix(), Lifetime: 8 * 3600}
	if err != nil || grant != want || got.ID != "734d9867" || !got.Expires.Equal(expires) || got.RenewalSecret != "" {
		t.Errorf("%+v, %v; grant %v", got, err, grant == want)
	}
	if base, err := c.BaseURL(t.Context(), lpfake.Account, "idp"); err != nil || base != f.URL {
		t.Errorf("the hosts in the login's response were used: %q, %v", base, err)
	}

	_, err = c.SignInBot(t.Context(), lpfake.Account, share.BotKeys{Username: "bot", AppKey: "k", Secret: "s", AccessToken: "t", AccessTokenSecret: "u"})
	if err != nil {
		t.Fatal(err)
	}
	same(t, f.Requests(), `POST /login?v=1.3 {"username":"bot","appKey":"k","secret":"s","accessToken":"t","accessTokenSecret":"u"}`)

	for name, x := range map[string]struct {
		answer http.HandlerFunc
		kind   share.Kind
	}{
		"numbers for strings":   {lpfake.Says(200, `{"bearer":"b","sessionTTl":1000,"config":{"userId":1,"userPid":"2"}}`), ""},
		"no time to live":       {lpfake.Says(200, `{"bearer":"b","config":{"userId":"1","userPid":"2"}}`), ""},
		"a wild time to live":   {lpfake.Says(200, `{"bearer":"b","sessionTTl":"-5","config":{"userId":"1","userPid":"2"}}`), ""},
		"no bearer":             {lpfake.Says(200, `{"config":{"userId":"1","userPid":"2"}}`), share.LPProtocolError},
		"a bearer with a blank": {lpfake.Says(200, `{"bearer":"a b","config":{"userId":"1","userPid":"2"}}`), share.LPProtocolError},
		"no ids":                {lpfake.Says(200, `{"bearer":"b"}`), share.LPProtocolError},
		"too long for a token":  {lpfake.Says(200, `{"bearer":"`+strings.Repeat("b", share.MaxToken*3/5)+`","config":{"userId":"1","userPid":"2"}}`), share.LPProtocolError},
		"an error with 200":     {lpfake.Says(200, `{"error":{"internalCode":7}}`), share.LPCredentialsRejected},
	} {
		f.On("/login", x.answer)
		if _, err := c.SignInAgent(t.Context(), lpfake.Account, "bob", "pass"); share.KindOf(err) != x.kind || (x.kind == "") != (err == nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
