package load

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
)

// BenchmarkAdmittedBesideRefused uploads 48 files of 3 MB, 8 at once, to a store that takes 6 MB/s of each: alone, and beside
// another caller who has as many uploads as one may have and asks for more without a pause. Both are measured in the same run, by
// turns.
func BenchmarkAdmittedBesideRefused(b *testing.B) {
	const uploads, atOnce = 48, 8
	s := startServer(b, "--documents", "--max-uploads-per-caller=8", "--queue-time=10m", "--upload-idle-timeout=10m")
	s.sb.Inject(sandbox.Fault{On: "store:PUT", BytesPerSecond: 6_000_000})
	admitted, flooder := s.Consumer(b), s.Consumer(b)
	data := text(fileBytes)
	run := func() time.Duration {
		begun := time.Now()
		var group errgroup.Group
		group.SetLimit(atOnce)
		for range uploads {
			group.Go(func() error { return upload(b.Context(), admitted.Client, admitted.Conversation, data) })
		}
		if err := group.Wait(); err != nil {
			b.Fatal(err)
		}
		return time.Since(begun)
	}
	run() // warm

	var alone, beside time.Duration
	var refusals int64
	for b.Loop() {
		const turns = 3
		for range turns {
			alone += run()
			stop := startFlood(b, flooder.Client, flooder.Conversation, 2*atOnce)
			signed := len(s.sb.Journal().Signed)
			beside += run()
			if n := len(s.sb.Journal().Signed) - signed; n != uploads {
				b.Errorf("%d signed URLs were asked for, and %d files were uploaded: a refused upload cost something", n, uploads)
			}
			refusals += stop()
		}
	}
	moved := float64(b.N) * 3 * uploads * fileBytes / 1e6
	b.ReportMetric(moved/alone.Seconds(), "MB/s-alone")
	b.ReportMetric(moved/beside.Seconds(), "MB/s-beside")
	b.ReportMetric(alone.Seconds()/beside.Seconds(), "of-alone")
	b.ReportMetric(float64(refusals)/beside.Seconds(), "refusals/s")
	b.ReportMetric(0, "ns/op")
}

// startFlood takes all places of a caller, running and waiting, by uploads that only begin, and then has 16 goroutines ask for
// more. stop ends it all, and returns how many were rejected.
func startFlood(b *testing.B, c *lpfileshare.Client, conversation string, places int) (stop func() (refused int64)) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	begin := func(ctx context.Context) (pb.FileSharingService_UploadClient, error) {
		stream, err := c.Raw().Files.Upload(ctx)
		if err != nil {
			return nil, err
		}
		return stream, stream.Send(&pb.UploadRequest{FirstMessage: &pb.UploadRequest_Spec{Spec: &pb.UploadSpec{
			Conversation: conversation, FileType: pb.FileType_FILE_TYPE_TXT, SizeBytes: new(int64(fileBytes)),
		}}})
	}
	for range places {
		if _, err := begin(ctx); err != nil {
			b.Fatal(err)
		}
	}
	eventually(b, "no place is left", func() bool {
		ctx, cancel := context.WithTimeout(ctx, time.Second) // a probe that gets a place gives it up again
		defer cancel()
		stream, err := begin(ctx)
		if err == nil {
			_, err = stream.CloseAndRecv()
		}
		return lpfileshare.ErrorReason(err) == pb.ErrorReason_ERROR_REASON_TOO_MANY_UPLOADS
	})
	var refused, others atomic.Int64
	var flood sync.WaitGroup
	for range 16 {
		flood.Go(func() {
			for ctx.Err() == nil {
				stream, err := begin(ctx)
				if err == nil || stream != nil {
					_, err = stream.CloseAndRecv()
				}
				switch {
				case lpfileshare.ErrorReason(err) == pb.ErrorReason_ERROR_REASON_TOO_MANY_UPLOADS:
					refused.Add(1)
				case ctx.Err() == nil:
					others.Add(1)
				}
			}
		})
	}
	return func() int64 {
		cancel()
		flood.Wait()
		if refused.Load() == 0 || others.Load() > 0 {
			b.Errorf("%d uploads of the flood were refused, and %d ended otherwise", refused.Load(), others.Load())
		}
		return refused.Load()
	}
}
