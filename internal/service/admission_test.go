package service

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

func TestWhoIsNotAdmittedCostsNobodyAnything(t *testing.T) {
	for what, places := range map[string]int{"the queue is full": 0, "nobody ends in time": 1} {
		t.Run(what, func(t *testing.T) {
			h := newHouse(t, func(c *Config) { c.QueueLength, c.QueueWait = places, 30*time.Millisecond })
			room := h.fillUp()
			_, err := h.upload(h.alice(), first(spec(picture(10))))
			if limit := refused(t, err, share.TooManyUploads).GetMetadata()["limit"]; limit != map[int]string{0: "queue", 1: "budget"}[places] {
				t.Errorf("the limit is %q", limit)
			}
			if n := h.lp.count("Session") + h.book.count("Load", "Save") + h.store.count("Put"); n != 0 {
				t.Errorf("%d calls were made", n)
			}
			room.Release()
			h.put(picture(10))
		})
	}
}

func TestWhoWaitsIsAdmittedWhenThereIsRoom(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.QueueWait = 10 * time.Second })
	room := h.fillUp()
	time.AfterFunc(30*time.Millisecond, room.Release)
	b := picture(10)
	h.put(b)
	h.published(b)
}

// Several tokens of one consumer are one caller, once that is known.
func TestAPrincipalIsOneCallerWhateverItsTokens(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.MaxUploadsPerCaller = 1 })
	stream := h.begin(h.alice(), spec(picture(10)))
	_, err := h.upload(h.as(renewedToken), first(spec(picture(10))))
	if limit := refused(t, err, share.TooManyUploads).GetMetadata()["limit"]; limit != "caller" {
		t.Errorf("the limit is %q", limit)
	}
	if n := h.book.count("Save"); n != 1 || h.lp.count("UploadURL") > 1 {
		t.Errorf("the second upload was recorded: %d saves", n)
	}
	h.begin(h.as(bobToken), spec(picture(10), func(s *pb.UploadSpec) { s.Conversation = conversationName(account, "conv-bob") }))
	_ = stream.Send(chunk(0, picture(10)))
	_ = stream.Send(finish())
	if _, err := stream.CloseAndRecv(); err != nil {
		t.Fatal(err)
	}
	h.put(picture(20))
}

// One caller's flood, and another's uploads beside it: each of these is let in when one place becomes free, however many of the
// flood came before.
func TestAFloodKeepsNobodyElseOut(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.MaxUploadsPerCaller, c.QueueLength, c.QueueWait = 4, 100, 10*time.Second })
	room := h.fillUp()
	flood, stop := context.WithCancel(h.as(bobToken))
	var floods sync.WaitGroup
	for range 50 {
		floods.Go(func() { // fails: there are too many, or at the end of the test
			_, _ = h.upload(flood, first(spec(picture(10), func(s *pb.UploadSpec) { s.Conversation = conversationName(account, "conv-bob") })))
		})
	}
	h.eventually("as many wait as may", func() bool { return h.server.memory.Usage().Queued == 4 })
	b := picture(1000)
	done := make(chan error, 1)
	go func() {
		_, err := h.upload(h.alice(), whole(spec(b), b, 1000)...)
		done <- err
	}()
	h.eventually("alice waits too", func() bool { return h.server.memory.Usage().Queued == 5 })
	room.Release()
	if err := <-done; err != nil {
		t.Error(err)
	}
	stop()
	floods.Wait()
}

func TestTheBudgetCountsBlocksNotBytes(t *testing.T) {
	h := newHouse(t)
	for what, s := range map[string]*pb.UploadSpec{"declared": spec(picture(admission.BlockBytes + 1)), "undeclared": spec(nil, undeclared)} {
		want := h.server.MemoryBudget - 2*admission.BlockBytes
		if what == "undeclared" { // the limit, 300,000 bytes
			want = h.server.MemoryBudget - 5*admission.BlockBytes
		}
		ctx, cancel := context.WithCancel(h.alice())
		h.begin(ctx, s)
		if free := h.budgetFree(); free != want {
			t.Errorf("%s: %d bytes are free, want %d", what, free, want)
		}
		cancel()
		h.eventually("the room is given back", func() bool { return h.budgetFree() == h.server.MemoryBudget })
	}
}

func TestWhoLeavesTheQueueIsNotCounted(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.QueueLength, c.QueueWait = 1, 10*time.Second })
	room := h.fillUp()
	ctx, cancel := context.WithCancel(h.alice())
	done := make(chan error, 1)
	go func() {
		_, err := h.upload(ctx, first(spec(picture(10))))
		done <- err
	}()
	h.eventually("it waits", func() bool { return h.server.memory.Usage().Queued == 1 })
	cancel()
	if err := <-done; status.Code(err) != codes.Canceled {
		t.Errorf("got %v", err)
	}
	h.eventually("its place is free", func() bool { return h.server.memory.Usage().Queued == 0 })
	room.Release()
}

