package service

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A call that is opened, but whose request never arrives, is ended.
func TestRequestTimeout_EndsCallWithoutRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, func(c *Config) { c.IdleTimeout = 150 * time.Millisecond })
		for _, method := range []string{
			pb.FileSharingService_ListFiles_FullMethodName, pb.FileSharingService_Download_FullMethodName,
			pb.FileSharingService_WatchFiles_FullMethodName, pb.IdentityService_SignInConsumer_FullMethodName,
		} {
			stream, err := h.conn.NewStream(h.alice(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
			if err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			err = stream.RecvMsg(new(pb.DownloadResponse))
			if status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("got %v, want DEADLINE_EXCEEDED", err)
			}
			if took := time.Since(begun); took != h.server.IdleTimeout {
				t.Errorf("%s: the call ended after %s, want %s", method, took, h.server.IdleTimeout)
			}
		}
	})
}

// A call whose request has arrived may take longer.
func TestRequestTimeout_IgnoresCallWithRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, func(c *Config) { c.IdleTimeout = 100 * time.Millisecond })
		h.lp.on("ListFiles", func(context.Context) error { time.Sleep(300 * time.Millisecond); return nil })
		if _, err := h.files.ListFiles(h.alice(), &pb.ListFilesRequest{Parent: parent}); err != nil {
			t.Errorf("a listing: %v", err)
		}
		ctx, cancel := context.WithCancel(h.alice())
		defer cancel()
		watch, err := h.files.WatchFiles(ctx, &pb.WatchFilesRequest{Parent: parent})
		if err != nil {
			t.Fatal(err)
		}
		if m, err := watch.Recv(); err != nil || m.GetHeartbeat() == nil {
			t.Fatalf("the watch begins with %v, %v", m, err)
		}
		time.Sleep(300 * time.Millisecond)
		h.lp.send(conversation, path("a.jpg"), "bob")
		if m, err := watch.Recv(); err != nil || m.GetFile() == nil {
			t.Errorf("the watch continues with %v, %v", m, err)
		}
	})
}

func TestUpload_MinimumRate(t *testing.T) {
	trickle := func(c *Config) { c.IdleTimeout, c.MinUploadRate = 200*time.Millisecond, 1000 } // 200 bytes in each IdleTimeout
	b := picture(1000)
	for what, s := range map[string]*pb.UploadSpec{"declared": spec(b), "undeclared": spec(b, undeclared)} {
		t.Run(what, inBubble(func(t *testing.T) {
			h := newHarness(t, trickle)
			stream := h.begin(h.alice(), s)
			_ = stream.Send(chunk(0, b[:500])) // enough for the first IdleTimeout
			var sender sync.WaitGroup
			defer sender.Wait()
			sender.Go(func() {
				for off := 500; off < len(b)-1 && stream.Send(chunk(off, b[off:off+1])) == nil; off++ {
					time.Sleep(20 * time.Millisecond)
				}
			})
			err := stream.RecvMsg(new(pb.UploadResponse))
			wantError(t, err, share.UploadIdle)
			if !strings.Contains(err.Error(), "the minimum is 200") {
				t.Errorf("the upload ended for another reason: %v", err)
			}
			h.wantNothingStored(len(b))
		}))
	}
	t.Run("not after all bytes", inBubble(func(t *testing.T) {
		h := newHarness(t, trickle)
		few := picture(10)
		stream := h.begin(h.alice(), spec(few))
		time.Sleep(150 * time.Millisecond)
		_ = stream.Send(chunk(0, few))
		time.Sleep(100 * time.Millisecond)
		_ = stream.Send(finish())
		if _, err := stream.CloseAndRecv(); err != nil {
			t.Fatal(err)
		}
	}))
	t.Run("not above the rate", inBubble(func(t *testing.T) {
		h := newHarness(t, trickle)
		stream := h.begin(h.alice(), spec(b))
		for off := 0; off < len(b); off += 100 {
			_ = stream.Send(chunk(off, b[off:off+100]))
			time.Sleep(50 * time.Millisecond) // 2,000 bytes per second
		}
		_ = stream.Send(finish())
		if _, err := stream.CloseAndRecv(); err != nil {
			t.Fatal(err)
		}
		h.wantPublished(b)
	}))
}

// Downloads and watches are counted together: by the token, and by the principal that it proves.
func TestStreams_LimitPerCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, func(c *Config) { c.MaxStreamsPerCaller = 2 })
		name := h.addFile(path("a.jpg"), picture(10))
		watch := func(token string) (end func(), err error) {
			ctx, cancel := context.WithCancel(h.as(token))
			stream, err := h.files.WatchFiles(ctx, &pb.WatchFilesRequest{Parent: parent})
			if err == nil {
				_, err = stream.Recv()
			}
			if err != nil {
				cancel()
			}
			return cancel, err
		}
		first, err := watch(aliceToken)
		if err != nil {
			t.Fatal(err)
		}
		second, err := watch(renewedToken)
		if err != nil {
			t.Fatal(err)
		}
		defer second()
		_, _, _, err = h.download(h.alice(), byName(name))
		wantError(t, err, share.TooManyStreams)
		_, err = watch(renewedToken)
		wantError(t, err, share.TooManyStreams)
		if _, _, _, err := h.download(h.as(bobToken), byName(name)); err != nil {
			t.Errorf("the download of another caller: %v", err)
		}
		// A forged token does not count for another caller.
		forged := metadata.AppendToOutgoingContext(t.Context(), string(share.ConsumerToken), "forged-"+secret)
		_, _, _, err = h.download(forged, byName(name))
		wantError(t, err, share.TokenInvalid)
		first()
		h.eventually("a download is possible again", func() bool { _, _, _, err := h.download(h.alice(), byName(name)); return err == nil })
	})
}
