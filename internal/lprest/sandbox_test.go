package lprest

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
	"github.com/lpfileshare/lpfileshare/test/lpfake"
)

// eachSandbox runs test with a client of a new sandbox, over plain HTTP and over TLS.
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
			t.Fatal("the CA file has no certificate")
		}
		test(t, sb, newClient(t, Config{
			DomainAPI: sb.TLSURL(), Suffixes: []string{"127.0.0.1"}, TLS: &tls.Config{RootCAs: roots}, Now: opts.Now,
		}))
	})
}

func TestSandbox_Domains(t *testing.T) {
	eachSandbox(t, sandbox.Options{}, func(t *testing.T, sb *sandbox.Sandbox, c *Client) {
		for _, scheme := range []share.Scheme{share.ConsumerToken, share.AgentToken} {
			got, err := c.SocketURL(t.Context(), lpfake.Account, scheme)
			if err != nil || !strings.HasSuffix(got, "://"+got[strings.LastIndex(got, "/")+1:]) || !strings.HasPrefix(got, "ws") {
				t.Errorf("%s: %q, %v", scheme, got, err)
			}
		}
		base, err := c.SwiftURL(t.Context(), lpfake.Account)
		if err != nil || base != sb.URL() && base != sb.TLSURL() {
			t.Errorf("swift: %q, %v", base, err)
		}
		_, err = c.SwiftURL(t.Context(), "999")
		wantKind(t, "an unknown account", err, share.LPCredentialsRejected)
		_, err = c.BaseURL(t.Context(), lpfake.Account, "noSuchService")
		wantKind(t, "an unknown service", err, share.LPCredentialsRejected)
	})
}

func TestSandbox_Consumers(t *testing.T) {
	clk := newClock()
	clk.now = time.Now() // TLS uses the real time
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
		in, err := c.SignUp(t.Context(), lpfake.Account)
		check("sign-up", in, err)
		in, err = c.Authenticate(t.Context(), lpfake.Account, "a-code")
		check("code", in, err)
		in, err = c.Authenticate(t.Context(), lpfake.Account, lpfake.JWT(map[string]any{
			"sub": "customer", "aud": "acc:" + lpfake.Account, "exp": clk.Now().Add(time.Hour).Unix(), "iat": clk.Now().Unix(),
		}))
		check("customer's JWT", in, err)
		_, err = c.Authenticate(t.Context(), lpfake.Account, lpfake.JWT(map[string]any{"sub": "customer", "aud": "acc:1", "exp": 1}))
		wantKind(t, "an expired JWT of another account", err, share.LPCredentialsRejected)

		first, err := c.SignInAnonymous(t.Context(), lpfake.Account, "connector-1")
		check("anonymous", first, err)
		second, err := c.Renew(t.Context(), lpfake.Account, first.RenewalSecret)
		check("renewed", second, err)
		if second.ID != first.ID {
			t.Error("a renewed identity is another")
		}
		clk.pass(time.Hour) // the external token has expired, but can still be renewed
		third, err := c.Renew(t.Context(), lpfake.Account, second.RenewalSecret)
		check("renewed late", third, err)
		clk.pass(731 * time.Hour)
		_, err = c.Renew(t.Context(), lpfake.Account, third.RenewalSecret)
		wantKind(t, "renewed too late", err, share.TokenInvalid)
	})
}

func TestSandbox_Agents(t *testing.T) {
	eachSandbox(t, sandbox.Options{FileSharingOff: true}, func(t *testing.T, sb *sandbox.Sandbox, c *Client) {
		grantOf := func(in share.SignIn, err error) share.AgentGrant {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			g, err := share.ParseAgentToken(in.Token)
			if err != nil || in.ID != g.UserPID || g.Account != lpfake.Account {
				t.Fatalf("%v %v", g, err)
			}
			if left := time.Until(in.Expires); left < 7*time.Hour || left > 9*time.Hour {
				t.Errorf("expires in %v", left)
			}
			return g
		}
		admin := grantOf(c.SignInAgent(t.Context(), lpfake.Account, "admin", "sandbox"))
		agent := grantOf(c.SignInAgent(t.Context(), lpfake.Account, "bob", "sandbox"))
		bot := grantOf(c.SignInBot(t.Context(), lpfake.Account, share.BotKeys{
			Username: "bot", AppKey: "k", Secret: "sandbox", AccessToken: "t", AccessTokenSecret: "u",
		}))
		_, err := c.SignInAgent(t.Context(), lpfake.Account, "admin", "wrong")
		wantKind(t, "a wrong password", err, share.LPCredentialsRejected)
		_, err = c.SignInAgent(t.Context(), lpfake.Account, "admin", "")
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
		wantKind(t, "an agent enables it", c.SetFileSharing(t.Context(), agent, true), share.NotAllowed)
		is(false)
		wantKind(t, "the administrator enables it", c.SetFileSharing(t.Context(), admin, true), "")
		is(true)
		wantKind(t, "the administrator disables it", c.SetFileSharing(t.Context(), admin, false), "")
		is(false)
		forged := admin
		forged.Bearer = strings.Repeat("0", 64)
		_, err = c.FileSharing(t.Context(), forged)
		wantKind(t, "a forged bearer", err, share.TokenInvalid)

		sb.Inject(sandbox.Fault{On: "http:login", Status: 429, Count: 1})
		_, err = c.SignInAgent(t.Context(), lpfake.Account, "admin", "sandbox")
		wantKind(t, "too many logins", err, share.LPRateLimited)
		sb.Inject(sandbox.Fault{On: "http:login", Drop: true, Count: 1})
		_, err = c.SignInAgent(t.Context(), lpfake.Account, "admin", "sandbox")
		wantKind(t, "a reset", err, share.LPUnavailable)
		sb.Inject(sandbox.Fault{On: "http:login", Garbage: true, Count: 1})
		_, err = c.SignInAgent(t.Context(), lpfake.Account, "admin", "sandbox")
		wantKind(t, "garbage", err, share.LPProtocolError)
	})
}

func TestSandbox_Refresh(t *testing.T) {
	clk := newClock()
	const lifetime = 8 * time.Hour
	eachSandbox(t, sandbox.Options{Now: clk.Now, BearerLifetime: lifetime}, func(t *testing.T, _ *sandbox.Sandbox, c *Client) {
		in, err := c.SignInAgent(t.Context(), lpfake.Account, "ann", "sandbox")
		if err != nil {
			t.Fatal(err)
		}
		grant, err := share.ParseAgentToken(in.Token)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 { // longer than one lifetime
			clk.pass(lifetime / 2)
			if err := c.RefreshAgent(t.Context(), grant); err != nil {
				t.Fatalf("a valid login: %v", err)
			}
		}
		forged := grant
		forged.CSRF = "0123456789abcdef"
		wantKind(t, "another csrf", c.RefreshAgent(t.Context(), forged), share.TokenInvalid)
		clk.pass(lifetime + time.Minute)
		wantKind(t, "an expired login", c.RefreshAgent(t.Context(), grant), share.TokenInvalid)
		wantKind(t, "a login that cannot be refreshed", c.RefreshAgent(t.Context(), share.AgentGrant{Account: lpfake.Account, Bearer: grant.Bearer}), share.TokenInvalid)
	})
}

func TestSandbox_SignOut(t *testing.T) {
	eachSandbox(t, sandbox.Options{}, func(t *testing.T, sb *sandbox.Sandbox, c *Client) {
		grantOf := func() share.AgentGrant {
			in, err := c.SignInAgent(t.Context(), lpfake.Account, "admin", "sandbox")
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
