package lpws

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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

func TestPool_EvictsTheLongestIdleSession(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		pool := p.pool(func(c *Config) { c.MaxSessions, c.IdleClose = 2, time.Hour })
		open := func(n int) *Session {
			t.Helper()
			s, err := pool.Session(ctxOf(t), token(n))
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
		_, err := pool.Session(ctxOf(t), token(2))
		if e := want(t, err, share.SessionLimit); e.RetryAfter == 0 {
			t.Error("no RetryAfter")
		}
		one.Release()
		three.Release()
		open(2).Release()
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
		time.Sleep(2*time.Hour - time.Second)
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
