package lpws

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// asideEvents is the number of messages from which on a dialog is read over a connection of its own. With the largest previews they
// have about 4 MB, behind which other answers would wait.
const asideEvents = 128

// asideWhole is wholeFrame for such connections, in bytes: the first messages are passed on before the others have arrived.
const asideWhole = 4 << 10

// aside reads the messages of one dialog over a connection of its own. LivePerson can be asked where to begin, but not where to end:
// closing the connection ends the answer.
type aside struct {
	t      *transport
	dialog string

	mu     sync.Mutex
	pass   func(*lpwire.Event) (more bool)
	ended  bool
	enough chan struct{} // closed when pass needs no more
}

var errEnough = errors.New("the wanted messages have arrived")

func (a *aside) notification(f *frame) {
	if f.name() != "MessagingEventNotification" {
		return
	}
	body, _ := lpwire.ReadEventChanges(f.Body)
	for i := range body.Changes {
		a.event(&body.Changes[i])
	}
}

func (a *aside) event(e *lpwire.Event) (more bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !e.Sequence.OK || e.Sequence.N < 0 || string(e.DialogID) != a.dialog {
		return !a.ended
	}
	if !a.ended && !a.pass(e) {
		a.ended = true
		close(a.enough)
		a.t.close(&closeReason{kind: closedLocally, cause: errEnough})
	}
	return !a.ended
}

func (a *aside) discarded(string) *closeReason {
	return &closeReason{kind: closedLocally, cause: errDiscarded()}
}

// readAside reads the messages of a dialog from a sequence on, and passes them to pass until it reports false or there are no more.
// opened is false if no connection could be opened.
func (s *sharedSession) readAside(ctx context.Context, d dialogRef, from int64, pass func(*lpwire.Event) (more bool)) (opened bool, err error) {
	a := &aside{dialog: d.dialog, pass: pass, enough: make(chan struct{})}
	t, err := s.opener.aside(ctx, func(t *transport) error {
		a.t = t
		if !s.p.spawn(func() { t.read(a); close(t.done) }) {
			return errDraining
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	defer func() {
		t.close(&closeReason{kind: closedLocally, cause: errIdle})
		<-t.done
	}()
	events, complete, err := s.dialect.events(ctx, t, d.conversation, d.dialog, from)
	for i := range events {
		a.event(&events[i])
	}
	select {
	case <-a.enough:
		return true, nil
	default:
	}
	if reason, ok := errors.AsType[*closeReason](err); ok {
		err = reason.callError()
	}
	if err != nil || complete {
		return true, err
	}
	timer := time.NewTimer(5 * s.p.cfg.Grace) // the last messages may follow, or are hidden from the caller
	defer timer.Stop()
	for {
		select {
		case <-a.enough:
			return true, nil
		case <-timer.C:
			if t.streams.Load() == 0 {
				return true, nil
			}
			timer.Reset(5 * s.p.cfg.Grace) // a large frame is still arriving
		case <-t.done:
			return true, t.closeReason().callError()
		case <-ctx.Done():
			return true, context.Cause(ctx)
		}
	}
}

// Complete adds, in place, the previews and captions that files lack, up to a number of bytes for which the caller has memory. Files
// of dialogs that cannot be read stay as they are: these dialogs are returned.
func (s *Session) Complete(ctx context.Context, files []share.FileEvent) ([]share.UnreadableDialog, error) {
	lacking := make(map[dialogRef][]*share.FileEvent)
	var order []dialogRef
	for i := range files {
		e := &files[i]
		if e.Omitted == 0 {
			continue
		}
		d := dialogRef{e.Conversation, e.Dialog}
		if lacking[d] == nil {
			order = append(order, d)
		}
		lacking[d] = append(lacking[d], e)
	}
	var unreadable []share.UnreadableDialog
	for _, d := range order {
		err := s.s.complete(ctx, d, lacking[d])
		if e, ok := errors.AsType[*share.Error](err); ok && share.OfDialog(err) {
			unreadable = append(unreadable, share.UnreadableDialog{Conversation: d.conversation, Dialog: d.dialog, Err: e})
		} else if err != nil {
			return nil, err
		}
	}
	return unreadable, nil
}
