package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// EventsConfig bounds an event log.
type EventsConfig struct {
	// TTL is how long an event is kept, and a conversation after its last change.
	TTL time.Duration
	// MaxBytes is the maximum size of the log; a full log drops its oldest entries. A quarter of it is for conversations.
	MaxBytes int64
}

// Events is the event log that all servers of a cluster share. It contains the events of conversations whose messages cannot be
// queried, because LivePerson reports each of them once, by webhook. It consists of two streams on the ledger's connection: one
// record per event, which is written once and never changed, and one record per conversation, which is updated.
//
// The streams are created when they are first used. Events is safe for concurrent use.
type Events struct {
	l *KV
	c EventsConfig

	needed atomic.Bool // the log was opened, or should have been

	// opening is a lock on opening the streams. Opening may take long; a channel lets waiting callers give up with their context.
	opening chan struct{}

	batchSize               int // number of messages of one batch
	eventShares, convShares *logShares
	dropped, shortened      atomic.Int64
	dropsAfter              atomic.Int64 // time in Unix nanoseconds before which no entry is dropped

	mu            sync.Mutex
	js            jetstream.JetStream
	events, convs jetstream.Stream // nil: not opened yet
	following     []jetstream.ConsumeContext
	closed        bool
}

// recordVersion is the version of both types of records in the log. Records of other versions are not read.
const recordVersion = 1

// Names of the streams and prefixes of their subjects.
const (
	eventStream        = "lpfileshare_events"
	eventSubjects      = "lpfileshare.events."
	conversationStream = "lpfileshare_conversations"
	conversationPrefix = "lpfileshare.conversations."
)

// Events returns the event log of l. The caller must close it before l.
func (l *KV) Events(c EventsConfig) *Events {
	quarter := c.MaxBytes / 4
	e := &Events{
		l: l, c: c, opening: make(chan struct{}, 1), batchSize: batchSize, eventShares: newLogShares(c.MaxBytes - quarter), convShares: newLogShares(quarter),
	}
	l.eventLog.Store(e)
	return e
}

// Open creates the log's streams, or corrects the configuration of existing ones. Every other method does so when needed. A server
// that uses the log calls Open at its start, because the errors say what to do. It takes at most StartTimeout.
func (e *Events) Open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, e.l.config.StartTimeout)
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
	if events, convs, err = e.opened(); events != nil || err != nil { // another call opened them meanwhile
		return events, convs, err
	}
	js := e.js
	if js == nil {
		if js, err = jetstream.New(e.l.conn); err != nil {
			return nil, nil, logError(err)
		}
	}
	e.needed.Store(true)
	events, err = e.stream(ctx, js, jetstream.StreamConfig{
		Name: eventStream, Subjects: []string{eventSubjects + ">"}, Description: "lpfileshare: events of conversations", MaxBytes: e.eventShares.limit,
	})
	if err != nil {
		return nil, nil, logError(fmt.Errorf("stream %s cannot be opened: %w", eventStream, explain(err)))
	}
	convs, err = e.stream(ctx, js, jetstream.StreamConfig{
		Name: conversationStream, Subjects: []string{conversationPrefix + ">"}, Description: "lpfileshare: conversations", MaxBytes: e.convShares.limit,
	})
	if err != nil {
		return nil, nil, logError(fmt.Errorf("stream %s cannot be opened: %w", conversationStream, explain(err)))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.js == nil { // set once, so that it can be read after open without the lock
		e.js = js
	}
	e.events, e.convs = events, convs
	return events, convs, nil
}

// opened returns the streams; nil if they are not open yet.
func (e *Events) opened() (events, convs jetstream.Stream, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, nil, logError(errClosed)
	}
	return e.events, e.convs, nil
}

