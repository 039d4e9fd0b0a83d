package service

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/internal/upload"
)

// state returns the upload of a request id.
func (h *harness) state(id string) *pb.Upload {
	h.t.Helper()
	r, err := h.files.GetUpload(h.alice(), &pb.GetUploadRequest{Name: accountName(account) + "/uploads/" + id})
	if err != nil {
		h.t.Fatal(err)
	}
	return r.GetUpload()
}

// replay sends only a spec, without half-close, and wants the result of the earlier upload.
func (h *harness) replay(token string, s *pb.UploadSpec) *pb.UploadResponse {
	h.t.Helper()
	stream, err := h.files.Upload(h.as(token))
	if err != nil {
		h.t.Fatal(err)
	}
	if err := stream.Send(first(s)); err != nil {
		h.t.Fatal(err)
	}
	md, err := stream.Header()
	if err != nil {
		h.t.Fatal(err)
	}
	resp := new(pb.UploadResponse)
	if err := stream.RecvMsg(resp); err != nil {
		h.t.Fatal(err)
	}
	if got := md.Get(RequestIDHeader); !slices.Equal(got, []string{resp.GetRequestId()}) {
		h.t.Errorf("the header has %v, want %s", got, resp.GetRequestId())
	}
	if !resp.GetReplayed() {
		h.t.Error("the response is not marked as replayed")
	}
	return resp
}

func TestUpload_FinishedIsReplayedAfterItsSpec(t *testing.T) {
	for what, change := range map[string][]func(*pb.UploadSpec){"published": nil, "stored only": {storeOnly}} {
		t.Run(what, inBubble(func(t *testing.T) {
			h := newHarness(t)
			b := picture(100_000)
			s := spec(b, change...)
			was, err := h.upload(h.alice(), whole(s, b, 50_000)...)
			if err != nil {
				t.Fatal(err)
			}
			before := h.storedAndPublished()
			for _, token := range []string{aliceToken, renewedToken} { // a renewed token is the same caller
				resp := h.replay(token, s)
				if !proto.Equal(resp.GetFile(), was.GetFile()) {
					t.Errorf("got %v, want %v", resp, was)
				}
			}
			if after := h.storedAndPublished(); after != before {
				t.Errorf("there are %s, want %s", after, before)
			}
		}))
	}
}

func TestUpload_RequestIDBelongsToOneCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		s := spec(b)
		if _, err := h.upload(h.alice(), whole(s, b, 1000)...); err != nil {
			t.Fatal(err)
		}
		_, err := h.files.GetUpload(h.as(bobToken), &pb.GetUploadRequest{Name: accountName(account) + "/uploads/" + s.GetRequestId()})
		wantError(t, err, share.UploadNotFound)
		resp, err := h.upload(h.as(bobToken), whole(s, b, 1000)...)
		if err != nil || resp.GetReplayed() || len(h.lp.messages()) != 2 {
			t.Errorf("bob's upload returned %v, %v, and there are %d messages", resp, err, len(h.lp.messages()))
		}
	})
}

// A retry by another service that may call for the consumer, or by the consumer, finds the record.
func TestUpload_ServicesOfOneConsumerShareRequestIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		s := spec(b)
		orders, billing := h.external(aliceToken, "spiffe://mesh/orders"), h.external(aliceToken, "spiffe://mesh/billing")
		if _, err := h.upload(orders, whole(s, b, 1000)...); err != nil {
			t.Fatal(err)
		}
		for what, ctx := range map[string]context.Context{"the same service": orders, "another service": billing, "the consumer": h.alice()} {
			if u, err := h.files.GetUpload(ctx, &pb.GetUploadRequest{Name: accountName(account) + "/uploads/" + s.GetRequestId()}); err != nil || u.GetUpload() == nil {
				t.Errorf("%s: %v, %v", what, u, err)
			}
			if resp, err := h.upload(ctx, whole(s, b, 1000)...); err != nil || !resp.GetReplayed() {
				t.Errorf("%s repeats the upload: %v, %v", what, resp, err)
			}
		}
		if n := len(h.lp.messages()); n != 1 {
			t.Errorf("%d messages", n)
		}
	})
}

func TestUpload_RequestIDBelongsToOneSpec(t *testing.T) {
	b := picture(1000)
	id := uuid.NewString()
	change := func(f func(*pb.UploadSpec)) func(*pb.UploadSpec) { return f }
	for what, c := range map[string]struct {
		was, is []func(*pb.UploadSpec)
		ok      bool
	}{
		"the same":                          {ok: true},
		"upper case":                        {is: []func(*pb.UploadSpec){withID(strings.ToUpper(id))}, ok: true},
		"another caption":                   {is: []func(*pb.UploadSpec){change(func(s *pb.UploadSpec) { s.Caption = "x" })}},
		"another mode":                      {is: []func(*pb.UploadSpec){storeOnly}},
		"another conversation":              {is: []func(*pb.UploadSpec){change(func(s *pb.UploadSpec) { s.Conversation = conversationName(account, "other") })}},
		"another size":                      {is: []func(*pb.UploadSpec){change(func(s *pb.UploadSpec) { s.SizeBytes = proto.Int64(999) })}},
		"undeclared in the retry":           {is: []func(*pb.UploadSpec){undeclared}, ok: true},
		"undeclared at first":               {was: []func(*pb.UploadSpec){undeclared}, ok: true},
		"checksums only in the retry":       {is: []func(*pb.UploadSpec){change(func(s *pb.UploadSpec) { s.Checksums = sumsOf(b) })}, ok: true},
		"checksums only at first":           {was: []func(*pb.UploadSpec){change(func(s *pb.UploadSpec) { s.Checksums = sumsOf(b) })}, ok: true},
		"other checksums":                   {is: []func(*pb.UploadSpec){change(func(s *pb.UploadSpec) { s.Checksums = sumsOf(b[1:]) })}},
		"another size, undeclared at first": {was: []func(*pb.UploadSpec){undeclared}, is: []func(*pb.UploadSpec){change(func(s *pb.UploadSpec) { s.SizeBytes = proto.Int64(999) })}},
	} {
		t.Run(what, inBubble(func(t *testing.T) {
			h := newHarness(t)
			h.put(b, append([]func(*pb.UploadSpec){withID(id)}, c.was...)...)
			again := spec(b, append([]func(*pb.UploadSpec){withID(id)}, c.is...)...)
			if c.ok {
				h.replay(aliceToken, again)
			} else {
				_, err := h.upload(h.alice(), first(again))
				wantError(t, err, share.RequestIDConflict)
			}
			h.wantPublished(b)
		}))
	}
}

