package service

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

func TestUpload_RejectedByAdmissionReachesNoStore(t *testing.T) {
	for what, places := range map[string]int{"the queue is full": 0, "no memory becomes free in time": 1} {
		t.Run(what, inBubble(func(t *testing.T) {
			h := newHarness(t, func(c *Config) { c.QueueLength, c.QueueWait = places, 30*time.Millisecond })
			reserved := h.reserveAll()
			_, err := h.upload(h.alice(), first(spec(picture(10))))
			if limit := wantError(t, err, share.TooManyUploads).GetMetadata()["limit"]; limit != map[int]string{0: "queue", 1: "budget"}[places] {
				t.Errorf("the limit is %q", limit)
			}
			if n := h.lp.count("UploadURL", "Conversation") + h.ledger.count("Load", "Save") + h.store.count("Put"); n != 0 {
				t.Errorf("%d calls were made", n)
			}
			reserved.Release()
			h.put(picture(10))
		}))
	}
}

func TestUpload_QueuedIsAdmittedWhenMemoryIsReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, func(c *Config) { c.QueueWait = 10 * time.Second })
		reserved := h.reserveAll()
		time.AfterFunc(30*time.Millisecond, reserved.Release)
		b := picture(10)
		h.put(b)
		h.wantPublished(b)
	})
}

// Several tokens of one consumer count as one caller once the principal is proved.
func TestUpload_TokensOfOnePrincipalShareALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, func(c *Config) { c.MaxUploadsPerCaller = 1 })
		stream := h.begin(h.alice(), spec(picture(10)))
		_, err := h.upload(h.as(renewedToken), first(spec(picture(10))))
		if limit := wantError(t, err, share.TooManyUploads).GetMetadata()["limit"]; limit != "caller" {
			t.Errorf("the limit is %q", limit)
		}
		if n := h.ledger.count("Save"); n != 1 || h.lp.count("UploadURL") > 1 {
			t.Errorf("the second upload was recorded: %d saves", n)
		}
		h.begin(h.as(bobToken), spec(picture(10), func(s *pb.UploadSpec) { s.Conversation = conversationName(account, "conv-bob") }))
		_ = stream.Send(chunk(0, picture(10)))
		_ = stream.Send(finish())
		if _, err := stream.CloseAndRecv(); err != nil {
			t.Fatal(err)
		}
		h.put(picture(20))
	})
}

// The upload of another caller is admitted as soon as memory is free, however many uploads of the first caller were queued before it.
func TestUpload_FloodOfOneCallerDoesNotBlockOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, func(c *Config) { c.MaxUploadsPerCaller, c.QueueLength, c.QueueWait = 4, 100, 10*time.Second })
		reserved := h.reserveAll()
		flood, stop := context.WithCancel(h.as(bobToken))
		var floods sync.WaitGroup
		for range 50 {
			floods.Go(func() { // fails: the queue is full, or the test has ended
				_, _ = h.upload(flood, first(spec(picture(10), func(s *pb.UploadSpec) { s.Conversation = conversationName(account, "conv-bob") })))
			})
		}
		h.eventually("the caller has reached its limit of queued uploads", func() bool { return h.server.memory.Usage().Queued == 4 })
		b := picture(1000)
		done := make(chan error, 1)
		go func() {
			_, err := h.upload(h.alice(), whole(spec(b), b, 1000)...)
			done <- err
		}()
		h.eventually("alice's upload is queued", func() bool { return h.server.memory.Usage().Queued == 5 })
		reserved.Release()
		if err := <-done; err != nil {
			t.Error(err)
		}
		stop()
		floods.Wait()
	})
}

func TestUpload_ReservesWholeBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		for what, s := range map[string]*pb.UploadSpec{"declared": spec(picture(admission.BlockBytes + 1)), "undeclared": spec(nil, undeclared)} {
			want := h.server.MemoryBudget - 2*admission.BlockBytes
			if what == "undeclared" { // nothing has arrived
				want = h.server.MemoryBudget - admission.BlockBytes
			}
			ctx, cancel := context.WithCancel(h.alice())
			h.begin(ctx, s)
			if free := h.budgetFree(); free != want {
				t.Errorf("%s: %d bytes are free, want %d", what, free, want)
			}
			cancel()
			h.eventually("the memory is released", func() bool { return h.budgetFree() == h.server.MemoryBudget })
		}
	})
}

func TestUpload_CancelledInQueueFreesItsSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, func(c *Config) { c.QueueLength, c.QueueWait = 1, 10*time.Second })
		reserved := h.reserveAll()
		ctx, cancel := context.WithCancel(h.alice())
		done := make(chan error, 1)
		go func() {
			_, err := h.upload(ctx, first(spec(picture(10))))
			done <- err
		}()
		h.eventually("the upload is queued", func() bool { return h.server.memory.Usage().Queued == 1 })
		cancel()
		if err := <-done; status.Code(err) != codes.Canceled {
			t.Errorf("got %v", err)
		}
		h.eventually("the queue is empty", func() bool { return h.server.memory.Usage().Queued == 0 })
		reserved.Release()
	})
}

