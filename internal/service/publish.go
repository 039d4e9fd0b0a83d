package service

import (
	"context"
	"log/slog"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// publish sends the message of a stored file, exactly once, and returns the record as it is then. From here on the caller's end
// no longer counts: ctx is the call's, and only what it carries is used.
//
// LivePerson has no idempotency key. A message whose answer is lost is therefore looked for in the dialog before it is sent
// again, and sent again only when LivePerson can no longer handle the first: after Settle. Where the session does not see all of
// the dialog, that it is not found proves nothing, and it is never sent again.
func (s *Server) publish(ctx context.Context, session Session, a *attempt) (*share.StoredFile, error) {
	ctx = context.WithoutCancel(ctx)
	for try := 1; ; try++ {
		deadline := s.Now().Add(s.PublishTimeout).Round(0) // by the wall clock alone, as others read it in the record
		if err := a.step(ctx, func(r *share.Record) { r.State, r.PublishDeadline = share.Publishing, deadline }); err != nil {
			return nil, err
		}
		seq, err := s.publishOnce(ctx, session, a)
		if err == nil {
			p := session.Principal()
			return a.published(ctx, share.FileEvent{Sequence: seq, SenderID: p.ID, SenderRole: p.Role, Time: s.Now(), File: a.rec.File.File}), nil
		}
		if !share.Is(err, share.LPPublishUnconfirmed) {
			// Nothing was sent: the id may be taken over at once.
			if e := a.step(ctx, func(r *share.Record) { r.State, r.PublishDeadline = share.Stored, time.Time{} }); e != nil {
				return nil, e
			}
			return nil, err
		}
		event, lookErr := s.confirm(ctx, session, a)
		if lookErr == nil {
			return a.published(ctx, event), nil
		}
		if try == maxPublishes || !share.Is(lookErr, share.FileNotFound) || session.Sight() != share.SeesAll {
			return nil, err
		}
		s.Log.LogAttrs(ctx, slog.LevelWarn, "a message whose answer was lost did not appear, and is sent again")
	}
}

// maxPublishes is how often a message is sent when each time its answer is lost and it does not appear.
const maxPublishes = 2

// publishOnce sends the message. The deadline in the record goes along as ctx's: the session looks at it immediately before it
// writes, since another attempt counts on it.
func (s *Server) publishOnce(ctx context.Context, session Session, a *attempt) (int64, error) {
	ctx, cancel := context.WithDeadlineCause(ctx, a.rec.PublishDeadline,
		refuse(share.LPPublishUnconfirmed, "LivePerson did not confirm the message in time; repeat under the same request_id"))
	defer cancel()
	f := a.rec.File
	seq, err := session.PublishFile(ctx, f.Conversation, f.Dialog, f.File)
	if err != nil && share.KindOf(err) == "" { // no condition that says that nothing was sent
		err = share.Errorf(share.LPPublishUnconfirmed, "LivePerson did not confirm the message; repeat under the same request_id", err)
	}
	return seq, err
}

// confirm looks for a message whose answer was lost, the last time when it can no longer appear. FileNotFound means that it
// never will, if the session sees all; any other error, that LivePerson did not say.
func (s *Server) confirm(ctx context.Context, session Session, a *attempt) (share.FileEvent, error) {
	settled := a.rec.PublishDeadline.Add(s.Settle)
	ctx, cancel := context.WithTimeout(ctx, max(settled.Sub(s.Now()), 0)+s.PublishTimeout) // 0 if this process was stopped meanwhile
	defer cancel()
	f := a.rec.File
	for {
		left := settled.Sub(s.Now())
		event, err := session.FindFile(ctx, f.Conversation, f.Dialog, f.File.StoragePath)
		if err == nil || left <= 0 || session.Sight() == share.SeesOwn {
			return event, err
		}
		if err := sleep(ctx, min(left, settlePoll)); err != nil {
			return share.FileEvent{}, err
		}
	}
}

// published records that the message is there. It is, whatever the ledger says; a record that cannot be written stays
// PUBLISHING, and a retry finds the message.
func (a *attempt) published(ctx context.Context, e share.FileEvent) *share.StoredFile {
	rec := a.rec
	publishedAs(&rec, e)
	if err := a.step(ctx, func(r *share.Record) { *r = rec }); err != nil {
		a.s.Log.LogAttrs(ctx, slog.LevelWarn, "a published upload could not be recorded", slog.Any("error", err))
	}
	return rec.File
}
