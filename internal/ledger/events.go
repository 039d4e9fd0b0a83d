package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// EventsConfig bounds an event log.
type EventsConfig struct {
	// TTL is how long an event is kept, and a conversation of which nothing more is heard.
	TTL time.Duration
	// MaxBytes bounds the log. A full one drops what is oldest. A quarter of it is for conversations.
	MaxBytes int64
}

// Events is the event log that all servers of a cluster share: what happened in conversations whose messages cannot be asked for,
// because LivePerson tells of them by webhook and once. It is two streams on the ledger's connection: of events one record for
// each place in a dialog, which is written once and never changed; of conversations one record each, which follows the news.
//
// Nothing is made in NATS before it is used for the first time. It is safe for concurrent use.
type Events struct {
	l *KV
	c EventsConfig

	opening chan struct{} // has one place, for who opens the streams: it may take long, and who waits must not wait for longer than its time

	mu            sync.Mutex
	js            jetstream.JetStream
	events, convs jetstream.Stream // nil: not opened yet
	following     []jetstream.ConsumeContext
	closed        bool
}

// Names of the streams, and of the subjects in them.
const (
	eventStream        = "lpfileshare_events"
	eventSubjects      = "lpfileshare.events."
	conversationStream = "lpfileshare_conversations"
	conversationPrefix = "lpfileshare.conversations."
)

// Events makes the event log of l. The caller closes it before l.
func (l *KV) Events(c EventsConfig) *Events {
	e := &Events{l: l, c: c, opening: make(chan struct{}, 1)}
	l.eventLog.Store(e)
	return e
}

// Open makes the log's streams, or mends the settings of those that are there. Every other call does so by itself; a server that
// needs the log calls it at its start, since its errors say what to do.
func (e *Events) Open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, e.l.timeout)
	defer cancel()
	_, _, err := e.open(ctx)
	return err
}

func (e *Events) open(ctx context.Context) (events, convs jetstream.Stream, err error) {
	if events, convs, err = e.opened(); events != nil || err != nil {
		return events, convs, err
	}
	select {
	case e.opening <- struct{}{}:
		defer func() { <-e.opening }()
	case <-ctx.Done():
		return nil, nil, logError(ctx.Err())
	}
	if events, convs, err = e.opened(); events != nil || err != nil { // by somebody else meanwhile
		return events, convs, err
	}
	js, err := jetstream.New(e.l.conn)
	if err != nil {
		return nil, nil, logError(err)
	}
	quarter := e.c.MaxBytes / 4
	events, err = e.stream(ctx, js, jetstream.StreamConfig{
		Name: eventStream, Subjects: []string{eventSubjects + ">"}, Description: "lpfileshare: events of conversations", MaxBytes: e.c.MaxBytes - quarter,
	})
	if err != nil {
		return nil, nil, logError(fmt.Errorf("its stream %s cannot be opened: %w", eventStream, explain(err)))
	}
	convs, err = e.stream(ctx, js, jetstream.StreamConfig{
		Name: conversationStream, Subjects: []string{conversationPrefix + ">"}, Description: "lpfileshare: conversations", MaxBytes: quarter,
	})
	if err != nil {
		return nil, nil, logError(fmt.Errorf("its stream %s cannot be opened: %w", conversationStream, explain(err)))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.js, e.events, e.convs = js, events, convs
	return events, convs, nil
}

// opened are the streams if they are open; nil if they are not yet.
func (e *Events) opened() (events, convs jetstream.Stream, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, nil, logError(errClosed)
	}
	return e.events, e.convs, nil
}

// stream finds a stream or makes it. Storage and replicas are the ledger's.
func (e *Events) stream(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) (jetstream.Stream, error) {
	ledger := e.l.stream.CachedInfo().Config
	want.Storage, want.Replicas = ledger.Storage, ledger.Replicas
	want.MaxMsgs, want.MaxConsumers, want.MaxMsgsPerSubject = -1, -1, 1
	want.Discard = jetstream.DiscardOld
	want.MaxAge, want.MaxMsgSize = e.c.TTL, maxValue+1<<10
	s, err := js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if s, err = js.CreateStream(ctx, want); !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return s, err
		}
		s, err = js.Stream(ctx, want.Name) // another server was faster
	}
	if err != nil {
		return nil, err
	}
	there := s.CachedInfo().Config
	if there.MaxBytes == want.MaxBytes && there.MaxAge == want.MaxAge && there.MaxMsgSize == want.MaxMsgSize && there.Replicas == want.Replicas {
		return s, nil
	}
	there.MaxBytes, there.MaxAge, there.MaxMsgSize, there.Replicas = want.MaxBytes, want.MaxAge, want.MaxMsgSize, want.Replicas
	return js.UpdateStream(ctx, there)
}

