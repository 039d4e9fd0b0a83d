package lpws

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/retry"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// startFetches runs the fetches of feeds, each on its own goroutine.
func (s *sharedSession) startFetches(feeds []*feed) {
	for _, f := range feeds {
		if !s.p.spawn(func() { s.runFetches(f) }) {
			s.book.abort(f, errDraining)
		}
	}
}

// runFetches runs the fetches of a feed until none is left. At most one goroutine does so for each feed.
func (s *sharedSession) runFetches(f *feed) {
	pauses := retry.Backoff{First: s.p.cfg.BackoffMin, Max: s.p.cfg.BackoffMax, Spread: true}
	for r := s.book.running(f); r != nil; {
		t, err := s.fetch(f, r)
		connection := uint64(0)
		if t != nil {
			connection = t.id
		}
		next, again := s.book.finish(f, r, connection, err)
		if share.OfDialog(err) && s.book.logDue(f) {
			s.p.log.LogAttrs(s.p.ctx, slog.LevelWarn, "a dialog cannot be read", slog.Any("error", err), slog.String("dialog", f.dialog),
				slog.String("session", s.tag), slog.String("account", s.cred.Account))
		}
		if err == nil {
			pauses.Reset()
		}
		if again {
			pause := pauses.Next(err)
			s.log("could not read the messages of a dialog", slog.Any("error", err), slog.Duration("pause", pause))
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-next.arrived:
			case <-t.done:
			case <-s.ended:
			}
			timer.Stop()
		}
		r = next
	}
}

// fetch requests the events of a dialog from LivePerson. It returns the connection that it used, if any.
func (s *sharedSession) fetch(f *feed, r *fetch) (*transport, error) {
	ctx, cancel := s.readContext(s.p.ctx)
	defer cancel()
	t, err := s.acquire(ctx)
	if err != nil {
		return nil, err
	}
	select {
	case s.fetches <- struct{}{}:
		defer func() { <-s.fetches }()
	case <-t.done:
		return t, t.closeReason().callError()
	case <-ctx.Done():
		return t, context.Cause(ctx)
	}
	if !s.book.begin(f, r) {
		return t, nil
	}
	from := r.from
	if r.many() {
		opened, err := s.readAside(ctx, dialogRef{f.conversation, f.dialog}, from, func(e *lpwire.Event) bool { return s.book.collect(f, r, e) })
		if _, _, refused := s.book.covered(r); err == nil {
			err = refused
		}
		switch {
		case err == nil:
			from = r.known + 1
		case opened || ctx.Err() != nil:
			return t, err
		default:
			s.log("could not open a connection to read a dialog; reading it over the session's own", slog.Any("error", err))
		}
	}
	events, complete, err := s.dialect.events(ctx, t, f.conversation, f.dialog, from)
	if _, _, refused := s.book.covered(r); refused != nil {
		return t, refused
	}
	if reason, ok := errors.AsType[*closeReason](err); ok {
		return t, reason.callError()
	}
	if err != nil {
		if share.Is(err, share.LPIdentityExpired) && s.identityRejected(t, err) {
			err = errUnavailable(err) // until the next connection is open
		}
		return t, err
	}
	s.book.add(f, r, events, complete)
	if complete {
		_, _, err := s.book.covered(r)
		return t, err
	}
	return t, s.awaitEvents(ctx, t, r)
}

// readContext returns a context to read messages in. It ends after Config.CallTimeout, but not while a large frame is arriving, which
// may take up to frameTime.
func (s *sharedSession) readContext(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	go func() {
		timer := time.NewTimer(s.p.cfg.CallTimeout)
		defer timer.Stop()
		for {
			select {
			case <-timer.C:
				if s.streams.Load() == 0 {
					cancel(errTimeout)
					return
				}
				timer.Reset(s.p.cfg.CallTimeout)
			case <-s.p.ctx.Done():
				cancel(errDraining)
				return
			case <-s.ended:
				s.mu.Lock()
				cancel(withKind(s.err))
				s.mu.Unlock()
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}

// awaitEvents waits for the events of a dialog that may follow the answer that announces them. If no known event is missing, it
// returns at once.
func (s *sharedSession) awaitEvents(ctx context.Context, t *transport, r *fetch) error {
	begun := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		complete, last, err := s.book.covered(r)
		if complete || err != nil {
			return err
		}
		grace := s.p.cfg.Grace
		switch {
		case r.unsure:
			grace /= 4 // LivePerson names the last event of most dialogs that have any
		case !last:
			grace *= 5 // the last event arrives unless it is hidden from the caller
		}
		left := grace - time.Since(begun)
		if left <= 0 && t.streams.Load() == 0 {
			return nil
		}
		if left <= 0 { // a large frame is still arriving
			begun, left = time.Now(), grace
		}
		timer.Reset(left)
		select {
		case <-r.arrived:
		case <-timer.C:
		case <-t.done:
			return t.closeReason().callError()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// files returns all files of a dialog as LivePerson has them now, and one past the dialog's last sequence.
func (s *sharedSession) files(ctx context.Context, conversation, dialog string) ([]share.FileEvent, int64, error) {
	for attempt := 1; ; attempt++ {
		r, connection, starts, err := s.book.requestFiles(conversation, dialog)
		if err != nil {
			return nil, 0, err
		}
		s.startFetches(starts)
		select {
		case <-r.done:
		case <-ctx.Done():
			return nil, 0, context.Cause(ctx)
		}
		if r.err == nil {
			return r.result, r.end, nil
		}
		// If the connection was lost, reading may be repeated over the next one.
		lost := connection != 0 && !s.book.current(connection)
		if attempt == 2 || !lost || !share.Is(r.err, share.LPUnavailable) {
			return nil, 0, r.err
		}
	}
}
