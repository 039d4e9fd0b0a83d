package lpapi

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// eachSandbox runs test with a client of a fresh sandbox, by plain HTTP and by TLS.
func eachSandbox(t *testing.T, opts sandbox.Options, test func(t *testing.T, sb *sandbox.Sandbox, c *Client)) {
	start := func(t *testing.T, opts sandbox.Options) *sandbox.Sandbox {
		sb, err := sandbox.Start(opts)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = sb.Close() })
		return sb
	}
	t.Run("plain", func(t *testing.T) {
		sb := start(t, opts)
		test(t, sb, newClient(t, Config{DomainAPI: sb.URL(), PlainHTTP: true, Now: opts.Now}))
	})
	t.Run("TLS", func(t *testing.T) {
		opts.TLSListen = "127.0.0.1:0"
		opts.CAFile = filepath.Join(t.TempDir(), "ca.pem")
		sb := start(t, opts)
		pem, err := os.ReadFile(opts.CAFile)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			t.Fatal("the CA file holds no certificate")
		}
		test(t, sb, newClient(t, Config{
			DomainAPI: sb.TLSURL(), Suffixes: []string{"127.0.0.1"}, TLS: &tls.Config{RootCAs: roots}, Now: opts.Now,
		}))
	})
}

func wantKind(t *testing.T, what string, err error, kind share.Kind) {
	t.Helper()
	if share.KindOf(err) != kind || (kind == "") != (err == nil) {
		t.Errorf("%s: %v, want %q", what, err, kind)
	}
}

func TestSandboxDomains(t *testing.T) {
	eachSandbox(t, sandbox.Options{}, func(t *testing.T, sb *sandbox.Sandbox, c *Client) {
		for _, scheme := range []share.Scheme{share.ConsumerToken, share.AgentToken} {
			got, err := c.SocketURL(t.Context(), testAccount, scheme)
			if err != nil || !strings.HasSuffix(got, "://"+got[strings.LastIndex(got, "/")+1:]) || !strings.HasPrefix(got, "ws") {
				t.Errorf("%s: %q, %v", scheme, got, err)
			}
		}
		base, err := c.SwiftURL(t.Context(), testAccount)
		if err != nil || base != sb.URL() && base != sb.TLSURL() {
			t.Errorf("swift: %q, %v", base, err)
		}
		_, err = c.SwiftURL(t.Context(), "999")
		wantKind(t, "an unknown account", err, share.LPCredentialsRejected)
		_, err = c.BaseURL(t.Context(), testAccount, "noSuchService")
		wantKind(t, "an unknown service", err, share.LPCredentialsRejected)
	})
}

func TestSandboxConsumers(t *testing.T) {
	clk := newClock()
	clk.now = time.Now() // TLS looks at the real one
	eachSandbox(t, sandbox.Options{Now: clk.Now, TokenLifetime: time.Hour}, func(t *testing.T, _ *sandbox.Sandbox, c *Client) {
		check := func(what string, in share.SignIn, err error) {
			t.Helper()
			if err != nil || in.ID == "" || in.Token == "" {
				t.Errorf("%s: %v", what, err)
			}
			if left := in.Expires.Sub(clk.Now()); left <= 0 || left > time.Hour+time.Second { // a JWT has whole seconds
				t.Errorf("%s: expires in %v", what, left)
			}
		}
		in, err := c.SignUp(t.Context(), testAccount)
		check("sign-up", in, err)
		in, err = c.Authenticate(t.Context(), testAccount, "a-code")
		check("code", in, err)
		in, err = c.Authenticate(t.Context(), testAccount, testJWT(map[string]any{
			"sub": "customer", "aud": "acc:" + testAccount, "exp": clk.Now().Add(time.Hour).Unix(), "iat": clk.Now().Unix(),
		}))
		check("customer's JWT", in, err)
		_, err = c.Authenticate(t.Context(), testAccount, testJWT(map[string]any{"sub": "customer", "aud": "acc:1", "exp": 1}))
		wantKind(t, "an expired JWT of another account", err, share.LPCredentialsRejected)

		first, err := c.SignInAnonymous(t.Context(), testAccount, "connector-1")
		check("anonymous", first, err)
		second, err := c.Renew(t.Context(), testAccount, first.RenewalSecret)
		check("renewed", second, err)
		if second.ID != first.ID {
			t.Error("a renewed identity is another")
		}
		clk.pass(time.Hour) // the external token, but not the right to renew it, has ended
		third, err := c.Renew(t.Context(), testAccount, second.RenewalSecret)
		check("renewed late", third, err)
		clk.pass(731 * time.Hour)
		_, err = c.Renew(t.Context(), testAccount, third.RenewalSecret)
		wantKind(t, "renewed too late", err, share.TokenInvalid)
	})
}

