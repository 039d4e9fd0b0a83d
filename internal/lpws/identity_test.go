package lpws

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// sandboxIssuer obtains tokens for customers from the sandbox, and records the calls.
type sandboxIssuer struct {
	h      *harness
	mu     sync.Mutex
	issued []string // the tokens in order
	not    []string // the argument instead of each call
}

func (i *sandboxIssuer) token(_ context.Context, cred share.Credential, instead string) (share.SignIn, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	claims := fmt.Sprintf(`{"sub":%q,"aud":"acc:%s","exp":%d}`, cred.Secret, cred.Account, time.Now().Add(time.Hour).Unix())
	d := i.h.post("/api/account/"+cred.Account+"/authenticate",
		fmt.Sprintf(`{"authCode":"%s.%s.AAAA"}`, base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256"}`)), base64.RawURLEncoding.EncodeToString([]byte(claims))))
	token, _ := d["jwt"].(string)
	c, err := lpwire.ReadClaims(token)
	if err != nil {
		i.h.t.Errorf("no token was issued: %v", d)
	}
	i.issued, i.not = append(i.issued, token), append(i.not, instead)
	return share.SignIn{Token: token, Expires: c.Expires, ID: c.Subject}, nil
}

func (i *sandboxIssuer) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.issued)
}

func newIssuerHarness(t *testing.T) (*harness, *sandboxIssuer) {
	i := &sandboxIssuer{}
	i.h = newHarness(t, sandbox.Options{}, func(c *Config) { c.Token = i.token })
	return i.h, i
}

func customer(id, caller string) share.Credential {
	return share.Credential{Scheme: share.ExternalConsumerID, Account: account, Secret: id, Caller: caller}
}

func TestIssuedConsumer_ReplacesARejectedTokenOnce(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		fault sandbox.Fault
	}{
		{"closed by 4401 in a call", sandbox.Fault{On: "ms.GenerateURLForUploadFile", CloseCode: 4401}},
		{"closed by 4407 in a call", sandbox.Fault{On: "ms.GenerateURLForUploadFile", CloseCode: 4407}},
		{"answered 401", sandbox.Fault{On: "ms.GenerateURLForUploadFile", Status: 401}},
		{"closed by 4401 in a publish", sandbox.Fault{On: "ms.PublishEvent", CloseCode: 4401}},
		{"a publish answered 401", sandbox.Fault{On: "ms.PublishEvent", Status: 401}},
		{"the upgrade answered 401", sandbox.Fault{On: "ws:upgrade", Status: 401}},
		{"closed by 4401 when it opens", sandbox.Fault{On: "cqm.SubscribeExConversations", CloseCode: 4401}},
	} {
		for _, count := range []int{1, 0} {
			t.Run(fmt.Sprintf("%s, count %d", test.name, count), func(t *testing.T) {
				t.Parallel()
				h, tokens := newIssuerHarness(t)
				test := test
				test.fault.Count = count
				var err error
				if on := test.fault.On; on == "ws:upgrade" || on == "cqm.SubscribeExConversations" {
					h.sb.Inject(test.fault)
					var s *Session
					if s, err = h.pool.Session(ctxOf(t), customer("c-1", "")); err == nil {
						s.Release()
					}
				} else {
					s := h.session(customer("c-1", ""))
					conv := h.begin(s)
					path := ""
					if on == "ms.PublishEvent" {
						path = h.store(s)
					}
					h.sb.Inject(test.fault)
					if path == "" {
						_, err = s.UploadURL(ctxOf(t), 1, share.PNG)
					} else if _, err = s.PublishFile(ctxOf(t), conv.ID, "", hosted(path, "")); test.fault.CloseCode != 0 {
						// It may have been published, so it is not sent again.
						want(t, err, share.LPPublishUnconfirmed)
						if _, err := s.FindFile(ctxOf(t), conv.ID, "", path); !share.Is(err, share.FileNotFound) {
							t.Errorf("looking for it on the next connection: %v", err)
						}
						return
					}
				}
				if count == 0 {
					want(t, err, share.LPCredentialsRejected)
				} else if err != nil {
					t.Error(err)
				}
				if n := tokens.count(); n != 2 || tokens.not[1] != tokens.issued[0] {
					t.Errorf("%d tokens, the second not to be the first: %v", n, tokens.not[1] == tokens.issued[0])
				}
			})
		}
	}
}

