package service

import (
	"context"
	"io"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A Messenger is a way into LivePerson for callers.
type Messenger interface {
	// Session gives the session of a credential, opening it if need be; calls with the same credential share one. It returns
	// once LivePerson has accepted the credential, and TokenInvalid where it does not, or where the credential has expired
	// since. The caller releases the session. ctx bounds the wait, not the session.
	Session(ctx context.Context, c share.Credential) (Session, error)
	// End ends the session of a credential, if there is one: what runs on it fails with LPIdentityExpired.
	End(c share.Credential)
}

// A Session is LivePerson as one caller sees it. It is safe for concurrent use; each call ends on its answer, its context, or
// the end of the connection. Errors are *share.Error.
type Session interface {
	// Principal is who LivePerson accepted.
	Principal() share.Principal
	// Release gives the session back. No call may follow.
	Release()

	FileURLs
	Publisher
	Conversations
	Events
}

// FileURLs asks for signed URLs. Each lives about a minute.
type FileURLs interface {
	// UploadURL asks for leave to store one object (ms.GenerateURLForUploadFile). FileSharingDisabled if the switch is off.
	UploadURL(ctx context.Context, size int64, fileType share.FileType) (share.TempURL, error)
	// DownloadURL asks for leave to read one (ms.GenerateURLForDownloadFile). The caller has checked that the path may be read.
	DownloadURL(ctx context.Context, storagePath string) (share.TempURL, error)
}

// A Publisher sends messages.
type Publisher interface {
	// PublishFile sends a hosted/file message and returns its sequence. It sends at most once, and nothing once ctx's deadline
	// has passed by the wall clock: it looks immediately before it writes, since another attempt may take the message's place
	// then. LPPublishUnconfirmed means that the frame may have been sent and no answer came; any other error means that nothing
	// was published.
	PublishFile(ctx context.Context, conversation, dialog string, file share.HostedFile) (sequence int64, err error)
	// MarkAccessed tells the others that the caller opened the message (AcceptStatusEvent ACCESS).
	MarkAccessed(ctx context.Context, conversation, dialog string, sequence int64) error
	// MarkAccepted tells the others that the message reached the caller (AcceptStatusEvent ACCEPT).
	MarkAccepted(ctx context.Context, conversation, dialog string, sequence int64) error
}

// Conversations are those that the caller takes part in.
type Conversations interface {
	// CreateConversation opens one. It is sent at most once: LPPublishUnconfirmed means that it may be there, any other error that
	// it is not.
	CreateConversation(ctx context.Context, n share.NewConversation) (share.Conversation, error)
	// Conversation finds one; ConversationNotFound.
	Conversation(ctx context.Context, id string) (share.Conversation, error)
	// ListConversations gives all, newest first.
	ListConversations(ctx context.Context) ([]share.Conversation, error)
	// CloseConversation closes one with all its dialogs, and returns it as it is then.
	CloseConversation(ctx context.Context, id string) (share.Conversation, error)
}

// Events are the messages of conversations.
type Events interface {
	// Sight says what FileNotFound and a list of conversations are worth: only of a session that sees all, absence is a proof.
	Sight() share.Sight
	// FindFile looks in a dialog for the message that shows a storage path, asking LivePerson afresh if it is not known yet. An
	// empty dialog means any of the conversation's. FileNotFound if there is none. When several messages show the path, the first.
	FindFile(ctx context.Context, conversation, dialog, storagePath string) (share.FileEvent, error)
	// ListFiles gives the hosted files of a conversation (""; of all), by conversation (oldest first), dialog and sequence, and
	// the place behind them.
	ListFiles(ctx context.Context, conversation string) ([]share.FileEvent, share.Cursor, error)
	// WatchFiles gives what comes behind after, in the order of each dialog, without gap or repeat, over reconnects too. An
	// empty conversation means all, those that begin later included. share.ErrWatchReset if it cannot go on from after;
	// WebhookNotConfigured if nothing would ever come. The caller closes the watch.
	WatchFiles(ctx context.Context, conversation string, after share.Cursor) (FileWatch, error)
}

// A FileWatch is files as they come.
type FileWatch interface {
	// Next waits for the next file. It fails with WatchTooSlow when the reader fell too far behind, with LPIdentityExpired when
	// the identity ended, with share.ErrWatchReset when something came that belongs before what it has given, and with ctx's error.
	Next(ctx context.Context) (share.FileEvent, error)
	// Cursor is the place behind what Next has given, other messages that passed since included.
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

// A Store keeps files behind signed URLs. Errors are *share.Error and never carry a signature.
type Store interface {
	// Put stores size bytes of body, in one try. It closes body, which ends a Read that is waiting for bytes to come, and has
	// stopped reading when it returns. A body that fails before its end is never committed by the store; Put then returns the
	// body's own error.
	Put(ctx context.Context, account string, u share.TempURL, size int64, contentType string, body io.ReadCloser) (share.StoredObject, error)
	// Get opens an object from byte start on, for limit bytes (0: to the end), if its ETag is ifMatch (empty: any). A negative
	// start counts from the end. RangeNotSatisfiable, FileChanged, FileNotFound. The caller closes Body.
	Get(ctx context.Context, account string, u share.TempURL, start, limit int64, ifMatch string) (*share.ObjectReader, error)
	// Head asks what the store has.
	Head(ctx context.Context, account string, u share.TempURL) (share.StoredObject, error)
}

// A Ledger remembers request ids. Without one nothing is uploaded. The revisions of a key only grow. Errors other than share.ErrStale are LedgerUnavailable.
type Ledger interface {
	// Load returns the record of key and its revision; revision 0 means that there is none.
	Load(ctx context.Context, key string) (share.Record, uint64, error)
	// Save writes the record of key if its revision still is rev (0: if there is none), and returns the new revision;
	// share.ErrStale if it is not.
	Save(ctx context.Context, key string, r share.Record, rev uint64) (uint64, error)
}

// Images looks into images and changes them.
type Images interface {
	// Inspect reads an image's header. ImageInvalid; ImageTooManyPixels.
	Inspect(t share.FileType, image io.Reader) (share.ImageInfo, error)
	// Preview makes a data URI of less than maxChars characters. It waits for its turn: decoding is bounded.
	Preview(ctx context.Context, t share.FileType, image io.Reader, maxChars int) (dataURI string, err error)
	// Fit makes an image what a job says; nil: it is to be stored as it came. It waits for its turn, TooManyUploads if that takes too
	// long. ImageInvalid; ImageCannotFit; FileTooLarge where the job does not allow what would be needed.
	Fit(ctx context.Context, job share.ImageJob) (*share.FittedImage, error)
}
