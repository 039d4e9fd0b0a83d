package upload

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/drain"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Config is what an Engine works with. Every field but Scanner is required.
type Config struct {
	// OpenSession returns the caller's session with LivePerson, which proves the credential. firstBytes is what the call holds of the
	// file meanwhile. The engine releases the session.
	OpenSession func(ctx context.Context, c share.Credential, firstBytes int64) (Session, error)
	Store       Store
	Ledger      Ledger
	Images      Images
	Scanner     Scanner // nil: files are not scanned
	Memory      *admission.Memory
	Processors  *admission.Processors
	Drain       *drain.Drain

	// IdleTimeout ends an upload from which no byte arrives for this long, Timeout one that takes longer in all.
	IdleTimeout, Timeout time.Duration
	// MinRate is the minimum average rate in bytes per second, measured over each IdleTimeout; 0: no minimum.
	MinRate int64
	// RequestIDTTL is how long a request id is kept.
	RequestIDTTL time.Duration
	// PublishTimeout is how long LivePerson may take to confirm a message. Settle is how long after that the message may still
	// appear: the time after which LivePerson handles no frame any more.
	PublishTimeout, Settle time.Duration
	// Now is the clock.
	Now func() time.Time
	Log *slog.Logger
}

// A Session is LivePerson as the caller sees it. Errors are *share.Error.
type Session interface {
	// Principal is the identity that LivePerson accepted.
	Principal() share.Principal
	// Release returns the session. No call may follow.
	Release()
	// UploadURL requests a signed URL to store one object. It lives about a minute.
	UploadURL(ctx context.Context, size int64, fileType share.FileType) (share.TempURL, error)
	// PublishFile sends a message at most once and returns its sequence number, and sends nothing once ctx's deadline has passed
	// by the wall clock. LPPublishUnconfirmed: the message may have been published. An error that is Denied: LivePerson says that it
	// was not. Any other error: nothing was sent.
	PublishFile(ctx context.Context, conversation, dialog string, file share.HostedFile) (sequence int64, err error)
	// Knows reports whether Conversation answers without a request.
	Knows(conversation string) bool
	// Conversation finds a conversation; ConversationNotFound.
	Conversation(ctx context.Context, id string) (share.Conversation, error)
	// FindFile finds the message that shows a storage path; FileNotFound. What that proves, Sight says. If the messages could not be
	// read to the last one, the cause is share.ErrIncomplete, and it proves nothing.
	FindFile(ctx context.Context, conversation, dialog, storagePath string) (share.FileEvent, error)
	Sight() share.Sight
}

// A Store keeps files behind signed URLs.
type Store interface {
	// Put stores size bytes of body in one attempt. It closes body, which ends a waiting Read, and has stopped reading when it
	// returns. If body fails before its end the store commits nothing, and Put returns the body's error.
	Put(ctx context.Context, account string, u share.TempURL, size int64, contentType string, body io.ReadCloser) (share.StoredObject, error)
	// Head returns what the store has.
	Head(ctx context.Context, account string, u share.TempURL) (share.StoredObject, error)
}

// A Ledger remembers request ids. Nothing is uploaded without it. The revisions of a key only grow. Errors other than
// share.ErrStale are LedgerUnavailable, and LedgerShare if a record begins a new id and its owner's share is used.
type Ledger interface {
	// Load returns the record of key and its revision; revision 0: there is none.
	Load(ctx context.Context, key string) (share.Record, uint64, error)
	// Save writes the record of key if its revision still is rev (0: if there is none), and returns the new revision. Otherwise
	// share.ErrStale.
	//
	// A record that makes an upload begin is rejected unless the ledger has space for all later ones of its attempt. That space is
	// reserved until Finish.
	//
	// Load and Save end within seconds by themselves: some steps must be recorded although the caller has gone.
	Save(ctx context.Context, key string, r share.Record, rev uint64) (uint64, error)
	// Finish ends the reservation of an attempt, which writes its record no more.
	Finish(key, attempt string)
}

