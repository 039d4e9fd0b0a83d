package lpws

import (
	"context"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A login whose refresh LivePerson rejects keeps its session until LivePerson closes it, or the lifetime of the login is over.
func TestAgent_RejectedRefresh(t *testing.T) {
	rejected := share.Errorf(share.TokenInvalid, "LivePerson has ended the agent's login", nil)
	for _, test := range []struct {
		name     string
		lifetime int64
		fail     func(n int) error // of the refresh number n
		closes   bool              // LivePerson closes the session after two hours
		ends     time.Duration     // when the session ends; 0: not within four hours
	}{
		{"once", 3600, func(n int) error { return map[bool]error{true: rejected}[n == 1] }, false, 0},
		{"each time", 3600, func(int) error { return rejected }, false, time.Hour},
		{"later", 3600, func(n int) error { return map[bool]error{true: rejected}[n > 3] }, false, 2 * time.Hour},
		{"each time, with an unknown lifetime", 0, func(int) error { return rejected }, true, 2 * time.Hour},
		{"unreachable", 3600, func(int) error { return share.Errorf(share.LPUnavailable, "down", nil) }, false, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := newPeer(t)
				p.answer = func(k *peerSocket, typ, id string, _ map[string]any) bool {
					if typ != (agent{}).requestType(reqSubscribeConvs) {
						return false
					}
					k.send(`{"kind":"resp","reqId":%q,"code":200,"body":{"subscriptionId":"s"}}`, id)
					k.send(`{"kind":"notification","type":"cqm.ExConversationChangeNotification","body":{"subscriptionId":"s","changes":[]}}`)
					return true
				}
				var calls []time.Time // used by one goroutine at a time
				pool := p.pool(defaultBackoff, func(c *Config) {
					c.RefreshEvery = 30 * time.Minute
					c.RefreshAgent = func(context.Context, share.AgentGrant) error {
						calls = append(calls, time.Now())
						return test.fail(len(calls))
					}
				})
				grant := share.AgentGrant{Account: account, UserID: "1", UserPID: "p", Bearer: "b", Cookie: "s", CSRF: "c", Lifetime: test.lifetime}
				begun := time.Now()
				s, err := pool.Session(ctxOf(t), share.Credential{Scheme: share.AgentToken, Account: account, Secret: grant.Token()})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Release()
				if test.closes {
					time.AfterFunc(2*time.Hour, func() { p.socket().close(1011) })
				}
				select {
				case <-s.s.ended:
					if took := time.Since(begun); test.ends == 0 || took < test.ends || took > test.ends+20*time.Minute+time.Second {
						t.Errorf("the session ended after %v", took)
					}
					_, err := s.UploadURL(ctxOf(t), 1, share.PNG)
					want(t, err, share.LPIdentityExpired)
				case <-time.After(4 * time.Hour):
					if test.ends != 0 {
						t.Error("the session did not end")
					}
				}
				// The attempts after a failure slow down, up to the usual interval.
				for i := 1; i < len(calls); i++ {
					if pause := calls[i].Sub(calls[i-1]); pause < 2*time.Second || pause > 31*time.Minute {
						t.Errorf("refresh %d after %v", i, pause)
					}
				}
				if n := len(calls); n < 6 || n > 40 {
					t.Errorf("%d refreshes", n)
				}
			})
		})
	}
}