// The declarations of an attempt that did not finish are compared too, if both attempts have them.
func TestUpload_DeclarationOfUnfinishedAttemptIsCompared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		s := spec(b)
		_, err := h.upload(h.alice(), first(s), chunk(0, b[:10]))
		wantError(t, err, share.UploadIncomplete)
		_, err = h.upload(h.alice(), whole(spec(b[:999], withID(s.GetRequestId())), b[:999], 999)...)
		wantError(t, err, share.RequestIDConflict)
		if _, err := h.upload(h.alice(), whole(spec(b, withID(s.GetRequestId()), undeclared), b, 1000)...); err != nil {
			t.Fatal(err)
		}
		h.wantPublished(b)
	})
}

func TestUpload_ServerGeneratesRequestID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(10)
		resp := h.put(b, withID(""))
		if _, err := uuid.Parse(resp.GetRequestId()); err != nil {
			t.Fatalf("%q is no UUID", resp.GetRequestId())
		}
		h.replay(aliceToken, spec(b, withID(resp.GetRequestId())))
		h.wantPublished(b)
	})
}

func TestUpload_NewestOfConcurrentAttemptsPublishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		s := spec(b)
		older := h.begin(h.alice(), s)
		if err := older.Send(chunk(0, b)); err != nil {
			t.Fatal(err)
		}
		newer := h.begin(h.as(renewedToken), s)
		_ = older.Send(finish())
		_, err := older.CloseAndRecv()
		wantError(t, err, share.UploadTakenOver)
		if st := h.state(s.GetRequestId()); st.GetState() != pb.UploadState_UPLOAD_STATE_RECEIVING || st.GetFailure() != nil {
			t.Errorf("the upload is %v: the older attempt must not change it any more", st)
		}
		_ = newer.Send(chunk(0, b))
		_ = newer.Send(finish())
		if resp, err := newer.CloseAndRecv(); err != nil || resp.GetReplayed() {
			t.Fatalf("got %v, %v", resp, err)
		}
		h.wantPublished(b)
	})
}

// Concurrent attempts, in any order, publish one message, and at least the newest succeeds.
func TestUpload_ConcurrentAttemptsPublishOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(3000)
		s := spec(b)
		for range 10 {
			s.RequestId = uuid.NewString()
			before := len(h.lp.messages())
			var wg sync.WaitGroup
			var succeeded atomic.Int32
			for range 5 {
				wg.Go(func() {
					_, err := h.upload(h.alice(), whole(s, b, 100)...)
					if err == nil {
						succeeded.Add(1)
					} else {
						wantError(t, err, share.UploadTakenOver)
					}
				})
			}
			wg.Wait()
			if n := len(h.lp.messages()) - before; n != 1 || succeeded.Load() == 0 {
				t.Fatalf("%d messages, and %d attempts succeeded", n, succeeded.Load())
			}
		}
	})
}

func TestUpload_TakenOverByAnotherServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		s := spec(b)
		stream := h.begin(h.alice(), s)
		key := upload.Key(h.lp.tokens[aliceToken], s.GetRequestId())
		rec, rev, _ := h.ledger.Memory.Load(t.Context(), key)
		rec.Attempt = "elsewhere"
		if _, err := h.ledger.Memory.Save(t.Context(), key, rec, rev); err != nil {
			t.Fatal(err)
		}
		_ = stream.Send(chunk(0, b))
		_ = stream.Send(finish())
		_, err := stream.CloseAndRecv()
		wantError(t, err, share.UploadTakenOver)
		if len(h.lp.messages()) != 0 {
			t.Error("the file was published")
		}
	})
}

func unconfirmed(context.Context) error { return kindError(share.LPPublishUnconfirmed) }

func TestUpload_LostPublishAnswerIsLookedUp(t *testing.T) {
	for what, lost := range map[string]func(context.Context) error{
		"unconfirmed":           unconfirmed,
		"no named condition":    func(context.Context) error { return errors.New("connection reset") },
		"our own deadline":      func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"the deadline as cause": func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) },
	} {
		t.Run(what, inBubble(func(t *testing.T) {
			h := newHarness(t)
			h.lp.then("PublishFile", lost)
			b := picture(1000)
			resp := h.put(b)
			e := h.wantPublished(b)
			if resp.GetFile().GetMessageSequence() != e.Sequence || h.lp.count("PublishFile") != 1 {
				t.Errorf("got %v", resp)
			}
		}))
	}
}

func TestUpload_MessageThatNeverAppearsIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.lp.fail("PublishFile", kindError(share.LPPublishUnconfirmed))
		b := picture(1000)
		began := time.Now()
		h.put(b)
		h.wantPublished(b)
		if took := time.Since(began); took < h.server.PublishTimeout+h.server.Settle {
			t.Errorf("the message was sent again after %s, while the first could still appear", took)
		}
	})
}

