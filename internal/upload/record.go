package upload

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// allowed lists the moves between the states of an upload. The empty state is that of an id without a record.
//
//	RECEIVING -> STORED -> PUBLISHING -> PUBLISHED      FAILED after RECEIVING
//
// An upload that publishes its file at once goes from RECEIVING to PUBLISHING, in one write of the ledger.
//
// A retry takes RECEIVING and STORED over at once. It takes PUBLISHING over, and STORED after LivePerson denied a message, only when
// the message can no longer appear: after its deadline, at which its publisher stops, plus the time after which LivePerson handles no
// frame any more.
var allowed = map[share.UploadState][]share.UploadState{
	"":               {share.Receiving},
	share.Receiving:  {share.Receiving, share.Stored, share.Publishing, share.Failed},
	share.Stored:     {share.Stored, share.Publishing, share.Published}, // Published: a message appeared that LivePerson had denied
	share.Publishing: {share.Publishing, share.Published, share.Stored}, // Stored: nothing was sent, or LivePerson denies the message
	share.Failed:     {share.Receiving},
}

// An attempt is one call's claim of a request id. The record in the ledger says which attempt has the id: every step is a
// compare-and-set, so an attempt that lost the id notices at its next step and ends.
type attempt struct {
	*Engine
	key    string
	rec    share.Record
	rev    uint64
	begun  uint64                  // the revision at which it claimed the id: the later attempt has the greater one
	id     string                  // Record.Attempt while the attempt has the id
	cancel context.CancelCauseFunc // ends the call that makes the attempt
	// createdID reports whether the server created the request id.
	createdID bool
	// tookOver reports that the record of an earlier attempt was there.
	tookOver bool
	// file is the stored file that no record has yet; nil: there is none. The next step records it.
	file *share.StoredFile
}

// to moves the record to the next state, if the id still is this attempt's. It is the only function that changes an upload's
// state.
func (a *attempt) to(ctx context.Context, next share.UploadState, change func(*share.Record)) error {
	if !slices.Contains(allowed[a.rec.State], next) {
		return share.Reject(share.Internal, "an upload cannot go from state %q to %q", a.rec.State, next)
	}
	rec := a.rec
	rec.State = next
	if a.file != nil {
		rec.File, rec.DeclaredSize, rec.Declared = a.file, nil, share.Checksums{}
	}
	change(&rec)
	rev, err := a.Ledger.Save(ctx, a.key, rec, a.rev)
	switch {
	case errors.Is(err, share.ErrStale):
		return errTakenOver()
	case err != nil:
		return ledgerError(err)
	}
	a.rec, a.rev, a.file = rec, rev, nil
	return nil
}

// end gives up the id. It records a failure for GetUpload, for failureTTL. The caller's own end is not a failure, and a publication
// that is not confirmed stays PUBLISHING, because it must be looked for before anything else.
func (a *attempt) end(err error) {
	defer a.Ledger.Finish(a.key, a.id)
	a.mu.Lock()
	if a.running[a.key] == a {
		delete(a.running, a.key)
	}
	a.mu.Unlock()
	kind := share.KindOf(err)
	if kind == "" || kind == share.UploadTakenOver || a.rec.State == share.Publishing || a.rec.State == share.Published {
		return
	}
	next := a.rec.State // a stored file stays known: a retry only publishes it
	switch {
	case a.file != nil:
		next = share.Stored
	case next == share.Receiving:
		next = share.Failed
	}
	ctx := context.Background()
	message := err.Error()
	if e, ok := errors.AsType[*share.Error](err); ok {
		message = e.Message
	}
	err = a.to(ctx, next, func(r *share.Record) {
		r.Failure, r.FailureMessage = kind, share.Clip(message, maxFailureMessage)
		if next == share.Failed {
			r.Expires = a.failureExpires(r.Expires)
		}
	})
	if err != nil && !share.Is(err, share.UploadTakenOver) {
		a.Log.LogAttrs(ctx, slog.LevelWarn, "a failed upload could not be recorded", slog.Any("error", err))
	}
}

// failureExpires returns when the record of a failure expires, if the record would have expired at the given time.
//
// That is soon, and losing the record is safe: FAILED only follows RECEIVING, in which no message was sent, so an attempt that finds
// no record begins anew and publishes at most once. An id that the server created expires at once: nobody repeats it.
func (a *attempt) failureExpires(was time.Time) time.Time {
	soon := a.Now()
	if !a.createdID {
		soon = soon.Add(failureTTL)
	}
	if was.Before(soon) {
		return was
	}
	return soon
}

// receivingExpires returns when a record without a stored file expires. Until then the upload has ended or failed. Losing the
// record is safe, as with a failure; an attempt that still runs then ends with UploadTakenOver.
func (e *Engine) receivingExpires() time.Time {
	return e.Now().Add(min(e.RequestIDTTL, e.Timeout+failureTTL))
}

// failureTTL is how long GetUpload reports a failed upload. It is short, because failures cost a caller little: records of them must
// not fill the ledger.
const failureTTL = 5 * time.Minute

// maxFailureMessage bounds the message of a failure in the ledger, in bytes.
const maxFailureMessage = 400

// ledgerWait is the time after which a ledger that answers an attempt with an error is not asked again by it.
const ledgerWait = 2 * time.Second

// Key returns the ledger key of an upload. Keys are hashes, so they fit any ledger and reveal nothing. The calling service is not part
// of them: a retry by another service that may call for the principal finds the record.
func Key(p share.Principal, requestID string) string { return key("upload", p, requestID) }

func storedKey(p share.Principal, storagePath string) string { return key("stored", p, storagePath) }

func key(what string, p share.Principal, id string) string {
	sum := admission.Hash(what, p.Account, string(p.Role), p.ID, "", id) // "" was the calling service
	return hex.EncodeToString(sum[:])
}

func (e *Engine) load(ctx context.Context, key string) (share.Record, uint64, error) {
	rec, rev, err := e.Ledger.Load(ctx, key)
	if err != nil {
		return share.Record{}, 0, ledgerError(err)
	}
	return rec, rev, nil
}

// valid reports whether a loaded record exists and has not expired.
func (e *Engine) valid(rec share.Record, rev uint64) bool {
	return rev != 0 && e.Now().Before(rec.Expires)
}

func ledgerError(err error) error {
	if share.KindOf(err) != "" {
		return err
	}
	return share.Errorf(share.LedgerUnavailable, "the ledger of request ids cannot be reached; nothing was done", err)
}

// rememberStored lets the uploader download a file that is stored and not published: it saves a record that leads from the file's
// path to the record of its upload.
func (a *attempt) rememberStored(ctx context.Context, file *share.StoredFile) error {
	link := share.Record{Owner: a.rec.Owner, State: share.Stored, Expires: a.rec.Expires, UploadKey: a.key}
	_, err := a.Ledger.Save(ctx, storedKey(a.rec.Owner, file.File.StoragePath), link, 0)
	if err != nil && !errors.Is(err, share.ErrStale) {
		return ledgerError(err)
	}
	return nil
}