// Images reads and changes images.
type Images interface {
	// Inspect reads an image's header. ImageInvalid; ImageTooManyPixels.
	Inspect(t share.FileType, image io.Reader) (share.ImageInfo, error)
	// Verify reads an image's header and structure. ImageInvalid; ImageTooManyPixels.
	Verify(t share.FileType, image io.Reader) error
	// Preview generates a data URI of fewer than maxChars characters. It waits for its turn: decoding is bounded. It calls open for
	// a reader of the whole image, several times.
	Preview(ctx context.Context, t share.FileType, open func() io.Reader, maxChars int) (dataURI string, err error)
	// Fit changes an image as a job says; nil: it is stored unchanged. It waits for its turn; TooManyUploads if that takes too
	// long. ImageInvalid; ImageCannotFit; FileTooLarge if the job does not allow what would be needed.
	Fit(ctx context.Context, job share.ImageJob) (*share.FittedImage, error)
}

// An Engine runs uploads.
type Engine struct {
	Config

	mu        sync.Mutex
	running   map[string]*attempt // by ledger key
	unsettled map[string]sending  // by ledger key
}

// New returns an Engine.
func New(c Config) *Engine {
	return &Engine{Config: c, running: make(map[string]*attempt), unsettled: make(map[string]sending)}
}

// Running returns the number of attempts that run in this process.
func (e *Engine) Running() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.running)
}

// Upload receives a file from src, stores it and, if spec asks for it, publishes it exactly once.
func (e *Engine) Upload(ctx context.Context, credential share.Credential, spec Spec, src Source) (_ Result, err error) {
	ctx, cancel := e.Drain.UntilStopping(ctx)
	defer cancel(nil)
	timeout := time.AfterFunc(e.Timeout, func() { cancel(e.errTimeout()) })
	defer timeout.Stop()

	// The identity is proved first, so that memory, and a place in the queue for it, is given to callers that LivePerson knows.
	session, err := e.OpenSession(ctx, credential, src.QueuedBytes())
	if err != nil {
		return Result{}, drain.Cause(ctx, err)
	}
	defer session.Release()
	if err := e.checkPreview(&spec); err != nil {
		return Result{}, err
	}
	if spec.ValidateOnly { // what can be checked without the file
		return Result{}, drain.Cause(ctx, checkOpen(ctx, session, spec.Conversation, spec.Dialog))
	}
	memory, err := e.reserve(ctx, session.Principal(), &spec, src)
	if err != nil {
		return Result{}, err
	}
	defer memory.Release()
	a, err := e.claimUpload(ctx, cancel, session, &spec)
	if err != nil {
		return Result{}, drain.Cause(ctx, err)
	}
	if finished(a.rec, &spec) {
		return Result{File: a.rec.File, Replayed: true}, nil
	}
	defer func() { a.end(err) }()

	replayed := a.rec.File != nil // an earlier attempt stored it, and only the message is missing
	if !replayed {
		t := &transfer{Engine: e, session: session, spec: spec, memory: memory, source: src}
		if err := e.receiveAndStore(ctx, t, a); err != nil {
			return Result{}, drain.Cause(ctx, err)
		}
	}
	memory.Release() // the bytes are stored, so the next upload need not wait for this message
	if spec.Publish {
		if err := e.publish(ctx, session, a); err != nil {
			return Result{}, err
		}
	}
	return Result{File: a.rec.File, Replayed: replayed, TookOver: a.tookOver}, nil
}

// reserve reserves memory for the file: all of it if its size was declared, else for what has arrived. Draining ends the wait for it,
// so that clients retry on another server.
func (e *Engine) reserve(ctx context.Context, p share.Principal, spec *Spec, src Source) (*admission.Reservation, error) {
	most := spec.memory()
	first := most
	if spec.Size < 0 {
		first = max(1, src.QueuedBytes())
	}
	memory, err := e.Memory.Reserve(ctx, admission.HolderOf(p), first, most, src.QueuedBytes() <= admission.BlockBytes)
	if draining := e.Drain.Err(); draining != nil { // it may have begun during the wait
		if err == nil {
			memory.Release()
		}
		return nil, draining
	}
	return memory, err
}

