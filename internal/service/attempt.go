package service

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// An attempt is one call's hold on a request id. The record in the ledger says whose turn it is: every step is a
// compare-and-set, so an attempt that was taken over notices at its next step and ends.
//
//	RECEIVING -> STORED -> PUBLISHING -> PUBLISHED      FAILED after any but the last
//
// RECEIVING and STORED may be taken over at once. PUBLISHING may be only when its message can no longer appear: at its deadline,
// at which its publisher stops, plus the time after which LivePerson handles no frame any more.
type attempt struct {
	s      *Server
	key    string
	rec    share.Record
	rev    uint64
	begun  uint64                  // rev at the beginning: of two attempts the later one has the greater
	cancel context.CancelCauseFunc // ends the call that makes the attempt
}

// ledgerKey is where a caller's request id is remembered. It is hashed, so that it fits any store and tells nothing.
func ledgerKey(what string, p share.Principal, id string) string {
	sum := digest(what, p.Account, string(p.Role), p.ID, p.Caller, id)
	return hex.EncodeToString(sum[:])
}

// digest hashes parts, each of which may hold anything.
func digest(parts ...string) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(h, "%d:%s,", len(part), part)
	}
	h.Sum(sum[:0])
	return sum
}

func uploadKey(p share.Principal, requestID string) string { return ledgerKey("upload", p, requestID) }
func storedKey(p share.Principal, storagePath string) string {
	return ledgerKey("stored", p, storagePath)
}
func createdKey(p share.Principal, requestID string) string {
	return ledgerKey("conversation", p, requestID)
}

// load is Ledger.Load, its errors named. A record that has expired may be there yet: that is for the caller to look at.
func (s *Server) load(ctx context.Context, key string) (share.Record, uint64, error) {
	rec, rev, err := s.ports.Ledger.Load(ctx, key)
	if err != nil {
		return share.Record{}, 0, ledgerError(err)
	}
	return rec, rev, nil
}

func ledgerError(err error) error {
	if errors.Is(err, share.ErrStale) || share.KindOf(err) != "" {
		return err
	}
	return share.Errorf(share.LedgerUnavailable, "the record of request ids cannot be reached; nothing was done", err)
}

// begin claims the request id of an upload for this call. If an earlier attempt has done the work, or only its last step is
// missing, the attempt's record says so: see finished.
func (s *Server) begin(ctx context.Context, cancel context.CancelCauseFunc, session Session, u uploadSpec) (*attempt, error) {
	return s.claim(ctx, cancel, session, uploadKey(session.Principal(), u.requestID), func(rec share.Record, found bool) (share.Record, bool, error) {
		if !found {
			rec = share.Record{Fingerprint: u.fingerprint}
		} else if err := sameRequest(rec, u); err != nil {
			return rec, false, err
		} else if finished(rec, u) {
			return rec, true, nil
		}
		if rec.File == nil || rec.State == share.Failed { // bytes are needed; else only the message is missing
			rec.State, rec.File = share.Receiving, nil
		}
		if u.size >= 0 {
			rec.DeclaredSize = &u.size
		}
		if u.declared.CRC32C != nil {
			rec.Declared.CRC32C = u.declared.CRC32C
		}
		if len(u.declared.SHA256) > 0 {
			rec.Declared.SHA256 = u.declared.SHA256
		}
		return rec, false, nil
	})
}

// claim makes this call the one that works on a record. prepare gets the current record, and whether there is one that has not
// expired. It returns the record to go on with, or done if there is nothing left to do.
func (s *Server) claim(ctx context.Context, cancel context.CancelCauseFunc, session Session, key string,
	prepare func(rec share.Record, found bool) (next share.Record, done bool, err error)) (*attempt, error) {
	for {
		rec, rev, err := s.load(ctx, key)
		if err != nil {
			return nil, err
		}
		found := rev != 0 && s.Now().Before(rec.Expires)
		next, done, err := prepare(rec, found)
		if err != nil {
			return nil, err
		}
		if done {
			return &attempt{s: s, key: key, rec: next, rev: rev}, nil
		}
		if found && rec.State == share.Publishing {
			if settled, err := s.settle(ctx, session, key, rec, rev); err != nil {
				return nil, err
			} else if !settled {
				continue // another attempt is still at work: look again
			}
		}
		next.Attempt, next.AttemptTime = uuid.NewString(), s.Now()
		next.Expires = s.Now().Add(s.RequestIDTTL)
		next.Failure, next.FailureMessage = "", ""
		a := &attempt{s: s, key: key, rec: next, cancel: cancel}
		switch a.rev, err = s.ports.Ledger.Save(ctx, key, next, rev); {
		case errors.Is(err, share.ErrStale):
			continue
		case err != nil:
			return nil, ledgerError(err)
		}
		a.begun = a.rev
		s.takeOver(a)
		return a, nil
	}
}

