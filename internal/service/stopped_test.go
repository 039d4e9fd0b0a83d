package service

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/internal/upload"
)

// A process that was paused before it sent its message, and continues after the deadline, publishes nothing. A retry does.
func TestUpload_MessageNotSentInTimeIsSentByRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.lp.fail("PublishFile", kindError(share.LPTimeout))
		b := picture(1000)
		s := spec(b)
		_, err := h.upload(h.alice(), whole(s, b, 1000)...)
		wantError(t, err, share.LPTimeout)
		if n := len(h.lp.messages()); n != 0 {
			t.Errorf("%d messages", n)
		}
		rec, _, err := h.ledger.Load(context.Background(), upload.Key(h.lp.tokens[aliceToken], s.GetRequestId()))
		if err != nil || rec.State != share.Stored || !rec.PublishDeadline.IsZero() {
			t.Errorf("the record is %s until %s, %v; want one that can be taken over at once", rec.State, rec.PublishDeadline, err)
		}
		h.replay(aliceToken, s)
		h.wantPublished(b)
	})
}

// A process that was paused after it sent its message, for longer than any timeout, still looks for it.
func TestUpload_LooksForMessageAfterLongPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.lp.then("PublishFile", func(context.Context) error {
			time.Sleep(2*h.server.PublishTimeout + h.server.Settle + 50*time.Millisecond)
			return kindError(share.LPPublishUnconfirmed)
		})
		b := picture(1000)
		s := spec(b)
		if _, err := h.upload(h.alice(), whole(s, b, 1000)...); err != nil {
			t.Errorf("the message exists, and the call returned %v", err)
		}
		h.wantPublished(b)
		if st := h.state(s.GetRequestId()); st.GetState() != pb.UploadState_UPLOAD_STATE_PUBLISHED {
			t.Errorf("the upload is %v", st)
		}
	})
}

// The deadline in the record, which other servers rely on, is also that of the session, by the wall clock: the monotonic clock stops
// while a machine is suspended. A synctest bubble has no monotonic clock, so this test uses real time.
func TestUpload_PublishDeadlineIsWallClock(t *testing.T) {
	h := newHarness(t)
	b := picture(1000)
	s := spec(b)
	h.lp.on("PublishFile", func(ctx context.Context) error {
		deadline, ok := ctx.Deadline()
		rec, _, err := h.ledger.Load(context.Background(), upload.Key(h.lp.tokens[aliceToken], s.GetRequestId()))
		if !ok || err != nil || !deadline.Equal(rec.PublishDeadline) || deadline != deadline.Round(0) {
			t.Errorf("the deadline of the session is %s (%v), that of the record %s, %v", deadline, ok, rec.PublishDeadline, err)
		}
		return nil
	})
	if _, err := h.upload(h.alice(), whole(s, b, 1000)...); err != nil {
		t.Fatal(err)
	}
	h.wantPublished(b)
}
