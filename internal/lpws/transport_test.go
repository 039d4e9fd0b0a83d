package lpws

import (
	"context"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A stopped context is that of a process that was stopped and goes on: its deadline passes by the clock on the wall, and no timer
// has told it.
type stopped struct {
	context.Context
	deadline time.Time
}

func (s stopped) Deadline() (time.Time, bool) { return s.deadline, true }

// Where nothing was sent, the session says so, whatever the reason is called that ended its context.
func TestPublishFile_NotUnconfirmedIfNotSent(t *testing.T) {
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
