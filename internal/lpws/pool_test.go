package lpws

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// token returns one of several tokens of the peer's consumer.
func token(n int) share.Credential {
	return tokenOf(fmt.Sprintf(`{"sub":"me","aud":"acc:12345678","n":%d}`, n))
}

func TestPoolSession_OpeningOutlivesItsFirstCaller(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		p.upgrade = func(http.ResponseWriter, *http.Request) bool {
			time.Sleep(2 * time.Second)
			return false
		}
		pool := p.pool()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := pool.Session(ctx, token(1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the first caller: %v", err)
		}
		s, err := pool.Session(ctxOf(t), token(1))
		if err != nil {
			t.Fatal(err)
		}
		s.Release()
		if n := p.upgrades(); n != 1 {
			t.Errorf("%d upgrades", n)
		}
	})
}

func TestPoolSession_SharesAFailureOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		p.upgrade = func(w http.ResponseWriter, _ *http.Request) bool {
			if p.upgrades() > 1 {
				return false
			}
			time.Sleep(time.Second)
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		pool := p.pool()
		var callers sync.WaitGroup
		for range 5 {
			callers.Go(func() {
				_, err := pool.Session(ctxOf(t), token(1))
				if e := want(t, err, share.LPUnavailable); e.RetryAfter != 7*time.Second {
					t.Errorf("retry after %v", e.RetryAfter)
				}
			})
		}
		callers.Wait()
		if pool.Len() != 0 {
			t.Error("the failed session is still in the pool")
		}
		s, err := pool.Session(ctxOf(t), token(1))
		if err != nil {
			t.Fatal(err)
		}
		s.Release()
	})
}

// consumerNo returns the token of one of several consumers.
func consumerNo(n int) share.Credential {
	return tokenOf(fmt.Sprintf(`{"sub":"consumer %d","aud":"acc:12345678"}`, n))
}

func TestPool_EvictsTheLongestIdleSession(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		pool := p.pool(func(c *Config) { c.MaxSessions, c.IdleClose = 2, time.Hour })
		open := func(n int) *Session {
			t.Helper()
			s, err := pool.Session(ctxOf(t), consumerNo(n))
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		one, two := open(1), open(2)
		two.Release()
		time.Sleep(time.Minute)
		one.Release()
		three := open(3) // in place of 2
		if n := pool.Len(); n != 2 {
			t.Errorf("%d sessions", n)
		}
		before := p.upgrades()
		one = open(1)
		if n := p.upgrades() - before; n != 0 {
			t.Error("the session that was idle for less time was closed")
		}
		_, err := pool.Session(ctxOf(t), consumerNo(2))
		if e := want(t, err, share.SessionLimit); e.RetryAfter == 0 || e.Metadata["limit"] != "sessions" {
			t.Errorf("%v, %v", e.RetryAfter, e.Metadata)
		}
		one.Release()
		three.Release()
		open(2).Release()
		wantCounted(t, pool, 2)
	})
}

// wantCounted wants that many sessions, all of them idle.
func wantCounted(t *testing.T, pool *Pool, n int) {
	t.Helper()
	synctest.Wait()
	pool.mu.Lock()
	defer pool.mu.Unlock()
	if len(pool.sessions) != n || pool.accepted != n || pool.idle.Len() != n || pool.used.Callers() != 0 {
		t.Errorf("%d sessions, %d accepted, %d idle, %d callers; want %d of each", len(pool.sessions), pool.accepted, pool.idle.Len(), pool.used.Callers(), n)
	}
}

// New callers need not wait until the sessions of earlier ones have been idle for IdleClose.
func TestPool_NewCallersReplaceIdleOnes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		pool := p.pool(func(c *Config) { c.MaxSessions, c.IdleClose = 10, time.Hour })
		for n := range 50 {
			s, err := pool.Session(ctxOf(t), consumerNo(n))
			if err != nil {
				t.Fatal(err)
			}
			s.Release()
		}
		wantCounted(t, pool, 10)
		time.Sleep(2 * time.Hour)
		wantCounted(t, pool, 0)
	})
}

