package lpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// hang makes the look-up of a service wait until release is closed or the client goes away; entered hears of each.
func hang(f *fakeLP, service string) (entered chan struct{}, release chan struct{}) {
	entered, release = make(chan struct{}, 100), make(chan struct{})
	f.on("/service/"+service+"/baseURI.json", func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		select {
		case <-release:
			fmt.Fprintf(w, `{"service":%q,"account":%q,"baseURI":%q}`, service, testAccount, f.host())
		case <-r.Context().Done():
		}
	})
	return entered, release
}

// TestHostRule is what LivePerson may name and what it may not.
func TestHostRule(t *testing.T) {
	rule, err := newHostRule(append([]string{"exact.example.com", "127.0.0.9", "::1"}, defaultSuffixes...), false)
	if err != nil {
		t.Fatal(err)
	}
	for named, want := range map[string]string{
		"va.msg.liveperson.net":      "https://va.msg.liveperson.net",
		"VA.Msg.LivePerson.NET":      "https://va.msg.liveperson.net",
		"va.msg.liveperson.net:8443": "https://va.msg.liveperson.net:8443",
		"z1-a.lpsnmedia.net":         "https://z1-a.lpsnmedia.net",
		"exact.example.com":          "https://exact.example.com",
		"127.0.0.9:1234":             "https://127.0.0.9:1234",
		"[::1]:1234":                 "https://[::1]:1234",

		"":                                           "",
		"evil.com":                                   "",
		"liveperson.net":                             "",
		"evilliveperson.net":                         "",
		".liveperson.net":                            "",
		"va..liveperson.net":                         "",
		"liveperson.net.evil.com":                    "",
		"va.liveperson.net.evil.com":                 "",
		"va.liveperson.net.":                         "",
		"sub.exact.example.com":                      "",
		"evil.com/.liveperson.net":                   "",
		"evil.com#.liveperson.net":                   "",
		"evil.com?.liveperson.net":                   "",
		`evil.com\.liveperson.net`:                   "",
		"evil.com%2f.liveperson.net":                 "",
		"evil.com:443@va.liveperson.net":             "",
		"user@va.liveperson.net":                     "",
		"user:pw@va.liveperson.net":                  "",
		"https://va.liveperson.net":                  "",
		"//va.liveperson.net":                        "",
		"va.liveperson.net/path":                     "",
		"va.liveperson.net/":                         "",
		"va.liveperson.net?x=.liveperson.net":        "",
		"va.liveperson.net:":                         "",
		"va.liveperson.net:0":                        "",
		"va.liveperson.net:+1":                       "",
		"va.liveperson.net:99999":                    "",
		"va.liveperson.net:80:80":                    "",
		"va.liveperson.net:80@evil.com":              "",
		" va.liveperson.net":                         "",
		"va.liveperson.net\r\nHost: evil.com":        "",
		"va.liveperson.net\x00":                      "",
		"va.liv\u212Aeperson.net":                    "", // the Kelvin sign, which is k in lower case
		"vа.liveperson.net":                          "", // a Cyrillic а
		"-va.liveperson.net":                         "",
		"127.0.0.1":                                  "",
		"127.0.0.1:443":                              "",
		"localhost":                                  "",
		"169.254.169.254":                            "",
		"10.0.0.1":                                   "",
		"0.0.0.0":                                    "",
		"2130706433":                                 "",
		"0x7f.1":                                     "",
		"[::ffff:127.0.0.1]":                         "",
		"::1":                                        "",
		"[::1%25eth0.liveperson.net]":                "",
		"[fe80::1%eth0]":                             "",
		"[va.liveperson.net]:443":                    "",
		strings.Repeat("a.", 130) + "liveperson.net": "",
		strings.Repeat("a", 64) + ".liveperson.net":  "",
	} {
		base, err := rule.base(named)
		if base != want || (want == "") != (err != nil) {
			t.Errorf("%.60q: %q, %v; want %q", named, base, err, want)
		}
	}

	plain, err := newHostRule(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	for named, want := range map[string]string{
		"127.0.0.1:80": "http://127.0.0.1:80", "localhost": "http://localhost", "[::1]:80": "http://[::1]:80",
		"va.liveperson.net": "", "10.0.0.1": "", "127.0.0.1.evil.com": "", "localhost.evil.com": "",
	} {
		if base, _ := plain.base(named); base != want {
			t.Errorf("plain HTTP: %q: %q, want %q", named, base, want)
		}
	}
}

// TestHostileDomainAnswers is TestHostRule's point, seen from outside: nothing is asked of a host that may not be used.
func TestHostileDomainAnswers(t *testing.T) {
	evil := newFakeLP(t)
	for name, answer := range map[string]http.HandlerFunc{
		"another host":    says(200, `{"service":"idp","account":"12345678","baseURI":"evil.com"}`),
		"with a path":     says(200, `{"service":"idp","account":"12345678","baseURI":"127.0.0.1/x?"}`),
		"another account": says(200, `{"service":"idp","account":"87654321","baseURI":"127.0.0.1"}`),
		"another service": says(200, `{"service":"swift","account":"12345678","baseURI":"127.0.0.1"}`),
		"nothing":         says(200, ``),
		"an empty object": says(200, `{}`),
		"null":            says(200, `null`),
		"HTML":            says(200, `<html>please log in`),
		"numbers":         says(200, `{"service":"idp","account":"12345678","baseURI":7}`),
		"cut off":         says(200, `{"baseURIs":[{"`),
		"endless":         says(200, `{"service":"idp","baseURI":"`+strings.Repeat("a", 2<<20)+`"}`),
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, evil.URL+"/stolen", http.StatusFound)
		},
		"a lasting redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, evil.URL+"/stolen", http.StatusPermanentRedirect)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeLP(t)
			f.on("/service/idp/baseURI.json", answer)
			_, err := clientOf(t, f).SignUp(t.Context(), testAccount)
			if !share.Is(err, share.LPProtocolError) {
				t.Fatalf("err = %v", err)
			}
			e, _ := errors.AsType[*share.Error](err)
			for _, bad := range []string{"evil", "stolen", "html", "87654321"} {
				if strings.Contains(e.Message, bad) {
					t.Errorf("the message shows the peer's words: %q", e.Message)
				}
			}
			if asked := f.asked(); len(asked) > 0 {
				t.Errorf("went on to ask %v", asked)
			}
		})
	}
	if asked := evil.asked(); len(asked) > 0 {
		t.Errorf("redirects were followed: %v", asked)
	}
}

