package lprest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/test/lpfake"
)

// hang makes the look-up of a service wait until release is closed or the client disconnects; each sends to entered.
func hang(f *lpfake.Server, service string) (entered chan struct{}, release chan struct{}) {
	entered, release = make(chan struct{}, 100), make(chan struct{})
	f.On("/service/"+service+"/baseURI.json", func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		select {
		case <-release:
			fmt.Fprintf(w, `{"service":%q,"account":%q,"baseURI":%q}`, service, lpfake.Account, f.Host())
		case <-r.Context().Done():
		}
	})
	return entered, release
}

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

// No request is sent to a host that may not be used.
func TestBaseURL_HostileResponse(t *testing.T) {
	evil := lpfake.New(t)
	for name, answer := range map[string]http.HandlerFunc{
		"another host":    lpfake.Says(200, `{"service":"idp","account":"12345678","baseURI":"evil.com"}`),
		"with a path":     lpfake.Says(200, `{"service":"idp","account":"12345678","baseURI":"127.0.0.1/x?"}`),
		"another account": lpfake.Says(200, `{"service":"idp","account":"87654321","baseURI":"127.0.0.1"}`),
		"another service": lpfake.Says(200, `{"service":"swift","account":"12345678","baseURI":"127.0.0.1"}`),
		"nothing":         lpfake.Says(200, ``),
		"an empty object": lpfake.Says(200, `{}`),
		"null":            lpfake.Says(200, `null`),
		"HTML":            lpfake.Says(200, `<html>please log in`),
		"numbers":         lpfake.Says(200, `{"service":"idp","account":"12345678","baseURI":7}`),
		"cut off":         lpfake.Says(200, `{"baseURIs":[{"`),
		"endless":         lpfake.Says(200, `{"service":"idp","baseURI":"`+strings.Repeat("a", 2<<20)+`"}`),
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, evil.URL+"/stolen", http.StatusFound)
		},
		"a lasting redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, evil.URL+"/stolen", http.StatusPermanentRedirect)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := lpfake.New(t)
			f.On("/service/idp/baseURI.json", answer)
			_, err := clientOf(t, f).SignUp(t.Context(), lpfake.Account)
			if !share.Is(err, share.LPProtocolError) {
				t.Fatalf("err = %v", err)
			}
			e, _ := errors.AsType[*share.Error](err)
			for _, bad := range []string{"evil", "stolen", "html", "87654321"} {
				if strings.Contains(e.Message, bad) {
					t.Errorf("the message shows the peer's text: %q", e.Message)
				}
			}
			if asked := f.Requests(); len(asked) > 0 {
				t.Errorf("the client continued with %v", asked)
			}
		})
	}
	if asked := evil.Requests(); len(asked) > 0 {
		t.Errorf("redirects were followed: %v", asked)
	}
}

