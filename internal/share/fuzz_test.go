package share

import (
	"net/url"
	"path"
	"strings"
	"testing"
)

// Every accepted storage path stays below the account's container, also after it was put into a URL and parsed again.
func FuzzStoragePath(f *testing.F) {
	for _, p := range []string{
		"/v1/AUTH_async-images/12345678/8a66a22f-81ee-4447-b92f-78e9c3ecc819.PNG", "/v1/AUTH_async-images/12345678/../87654321/a",
		"/v1/AUTH_async-images/12345678/%2e%2e/a", "/v1/AUTH_x/12345678//a", "/v1/AUTH_x/87654321/a", "/v1/AUTH_x/12345678/a?b", "/v1/AUTH_/12345678/.../a", "1234.JPG",
	} {
		f.Add("12345678", p)
	}
	f.Add("", "/v1/AUTH_x//a")
	f.Add(".", "/v1/AUTH_x/./a")
	f.Fuzz(func(t *testing.T, account, p string) {
		if err := CheckStoragePath(account, p); err != nil {
			if !Is(err, StoragePathInvalid) {
				t.Errorf("%q: %v", p, err)
			}
			return
		}
		if path.Clean(p) != p || strings.ContainsAny(p, " \t\r\n") {
			t.Errorf("%q is accepted, but cleaning changes it", p)
		}
		u, err := url.Parse("https://store.example" + p)
		if err != nil || u.Path != p || u.Host != "store.example" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			t.Errorf("%q is accepted, but parsed as %+v, %v", p, u, err)
		}
		container := strings.Split(p, "/")
		if len(container) < 5 || container[1] != "v1" || !strings.HasPrefix(container[2], "AUTH_") || container[3] != account {
			t.Errorf("%q is accepted for account %q", p, account)
		}
	})
}

// Every accepted agent token is complete, and the same after it was encoded and decoded again.
func FuzzAgentToken(f *testing.F) {
	f.Add(AgentGrant{Account: "1", UserID: "2", UserPID: "3", Bearer: "b", Expires: 4, Cookie: "c", CSRF: "d", Lifetime: 5}.Token())
	f.Add(AgentGrant{Account: "1"}.Token())
	f.Add("e30")
	f.Add("bnVsbA")
	f.Fuzz(func(t *testing.T, token string) {
		g, err := ParseAgentToken(token)
		if err != nil {
			if !Is(err, TokenInvalid) {
				t.Errorf("%q: %v", token, err)
			}
			return
		}
		if g.Account == "" || g.UserID == "" || g.UserPID == "" || g.Bearer == "" {
			t.Errorf("%q is accepted, but incomplete", token)
		}
		again, err := ParseAgentToken(g.Token())
		if err != nil || again != g {
			t.Errorf("%q: encoded again it differs: %v", token, err)
		}
	})
}
