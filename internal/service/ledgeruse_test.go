package service

import (
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/internal/upload"
)

func (h *harness) wantNoUpload(id string) {
	h.t.Helper()
	_, err := h.files.GetUpload(h.alice(), &pb.GetUploadRequest{Name: accountName(account) + "/uploads/" + id})
	wantError(h.t, err, share.UploadNotFound)
}

// A call that has nowhere to publish writes nothing to the ledger.
func TestUpload_ConversationIsCheckedBeforeTheClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		for kind, id := range map[share.Kind]string{share.ConversationNotFound: "conv-bob", share.ConversationClosed: "conv-closed"} {
			s := spec(b, func(s *pb.UploadSpec) { s.Conversation = conversationName(account, id) })
			_, err := h.upload(h.alice(), whole(s, b, 1000)...)
			wantError(t, err, kind)
			h.wantNoUpload(s.GetRequestId())
		}
		if n := h.ledger.count("Save"); n != 0 {
			t.Errorf("%d records were written", n)
		}
	})
}

// The result of an upload does not depend on the conversation, which may have been closed since.
func TestUpload_ReplayAfterTheConversationWasClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		s := spec(b)
		if _, err := h.upload(h.alice(), whole(s, b, 1000)...); err != nil {
			t.Fatal(err)
		}
		h.lp.failAlways("Conversation", kindError(share.ConversationNotFound))
		h.replay(aliceToken, s)
	})
}

func TestUpload_FailureIsForgottenWithinMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		s := spec(b)
		_, err := h.upload(h.alice(), first(s), chunk(1, b))
		wantError(t, err, share.OffsetMismatch)
		time.Sleep(4 * time.Minute)
		if st := h.state(s.GetRequestId()); st.GetState() != pb.UploadState_UPLOAD_STATE_FAILED {
			t.Errorf("the upload is %v", st)
		}
		time.Sleep(2 * time.Minute)
		h.wantNoUpload(s.GetRequestId())
		if resp, err := h.upload(h.alice(), whole(s, b, 1000)...); err != nil || resp.GetReplayed() {
			t.Errorf("got %v, %v, want a new upload", resp, err)
		}
		h.wantPublished(b)
		time.Sleep(h.server.RequestIDTTL - time.Minute)
		h.replay(aliceToken, s)
	})
}

// A file that is stored stays known although publishing it failed: the repeat only publishes it.
func TestUpload_FailureWithAStoredFileIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		s := spec(b)
		h.lp.fail("PublishFile", kindError(share.LPRateLimited))
		_, err := h.upload(h.alice(), whole(s, b, 1000)...)
		wantError(t, err, share.LPRateLimited)
		time.Sleep(h.server.RequestIDTTL - time.Minute)
		h.replay(aliceToken, s)
		if n := h.store.count("Put"); n != 1 {
			t.Errorf("the file was stored %d times", n)
		}
		h.wantPublished(b)
	})
}

// Nobody repeats an id that the server created, so its failure is not kept.
func TestUpload_FailureOfACreatedIDIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		_, err := h.upload(h.alice(), first(spec(b, withID(""))), chunk(1, b))
		e := wantError(t, err, share.OffsetMismatch)
		h.wantNoUpload(e.GetMetadata()["requestId"])
	})
}

// An upload whose client has gone is forgotten once it can no longer run.
func TestUpload_AbandonedIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		s := spec(picture(1000))
		h.begin(h.alice(), s)
		if left := time.Until(h.state(s.GetRequestId()).GetExpireTime().AsTime()); left < h.server.UploadTimeout || left > h.server.UploadTimeout+10*time.Minute {
			t.Errorf("the record is kept for %s, an upload may take %s", left, h.server.UploadTimeout)
		}
	})
}

// recordOf returns the record of one of alice's uploads.
func (h *harness) recordOf(id string) share.Record {
	h.t.Helper()
	rec, rev, err := h.ledger.Memory.Load(h.t.Context(), upload.Key(h.lp.tokens[aliceToken], id))
	if err != nil || rev == 0 {
		h.t.Fatalf("revision %d, %v", rev, err)
	}
	return rec
}

// Once a file is published its message has the preview and the caption, and the ledger has not.
func TestUpload_PublishedRecordHasNoPreviewAndCaption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		decorated := func(s *pb.UploadSpec) {
			s.Caption = "a caption"
			s.Preview = &pb.Preview{Source: &pb.Preview_DataUri{DataUri: "data:image/jpeg;base64,AAAA"}}
		}
		check := func(what string, s *pb.UploadSpec, resp *pb.File) {
			t.Helper()
			if resp.GetCaption() != "a caption" {
				t.Errorf("%s: the response has the caption %q", what, resp.GetCaption())
			}
			rec := h.recordOf(s.GetRequestId())
			if f := rec.File.File; f.Caption != "" || f.Preview != "" || rec.Attempt != "" || rec.DeclaredSize != nil || !rec.PublishDeadline.IsZero() {
				t.Errorf("%s: the record is %+v, %+v", what, rec, f)
			}
		}
		s := spec(b, decorated)
		resp, err := h.upload(h.alice(), whole(s, b, 1000)...)
		if err != nil {
			t.Fatal(err)
		}
		check("published", s, resp.GetFile())
		check("replayed", s, h.replay(aliceToken, s).GetFile())
		if e := h.wantPublished(b); e.File.Caption != "a caption" || e.File.Preview == "" {
			t.Errorf("the message is %+v", e)
		}

		s = spec(b, decorated, storeOnly)
		if resp, err = h.upload(h.alice(), whole(s, b, 1000)...); err != nil {
			t.Fatal(err)
		}
		if f := h.recordOf(s.GetRequestId()).File.File; f.Caption == "" || f.Preview == "" {
			t.Errorf("a stored file has lost what its message needs: %+v", f)
		}
		for _, what := range []string{"PublishUpload", "PublishUpload, replayed"} {
			p, err := h.files.PublishUpload(h.alice(), &pb.PublishUploadRequest{Name: resp.GetUpload()})
			if err != nil {
				t.Fatal(err)
			}
			check(what, s, p.GetFile())
		}
	})
}