// Close ends what follows the log. No call may follow.
func (e *Events) Close() {
	e.l.eventLog.CompareAndSwap(e, nil)
	e.mu.Lock()
	following := e.following
	e.following, e.closed = nil, true
	e.mu.Unlock()
	for _, f := range following {
		f.Stop()
		<-f.Closed()
	}
}

// token makes an id fit for a subject; ids may have dots.
func token(id string) string { return base64.RawURLEncoding.EncodeToString([]byte(id)) }

func untoken(t string) string {
	b, _ := base64.RawURLEncoding.DecodeString(t) // we wrote it
	return string(b)
}

// noFile stands in the subject of an event that shows none.
const noFile = "-"

// pathToken stands for a storage path, so that a file is found without reading others.
func pathToken(path string) string {
	sum := sha256.Sum256([]byte(path))
	return hex.EncodeToString(sum[:16])
}

// conversationSubjects are those of all events of a conversation.
func conversationSubjects(account, conversation string) string {
	return eventSubjects + account + "." + token(conversation) + ".>"
}

func conversationSubject(account, consumer, id string) string {
	return conversationPrefix + account + "." + token(consumer) + "." + token(id)
}

type eventRecord struct {
	Version int               `json:"version"`
	Event   share.LoggedEvent `json:"event"`
}

type conversationRecord struct {
	Version      int                      `json:"version"`
	Conversation share.LoggedConversation `json:"conversation"`
}

// encodeEvent writes an event. One whose texts are too long goes without them: that it is there, and where its file is, counts more,
// and one that could never be kept would be delivered again and again.
func encodeEvent(ev share.LoggedEvent) (value []byte, err error) {
	value, err = json.Marshal(eventRecord{codecVersion, ev})
	for _, shorten := range []func(*share.HostedFile){func(f *share.HostedFile) { f.Preview = "" }, func(f *share.HostedFile) { f.Caption = "" }} {
		if err != nil || len(value) <= maxValue || ev.File == nil {
			break
		}
		file := *ev.File // the caller keeps its own
		shorten(&file.File)
		ev.File = &file
		value, err = json.Marshal(eventRecord{codecVersion, ev})
	}
	if err == nil && len(value) > maxValue {
		err = fmt.Errorf("an event of %d bytes cannot be written", len(value))
	}
	return value, err
}

// AddEvent keeps an event, unless one of the same place in the dialog is kept: that one stays as it is, and added is false. An
// error leaves open whether it was kept; adding it again is safe.
func (e *Events) AddEvent(ctx context.Context, account string, ev share.LoggedEvent) (added bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, e.l.timeout)
	defer cancel()
	events, _, err := e.open(ctx)
	if err != nil {
		return false, err
	}
	path := noFile
	if ev.File != nil {
		path = pathToken(ev.File.File.StoragePath)
	}
	place := eventSubjects + account + "." + token(ev.Conversation) + "." + token(ev.Dialog) + "." + strconv.FormatInt(ev.Sequence, 10) + "."
	value, err := encodeEvent(ev)
	if err != nil {
		return false, logError(err)
	}
	for {
		try, cancel := context.WithTimeout(ctx, e.l.timeout/2)
		_, err := e.js.Publish(try, place+path, value, jetstream.WithExpectLastSequenceForSubject(0, place+"*"), jetstream.WithExpectStream(eventStream))
		cancel()
		if err == nil {
			return true, nil
		}
		if !conflict(err) && !passing(err) {
			return false, logError(err)
		}
		// There already, or on its way: of that only what is there counts.
		there, readErr := e.next(ctx, events, 1, place+"*")
		if readErr != nil {
			return false, readErr
		}
		if there != nil {
			return false, nil
		}
		if !pause(ctx) {
			return false, logError(err)
		}
	}
}

