package service

import (
	"context"
	"testing"
	"time"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/internal/upload"
)

// A process that was stopped before it wrote its message, and goes on behind the deadline, has published nothing: a repeat does.
func TestAMessageThatCouldNotBeSentInTimeIsTheRepeatsToSend(t *testing.T) {
	h := newHouse(t)
	h.lp.fail("PublishFile", kindError(share.LPTimeout))
	b := picture(1000)
	s := spec(b)
	_, err := h.upload(h.alice(), whole(s, b, 1000)...)
	refused(t, err, share.LPTimeout)
	if n := len(h.lp.messages()); n != 0 {
		t.Errorf("%d messages", n)
	}
	rec, _, err := h.book.Load(context.Background(), upload.Key(h.lp.tokens[aliceToken], s.GetRequestId()))
	if err != nil || rec.State != share.Stored || !rec.PublishDeadline.IsZero() {
		t.Errorf("the record is %s until %s, %v; want one that may be taken over at once", rec.State, rec.PublishDeadline, err)
	}
	h.replay(aliceToken, s)
	h.published(b)
}

// One that was stopped after it wrote, for longer than anybody waits, still looks for its message.
func TestAMessageIsLookedForHoweverLongItsSenderWasStopped(t *testing.T) {
	h := newHouse(t)
	h.lp.then("PublishFile", func(context.Context) error {
		time.Sleep(2*h.server.PublishTimeout + h.server.Settle + 50*time.Millisecond)
		return kindError(share.LPPublishUnconfirmed)
	})
	b := picture(1000)
	s := spec(b)
	if _, err := h.upload(h.alice(), whole(s, b, 1000)...); err != nil {
		t.Errorf("it was there to be found, and the caller heard %v", err)
	}
	h.published(b)
	if st := h.state(s.GetRequestId()); st.GetState() != pb.UploadState_UPLOAD_STATE_PUBLISHED {
		t.Errorf("the upload is %v", st)
	}
}

// The deadline that others count on, and that the session is given, is by the wall clock: a monotonic one stands still while a machine
// is suspended.
func TestThePublishDeadlineIsByTheWallClock(t *testing.T) {
	h := newHouse(t)
	b := picture(1000)
	s := spec(b)
	h.lp.on("PublishFile", func(ctx context.Context) error {
		deadline, ok := ctx.Deadline()
		rec, _, err := h.book.Load(context.Background(), upload.Key(h.lp.tokens[aliceToken], s.GetRequestId()))
		if !ok || err != nil || !deadline.Equal(rec.PublishDeadline) || deadline != deadline.Round(0) {
			t.Errorf("the session has until %s (%v), and the record says %s, %v", deadline, ok, rec.PublishDeadline, err)
		}
		return nil
	})
	if _, err := h.upload(h.alice(), whole(s, b, 1000)...); err != nil {
		t.Fatal(err)
	}
	h.published(b)
}
