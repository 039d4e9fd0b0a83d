package service

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

func TestWhoIsNotAdmittedCostsNobodyAnything(t *testing.T) {
	for what, places := range map[string]int{"the queue is full": 0, "nobody ends in time": 1} {
		t.Run(what, func(t *testing.T) {
			h := newHouse(t, func(c *Config) { c.QueueLength, c.QueueWait = places, 30*time.Millisecond })
			room, err := h.server.admission.reserve(t.Context(), h.server.MemoryBudget, true)
			if err != nil {
				t.Fatal(err)
			}
			_, err = h.upload(h.alice(), first(spec(picture(10))))
			refused(t, err, share.TooManyUploads)
			if n := h.lp.count("Session") + h.book.count("Load", "Save") + h.store.count("Put"); n != 0 {
				t.Errorf("%d calls were made", n)
			}
			room.release()
			h.put(picture(10))
		})
	}
}

func TestWhoWaitsIsAdmittedWhenThereIsRoom(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.QueueWait = 10 * time.Second })
	room, err := h.server.admission.reserve(t.Context(), h.server.MemoryBudget, true)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(30*time.Millisecond, room.release)
	b := picture(10)
	h.put(b)
	h.published(b)
}

func TestTheQueueIsFirstComeFirstServed(t *testing.T) {
	a := newAdmission(4*blockBytes, 3, 10*time.Second)
	held, err := a.reserve(t.Context(), 4*blockBytes, true)
	if err != nil {
		t.Fatal(err)
	}
	type turn struct {
		name string
		room *reservation
	}
	admitted := make(chan turn, 3)
	for i, size := range []int64{4 * blockBytes, 1, 1} { // a small one does not overtake a large one
		go func() {
			room, err := a.reserve(context.Background(), size, true)
			if err != nil {
				t.Error(err)
			}
			admitted <- turn{string(rune('a' + i)), room}
		}()
		for len(a.places) != i+1 {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(5 * time.Millisecond) // from its place into the semaphore's list
	}
	held.release()
	first := <-admitted
	if first.name != "a" {
		t.Errorf("%s was admitted first", first.name)
	}
	select {
	case other := <-admitted:
		t.Errorf("%s was admitted beside it", other.name)
	case <-time.After(20 * time.Millisecond):
	}
	first.room.release()
	(<-admitted).room.release()
	(<-admitted).room.release()
	if !a.budget.TryAcquire(4 * blockBytes) {
		t.Error("not everything was given back")
	}
}

func TestTheBudgetCountsBlocksNotBytes(t *testing.T) {
	for size, blocks := range map[int64]int64{1: 1, blockBytes - 1: 1, blockBytes: 1, blockBytes + 1: 2, 300_000: 5} {
		a := newAdmission(8*blockBytes, 0, 0)
		if _, err := a.reserve(t.Context(), size, true); err != nil {
			t.Fatal(err)
		}
		if left := 8 - blocks; !a.budget.TryAcquire(left*blockBytes) || a.budget.TryAcquire(1) {
			t.Errorf("%d bytes do not take %d blocks", size, blocks)
		}
	}
	h := newHouse(t)
	for what, s := range map[string]*pb.UploadSpec{"declared": spec(picture(blockBytes + 1)), "undeclared": spec(nil, undeclared)} {
		want := h.server.MemoryBudget - 2*blockBytes
		if what == "undeclared" { // the limit, 300,000 bytes
			want = h.server.MemoryBudget - 5*blockBytes
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
	room, err := h.server.admission.reserve(t.Context(), h.server.MemoryBudget, true)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(h.alice())
	done := make(chan error, 1)
	go func() {
		_, err := h.upload(ctx, first(spec(picture(10))))
		done <- err
	}()
	h.eventually("it waits", func() bool { return len(h.server.admission.places) == 1 })
	cancel()
	if err := <-done; status.Code(err) != codes.Canceled {
		t.Errorf("got %v", err)
	}
	h.eventually("its place is free", func() bool { return len(h.server.admission.places) == 0 })
	room.release()
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
		"in the queue":         {prepare: func(h *house) { h.server.admission.budget.TryAcquire(h.server.MemoryBudget) }},
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
			if what == "in the queue" {
				h.server.admission.budget.Release(h.server.MemoryBudget)
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
	_, err = h.convs.CreateConversation(h.alice(), &pb.CreateConversationRequest{Parent: accountName(account)})
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
