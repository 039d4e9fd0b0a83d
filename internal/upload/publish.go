package upload

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/retry"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// publish sends the message of a stored file, exactly once. Its beginning is the commit point: a call that has ended by now
// publishes nothing, and one that ends later makes no difference.
//
// LivePerson has no idempotency key. A message whose answer is lost is therefore looked for in the dialog before it is sent again,
// and sent again only when LivePerson can no longer handle the first one: after Settle. If the session does not see all of the
// dialog, not finding the message proves nothing, and it is never sent again. A message that LivePerson denies is looked for too:
// some answers are those of a proxy, or of a part of LivePerson, that does not know what another part has done.
func (e *Engine) publish(ctx context.Context, session Session, a *attempt) error {
	if ctx.Err() != nil {
		return e.storeUnpublished(ctx, a)
	}
	ctx = context.WithoutCancel(ctx)
	err := e.publishAndConfirm(ctx, session, a)
	if err != nil && !share.Is(err, share.LPPublishUnconfirmed, share.UploadTakenOver) { // it is stored, and GetUpload names it: let its uploader read it
		if lerr := a.rememberStored(ctx, cmp.Or(a.file, a.rec.File)); lerr != nil {
			e.Log.LogAttrs(ctx, slog.LevelWarn, "a stored file could not be recorded", slog.Any("error", lerr))
		}
	}
	return err
}

// storeUnpublished records the file of a call that has ended, so that a retry only publishes it. It returns why the call has ended.
func (e *Engine) storeUnpublished(ctx context.Context, a *attempt) error {
	if a.file != nil {
		if err := a.to(context.WithoutCancel(ctx), share.Stored, func(*share.Record) {}); err != nil && !share.Is(err, share.UploadTakenOver) {
			e.Log.LogAttrs(ctx, slog.LevelWarn, "a stored file could not be recorded", slog.Any("error", err))
		}
	}
	return context.Cause(ctx)
}

func (e *Engine) publishAndConfirm(ctx context.Context, session Session, a *attempt) error {
	for try := 1; ; try++ {
		before := a.rec.PublishDeadline                    // of an earlier try, which this one does not settle
		deadline := e.Now().Add(e.PublishTimeout).Round(0) // by the wall clock alone, as others read it in the record
		settled := e.sending(a.key, e.PublishTimeout)
		if err := a.to(ctx, share.Publishing, func(r *share.Record) { r.PublishDeadline = deadline }); err != nil {
			return err
		}
		seq, err := e.publishOnce(ctx, session, a)
		if err == nil {
			p := session.Principal()
			a.recordPublished(ctx, share.FileEvent{Sequence: seq, SenderID: p.ID, SenderRole: p.Role, Time: e.Now(), File: a.rec.File.File})
			return nil
		}
		if denial := denialOf(err); denial != nil {
			return e.denied(ctx, session, a, denial)
		}
		if !share.Is(err, share.LPPublishUnconfirmed) {
			// Nothing was sent: a retry may take the id over at once.
			if lerr := a.to(ctx, share.Stored, func(r *share.Record) { r.PublishDeadline = before }); lerr != nil {
				return lerr
			}
			return err
		}
		event, lookErr := e.confirm(ctx, session, a, settled)
		if lookErr == nil {
			a.recordPublished(ctx, event)
			return nil
		}
		if try == maxPublishes || !absent(lookErr) || session.Sight() != share.SeesAll {
			return err
		}
		e.Log.LogAttrs(ctx, slog.LevelWarn, "a message whose answer was lost did not appear, and is sent again")
	}
}

// denialOf returns err if it is LivePerson's word that nothing was published.
func denialOf(err error) *share.Error {
	if e, ok := errors.AsType[*share.Error](err); ok && e.Denied {
		return e
	}
	return nil
}

// denied looks for a message that LivePerson denies. If it is not there the denial is the result, but the record keeps that a message
// was sent, so that a retry looks again: see settle.
func (e *Engine) denied(ctx context.Context, session Session, a *attempt, denial *share.Error) error {
	e.sending(a.key, 0)
	looking, cancel := context.WithTimeout(ctx, e.PublishTimeout)
	defer cancel()
	f := a.rec.File
	event, err := session.FindFile(looking, f.Conversation, f.Dialog, f.File.StoragePath)
	switch {
	case err == nil:
		a.recordPublished(ctx, event)
		return nil
	case session.Sight() != share.SeesOwn && !absent(err) && !agrees(err, denial.Kind):
		e.Log.LogAttrs(ctx, slog.LevelWarn, "a message that LivePerson denies could not be looked for", slog.Any("denial", denial), slog.Any("error", err))
		return errUnconfirmed(err)
	}
	if err := a.to(ctx, share.Stored, func(r *share.Record) { r.PublishDeadline = e.Now().Round(0) }); err != nil {
		return err
	}
	return denial
}