// Stop ends an upload in every phase.
func TestUpload_StopEndsItWithServerDraining(t *testing.T) {
	b := picture(1000)
	untilDone := func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }
	for what, c := range map[string]struct {
		prepare func(h *harness)
		send    []*pb.UploadRequest
	}{
		"before its spec":   {send: []*pb.UploadRequest{}},
		"in the queue":      {prepare: func(h *harness) { h.t.Cleanup(h.reserveAll().Release) }},
		"opening a session": {prepare: func(h *harness) { h.lp.on("Session", untilDone) }},
		"loading the record": {prepare: func(h *harness) {
			h.ledger.on("Save", func(context.Context) error { return share.ErrStale }) // so that there seems to be one
			h.ledger.on("Load", untilDone)
		}},
		"saving the record, unnamed error": {prepare: func(h *harness) {
			h.ledger.on("Save", func(ctx context.Context) error { <-ctx.Done(); return errors.New("closed") })
		}},
		"while receiving":       {},
		"waiting for a URL":     {prepare: func(h *harness) { h.lp.on("UploadURL", untilDone) }},
		"waiting for the store": {prepare: func(h *harness) { h.store.then("Put", untilDone) }, send: whole(spec(b), b, 1000)},
		"generating a preview": {prepare: func(h *harness) { h.images.on("Preview", untilDone) }, send: whole(spec(b, func(s *pb.UploadSpec) {
			s.Preview = &pb.Preview{Source: &pb.Preview_Generate{Generate: true}}
		}), b, 1000)},
	} {
		t.Run(what, inBubble(func(t *testing.T) {
			h := newHarness(t, func(c *Config) { c.QueueWait = 10 * time.Second })
			if c.prepare != nil {
				c.prepare(h)
			}
			if c.send == nil {
				c.send = []*pb.UploadRequest{first(spec(b)), chunk(0, b[:10])}
			}
			stream, err := h.files.Upload(h.alice())
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range c.send {
				_ = stream.Send(m)
			}
			if len(c.send) > 2 {
				_ = stream.CloseSend()
			}
			synctest.Wait()
			h.server.Drain() // alone it ends no running upload
			synctest.Wait()
			h.server.Stop()
			wantError(t, stream.RecvMsg(new(pb.UploadResponse)), share.ServerDraining)
			if len(h.lp.messages()) != 0 {
				t.Error("the file was published")
			}
		}))
	}
}

func TestUpload_DrainFinishesRunningAndRejectsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		stream := h.begin(h.alice(), spec(b))
		h.server.Drain()
		_, err := h.upload(h.alice(), first(spec(b)))
		wantError(t, err, share.ServerDraining)
		_, _, _, err = h.download(h.alice(), byName(fileName(account, conversation, conversation, path("a.jpg"))))
		wantError(t, err, share.ServerDraining)
		_, err = h.convs.CreateConversation(h.alice(), &pb.CreateConversationRequest{Account: accountName(account)})
		wantError(t, err, share.ServerDraining)
		if _, err := h.files.ListFiles(h.alice(), &pb.ListFilesRequest{Parent: parent}); err != nil {
			t.Errorf("a listing: %v", err)
		}
		_ = stream.Send(chunk(0, b))
		_ = stream.Send(finish())
		if _, err := stream.CloseAndRecv(); err != nil {
			t.Fatal(err)
		}
		h.wantPublished(b)
	})
}

func TestUpload_DrainRejectsQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, func(c *Config) { c.QueueWait = 10 * time.Second })
		defer h.reserveAll().Release()
		done := make(chan error, 1)
		go func() {
			_, err := h.upload(h.alice(), first(spec(picture(10))))
			done <- err
		}()
		h.eventually("the upload is queued", func() bool { return h.server.memory.Usage().Queued == 1 })
		h.server.Drain()
		synctest.Wait()
		select {
		case err := <-done:
			wantError(t, err, share.ServerDraining)
		default:
			t.Error("the upload is still queued")
		}
	})
}

func TestUpload_StopDoesNotInterruptPublishing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.lp.on("PublishFile", func(ctx context.Context) error {
			h.server.Stop()
			time.Sleep(50 * time.Millisecond)
			return ctx.Err()
		})
		b := picture(1000)
		h.put(b)
		h.wantPublished(b)
	})
}

func TestServer_PanicIsInternalWithoutDetails(t *testing.T) {
	b := picture(1000)
	panics := func(context.Context) error { panic("the text of the panic") }
	for what, prepare := range map[string]func(h *harness){
		"Session":     func(h *harness) { h.lp.on("Session", panics) },
		"Save":        func(h *harness) { h.ledger.on("Save", panics) },
		"UploadURL":   func(h *harness) { h.lp.on("UploadURL", panics) },
		"Put":         func(h *harness) { h.store.on("Put", panics) },
		"Put, later":  func(h *harness) { h.store.then("Put", panics) },
		"Inspect":     func(h *harness) { h.images.on("Inspect", panics) },
		"PublishFile": func(h *harness) { h.lp.on("PublishFile", panics) },
	} {
		t.Run(what, inBubble(func(t *testing.T) {
			h := newHarness(t)
			prepare(h)
			_, err := h.upload(h.alice(), whole(spec(b), b, 100)...)
			wantError(t, err, share.Internal)
			if msg := status.Convert(err).Message(); msg != "internal error" {
				t.Errorf("the message is %q", msg)
			}
			if len(h.lp.messages()) != 0 {
				t.Error("the file was published")
			}
		}))
	}
	t.Run("unary", inBubble(func(t *testing.T) {
		h := newHarness(t)
		h.lp.on("ListFiles", panics)
		_, err := h.files.ListFiles(h.alice(), &pb.ListFilesRequest{Parent: parent})
		wantError(t, err, share.Internal)
	}))
}
