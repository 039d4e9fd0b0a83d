package service

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// consumer returns the context of one of many consumers, and the parent of its conversation.
func (h *harness) consumer(n int) (context.Context, func(*pb.UploadSpec)) {
	id := fmt.Sprint("consumer-", n)
	h.lp.state.Lock()
	_, known := h.lp.tokens[id+secret]
	h.lp.tokens[id+secret] = share.Principal{Account: account, ID: id, Role: share.RoleConsumer}
	h.lp.state.Unlock()
	if !known {
		h.lp.addConversation("conv-"+id, true, id)
	}
	ctx := metadata.AppendToOutgoingContext(h.t.Context(), string(share.ConsumerToken), id+secret)
	return ctx, func(s *pb.UploadSpec) { s.Conversation = conversationName(account, "conv-"+id) }
}

// A caller whose identity is not proved has no memory of the budget, and cannot keep a proved one waiting.
func TestUpload_UnprovedCallersReserveNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(100_000)
		h.put(b) // opens alice's session
		h.lp.on("Session", func(ctx context.Context) error {
			if md, _ := metadata.FromIncomingContext(ctx); md.Get(string(share.ConsumerToken))[0] == aliceToken {
				return nil
			}
			time.Sleep(300 * time.Millisecond)
			return nil // it will not know the token
		})
		flood, stop := context.WithCancel(context.Background())
		var calls sync.WaitGroup
		rejected := make(chan error, 100)
		for n := range 100 {
			ctx := metadata.AppendToOutgoingContext(flood, string(share.ConsumerToken), fmt.Sprint("garbage", n))
			calls.Go(func() {
				_, err := h.files.UploadSmallFile(ctx, &pb.UploadSmallFileRequest{Spec: spec(b), Data: b})
				rejected <- err
			})
		}
		synctest.Wait()
		if free := h.budgetFree(); free != h.server.MemoryBudget {
			t.Errorf("unproved callers hold %d bytes of the budget", h.server.MemoryBudget-free)
		}
		if held := h.server.Openings.Usage().HeldBytes; held == 0 || held > h.server.Openings.FirstBytes/2 {
			t.Errorf("the first messages of one address hold %d bytes", held)
		}
		begun := time.Now()
		h.put(b)
		if took := time.Since(begun); took > 10*time.Millisecond {
			t.Errorf("an honest upload took %s", took)
		}
		calls.Wait()
		stop()
		kinds := map[share.Kind]int{}
		for range 100 {
			err := <-rejected
			for _, d := range status.Convert(err).Details() {
				if info, ok := d.(*errdetails.ErrorInfo); ok {
					wantError(t, err, share.Kind(info.GetReason()))
					kinds[share.Kind(info.GetReason())]++
				}
			}
		}
		if kinds[share.SessionLimit] == 0 || kinds[share.TokenInvalid] == 0 || kinds[share.SessionLimit]+kinds[share.TokenInvalid] != 100 {
			t.Errorf("rejected as %v", kinds)
		}
	})
}

func TestUpload_UndeclaredSizeIsReservedAsItArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(150_000)
		stream := h.begin(h.alice(), spec(b, undeclared))
		want := int64(1)
		for off := 0; ; off += 65_000 {
			synctest.Wait()
			if used := (h.server.MemoryBudget - h.budgetFree()) / admission.BlockBytes; used != want {
				t.Errorf("after %d bytes %d blocks are reserved, want %d", off, used, want)
			}
			if off >= len(b) {
				break
			}
			_ = stream.Send(chunk(off, b[off:min(off+65_000, len(b))]))
			want = admission.WholeBlocks(int64(min(off+65_000, len(b)))) / admission.BlockBytes
		}
		_ = stream.Send(finish())
		if _, err := stream.CloseAndRecv(); err != nil {
			t.Error(err)
		}
	})
}

