package service

import (
	"context"

	"github.com/lpfileshare/lpfileshare/internal/conversations"
	"github.com/lpfileshare/lpfileshare/internal/download"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/internal/upload"
)

// A Messenger connects callers to LivePerson.
type Messenger interface {
	// Session returns the session of a credential, and opens it if needed. Calls with the same credential share one. It returns once
	// LivePerson has accepted the credential. TokenInvalid if LivePerson rejects it, or it has expired. SessionLimit. The caller
	// releases the session. ctx limits the wait, not the session.
	Session(ctx context.Context, c share.Credential) (Session, error)
	// Opened reports whether LivePerson has accepted the credential already, so that Session waits for nothing.
	Opened(c share.Credential) bool
	// End ends the session of a credential, if there is one. Its running calls fail with LPIdentityExpired.
	End(c share.Credential)
}

// A Session is LivePerson as one caller sees it. It is safe for concurrent use. Each call ends with its answer, its context, or
// the end of the connection. Errors are *share.Error.
type Session interface {
	upload.Session
	download.Session
	Conversations
	Events

	// MarkAccessed reports to the other participants that the caller opened the message (AcceptStatusEvent ACCESS).
	MarkAccessed(ctx context.Context, conversation, dialog string, sequence int64) error
	// MarkAccepted reports to the other participants that the message was delivered to the caller (AcceptStatusEvent ACCEPT).
	MarkAccepted(ctx context.Context, conversation, dialog string, sequence int64) error
}

// Conversations are those that the caller takes part in.
type Conversations interface {
	// CreateConversation creates a conversation. It sends the request at most once. LPPublishUnconfirmed: the conversation may exist.
	// Any other error: it does not, or so LivePerson says (share.Error.Denied).
	CreateConversation(ctx context.Context, n share.NewConversation) (share.Conversation, error)
	// ListConversations returns all conversations, newest first.
	ListConversations(ctx context.Context) ([]share.Conversation, error)
	// RefreshConversations is ListConversations with a list that is requested from LivePerson after the call has begun, if LivePerson
	// can be asked. share.ErrIncomplete if the list may lack some.
	RefreshConversations(ctx context.Context) ([]share.Conversation, error)
	// CloseConversation closes a conversation with all its dialogs, and returns it.
	CloseConversation(ctx context.Context, id string) (share.Conversation, error)
}

// Events are the messages of conversations.
type Events interface {
	// ListFiles returns the hosted files of a conversation ("": of all), and the cursor after them. They can lack previews and captions
	// (FileEvent.Omitted). upTo is nil, or the cursor of an earlier list: then only files before it are needed, and LivePerson is asked
	// only for those that are not known. A list of all conversations leaves out dialogs that cannot be read.
	ListFiles(ctx context.Context, conversation string, upTo share.Cursor) (share.FileList, error)
	// Unread reports whether FindFile would ask LivePerson for messages of a conversation that the caller is known to take part in.
	Unread(conversation, dialog string) bool
	// Complete adds, in place, what files lack. Files of dialogs that cannot be read stay as they are.
	Complete(ctx context.Context, files []share.FileEvent) ([]share.UnreadableDialog, error)
	// WatchFiles returns the files after a cursor, in the order of each dialog, without missing or repeating one, across reconnects
	// too. An empty conversation means all, including those that begin later. share.ErrWatchReset if it cannot continue from the
	// cursor. WebhookNotConfigured if it would never return anything. The caller closes the watch.
	WatchFiles(ctx context.Context, conversation string, after share.Cursor) (FileWatch, error)
}

// A FileWatch returns files as they are published.
type FileWatch interface {
	// Next waits for the next file. It fails with WatchTooSlow if the reader fell too far behind, with LPIdentityExpired if the
	// identity ended, with share.ErrWatchReset if a file arrived late whose place is before those already returned, and with ctx's
	// error. A *share.UnreadableDialog is a dialog that the watch leaves out; the watch continues.
	Next(ctx context.Context) (share.FileEvent, error)
	// Cursor returns the position after what Next has returned, including other messages that passed since.
	Cursor() share.Cursor
	// Close ends the watch. It may be called at any time and more than once.
	Close()
}

// Accounts are LivePerson's plain-HTTPS services around messaging: identities and account settings.
type Accounts interface {
	SignUp(ctx context.Context, account string) (share.SignIn, error)
	SignInAnonymous(ctx context.Context, account, connectorID string) (share.SignIn, error)
	// Authenticate trades a customer's JWT or an authorization code for a consumer token.
	Authenticate(ctx context.Context, account, authCode string) (share.SignIn, error)
	Renew(ctx context.Context, account, renewalSecret string) (share.SignIn, error)
	SignInAgent(ctx context.Context, account, username, password string) (share.SignIn, error)
	SignInBot(ctx context.Context, account string, keys share.BotKeys) (share.SignIn, error)
	// SignOutAgent ends a login. One that has ended already is no error.
	SignOutAgent(ctx context.Context, agent share.AgentGrant) error
	// FileSharing reads the site property messaging.file.sharing.enabled with the agent's bearer.
	FileSharing(ctx context.Context, agent share.AgentGrant) (bool, error)
	// SetFileSharing writes it.
	SetFileSharing(ctx context.Context, agent share.AgentGrant, enabled bool) error
}

// A Store keeps files behind signed URLs. Errors are *share.Error and never contain a signature.
type Store interface {
	upload.Store
	download.Store
}

// A Ledger remembers request ids.
type Ledger interface {
	upload.Ledger
	conversations.Ledger
}

// Images reads and changes images.
type Images = upload.Images
