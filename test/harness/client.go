package harness

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
)

// A Consumer is a new consumer with a LivePerson token.
type Consumer struct {
	*lpfileshare.Client
	// Token is the consumer's LivePerson token, and ID LivePerson's id.
	Token, ID string
	// Conversation is the resource name of an open conversation, or "".
	Conversation string
}

// Credential returns the identity that calls of the consumer carry.
func (c Consumer) Credential() lpfileshare.Identity {
	return lpfileshare.ConsumerToken(lpfileshare.StaticToken(c.Token))
}

// SignUp signs a new consumer up in the account, over the connection of a client.
func SignUp(ctx context.Context, c *lpfileshare.Client, account string) (Consumer, error) {
	in, err := c.SignInConsumer(ctx, &pb.SignInConsumerRequest{
		Account: "accounts/" + account, Grant: &pb.SignInConsumerRequest_SignUp{SignUp: &pb.SignUp{}},
	})
	if err != nil {
		return Consumer{}, fmt.Errorf("sign-up: %w", err)
	}
	new := Consumer{Token: in.Token, ID: in.ConsumerID}
	new.Client = c.As(new.Credential())
	return new, nil
}

// SignUpAndTalk signs a new consumer up and opens a conversation.
func SignUpAndTalk(ctx context.Context, c *lpfileshare.Client, account string) (Consumer, error) {
	new, err := SignUp(ctx, c, account)
	if err == nil {
		new.Conversation, err = Open(ctx, new.Client, account)
	}
	return new, err
}

// Open opens a conversation and returns its resource name.
func Open(ctx context.Context, c *lpfileshare.Client, account string) (string, error) {
	conv, err := c.CreateConversation(ctx, &pb.CreateConversationRequest{Account: "accounts/" + account})
	if err != nil {
		return "", fmt.Errorf("conversation: %w", err)
	}
	return conv.GetName(), nil
}

// Warm makes the sandbox generate its key, which takes long where many sandboxes start at once.
func Warm(sb *sandbox.Sandbox) error {
	resp, err := http.Post(sb.URL()+"/api/account/"+Account+"/signup", "application/json", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the sandbox rejects a sign-up: %s", resp.Status)
	}
	return nil
}

// Consumer signs a new consumer up over a new connection, with a conversation. The connection ends with the test.
func (s *Server) Consumer(tb testing.TB) Consumer {
	tb.Helper()
	c, err := SignUpAndTalk(tb.Context(), s.Dial(tb), Account)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// Clients signs a new consumer up, with a conversation, and returns clients that each have a connection of their own.
func (s *Server) Clients(tb testing.TB, n int) (clients []*lpfileshare.Client, conversation string) {
	tb.Helper()
	c := s.Consumer(tb)
	clients = append(clients, c.Client)
	for len(clients) < n {
		clients = append(clients, s.Dial(tb).As(c.Credential()))
	}
	return clients, c.Conversation
}