// sameRequest refuses an id that was used for something else.
func sameRequest(rec share.Record, u uploadSpec) error {
	size, sums := rec.DeclaredSize, rec.Declared
	if f := rec.File; f != nil {
		if size, sums = &f.Size, f.Checksums; f.Image != nil { // stored is another than was sent
			size, sums = &f.Image.InputSize, f.Image.InputChecksums
		}
	}
	switch {
	case !bytes.Equal(rec.Fingerprint, u.fingerprint):
	case size != nil && u.size >= 0 && *size != u.size:
	case disagree(sums, u.declared) != "":
	default:
		return nil
	}
	return refuse(share.RequestIDConflict, "the request_id was used with another spec; use a new one")
}

func finished(rec share.Record, u uploadSpec) bool {
	return rec.State == share.Published || rec.State == share.Stored && !u.publish
}

// takeOver ends the attempt of this process that held the id before. One of another process finds out at its next step. Two
// may come here in another order than they took the id in.
func (s *Server) takeOver(a *attempt) {
	s.mu.Lock()
	older := s.running[a.key]
	if older != nil && older.begun > a.begun {
		older = a
	} else {
		s.running[a.key] = a
	}
	s.mu.Unlock()
	if older != nil {
		older.cancel(errTakenOver())
	}
}

func errTakenOver() error {
	return refuse(share.UploadTakenOver, "a newer attempt with the same request_id took over")
}

// settle deals with an earlier attempt that was publishing: it finds its message, or waits until the message can no longer
// appear. settled is true when the id may be taken over, false when the record is to be read again. Where the session does not
// see all of the dialog the id is never taken over, since the message may be there unseen: LPPublishUnconfirmed, until it is told.
func (s *Server) settle(ctx context.Context, session Session, key string, rec share.Record, rev uint64) (settled bool, err error) {
	f := rec.File
	left := rec.PublishDeadline.Add(s.Settle).Sub(s.Now()) // as of before looking: what is not there afterwards never will be
	found, err := session.FindFile(ctx, f.Conversation, f.Dialog, f.File.StoragePath)
	switch {
	case err == nil:
		publishedAs(&rec, found)
		if _, err := s.ports.Ledger.Save(ctx, key, rec, rev); err != nil && !errors.Is(err, share.ErrStale) {
			return false, ledgerError(err)
		}
		return false, nil
	case !share.Is(err, share.FileNotFound):
		return false, err
	}
	sight := session.Sight()
	if sight == share.SeesOwn {
		left -= s.Settle // nothing more will be seen; only the other attempt itself may still tell
	}
	switch {
	case left > 0:
		return false, sleep(ctx, min(left, settlePoll))
	case sight != share.SeesAll:
		return false, errUnconfirmed()
	}
	return true, nil
}

func errUnconfirmed() error {
	return refuse(share.LPPublishUnconfirmed, "an earlier attempt may or may not have published the message, and LivePerson has not told of it; it is "+
		"not sent again. Repeat later under the same request_id, or look into the conversation")
}

// settlePoll is how often a record of another attempt, and LivePerson, are asked anew.
const settlePoll = 500 * time.Millisecond

// publishedAs fills a record in from the message that was found for it.
func publishedAs(rec *share.Record, e share.FileEvent) {
	f := *rec.File
	f.Sequence, f.Time, f.SenderID, f.SenderRole = &e.Sequence, e.Time, e.SenderID, e.SenderRole
	f.File.Preview = "" // was needed to publish it; of up to 30 KB, for as long as the id is kept
	rec.State, rec.File = share.Published, &f
}

// step moves the record on, if it still is this attempt's.
func (a *attempt) step(ctx context.Context, change func(*share.Record)) error {
	ctx, cancel := context.WithTimeout(ctx, ledgerTimeout)
	defer cancel()
	rec := a.rec
	change(&rec)
	rev, err := a.s.ports.Ledger.Save(ctx, a.key, rec, a.rev)
	if errors.Is(err, share.ErrStale) {
		return errTakenOver()
	}
	if err != nil {
		return ledgerError(err)
	}
	a.rec, a.rev = rec, rev
	return nil
}

// end lets go of the id. A failure is remembered for GetUpload; the caller's own end is not one, and a publication that is not
// confirmed stays PUBLISHING, since it must be looked for before anything else.
func (a *attempt) end(err error) {
	a.s.mu.Lock()
	if a.s.running[a.key] == a {
		delete(a.s.running, a.key)
	}
	a.s.mu.Unlock()
	kind := share.KindOf(err)
	if kind == "" || kind == share.UploadTakenOver || a.rec.State == share.Publishing || a.rec.State == share.Published {
		return
	}
	ctx := context.Background()
	e, _ := errors.AsType[*share.Error](err)
	err = a.step(ctx, func(r *share.Record) {
		// What is stored stays known: a retry only has to publish it.
		if r.State == share.Receiving {
			r.State = share.Failed
		}
		r.Failure, r.FailureMessage = kind, clip(e.Message, maxMessage)
	})
	if err != nil && !share.Is(err, share.UploadTakenOver) {
		a.s.Log.LogAttrs(ctx, slog.LevelWarn, "a failed upload could not be recorded", slog.Any("error", err))
	}
}

// ledgerTimeout bounds a step of the ledger: not each is the caller's to wait for.
const ledgerTimeout = 5 * time.Second
