package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// eventProbe is the subject of the message that checks write to the stream of conversations. It has fewer tokens than any other, so
// that no reader sees it. The stream of events gets none: its first position must not change without events.
const eventProbe = conversationPrefix + "probe"

// usable reports why the log cannot be used; nil if it can, and if it was never opened. Streams that were removed are created again:
// the files of the events stay at LivePerson, and clients list them again.
func (e *Events) usable() error {
	if !e.needed.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(e.l.ctx, e.l.timeout/2)
	defer cancel()
	events, convs, err := e.open(ctx)
	if errors.Is(err, errClosed) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = e.js.Publish(ctx, eventProbe, nil, jetstream.WithExpectStream(conversationStream))
	for _, s := range []jetstream.Stream{events, convs} {
		if _, infoErr := s.Info(ctx); errors.Is(infoErr, jetstream.ErrStreamNotFound) {
			e.reopen(s.CachedInfo().Config.Name)
			return fmt.Errorf("stream %s: %w", s.CachedInfo().Config.Name, infoErr)
		} else if err == nil {
			err = infoErr
		}
	}
	if err != nil || e.l.own == nil {
		return err
	}
	return errors.Join(e.l.own.check(eventStream), e.l.own.check(conversationStream))
}

// reopen makes the next use of the log create its missing streams.
func (e *Events) reopen(missing string) {
	e.l.log.Error("a stream of the event log was removed; it is created again, without the events and conversations that it had", "stream", missing)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.events, e.convs = nil, nil
}
