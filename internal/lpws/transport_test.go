package lpws

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// suspended is a context of a process that was suspended: its deadline passes by the wall clock, and no timer has fired.
type suspended struct {
	context.Context
	deadline time.Time
}

func (s suspended) Deadline() (time.Time, bool) { return s.deadline, true }

// stalledPeer returns a peer that has stopped reading, and a session with a request that is being written to it. resume makes the
// peer read again; written receives the error of the request.
func stalledPeer(t *testing.T) (p *peer, s *Session, resume func(), written <-chan error) {
	p = newPeer(t)
	stalled := make(chan struct{})
	resume = sync.OnceFunc(func() { close(stalled) })
	t.Cleanup(resume)
	var hasStalled atomic.Bool
	p.answer = func(k *peerSocket, typ, id string, _ map[string]any) bool {
		switch typ {
		case fictional + "stall":
			if !hasStalled.Swap(true) { // it reads again on the next connection
				<-stalled
			}
		case fictional + "blocked", reqPublish:
		default:
			return false
		}
		k.send(`{"kind":"resp","reqId":%q,"code":200,"body":{"sequence":7}}`, id)
		return true
	}
	s = p.session(func(c *Config) { c.CallTimeout = time.Minute })
	call := func(typ string) <-chan error {
		done := make(chan error, 1)
		go func() {
			_, err := s.s.call(ctxOf(t), lpwire.StepUploadURL, request{Type: typ})
			done <- err
		}()
		synctest.Wait()
		return done
	}
	call(fictional + "stall")
	return p, s, resume, call(fictional + "blocked")
}

func publishAsync(ctx context.Context, s *Session) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := s.PublishFile(ctx, "c", "", share.HostedFile{StoragePath: folder + "a", FileType: "JPG"})
		done <- err
	}()
	synctest.Wait()
	return done
}

func TestPublishFile_NotAfterItsDeadline(t *testing.T) {
	for _, c := range []struct {
		name      string
		timeout   time.Duration
		published int
		kind      share.Kind
	}{
		{"deadline passed", time.Second, 0, share.LPTimeout},
		{"in time", 3 * time.Second, 1, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p, s, resume, written := stalledPeer(t)
				// The message waits until the peer reads the request before it.
				published := publishAsync(suspended{t.Context(), time.Now().Add(c.timeout)}, s)
				time.Sleep(2 * time.Second)
				resume()
				if err := <-written; err != nil {
					t.Error(err)
				}
				if err := <-published; share.KindOf(err) != c.kind {
					t.Errorf("publishing failed with %v, want %q", err, c.kind)
				}
				synctest.Wait()
				if n := p.requests(reqPublish); n != c.published {
					t.Errorf("the peer received %d messages, want %d", n, c.published)
				}
			})
		})
	}
}

func TestTransport_WaitingWriterGivesUpWithItsContext(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p, s, resume, written := stalledPeer(t)
		reason := errors.New("the caller's reason")
		ctx, cancel := context.WithCancelCause(ctxOf(t))
		published := publishAsync(ctx, s)
		begun := time.Now()
		cancel(reason)
		if err := <-published; !errors.Is(err, reason) || time.Since(begun) != 0 {
			t.Errorf("publishing failed with %v after %v", err, time.Since(begun))
		}
		resume()
		if err := <-written; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if n := p.requests(reqPublish); n != 0 {
			t.Errorf("the peer received %d messages", n)
		}
	})
}

func TestTransport_StuckWriteEndsTheConnection(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p, _, _, written := stalledPeer(t)
		begun := time.Now()
		// The call is repeated on the next connection.
		if err := <-written; err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took < writeTimeout || took > writeTimeout+time.Second {
			t.Errorf("took %v", took)
		}
		if n := p.upgrades(); n != 2 {
			t.Errorf("%d connections", n)
		}
	})
}

func TestTransport_StuckPublishIsUnconfirmed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		stalled := make(chan struct{})
		defer close(stalled)
		p.answer = func(_ *peerSocket, typ, _ string, _ map[string]any) bool {
			if typ == fictional+"stall" {
				<-stalled
			}
			return false
		}
		s := p.session(func(c *Config) { c.CallTimeout = time.Minute })
		go func() { _, _ = s.s.call(ctxOf(t), lpwire.StepUploadURL, request{Type: fictional + "stall"}) }()
		synctest.Wait()
		// The write is stuck, and must not go on after the deadline.
		begun := time.Now()
		err := <-publishAsync(suspended{t.Context(), begun.Add(time.Second)}, s)
		want(t, err, share.LPPublishUnconfirmed)
		if took := time.Since(begun); took > time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestPublishFile_NotUnconfirmedIfNotSent(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		s := p.session()
		for name, ctx := range map[string]context.Context{
			"deadline passed": suspended{t.Context(), time.Now().Add(-time.Hour)},
			"context ended":   endedContext(share.Errorf(share.LPPublishUnconfirmed, "not in time", nil)),
		} {
			_, err := s.PublishFile(ctx, "c", "", share.HostedFile{StoragePath: folder + "a", FileType: "JPG"})
			if !share.Is(err, share.LPTimeout) {
				t.Errorf("%s: %v", name, err)
			}
		}
		synctest.Wait()
		if n := p.requests(reqPublish); n != 0 {
			t.Errorf("the peer received %d messages", n)
		}
	})
}

// endedContext returns a context that has ended for that reason.
func endedContext(cause error) context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	return ctx
}

func TestTransport_KeepAlive(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		s := p.session()
		time.Sleep(time.Hour)
		if n := p.upgrades(); n != 1 {
			t.Fatalf("%d connections in an idle hour", n)
		}
		p.mu.Lock()
		p.mute = true
		p.mu.Unlock()
		time.Sleep(90 * time.Second) // 2.5 intervals of 30 s, and less than 0.5 since the last pong
		if n := p.upgrades(); n < 2 {
			t.Error("a silent peer was not noticed")
		}
		if _, err := s.UploadURL(ctxOf(t), 1, share.PNG); err != nil {
			t.Error(err)
		}
	})
}
