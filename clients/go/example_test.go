package lpfileshare_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// exampleServer stands for a server that has one conversation and keeps the last file.
func exampleServer() (address string, stop func()) {
	var kept []byte
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
			kept = r.data
			return r.answer(s)
		},
		download: func(_ int, r *pb.DownloadRequest, s downloadStream) error {
			return sending{data: kept, etag: "e"}.send(r, s)
		},
	}
	f.watch = numbers(func(int, watchStream) error { return nil })
	stop, err := f.serve(nil)
	if err != nil {
		log.Fatal(err)
	}
	return f.addr, stop
}

// A file goes into a conversation and comes back.
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
	sent, err := consumer.Upload(ctx, lpfileshare.UploadOptions{
		Conversation: talk.GetName(), DisplayName: "hello.txt", Caption: "as promised",
	}, strings.NewReader("hello"))
	if err != nil {
		log.Fatal(err)
	}
	var back bytes.Buffer
	got, err := consumer.Download(ctx, lpfileshare.DownloadOptions{Name: sent.GetFile().GetName()}, &back)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d bytes: %s\n", got.Bytes, &back)
	// Output: 5 bytes: hello
}

// An error tells what happened, and what to do.
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
	// Send a smaller file, or have an image made to fit; the capabilities tell the limits.
}

// A watch goes on for as long as the caller wants it, over lost connections.
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

	enough := errors.New("enough")
	err = c.Watch(ctx, lpfileshare.WatchOptions{Parent: "accounts/12345678/conversations/-"}, func(f *pb.File) error {
		fmt.Println("file", f.GetName())
		if f.GetName() == "3" {
			return enough
		}
		return nil
	})
	fmt.Println(err)
	// Output:
	// file 1
	// file 2
	// file 3
	// enough
}
