package abuse

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

// text is a file of n bytes that any check takes for plain text.
func text(n int) []byte { return bytes.Repeat([]byte("0123456789abcde\n"), n/16+1)[:n] }

// uploads returns uploads of text by a consumer of its own, each attempted once.
func uploads(size int) func(s *server) func(ctx context.Context) error {
	return func(s *server) func(ctx context.Context) error {
		c, data := s.Consumer(s.t), text(size)
		return func(ctx context.Context) error { return upload(ctx, c, data) }
	}
}

func upload(ctx context.Context, c harness.Consumer, data []byte) error {
	_, err := c.Upload(ctx, lpfileshare.UploadOptions{
		Conversation: c.Conversation, DisplayName: "a.txt", FileType: pb.FileType_FILE_TYPE_TXT, RetryFor: -1,
	}, bytes.NewReader(data))
	return err
}

// newcomers returns the first call of a consumer that was not there before.
func newcomers(s *server) func(ctx context.Context) error {
	c := s.connect()
	return func(ctx context.Context) error {
		new, err := harness.SignUp(ctx, c, account)
		if err != nil {
			return err
		}
		return list(ctx, new.Client)
	}
}

func list(ctx context.Context, c *lpfileshare.Client) error {
	_, err := c.Raw().Files.ListFiles(ctx, &pb.ListFilesRequest{Parent: accountPath + "/conversations/-", PageSize: 1})
	return err
}

// forged returns a token that looks like LivePerson's for this account, and is not signed by it.
func forged(i int) string {
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	claims := fmt.Sprintf(`{"sub":"nobody-%d","aud":"acc:%s","iss":"forged","iat":%d,"exp":%d}`, i, account, time.Now().Unix(), time.Now().Add(time.Hour).Unix())
	return part(`{"alg":"RS256","typ":"JWT"}`) + "." + part(claims) + "." + part(strings.Repeat("x", 128))
}

func as(c *lpfileshare.Client, token string) *lpfileshare.Client {
	return c.As(lpfileshare.ConsumerToken(lpfileshare.StaticToken(token)))
}