// A message can appear until the end of the settle time. The last lookup is after it.
func TestUpload_LateMessageIsNotSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		var late sync.WaitGroup
		defer late.Wait()
		h.lp.on("PublishFile", func(context.Context) error {
			late.Go(func() {
				time.Sleep(h.server.PublishTimeout + h.server.Settle - 20*time.Millisecond)
				h.lp.send(conversation, h.store.recordedPuts()[0].path, "alice")
			})
			return kindError(share.LPPublishUnconfirmed)
		})
		h.put(b)
		h.wantPublished(b)
		if n := h.lp.count("PublishFile"); n != 1 {
			t.Errorf("the message was sent %d times", n)
		}
	})
}

// If the lookup fails, the message may exist: it is not sent again.
func TestUpload_MessageIsNotSentAgainIfLookupFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.lp.failAlways("FindFile", kindError(share.LPUnavailable))
		h.lp.then("PublishFile", unconfirmed)
		b := picture(1000)
		s := spec(b)
		_, err := h.upload(h.alice(), whole(s, b, 1000)...)
		wantError(t, err, share.LPPublishUnconfirmed)
		h.wantPublished(b)
		if st := h.state(s.GetRequestId()); st.GetState() != pb.UploadState_UPLOAD_STATE_PUBLISHING {
			t.Errorf("the upload is %v", st)
		}
		h.lp.on("FindFile", nil)
		resp := h.replay(aliceToken, s)
		if e := h.wantPublished(b); resp.GetFile().GetMessageSequence() != e.Sequence {
			t.Errorf("got %v", resp)
		}
		if st := h.state(s.GetRequestId()); st.GetState() != pb.UploadState_UPLOAD_STATE_PUBLISHED {
			t.Errorf("the upload is %v", st)
		}
	})
}

// denied is LivePerson's word that it did not publish a message.
func denied(kind share.Kind) error {
	e := share.Errorf(kind, "LivePerson rejected the message", nil)
	e.Denied = true
	return e
}

// LivePerson's denial of a message is not believed before the message was looked for.
func TestUpload_DeniedMessageIsLookedFor(t *testing.T) {
	t.Run("published all the same", inBubble(func(t *testing.T) {
		h := newHarness(t)
		h.lp.then("PublishFile", func(context.Context) error { return denied(share.LPForbidden) })
		b := picture(1000)
		resp := h.put(b)
		if e := h.wantPublished(b); resp.GetFile().GetMessageSequence() != e.Sequence || h.lp.count("PublishFile") != 1 {
			t.Errorf("got %v", resp)
		}
	}))
	t.Run("not published", inBubble(func(t *testing.T) {
		h := newHarness(t)
		h.lp.fail("PublishFile", denied(share.LPForbidden))
		b, began := picture(1000), time.Now()
		s := spec(b)
		_, err := h.upload(h.alice(), whole(s, b, 1000)...)
		wantError(t, err, share.LPForbidden)
		if took := time.Since(began); took > 0 || h.lp.count("FindFile") != 1 {
			t.Errorf("the rejection took %s and %d lookups", took, h.lp.count("FindFile"))
		}
		if st := h.state(s.GetRequestId()); st.GetFailure().GetReason() != pb.ErrorReason_ERROR_REASON_LP_FORBIDDEN {
			t.Errorf("the upload is %v", st)
		}
		h.replay(aliceToken, s)
		h.wantPublished(b)
		if took := time.Since(began); took < h.server.Settle {
			t.Errorf("the message was sent again after %s, while the first could still appear", took)
		}
	}))
	t.Run("appears before the retry", inBubble(func(t *testing.T) {
		for name, sight := range map[string]share.Sight{"sees all": share.SeesAll, "reported by webhooks": share.SeesReported} {
			h := newHarness(t)
			h.lp.sight = sight
			h.lp.fail("PublishFile", denied(share.LPRateLimited))
			b := picture(1000)
			s := spec(b)
			_, err := h.upload(h.alice(), whole(s, b, 1000)...)
			wantError(t, err, share.LPRateLimited)
			e := h.lp.send(conversation, h.store.recordedPuts()[0].path, "alice")
			if resp := h.replay(aliceToken, s); resp.GetFile().GetMessageSequence() != e.Sequence || h.lp.count("PublishFile") != 1 {
				t.Errorf("%s: got %v", name, resp)
			}
			h.wantPublished(b)
		}
	}))
	t.Run("believed where LivePerson cannot be asked", inBubble(func(t *testing.T) {
		h := newHarness(t)
		h.lp.sight = share.SeesOwn
		h.lp.fail("PublishFile", denied(share.LPRateLimited))
		b, began := picture(1000), time.Now()
		s := spec(b)
		_, err := h.upload(h.alice(), whole(s, b, 1000)...)
		wantError(t, err, share.LPRateLimited)
		h.replay(aliceToken, s)
		h.wantPublished(b)
		if took := time.Since(began); took > 0 {
			t.Errorf("it took %s", took)
		}
	}))
	t.Run("in a conversation that was left", inBubble(func(t *testing.T) {
		h := newHarness(t)
		h.lp.failAlways("PublishFile", denied(share.ConversationNotFound))
		h.lp.failAlways("FindFile", kindError(share.ConversationNotFound))
		b := picture(1000)
		s := spec(b)
		for range 2 { // a repeat gets the same answer
			_, err := h.upload(h.alice(), whole(s, b, 1000)...)
			wantError(t, err, share.ConversationNotFound)
		}
	}))
	t.Run("not known if what webhooks reported cannot be read", inBubble(func(t *testing.T) {
		h := newHarness(t)
		h.lp.sight = share.SeesReported
		h.lp.then("PublishFile", func(context.Context) error { return denied(share.LPRateLimited) })
		h.lp.failAlways("FindFile", kindError(share.LedgerUnavailable))
		b := picture(1000)
		s := spec(b)
		_, err := h.upload(h.alice(), whole(s, b, 1000)...)
		wantError(t, err, share.LPPublishUnconfirmed)
		_, err = h.upload(h.alice(), whole(s, b, 1000)...)
		wantError(t, err, share.LedgerUnavailable)
		h.lp.on("FindFile", nil)
		if resp := h.replay(aliceToken, s); resp.GetFile().GetMessageSequence() != h.wantPublished(b).Sequence {
			t.Errorf("got %v", resp)
		}
	}))
	t.Run("looked for again before a repeat believes it", inBubble(func(t *testing.T) {
		h := newHarness(t)
		h.lp.sight = share.SeesReported
		h.lp.fail("PublishFile", denied(share.LPRateLimited))
		b := picture(1000)
		s := spec(b)
		_, err := h.upload(h.alice(), whole(s, b, 1000)...)
		wantError(t, err, share.LPRateLimited)
		e := h.lp.send(conversation, h.store.recordedPuts()[0].path, "alice")
		h.lp.fail("FindFile", kindError(share.LedgerUnavailable))
		_, err = h.upload(h.alice(), whole(s, b, 1000)...)
		wantError(t, err, share.LedgerUnavailable)
		if resp := h.replay(aliceToken, s); resp.GetFile().GetMessageSequence() != e.Sequence || h.lp.count("PublishFile") != 1 {
			t.Errorf("got %v", resp)
		}
		h.wantPublished(b)
	}))
	t.Run("not known if the lookup fails", inBubble(func(t *testing.T) {
		h := newHarness(t)
		h.lp.then("PublishFile", func(context.Context) error { return denied(share.LPForbidden) })
		h.lp.failAlways("FindFile", kindError(share.LPForbidden))
		b := picture(1000)
		s := spec(b)
		for range 2 {
			_, err := h.upload(h.alice(), whole(s, b, 1000)...)
			wantError(t, err, share.LPPublishUnconfirmed)
		}
		if st := h.state(s.GetRequestId()); st.GetState() != pb.UploadState_UPLOAD_STATE_PUBLISHING || h.lp.count("PublishFile") != 1 {
			t.Errorf("the upload is %v", st)
		}
		h.lp.on("FindFile", nil)
		h.replay(aliceToken, s)
		h.wantPublished(b)
	}))
}