// receiveAndStore transfers the file. If it is not to be published now, receiveAndStore records that it is stored.
func (e *Engine) receiveAndStore(ctx context.Context, t *transfer, a *attempt) error {
	if err := t.source.Accept(); err != nil {
		return err
	}
	file, err := t.run(ctx)
	if err != nil {
		return err
	}
	a.rec.Expires = e.Now().Add(e.RequestIDTTL)
	if t.spec.Publish {
		a.file = file // which the first step of publish records
		return nil
	}
	if err := a.rememberStored(ctx, file); err != nil { // first, because once the record is STORED a retry does nothing any more
		return err
	}
	a.file = file
	return a.to(ctx, share.Stored, func(*share.Record) {})
}

// Publish publishes the file of an upload that was stored and not published, exactly once.
func (e *Engine) Publish(ctx context.Context, session Session, requestID string) (_ Result, err error) {
	if err := e.Drain.Err(); err != nil {
		return Result{}, err
	}
	ctx, cancel := e.Drain.UntilStopping(ctx)
	defer cancel(nil)
	a, err := e.claimStored(ctx, cancel, session, requestID)
	if err != nil {
		return Result{}, drain.Cause(ctx, err)
	}
	if a.rec.State == share.Published {
		return Result{File: withCaption(ctx, session, a.rec.File), Replayed: true}, nil
	}
	defer func() { a.end(err) }()
	if err := checkOpen(ctx, session, a.rec.File.Conversation, a.rec.File.Dialog); err != nil {
		return Result{}, drain.Cause(ctx, err)
	}
	caption := a.rec.File.File.Caption
	if err := e.publish(ctx, session, a); err != nil {
		return Result{}, err
	}
	file := *a.rec.File
	file.File.Caption = caption // which the record no longer has
	return Result{File: &file}, nil
}

// withCaption returns a published file with the caption of its message, which the record does not have. Best effort: without an answer
// the file has no caption.
func withCaption(ctx context.Context, session Session, f *share.StoredFile) *share.StoredFile {
	file := *f
	if message, err := session.FindFile(ctx, f.Conversation, f.Dialog, f.File.StoragePath); err == nil {
		file.File.Caption = message.File.Caption
	}
	return &file
}

// Find returns the record of a principal's upload; UploadNotFound if there is none or it has expired.
func (e *Engine) Find(ctx context.Context, p share.Principal, requestID string) (share.Record, error) {
	rec, rev, err := e.load(ctx, Key(p, requestID))
	if err == nil && !e.valid(rec, rev) {
		err = e.errNotFound()
	}
	return rec, err
}

// FindStored returns a file that a principal stored and did not publish: no message of LivePerson's shows it. nil: there is none.
func (e *Engine) FindStored(ctx context.Context, p share.Principal, storagePath string) (*share.StoredFile, error) {
	rec, rev, err := e.load(ctx, storedKey(p, storagePath))
	if err == nil && e.valid(rec, rev) && rec.UploadKey != "" { // records of version 1 have the file themselves
		rec, rev, err = e.load(ctx, rec.UploadKey)
	}
	if err != nil || !e.valid(rec, rev) || rec.File == nil || rec.File.File.StoragePath != storagePath {
		return nil, err
	}
	return rec.File, nil
}

// checkOpen rejects a conversation or dialog that does not exist or is closed.
func checkOpen(ctx context.Context, session Session, conversation, dialog string) error {
	c, err := session.Conversation(ctx, conversation)
	if err != nil {
		return err
	}
	d, ok := c.Dialog(dialog)
	switch {
	case !ok:
		return share.Reject(share.ConversationNotFound, "the conversation has no such dialog")
	case !d.Open:
		return share.Reject(share.ConversationClosed, "the conversation is closed; create a new one")
	}
	return nil
}

func (e *Engine) errTimeout() error {
	return share.Reject(share.UploadIdle, "the upload took longer than %s; retry with the same request_id from byte 0", e.Timeout)
}

func (e *Engine) errNotFound() error {
	return share.Reject(share.UploadNotFound, "the caller has no upload with this request_id; ids are kept for %s", e.RequestIDTTL)
}