func TestFormsOfDomainAnswers(t *testing.T) {
	for name, answer := range map[string]string{
		"one":             `{"service":"idp","account":"12345678","baseURI":"HOST"}`,
		"one, bare":       `{"baseURI":"HOST"}`,
		"a list":          `{"baseURIs":[{"service":"swift","account":"12345678","baseURI":"evil.com"},{"baseURI":"HOST","service":"idp","account":"12345678"}]}`,
		"an array":        `[{"service":"swift","account":"12345678","baseURI":"evil.com"},{"service":"idp","account":"12345678","baseURI":"HOST"}]`,
		"a list and more": `{"revision":7,"baseURIs":[{"service":"idp","baseURI":"HOST","x":[]}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeLP(t)
			f.on("/service/idp/baseURI.json", says(200, strings.ReplaceAll(answer, "HOST", f.host())))
			base, err := clientOf(t, f).BaseURL(t.Context(), testAccount, "idp")
			if err != nil || base != f.URL {
				t.Errorf("%q, %v", base, err)
			}
		})
	}
	for name, answer := range map[string]http.HandlerFunc{
		"an unknown account": says(401, `{}`), "an unknown service": says(404, `{}`), "a bad request": says(400, `{}`),
		"a list without it": says(200, `{"baseURIs":[{"service":"swift","account":"12345678","baseURI":"127.0.0.1"}]}`),
		"an empty array":    says(200, `[]`),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeLP(t)
			f.on("/service/idp/baseURI.json", answer)
			c := clientOf(t, f)
			for range 3 {
				if _, err := c.BaseURL(t.Context(), testAccount, "idp"); !share.Is(err, share.LPCredentialsRejected) || !errors.Is(err, errNoService) {
					t.Errorf("err = %v", err)
				}
			}
			if n := f.lookups("idp"); n != 1 {
				t.Errorf("asked %d times, want once", n)
			}
		})
	}
}

func TestAccountsAreChecked(t *testing.T) {
	f := newFakeLP(t)
	c := clientOf(t, f)
	for _, account := range []string{"", "..", "1/2", "1?x", "1#", "1%2f", "1 2", "1.2", "é", "1\n", strings.Repeat("1", 33)} {
		if _, err := c.BaseURL(t.Context(), account, "idp"); !share.Is(err, share.InvalidField) {
			t.Errorf("%q: %v", account, err)
		}
		if _, err := c.SignInAgent(t.Context(), account, "u", "p"); !share.Is(err, share.InvalidField) {
			t.Errorf("%q: %v", account, err)
		}
	}
	if len(f.requests) > 0 {
		t.Errorf("asked %v", f.requests)
	}
	if _, err := c.BaseURL(t.Context(), testAccount, "../idp"); err == nil {
		t.Error("a path was taken for a service")
	}
}

func TestHostsAreRemembered(t *testing.T) {
	f, clk := newFakeLP(t), newClock()
	c := newClient(t, Config{DomainAPI: f.URL, PlainHTTP: true, CacheTTL: time.Minute, Now: clk.Now})
	ask := func(wantLookups int) {
		t.Helper()
		base, err := c.BaseURL(t.Context(), testAccount, "idp")
		if err != nil || base != f.URL {
			t.Fatalf("%q, %v", base, err)
		}
		if n := f.lookups("idp"); n != wantLookups {
			t.Fatalf("%d look-ups, want %d", n, wantLookups)
		}
	}
	ask(1)
	clk.pass(59 * time.Second)
	ask(1)
	clk.pass(2 * time.Second)
	ask(2)
	c.Forget(testAccount, "idp") // too soon: it was looked up this instant
	ask(2)
	clk.pass(6 * time.Second)
	c.Forget(testAccount, "swift")
	ask(2)
	c.Forget(testAccount, "idp")
	ask(3)

	// The Domain API goes down: the host from before serves, and the Domain API is left in peace for a while.
	f.on("/service/idp/baseURI.json", says(503, ""))
	clk.pass(2 * time.Minute)
	ask(4)
	ask(4)
	clk.pass(11 * time.Second)
	ask(5)
	// It gives a clear answer: no such service.
	clk.pass(11 * time.Second)
	f.on("/service/idp/baseURI.json", says(404, "{}"))
	if _, err := c.BaseURL(t.Context(), testAccount, "idp"); !share.Is(err, share.LPCredentialsRejected) {
		t.Errorf("err = %v", err)
	}
	// And it comes back.
	f.on("/service/idp/baseURI.json", nil)
	clk.pass(31 * time.Second)
	ask(7)
}

func TestCallersShareALookup(t *testing.T) {
	f := newFakeLP(t)
	entered, release := hang(f, "idp")
	c := clientOf(t, f)
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if base, err := c.BaseURL(t.Context(), testAccount, "idp"); err != nil || base != f.URL {
				t.Errorf("%q, %v", base, err)
			}
		})
	}
	<-entered
	// One who gives up does not take the others' answer away.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.BaseURL(ctx, testAccount, "idp"); !errors.Is(err, context.DeadlineExceeded) || share.KindOf(err) != "" {
		t.Errorf("the impatient one: %v", err)
	}
	close(release)
	all.Wait()
	if n := f.lookups("idp"); n != 1 {
		t.Errorf("%d look-ups, want 1", n)
	}
}

func TestSocketAndStore(t *testing.T) {
	f := newFakeLP(t)
	c := clientOf(t, f)
	ws := "ws" + strings.TrimPrefix(f.URL, "http")
	socket := func(c *Client, scheme share.Scheme, want string) {
		t.Helper()
		if got, err := c.SocketURL(t.Context(), testAccount, scheme); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", scheme, got, err, want)
		}
	}
	socket(c, share.ConsumerToken, ws)
	socket(c, share.AgentToken, ws)
	if f.lookups("facadeMsg") != 1 || f.lookups("asyncMessagingEnt") != 1 {
		t.Error("an agent's socket is not facadeMsg")
	}
	if _, err := c.SocketURL(t.Context(), testAccount, share.ExternalConsumerID); !share.Is(err, share.MethodNotImplemented) {
		t.Errorf("err = %v", err)
	}
	if got, err := c.SwiftURL(t.Context(), testAccount); err != nil || got != f.URL {
		t.Errorf("%q, %v", got, err)
	}

	f.on("/service/facadeMsg/baseURI.json", says(404, "{}"))
	c = newClient(t, Config{DomainAPI: f.URL, PlainHTTP: true, Overrides: map[string]string{"asyncMessagingEnt": "https://ums.example"}})
	socket(c, share.AgentToken, "wss://ums.example")
	socket(c, share.ConsumerToken, "wss://ums.example")

	// But trouble is no reason to go elsewhere.
	f.on("/service/facadeMsg/baseURI.json", says(500, ""))
	c = clientOf(t, f)
	if _, err := c.SocketURL(t.Context(), testAccount, share.AgentToken); !share.Is(err, share.LPUnavailable) {
		t.Errorf("err = %v", err)
	}
}

func TestForgetSocket(t *testing.T) {
	f, clk := newFakeLP(t), newClock()
	c := newClient(t, Config{DomainAPI: f.URL, PlainHTTP: true, Now: clk.Now})
	for range 2 {
		for _, scheme := range []share.Scheme{share.AgentToken, share.ConsumerToken} {
			if _, err := c.SocketURL(t.Context(), testAccount, scheme); err != nil {
				t.Fatal(err)
			}
		}
		clk.pass(10 * time.Second)
		c.ForgetSocket(testAccount, share.AgentToken)
	}
	if f.lookups("facadeMsg") != 2 || f.lookups("asyncMessagingEnt") != 2 {
		t.Errorf("%d and %d look-ups, want 2 each", f.lookups("facadeMsg"), f.lookups("asyncMessagingEnt"))
	}
}

// TestAHostThatMovedIsFound moves the IDP away: the failing call makes the next one ask where it is.
func TestAHostThatMovedIsFound(t *testing.T) {
	f, clk := newFakeLP(t), newClock()
	gone := newFakeLP(t)
	f.on("/signup", says(200, `{"jwt":"`+testJWT(map[string]any{"sub": "s"})+`"}`))
	f.on("/service/idp/baseURI.json", says(200, `{"baseURI":"`+gone.host()+`"}`))
	c := newClient(t, Config{DomainAPI: f.URL, PlainHTTP: true, Now: clk.Now})
	gone.Close()
	if _, err := c.SignUp(t.Context(), testAccount); !share.Is(err, share.LPUnavailable) {
		t.Fatalf("err = %v", err)
	}
	f.on("/service/idp/baseURI.json", nil)
	clk.pass(6 * time.Second)
	if _, err := c.SignUp(t.Context(), testAccount); !share.Is(err, share.LPUnavailable) {
		t.Fatalf("err = %v", err)
	}
	if _, err := c.SignUp(t.Context(), testAccount); err != nil {
		t.Errorf("after it was asked for again: %v", err)
	}
}

func TestWhatWasLookedUpUnderOtherSettingsIsNotUsed(t *testing.T) {
	f := newFakeLP(t)
	reach := Reach{Suffixes: []string{"127.0.0.1"}}
	c := newClient(t, Config{DomainAPI: f.URL, PlainHTTP: true, Reach: func(account string) Reach {
		if account != testAccount {
			return Reach{}
		}
		return reach
	}})
	base := func() string {
		t.Helper()
		base, err := c.BaseURL(t.Context(), testAccount, "swift")
		if err != nil {
			t.Fatal(err)
		}
		return base
	}
	lookups := func() int { return f.lookups("swift") }
	base()
	base()
	if n := lookups(); n != 1 {
		t.Fatalf("%d look-ups, want 1", n)
	}
	reach = Reach{Suffixes: []string{"127.0.0.1", ".example.com"}}
	base()
	if n := lookups(); n != 2 {
		t.Errorf("after a change of the suffixes %d look-ups, want 2", n)
	}
	reach = Reach{Suffixes: reach.Suffixes, Overrides: map[string]string{"swift": "127.0.0.9:81"}}
	if got := base(); got != "http://127.0.0.9:81" {
		t.Errorf("a host that was pinned since: %s", got)
	}
	reach.Overrides = nil
	if got := base(); got != f.URL || lookups() != 2 {
		t.Errorf("no longer pinned: %s after %d look-ups", got, lookups())
	}
}

func TestASuffixThatWasTakenAwayHoldsAtOnce(t *testing.T) {
	f := &fakeLP{answers: map[string]http.HandlerFunc{}}
	f.Server = httptest.NewTLSServer(f)
	defer f.Close()
	reach := Reach{Suffixes: []string{"127.0.0.1"}}
	c := newClient(t, Config{DomainAPI: f.URL, TLS: f.Client().Transport.(*http.Transport).TLSClientConfig, Reach: func(string) Reach { return reach }})
	if _, err := c.BaseURL(t.Context(), testAccount, "swift"); err != nil {
		t.Fatal(err)
	}
	reach = Reach{Suffixes: []string{".example.com"}}
	if base, err := c.BaseURL(t.Context(), testAccount, "swift"); !share.Is(err, share.LPProtocolError) {
		t.Errorf("got %s, %v", base, err)
	}
}
