package lprest

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/test/lpfake"
)

// same compares requests with the lines "METHOD target body".
func same(t *testing.T, got []lpfake.Request, want ...string) {
	t.Helper()
	var lines []string
	for _, r := range got {
		lines = append(lines, r.Method+" "+strings.TrimPrefix(r.Target, "/api/account/"+lpfake.Account)+" "+r.Body)
	}
	if fmt.Sprintf("%q", lines) != fmt.Sprintf("%q", want) {
		t.Errorf("asked\n  %q\nwant\n  %q", lines, want)
	}
}

func TestSignUp_Authenticate(t *testing.T) {
	f := lpfake.New(t)
	c := clientOf(t, f)
	exp := time.Unix(1_900_000_000, 0)
	token := lpfake.JWT(map[string]any{"sub": "consumer-1", "aud": "acc:12345678", "exp": exp.Unix(), "iat": 1})
	f.On("/signup", lpfake.Says(200, `{"jwt":"`+token+`"}`))
	f.On("/authenticate", lpfake.Says(201, `{"token":"`+token+`","more":[1]}`)) // the other name
	want := share.SignIn{Token: token, Expires: exp, ID: "consumer-1"}

	got, err := c.SignUp(t.Context(), lpfake.Account)
	if err != nil || got != want {
		t.Errorf("SignUp: %#v, %v", got, err)
	}
	same(t, f.Requests(), "POST /signup ")

	got, err = c.Authenticate(t.Context(), lpfake.Account, `c"ode`)
	if err != nil || got != want {
		t.Errorf("Authenticate: %#v, %v", got, err)
	}
	asked := f.Requests()
	same(t, asked, `POST /authenticate {"authCode":"c\"ode"}`)
	if got := asked[0].Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q", got)
	}
}

func TestSignInAnonymous_Renew(t *testing.T) {
	f := lpfake.New(t)
	c := clientOf(t, f)
	f.On("/anonymous/authorize", lpfake.Says(200, `{"token":"EXT1"}`))
	f.On("/app/conn-1/authenticate", lpfake.Says(200, `{"token":"`+lpfake.JWT(map[string]any{"sub": "anon"})+`"}`))
	first, err := c.SignInAnonymous(t.Context(), lpfake.Account, "conn-1")
	if err != nil || first.ID != "anon" || !first.Expires.IsZero() || first.RenewalSecret == "" {
		t.Fatalf("%#v, %v", first, err)
	}
	same(t, f.Requests(), "POST /anonymous/authorize ", `POST /app/conn-1/authenticate?v=3.0 {"id_token":"EXT1"}`)

	f.On("/anonymous/authorize", lpfake.Says(200, `{"token":"EXT2"}`))
	second, err := c.Renew(t.Context(), lpfake.Account, first.RenewalSecret)
	if err != nil || second.ID != "anon" {
		t.Fatalf("%#v, %v", second, err)
	}
	same(t, f.Requests(), `POST /anonymous/authorize {"id_token":"EXT1"}`, `POST /app/conn-1/authenticate?v=3.0 {"id_token":"EXT2"}`)
	if second.RenewalSecret == first.RenewalSecret {
		t.Error("the renewal secret holds the old external token")
	}

	for name, secret := range map[string]string{
		"nothing":        "",
		"no base64":      "$$$",
		"no JSON":        base64.RawURLEncoding.EncodeToString([]byte("x")),
		"too long":       strings.Repeat("A", 1<<20),
		"an agent token": share.AgentGrant{Account: lpfake.Account, UserID: "1", UserPID: "2", Bearer: "b"}.Token(),
		"a path":         renewal{lpfake.Account, "../../x", "EXT"}.secret(),
		"no token":       renewal{lpfake.Account, "conn-1", ""}.secret(),
		"a broken token": renewal{lpfake.Account, "conn-1", "a\nb"}.secret(),
	} {
		_, err := c.Renew(t.Context(), lpfake.Account, secret)
		if e, _ := errors.AsType[*share.Error](err); e == nil || e.Kind != share.TokenInvalid || !strings.Contains(e.Message, "sign in again") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.Renew(t.Context(), lpfake.Account, renewal{"999", "conn-1", "EXT"}.secret()); !share.Is(err, share.NotAllowed) {
		t.Errorf("another account's: %v", err)
	}
	for _, connector := range []string{"", "..", "a/b", "a?b", "a b", strings.Repeat("a", 65)} {
		if _, err := c.SignInAnonymous(t.Context(), lpfake.Account, connector); !share.Is(err, share.InvalidField) {
			t.Errorf("%q: %v", connector, err)
		}
	}
	if asked := f.Requests(); len(asked) > 0 {
		t.Errorf("asked %v", asked)
	}
	f.On("/anonymous/authorize", lpfake.Says(401, `{}`))
	if _, err := c.Renew(t.Context(), lpfake.Account, first.RenewalSecret); !share.Is(err, share.TokenInvalid) {
		t.Errorf("refused by LivePerson: %v", err)
	}
}

func TestSignUp_UnreadableToken(t *testing.T) {
	enc := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	jwt := func(claims string) string { return enc(`{"alg":"RS256"}`) + "." + enc(claims) + ".c" }
	for name, body := range map[string]string{
		"nothing":               ``,
		"no token":              `{}`,
		"an array":              `[]`,
		"no JWT":                `{"jwt":"abc"}`,
		"no JSON inside":        `{"jwt":"a.b.c"}`,
		"no subject":            `{"jwt":"` + jwt(`{"exp":1}`) + `"}`,
		"a blank":               `{"jwt":"a ` + jwt(`{"sub":"s"}`) + `"}`,
		"a line feed":           `{"jwt":"\n` + jwt(`{"sub":"s"}`) + `"}`,
		"a negative expiry":     `{"jwt":"` + jwt(`{"sub":"s","exp":-1}`) + `"}`,
		"an absurd expiry":      `{"jwt":"` + jwt(`{"sub":"s","exp":1e300}`) + `"}`,
		"too long":              `{"jwt":"` + jwt(`{"sub":"`+strings.Repeat("s", share.MaxToken)+`"}`) + `"}`,
		"after 1 MiB of blanks": strings.Repeat(" ", maxBody) + `{"jwt":"` + jwt(`{"sub":"s"}`) + `"}`,
	} {
		f := lpfake.New(t)
		f.On("/signup", lpfake.Says(200, body))
		if got, err := clientOf(t, f).SignUp(t.Context(), lpfake.Account); !share.Is(err, share.LPProtocolError) {
			t.Errorf("%s: %#v, %v", name, got, err)
		}
	}
}