func TestIssuedConsumer_EndsAWatchAfterRepeatedRejections(t *testing.T) {
	t.Parallel()
	h, tokens := newIssuerHarness(t)
	s := h.session(customer("c-1", ""))
	h.begin(s)
	h.sb.Inject(sandbox.Fault{On: "ms.SubscribeMessagingEvents", CloseCode: 4401})
	w, err := s.WatchFiles(ctxOf(t), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	_, err = w.Next(ctxOf(t))
	want(t, err, share.LPCredentialsRejected)
	if n := tokens.count(); n != 2 {
		t.Errorf("%d tokens, want one more than the first", n)
	}
}

func TestIssuedConsumer_CallersKeepTheirPrincipal(t *testing.T) {
	t.Parallel()
	h, tokens := newIssuerHarness(t)
	a, b := h.session(customer("c-1", "spiffe://mesh/a")), h.session(customer("c-1", "spiffe://mesh/b"))
	if a.Principal().ID != b.Principal().ID || a.Principal().Caller != "spiffe://mesh/a" || b.Principal().Caller != "spiffe://mesh/b" {
		t.Errorf("%+v and %+v", a.Principal(), b.Principal())
	}
	if !a.Principal().Expires.IsZero() {
		t.Error("a session that does not end has an expiry")
	}
	if h.sb.Sockets() != 1 || tokens.count() != 1 {
		t.Errorf("%d sockets and %d tokens", h.sb.Sockets(), tokens.count())
	}
	if other := h.session(customer("c-2", "spiffe://mesh/a")); other.Principal().ID == a.Principal().ID {
		t.Error("two customers are the same")
	}
	cred := h.consumer()
	cred.Caller = "spiffe://mesh/a"
	if p := h.session(cred).Principal(); p.Caller != "" {
		t.Errorf("a consumer with a token of its own is %+v", p)
	}
}

// issuer obtains tokens for the peer's consumer, each valid for lifetime.
type issuer struct {
	lifetime time.Duration

	mu      sync.Mutex
	count   int
	fail    error
	subject string // instead of "me"
}

func (i *issuer) token(context.Context, share.Credential, string) (share.SignIn, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.fail != nil {
		return share.SignIn{}, i.fail
	}
	i.count++
	subject, expires := cmp.Or(i.subject, "me"), time.Now().Add(i.lifetime)
	token := tokenOf(fmt.Sprintf(`{"sub":%q,"aud":"acc:12345678","exp":%d,"n":%d}`, subject, expires.Unix(), i.count)).Secret
	return share.SignIn{Token: token, Expires: expires, ID: subject}, nil
}

func (i *issuer) set(fail error, subject string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fail, i.subject = fail, subject
}

// A token with an expiry in the far future is not renewed at once.
func TestRenewal_DistantExpiry(t *testing.T) {
	now := time.Unix(1_900_000_000, 0)
	for _, expires := range []time.Time{now.AddDate(60, 0, 0), time.Unix(253402300799, 0)} {
		cred := customer("me", "")
		cfg := &Config{Now: func() time.Time { return now }, Token: func(context.Context, share.Credential, string) (share.SignIn, error) {
			return share.SignIn{Token: tokenOf(`{"sub":"me","aud":"acc:12345678"}`).Secret, Expires: expires}, nil
		}}
		r := newRenewal(newIssuedConsumer(cred), cred, cfg)
		if err := r.obtain(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		if r.start(now.AddDate(30, 0, 0)) {
			t.Errorf("a token until %v is renewed at %v", expires, r.next)
		}
	}
}

func TestIssuedConsumer_OutlivesItsTokens(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		p.expire = true
		tokens := &issuer{lifetime: 10 * time.Minute}
		configure := func(c *Config) { c.Token = tokens.token }
		open := func() *Session {
			s, err := p.pool(configure).Session(ctxOf(t), customer("me", ""))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.Release)
			return s
		}
		s := open()
		w, err := open().WatchFiles(ctxOf(t), "c", nil) // of another server
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		const minutes = 60
		for i := range minutes {
			p.broadcast(fileEvent("c", i, fmt.Sprint(i)))
			for range 6 {
				if _, err := s.UploadURL(ctxOf(t), 1, share.PNG); err != nil {
					t.Fatalf("minute %d: %v", i, err)
				}
				time.Sleep(10 * time.Second)
			}
		}
		for i := range minutes {
			if e := next(t, w); e.Sequence != int64(i) {
				t.Fatalf("file %d is %d", i, e.Sequence)
			}
		}
		nothing(t, w)
		tokens.mu.Lock()
		defer tokens.mu.Unlock()
		if n := tokens.count; n < 2*minutes/10 {
			t.Errorf("only %d tokens", n)
		}
	})
}

func TestIssuedConsumer_TokenErrors(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		p.expire = true
		tokens := &issuer{lifetime: 10 * time.Minute}
		pool := p.pool(func(c *Config) { c.Token = tokens.token })
		for err, kind := range map[error]share.Kind{
			share.Errorf(share.IdentityNotConfigured, "none", nil): share.IdentityNotConfigured,
			share.Errorf(share.LPRateLimited, "slow", nil):         share.LPRateLimited,
			errors.New("something"):                                share.LPUnavailable,
		} {
			tokens.set(err, "")
			_, err := pool.Session(ctxOf(t), customer("me", ""))
			want(t, err, kind)
		}
		tokens.set(nil, "")
		s, err := pool.Session(ctxOf(t), customer("me", ""))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Release()

		// The identity service fails when the next token is due, and works again before the current token expires.
		tokens.set(share.Errorf(share.LPUnavailable, "away", nil), "")
		time.Sleep(9 * time.Minute)
		tokens.set(nil, "")
		for range 6 {
			if _, err := s.UploadURL(ctxOf(t), 1, share.PNG); err != nil {
				t.Error(err)
			}
			time.Sleep(20 * time.Second)
		}
		if n := p.upgrades(); n != 2 {
			t.Errorf("%d connections, want 2", n)
		}

		// A token of another consumer ends the session.
		tokens.set(nil, "somebody-else")
		p.socket().close(1001)
		synctest.Wait()
		_, err = s.UploadURL(ctxOf(t), 1, share.PNG)
		want(t, err, share.LPCredentialsRejected)
	})
}