// A lookup that did not read all messages, or was itself answered by an error, does not prove that the message does not exist.
func TestUpload_IncompleteLookupIsNoProof(t *testing.T) {
	for what, err := range map[string]error{
		"truncated": share.Errorf(share.FileNotFound, "not among them", share.ErrIncomplete), "no such conversation": kindError(share.ConversationNotFound),
		"forbidden": kindError(share.LPForbidden), "too large": kindError(share.ConversationTooLarge), "unreadable": kindError(share.LPProtocolError),
	} {
		t.Run(what, inBubble(func(t *testing.T) {
			h := newHarness(t)
			h.lp.failAlways("FindFile", err)
			h.lp.then("PublishFile", unconfirmed)
			b := picture(1000)
			s := spec(b)
			for range 3 {
				_, err := h.upload(h.alice(), whole(s, b, 1000)...)
				wantError(t, err, share.LPPublishUnconfirmed)
			}
			h.wantPublished(b)
			h.lp.on("FindFile", nil)
			h.replay(aliceToken, s)
			h.wantPublished(b)
		}))
	}
}

// The wall clock is set forward while a message is on its way. Neither the attempt that sent it nor a repeat on the same
// server takes that for the end of the time in which the message can appear.
func TestUpload_ClockSetForwardDuringPublish(t *testing.T) {
	for what, answer := range map[string]error{
		"no answer": kindError(share.LPPublishUnconfirmed), "repeated": kindError(share.LPPublishUnconfirmed), "denied and repeated": denied(share.LPForbidden),
	} {
		t.Run(what, inBubble(func(t *testing.T) {
			var ahead atomic.Int64
			h := newHarness(t, func(c *Config) { c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) } })
			b := picture(1000)
			s := spec(b)
			sent := make(chan struct{})
			var late sync.WaitGroup
			defer late.Wait()
			h.lp.on("PublishFile", func(context.Context) error {
				ahead.Store(int64(h.server.RequestIDTTL / 2))
				late.Go(func() {
					time.Sleep(h.server.Settle / 2)
					h.lp.send(conversation, h.store.recordedPuts()[0].path, "alice")
				})
				close(sent)
				return answer
			})
			first := make(chan error, 1)
			go func() {
				_, err := h.upload(h.alice(), whole(s, b, 1000)...)
				first <- err
			}()
			<-sent
			if what != "no answer" {
				time.Sleep(h.server.Settle / 4)
				h.replay(aliceToken, s)
			}
			if err := <-first; err != nil && what == "no answer" {
				t.Error(err)
			}
			h.wantPublished(b)
			if n := h.lp.count("PublishFile"); n != 1 {
				t.Errorf("the message was sent %d times", n)
			}
		}))
	}
}

