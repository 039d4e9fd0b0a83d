package ledger

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// logShares limits how much of a stream of the event log each consumer may use. The log never rejects an entry: a full stream drops
// its oldest one, of any consumer. Therefore a consumer that would hold more than its share loses entries of its own instead.
//
// The share is what is still free, or an equal part of the stream if that is more, because a log that has run for long is full. What
// each consumer holds is counted in this process, from its start: entries that others added are only seen in what is free.
type logShares struct {
	mu          sync.Mutex
	limit, used int64  // bytes
	first       uint64 // position of the first entry in the stream
	consumers   map[logOwner]*entries
	accounts    map[string]*entries
	byKey       map[string]*entry
}

// A logOwner is whose share an entry uses: a consumer, or a conversation (see eventOwner).
type logOwner struct{ account, id string }

// entries are those of a consumer or an account, the oldest first.
type entries struct {
	bytes int64
	list  []*entry
	dead  int // entries of list that are gone
}

// An entry is a record of the stream.
type entry struct {
	consumer, account *entries
	position          uint64
	size              int64
	key               string // names what the record replaces; "": nothing
	gone              bool   // dropped or replaced: not counted any more
}

func newLogShares(limit int64) *logShares {
	return &logShares{limit: limit, consumers: make(map[logOwner]*entries), accounts: make(map[string]*entries), byKey: make(map[string]*entry)}
}

// observe sets the state of the stream: its size, and the position of its first entry.
func (s *logShares) observe(used int64, first uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used, s.first = used, first
	trimAll(s, s.consumers)
	trimAll(s, s.accounts)
}

func trimAll[K comparable](s *logShares, owners map[K]*entries) {
	for k, e := range owners {
		n := 0
		for ; n < len(e.list) && (e.list[n].gone || e.list[n].position < s.first); n++ {
			if old := e.list[n]; old.gone {
				e.dead--
			} else {
				e.bytes -= old.size
				s.unname(old)
			}
		}
		if e.list = slices.Delete(e.list, 0, n); len(e.list) == 0 {
			delete(owners, k)
		}
	}
}

// added counts a record that was added at a position.
func (s *logShares) added(o logOwner, position uint64, size int64, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.byKey[key]; old != nil {
		s.drop(old)
	}
	e := &entry{consumer: entriesOf(s.consumers, o), account: entriesOf(s.accounts, o.account), position: position, size: size, key: key}
	e.consumer.list, e.account.list = append(e.consumer.list, e), append(e.account.list, e)
	e.consumer.bytes += size
	e.account.bytes += size
	s.used += size
	if key != "" {
		s.byKey[key] = e
	}
}

func entriesOf[K comparable](owners map[K]*entries, k K) *entries {
	e := owners[k]
	if e == nil {
		e = &entries{}
		owners[k] = e
	}
	return e
}

// drop stops counting an entry that has left the stream before older ones.
func (s *logShares) drop(e *entry) {
	e.gone = true
	s.used -= e.size
	s.unname(e)
	e.consumer.gone(e.size)
	e.account.gone(e.size)
}

// gone stops counting an entry of a size. Entries that are gone would otherwise stay in memory until those before them have left.
func (e *entries) gone(size int64) {
	const few = 64
	e.bytes -= size
	if e.dead++; e.dead > few && 2*e.dead > len(e.list) {
		e.list = slices.DeleteFunc(e.list, func(e *entry) bool { return e.gone })
		e.dead = 0
	}
}

// unname removes an entry from byKey, unless another one has replaced it.
func (s *logShares) unname(e *entry) {
	if s.byKey[e.key] == e {
		delete(s.byKey, e.key)
	}
}

// over reports whether an owner exceeds its share, or its account the account's, if it adds size bytes.
func (s *logShares) over(o logOwner, size int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.overLocked(o, size)
}

func (s *logShares) overLocked(o logOwner, size int64) bool {
	free := max(s.limit-s.used, 0) - size
	if held := s.consumers[o].held(); held > 0 && held+size > max(free, s.limit/int64(len(s.consumers)+1)) {
		return true
	}
	others := len(s.accounts) > 1 || s.accounts[o.account] == nil && len(s.accounts) > 0
	return others && s.accounts[o.account].held()+size > max(accountFactor*free, s.limit/int64(len(s.accounts)+1))
}

func (e *entries) held() int64 {
	if e == nil {
		return 0
	}
	return e.bytes
}

