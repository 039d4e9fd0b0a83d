package service

import (
	"context"
	"errors"
	"slices"
	"sync"
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
			room := h.fillUp()
			_, err := h.upload(h.alice(), first(spec(picture(10))))
			if limit := refused(t, err, share.TooManyUploads).GetMetadata()["limit"]; limit != map[int]string{0: limitQueue, 1: limitBudget}[places] {
				t.Errorf("the limit is %q", limit)
			}
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
	room := h.fillUp()
	time.AfterFunc(30*time.Millisecond, room.release)
	b := picture(10)
	h.put(b)
	h.published(b)
}

// A door is an admission with patience, whose callers are single letters.
type door struct {
	t *testing.T
	*admission
	admitted chan string // who was let in, in that order
	rooms    map[string]*reservation
	wrong    chan error
}

func newDoor(t *testing.T, blocks int64, perCaller int) *door {
	return &door{
		t: t, admission: newAdmission(blocks*blockBytes, perCaller, 100, 10*time.Second, time.Now),
		admitted: make(chan string, 100), rooms: make(map[string]*reservation), wrong: make(chan error, 100),
	}
}

// come has an upload of so many blocks come to the door; its name begins with its caller's letter. It returns once the upload
// is in or waits.
func (d *door) come(name string, blocks int64) { d.comeFor(context.Background(), name, blocks) }

// comeFor is come, for an upload that waits until ctx ends at the most.
func (d *door) comeFor(ctx context.Context, name string, blocks int64) {
	d.t.Helper()
	before := d.waiters()
	in := make(chan struct{})
	go func() {
		room, err := d.reserve(ctx, caller{name[0]}, blocks*blockBytes, true)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			d.wrong <- err
			return
		}
		d.mu.Lock()
		d.rooms[name] = room
		d.mu.Unlock()
		d.admitted <- name
		close(in)
	}()
	for d.waiters() == before {
		select {
		case <-in:
			return
		case err := <-d.wrong:
			d.t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
}

// goes ends an upload.
func (d *door) goes(name string) {
	d.mu.Lock()
	room := d.rooms[name]
	d.mu.Unlock()
	if room == nil {
		d.t.Fatalf("%s is not in", name)
	}
	room.release()
}

// lets wants these to be let in now, and nobody else.
func (d *door) lets(names ...string) {
	d.t.Helper()
	var came []string
	for range names {
		select {
		case got := <-d.admitted:
			came = append(came, got)
		case <-time.After(5 * time.Second):
			d.t.Fatalf("%v were let in, want %v", came, names)
		}
	}
	slices.Sort(came)
	if !slices.Equal(came, names) {
		d.t.Errorf("%v were let in, want %v", came, names)
	}
	select {
	case got := <-d.admitted:
		d.t.Errorf("%s was let in too", got)
	case <-time.After(20 * time.Millisecond):
	}
}

func (d *door) empty() {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.lines)+len(d.turns)+len(d.proven) != 0 || d.places != 100 {
		d.t.Errorf("%d lines, %d turns, %d principals, %d places are left", len(d.lines), len(d.turns), len(d.proven), d.places)
	}
}

func TestACallersLineIsFirstComeFirstServed(t *testing.T) {
	d := newDoor(t, 4, 10)
	d.come("z", 4)
	d.lets("z")
	d.come("a1", 4)
	d.come("a2", 1) // a small one does not overtake a large one
	d.come("b1", 1) // nor does another caller's
	d.goes("z")
	d.lets("a1")
	d.goes("a1")
	d.lets("a2", "b1")
	d.goes("b1")
	d.goes("a2")
	d.empty()
	if d.free != 4*blockBytes {
		t.Error("not everything was given back")
	}
}

func TestNobodyOvertakesWhoseTurnItIs(t *testing.T) {
	d := newDoor(t, 4, 10)
	d.come("z", 2)
	d.lets("z")
	ctx, cancel := context.WithCancel(t.Context())
	d.comeFor(ctx, "a1", 4)
	d.come("b1", 1)
	d.lets() // there is room for it, but a was first
	cancel()
	d.lets("b1") // a has left
	d.goes("z")
	d.goes("b1")
	d.empty()
}

func TestWhatCanNeverBeLetInHoldsNobodyUp(t *testing.T) {
	d := newDoor(t, 4, 10)
	if _, err := d.reserve(t.Context(), caller{'a'}, 5*blockBytes, true); !share.Is(err, share.TooManyUploads) {
		t.Errorf("got %v", err)
	}
	d.come("b1", 1)
	d.lets("b1")
	d.goes("b1")
	d.empty()
}