// publishing saves the record of an upload that another server is publishing, until deadline.
func (h *harness) publishing(b []byte, s *pb.UploadSpec, deadline time.Duration) (path string) {
	h.t.Helper()
	u, err := checkSpec(s, h.server.Settings(account), 0)
	if err != nil {
		h.t.Fatal(err)
	}
	path = "/v1/AUTH_async/" + account + "/alice/elsewhere"
	h.store.keep(path, b)
	_, err = h.ledger.Memory.Save(context.Background(), upload.Key(h.lp.tokens[aliceToken], s.GetRequestId()), share.Record{
		Attempt: "elsewhere", AttemptTime: time.Now(), Expires: time.Now().Add(time.Hour), Fingerprint: u.Fingerprint, State: share.Publishing,
		PublishDeadline: time.Now().Add(deadline),
		File: &share.StoredFile{
			Conversation: conversation, Dialog: conversation, Size: int64(len(b)), File: share.HostedFile{StoragePath: path, FileType: "JPG"},
		},
	}, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	return path
}

func TestUpload_RetryWaitsForPublishingAttempt(t *testing.T) {
	t.Run("replayed when the message appears", inBubble(func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		s := spec(b)
		path := h.publishing(b, s, 5*time.Second)
		time.AfterFunc(100*time.Millisecond, func() { h.lp.send(conversation, path, "alice") })
		h.replay(aliceToken, s)
		h.wantPublished(b)
		if h.lp.count("PublishFile") != 0 {
			t.Error("the message was sent again")
		}
	}))
	t.Run("publishes when the message cannot appear any more", inBubble(func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		s := spec(b)
		h.publishing(b, s, 50*time.Millisecond)
		began := time.Now()
		h.replay(aliceToken, s)
		h.wantPublished(b)
		if took := time.Since(began); took < 50*time.Millisecond+h.server.Settle {
			t.Errorf("the message was sent after %s", took)
		}
		if h.store.count("Put") != 0 || h.lp.count("UploadURL") != 0 {
			t.Error("the file was stored again")
		}
	}))
	t.Run("looks once more at the end", inBubble(func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		s := spec(b)
		path := h.publishing(b, s, 50*time.Millisecond)
		var once sync.Once
		h.lp.on("FindFile", func(context.Context) error { // a response from before the message, received after the settle time
			var err error
			once.Do(func() {
				err = kindError(share.FileNotFound)
				time.Sleep(100 * time.Millisecond)
				h.lp.send(conversation, path, "alice")
				time.Sleep(100 * time.Millisecond)
			})
			return err
		})
		h.replay(aliceToken, s)
		h.wantPublished(b)
	}))
	t.Run("rejected if the lookup fails", inBubble(func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		s := spec(b)
		h.publishing(b, s, -time.Hour)
		h.lp.failAlways("FindFile", kindError(share.LPUnavailable))
		_, err := h.upload(h.alice(), first(s))
		wantError(t, err, share.LPUnavailable)
		if h.lp.count("PublishFile") != 0 {
			t.Error("the message was sent")
		}
	}))
}

func TestUpload_RetryOfStoredFileOnlyPublishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		s := spec(b)
		h.lp.fail("PublishFile", kindError(share.LPRateLimited))
		_, err := h.upload(h.alice(), whole(s, b, 1000)...)
		wantError(t, err, share.LPRateLimited)
		st := h.state(s.GetRequestId())
		if st.GetState() != pb.UploadState_UPLOAD_STATE_FAILED || st.GetFailure().GetReason() != pb.ErrorReason_ERROR_REASON_LP_RATE_LIMITED || st.GetFile() == nil {
			t.Errorf("the upload is %v, want FAILED, with its file", st)
		}
		resp := h.replay(aliceToken, s)
		e := h.wantPublished(b)
		if resp.GetFile().GetMessageSequence() != e.Sequence || h.store.count("Put") != 1 {
			t.Errorf("got %v after %d PUTs", resp, h.store.count("Put"))
		}
	})
}

func TestUpload_LedgerUnavailable(t *testing.T) {
	b := picture(1000)
	down := errors.New("connection refused")
	t.Run("before receiving", inBubble(func(t *testing.T) {
		h := newHarness(t)
		h.ledger.failAlways("Save", down)
		_, err := h.upload(h.alice(), whole(spec(b), b, 1000)...)
		wantError(t, err, share.LedgerUnavailable)
		h.wantNothingStored(len(b))
		if h.lp.count("UploadURL") != 0 {
			t.Error("a URL was requested")
		}
	}))
	t.Run("before publishing", inBubble(func(t *testing.T) {
		h := newHarness(t)
		h.ledger.failAlways("Save "+string(share.Publishing), down)
		_, err := h.upload(h.alice(), whole(spec(b), b, 1000)...)
		wantError(t, err, share.LedgerUnavailable)
		if len(h.lp.messages()) != 0 {
			t.Error("the file was published")
		}
	}))
	t.Run("after publishing it is a success", inBubble(func(t *testing.T) {
		h := newHarness(t)
		h.ledger.failAlways("Save "+string(share.Published), down)
		s := spec(b)
		if _, err := h.upload(h.alice(), whole(s, b, 1000)...); err != nil {
			t.Fatal(err)
		}
		h.wantPublished(b)
		h.ledger.on("Save "+string(share.Published), nil)
		h.replay(aliceToken, s)
		h.wantPublished(b)
	}))
	t.Run("lost answer publishes once", inBubble(func(t *testing.T) {
		h := newHarness(t)
		h.ledger.then("Save "+string(share.Publishing), func(context.Context) error { return down })
		s := spec(b)
		_, err := h.upload(h.alice(), whole(s, b, 1000)...)
		wantError(t, err, share.LedgerUnavailable)
		h.ledger.then("Save "+string(share.Publishing), nil)
		h.replay(aliceToken, s)
		h.wantPublished(b)
	}))
}

// The uploader can read a file that is only stored, whichever step of the ledger failed in an earlier attempt.
func TestUpload_StoreOnlyFileIsReadableAfterRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		s := spec(b, storeOnly)
		saves := 0
		h.ledger.on("Save "+string(share.Stored), func(context.Context) error {
			if saves++; saves == 2 {
				return errors.New("connection refused")
			}
			return nil
		})
		_, err := h.upload(h.alice(), whole(s, b, 1000)...)
		wantError(t, err, share.LedgerUnavailable)
		resp, err := h.upload(h.alice(), whole(s, b, 1000)...)
		if err != nil {
			t.Fatal(err)
		}
		got, _, _, err := h.download(h.alice(), byName(resp.GetFile().GetName()))
		if err != nil || len(got) != len(b) {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
	})
}

func TestUpload_ValidateOnlyHasNoEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		dry := func(s *pb.UploadSpec) { s.ValidateOnly = true }
		b := picture(1000)
		for range 2 {
			stream, err := h.files.Upload(h.alice())
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Send(first(spec(b, dry))); err != nil {
				t.Fatal(err)
			}
			resp := new(pb.UploadResponse)
			if err := stream.RecvMsg(resp); err != nil || resp.GetFile() != nil || resp.GetRequestId() == "" {
				t.Fatalf("got %v, %v", resp, err)
			}
		}
		for kind, change := range map[share.Kind]func(*pb.UploadSpec){
			share.InvalidField:         func(s *pb.UploadSpec) { s.FileType = 0 },
			share.FileTooLarge:         func(s *pb.UploadSpec) { s.SizeBytes = proto.Int64(1e9) },
			share.ConversationNotFound: func(s *pb.UploadSpec) { s.Conversation = conversationName(account, "conv-bob") },
			share.ConversationClosed:   func(s *pb.UploadSpec) { s.Conversation = conversationName(account, "conv-closed") },
		} {
			_, err := h.upload(h.alice(), first(spec(b, dry, change)))
			wantError(t, err, kind)
		}
		if n := h.ledger.count("Load", "Save") + h.lp.count("UploadURL", "PublishFile") + h.store.count("Put"); n != 0 {
			t.Errorf("%d calls had an effect", n)
		}
	})
}

func TestGetUpload_EachState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)

		receiving := spec(b)
		stream := h.begin(h.alice(), receiving)
		if st := h.state(receiving.GetRequestId()); st.GetState() != pb.UploadState_UPLOAD_STATE_RECEIVING || st.GetFile() != nil || st.GetAttemptTime() == nil || st.GetExpireTime() == nil {
			t.Errorf("receiving: %v", st)
		}
		_ = stream.Send(chunk(1, b))
		_, err := stream.CloseAndRecv()
		wantError(t, err, share.OffsetMismatch)
		if st := h.state(receiving.GetRequestId()); st.GetState() != pb.UploadState_UPLOAD_STATE_FAILED || st.GetFailure().GetReason() != pb.ErrorReason_ERROR_REASON_OFFSET_MISMATCH || st.GetFailure().GetMessage() == "" {
			t.Errorf("failed: %v", st)
		}
		if _, err := h.upload(h.alice(), whole(receiving, b, 1000)...); err != nil {
			t.Fatal(err)
		}
		if st := h.state(receiving.GetRequestId()); st.GetState() != pb.UploadState_UPLOAD_STATE_PUBLISHED || st.GetFailure() != nil || st.GetFile().MessageSequence == nil {
			t.Errorf("published: %v", st)
		}
		stored := h.put(b, storeOnly)
		if st := h.state(stored.GetRequestId()); st.GetState() != pb.UploadState_UPLOAD_STATE_STORED || !proto.Equal(st.GetFile(), stored.GetFile()) {
			t.Errorf("stored: %v", st)
		}
		publishing := spec(b)
		h.publishing(b, publishing, time.Hour)
		if st := h.state(publishing.GetRequestId()); st.GetState() != pb.UploadState_UPLOAD_STATE_PUBLISHING {
			t.Errorf("publishing: %v", st)
		}
		_, err = h.files.GetUpload(h.alice(), &pb.GetUploadRequest{Name: accountName(account) + "/uploads/x"})
		wantError(t, err, share.InvalidField)
		if got := fields(err); !slices.Equal(got, []string{"name"}) {
			t.Errorf("the violations name %v", got)
		}
	})
}

func TestUpload_RequestIDExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ahead atomic.Int64
		h := newHarness(t, func(c *Config) { c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) } })
		b := picture(1000)
		s, kept := spec(b), spec(b, storeOnly)
		for _, s := range []*pb.UploadSpec{s, kept} {
			if _, err := h.upload(h.alice(), whole(s, b, 1000)...); err != nil {
				t.Fatal(err)
			}
		}
		name := h.state(kept.GetRequestId()).GetFile().GetName()
		ahead.Store(int64(h.server.RequestIDTTL - time.Second))
		h.replay(aliceToken, s)
		ahead.Store(int64(h.server.RequestIDTTL + time.Second))
		_, err := h.files.GetUpload(h.alice(), &pb.GetUploadRequest{Name: accountName(account) + "/uploads/" + s.GetRequestId()})
		wantError(t, err, share.UploadNotFound)
		_, _, _, err = h.download(h.alice(), byName(name))
		wantError(t, err, share.FileNotFound)
		if resp, err := h.upload(h.alice(), whole(spec(b, withID(s.GetRequestId()), func(s *pb.UploadSpec) { s.Caption = "new" }), b, 1000)...); err != nil || resp.GetReplayed() {
			t.Errorf("got %v, %v, want a new upload", resp, err)
		}
	})
}

// An upload writes its record three times, and reads it only if there is one.
func TestUpload_LedgerSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		s := spec(b)
		if _, err := h.upload(h.alice(), whole(s, b, 1000)...); err != nil {
			t.Fatal(err)
		}
		for step, want := range map[string]int{"Load": 0, "Save": 3, "Save RECEIVING": 1, "Save PUBLISHING": 1, "Save PUBLISHED": 1} {
			if n := h.ledger.count(step); n != want {
				t.Errorf("%s: %d times, want %d", step, n, want)
			}
		}
		h.replay(aliceToken, s)
		if n := h.ledger.count("Load"); n != 1 {
			t.Errorf("the repeat loaded %d records, want 1", n)
		}
	})
}