// Openings that LivePerson has not accepted do not count as sessions.
func TestPool_OpeningsDoNotUseUpSessions(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		honest := consumerNo(0)
		p.upgrade = func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.Header.Get("Authorization"), honest.Secret) {
				return false
			}
			time.Sleep(10 * time.Second)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		pool := p.pool(func(c *Config) { c.MaxSessions = 2 })
		var junk sync.WaitGroup
		for n := range 50 {
			junk.Go(func() {
				_, err := pool.Session(ctxOf(t), consumerNo(1+n))
				want(t, err, share.TokenInvalid)
			})
		}
		synctest.Wait()
		s, err := pool.Session(ctxOf(t), honest)
		if err != nil {
			t.Fatal(err)
		}
		s.Release()
		junk.Wait()
		wantCounted(t, pool, 1)
	})
}

// A principal has a share of the sessions that are in use, whatever tokens it has, and its idle sessions do not count.
func TestPool_PrincipalHasAShare(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		pool := p.pool(func(c *Config) { c.MaxSessions = 8 })
		var open []*Session
		for n := range 6 {
			s, err := pool.Session(ctxOf(t), token(n))
			if n < 4 && err == nil {
				open = append(open, s)
			} else if e := want(t, err, share.SessionLimit); e.Metadata["limit"] != "caller" {
				t.Errorf("limit %s", e.Metadata["limit"])
			}
		}
		other, err := pool.Session(ctxOf(t), consumerNo(1))
		if err != nil {
			t.Fatal(err)
		}
		other.Release()
		open[0].Release()
		s, err := pool.Session(ctxOf(t), token(10))
		if err != nil {
			t.Fatal(err)
		}
		_, err = pool.Session(ctxOf(t), token(0)) // its session is open and idle
		want(t, err, share.SessionLimit)
		for _, s := range append(open[1:], s) {
			s.Release()
		}
		wantCounted(t, pool, 6)
	})
}

// What a token itself says is wrong is rejected before a socket is opened.
func TestPoolSession_ChecksTheTokenFirst(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		begun := 0
		pool := p.pool(func(c *Config) {
			c.Begin = func(context.Context, share.Credential) (func(bool), error) { begun++; return func(bool) {}, nil }
		})
		expired, early := time.Now().Add(-lpwire.Leeway).Unix(), time.Now().Add(lpwire.Leeway+time.Second).Unix()
		for _, c := range []struct {
			cred share.Credential
			want share.Kind
		}{
			{share.Credential{Scheme: share.ConsumerToken, Account: account, Secret: "garbage"}, share.TokenInvalid},
			{share.Credential{Scheme: share.ConsumerToken, Account: account, Secret: "a.b.c"}, share.TokenInvalid},
			{tokenOf(`{"aud":"acc:12345678"}`), share.TokenInvalid},
			{tokenOf(fmt.Sprintf(`{"sub":"me","aud":"acc:12345678","exp":%d}`, expired)), share.TokenInvalid},
			{tokenOf(`{"sub":"me","aud":"acc:12345678","exp":"x"}`), share.TokenInvalid},
			{tokenOf(`{"sub":"me","aud":"acc:12345678","exp":0}`), share.TokenInvalid},
			{tokenOf(fmt.Sprintf(`{"sub":"me","aud":"acc:12345678","nbf":%d}`, early)), share.TokenInvalid},
			{tokenOf(`{"sub":"me","aud":"acc:87654321"}`), share.NotAllowed},
			{tokenOf(`{"sub":"me"}`), share.NotAllowed},
			{share.Credential{Scheme: share.AgentToken, Account: account, Secret: share.AgentGrant{
				Account: account, UserID: "1", UserPID: "p", Bearer: "b", Expires: expired,
			}.Token()}, share.TokenInvalid},
		} {
			_, err := pool.Session(ctxOf(t), c.cred)
			want(t, err, c.want)
		}
		if p.upgrades()+begun != 0 || pool.Len() != 0 {
			t.Errorf("%d upgrades, %d openings, %d sessions", p.upgrades(), begun, pool.Len())
		}
		// Within the leeway LivePerson decides.
		for i, claim := range []string{`"exp":%d`, `"nbf":%d`, `"exp":%d.5`, `"exp":"%d"`} {
			at := map[bool]int64{true: early - 1, false: expired + 1}[i == 1]
			s, err := pool.Session(ctxOf(t), tokenOf(fmt.Sprintf(`{"sub":"me","aud":"acc:12345678",`+claim+`}`, at)))
			if err != nil {
				t.Errorf("%s: %v", claim, err)
				continue
			}
			s.Release()
		}
	})
}

