package lpws

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A vouching gets tokens for customers, as often as it is asked, and remembers what it was asked.
type vouching struct {
	h    *harness
	mu   sync.Mutex
	gave []string // the tokens, in their order
	not  []string // what each was to be instead of
	fail error
	as   string // the customer, if another than the credential says
}

func (v *vouching) token(_ context.Context, cred share.Credential, instead string) (share.SignIn, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.fail != nil {
		return share.SignIn{}, v.fail
	}
	customer := cred.Secret
	if v.as != "" {
		customer = v.as
	}
	claims := fmt.Sprintf(`{"sub":%q,"aud":"acc:%s","exp":%d}`, customer, cred.Account, time.Now().Add(time.Hour).Unix())
	d := v.h.post("/api/account/"+cred.Account+"/authenticate",
		fmt.Sprintf(`{"authCode":"%s.%s.AAAA"}`, base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256"}`)), base64.RawURLEncoding.EncodeToString([]byte(claims))))
	token, _ := d["jwt"].(string)
	c, ok := readClaims(token)
	if !ok {
		v.h.t.Errorf("no token was given out: %v", d)
	}
	v.gave, v.not = append(v.gave, token), append(v.not, instead)
	return share.SignIn{Token: token, Expires: c.Expires, ID: c.Subject}, nil
}

func (v *vouching) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.gave)
}

func newVouching(t *testing.T, opts sandbox.Options) (*harness, *vouching) {
	v := &vouching{}
	h := newHarness(t, opts, v.configure)
	v.h = h
	return h, v
}

func (v *vouching) configure(c *Config) {
	c.Token = v.token
	c.KeepAlive = 800 * time.Millisecond // and with it the keeper's looks
	c.BackoffMin, c.BackoffMax = 20*time.Millisecond, 100*time.Millisecond
}

func customer(id, caller string) share.Credential {
	return share.Credential{Scheme: share.ExternalConsumerID, Account: account, Secret: id, Caller: caller}
}

func TestIssuedConsumer_OutlivesItsTokens(t *testing.T) {
	t.Parallel()
	h, v := newVouching(t, sandbox.Options{TokenLifetime: 2 * time.Second})
	s := h.session(customer("c-1", "orders"))
	conv := h.begin(s)
	// The watch is on another server: what the first one does, it hears from LivePerson alone.
	other, err := h.newPool(v.configure).Session(ctxOf(t), customer("c-1", "orders"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Release()
	w, err := other.WatchFiles(ctxOf(t), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()

	var sent []string
	calls := 0
	for end := time.Now().Add(9 * time.Second); time.Now().Before(end); {
		path, _ := h.send(s, conv.ID, "a caption") // fails the test if a call of it fails
		sent = append(sent, path)
		for range 5 {
			if _, err := s.UploadURL(ctxOf(t), 1, share.PNG); err != nil {
				t.Fatalf("after %d calls: %v", calls, err)
			}
			calls++
			time.Sleep(20 * time.Millisecond)
		}
	}
	for i, path := range sent {
		if e := next(t, w); e.File.StoragePath != path {
			t.Fatalf("file %d of the watch is %s, want %s", i, e.File.StoragePath, path)
		}
	}
	nothing(t, w)
	if n := v.count(); n < 6 {
		t.Errorf("%d tokens for two sessions in nine seconds, of which each lived two to three", n)
	}
	eventually(t, "the last connections are given up", func() bool { return h.sb.Sockets() == 2 })
	fmt.Printf("held identity: %d calls and %d files in 9 s over %d tokens of 2 to 3 s, none failed or came twice\n", calls, len(sent), v.count())
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
				h, v := newVouching(t, sandbox.Options{})
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
						// Nobody knows whether it was published, so it is not sent again here.
						want(t, err, share.LPPublishUnconfirmed)
						if _, err := s.FindFile(ctxOf(t), conv.ID, "", path); !share.Is(err, share.FileNotFound) {
							t.Errorf("looking for it over the next connection: %v", err)
						}
						return
					}
				}
				if count == 0 {
					want(t, err, share.LPCredentialsRejected)
				} else if err != nil {
					t.Error(err)
				}
				if n := v.count(); n != 2 || v.not[1] != v.gave[0] {
					t.Errorf("%d tokens, the second not to be the first: %v", n, v.not[1] == v.gave[0])
				}
			})
		}
	}
}

func TestIssuedConsumer_EndsAWatchAfterRepeatedRejections(t *testing.T) {
	t.Parallel()
	h, v := newVouching(t, sandbox.Options{})
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
	if n := v.count(); n != 2 {
		t.Errorf("%d tokens, want one more than the first", n)
	}
}

func TestIssuedConsumer_CallersKeepTheirPrincipal(t *testing.T) {
	t.Parallel()
	h, v := newVouching(t, sandbox.Options{})
	a, b := h.session(customer("c-1", "spiffe://mesh/a")), h.session(customer("c-1", "spiffe://mesh/b"))
	if a.Principal().ID != b.Principal().ID || a.Principal().Caller != "spiffe://mesh/a" || b.Principal().Caller != "spiffe://mesh/b" {
		t.Errorf("%+v and %+v", a.Principal(), b.Principal())
	}
	if !a.Principal().Expires.IsZero() {
		t.Error("a session that does not end has an expiry")
	}
	if h.sb.Sockets() != 1 || v.count() != 1 {
		t.Errorf("%d sockets and %d tokens", h.sb.Sockets(), v.count())
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

func TestIssuedConsumer_TokenErrors(t *testing.T) {
	t.Parallel()
	h, v := newVouching(t, sandbox.Options{TokenLifetime: 2 * time.Second})
	for err, kind := range map[error]share.Kind{
		share.Errorf(share.IdentityNotConfigured, "none", nil): share.IdentityNotConfigured,
		share.Errorf(share.LPRateLimited, "slow", nil):         share.LPRateLimited,
		errors.New("something"):                                share.LPUnavailable,
	} {
		v.fail = err
		_, err := h.pool.Session(ctxOf(t), customer("c-1", ""))
		want(t, err, kind)
	}
	v.fail = nil
	s := h.session(customer("c-1", ""))

	// LivePerson's identity service is away when the next token is due, and back before anybody notices.
	v.mu.Lock()
	v.fail = share.Errorf(share.LPUnavailable, "away", nil)
	v.mu.Unlock()
	time.Sleep(4 * time.Second)
	v.mu.Lock()
	v.fail = nil
	v.mu.Unlock()
	if _, err := s.UploadURL(ctxOf(t), 1, share.PNG); err != nil {
		t.Errorf("it is back, and %v", err)
	}

	// Tokens of somebody else end the session rather than change whose it is.
	v.mu.Lock()
	v.as = "somebody-else"
	v.mu.Unlock()
	h.sb.DropSockets(0)
	eventually(t, "the session ends", func() bool {
		_, err := s.UploadURL(ctxOf(t), 1, share.PNG)
		return share.Is(err, share.LPCredentialsRejected)
	})
}
