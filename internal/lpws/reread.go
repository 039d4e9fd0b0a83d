package lpws

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// complete reads the messages of files of one dialog again, in as many requests as there are runs of close sequences.
func (s *sharedSession) complete(ctx context.Context, d dialogRef, files []*share.FileEvent) error {
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b *share.FileEvent) int { return cmp.Compare(a.Sequence, b.Sequence) })
	for len(files) > 0 {
		n := 1
		for n < len(files) && files[n].Sequence-files[n-1].Sequence < asideEvents {
			n++
		}
		run := files[:n]
		files = files[n:]
		sequences := make([]int64, n)
		for i, e := range run {
			sequences[i] = e.Sequence
		}
		found, err := s.reread(ctx, d, sequences)
		if err != nil {
			return err
		}
		for _, e := range run {
			if f := found[e.Sequence]; f != nil && f.File.StoragePath == e.File.StoragePath {
				e.File, e.Omitted, e.CaptionOmitted = f.File, 0, false
			}
		}
	}
	return nil
}

// reread reads messages of a dialog, given by their sequences in order. Those that LivePerson does not return are missing in the
// result. If the connection is lost, it reads them once more over the next one.
func (s *sharedSession) reread(ctx context.Context, d dialogRef, sequences []int64) (map[int64]*share.FileEvent, error) {
	ctx, cancel := s.readContext(ctx)
	defer cancel()
	for attempt := 1; ; attempt++ {
		t, err := s.acquire(ctx)
		if err != nil {
			return nil, err
		}
		found, err := s.rereadOver(ctx, t, d, sequences)
		if reason, ok := errors.AsType[*closeReason](err); ok {
			if reason.retryable() && attempt == 1 {
				continue
			}
			err = s.callError(reason)
		}
		if share.Is(err, share.LPIdentityExpired) && s.identityRejected(t, err) && attempt == 1 {
			continue
		}
		return found, err
	}
}

// rereadOver reads messages over t, or over a connection of its own if many others follow.
func (s *sharedSession) rereadOver(ctx context.Context, t *transport, d dialogRef, sequences []int64) (map[int64]*share.FileEvent, error) {
	select {
	case s.fetches <- struct{}{}:
		defer func() { <-s.fetches }()
	case <-t.done:
		return nil, t.closeReason()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	f, w := s.book.want(d.conversation, d.dialog, sequences)
	err := s.readWanted(ctx, t, d, f, w, sequences[0])
	found := s.book.unwant(f, w)
	if err != nil {
		return nil, err
	}
	return found, nil
}

func (s *sharedSession) readWanted(ctx context.Context, t *transport, d dialogRef, f *feed, w *wanted, from int64) error {
	if s.book.last(d.dialog)-from >= asideEvents {
		opened, err := s.readAside(ctx, d, from, func(e *lpwire.Event) bool { return s.book.satisfy(f, w, *e) })
		if err == nil || opened || ctx.Err() != nil {
			return err
		}
		s.log("could not open a connection to read a dialog; reading it over the session's own", slog.Any("error", err))
	}
	events, complete, err := s.dialect.events(ctx, t, d.conversation, d.dialog, from)
	if err != nil {
		return err
	}
	if !s.book.satisfy(f, w, events...) || complete {
		return nil
	}
	timer := time.NewTimer(5 * s.p.cfg.Grace)
	defer timer.Stop()
	for {
		select {
		case <-w.arrived:
			return nil
		case <-timer.C:
			if t.streams.Load() == 0 {
				return nil
			}
			timer.Reset(5 * s.p.cfg.Grace) // a large frame is still arriving
		case <-t.done:
			return t.closeReason()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