// A session that waits for its opening is given up with its callers, and one that may not begin fails with the reason.
func TestPool_OpeningsAreLimited(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		var ended atomic.Int32
		pool := p.pool(func(c *Config) {
			c.Begin = func(_ context.Context, cred share.Credential) (func(bool), error) {
				if cred.Secret == consumerNo(1).Secret {
					return nil, share.Reject(share.SessionLimit, "too many")
				}
				time.Sleep(5 * time.Second)
				return func(accepted bool) {
					if accepted != (cred.Secret == consumerNo(3).Secret) {
						t.Errorf("accepted: %t", accepted)
					}
					ended.Add(1)
				}, nil
			}
		})
		_, err := pool.Session(ctxOf(t), consumerNo(1))
		want(t, err, share.SessionLimit)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := pool.Session(ctx, consumerNo(2)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		time.Sleep(10 * time.Second)
		if p.upgrades() != 0 || pool.Len() != 0 || ended.Load() != 1 {
			t.Errorf("%d upgrades, %d sessions, %d openings have ended", p.upgrades(), pool.Len(), ended.Load())
		}
		if pool.Opened(consumerNo(3)) {
			t.Error("a session is open that no caller asked for")
		}
		s, err := pool.Session(ctxOf(t), consumerNo(3))
		if err != nil {
			t.Fatal(err)
		}
		if !pool.Opened(consumerNo(3)) || ended.Load() != 2 {
			t.Error("the session is not open, or its opening has not ended")
		}
		s.Release()
	})
}

func TestPool_ClosesIdleSessions(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		pool := p.pool()
		s, err := pool.Session(ctxOf(t), token(1))
		if err != nil {
			t.Fatal(err)
		}
		w, err := s.WatchFiles(ctxOf(t), "", nil)
		if err != nil {
			t.Fatal(err)
		}
		s.Release()
		time.Sleep(time.Hour)
		if pool.Len() != 1 {
			t.Error("the session of a watch was closed")
		}
		w.Close()
		w.Close()
		time.Sleep(4 * time.Minute)
		if pool.Len() != 1 {
			t.Error("the session was closed before IdleClose")
		}
		time.Sleep(2 * time.Minute)
		if pool.Len() != 0 {
			t.Error("the idle session was not closed")
		}
	})
}

func TestPoolClose_EndsEverything(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		p.answer = func(_ *peerSocket, typ, _ string, _ map[string]any) bool { return typ == reqUploadURL } // no answer
		other := token(2)
		p.upgrade = func(_ http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.Header.Get("Authorization"), other.Secret) {
				return false
			}
			<-r.Context().Done()
			return true
		}
		pool := p.pool(func(c *Config) { c.CallTimeout = time.Minute })
		s, err := pool.Session(ctxOf(t), token(1))
		if err != nil {
			t.Fatal(err)
		}
		w, err := s.WatchFiles(ctxOf(t), "", nil)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 3)
		go func() { _, err := s.UploadURL(ctxOf(t), 1, share.PNG); ended <- err }()
		go func() { _, err := pool.Session(ctxOf(t), other); ended <- err }()
		go func() { _, err := w.Next(ctxOf(t)); ended <- err }()
		synctest.Wait()
		begun := time.Now()
		pool.Close()
		if took := time.Since(begun); took > time.Second {
			t.Errorf("closing took %v", took)
		}
		for range 3 {
			want(t, <-ended, share.ServerDraining)
		}
		w.Close()
		s.Release()
		_, err = pool.Session(ctxOf(t), other)
		want(t, err, share.ServerDraining)
		pool.Close()
	})
}

func TestSession_EndsWhenTheTokenExpires(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		pool := p.pool()
		expires := time.Now().Add(2 * time.Hour)
		s, err := pool.Session(ctxOf(t), tokenOf(fmt.Sprintf(`{"sub":"me","aud":"acc:12345678","exp":%d}`, expires.Unix())))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Release()
		time.Sleep(time.Until(expires.Add(lpwire.Leeway)) - time.Second)
		if pool.Len() != 1 {
			t.Error("the session ended before its token")
		}
		time.Sleep(3 * time.Second)
		if pool.Len() != 0 {
			t.Error("the session outlived its token")
		}
		_, err = s.UploadURL(ctxOf(t), 1, share.PNG)
		want(t, err, share.LPIdentityExpired)
	})
}