// stream opens or creates a stream, with the ledger's storage and replicas.
func (e *Events) stream(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) (jetstream.Stream, error) {
	ledger := e.l.stream.CachedInfo().Config
	want.Storage, want.Replicas = ledger.Storage, ledger.Replicas
	want.MaxMsgs, want.MaxConsumers, want.MaxMsgsPerSubject = -1, -1, 1
	want.Discard = jetstream.DiscardOld
	// Positions of a log that was lost are below those of its successor, so that clients which have one list again. No log gets 1,000
	// events per millisecond.
	want.FirstSeq = uint64(time.Now().UnixMilli())
	want.MaxAge, want.MaxMsgSize = e.c.TTL, maxValue+1<<10
	s, err := js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if s, err = js.CreateStream(ctx, want); !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return s, err
		}
		s, err = js.Stream(ctx, want.Name) // another server created it meanwhile
	}
	if err != nil {
		return nil, err
	}
	have := s.CachedInfo().Config
	if have.MaxBytes == want.MaxBytes && have.MaxAge == want.MaxAge && have.MaxMsgSize == want.MaxMsgSize && have.Replicas == want.Replicas {
		return s, nil
	}
	have.MaxBytes, have.MaxAge, have.MaxMsgSize, have.Replicas = want.MaxBytes, want.MaxAge, want.MaxMsgSize, want.Replicas
	return js.UpdateStream(ctx, have)
}

// Close ends the subscriptions of Follow. Events must not be used afterwards.
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

// token encodes an id as one token of a subject; ids may contain dots.
func token(id string) string { return base64.RawURLEncoding.EncodeToString([]byte(id)) }

func untoken(t string) string {
	b, _ := base64.RawURLEncoding.DecodeString(t) // written by token
	return string(b)
}

// noFile replaces the path in the subject of an event without a file.
const noFile = "-"

// pathToken encodes a storage path, so that a file is found by its subject.
func pathToken(path string) string {
	sum := sha256.Sum256([]byte(path))
	return hex.EncodeToString(sum[:16])
}

// conversationSubjects matches all events of a conversation.
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

// encodeEvent encodes an event, without its preview and caption if it is too long, or over the share of its consumer. The event and
// its path matter more, and LivePerson would repeat the delivery of an event that cannot be stored.
func encodeEvent(ev share.LoggedEvent, tooLong func(size int) bool) (value []byte, shortened bool, err error) {
	value, err = json.Marshal(eventRecord{recordVersion, ev})
	for _, shorten := range []func(*share.HostedFile){func(f *share.HostedFile) { f.Preview = "" }, func(f *share.HostedFile) { f.Caption = "" }} {
		if err != nil || ev.File == nil || len(value) <= maxValue && !tooLong(len(value)) {
			break
		}
		file := *ev.File // the caller's event stays unchanged
		shorten(&file.File)
		ev.File, shortened = &file, true
		value, err = json.Marshal(eventRecord{recordVersion, ev})
	}
	if err == nil && len(value) > maxValue {
		err = fmt.Errorf("the event has %d bytes, the limit is %d", len(value), maxValue)
	}
	return value, shortened, err
}

// AddEvent stores an event, unless the log has one of the same dialog and sequence: that one stays unchanged, and added is false.
// After an error the event may have been stored or not; adding it again is safe.
//
// A consumer over its share of the log loses the preview and the caption of the event, then its oldest events.
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
	subject := eventSubjects + account + "." + token(ev.Conversation) + "." + token(ev.Dialog) + "." + strconv.FormatInt(ev.Sequence, 10) + "."
	owner := eventOwner(account, ev)
	value, shortened, err := encodeEvent(ev, func(size int) bool { return e.eventShares.over(owner, int64(size)+logOverhead) })
	if err != nil {
		return false, logError(err)
	}
	size := int64(len(value)) + logOverhead
	if shortened || e.eventShares.over(owner, size) {
		if stored, err := e.next(ctx, events, 1, subject+"*"); err != nil || stored != nil {
			return false, err // a repeated event costs its consumer nothing
		}
		e.makeSpace(ctx, events, e.eventShares, owner, size, shortened)
	}
	for {
		attempt, cancel := context.WithTimeout(ctx, e.l.timeout/2)
		ack, err := e.js.Publish(attempt, subject+path, value, jetstream.WithExpectLastSequenceForSubject(0, subject+"*"), jetstream.WithExpectStream(eventStream))
		cancel()
		if err == nil {
			e.eventShares.added(owner, ack.Sequence, size, "")
			return true, nil
		}
		if !conflict(err) && !transient(err) {
			return false, logError(err)
		}
		// The event exists, or may still arrive. Only what is stored now counts.
		stored, readErr := e.next(ctx, events, 1, subject+"*")
		if readErr != nil {
			return false, readErr
		}
		if stored != nil {
			return false, nil
		}
		if !pause(ctx) {
			return false, logError(err)
		}
	}
}