// oldest returns the position of the entry that an owner must lose before it may add size bytes: its own oldest, else its account's.
// It is counted as dropped. false: none.
func (s *logShares) oldest(o logOwner, size int64) (position uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.overLocked(o, size) {
		return 0, false
	}
	for _, of := range []*entries{s.consumers[o], s.accounts[o.account]} {
		if of == nil {
			continue
		}
		for _, e := range of.list {
			if !e.gone {
				s.drop(e)
				return e.position, true
			}
		}
	}
	return 0, false
}

// logOverhead is what the streams need for an entry in addition to its value, in bytes: the subject, the headers and the store's own.
const logOverhead = 350

// eventOwner returns whose share of the log an event uses: that of the consumer who sent a file. What others sent, such as a bot that
// serves all consumers, and events without a file use the share of their conversation.
func eventOwner(account string, ev share.LoggedEvent) logOwner {
	if f := ev.File; f != nil && f.SenderRole == share.RoleConsumer {
		return logOwner{account, f.SenderID}
	}
	return logOwner{account, "conversation " + ev.Conversation}
}

const (
	// maxDrops bounds the entries that are dropped for one that is added.
	maxDrops = 64
	// dropRetry is the time until dropping is tried again after NATS did not answer, as it does without permission.
	dropRetry = time.Minute
)

// makeSpace drops the oldest entries of an owner until it may add size bytes. Best effort: if that fails, the full stream drops its
// oldest entry. shortened reports whether the new entry has lost its preview because of its owner's share.
func (e *Events) makeSpace(ctx context.Context, s jetstream.Stream, shares *logShares, o logOwner, size int64, shortened bool) {
	if shortened {
		e.shortened.Add(1)
		e.l.rejections.Add(limitPreviews, slog.String("account", o.account), slog.Int64("limit_bytes", shares.limit))
	}
	now := e.l.now()
	if now.UnixNano() < e.dropsAfter.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, e.l.timeout/8) // the entry must still be added if NATS does not answer
	defer cancel()
	for range maxDrops {
		position, ok := shares.oldest(o, size)
		if !ok {
			return
		}
		e.dropped.Add(1)
		e.l.rejections.Add(limitEntries, slog.String("account", o.account), slog.Int64("limit_bytes", shares.limit))
		if err := s.DeleteMsg(ctx, position); err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) && !errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
			e.dropsAfter.Store(now.Add(dropRetry).UnixNano())
			e.l.log.Warn("the event log cannot drop an entry; the NATS account needs permission for $JS.API.STREAM.MSG.DELETE", "error", err)
			return
		}
	}
}

// Names of the log's limits in rejections.
const (
	limitPreviews = "EVENT_LOG_PREVIEWS"
	limitEntries  = "EVENT_LOG_ENTRIES"
)

// LogUsage is what the event log holds, and what its shares have cost.
type LogUsage struct {
	// Bytes is the size of both streams, LimitBytes their maximum.
	Bytes, LimitBytes int64
	// Consumers is the number of consumers, and conversations without files, whose entries this process counts.
	Consumers int
	// Shortened is the number of events that were added without their preview or caption, Dropped that of entries that were dropped,
	// because a consumer was over its share.
	Shortened, Dropped int64
}

// Usage returns what the log holds. Bytes is as of the latest check of the ledger.
func (e *Events) Usage() LogUsage {
	u := LogUsage{Shortened: e.shortened.Load(), Dropped: e.dropped.Load()}
	for _, s := range []*logShares{e.eventShares, e.convShares} {
		s.mu.Lock()
		u.Bytes += s.used
		u.LimitBytes += s.limit
		u.Consumers += len(s.consumers)
		s.mu.Unlock()
	}
	return u
}

// check reads the state of the streams. It returns the memory in bytes that this process's own server uses for them.
func (e *Events) check(ctx context.Context) (heap int64) {
	e.mu.Lock()
	events, convs := e.events, e.convs
	e.mu.Unlock()
	for _, s := range []struct {
		stream jetstream.Stream
		shares *logShares
	}{{events, e.eventShares}, {convs, e.convShares}} {
		if s.stream == nil {
			continue
		}
		if info, err := s.stream.Info(ctx); err == nil {
			heap += e.l.heap(info)
			s.shares.observe(int64(info.State.Bytes), info.State.FirstSeq)
		}
	}
	return heap
}