// agrees reports whether the error of FindFile says the same as the kind of a denial: that the caller does not take part.
func agrees(err error, denial share.Kind) bool {
	return share.Is(err, share.ConversationNotFound) && (denial == share.ConversationNotFound || denial == share.ConversationClosed)
}

// absent reports whether the error of FindFile means that the message is not among those that the session sees, all of which were read.
func absent(err error) bool {
	return share.Is(err, share.FileNotFound) && !errors.Is(err, share.ErrIncomplete)
}

// maxPublishes is how often a message is sent if each time its answer is lost and it does not appear.
const maxPublishes = 2

// publishOnce sends the message. The deadline in the record is that of ctx too: the session checks it immediately before it
// writes, because another attempt relies on it.
func (e *Engine) publishOnce(ctx context.Context, session Session, a *attempt) (int64, error) {
	ctx, cancel := context.WithDeadlineCause(ctx, a.rec.PublishDeadline, errPublishTimeout)
	defer cancel()
	f := a.rec.File
	seq, err := session.PublishFile(ctx, f.Conversation, f.Dialog, f.File)
	if err != nil && share.KindOf(err) == "" { // not a named condition, which would prove that nothing was sent
		err = share.Errorf(share.LPPublishUnconfirmed, "LivePerson did not confirm the message; retry with the same request_id", err)
	}
	return seq, err
}

var errPublishTimeout = share.Reject(share.LPPublishUnconfirmed, "LivePerson did not confirm the message in time; retry with the same request_id")

// confirm looks for a message whose answer was lost, for the last time when it can no longer appear, which is when settled has passed.
// An error that is absent means that it never will, if the session sees all. Any other error means that it is not known.
func (e *Engine) confirm(ctx context.Context, session Session, a *attempt, settled time.Time) (share.FileEvent, error) {
	ctx, cancel := context.WithTimeout(ctx, max(time.Until(settled), 0)+e.PublishTimeout) // 0 if this process was stopped meanwhile
	defer cancel()
	f := a.rec.File
	for pause := settlePoll; ; pause = min(2*pause, maxSettlePoll) {
		left := time.Until(settled)
		event, err := session.FindFile(ctx, f.Conversation, f.Dialog, f.File.StoragePath)
		if err == nil || left <= 0 || session.Sight() == share.SeesOwn {
			return event, err
		}
		if err := retry.Sleep(ctx, min(left, pause)); err != nil {
			return share.FileEvent{}, err
		}
	}
}

// published moves the record to PUBLISHED, with what the message says. No attempt needs the preview, the caption or the deadline any
// more.
func (a *attempt) published(ctx context.Context, e share.FileEvent) error {
	f := shown(a.rec.File, e)
	return a.to(ctx, share.Published, func(r *share.Record) {
		r.File = f
		r.Attempt, r.DeclaredSize, r.Declared, r.PublishDeadline = "", nil, share.Checksums{}, time.Time{}
	})
}

// shown returns a file as its message shows it, without its preview and caption, which only the message keeps.
func shown(f *share.StoredFile, e share.FileEvent) *share.StoredFile {
	published := *f
	published.Sequence, published.Time, published.SenderID, published.SenderRole = &e.Sequence, e.Time, e.SenderID, e.SenderRole
	published.File.Preview, published.File.Caption = "", ""
	return &published
}

// recordPublished records that the message exists. It does, whatever the ledger says: if the record cannot be written it stays
// PUBLISHING, and a retry finds the message.
func (a *attempt) recordPublished(ctx context.Context, e share.FileEvent) {
	if err := a.published(ctx, e); err != nil {
		a.Log.LogAttrs(ctx, slog.LevelWarn, "a published upload could not be recorded", slog.Any("error", err))
		a.rec.File = shown(a.rec.File, e)
	}
}
