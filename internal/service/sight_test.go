package service

import (
	"testing"
	"time"

	"github.com/google/uuid"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// partial are the sights with which absence proves nothing.
var partial = map[string]share.Sight{"what it is told": share.SeesReported, "its own": share.SeesOwn}

func TestWhereAbsenceProvesNothingAMessageIsNeverSentAgain(t *testing.T) {
	for name, sight := range partial {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.lp.sight = sight
			h.lp.failAlways("PublishFile", kindError(share.LPPublishUnconfirmed)) // it is on its way, and is not seen
			b := picture(1000)
			s := spec(b)
			began := time.Now()
			_, err := h.upload(h.alice(), whole(s, b, 1000)...)
			refused(t, err, share.LPPublishUnconfirmed)
			t.Logf("told after %s", time.Since(began).Round(time.Millisecond))

			// However long it is, and whoever asks.
			time.Sleep(h.server.PublishTimeout + h.server.Settle)
			for range 2 {
				_, err = h.upload(h.alice(), whole(s, b, 1000)...)
				refused(t, err, share.LPPublishUnconfirmed)
			}
			if n := h.lp.count("PublishFile"); n != 1 {
				t.Errorf("it was sent %d times", n)
			}
			if st := h.state(s.GetRequestId()); st.GetState() != pb.UploadState_UPLOAD_STATE_PUBLISHING {
				t.Errorf("the upload is %v", st)
			}

			// It is told of after all.
			e := h.lp.send(conversation, h.store.tries()[0].path, "alice")
			resp := h.replay(aliceToken, s)
			if resp.GetFile().GetMessageSequence() != e.Sequence || h.lp.count("PublishFile") != 1 {
				t.Errorf("got %v", resp)
			}
			h.published(b)
			if st := h.state(s.GetRequestId()); st.GetState() != pb.UploadState_UPLOAD_STATE_PUBLISHED {
				t.Errorf("the upload is %v", st)
			}
		})
	}
}

func TestAnEchoConfirmsALostAnswer(t *testing.T) {
	h := newHouse(t)
	h.lp.sight = share.SeesReported
	h.lp.then("PublishFile", unconfirmed)
	b := picture(1000)
	resp := h.put(b)
	if e := h.published(b); resp.GetFile().GetMessageSequence() != e.Sequence || h.lp.count("PublishFile") != 1 {
		t.Errorf("got %v", resp)
	}
}

func TestWhereAbsenceProvesNothingAConversationIsNeverOpenedAgain(t *testing.T) {
	for name, sight := range partial {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.lp.sight = sight
			h.lp.failAlways("CreateConversation", kindError(share.LPPublishUnconfirmed))
			req := &pb.CreateConversationRequest{Account: accountName(account), RequestId: uuid.NewString()}
			for range 3 {
				_, err := h.convs.CreateConversation(h.alice(), req)
				refused(t, err, share.LPPublishUnconfirmed)
			}
			if n := h.lp.count("CreateConversation"); n != 1 {
				t.Errorf("it was asked for %d times", n)
			}
			// Another one, that somebody opened later, is not it.
			h.lp.addConversation("another", true, "alice")
			h.lp.state.Lock()
			h.lp.convs[len(h.lp.convs)-1].Start = time.Now().Add(time.Hour)
			h.lp.state.Unlock()
			_, err := h.convs.CreateConversation(h.alice(), req)
			refused(t, err, share.LPPublishUnconfirmed)
			h.lp.addConversation("told-late", true, "alice")
			resp, err := h.convs.CreateConversation(h.alice(), req)
			switch {
			case sight == share.SeesOwn: // what it sees is never the one that was lost
				refused(t, err, share.LPPublishUnconfirmed)
			case err != nil || !resp.GetReplayed() || resp.GetConversation().GetName() != conversationName(account, "told-late"):
				t.Errorf("got %v, %v", resp, err)
			}
			// A refusal is no doubt: the next call asks again.
			h.lp.failAlways("CreateConversation", kindError(share.LPRateLimited))
			other := &pb.CreateConversationRequest{Account: accountName(account), RequestId: uuid.NewString()}
			_, err = h.convs.CreateConversation(h.alice(), other)
			refused(t, err, share.LPRateLimited)
			h.lp.on("CreateConversation", nil)
			if resp, err := h.convs.CreateConversation(h.alice(), other); err != nil || resp.GetReplayed() {
				t.Errorf("got %v, %v", resp, err)
			}
		})
	}
}

func TestAWatchThatCannotGoOnInOrderSaysSo(t *testing.T) {
	for name, fail := range map[string]string{"at its beginning": "WatchFiles", "later": "Next"} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.lp.failAlways(fail, share.ErrWatchReset)
			stream, err := h.files.WatchFiles(h.alice(), &pb.WatchFilesRequest{Parent: parent})
			if err != nil {
				t.Fatal(err)
			}
			for err == nil {
				_, err = stream.Recv()
			}
			refused(t, err, share.WatchReset)
		})
	}
}
