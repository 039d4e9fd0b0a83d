package sandbox

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

func TestLogin(t *testing.T) {
	s := start(t, Options{})
	base := s.URL() + "/api/account/" + acct
	for _, v := range []string{"", "?v=1.1", "?v=1.2", "?v=1.3"} {
		resp, d := ask(t, "POST", base+"/login"+v, `{"username":"admin","password":"sandbox"}`)
		if resp.StatusCode != 200 || len(d.text("bearer")) != 64 || d.text("csrf") == "" || len(resp.Cookies()) != 1 || resp.Cookies()[0].Name != "Session_id" {
			t.Errorf("login%s: %s %s", v, resp.Status, d)
		}
		d.want(t, "config.loginName", "admin")
		d.want(t, "config.isAdmin", true)
		d.want(t, "sessionTTl", "28800000")
		d.want(t, "csdsCollectionResponse.baseURIs.0.account", acct)
	}
	one, again, other := logIn(t, s, "ann"), logIn(t, s, "ann"), logIn(t, s, "bob")
	one.want(t, "config.isAdmin", false)
	for _, id := range []string{"config.userId", "config.userPid"} {
		if one.text(id) == "" || one.text(id) != again.text(id) || one.text(id) == other.text(id) {
			t.Errorf("%s: %q, %q, %q", id, one.text(id), again.text(id), other.text(id))
		}
	}
	if one.text("bearer") == again.text("bearer") {
		t.Error("the same bearer twice")
	}

	const keys = `"appKey":"k","accessToken":"dummy","accessTokenSecret":"dummy"`
	for _, c := range []struct {
		name, path, body string
		want             int
	}{
		{"bot", base + "/login?v=1.3", `{"username":"bot","secret":"sandbox",` + keys + `}`, 200},
		{"bot's wrong secret", base + "/login?v=1.3", `{"username":"bot","secret":"no",` + keys + `}`, 401},
		{"bot without tokens", base + "/login?v=1.3", `{"username":"bot","secret":"sandbox","appKey":"k"}`, 400},
		{"wrong password", base + "/login?v=1.3", `{"username":"admin","password":"no"}`, 401},
		{"assertion", base + "/login?v=1.3", `{"jwt":"dummy","assertion":"SAML"}`, 401},
		{"no password", base + "/login?v=1.3", `{"username":"admin"}`, 400},
		{"no JSON", base + "/login?v=1.3", `{`, 400},
		{"version 2", base + "/login?v=2.0", `{"username":"admin","password":"sandbox"}`, 400},
		{"no such site", s.URL() + "/api/account/1/login?v=1.3", `{"username":"admin","password":"sandbox"}`, 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			if resp, d := ask(t, "POST", c.path, c.body); resp.StatusCode != c.want {
				t.Errorf("%s %s", resp.Status, d)
			}
		})
	}

	s.Inject(Fault{On: "http:login", Count: 1, Status: 429, RetryAfter: 5})
	resp, _ := ask(t, "POST", base+"/login?v=1.3", `{"username":"admin","password":"sandbox"}`)
	if resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "5" {
		t.Errorf("throttled: %s", resp.Status)
	}
}

func TestSessions(t *testing.T) {
	c := newClock()
	s := start(t, Options{Now: c.Now, BearerLifetime: time.Hour})
	base := s.URL() + "/api/account/" + acct
	login := func() (cookie string, d dict) {
		resp, d := ask(t, "POST", base+"/login?v=1.3", `{"username":"ann","password":"sandbox"}`)
		return "Session_id=" + resp.Cookies()[0].Value, d
	}
	post := func(path, cookie, csrf string) int {
		resp, _ := ask(t, "POST", base+path, fmt.Sprintf(`{"csrf":%q}`, csrf), "Cookie", cookie)
		return resp.StatusCode
	}
	works := func(d dict) int {
		resp, _ := ask(t, "GET", base+"/configuration/setting/properties?v=3.0", "", "Authorization", "Bearer "+d.text("bearer"))
		return resp.StatusCode
	}
	want := func(what string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}

	cookie, d := login()
	want("fresh", works(d), 200)
	want("refresh without cookie", post("/refresh?v=1.3", "", d.text("csrf")), 401)
	want("refresh with another csrf", post("/refresh?v=1.3", cookie, "no"), 401)
	want("refresh without csrf", post("/refresh?v=1.3", cookie, ""), 400)
	c.advance(50 * time.Minute)
	want("refresh", post("/refresh?v=1.3", cookie, d.text("csrf")), 200)
	c.advance(50 * time.Minute)
	want("refreshed", works(d), 200)
	w := agent(t, s, d)
	w.ok("GetClock", "")
	c.advance(11 * time.Minute)
	want("expired", works(d), 401)
	want("its socket", w.closed(), 4401)
	want("refresh after the end", post("/refresh?v=1.3", cookie, d.text("csrf")), 401)

	cookie, d = login()
	w = agent(t, s, d)
	w.ok("GetClock", "")
	want("logout without cookie", post("/logout?v=1.3", "", d.text("csrf")), 401)
	want("logout with another csrf", post("/logout?v=1.3", cookie, "no"), 401)
	want("logout without csrf", post("/logout?v=1.3", cookie, ""), 400)
	want("logout", post("/logout?v=1.3", cookie, d.text("csrf")), 200)
	want("logout again", post("/logout?v=1.3", cookie, d.text("csrf")), 401)
	want("logged out", works(d), 401)
	want("its socket", w.closed(), 4401)
}