// conflict tells that NATS answered, and that another write was there first.
func conflict(err error) bool {
	e, ok := errors.AsType[*jetstream.APIError](err)
	return ok && (e.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || e.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// next is the first message from a place on whose subject matches; nil: there is none. It asks the stream's leader.
func (e *Events) next(ctx context.Context, s jetstream.Stream, from uint64, subjects string) (*jetstream.RawStreamMsg, error) {
	for {
		try, cancel := context.WithTimeout(ctx, e.l.timeout/4)
		m, err := s.GetMsg(try, from, jetstream.WithGetMsgSubject(subjects))
		cancel()
		switch {
		case err == nil:
			return m, nil
		case errors.Is(err, jetstream.ErrMsgNotFound):
			return nil, nil
		case !passing(err) || !pause(ctx):
			return nil, logError(err)
		}
	}
}

// Bounds are the places of the first and the last event that is kept, of whatever account; what was before the first is gone.
// Events that are added later have greater places than last.
func (e *Events) Bounds(ctx context.Context) (first, last uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, e.l.timeout)
	defer cancel()
	events, _, err := e.open(ctx)
	if err != nil {
		return 0, 0, err
	}
	info, err := events.Info(ctx)
	if err != nil {
		return 0, 0, logError(err)
	}
	return info.State.FirstSeq, info.State.LastSeq, nil
}

// Read gives the events of a conversation with places above after and up to upTo, in the order of their places.
func (e *Events) Read(ctx context.Context, account, conversation string, after, upTo uint64) ([]share.LoggedEvent, error) {
	events, _, err := e.open(ctx)
	if err != nil {
		return nil, err
	}
	var all []share.LoggedEvent
	for after < upTo {
		m, err := e.next(ctx, events, after+1, conversationSubjects(account, conversation))
		if err != nil {
			return nil, err
		}
		if m == nil || m.Sequence > upTo {
			break
		}
		after = m.Sequence
		if ev, ok := e.readEvent(m); ok {
			all = append(all, ev)
		}
	}
	return all, nil
}

// FindFile finds the first event of a dialog ("": any of the conversation's) that shows a storage path; false if none is kept.
func (e *Events) FindFile(ctx context.Context, account, conversation, dialog, storagePath string) (share.LoggedEvent, bool, error) {
	events, _, err := e.open(ctx)
	if err != nil {
		return share.LoggedEvent{}, false, err
	}
	in := "*"
	if dialog != "" {
		in = token(dialog)
	}
	m, err := e.next(ctx, events, 1, eventSubjects+account+"."+token(conversation)+"."+in+".*."+pathToken(storagePath))
	if err != nil || m == nil {
		return share.LoggedEvent{}, false, err
	}
	ev, ok := e.readEvent(m)
	return ev, ok && ev.File != nil && ev.File.File.StoragePath == storagePath, nil
}

// readEvent reads a record. One that cannot be read is none: its place in the dialog is then a gap.
func (e *Events) readEvent(m *jetstream.RawStreamMsg) (share.LoggedEvent, bool) {
	var r eventRecord
	if json.Unmarshal(m.Data, &r) != nil || r.Version != codecVersion || r.Event.Conversation == "" || r.Event.Dialog == "" || r.Event.Sequence < 0 {
		e.l.log.Error("an event in the log cannot be read, and is passed over", "place", m.Sequence)
		return share.LoggedEvent{}, false
	}
	r.Event.Position, r.Event.Added = m.Sequence, m.Time
	return r.Event, true
}

// Conversation finds a conversation that a consumer takes part in; false if none is kept.
func (e *Events) Conversation(ctx context.Context, account, consumer, id string) (share.LoggedConversation, bool, error) {
	c, rev, err := e.conversation(ctx, account, consumer, id)
	return c, rev != 0, err
}

func (e *Events) conversation(ctx context.Context, account, consumer, id string) (share.LoggedConversation, uint64, error) {
	_, convs, err := e.open(ctx)
	if err != nil {
		return share.LoggedConversation{}, 0, err
	}
	m, err := e.next(ctx, convs, 1, conversationSubject(account, consumer, id))
	if err != nil || m == nil {
		return share.LoggedConversation{}, 0, err
	}
	c, err := readConversation(m)
	return c, m.Sequence, err
}

func readConversation(m *jetstream.RawStreamMsg) (share.LoggedConversation, error) {
	var r conversationRecord
	if json.Unmarshal(m.Data, &r) != nil || r.Version != codecVersion || r.Conversation.ID == "" {
		return share.LoggedConversation{}, logError(fmt.Errorf("the record of a conversation at place %d cannot be read", m.Sequence))
	}
	return r.Conversation, nil
}

// Conversations gives all conversations that a consumer takes part in, in no particular order.
func (e *Events) Conversations(ctx context.Context, account, consumer string) ([]share.LoggedConversation, error) {
	_, convs, err := e.open(ctx)
	if err != nil {
		return nil, err
	}
	var all []share.LoggedConversation
	seen := map[string]int{} // one that changes while this reads may come twice: the later counts
	for at := uint64(0); ; {
		m, err := e.next(ctx, convs, at+1, conversationPrefix+account+"."+token(consumer)+".*")
		if err != nil {
			return nil, err
		}
		if m == nil {
			return all, nil
		}
		at = m.Sequence
		c, err := readConversation(m)
		if err != nil {
			return nil, err
		}
		if i, again := seen[c.ID]; again {
			all[i] = c
			continue
		}
		seen[c.ID] = len(all)
		all = append(all, c)
	}
}

// ChangeConversation changes the record of a conversation that a consumer takes part in, by compare-and-set: change is given what
// is kept (known is false, if nothing is), as often as others are faster, and returns what is to be kept, or false to leave all as
// it is.
func (e *Events) ChangeConversation(
	ctx context.Context, account, consumer, id string,
	change func(c share.LoggedConversation, known bool) (share.LoggedConversation, bool),
) error {
	ctx, cancel := context.WithTimeout(ctx, e.l.timeout)
	defer cancel()
	for {
		c, rev, err := e.conversation(ctx, account, consumer, id)
		if err != nil {
			return err
		}
		next, write := change(c, rev != 0)
		if !write {
			return nil
		}
		value, err := json.Marshal(conversationRecord{codecVersion, next})
		if err != nil || len(value) > maxValue {
			return logError(fmt.Errorf("a conversation of %d bytes cannot be written", len(value)))
		}
		try, cancel := context.WithTimeout(ctx, e.l.timeout/2)
		_, err = e.js.Publish(try, conversationSubject(account, consumer, id), value,
			jetstream.WithExpectLastSequencePerSubject(rev), jetstream.WithExpectStream(conversationStream))
		cancel()
		if err == nil {
			return nil
		}
		// Where no answer came the record may be there: change will find it so.
		if !conflict(err) && !passing(err) || !pause(ctx) {
			return logError(err)
		}
	}
}

// Follow calls event for each event that is added from now on, in the order of their places, and conversation for each record of
// a conversation that is written, until Close. Neither may block. It returns the place behind which it begins.
func (e *Events) Follow(ctx context.Context, event func(account, conversation string, place uint64), conversation func(account, consumer string)) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, e.l.timeout)
	defer cancel()
	events, convs, err := e.open(ctx)
	if err != nil {
		return 0, err
	}
	from, stop, err := e.follow(ctx, events, func(subject []string, place uint64) { event(subject[2], untoken(subject[3]), place) })
	if err != nil {
		return 0, err
	}
	_, also, err := e.follow(ctx, convs, func(subject []string, _ uint64) { conversation(subject[2], untoken(subject[3])) })
	if err != nil {
		stop.Stop()
		return 0, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		stop.Stop()
		also.Stop()
		return 0, logError(errClosed)
	}
	e.following = append(e.following, stop, also)
	return from, nil
}

