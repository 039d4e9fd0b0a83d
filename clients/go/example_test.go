package lpfileshare_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// exampleServer is a server with one conversation that stores the last file.
func exampleServer() (address string, stop func()) {
	var stored []byte
	f := &fake{
		signIn: func(*pb.SignInConsumerRequest) (*pb.SignInConsumerResponse, error) {
			return &pb.SignInConsumerResponse{ConsumerToken: "t", ExpireTime: timestamppb.New(time.Now().Add(time.Hour))}, nil
		},
		create: func(int, *pb.CreateConversationRequest) (*pb.CreateConversationResponse, error) {
			return &pb.CreateConversationResponse{Conversation: &pb.Conversation{Name: conversation}}, nil
		},
		upload: func(_ int, s uploadStream) error {
			r, err := receiveAll(s)
			if err != nil {
				return err
			}
			if len(r.data) > 1000 {
				return failure(codes.InvalidArgument, pb.ErrorReason_ERROR_REASON_FILE_TOO_LARGE)
			}
			stored = r.data
			return r.answer(s)
		},
		download: func(_ int, r *pb.DownloadRequest, s downloadStream) error {
			return sending{data: stored, etag: "e"}.send(r, s)
		},
	}
	f.list = func(*pb.ListFilesRequest) (*pb.ListFilesResponse, error) {
		return &pb.ListFilesResponse{Files: []*pb.File{{Name: "1"}}, WatchToken: "1"}, nil
	}
	f.watch = numbers(func(int, watchStream) error { return nil })
	stop, err := f.listen(nil)
	if err != nil {
		log.Fatal(err)
	}
	return f.addr, stop
}

// A file is sent into a conversation and downloaded again.
func Example() {
	address, stop := exampleServer()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	c, err := lpfileshare.Dial(address)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	session, err := c.SignInConsumer(ctx, &pb.SignInConsumerRequest{
		Account: "accounts/12345678", Grant: &pb.SignInConsumerRequest_SignUp{SignUp: &pb.SignUp{}},
	})
	if err != nil {
		log.Fatal(err)
	}
	consumer := c.As(lpfileshare.ConsumerToken(lpfileshare.NewConsumerTokens("12345678", session, nil)))

	talk, err := consumer.CreateConversation(ctx, &pb.CreateConversationRequest{Account: "accounts/12345678"})
	if err != nil {
		log.Fatal(err)
	}
	sent, err := consumer.UploadBytes(ctx, lpfileshare.UploadOptions{
		Conversation: talk.GetName(), DisplayName: "hello.txt", Caption: "the greeting",
	}, []byte("hello"))
	if err != nil {
		log.Fatal(err)
	}
	file, err := consumer.OpenDownload(ctx, lpfileshare.DownloadOptions{Name: sent.GetFile().GetName()})
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	text, err := io.ReadAll(file) // verified: a damaged or incomplete file is an error
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d bytes: %s\n", len(text), text)
	// Output: 5 bytes: hello
}

// An error says what happened and what to do.
func ExampleError() {
	address, stop := exampleServer()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := lpfileshare.Dial(address, lpfileshare.WithExternalConsumerID("customer-7"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	_, err = c.Upload(ctx, lpfileshare.UploadOptions{Conversation: conversation, DisplayName: "cat.jpg"}, bytes.NewReader(picture(2000)))
	if e, ok := errors.AsType[*lpfileshare.Error](err); ok && e.Reason == pb.ErrorReason_ERROR_REASON_FILE_TOO_LARGE {
		fmt.Println(e.What())
		fmt.Println(e.Advice())
	}
	// Output:
	// upload cat.jpg: it failed [FILE_TOO_LARGE]
	// Send a smaller file, or set the option that makes images fit. The capabilities list the limits.
}

// A listing and the watch after it have no gap between them.
func ExampleClient_Watch() {
	address, stop := exampleServer()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := lpfileshare.Dial(address, lpfileshare.WithAgentToken(lpfileshare.StaticToken("from SignInAgent")))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	const parent = "accounts/12345678/conversations/-"
	list := c.Files(ctx, lpfileshare.FilesOptions{Parent: parent})
	for f, err := range list.All() {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("listed", f.GetName())
	}
	watch := c.Watch(ctx, lpfileshare.WatchOptions{Parent: parent, Token: list.WatchToken()})
	for f, err := range watch.All() {
		if err != nil { // errors.Is(err, lpfileshare.ErrWatchReset): list again
			log.Fatal(err)
		}
		fmt.Println("published", f.GetName())
		if f.GetName() == "3" {
			break
		}
	}
	fmt.Println("continue later from token", watch.Token())
	// Output:
	// listed 1
	// published 2
	// published 3
	// continue later from token 3
}
