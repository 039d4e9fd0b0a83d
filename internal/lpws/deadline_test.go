package lpws

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A stopped context is that of a process that was stopped and goes on: its deadline passes by the clock on the wall, and no timer
// has told it.
type stopped struct {
	context.Context
	deadline time.Time
}

func (s stopped) Deadline() (time.Time, bool) { return s.deadline, true }

// The writer is stuck at a peer that takes nothing when the message comes behind it; when it goes on, the message's time is over.
func TestNothingIsPublishedBehindItsDeadline(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		time      time.Duration
		published int
		kind      share.Kind
	}{
		{"its time is over", 200 * time.Millisecond, 0, share.LPTimeout},
		{"there is time left", time.Minute, 1, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPeer(t)
			stalled, going := make(chan struct{}), make(chan struct{})
			goOn := sync.OnceFunc(func() { close(going) })
			defer goOn()
			p.answer = func(k *peerSocket, typ, id string, _ map[string]any) bool {
				switch typ {
				case madeUp + "stall":
					close(stalled)
					<-going // and reads nothing meanwhile
				case madeUp + "long", reqPublish:
				default:
					return false
				}
				k.send(`{"kind":"resp","reqId":%q,"code":200,"body":{"sequence":7}}`, id)
				return true
			}
			s := p.session(func(c *Config) { c.CallTimeout = time.Minute })
			ask := func(r request) <-chan error {
				answered := make(chan error, 1)
				go func() {
					_, err := s.l.ask(ctxOf(t), lpwire.StepUploadURL, r)
					answered <- err
				}()
				return answered
			}
			first := ask(request{Type: madeUp + "stall"})
			<-stalled
			// More than the kernel takes for a peer that does not read.
			second := ask(request{Type: madeUp + "long", Body: map[string]string{"text": strings.Repeat("x", 32<<20)}})
			conn := func() *conn {
				s.l.mu.Lock()
				defer s.l.mu.Unlock()
				return s.l.conn
			}()
			eventually(t, "the long request is being written", func() bool {
				conn.mu.Lock()
				defer conn.mu.Unlock()
				return len(conn.waiting) == 2 && conn.writing && len(conn.out) == 0
			})

			deadline := time.Now().Add(c.time)
			published := make(chan error, 1)
			go func() {
				_, err := s.PublishFile(stopped{t.Context(), deadline}, "c", "", share.HostedFile{StoragePath: folder + "a", FileType: "JPG"})
				published <- err
			}()
			eventually(t, "the message is behind it", func() bool { return len(conn.out) == 1 })
			if c.published == 0 {
				time.Sleep(time.Until(deadline) + 10*time.Millisecond)
			}
			goOn()
			for _, answered := range []<-chan error{first, second} {
				if err := <-answered; err != nil {
					t.Error(err)
				}
			}
			if err := <-published; share.KindOf(err) != c.kind {
				t.Errorf("it ended with %v, want %q", err, c.kind)
			}
			// Frames come in order: what is behind the message has been read, so the message would have been too.
			if err := <-ask(request{Type: reqClock}); err != nil {
				t.Error(err)
			}
			if n := p.asked(reqPublish); n != c.published {
				t.Errorf("the peer was told %d messages, want %d", n, c.published)
			}
		})
	}
}

// Where nothing was sent, the session says so, whatever the reason is called that ended its context.
func TestAMessageThatWasNeverSentIsNotUnconfirmed(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	s := p.session()
	for name, ctx := range map[string]context.Context{
		"its time was over before": stopped{t.Context(), time.Now().Add(-time.Hour)},
		"and ctx knows":            ended(share.Errorf(share.LPPublishUnconfirmed, "not in time", nil)),
	} {
		if _, err := s.PublishFile(ctx, "c", "", share.HostedFile{StoragePath: folder + "a", FileType: "JPG"}); !share.Is(err, share.LPTimeout) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := p.asked(reqPublish); n != 0 {
		t.Errorf("%d messages were sent", n)
	}
}

func ended(why error) context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(why)
	return ctx
}