// conflict reports whether NATS rejected a write because another one came first.
func conflict(err error) bool {
	e, ok := errors.AsType[*jetstream.APIError](err)
	return ok && (e.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || e.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// next returns the first message with a matching subject and a sequence of at least from; nil if there is none. It asks the
// stream's leader, for at most the time of one operation.
func (e *Events) next(ctx context.Context, s jetstream.Stream, from uint64, subjects string) (*jetstream.RawStreamMsg, error) {
	ctx, cancel := context.WithTimeout(ctx, e.l.timeout)
	defer cancel()
	for {
		attempt, cancel := context.WithTimeout(ctx, e.l.timeout/4)
		m, err := s.GetMsg(attempt, from, jetstream.WithGetMsgSubject(subjects))
		cancel()
		switch {
		case err == nil:
			return m, nil
		case errors.Is(err, jetstream.ErrMsgNotFound):
			return nil, nil
		case !transient(err) || !pause(ctx):
			return nil, logError(err)
		}
	}
}

const (
	// singles is the number of messages that scan reads one by one. Creating a consumer costs about as much as that.
	singles = 8
	// batchSize is the number of messages of one batch. With the largest previews that is about 12 MB.
	batchSize = 256
)

// scan calls f for each message with a matching subject and a sequence above after and up to upTo, in order. It stops at an error
// of f and returns it.
//
// Whether there is another message is asked of the stream's leader; batches come from any server of the stream, which may lag
// behind, and only speed up a long scan.
func (e *Events) scan(ctx context.Context, s jetstream.Stream, subjects string, after, upTo uint64, f func(*jetstream.RawStreamMsg) error) error {
	batches := true
	for n := 1; after < upTo; n++ {
		m, err := e.next(ctx, s, after+1, subjects)
		if err != nil || m == nil || m.Sequence > upTo {
			return err
		}
		if err := f(m); err != nil {
			return err
		}
		after = m.Sequence
		if n < singles || !batches {
			continue
		}
		msgs, err := e.batch(ctx, s, subjects, after, upTo)
		if err != nil {
			e.l.log.Debug("a batch of the event log failed; its messages are read one by one", "error", err)
		}
		batches = err == nil && len(msgs) > 0
		for _, m := range msgs {
			if err := f(m); err != nil {
				return err
			}
			after = m.Sequence
		}
	}
	return nil
}

// batch returns messages as scan passes them on, at most e.batchSize, and those that it has when an error occurs.
func (e *Events) batch(ctx context.Context, s jetstream.Stream, subjects string, after, upTo uint64) ([]*jetstream.RawStreamMsg, error) {
	ctx, cancel := context.WithTimeout(ctx, e.l.timeout/2)
	defer cancel()
	c, err := s.CreateConsumer(ctx, jetstream.ConsumerConfig{
		FilterSubject: subjects, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: after + 1,
		AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: 10 * time.Second,
	})
	if err != nil {
		return nil, err
	}
	// If that fails, the server deletes the consumer after InactiveThreshold.
	defer func() { _ = s.DeleteConsumer(ctx, c.CachedInfo().Name) }()
	fetched, err := c.FetchNoWait(e.batchSize)
	if err != nil {
		return nil, err
	}
	var msgs []*jetstream.RawStreamMsg
	for m := range fetched.Messages() {
		meta, err := m.Metadata()
		if err != nil {
			return msgs, err
		}
		if meta.Sequence.Stream <= upTo {
			msgs = append(msgs, &jetstream.RawStreamMsg{Subject: m.Subject(), Sequence: meta.Sequence.Stream, Data: m.Data(), Time: meta.Timestamp})
		}
	}
	return msgs, fetched.Error()
}

// Bounds returns the positions of the first and the last event in the log, of any account. Events before first have been dropped.
// Events added later have positions above last.
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

// Each calls f for each event of a conversation with a position above after and up to upTo, in the order of their positions. It stops
// at an error of f and returns it.
func (e *Events) Each(ctx context.Context, account, conversation string, after, upTo uint64, f func(share.LoggedEvent) error) error {
	events, _, err := e.open(ctx)
	if err != nil {
		return err
	}
	return e.scan(ctx, events, conversationSubjects(account, conversation), after, upTo, func(m *jetstream.RawStreamMsg) error {
		if ev, ok := e.readEvent(m); ok {
			return f(ev)
		}
		return nil
	})
}

// Event returns the event of a dialog with a sequence; false if there is none.
func (e *Events) Event(ctx context.Context, account, conversation, dialog string, sequence int64) (share.LoggedEvent, bool, error) {
	events, _, err := e.open(ctx)
	if err != nil {
		return share.LoggedEvent{}, false, err
	}
	m, err := e.next(ctx, events, 1, eventSubjects+account+"."+token(conversation)+"."+token(dialog)+"."+strconv.FormatInt(sequence, 10)+".*")
	if err != nil || m == nil {
		return share.LoggedEvent{}, false, err
	}
	ev, ok := e.readEvent(m)
	return ev, ok, nil
}

// FindFile returns the first event of a dialog ("": any dialog of the conversation) with a storage path; false if there is none.
func (e *Events) FindFile(ctx context.Context, account, conversation, dialog, storagePath string) (share.LoggedEvent, bool, error) {
	events, _, err := e.open(ctx)
	if err != nil {
		return share.LoggedEvent{}, false, err
	}
	dialogToken := "*"
	if dialog != "" {
		dialogToken = token(dialog)
	}
	m, err := e.next(ctx, events, 1, eventSubjects+account+"."+token(conversation)+"."+dialogToken+".*."+pathToken(storagePath))
	if err != nil || m == nil {
		return share.LoggedEvent{}, false, err
	}
	ev, ok := e.readEvent(m)
	return ev, ok && ev.File != nil && ev.File.File.StoragePath == storagePath, nil
}

// readEvent decodes a record. An invalid one is skipped, which leaves a gap in the dialog.
func (e *Events) readEvent(m *jetstream.RawStreamMsg) (share.LoggedEvent, bool) {
	var r eventRecord
	if json.Unmarshal(m.Data, &r) != nil || r.Version != recordVersion || r.Event.Conversation == "" || r.Event.Dialog == "" || r.Event.Sequence < 0 {
		e.l.log.Error("an invalid event in the log was skipped", "position", m.Sequence)
		return share.LoggedEvent{}, false
	}
	r.Event.Position, r.Event.Added = m.Sequence, m.Time
	return r.Event, true
}

// Conversation returns a conversation of a consumer; false if the log has none.
func (e *Events) Conversation(ctx context.Context, account, consumer, id string) (share.LoggedConversation, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, e.l.timeout)
	defer cancel()
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
	if json.Unmarshal(m.Data, &r) != nil || r.Version != recordVersion || r.Conversation.ID == "" {
		return share.LoggedConversation{}, logError(fmt.Errorf("the record of a conversation at position %d is invalid", m.Sequence))
	}
	return r.Conversation, nil
}

// Conversations returns all conversations of a consumer, in no particular order.
func (e *Events) Conversations(ctx context.Context, account, consumer string) ([]share.LoggedConversation, error) {
	_, convs, err := e.open(ctx)
	if err != nil {
		return nil, err
	}
	var all []share.LoggedConversation
	index := map[string]int{} // one that changes during the scan may be read twice: the later record replaces the earlier
	err = e.scan(ctx, convs, conversationPrefix+account+"."+token(consumer)+".*", 0, math.MaxUint64, func(m *jetstream.RawStreamMsg) error {
		c, err := readConversation(m)
		if err != nil {
			return err
		}
		if i, again := index[c.ID]; again {
			all[i] = c
			return nil
		}
		index[c.ID] = len(all)
		all = append(all, c)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// ChangeConversation changes the record of a consumer's conversation by compare-and-set. It calls change with the stored record
// (known is false if there is none), and again after each conflict with another writer. change returns the new record, or false to
// leave the record unchanged.
func (e *Events) ChangeConversation(
	ctx context.Context, account, consumer, id string,
	change func(c share.LoggedConversation, known bool) (share.LoggedConversation, bool),
) error {
	ctx, cancel := context.WithTimeout(ctx, e.l.timeout)
	defer cancel()
	_, convs, err := e.open(ctx)
	if err != nil {
		return err
	}
	for {
		c, rev, err := e.conversation(ctx, account, consumer, id)
		if err != nil {
			return err
		}
		next, write := change(c, rev != 0)
		if !write {
			return nil
		}
		value, err := json.Marshal(conversationRecord{recordVersion, next})
		if err != nil || len(value) > maxValue {
			return logError(fmt.Errorf("the conversation has %d bytes, the limit is %d", len(value), maxValue))
		}
		subject, owner, size := conversationSubject(account, consumer, id), logOwner{account, consumer}, int64(len(value))+logOverhead
		if rev == 0 {
			e.makeSpace(ctx, convs, e.convShares, owner, size, false)
		}
		attempt, cancel := context.WithTimeout(ctx, e.l.timeout/2)
		ack, err := e.js.Publish(attempt, subject, value,
			jetstream.WithExpectLastSequencePerSubject(rev), jetstream.WithExpectStream(conversationStream))
		cancel()
		if err == nil {
			e.convShares.added(owner, ack.Sequence, size, subject)
			return nil
		}
		// Without an answer the record may have been written: change then sees it.
		if !conflict(err) && !transient(err) || !pause(ctx) {
			return logError(err)
		}
	}
}

// Follow calls event for each event that is added from now on, in the order of their positions, and conversation for each record of
// a conversation that is written, until Close. Neither may block. Follow returns the position after which it begins.
func (e *Events) Follow(ctx context.Context, event func(account, conversation string, position uint64), conversation func(account, consumer string)) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, e.l.timeout)
	defer cancel()
	events, convs, err := e.open(ctx)
	if err != nil {
		return 0, err
	}
	from, stopEvents, err := e.follow(ctx, events, func(subject []string, position uint64) { event(subject[2], untoken(subject[3]), position) })
	if err != nil {
		return 0, err
	}
	_, stopConvs, err := e.follow(ctx, convs, func(subject []string, _ uint64) { conversation(subject[2], untoken(subject[3])) })
	if err != nil {
		stopEvents.Stop()
		return 0, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		stopEvents.Stop()
		stopConvs.Stop()
		return 0, logError(errClosed)
	}
	e.following = append(e.following, stopEvents, stopConvs)
	return from, nil
}

// follow calls added for each message that is added to a stream from now on. It reads only their headers. After a lost connection
// the consumer resumes by itself, without a gap.
func (e *Events) follow(ctx context.Context, s jetstream.Stream, added func(subject []string, position uint64)) (uint64, jetstream.ConsumeContext, error) {
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
			added(subject, meta.Sequence.Stream)
		}
	}, jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
		e.l.log.Debug("subscription to the event log", "error", err)
	}))
	if err != nil {
		return 0, nil, logError(err)
	}
	return from, consuming, nil
}

var errClosed = errors.New("the event log is closed")

// logError returns cause as LedgerUnavailable, unless it is a share.Error already.
func logError(cause error) error {
	if share.KindOf(cause) != "" {
		return cause
	}
	return share.Errorf(share.LedgerUnavailable, "the event log of conversations cannot be reached", cause)
}
