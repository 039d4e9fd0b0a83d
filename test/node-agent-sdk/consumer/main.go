// Command consumer is the gRPC side of test/node-agent-sdk: it opens a conversation, sends a picture, waits for the file that
// the bot answers with, downloads it, and prints the SHA-256 of both:
//
//	sent HASH
//	received HASH
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"flag"
	"fmt"
	"image"
	"image/png"
	"os"
	"time"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

func main() {
	server := flag.String("server", "127.0.0.1:50051", "address of lpfileshare-server")
	account := flag.String("account", "12345678", "account id")
	limit := flag.Duration("limit", 40*time.Second, "how long it may take")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), *limit)
	err := run(ctx, *server, "accounts/"+*account)
	cancel()
	if err != nil {
		fmt.Fprintf(os.Stderr, "consumer: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, server, account string) error {
	anybody, err := lpfileshare.Dial(server)
	if err != nil {
		return err
	}
	defer anybody.Close()
	if err := anybody.Connect(ctx); err != nil {
		return err
	}
	session, err := anybody.SignInConsumer(ctx, &pb.SignInConsumerRequest{
		Account: account, Grant: &pb.SignInConsumerRequest_SignUp{SignUp: &pb.SignUp{}},
	})
	if err != nil {
		return err
	}
	c := anybody.As(lpfileshare.ConsumerToken(lpfileshare.StaticToken(session.Token)))
	conversation, err := c.CreateConversation(ctx, &pb.CreateConversationRequest{Account: account})
	if err != nil {
		return err
	}
	// The watch begins where the listing ends, so no file that is published after it is missed.
	list := c.Files(ctx, lpfileshare.FilesOptions{Parent: conversation.GetName()})
	files, err := list.Collect()
	if err != nil {
		return err
	}
	if len(files) > 0 {
		return fmt.Errorf("a new conversation has the files %v", files)
	}
	watch := make(chan result, 1)
	go func() { // ends with ctx, at the latest
		f, err := firstOfOthers(ctx, c, conversation.GetName(), list.WatchToken(), session.ConsumerID)
		watch <- result{f, err}
	}()

	picture, err := noise(240, 320)
	if err != nil {
		return err
	}
	_, err = c.Upload(ctx, lpfileshare.UploadOptions{
		Conversation: conversation.GetName(), DisplayName: "noise.png", Caption: "A file from the consumer",
	}, bytes.NewReader(picture))
	if err != nil {
		return err
	}
	fmt.Printf("sent %x\n", sha256.Sum256(picture))

	got := <-watch
	if got.err != nil {
		return got.err
	}
	var back bytes.Buffer
	if _, err := c.Download(ctx, lpfileshare.DownloadOptions{Name: got.file.GetName()}, &back); err != nil {
		return err
	}
	fmt.Printf("received %x\n", sha256.Sum256(back.Bytes()))
	return nil
}

// A result is how a watch ended.
type result struct {
	file *pb.File
	err  error
}

// firstOfOthers waits for the first file of another sender than self.
func firstOfOthers(ctx context.Context, c *lpfileshare.Client, parent, token, self string) (*pb.File, error) {
	var file *pb.File
	for f, err := range c.Watch(ctx, lpfileshare.WatchOptions{Parent: parent, Token: token}).All() {
		if err != nil {
			return nil, fmt.Errorf("no file of the bot came: %w", err)
		}
		if f.GetSenderId() != self {
			file = f
			break
		}
	}
	switch {
	case file.GetSenderRole() != pb.ParticipantRole_PARTICIPANT_ROLE_MANAGER, file.GetFileType() != pb.FileType_FILE_TYPE_GIF:
		return nil, fmt.Errorf("the bot's file came as a %v of a %v", file.GetFileType(), file.GetSenderRole())
	}
	return file, nil
}

// noise is a PNG of random dots, another each time, so that no hash is equal by accident.
func noise(width, height int) ([]byte, error) {
	picture := image.NewNRGBA(image.Rect(0, 0, width, height))
	_, _ = rand.Read(picture.Pix) // never fails
	for i := 3; i < len(picture.Pix); i += 4 {
		picture.Pix[i] = 0xff
	}
	var b bytes.Buffer
	err := png.Encode(&b, picture)
	return b.Bytes(), err
}