func TestWhoSendsMuchWaitsBehindItself(t *testing.T) {
	d := newDoor(t, 2, 10)
	d.come("a1", 1)
	d.come("z", 1)
	d.lets("a1", "z")
	for _, name := range []string{"a2", "a3", "a4"} { // the flood
		d.come(name, 1)
	}
	d.come("b1", 1)
	d.come("c1", 1)
	d.come("b2", 1)
	d.goes("z")
	// a has half of the budget, and waits for its own: b and c take turns.
	d.lets("b1")
	d.goes("b1")
	d.lets("c1")
	d.goes("a1")
	d.lets("a2")
	d.goes("a2")
	d.lets("b2")
	d.goes("c1")
	d.lets("a3")
	d.goes("b2")
	d.lets() // what is free is free for others: a has its half
	d.goes("a3")
	d.lets("a4")
	d.goes("a4")
	d.empty()
}

func TestACallerMayHaveSoManyUploadsAndAsManyWait(t *testing.T) {
	d := newDoor(t, 100, 2)
	d.come("a1", 1)
	d.come("a2", 1)
	d.lets("a1", "a2")
	d.come("a3", 1)
	d.come("a4", 1)
	d.lets()
	_, err := d.reserve(t.Context(), caller{'a'}, 1, true)
	if e, ok := errors.AsType[*share.Error](err); !ok || e.Kind != share.TooManyUploads || e.Metadata["limit"] != limitCaller {
		t.Errorf("got %v", err)
	}
	d.come("b1", 1) // is not kept from what is free
	d.lets("b1")
	d.goes("a2")
	d.lets("a3")
	for _, name := range []string{"a1", "a3", "b1"} {
		d.goes(name)
	}
	d.lets("a4")
	d.goes("a4")
	d.empty()
}

// Several tokens of one consumer are one caller, once that is known.
func TestAPrincipalIsOneCallerWhateverItsTokens(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.MaxUploadsPerCaller = 1 })
	stream := h.begin(h.alice(), spec(picture(10)))
	_, err := h.upload(h.as(renewedToken), first(spec(picture(10))))
	if limit := refused(t, err, share.TooManyUploads).GetMetadata()["limit"]; limit != limitCaller {
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
	h.eventually("as many wait as may", func() bool { return h.server.admission.waiters() == 4 })
	b := picture(1000)
	done := make(chan error, 1)
	go func() {
		_, err := h.upload(h.alice(), whole(spec(b), b, 1000)...)
		done <- err
	}()
	h.eventually("alice waits too", func() bool { return h.server.admission.waiters() == 5 })
	room.release()
	if err := <-done; err != nil {
		t.Error(err)
	}
	stop()
	floods.Wait()
}

func TestWhoIsRefusedIsToldToComeBackLaterTheMoreThereAre(t *testing.T) {
	now := time.Now()
	told := func(others int) (mean time.Duration) {
		c := crowd{}
		for range 20 { // a door that lets ten a second in
			now = now.Add(100 * time.Millisecond)
			c.admitted(now)
		}
		for range others {
			c.refused()
		}
		seen := map[time.Duration]bool{}
		for range 100 {
			d := c.refused()
			if d < leastAway || d > mostAway {
				t.Errorf("%s", d)
			}
			seen[d] = true
			mean += d / 100
		}
		if len(seen) < 90 {
			t.Errorf("100 callers are told %d times", len(seen))
		}
		return mean
	}
	few, many := told(0), told(200)
	if many < 2*few {
		t.Errorf("%s where there are few, and %s where there are many", few, many)
	}
	c := crowd{away: 5}
	for range 10 {
		c.admitted(now)
	}
	if c.away != 0 {
		t.Errorf("%d are away, and ten came in", c.away)
	}
}

func TestTheBudgetCountsBlocksNotBytes(t *testing.T) {
	for size, blocks := range map[int64]int64{1: 1, blockBytes - 1: 1, blockBytes: 1, blockBytes + 1: 2, 300_000: 5} {
		a := newAdmission(8*blockBytes, 1, 0, 0, time.Now)
		if _, err := a.reserve(t.Context(), caller{}, size, true); err != nil {
			t.Fatal(err)
		}
		if a.free != (8-blocks)*blockBytes {
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
	room := h.fillUp()
	ctx, cancel := context.WithCancel(h.alice())
	done := make(chan error, 1)
	go func() {
		_, err := h.upload(ctx, first(spec(picture(10))))
		done <- err
	}()
	h.eventually("it waits", func() bool { return h.server.admission.waiters() == 1 })
	cancel()
	if err := <-done; status.Code(err) != codes.Canceled {
		t.Errorf("got %v", err)
	}
	h.eventually("its place is free", func() bool { return h.server.admission.waiters() == 0 })
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
		"in the queue":         {prepare: func(h *house) { h.t.Cleanup(h.fillUp().release) }},
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
	defer h.fillUp().release()
	done := make(chan error, 1)
	go func() {
		_, err := h.upload(h.alice(), first(spec(picture(10))))
		done <- err
	}()
	h.eventually("it waits", func() bool { return h.server.admission.waiters() == 1 })
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
