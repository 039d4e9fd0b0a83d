package main

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
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

// Admission control rejects an upload before it reaches the store or the ledger. Of LivePerson it needs the session only.
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
			other := w.consumer()
			if _, err := other.Raw().Conversations.ListConversations(ctx, &pb.ListConversationsRequest{Account: accountPath}); err != nil { // opens its session
				t.Fatal(err)
			}
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

// An address whose share of connections is in use loses the one without a call, and a probe is answered.
func TestConnections_AreLimited(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{}, "--max-connections=6")
	connect := func() *grpc.ClientConn {
		conn, err := grpc.NewClient(w.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	watched := connect()
	watch, err := healthpb.NewHealthClient(watched).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	for range 20 { // idle afterwards
		if _, err := healthpb.NewHealthClient(connect()).Check(t.Context(), &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true)); err != nil {
			t.Fatal(err)
		}
	}
	if err := watch.CloseSend(); err != nil || watched.GetState() != connectivity.Ready {
		t.Errorf("the connection with a call was closed: %v", watched.GetState())
	}
}
