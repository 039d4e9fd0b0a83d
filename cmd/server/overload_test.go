package main

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

// begin opens an upload of 3 MB, and returns once it is accepted, or with why it is not.
func begin(ctx context.Context, c *lpfileshare.Client, conversation, requestID string) error {
	stream, err := c.Raw().Files.Upload(ctx)
	if err != nil {
		return err
	}
	_ = stream.Send(&pb.UploadRequest{FirstMessage: &pb.UploadRequest_Spec{Spec: &pb.UploadSpec{
		Conversation: conversation, FileType: pb.FileType_FILE_TYPE_JPEG, SizeBytes: new(int64(3_000_000)), RequestId: requestID,
	}}})
	if header, _ := stream.Header(); header != nil {
		return nil
	}
	_, err = stream.CloseAndRecv()
	return err
}

// Admission control rejects an upload at its first message, before it reaches LivePerson, the store or the ledger. No socket is opened
// for the token.
func TestAdmission_RejectedUploadReachesNothing(t *testing.T) {
	t.Parallel()
	for limit, queue := range map[string]string{"budget": "--queue-length=10", "queue": "--queue-length=0"} {
		t.Run(limit, func(t *testing.T) {
			w := newWorld(t, sandbox.Options{}, "--memory-budget=6200000", "--queue-time=50ms", queue)
			ctx, end := context.WithCancel(t.Context())
			defer end()
			for range 2 {
				c := w.consumer()
				if err := begin(ctx, c.Client, w.conversation(c.Client), ""); err != nil {
					t.Fatal(err)
				}
			}
			other := w.consumer() // whose token no socket has been opened for
			frames, quiet := int64(-1), 0
			harness.Eventually(t, "the admitted uploads have their URLs, and no frames are on the way", func() bool {
				if now := w.frames.Load(); now == frames {
					quiet++
				} else {
					frames, quiet = now, 0
				}
				return len(w.sb.Journal().Signed) == 2 && quiet >= 40
			})
			sockets, journal := w.sb.Sockets(), w.sb.Journal()
			id := uuid.NewString()
			err := begin(ctx, other.Client, accountPath+"/conversations/any", id)
			wantReason(t, err, pb.ErrorReason_ERROR_REASON_TOO_MANY_UPLOADS)
			if after, ok := lpfileshare.RetryDelay(err); !ok || after < 2*time.Second {
				t.Errorf("RetryInfo is %s, %t", after, ok)
			}
			if n := len(w.sb.Journal().Signed) - len(journal.Signed); n != 0 || w.frames.Load() != frames || w.sb.Sockets() != sockets {
				t.Errorf("%d signed URLs, %d frames, %d sockets more", n, w.frames.Load()-frames, w.sb.Sockets()-sockets)
			}
			_, err = other.Raw().Files.GetUpload(ctx, &pb.GetUploadRequest{Name: accountPath + "/uploads/" + id})
			wantReason(t, err, pb.ErrorReason_ERROR_REASON_UPLOAD_NOT_FOUND)
		})
	}
}

// A connection above the limit waits until another has ended.
func TestConnections_AreLimited(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{}, "--max-connections=2")
	alive := func(c *lpfileshare.Client, within time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		_, err := c.Health(ctx, "")
		return err
	}
	connect := func() *grpc.ClientConn {
		conn, err := grpc.NewClient(w.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	first, second := connect(), connect()
	for _, conn := range []*grpc.ClientConn{first, second} {
		if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	third := w.dial()
	if err := alive(third, 300*time.Millisecond); err == nil {
		t.Error("a third connection was taken")
	}
	first.Close()
	if err := alive(third, time.Minute); err != nil {
		t.Errorf("the third connection, after the first has gone: %v", err)
	}
}