func TestLogin_OnlyOne(t *testing.T) {
	s := start(t, Options{OneLogin: true})
	works := func(d dict) int {
		resp, _ := ask(t, "GET", s.URL()+"/api/account/"+acct+"/configuration/setting/properties?v=3.0", "", "Authorization", "Bearer "+d.text("bearer"))
		return resp.StatusCode
	}
	first, other := logIn(t, s, "ann"), logIn(t, s, "bob")
	w := agent(t, s, first)
	second := logIn(t, s, "ann")
	if code := w.closed(); code != 4401 {
		t.Errorf("the socket of the first login was closed with %d, want 4401", code)
	}
	for _, c := range []struct {
		name string
		d    dict
		want int
	}{{"first", first, 401}, {"second", second, 200}, {"another agent's", other, 200}} {
		if got := works(c.d); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	agent(t, s, second).ok("GetClock", "")
}

func TestProperty(t *testing.T) {
	s := start(t, Options{})
	admin, ann := logIn(t, s, "admin").text("bearer"), logIn(t, s, "ann").text("bearer")
	base := s.URL() + "/api/account/" + acct + "/configuration/setting/properties"
	one := base + "/messaging.file.sharing.enabled?v=3.0"
	put := func(url, bearer, match, body string) (*http.Response, dict) {
		t.Helper()
		header := []string{"Authorization", "Bearer " + bearer, "Content-Type", "application/json"}
		if match != "" {
			header = append(header, "If-Match", match)
		}
		return ask(t, "PUT", url, body, header...)
	}
	value := func(v string) string {
		return `{"id":"messaging.file.sharing.enabled","type":4,"propertyValue":{"value":` + v + `},"deleted":"false"}`
	}
	w := consumer(t, s, signUp(t, s))
	const wish = `{"fileSize":10,"fileType":"PNG"}`

	resp, d := ask(t, "GET", one, "", "Authorization", "Bearer "+ann)
	d.want(t, "propertyValue.value", true)
	revision := resp.Header.Get("ETag")
	w.ok("ms.GenerateURLForUploadFile", wish)

	resp, d = put(one, admin, "-1", value(`"false"`))
	if resp.StatusCode != 200 {
		t.Fatalf("PUT: %s %s", resp.Status, d)
	}
	d.want(t, "propertyValue.value", false)
	w.refused(40301, "ms.GenerateURLForUploadFile", wish)
	if resp, _ := put(one, admin, revision, value("true")); resp.StatusCode != 412 {
		t.Errorf("stale revision: %s", resp.Status)
	}
	if again, _ := put(one, admin, resp.Header.Get("ETag"), value("true")); again.StatusCode != 200 {
		t.Errorf("this revision: %s", again.Status)
	}
	w.ok("ms.GenerateURLForUploadFile", wish)

	_, list := fetch(t, "GET", base+"?v=3.0", "", "Authorization", "Bearer "+ann)
	if list[0] != '[' {
		t.Errorf("all: %s", list)
	}
	for _, c := range []struct {
		name, url, bearer, match, body string
		want                           int
	}{
		{"no bearer", one, "no", "-1", value("true"), 401},
		{"no administrator", one, ann, "-1", value("true"), 403},
		{"no If-Match", one, admin, "", value("true"), 428},
		{"no boolean", one, admin, "-1", value(`"perhaps"`), 400},
		{"no value", one, admin, "-1", `{"id":"messaging.file.sharing.enabled"}`, 400},
		{"two names", base + "/other?v=3.0", admin, "-1", value("true"), 400},
		{"wrong version", base + "/messaging.file.sharing.enabled?v=1.0", admin, "-1", value("true"), 400},
		{"another property", base + "/other?v=3.0", admin, "-1", `{"propertyValue":{"value":[1]}}`, 200},
		{"named in the body only", base + "/?v=3.0", admin, "-1", value("true"), 200},
		{"deleted", one, admin, "-1", `{"deleted":"true"}`, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			if resp, d := put(c.url, c.bearer, c.match, c.body); resp.StatusCode != c.want {
				t.Errorf("%s %s", resp.Status, d)
			}
		})
	}
	if resp, _ := ask(t, "GET", one, "", "Authorization", "Bearer "+ann); resp.StatusCode != 404 {
		t.Errorf("deleted: %s", resp.Status)
	}
	w.refused(40301, "ms.GenerateURLForUploadFile", wish)
}
