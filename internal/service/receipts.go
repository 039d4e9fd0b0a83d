package service

import (
	"context"
	"log/slog"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/drain"
	"github.com/lpfileshare/lpfileshare/internal/rejections"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// maxReceipts is the maximum number of receipts in flight.
const maxReceipts = 256

// receipts report to the sender of a file what the caller did with it, in the background. Best effort: errors are logged, and
// receipts beyond maxReceipts are dropped.
type receipts struct {
	settings   func(account string) Settings
	session    func(ctx context.Context, account string) (Session, error)
	timeout    time.Duration
	inFlight   chan struct{} // one for each receipt
	drain      *drain.Drain
	rejections *rejections.Tally
	log        *slog.Logger
}

// accessed reports that the caller has opened a file.
func (r *receipts) accessed(ctx context.Context, account string, session Session, e share.FileEvent) {
	if r.settings(account).AccessReceipts && e.SenderID != session.Principal().ID {
		r.send(ctx, account, func(ctx context.Context, session Session) error {
			return session.MarkAccessed(ctx, e.Conversation, e.Dialog, e.Sequence)
		})
	}
}

// delivered reports that a file has reached the caller.
func (r *receipts) delivered(ctx context.Context, account string, session Session, e share.FileEvent) {
	if r.settings(account).AcceptReceipts && e.SenderID != session.Principal().ID {
		r.send(ctx, account, func(ctx context.Context, session Session) error {
			return session.MarkAccepted(ctx, e.Conversation, e.Dialog, e.Sequence)
		})
	}
}

func (r *receipts) send(ctx context.Context, account string, send func(context.Context, Session) error) {
	select {
	case r.inFlight <- struct{}{}:
	default:
		r.rejections.Add("RECEIPTS", slog.String("account", account))
		return
	}
	r.drain.Go(func() {
		defer func() { <-r.inFlight }()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.timeout)
		defer cancel()
		session, err := r.session(ctx, account)
		if err == nil {
			defer session.Release()
			err = send(ctx, session)
		}
		if err != nil {
			r.log.LogAttrs(ctx, slog.LevelInfo, "a receipt could not be sent", slog.Any("error", err))
		}
	})
}