// Uploads of which none says its size all end, although what they need is several times the budget.
func TestUpload_UndeclaredSizesShareTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, func(c *Config) { c.UploadTimeout, c.QueueWait, c.QueueLength = 10*time.Minute, time.Minute, 100 })
		b := picture(300_000)
		var uploads sync.WaitGroup
		for n := range 16 {
			ctx, in := h.consumer(n)
			uploads.Go(func() {
				stream, err := h.files.Upload(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				msgs := whole(spec(b, in, undeclared), b, 20_000)
				for _, m := range msgs {
					time.Sleep(100 * time.Millisecond)
					_ = stream.Send(m)
				}
				if _, err := stream.CloseAndRecv(); err != nil {
					t.Errorf("consumer %d: %v", n, err)
				}
			})
		}
		uploads.Wait()
		if n := len(h.lp.messages()); n != 16 {
			t.Errorf("%d files were published", n)
		}
	})
}

// An upload that waits for memory to grow is neither idle nor slow, as its client cannot send, and is rejected as one that found no memory.
func TestUpload_WaitingToGrowIsNotIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, func(c *Config) { c.MinUploadRate = 1024 })
		b := picture(300_000)
		ctx, in := h.consumer(0)
		first := h.begin(ctx, spec(b, in, undeclared))
		ctx, in = h.consumer(1)
		second := h.begin(ctx, spec(b, in, undeclared))
		other, err := h.server.memory.Reserve(t.Context(), admission.Holder{Group: account}, 9*admission.BlockBytes, 0, false)
		if err != nil { // 5 blocks are free, and kept for one of the two
			t.Fatal(err)
		}
		defer other.Release()
		_ = first.Send(chunk(0, b[:100_000]))
		time.Sleep(time.Second) // the pace is checked before the wait for memory ends
		_ = second.Send(chunk(0, b))
		_ = second.Send(finish())
		time.Sleep(5 * time.Second)
		_ = first.Send(chunk(100_000, b[100_000:]))
		_, err = second.CloseAndRecv()
		wantError(t, err, share.TooManyUploads)
		_ = first.Send(finish())
		if _, err := first.CloseAndRecv(); err != nil {
			t.Error(err)
		}
	})
}

// Slow uploads may hold memory while nobody else needs it. When others wait for it the slow ones end, and fast ones go on.
func TestUpload_SlowOnesEndWhileOthersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, func(c *Config) {
			c.UploadTimeout, c.QueueWait, c.MinUploadRate, c.IdleTimeout = 10*time.Minute, time.Minute, 1024, 30*time.Second
		})
		b := picture(300_000)
		slow := make(chan error, 3)
		begin := func(n, perSecond int) {
			ctx, in := h.consumer(n)
			stream := h.begin(ctx, spec(b, in))
			go func() {
				for off := 0; off < len(b); off += perSecond {
					if stream.Send(chunk(off, b[off:min(off+perSecond, len(b))])) != nil {
						break
					}
					time.Sleep(time.Second)
				}
				_ = stream.Send(finish())
				_, err := stream.CloseAndRecv()
				slow <- err
			}()
		}
		begin(0, 1200)
		begin(1, 1200)
		begin(2, 8000)
		time.Sleep(2 * time.Minute) // the third has ended
		if err := <-slow; err != nil || len(slow) != 0 {
			t.Fatalf("without contention: %v, and %d others have ended", err, len(slow))
		}
		begin(2, 8000)
		ctx, in := h.consumer(3)
		begun := time.Now()
		if _, err := h.upload(ctx, whole(spec(b, in), b, 50_000)...); err != nil {
			t.Errorf("the upload that waited: %v", err)
		}
		if took := time.Since(begun); took > 25*time.Second {
			t.Errorf("it waited %s", took)
		}
		for range 2 {
			wantError(t, <-slow, share.UploadIdle)
		}
		if err := <-slow; err != nil {
			t.Errorf("the fast upload: %v", err)
		}
	})
}