// Stop ends an upload wherever it is: nothing waits on.
func TestStopEndsWhatRunsWithDraining(t *testing.T) {
	b := picture(1000)
	hold := func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }
	for what, c := range map[string]struct {
		prepare func(h *house)
		send    []*pb.UploadRequest
	}{
		"before its spec":      {send: []*pb.UploadRequest{}},
		"in the queue":         {prepare: func(h *house) { h.t.Cleanup(h.fillUp().Release) }},
		"at LivePerson's door": {prepare: func(h *house) { h.lp.on("Session", hold) }},
		"in the ledger":        {prepare: func(h *house) { h.book.on("Load", hold) }},
		"in the ledger, nameless": {prepare: func(h *house) {
			h.book.on("Save", func(ctx context.Context) error { <-ctx.Done(); return errors.New("closed") })
		}},
		"while it receives":     {},
		"waiting for a URL":     {prepare: func(h *house) { h.lp.on("UploadURL", hold) }},
		"waiting for the store": {prepare: func(h *house) { h.store.then("Put", hold) }, send: whole(spec(b), b, 1000)},
		"making a preview": {prepare: func(h *house) { h.look.on("Preview", hold) }, send: whole(spec(b, func(s *pb.UploadSpec) {
			s.Preview = &pb.Preview{Source: &pb.Preview_Generate{Generate: true}}
		}), b, 1000)},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, func(c *Config) { c.QueueWait = 10 * time.Second })
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
			time.Sleep(30 * time.Millisecond)
			h.server.Drain() // which alone ends nothing
			time.Sleep(10 * time.Millisecond)
			h.server.Stop()
			refused(t, stream.RecvMsg(new(pb.UploadResponse)), share.ServerDraining)
			if len(h.lp.messages()) != 0 {
				t.Error("it was published")
			}
		})
	}
}

func TestDrainLetsRunningUploadsEndAndNoOthersBegin(t *testing.T) {
	h := newHouse(t)
	b := picture(1000)
	stream := h.begin(h.alice(), spec(b))
	h.server.Drain()
	_, err := h.upload(h.alice(), first(spec(b)))
	refused(t, err, share.ServerDraining)
	_, _, _, err = h.download(h.alice(), byName(fileName(account, conversation, conversation, path("a.jpg"))))
	refused(t, err, share.ServerDraining)
	_, err = h.convs.CreateConversation(h.alice(), &pb.CreateConversationRequest{Account: accountName(account)})
	refused(t, err, share.ServerDraining)
	if _, err := h.files.ListFiles(h.alice(), &pb.ListFilesRequest{Parent: parent}); err != nil {
		t.Errorf("a listing: %v", err)
	}
	_ = stream.Send(chunk(0, b))
	_ = stream.Send(finish())
	if _, err := stream.CloseAndRecv(); err != nil {
		t.Fatal(err)
	}
	h.published(b)
}

func TestWhoWaitsWhenTheDrainBeginsIsSentAway(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.QueueWait = 10 * time.Second })
	defer h.fillUp().Release()
	done := make(chan error, 1)
	go func() {
		_, err := h.upload(h.alice(), first(spec(picture(10))))
		done <- err
	}()
	h.eventually("it waits", func() bool { return h.server.memory.Usage().Queued == 1 })
	h.server.Drain()
	select {
	case err := <-done:
		refused(t, err, share.ServerDraining)
	case <-time.After(5 * time.Second):
		t.Error("it still waits")
	}
}

func TestStopLetsAPublicationEnd(t *testing.T) {
	h := newHouse(t)
	h.lp.on("PublishFile", func(ctx context.Context) error {
		h.server.Stop()
		time.Sleep(50 * time.Millisecond)
		return ctx.Err()
	})
	b := picture(1000)
	h.put(b)
	h.published(b)
}

func TestAPanicTellsNothingAndLeavesNothing(t *testing.T) {
	b := picture(1000)
	boom := func(context.Context) error { panic("boom: the panic's own text") }
	for what, prepare := range map[string]func(h *house){
		"Session":     func(h *house) { h.lp.on("Session", boom) },
		"Load":        func(h *house) { h.book.on("Load", boom) },
		"UploadURL":   func(h *house) { h.lp.on("UploadURL", boom) },
		"Put":         func(h *house) { h.store.on("Put", boom) },
		"Put, later":  func(h *house) { h.store.then("Put", boom) },
		"Inspect":     func(h *house) { h.look.on("Inspect", boom) },
		"PublishFile": func(h *house) { h.lp.on("PublishFile", boom) },
	} {
		t.Run(what, func(t *testing.T) {
			h := newHouse(t)
			prepare(h)
			_, err := h.upload(h.alice(), whole(spec(b), b, 100)...)
			refused(t, err, share.Internal)
			if msg := status.Convert(err).Message(); msg != "internal error" {
				t.Errorf("the caller is told %q", msg)
			}
			if len(h.lp.messages()) != 0 {
				t.Error("it was published")
			}
		})
	}
	t.Run("unary", func(t *testing.T) {
		h := newHouse(t)
		h.lp.on("ListFiles", boom)
		_, err := h.files.ListFiles(h.alice(), &pb.ListFilesRequest{Parent: parent})
		refused(t, err, share.Internal)
	})
}
