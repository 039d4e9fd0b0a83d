package lprest

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/lpfileshare/lpfileshare/internal/netrules"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/test/lpfake"
)

// The parts of every accepted renewal secret are safe in a path and a body.
func FuzzRenewal(f *testing.F) {
	f.Add(renewal{Account: lpfake.Account, Connector: "1-2_a", External: "token"}.secret())
	f.Add(renewal{Account: lpfake.Account, Connector: "../x", External: "token"}.secret())
	f.Add(renewal{}.secret())
	f.Add("e30")
	f.Fuzz(func(t *testing.T, secret string) {
		r, ok := parseRenewal(secret)
		if !ok {
			return
		}
		if strings.ContainsAny(r.Account+r.Connector, "/.?#% \n") || strings.ContainsAny(r.External, " \r\n\x00") {
			t.Errorf("%q is accepted: %+v", secret, r)
		}
		if again, ok := parseRenewal(r.secret()); !ok || again != r {
			t.Errorf("%q: encoded again it is %+v, %t", secret, again, ok)
		}
	})
}

// oneResponse is a LivePerson with one response to everything but look-ups.
type oneResponse struct {
	status     int
	retryAfter string
	body       []byte
}

func (m oneResponse) RoundTrip(r *http.Request) (*http.Response, error) {
	answer := func(status int, body string) *http.Response {
		return &http.Response{
			StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r,
		}
	}
	if service, isLookup := strings.CutSuffix(r.URL.Path, "/baseURI.json"); isLookup {
		return answer(http.StatusOK, fmt.Sprintf(`{"service":%q,"account":%q,"baseURI":"127.0.0.1:1"}`, service[strings.LastIndex(service, "/")+1:], lpfake.Account)), nil
	}
	resp := answer(m.status, string(m.body))
	if m.retryAfter != "" {
		resp.Header.Set("Retry-After", m.retryAfter)
	}
	return resp, nil
}

// FuzzAnswer has LivePerson respond to a call with anything: the result is complete or an error with a kind, waits are bounded, and
// LivePerson's own text, which could contain a secret, is not in the error.
func FuzzAnswer(f *testing.F) {
	jwt := lpfake.JWT(map[string]any{"sub": "consumer", "exp": 2e9})
	for call := range byte(6) {
		f.Add(call, 200, "", []byte(fmt.Sprintf(`{"jwt":%q}`, jwt)))
		f.Add(call, 200, "", []byte(`{"bearer":"b","csrf":"c","sessionTTl":"3600000","config":{"userId":"1","userPid":"2"}}`))
		f.Add(call, 200, "", []byte(`{"id":"messaging.file.sharing.enabled","propertyValue":{"value":"true"}}`))
		f.Add(call, 429, "5", []byte(`too many`))
		f.Add(call, 503, "99999999999", []byte(`<html>`))
	}
	agent := share.AgentGrant{Account: lpfake.Account, UserID: "1", UserPID: "2", Bearer: "b", Cookie: "c", CSRF: "d"}
	f.Fuzz(func(t *testing.T, call byte, status int, retryAfter string, body []byte) {
		if status < 100 || status > 999 || strings.ContainsAny(retryAfter, "\r\n") {
			return
		}
		c := newClient(t, Config{DomainAPI: "http://127.0.0.1:1", PlainHTTP: true})
		c.http.Transport = oneResponse{status, retryAfter, body}
		var in share.SignIn
		var err error
		signsIn := true
		switch call % 6 {
		case 0:
			in, err = c.SignUp(t.Context(), lpfake.Account)
		case 1:
			in, err = c.SignInAnonymous(t.Context(), lpfake.Account, "connector")
		case 2:
			in, err = c.Authenticate(t.Context(), lpfake.Account, "code")
		case 3:
			in, err = c.SignInAgent(t.Context(), lpfake.Account, "name", "password")
		case 4:
			signsIn = false
			_, err = c.FileSharing(t.Context(), agent)
		case 5:
			signsIn = false
			err = c.RefreshAgent(t.Context(), agent)
		}
		if err != nil {
			if share.KindOf(err) == "" {
				t.Errorf("an error without a kind: %v", err)
			}
			if e, ok := err.(*share.Error); ok && (e.RetryAfter < 0 || e.RetryAfter > netrules.MaxRetryAfter) {
				t.Errorf("a wait of %s", e.RetryAfter)
			}
			if len(body) > 12 && strings.Contains(err.Error(), string(body)) {
				t.Errorf("the error shows the response: %v", err)
			}
			return
		}
		if signsIn && (!share.ValidToken(in.Token) || in.ID == "") {
			t.Errorf("signed in as %q with a token of %d bytes", in.ID, len(in.Token))
		}
	})
}
