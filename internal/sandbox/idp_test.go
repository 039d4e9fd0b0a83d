package sandbox

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// claimsOf returns a token's claims without verifying it.
func claimsOf(t *testing.T, token string) dict {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("no JWT: %q", token)
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var d dict
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// customerToken returns a token of the brand's own.
func customerToken(t *testing.T, sub, aud string, expires time.Time) string {
	t.Helper()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": sub, "aud": aud, "iss": "https://bank.example", "exp": expires.Unix(), "lp_sdes": []any{},
	}).SignedString([]byte("the customer's"))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestConsumerTokens(t *testing.T) {
	c := newClock()
	s := start(t, Options{Now: c.Now, TokenLifetime: time.Hour, Accounts: []string{acct, "87654321"}})
	idp := s.URL() + "/api/account/" + acct
	post := func(want int, path, body string) dict {
		t.Helper()
		resp, d := ask(t, "POST", idp+path, body)
		if resp.StatusCode != want {
			t.Errorf("%s %s: %s %s, want %d", path, body, resp.Status, d, want)
		}
		return d
	}

	claims := claimsOf(t, signUp(t, s))
	claims.want(t, "aud", "acc:"+acct)
	claims.want(t, "iss", "https://idp.liveperson.net")
	if life := claims.at("exp").(float64) - claims.at("iat").(float64); life < 3600 || life > 3601 {
		t.Errorf("a life of %v s", life)
	}

	// Anonymous: two steps; the external token can be renewed after it has expired.
	external := post(200, "/anonymous/authorize", "").text("token")
	body := func(token string) string { return fmt.Sprintf(`{"id_token":%q}`, token) }
	first := claimsOf(t, post(200, "/app/abc/authenticate?v=3.0", body(external)).text("token")).text("sub")
	post(400, "/app/abc/authenticate?v=2.0", body(external))
	post(400, "/app/abc/authenticate?v=3.0", "")
	post(401, "/app/abc/authenticate?v=3.0", body("unknown"))
	post(401, "/anonymous/authorize", body("unknown"))
	c.advance(11 * time.Minute)
	post(401, "/app/abc/authenticate?v=3.0", body(external))
	renewed := post(200, "/anonymous/authorize", body(external)).text("token")
	if got := claimsOf(t, post(200, "/app/abc/authenticate?v=3.0", body(renewed)).text("token")).text("sub"); got != first {
		t.Errorf("renewed as %s, was %s", got, first)
	}
	c.advance(731 * time.Hour)
	post(401, "/anonymous/authorize", body(external))

	// Authenticated: LivePerson's token for the brand's.
	code := func(token string) string { return fmt.Sprintf(`{"authCode":%q}`, token) }
	until := c.Now().Add(20 * time.Minute)
	one := claimsOf(t, post(200, "/authenticate", code(customerToken(t, "joe", "acc:"+acct, until))).text("jwt"))
	if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(one.text("sub")) {
		t.Errorf("sub %q", one.text("sub"))
	}
	one.want(t, "exp", float64(until.Unix()))
	if ext := one["lp.ext"].(map[string]any); ext["sub"] != "joe" || ext["iss"] != "https://bank.example" {
		t.Errorf("lp.ext %v", ext)
	}
	again := claimsOf(t, post(200, "/app/abc/authenticate?v=3.0", body(customerToken(t, "joe", "acc:"+acct, until))).text("token"))
	again.want(t, "sub", one.text("sub"))
	byCode := claimsOf(t, post(200, "/authenticate", code("an OAuth code")).text("jwt"))
	if byCode.text("sub") == one.text("sub") || len(byCode.text("sub")) != 64 {
		t.Errorf("by code: %s", byCode)
	}
	post(401, "/authenticate", code(customerToken(t, "joe", "acc:87654321", until)))
	post(401, "/authenticate", code(customerToken(t, "joe", "acc:"+acct, c.Now().Add(-time.Second))))
	post(401, "/authenticate", code("not.a.token"))
	post(400, "/authenticate", "{}")
	if resp, _ := ask(t, "POST", s.URL()+"/api/account/1/signup", ""); resp.StatusCode != 404 {
		t.Errorf("no such account: %s", resp.Status)
	}
}