// follow reads nothing but subjects, of what is added to a stream from now on. The consumer finds back by itself after trouble,
// without a gap.
func (e *Events) follow(ctx context.Context, s jetstream.Stream, heard func(subject []string, place uint64)) (uint64, jetstream.ConsumeContext, error) {
	info, err := s.Info(ctx)
	if err != nil {
		return 0, nil, logError(err)
	}
	from := info.State.LastSeq
	c, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from + 1, HeadersOnly: true,
	})
	if err != nil {
		return 0, nil, logError(err)
	}
	consuming, err := c.Consume(func(m jetstream.Msg) {
		meta, err := m.Metadata()
		subject := strings.Split(m.Subject(), ".")
		if err == nil && len(subject) >= 5 {
			heard(subject, meta.Sequence.Stream)
		}
	}, jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) { e.l.log.Debug("following the event log", "error", err) }))
	if err != nil {
		return 0, nil, logError(err)
	}
	return from, consuming, nil
}

// heap is how much of this process's memory its own server takes for the log.
func (e *Events) heap(ctx context.Context) int64 {
	e.mu.Lock()
	streams := []jetstream.Stream{e.events, e.convs}
	e.mu.Unlock()
	var all int64
	for _, s := range streams {
		if s == nil {
			continue
		}
		if info, err := s.Info(ctx); err == nil {
			all += e.l.heap(info)
		}
	}
	return all
}

var errClosed = errors.New("it is closed")

// logError is LedgerUnavailable in the words of the event log.
func logError(cause error) error {
	if share.KindOf(cause) != "" {
		return cause
	}
	return share.Errorf(share.LedgerUnavailable, "the log of conversations and their events cannot be reached", cause)
}