// beginUpload sends the first message of an upload of 3 MB, and waits for its end.
func beginUpload(ctx context.Context, c *lpfileshare.Client, spec *pb.UploadSpec) error {
	stream, err := c.Raw().Files.Upload(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&pb.UploadRequest{FirstMessage: &pb.UploadRequest_Spec{Spec: spec}}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	_, err = stream.CloseAndRecv()
	return err
}

func textSpec(conversation string) *pb.UploadSpec {
	return &pb.UploadSpec{Conversation: conversation, DisplayName: "a.txt", FileType: pb.FileType_FILE_TYPE_TXT, SizeBytes: proto.Int64(3_000_000)}
}

// garbageUploads begins uploads with another token each.
func garbageUploads(perSecond int, token func(i int) string) func(ctx context.Context, s *server) {
	return func(ctx context.Context, s *server) {
		c := s.connect()
		atRate(ctx, perSecond, func(ctx context.Context, i int) {
			_ = beginUpload(ctx, as(c, token(i)), textSpec(accountPath+"/conversations/none"))
		})
	}
}

// slowRefusal has LivePerson take its time for a socket.
var slowRefusal = []sandbox.Fault{{On: "ws:upgrade", Delay: 300 * time.Millisecond}}

var gif = harness.TinyGIF()

// storeAll stores tiny pictures with the largest preview and caption, as fast as 16 at once can be.
func storeAll(ctx context.Context, s *server) {
	c := s.Consumer(s.t)
	atOnce(ctx, 16, func(ctx context.Context, _ int) {
		_, _ = c.Raw().Files.UploadSmallFile(ctx, &pb.UploadSmallFileRequest{Data: gif, Spec: &pb.UploadSpec{
			Conversation: c.Conversation, FileType: pb.FileType_FILE_TYPE_GIF, Caption: strings.Repeat("\U0001F600", 5000),
			Preview: harness.Preview("", 29_000), PublishMode: pb.PublishMode_PUBLISH_MODE_STORE_ONLY,
		}})
	})
}

// failAll begins uploads that can only fail, each under a request id of its own.
func failAll(ctx context.Context, s *server) {
	c := s.Consumer(s.t)
	atOnce(ctx, 16, func(ctx context.Context, _ int) {
		spec := textSpec(accountPath + "/conversations/" + uuid.NewString())
		spec.RequestId = uuid.NewString()
		_ = beginUpload(ctx, c.Client, spec)
	})
}

// junkLists lists files with another forged token each, 2,000 at once.
func junkLists(ctx context.Context, s *server) {
	c := s.connect()
	var n atomic.Int64
	atOnce(ctx, 2000, func(ctx context.Context, _ int) {
		_ = list(ctx, as(c, forged(int(n.Add(1)))))
		wait(ctx, 100*time.Millisecond)
	})
}

// slowUploads has three consumers keep 44 uploads each, which do not say their size and send 1.2 KB a second.
func slowUploads(ctx context.Context, s *server) {
	var consumers []harness.Consumer
	for range 3 {
		consumers = append(consumers, s.Consumer(s.t))
	}
	atOnce(ctx, 3*44, func(ctx context.Context, i int) {
		c := consumers[i%3]
		r, w := io.Pipe()
		defer r.Close()
		go func() { // ends when r is closed
			for {
				if _, err := w.Write(text(120)); err != nil {
					return
				}
				wait(ctx, 100*time.Millisecond)
			}
		}()
		_, _ = c.Upload(ctx, lpfileshare.UploadOptions{
			Conversation: c.Conversation, DisplayName: "a.txt", FileType: pb.FileType_FILE_TYPE_TXT, RetryFor: -1, ChunkBytes: 120,
		}, r)
		wait(ctx, 100*time.Millisecond)
	})
}

var callers = []row{
	{
		name: "ledger: pictures that are only stored, with the largest preview and caption", flags: []string{"--ledger-bytes=16MiB"},
		honest: uploads(3000), attack: storeAll,
	},
	{
		name: "ledger: uploads that can only fail", flags: []string{"--ledger-bytes=8MiB"},
		honest: uploads(3000), attack: failAll,
	},
	{
		name: "400 uploads/s with tokens that are none", honest: uploads(3000),
		attack: garbageUploads(400, func(i int) string { return fmt.Sprint("garbage-", i) }),
	},
	{
		name: "400 uploads/s with forged tokens, which LivePerson refuses after 300 ms", honest: uploads(3000),
		faults: slowRefusal, attack: garbageUploads(400, forged),
	},
	{
		name: "250 uploads/s with forged tokens, and images are fitted", flags: []string{"--fit-images"}, honest: uploads(3000),
		faults: slowRefusal, attack: garbageUploads(250, forged),
	},
	{
		name: "2,000 lists at once with forged tokens, beside newcomers", flags: []string{"--max-sessions=2000"}, honest: newcomers,
		faults: slowRefusal, attack: junkLists,
	},
	{
		name: "consumers that come once, beyond --max-sessions", flags: []string{"--max-sessions=50"}, honest: newcomers,
		attack: func(ctx context.Context, s *server) {
			c := s.connect()
			atRate(ctx, 100, func(ctx context.Context, _ int) {
				if new, err := harness.SignUp(ctx, c, account); err == nil {
					_ = list(ctx, new.Client)
				}
			})
		},
	},
	{name: "3 consumers with 44 uploads each of 1.2 KB/s and unknown size", honest: uploads(3_000_000), attack: slowUploads},
}

func TestCallers(t *testing.T) {
	for _, r := range callers {
		t.Run(r.name, r.run)
	}
}

// TestErrors_EchoNothingLong sends fields that are far too long. The status must fit what every gRPC client and proxy accepts, and
// its reason must arrive.
func TestErrors_EchoNothingLong(t *testing.T) {
	picked(t, "echo")
	sb := harness.Sandbox(t, frames, sandbox.Options{})
	started, err := harness.Start(program, append(harness.Before(sb), "--ledger=memory", "--drain-notice=0s", "--documents")...)
	if err != nil {
		t.Fatal(err)
	}
	started.Stopped(t)
	c := started.Consumer(t)
	long := strings.Repeat("x", 12_000)
	for name, call := range map[string]func() error{
		"request_id": func() error {
			spec := textSpec(c.Conversation)
			spec.RequestId = long
			return beginUpload(t.Context(), c.Client, spec)
		},
		"conversation": func() error { return beginUpload(t.Context(), c.Client, textSpec(accountPath+"/conversations/"+long)) },
		"dialog": func() error {
			spec := textSpec(c.Conversation)
			spec.DialogId = long
			return beginUpload(t.Context(), c.Client, spec)
		},
		"display name": func() error {
			spec := textSpec(c.Conversation)
			spec.DisplayName = long
			return beginUpload(t.Context(), c.Client, spec)
		},
		"account": func() error {
			_, err := c.Raw().Files.ListFiles(t.Context(), &pb.ListFilesRequest{Parent: "accounts/" + long + "/conversations/-"})
			return err
		},
		"page token": func() error {
			_, err := c.Raw().Files.ListFiles(t.Context(), &pb.ListFilesRequest{Parent: accountPath + "/conversations/-", PageToken: long})
			return err
		},
		"file": func() error { _, err := c.Stat(t.Context(), c.Conversation+"/files/"+long); return err },
		"upload": func() error {
			_, err := c.Raw().Files.GetUpload(t.Context(), &pb.GetUploadRequest{Name: accountPath + "/uploads/" + long})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := call()
			s, _ := status.FromError(err)
			size := proto.Size(s.Proto())
			if size > 4<<10 {
				t.Errorf("the status has %d bytes", size)
			}
			if s.Code() == codes.Internal || lpfileshare.ErrorReason(err) == pb.ErrorReason_ERROR_REASON_UNSPECIFIED {
				t.Errorf("%v, reason %v", s.Code(), lpfileshare.ErrorReason(err))
			}
		})
	}
}
