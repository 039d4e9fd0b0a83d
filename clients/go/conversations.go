package lpfileshare

import (
	"context"
	"strings"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// CreateConversation opens a conversation for the consumer that this client is. An empty request id is filled in, so that a
// lost answer does not make a second conversation.
func (c *Client) CreateConversation(ctx context.Context, req *pb.CreateConversationRequest) (*pb.Conversation, error) {
	r, err := c.convs.CreateConversation(ctx, req)
	return r.GetConversation(), err
}

// CloseConversation closes a conversation with all its dialogs. Closing a closed one is no error.
func (c *Client) CloseConversation(ctx context.Context, name string) (*pb.Conversation, error) {
	r, err := c.convs.CloseConversation(ctx, &pb.CloseConversationRequest{Name: name})
	return r.GetConversation(), err
}

// ListConversations gives fn each conversation that the caller takes part in, newest first, over as many pages as there are.
// parent is accounts/{account}; an unspecified state means all. fn's error ends it and is returned as it is.
func (c *Client) ListConversations(ctx context.Context, parent string, state pb.ConversationState, fn func(*pb.Conversation) error) error {
	req := &pb.ListConversationsRequest{Account: parent, State: state}
	for {
		r, err := c.convs.ListConversations(ctx, req)
		if err != nil {
			return err
		}
		for _, conversation := range r.GetConversations() {
			if err := fn(conversation); err != nil {
				return err
			}
		}
		if r.GetNextPageToken() == "" {
			return nil
		}
		req = &pb.ListConversationsRequest{Account: parent, State: state, PageToken: r.GetNextPageToken()}
	}
}

// ListFiles gives fn each file of a conversation, or with "-" as conversation of all of the caller's, over as many pages as
// there are. The token that it returns lets Watch begin right behind the listing, without gap or repeat. fn's error ends it
// and is returned as it is.
func (c *Client) ListFiles(ctx context.Context, parent string, fn func(*pb.File) error) (watchToken string, err error) {
	req := &pb.ListFilesRequest{Parent: parent}
	for {
		r, err := c.files.ListFiles(ctx, req)
		if err != nil {
			return "", err
		}
		for _, file := range r.GetFiles() {
			if err := fn(file); err != nil {
				return "", err
			}
		}
		if r.GetNextPageToken() == "" {
			return r.GetWatchToken(), nil
		}
		req = &pb.ListFilesRequest{Parent: parent, PageToken: r.GetNextPageToken()}
	}
}

// accountOf is the account of a resource name, accounts/{account}.
func accountOf(name string) (string, bool) {
	parts := strings.SplitN(name, "/", 3)
	if len(parts) < 2 || parts[0] != "accounts" || parts[1] == "" {
		return "", false
	}
	return "accounts/" + parts[1], true
}