func TestSandboxAgents(t *testing.T) {
	eachSandbox(t, sandbox.Options{FileSharingOff: true}, func(t *testing.T, sb *sandbox.Sandbox, c *Client) {
		grantOf := func(in share.SignIn, err error) share.AgentGrant {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			g, err := share.ParseAgentToken(in.Token)
			if err != nil || in.ID != g.UserPID || g.Account != testAccount {
				t.Fatalf("%v %v", g, err)
			}
			if left := time.Until(in.Expires); left < 7*time.Hour || left > 9*time.Hour {
				t.Errorf("expires in %v", left)
			}
			return g
		}
		admin := grantOf(c.SignInAgent(t.Context(), testAccount, "admin", "sandbox"))
		agent := grantOf(c.SignInAgent(t.Context(), testAccount, "bob", "sandbox"))
		bot := grantOf(c.SignInBot(t.Context(), testAccount, share.BotKeys{
			Username: "bot", AppKey: "k", Secret: "sandbox", AccessToken: "t", AccessTokenSecret: "u",
		}))
		_, err := c.SignInAgent(t.Context(), testAccount, "admin", "wrong")
		wantKind(t, "a wrong password", err, share.LPCredentialsRejected)
		_, err = c.SignInAgent(t.Context(), testAccount, "admin", "")
		wantKind(t, "no password", err, share.LPCredentialsRejected)

		is := func(want bool) {
			t.Helper()
			for _, g := range []share.AgentGrant{admin, agent, bot} {
				if on, err := c.FileSharing(t.Context(), g); err != nil || on != want {
					t.Errorf("file sharing is %t, %v; want %t", on, err, want)
				}
			}
		}
		is(false)
		wantKind(t, "an agent switches it", c.SetFileSharing(t.Context(), agent, true), share.NotAllowed)
		is(false)
		wantKind(t, "the administrator switches it on", c.SetFileSharing(t.Context(), admin, true), "")
		is(true)
		wantKind(t, "and off", c.SetFileSharing(t.Context(), admin, false), "")
		is(false)
		forged := admin
		forged.Bearer = strings.Repeat("0", 64)
		_, err = c.FileSharing(t.Context(), forged)
		wantKind(t, "a forged bearer", err, share.TokenInvalid)

		sb.Inject(sandbox.Fault{On: "http:login", Status: 429, Count: 1})
		_, err = c.SignInAgent(t.Context(), testAccount, "admin", "sandbox")
		wantKind(t, "too many logins", err, share.LPRateLimited)
		sb.Inject(sandbox.Fault{On: "http:login", Drop: true, Count: 1})
		_, err = c.SignInAgent(t.Context(), testAccount, "admin", "sandbox")
		wantKind(t, "a reset", err, share.LPUnavailable)
		sb.Inject(sandbox.Fault{On: "http:login", Garbage: true, Count: 1})
		_, err = c.SignInAgent(t.Context(), testAccount, "admin", "sandbox")
		wantKind(t, "garbage", err, share.LPProtocolError)
	})
}

func TestALoginIsRefreshedAndEnds(t *testing.T) {
	sb, err := sandbox.Start(sandbox.Options{BearerLifetime: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer sb.Close()
	c, err := New(Config{DomainAPI: sb.URL(), PlainHTTP: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in, err := c.SignInAgent(t.Context(), testAccount, "ann", "sandbox")
	if err != nil {
		t.Fatal(err)
	}
	grant, err := share.ParseAgentToken(in.Token)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // longer than one life
		time.Sleep(time.Second)
		if err := c.RefreshAgent(t.Context(), grant); err != nil {
			t.Fatalf("a login that lives: %v", err)
		}
	}
	forged := grant
	forged.CSRF = "0123456789abcdef"
	if err := c.RefreshAgent(t.Context(), forged); !share.Is(err, share.TokenInvalid) {
		t.Errorf("another csrf: %v", err)
	}
	time.Sleep(3 * time.Second)
	if err := c.RefreshAgent(t.Context(), grant); !share.Is(err, share.TokenInvalid) {
		t.Errorf("a login that has ended: %v", err)
	}
	if err := c.RefreshAgent(t.Context(), share.AgentGrant{Account: testAccount, Bearer: grant.Bearer}); !share.Is(err, share.TokenInvalid) {
		t.Errorf("a login that cannot be refreshed: %v", err)
	}
}

func TestSignOutInTheSandbox(t *testing.T) {
	eachSandbox(t, sandbox.Options{}, func(t *testing.T, sb *sandbox.Sandbox, c *Client) {
		grantOf := func() share.AgentGrant {
			in, err := c.SignInAgent(t.Context(), testAccount, "admin", "sandbox")
			if err != nil {
				t.Fatal(err)
			}
			grant, err := share.ParseAgentToken(in.Token)
			if err != nil {
				t.Fatal(err)
			}
			return grant
		}
		grant, other := grantOf(), grantOf()
		for range 2 { // it may be repeated
			if err := c.SignOutAgent(t.Context(), grant); err != nil {
				t.Fatal(err)
			}
			if _, err := c.FileSharing(t.Context(), grant); !share.Is(err, share.TokenInvalid) {
				t.Errorf("the bearer after the sign-out: %v", err)
			}
			if err := c.RefreshAgent(t.Context(), grant); !share.Is(err, share.TokenInvalid) {
				t.Errorf("a refresh after the sign-out: %v", err)
			}
		}
		if _, err := c.FileSharing(t.Context(), other); err != nil {
			t.Errorf("another login of the same user: %v", err)
		}
		for status, kind := range map[int]share.Kind{400: share.LPProtocolError, 403: share.LPCredentialsRejected, 429: share.LPRateLimited, 503: share.LPUnavailable} {
			sb.Inject(sandbox.Fault{On: "http:logout", Count: 1, Status: status})
			if err := c.SignOutAgent(t.Context(), other); !share.Is(err, kind) {
				t.Errorf("%d: %v", status, err)
			}
		}
		cookieless := other
		cookieless.Cookie = ""
		if err := c.SignOutAgent(t.Context(), cookieless); !share.Is(err, share.LPProtocolError) {
			t.Errorf("a login that cannot be ended: %v", err)
		}
		if _, err := c.FileSharing(t.Context(), other); err != nil {
			t.Errorf("a login whose end LivePerson refused: %v", err)
		}
	})
}