// A repeat gets its result, whatever keeps a new upload from beginning.
func TestUpload_RepeatIsAnsweredWhenNewOnesAreRejected(t *testing.T) {
	full := share.Errorf(share.LedgerUnavailable, "the ledger of request ids is full", nil)
	for what, reject := range map[string]func(h *harness){
		"the conversation is closed": func(h *harness) {
			_, err := h.convs.CloseConversation(h.alice(), &pb.CloseConversationRequest{Name: parent})
			if err != nil {
				h.t.Fatal(err)
			}
		},
		"the share is used":  func(h *harness) { h.ledger.failAlways("Save", share.Reject(share.LedgerShare, "a message")) },
		"the ledger is full": func(h *harness) { h.ledger.failAlways("Save", full) },
	} {
		t.Run(what, inBubble(func(t *testing.T) {
			h := newHarness(t)
			b := picture(1000)
			s := spec(b)
			if _, err := h.upload(h.alice(), whole(s, b, 1000)...); err != nil {
				t.Fatal(err)
			}
			reject(h)
			h.replay(aliceToken, s)
			if _, err := h.upload(h.alice(), whole(spec(b), b, 1000)...); err == nil {
				t.Error("a new upload was accepted")
			}
		}))
	}
}

// A file whose publication could not be recorded is not published, and a repeat publishes it without its bytes.
func TestUpload_PublicationNotRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		s := spec(b)
		h.ledger.failAlways("Save PUBLISHING", context.DeadlineExceeded)
		_, err := h.upload(h.alice(), whole(s, b, 1000)...)
		wantError(t, err, share.LedgerUnavailable)
		if st := h.state(s.GetRequestId()); st.GetFile() == nil || h.lp.count("PublishFile") != 0 {
			t.Errorf("the upload is %v", st)
		}
		h.ledger.failAlways("Save PUBLISHING", nil)
		h.replay(aliceToken, s)
		h.wantPublished(b)
		if n := h.store.count("Put"); n != 1 {
			t.Errorf("the file was stored %d times", n)
		}
	})
}

func TestUpload_CancelledBeforeCommitPointPublishesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stored atomic.Pointer[context.Context] // of the call whose file the store has
		caller, cancel := context.WithCancel(t.Context())
		h := newHarness(t, func(c *Config) {
			c.Now = func() time.Time {
				if ctx := stored.Swap(nil); ctx != nil { // the engine notes when it was stored, and then publishes
					cancel()
					<-(*ctx).Done() // the handler's context has ended too
				}
				return time.Now()
			}
		})
		b := picture(1000)
		s := spec(b)
		h.store.then("Put", func(ctx context.Context) error {
			stored.Store(&ctx)
			return nil
		})
		ctx, stop := context.WithCancel(h.alice())
		defer context.AfterFunc(caller, stop)()
		_, err := h.upload(ctx, whole(s, b, 1000)...)
		if status.Code(err) != codes.Canceled {
			t.Errorf("got %v", err)
		}
		h.eventually("the handler has ended", func() bool { return h.lp.sessions() == 0 })
		if h.lp.count("PublishFile") != 0 {
			t.Error("the file was published")
		}
		if st := h.state(s.GetRequestId()); st.GetState() != pb.UploadState_UPLOAD_STATE_STORED {
			t.Errorf("the upload is %v", st)
		}
		h.store.then("Put", nil)
		h.replay(aliceToken, s)
		h.wantPublished(b)
	})
}

func TestUpload_CancelledAfterCommitPointPublishes(t *testing.T) {
	for what, lost := range map[string]func(context.Context) error{"answered": nil, "answer lost": unconfirmed} {
		t.Run(what, inBubble(func(t *testing.T) {
			h := newHarness(t)
			b := picture(1000)
			ctx, cancel := context.WithCancel(h.alice())
			s := spec(b)
			h.lp.then("PublishFile", lost)
			h.lp.on("PublishFile", func(ctx context.Context) error {
				cancel()
				time.Sleep(20 * time.Millisecond)
				return ctx.Err()
			})
			_, err := h.upload(ctx, whole(s, b, 1000)...)
			if status.Code(err) != codes.Canceled {
				t.Errorf("got %v", err)
			}
			h.eventually("the upload is recorded as published", func() bool {
				return h.state(s.GetRequestId()).GetState() == pb.UploadState_UPLOAD_STATE_PUBLISHED
			})
			h.wantPublished(b)
		}))
	}
}

func TestUpload_RetriesStoreErrors(t *testing.T) {
	b := picture(150_000)
	unavailable := kindError(share.StorageUnavailable)
	for what, c := range map[string]struct {
		faults     func(h *harness)
		puts, urls int
		paths      int
	}{
		"503, then fine":      {func(h *harness) { h.store.fail("Put", unavailable) }, 2, 1, 1},
		"503 after all bytes": {func(h *harness) { h.store.then("Put", inSequence([]error{unavailable})) }, 2, 1, 1},
		"ended in mid-file": {func(h *harness) {
			h.store.midway = func(put, read int) error {
				if put == 1 && read > 50_000 {
					return unavailable
				}
				return nil
			}
		}, 2, 1, 1},
		"three times 503": {func(h *harness) { h.store.fail("Put", unavailable, unavailable, unavailable) }, 4, 1, 1},
		"rate limited":    {func(h *harness) { h.store.fail("Put", kindError(share.StorageRateLimited)) }, 2, 1, 1},
		"URL rejected twice": {func(h *harness) {
			h.store.fail("Put", kindError(share.StorageURLRejected), kindError(share.StorageURLRejected))
		}, 3, 3, 1},
		"a URL about to expire": {func(h *harness) { h.lp.urlLife = time.Second; h.store.fail("Put", unavailable) }, 2, 2, 1},
		"corrupted once":        {func(h *harness) { h.store.then("Put", inSequence([]error{kindError(share.StorageCorrupted)})) }, 2, 1, 1},
		"a wrong ETag once": {func(h *harness) {
			n := 0
			h.store.answer = func(o *share.StoredObject) {
				if n++; n == 1 {
					o.ETag = share.ETag(strings.Repeat("0", 32))
				}
			}
		}, 2, 1, 1},
		"202": {func(h *harness) {
			h.store.answer = func(o *share.StoredObject) { o.Superseded, o.ETag = true, share.ETag(strings.Repeat("0", 32)) }
		}, 1, 1, 1},
		"no ETag": {func(h *harness) { h.store.answer = func(o *share.StoredObject) { o.ETag = "" } }, 1, 1, 1},
		"an ETag in upper case": {func(h *harness) {
			h.store.answer = func(o *share.StoredObject) { o.ETag = share.ETag(strings.ToUpper(string(o.ETag))) }
		}, 1, 1, 1},
		"URL request times out": {func(h *harness) { h.lp.fail("UploadURL", kindError(share.LPTimeout), kindError(share.LPUnavailable)) }, 1, 3, 1},
		"no fault":              {func(h *harness) {}, 1, 1, 1},
	} {
		t.Run(what, inBubble(func(t *testing.T) {
			for _, change := range [][]func(*pb.UploadSpec){nil, {undeclared}} {
				h := newHarness(t)
				c.faults(h)
				h.put(b, change...)
				h.wantPublished(b)
				if p, u := h.store.count("Put"), h.lp.count("UploadURL"); p != c.puts || u != c.urls {
					t.Errorf("%d PUTs and %d URLs, want %d and %d", p, u, c.puts, c.urls)
				}
			}
		}))
	}
}