func TestBaseURL_ResponseForms(t *testing.T) {
	for name, answer := range map[string]string{
		"one":             `{"service":"idp","account":"12345678","baseURI":"HOST"}`,
		"one, bare":       `{"baseURI":"HOST"}`,
		"a list":          `{"baseURIs":[{"service":"swift","account":"12345678","baseURI":"evil.com"},{"baseURI":"HOST","service":"idp","account":"12345678"}]}`,
		"an array":        `[{"service":"swift","account":"12345678","baseURI":"evil.com"},{"service":"idp","account":"12345678","baseURI":"HOST"}]`,
		"a list and more": `{"revision":7,"baseURIs":[{"service":"idp","baseURI":"HOST","x":[]}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			f := lpfake.New(t)
			f.On("/service/idp/baseURI.json", lpfake.Says(200, strings.ReplaceAll(answer, "HOST", f.Host())))
			base, err := clientOf(t, f).BaseURL(t.Context(), lpfake.Account, "idp")
			if err != nil || base != f.URL {
				t.Errorf("%q, %v", base, err)
			}
		})
	}
	for name, answer := range map[string]http.HandlerFunc{
		"an unknown account": lpfake.Says(401, `{}`), "an unknown service": lpfake.Says(404, `{}`), "a bad request": lpfake.Says(400, `{}`),
		"a list without it": lpfake.Says(200, `{"baseURIs":[{"service":"swift","account":"12345678","baseURI":"127.0.0.1"}]}`),
		"an empty array":    lpfake.Says(200, `[]`),
	} {
		t.Run(name, func(t *testing.T) {
			f := lpfake.New(t)
			f.On("/service/idp/baseURI.json", answer)
			c := clientOf(t, f)
			for range 3 {
				if _, err := c.BaseURL(t.Context(), lpfake.Account, "idp"); !share.Is(err, share.LPCredentialsRejected) || !errors.Is(err, errNoService) {
					t.Errorf("err = %v", err)
				}
			}
			if n := f.Lookups("idp"); n != 1 {
				t.Errorf("%d look-ups, want 1", n)
			}
		})
	}
}

func TestBaseURL_InvalidAccount(t *testing.T) {
	f := lpfake.New(t)
	c := clientOf(t, f)
	for _, account := range []string{"", "..", "1/2", "1?x", "1#", "1%2f", "1 2", "1.2", "é", "1\n", strings.Repeat("1", 33)} {
		if _, err := c.BaseURL(t.Context(), account, "idp"); !share.Is(err, share.InvalidField) {
			t.Errorf("%q: %v", account, err)
		}
		if _, err := c.SignInAgent(t.Context(), account, "u", "p"); !share.Is(err, share.InvalidField) {
			t.Errorf("%q: %v", account, err)
		}
	}
	if sent := f.Requests(); len(sent) > 0 || f.Lookups("idp") > 0 {
		t.Errorf("requests were sent: %v", sent)
	}
	if _, err := c.BaseURL(t.Context(), lpfake.Account, "../idp"); err == nil {
		t.Error("a path was accepted as a service name")
	}
}

func TestBaseURL_Cache(t *testing.T) {
	f, clk := lpfake.New(t), newClock()
	c := newClient(t, Config{DomainAPI: f.URL, PlainHTTP: true, CacheTTL: time.Minute, Now: clk.Now})
	ask := func(wantLookups int) {
		t.Helper()
		base, err := c.BaseURL(t.Context(), lpfake.Account, "idp")
		if err != nil || base != f.URL {
			t.Fatalf("%q, %v", base, err)
		}
		if n := f.Lookups("idp"); n != wantLookups {
			t.Fatalf("%d look-ups, want %d", n, wantLookups)
		}
	}
	ask(1)
	clk.pass(59 * time.Second)
	ask(1)
	clk.pass(2 * time.Second)
	ask(2)
	c.Forget(lpfake.Account, "idp") // too soon after the look-up: ignored
	ask(2)
	clk.pass(6 * time.Second)
	c.Forget(lpfake.Account, "swift")
	ask(2)
	c.Forget(lpfake.Account, "idp")
	ask(3)

	// The Domain API fails: the last known host is used, and for a while the Domain API is not called.
	f.On("/service/idp/baseURI.json", lpfake.Says(503, ""))
	clk.pass(2 * time.Minute)
	ask(4)
	ask(4)
	clk.pass(11 * time.Second)
	ask(5)
	// The Domain API says that there is no such service.
	clk.pass(11 * time.Second)
	f.On("/service/idp/baseURI.json", lpfake.Says(404, "{}"))
	if _, err := c.BaseURL(t.Context(), lpfake.Account, "idp"); !share.Is(err, share.LPCredentialsRejected) {
		t.Errorf("err = %v", err)
	}
	// The service exists again.
	f.On("/service/idp/baseURI.json", nil)
	clk.pass(31 * time.Second)
	ask(7)
}

func TestBaseURL_ConcurrentCalls(t *testing.T) {
	f := lpfake.New(t)
	entered, release := hang(f, "idp")
	c := clientOf(t, f)
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if base, err := c.BaseURL(t.Context(), lpfake.Account, "idp"); err != nil || base != f.URL {
				t.Errorf("%q, %v", base, err)
			}
		})
	}
	<-entered
	// A caller that gives up does not end the look-up of the others.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.BaseURL(ctx, lpfake.Account, "idp"); !errors.Is(err, context.DeadlineExceeded) || share.KindOf(err) != "" {
		t.Errorf("the caller with a deadline: %v", err)
	}
	close(release)
	all.Wait()
	if n := f.Lookups("idp"); n != 1 {
		t.Errorf("%d look-ups, want 1", n)
	}
}

func TestSocketURL(t *testing.T) {
	f := lpfake.New(t)
	c := clientOf(t, f)
	ws := "ws" + strings.TrimPrefix(f.URL, "http")
	socket := func(c *Client, scheme share.Scheme, want string) {
		t.Helper()
		if got, err := c.SocketURL(t.Context(), lpfake.Account, scheme); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", scheme, got, err, want)
		}
	}
	socket(c, share.ConsumerToken, ws)
	socket(c, share.AgentToken, ws)
	if f.Lookups("facadeMsg") != 1 || f.Lookups("asyncMessagingEnt") != 1 {
		t.Error("facadeMsg was not looked up for an agent")
	}
	if _, err := c.SocketURL(t.Context(), lpfake.Account, share.ExternalConsumerID); !share.Is(err, share.MethodNotImplemented) {
		t.Errorf("err = %v", err)
	}
	if got, err := c.SwiftURL(t.Context(), lpfake.Account); err != nil || got != f.URL {
		t.Errorf("%q, %v", got, err)
	}

	f.On("/service/facadeMsg/baseURI.json", lpfake.Says(404, "{}"))
	c = newClient(t, Config{DomainAPI: f.URL, PlainHTTP: true, Overrides: map[string]string{"asyncMessagingEnt": "https://ums.example"}})
	socket(c, share.AgentToken, "wss://ums.example")
	socket(c, share.ConsumerToken, "wss://ums.example")

	// A failure is no reason to use another service.
	f.On("/service/facadeMsg/baseURI.json", lpfake.Says(500, ""))
	c = clientOf(t, f)
	if _, err := c.SocketURL(t.Context(), lpfake.Account, share.AgentToken); !share.Is(err, share.LPUnavailable) {
		t.Errorf("err = %v", err)
	}
}

func TestForgetSocket(t *testing.T) {
	f, clk := lpfake.New(t), newClock()
	c := newClient(t, Config{DomainAPI: f.URL, PlainHTTP: true, Now: clk.Now})
	for range 2 {
		for _, scheme := range []share.Scheme{share.AgentToken, share.ConsumerToken} {
			if _, err := c.SocketURL(t.Context(), lpfake.Account, scheme); err != nil {
				t.Fatal(err)
			}
		}
		clk.pass(10 * time.Second)
		c.ForgetSocket(lpfake.Account, share.AgentToken)
	}
	if f.Lookups("facadeMsg") != 2 || f.Lookups("asyncMessagingEnt") != 2 {
		t.Errorf("%d and %d look-ups, want 2 each", f.Lookups("facadeMsg"), f.Lookups("asyncMessagingEnt"))
	}
}

// A failing call makes the next one look up the host again.
func TestForget_AfterFailedCall(t *testing.T) {
	f, clk := lpfake.New(t), newClock()
	gone := lpfake.New(t)
	f.On("/signup", lpfake.Says(200, `{"jwt":"`+lpfake.JWT(map[string]any{"sub": "s"})+`"}`))
	f.On("/service/idp/baseURI.json", lpfake.Says(200, `{"baseURI":"`+gone.Host()+`"}`))
	c := newClient(t, Config{DomainAPI: f.URL, PlainHTTP: true, Now: clk.Now})
	gone.Close()
	if _, err := c.SignUp(t.Context(), lpfake.Account); !share.Is(err, share.LPUnavailable) {
		t.Fatalf("err = %v", err)
	}
	f.On("/service/idp/baseURI.json", nil)
	clk.pass(6 * time.Second)
	if _, err := c.SignUp(t.Context(), lpfake.Account); !share.Is(err, share.LPUnavailable) {
		t.Fatalf("err = %v", err)
	}
	if _, err := c.SignUp(t.Context(), lpfake.Account); err != nil {
		t.Errorf("after another look-up: %v", err)
	}
}

func TestBaseURL_ChangedSettings(t *testing.T) {
	f := lpfake.New(t)
	reach := Reach{Suffixes: []string{"127.0.0.1"}}
	c := newClient(t, Config{DomainAPI: f.URL, PlainHTTP: true, Reach: func(account string) Reach {
		if account != lpfake.Account {
			return Reach{}
		}
		return reach
	}})
	base := func() string {
		t.Helper()
		base, err := c.BaseURL(t.Context(), lpfake.Account, "swift")
		if err != nil {
			t.Fatal(err)
		}
		return base
	}
	lookups := func() int { return f.Lookups("swift") }
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
	f := lpfake.NewTLS(t)
	reach := Reach{Suffixes: []string{"127.0.0.1"}}
	c := newClient(t, Config{DomainAPI: f.URL, TLS: f.Client().Transport.(*http.Transport).TLSClientConfig, Reach: func(string) Reach { return reach }})
	if _, err := c.BaseURL(t.Context(), lpfake.Account, "swift"); err != nil {
		t.Fatal(err)
	}
	reach = Reach{Suffixes: []string{".example.com"}}
	if base, err := c.BaseURL(t.Context(), lpfake.Account, "swift"); !share.Is(err, share.LPProtocolError) {
		t.Errorf("got %s, %v", base, err)
	}
}
