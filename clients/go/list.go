package lpfileshare

import (
	"context"
	"iter"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

const accountPrefix = "accounts/"

// accountName returns the resource name of an account, accounts/{account}, given either the id or the name. Empty stays empty.
func accountName(account string) string {
	if account == "" || strings.HasPrefix(account, accountPrefix) {
		return account
	}
	return accountPrefix + account
}

// accountName is the function of the same name, with the client's account for an empty one.
func (c *Client) accountName(account string) string {
	if account == "" {
		account = c.account
	}
	return accountName(account)
}

// uploadName returns the resource name of an upload into a conversation.
func uploadName(conversation, requestID string) (name string, ok bool) {
	account, _, ok := strings.Cut(strings.TrimPrefix(conversation, accountPrefix), "/")
	return accountPrefix + account + "/uploads/" + requestID, ok && account != "" && strings.HasPrefix(conversation, accountPrefix)
}

// CreateConversation opens a conversation for the calling consumer. An empty account is set to the client's. An empty request id is
// set to a new one, so that a repeat after a lost response does not create a second conversation.
func (c *Client) CreateConversation(ctx context.Context, req *pb.CreateConversationRequest) (*pb.Conversation, error) {
	if req.GetAccount() == "" && c.account != "" {
		req = proto.CloneOf(req)
		req.Account = c.Account()
	}
	r, err := c.raw.Conversations.CreateConversation(ctx, req)
	return r.GetConversation(), err
}

// GetConversation returns a conversation, accounts/{account}/conversations/{conversation}.
func (c *Client) GetConversation(ctx context.Context, name string) (*pb.Conversation, error) {
	r, err := c.raw.Conversations.GetConversation(ctx, &pb.GetConversationRequest{Name: name})
	return r.GetConversation(), err
}

// CloseConversation closes a conversation and all its dialogs. Closing a closed conversation is not an error.
func (c *Client) CloseConversation(ctx context.Context, name string) (*pb.Conversation, error) {
	r, err := c.raw.Conversations.CloseConversation(ctx, &pb.CloseConversationRequest{Name: name})
	return r.GetConversation(), err
}

// Capabilities returns the limits, file types and times of the server for an account, which is given by its id or resource name.
// Empty: the client's account.
func (c *Client) Capabilities(ctx context.Context, account string) (*pb.GetCapabilitiesResponse, error) {
	return c.raw.Files.GetCapabilities(ctx, &pb.GetCapabilitiesRequest{Account: c.accountName(account)})
}

// Stat returns the metadata of a file, including the store's size and ETag. name is its resource name.
func (c *Client) Stat(ctx context.Context, name string) (*pb.File, error) {
	r, err := c.raw.Files.StatFile(ctx, &pb.StatFileRequest{Source: &pb.StatFileRequest_Name{Name: name}})
	return r.GetFile(), err
}

// ConversationsOptions selects conversations.
type ConversationsOptions struct {
	// Account is the id or the resource name of the account. Empty: the client's account.
	Account string
	// State selects conversations in this state. Unspecified: all.
	State pb.ConversationState
}

// Conversations returns the conversations that the caller takes part in, newest first. It reads page after page as the loop
// proceeds. After an error, which is the last element, ranging over it again starts from the beginning.
func (c *Client) Conversations(ctx context.Context, o ConversationsOptions) iter.Seq2[*pb.Conversation, error] {
	return func(yield func(*pb.Conversation, error) bool) {
		req := &pb.ListConversationsRequest{Account: c.accountName(o.Account), State: o.State}
		for {
			r, err := c.raw.Conversations.ListConversations(ctx, req)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, conversation := range r.GetConversations() {
				if !yield(conversation, nil) {
					return
				}
			}
			if r.GetNextPageToken() == "" {
				return
			}
			req = &pb.ListConversationsRequest{Account: req.GetAccount(), State: o.State, PageToken: r.GetNextPageToken()}
		}
	}
}

// FilesOptions selects files. Parent is required.
type FilesOptions struct {
	// Parent is accounts/{account}/conversations/{conversation}. "-" as {conversation} selects all conversations of the caller.
	Parent string
	// NewestFirst sorts by creation time, newest first. Otherwise files come oldest first, by conversation and dialog.
	NewestFirst bool
	// DialogID selects files of one dialog. Empty: of all dialogs.
	DialogID string
	// SenderRole selects files of senders with this role. Unspecified: of all senders.
	SenderRole pb.ParticipantRole
	// PageSize is the maximum number of files per request. 0: the server's default.
	PageSize int32
}

// A FileList is a listing of files. It makes no call before All or Collect is used.
type FileList struct {
	client  *Client
	ctx     context.Context // of the listing, which is one operation over several calls
	options FilesOptions

	mu         sync.Mutex
	token      string
	unreadable []*pb.UnreadableConversation
}

// Files returns the files of a conversation, or of all conversations of the caller.
func (c *Client) Files(ctx context.Context, o FilesOptions) *FileList {
	return &FileList{client: c, ctx: ctx, options: o}
}

// All returns the files. It reads page after page as the loop proceeds. An error is the last element. Ranging over it again starts
// from the beginning.
func (l *FileList) All() iter.Seq2[*pb.File, error] {
	return func(yield func(*pb.File, error) bool) {
		page := ""
		for {
			r, err := l.client.raw.Files.ListFiles(l.ctx, &pb.ListFilesRequest{
				Parent: l.options.Parent, PageSize: l.options.PageSize, PageToken: page,
				NewestFirst: l.options.NewestFirst, DialogId: l.options.DialogID, SenderRole: l.options.SenderRole,
			})
			if err != nil {
				yield(nil, err)
				return
			}
			l.note(r, page == "")
			for _, file := range r.GetFiles() {
				if !yield(file, nil) {
					return
				}
			}
			if page = r.GetNextPageToken(); page == "" {
				return
			}
		}
	}
}

// note keeps what a page says about the listing.
func (l *FileList) note(page *pb.ListFilesResponse, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := page.GetWatchToken(); t != "" {
		l.token = t
	}
	if first {
		l.unreadable = nil
	}
	for _, u := range page.GetUnreadableConversations() {
		known := func(k *pb.UnreadableConversation) bool {
			return k.GetName() == u.GetName() && k.GetDialogId() == u.GetDialogId()
		}
		if !slices.ContainsFunc(l.unreadable, known) {
			l.unreadable = append(l.unreadable, u)
		}
	}
}

// Unreadable returns the conversations that the listing leaves out, in part or as a whole, because the server could not read them. It
// is known once All or Collect has read the listing.
func (l *FileList) Unreadable() []*pb.UnreadableConversation {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.unreadable)
}

// Collect returns all files of the listing in one slice.
func (l *FileList) Collect() ([]*pb.File, error) {
	var files []*pb.File
	for f, err := range l.All() {
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// WatchToken returns the token that starts a watch exactly where the listing ends, so that no file is missed or repeated: see
// WatchOptions.Token. It is known once All or Collect has read the listing; empty before.
func (l *FileList) WatchToken() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.token
}
