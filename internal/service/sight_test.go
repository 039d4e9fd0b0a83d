package service

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// partial has the sights with which not finding a message proves nothing.
var partial = map[string]share.Sight{"reported by webhooks": share.SeesReported, "its own": share.SeesOwn}

func TestUpload_PartialSightNeverSendsAgain(t *testing.T) {
	for name, sight := range partial {
		t.Run(name, inBubble(func(t *testing.T) {
			h := newHarness(t)
			h.lp.sight = sight
			h.lp.failAlways("PublishFile", kindError(share.LPPublishUnconfirmed)) // it may have been sent, and is not seen
			b := picture(1000)
			s := spec(b)
			_, err := h.upload(h.alice(), whole(s, b, 1000)...)
			wantError(t, err, share.LPPublishUnconfirmed)

			// It makes no difference how much later the retries are.
			time.Sleep(h.server.PublishTimeout + h.server.Settle)
			for range 2 {
				_, err = h.upload(h.alice(), whole(s, b, 1000)...)
				wantError(t, err, share.LPPublishUnconfirmed)
			}
			if n := h.lp.count("PublishFile"); n != 1 {
				t.Errorf("the message was sent %d times", n)
			}
			if st := h.state(s.GetRequestId()); st.GetState() != pb.UploadState_UPLOAD_STATE_PUBLISHING {
				t.Errorf("the upload is %v", st)
			}

			// LivePerson reports the message after all.
			e := h.lp.send(conversation, h.store.recordedPuts()[0].path, "alice")
			resp := h.replay(aliceToken, s)
			if resp.GetFile().GetMessageSequence() != e.Sequence || h.lp.count("PublishFile") != 1 {
				t.Errorf("got %v", resp)
			}
			h.wantPublished(b)
			if st := h.state(s.GetRequestId()); st.GetState() != pb.UploadState_UPLOAD_STATE_PUBLISHED {
				t.Errorf("the upload is %v", st)
			}
		}))
	}
}

func TestUpload_EchoConfirmsLostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.lp.sight = share.SeesReported
		h.lp.then("PublishFile", unconfirmed)
		b := picture(1000)
		resp := h.put(b)
		if e := h.wantPublished(b); resp.GetFile().GetMessageSequence() != e.Sequence || h.lp.count("PublishFile") != 1 {
			t.Errorf("got %v", resp)
		}
	})
}

func TestCreateConversation_PartialSightNeverCreatesAgain(t *testing.T) {
	for name, sight := range partial {
		t.Run(name, inBubble(func(t *testing.T) {
			h := newHarness(t)
			h.lp.sight = sight
			h.lp.failAlways("CreateConversation", kindError(share.LPPublishUnconfirmed))
			req := &pb.CreateConversationRequest{Account: accountName(account), RequestId: uuid.NewString()}
			for range 3 {
				_, err := h.convs.CreateConversation(h.alice(), req)
				wantError(t, err, share.LPPublishUnconfirmed)
			}
			if n := h.lp.count("CreateConversation"); n != 1 {
				t.Errorf("CreateConversation was called %d times", n)
			}
			// A conversation that began much later is another one.
			h.lp.addConversation("another", true, "alice")
			h.lp.state.Lock()
			h.lp.convs[len(h.lp.convs)-1].Start = time.Now().Add(time.Hour)
			h.lp.state.Unlock()
			_, err := h.convs.CreateConversation(h.alice(), req)
			wantError(t, err, share.LPPublishUnconfirmed)
			h.lp.addConversation("reported-late", true, "alice")
			h.lp.state.Lock()
			h.lp.convs[len(h.lp.convs)-1].Start = time.Now()
			h.lp.state.Unlock()
			resp, err := h.convs.CreateConversation(h.alice(), req)
			switch {
			case sight == share.SeesOwn: // it never sees the lost one
				wantError(t, err, share.LPPublishUnconfirmed)
			case err != nil || !resp.GetReplayed() || resp.GetConversation().GetName() != conversationName(account, "reported-late"):
				t.Errorf("got %v, %v", resp, err)
			}
			// After an error that proves that there is no conversation, the next call creates one.
			h.lp.failAlways("CreateConversation", kindError(share.LPRateLimited))
			other := &pb.CreateConversationRequest{Account: accountName(account), RequestId: uuid.NewString()}
			_, err = h.convs.CreateConversation(h.alice(), other)
			wantError(t, err, share.LPRateLimited)
			h.lp.on("CreateConversation", nil)
			if resp, err := h.convs.CreateConversation(h.alice(), other); err != nil || resp.GetReplayed() {
				t.Errorf("got %v, %v", resp, err)
			}
		}))
	}
}

func TestWatchFiles_ReportsWatchReset(t *testing.T) {
	for name, fail := range map[string]string{"at the beginning": "WatchFiles", "later": "Next"} {
		t.Run(name, inBubble(func(t *testing.T) {
			h := newHarness(t)
			h.lp.failAlways(fail, share.ErrWatchReset)
			stream, err := h.files.WatchFiles(h.alice(), &pb.WatchFilesRequest{Parent: parent})
			if err != nil {
				t.Fatal(err)
			}
			for err == nil {
				_, err = stream.Recv()
			}
			wantError(t, err, share.WatchReset)
		}))
	}
}