func TestUpload_ReportsPersistentStoreErrors(t *testing.T) {
	b := picture(1000)
	for what, c := range map[string]struct {
		faults func(h *harness)
		kind   share.Kind
		puts   int
	}{
		"503":                {func(h *harness) { h.store.failAlways("Put", kindError(share.StorageUnavailable)) }, share.StorageUnavailable, 4},
		"every URL rejected": {func(h *harness) { h.store.failAlways("Put", kindError(share.StorageURLRejected)) }, share.StorageURLRejected, 3},
		"corrupted twice": {func(h *harness) {
			h.store.then("Put", func(context.Context) error { return kindError(share.StorageCorrupted) })
		}, share.StorageCorrupted, 2},
		"a wrong ETag": {func(h *harness) {
			h.store.answer = func(o *share.StoredObject) { o.ETag = share.ETag(strings.Repeat("0", 32)) }
		}, share.StorageCorrupted, 2},
		"denied":                       {func(h *harness) { h.store.failAlways("Put", kindError(share.StorageDenied)) }, share.StorageDenied, 1},
		"full":                         {func(h *harness) { h.store.failAlways("Put", kindError(share.StorageFull)) }, share.StorageFull, 1},
		"no named condition":           {func(h *harness) { h.store.failAlways("Put", io.ErrUnexpectedEOF) }, share.Internal, 1},
		"URL request always times out": {func(h *harness) { h.lp.failAlways("UploadURL", kindError(share.LPTimeout)) }, share.LPTimeout, 0},
	} {
		t.Run(what, inBubble(func(t *testing.T) {
			h := newHarness(t)
			c.faults(h)
			_, err := h.upload(h.alice(), whole(spec(b), b, 100)...)
			wantError(t, err, c.kind)
			if n := h.store.count("Put"); n != c.puts {
				t.Errorf("%d PUTs, want %d", n, c.puts)
			}
			if len(h.lp.messages()) != 0 {
				t.Error("the file was published")
			}
		}))
	}
}

func TestUpload_ETagIsComparedOnlyIfSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, set(func(s *Settings) { s.CheckETag = false }))
		h.store.answer = func(o *share.StoredObject) { o.ETag = share.ETag(strings.Repeat("0", 32)) }
		h.put(picture(1000))
	})
}

// An earlyStore acknowledges an upload before it has the file.
type earlyStore struct{ *fakeStore }

func (s earlyStore) Put(_ context.Context, _ string, _ share.TempURL, size int64, _ string, body io.ReadCloser) (share.StoredObject, error) {
	return share.StoredObject{Size: size}, body.Close()
}

func TestUpload_EarlyStoreSuccessIsAProtocolError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.server.uploads.Store = earlyStore{h.store}
		stream := h.begin(h.alice(), spec(picture(1000)))
		wantError(t, stream.RecvMsg(new(pb.UploadResponse)), share.StorageProtocolError)
		h.wantNothingStored(1000)
	})
}

func TestUpload_RefusedURLEndsItBeforeTheFirstByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.lp.failAlways("UploadURL", kindError(share.FileSharingDisabled))
		stream := h.begin(h.alice(), spec(picture(1000)))
		wantError(t, stream.RecvMsg(new(pb.UploadResponse)), share.FileSharingDisabled) // although the client has sent no byte
	})
}

// TestUpload_RepeatDoesNotAskLivePerson repeats a finished upload while LivePerson does not answer, before a session knows the conversation.
func TestUpload_RepeatDoesNotAskLivePerson(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		s := spec(b)
		if _, err := h.upload(h.alice(), whole(s, b, 1000)...); err != nil {
			t.Fatal(err)
		}
		h.lp.unknown.Store(true)
		h.lp.on("Conversation", func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(10 * time.Second):
				return kindError(share.LPTimeout)
			}
		})
		ctx, cancel := context.WithTimeout(h.alice(), 5*time.Second)
		defer cancel()
		if _, err := h.upload(ctx, whole(s, b, 1000)...); err != nil {
			t.Errorf("the repeat waits for LivePerson: %v", err)
		}
	})
}

// TestUpload_TakenOverLeavesNoLink loses the id when the file is stored and the message is to be sent.
func TestUpload_TakenOverLeavesNoLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		h.ledger.fail("Save PUBLISHING", share.ErrStale)
		_, err := h.upload(h.alice(), whole(spec(b), b, 1000)...)
		wantError(t, err, share.UploadTakenOver)
		if n := h.ledger.count("Save STORED"); n != 0 {
			t.Errorf("%d records of a file that belongs to no upload", n)
		}
	})
}
