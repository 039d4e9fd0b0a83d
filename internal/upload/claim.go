package upload

import (
	"bytes"
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/lpfileshare/lpfileshare/internal/retry"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// claimUpload claims the request id of an upload for this call. If an earlier attempt has done the work (see finished), or only
// the message is missing (the record has a file), the attempt's record says so.
func (e *Engine) claimUpload(ctx context.Context, cancel context.CancelCauseFunc, session Session, spec *Spec) (*attempt, error) {
	key := Key(session.Principal(), spec.RequestID)
	// A repeat must get its result although LivePerson does not answer, so it is not asked before the ledger.
	likelyNew := spec.CreatedID || session.Knows(spec.Conversation)
	a, err := e.claim(ctx, cancel, session, key, likelyNew, func(rec share.Record, found bool) (share.Record, bool, error) {
		if !found {
			rec = share.Record{Fingerprint: spec.Fingerprint}
		} else if err := sameRequest(rec, spec); err != nil {
			return rec, false, err
		} else if finished(rec, spec) {
			return rec, true, nil
		}
		if rec.File == nil { // the bytes are needed, not only the message
			if err := checkOpen(ctx, session, spec.Conversation, spec.Dialog); err != nil {
				return rec, false, err // before the claim: a call that has nowhere to publish costs the ledger nothing
			}
			rec.State = share.Receiving
		}
		rec.Largest = spec.largestRecord()
		if spec.Size >= 0 {
			rec.DeclaredSize = &spec.Size
		}
		if spec.Declared.CRC32C != nil {
			rec.Declared.CRC32C = spec.Declared.CRC32C
		}
		if len(spec.Declared.SHA256) > 0 {
			rec.Declared.SHA256 = spec.Declared.SHA256
		}
		return rec, false, nil
	})
	if err == nil {
		a.createdID = spec.CreatedID
	}
	return a, err
}

// claimStored claims the request id of an upload whose file is to be published now.
func (e *Engine) claimStored(ctx context.Context, cancel context.CancelCauseFunc, session Session, requestID string) (*attempt, error) {
	key := Key(session.Principal(), requestID)
	return e.claim(ctx, cancel, session, key, false, func(rec share.Record, found bool) (share.Record, bool, error) {
		switch {
		case !found:
			return rec, false, e.errNotFound()
		case rec.File == nil:
			return rec, false, share.Reject(share.UploadNotStored, "the upload has no stored file; retry the upload with the same request_id")
		}
		return rec, rec.State == share.Published, nil
	})
}

// prepare gets the current record of an id, and whether it exists and has not expired. It returns the record to continue with, or done
// if there is nothing left to do.
type prepare func(rec share.Record, found bool) (next share.Record, done bool, err error)

// claim makes this call the one that works on a record.
//
// With likelyNew it first assumes that there is no record, which saves loading it: the ledger rejects a second record of a key. An error
// of that is the result only if there is no record indeed. A repeat gets its own result although its conversation has been closed
// meanwhile, or the ledger is full.
func (e *Engine) claim(ctx context.Context, cancel context.CancelCauseFunc, session Session, key string, likelyNew bool, prepare prepare) (*attempt, error) {
	var refused error
	if likelyNew {
		begun := time.Now()
		a, err := e.tryClaim(ctx, cancel, session, key, share.Record{}, 0, prepare)
		if a != nil || share.Is(err, share.LedgerUnavailable) && time.Since(begun) > ledgerWait {
			return a, err
		}
		refused = err
	}
	for {
		rec, rev, err := e.load(ctx, key)
		if refused != nil && (err != nil || !e.valid(rec, rev)) {
			return nil, refused
		} else if err != nil {
			return nil, err
		}
		refused = nil
		if a, err := e.tryClaim(ctx, cancel, session, key, rec, rev, prepare); a != nil || err != nil {
			return a, err
		}
	}
}

// tryClaim claims a record as it was loaded. It returns neither an attempt nor an error if the record must be read again.
func (e *Engine) tryClaim(ctx context.Context, cancel context.CancelCauseFunc, session Session, key string, rec share.Record, rev uint64, prepare prepare) (*attempt, error) {
	found := e.valid(rec, rev)
	next, done, err := prepare(rec, found)
	if err != nil {
		return nil, err
	}
	if done {
		return &attempt{Engine: e, key: key, rec: next, rev: rev}, nil
	}
	rec.Owner, next.Owner = session.Principal(), session.Principal()
	if found && wasSent(rec) {
		if settled, err := e.settle(ctx, session, key, rec, rev); err != nil || !settled {
			return nil, err // the message may still appear, or has appeared
		}
	}
	a := &attempt{Engine: e, key: key, rec: next, rev: rev, id: uuid.NewString(), cancel: cancel, tookOver: found}
	if !found {
		a.rec.State = ""
	} else {
		a.rec.State = rec.State
	}
	err = a.to(ctx, next.State, func(r *share.Record) {
		r.Attempt, r.AttemptTime = a.id, e.Now()
		if r.Expires = e.receivingExpires(); r.File != nil {
			r.Expires = e.Now().Add(e.RequestIDTTL)
		}
		r.Failure, r.FailureMessage = "", ""
	})
	if share.Is(err, share.UploadTakenOver) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	a.begun = a.rev
	e.takeOver(a)
	return a, nil
}

// sameRequest rejects an id that was used for something else.
func sameRequest(rec share.Record, spec *Spec) error {
	size, sums := rec.DeclaredSize, rec.Declared
	if f := rec.File; f != nil {
		if size, sums = &f.Size, f.Checksums; f.Image != nil { // the stored file is not the uploaded one
			size, sums = &f.Image.InputSize, f.Image.InputChecksums
		}
	}
	switch {
	case !bytes.Equal(rec.Fingerprint, spec.Fingerprint):
	case size != nil && spec.Size >= 0 && *size != spec.Size:
	case Differ(sums, spec.Declared) != "":
	default:
		return nil
	}
	return share.Reject(share.RequestIDConflict, "the request_id was used with another spec or file; use a new one")
}

func finished(rec share.Record, spec *Spec) bool {
	return rec.State == share.Published || rec.State == share.Stored && !spec.Publish
}

// takeOver ends this process's earlier attempt under the same id. One of another process finds out at its next step. Attempts can
// get here in another order than they claimed the id in.
func (e *Engine) takeOver(a *attempt) {
	e.mu.Lock()
	older := e.running[a.key]
	if older != nil && older.begun > a.begun {
		older = a
	} else {
		e.running[a.key] = a
	}
	e.mu.Unlock()
	if older != nil {
		older.cancel(errTakenOver())
	}
}

func errTakenOver() error {
	return share.Reject(share.UploadTakenOver, "a newer attempt with the same request_id took over")
}

// wasSent reports whether a message of an unpublished upload may have been sent, so that it is looked for before it is sent again.
func wasSent(rec share.Record) bool {
	return rec.State == share.Publishing || rec.State == share.Stored && !rec.PublishDeadline.IsZero()
}

// settle deals with an earlier attempt that sent its message: it finds the message, or waits until it can no longer appear. settled
// is true if the id may be taken over, false if the record must be read again. If the session does not see all of the dialog the id
// is not taken over, because the message may exist unseen: LPPublishUnconfirmed until LivePerson reports it. But if LivePerson denied
// the message (the record is STORED) and cannot be asked for it, the denial is believed: unless there are webhooks and what they reported
// could not be read.
func (e *Engine) settle(ctx context.Context, session Session, key string, rec share.Record, rev uint64) (settled bool, err error) {
	// As of before looking: what is not found afterwards never appears. The record has the wall clock, which may have been set; if
	// this process sent the message it knows better.
	left := max(rec.PublishDeadline.Add(e.Settle).Sub(e.Now()), e.sent(key))
	found, err := session.FindFile(ctx, rec.File.Conversation, rec.File.Dialog, rec.File.File.StoragePath)
	sight, denied := session.Sight(), rec.State == share.Stored
	gone := absent(err) || denied && agrees(err, rec.Failure)
	switch {
	case err == nil:
		other := &attempt{Engine: e, key: key, rec: rec, rev: rev}
		if err := other.published(ctx, found); err != nil && !share.Is(err, share.UploadTakenOver) {
			return false, err
		}
		return false, nil
	case denied && (sight == share.SeesOwn || sight == share.SeesReported && gone):
		return true, nil
	case !gone:
		return false, lookFailed(err)
	}
	if sight == share.SeesOwn {
		left -= e.Settle // nothing more will be seen; only the other attempt itself may still report
	}
	switch {
	case left > 0:
		return false, retry.Sleep(ctx, min(left, settlePoll))
	case sight != share.SeesAll:
		return false, errUnconfirmed(nil)
	}
	return true, nil
}

// lookFailed returns the error of a call that could not look for a message. Errors that concern the dialog become LPPublishUnconfirmed:
// the caller must not take them for an answer about the message.
func lookFailed(err error) error {
	if share.OfDialog(err) || share.Is(err, share.FileNotFound, share.ConversationNotFound, share.LPForbidden, share.LPProtocolError) {
		return errUnconfirmed(err)
	}
	return err
}

// sending notes that this process may send a message for so long, and returns when it can no longer appear. That is by the monotonic
// clock: the wall clock may be set meanwhile.
func (e *Engine) sending(key string, within time.Duration) (settled time.Time) {
	quiet := within + e.Settle
	settled = time.Now().Add(quiet)
	e.mu.Lock()
	defer e.mu.Unlock()
	if forget := e.unsettled[key].forget; forget != nil {
		forget.Stop()
	}
	e.unsettled[key] = sending{settled, time.AfterFunc(quiet, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.unsettled[key].until == settled {
			delete(e.unsettled, key)
		}
	})}
	return settled
}

// sent returns for how long a message that this process sent may still appear.
func (e *Engine) sent(key string) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	return time.Until(e.unsettled[key].until)
}

// A sending is a message that this process has sent, or is sending.
type sending struct {
	until  time.Time // when it can no longer appear
	forget *time.Timer
}

// errUnconfirmed returns the error for a message that was sent and not found. cause is why it could not be looked for, or nil.
func errUnconfirmed(cause error) error {
	return share.Errorf(share.LPPublishUnconfirmed, "an earlier attempt may or may not have published the message, and LivePerson has not reported "+
		"it; it is not sent again. Retry later with the same request_id, or look into the conversation", cause)
}

// settlePoll is how often another attempt's record, and LivePerson, are asked again.
const settlePoll = 500 * time.Millisecond

// maxSettlePoll is the longest pause of an attempt that looks for its own message: LivePerson may be short of capacity.
const maxSettlePoll = 4 * settlePoll
