package ledger

import (
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// warnAt are the parts of its limit at which a growing ledger is reported, once each time that it exceeds them. Above the last one new
// request ids are rejected.
var warnAt = [...]float64{0.50, 0.75, fullAt}

// rearm is how far the ledger must shrink below a part before exceeding that is reported again.
const rearm = 0.03

// growth watches how fast the ledger grows.
type growth struct {
	above   int // number of parts of warnAt that it exceeds
	samples []sample
}

type sample struct {
	at    time.Time
	bytes int64
}

const (
	// sampleInterval and maxSamples say how long the growth is averaged: for up to half an hour.
	sampleInterval = time.Minute
	maxSamples     = 30
)

// observe adds the size of the ledger, and logs if it exceeds another part of warnAt.
func (g *growth) observe(log *slog.Logger, now time.Time, used, limit int64) {
	if limit <= 0 {
		return
	}
	if n := len(g.samples); n == 0 || now.Sub(g.samples[n-1].at) >= sampleInterval {
		g.samples = append(g.samples, sample{now, used})
		g.samples = g.samples[max(0, len(g.samples)-maxSamples):]
	}
	part := float64(used) / float64(limit)
	for g.above > 0 && part < warnAt[g.above-1]-rearm {
		g.above--
	}
	was := g.above
	for g.above < len(warnAt) && part > warnAt[g.above] {
		g.above++
	}
	if g.above == was {
		return
	}
	attrs := []any{slog.Int64("bytes", used), slog.Int64("limit_bytes", limit), slog.Int("percent", int(100*part))}
	if g.above == len(warnAt) {
		log.Warn("the ledger is full; new request ids are rejected. Set a larger --ledger-bytes", attrs...)
		return
	}
	if left, ok := g.untilFull(now, used, limit); ok {
		attrs = append(attrs, slog.Duration("full_in", left))
	}
	log.Warn("the ledger is filling up; before it is full, finished request ids are dropped early. Set a larger --ledger-bytes", attrs...)
}

// untilFull returns the time until the ledger rejects new ids, if it grows on as it did lately; false if it does not grow.
func (g *growth) untilFull(now time.Time, used, limit int64) (time.Duration, bool) {
	first := g.samples[0]
	grown, took := used-first.bytes, now.Sub(first.at)
	if grown <= 0 || took <= 0 {
		return 0, false
	}
	left := fullAt*float64(limit) - float64(used)
	return time.Duration(left / float64(grown) * float64(took)).Round(time.Second), true
}

// configured takes over the configuration of the bucket's stream, which has just been opened.
func (l *KV) configured(js jetstream.JetStream, c Config) {
	have := l.stream.CachedInfo().Config
	l.js, l.ttl = js, c.TTL+ttlMargin
	if have.MaxAge > 0 {
		l.ttl = have.MaxAge // another server may need more; records of this one are then dropped earlier
	}
	l.shares.ttl = l.ttl
	l.inMemory = have.Storage == jetstream.MemoryStorage
	if l.msgTTL = have.AllowMsgTTL; !l.msgTTL {
		l.log.Warn("NATS is older than 2.11: the ledger keeps records of failed uploads as long as others, and drops none early if it is full")
	}
}

// Bytes that the bucket needs for a record in addition to its key and value: the rest of the subject, the headers and what the store
// adds. TestKV_RecordSize measures them.
const (
	fileOverhead   = 106
	memoryOverhead = 88
)

// stored returns the number of bytes that the bucket needs for a record.
func (l *KV) stored(key string, value []byte) int64 {
	if l.inMemory {
		return int64(len(key) + len(value) + memoryOverhead)
	}
	return int64(len(key) + len(value) + fileOverhead)
}

// observe takes over the state of the bucket's stream.
func (l *KV) observe(info *jetstream.StreamInfo) {
	used, limit := int64(info.State.Bytes), info.Config.MaxBytes
	l.records.Store(info.State.Msgs - min(info.State.Msgs, 1)) // without the probe
	l.shares.observe(used, limit, info.State.LastSeq, info.State.FirstTime)
	l.growth.observe(l.log, l.now(), int64(l.shares.part()*float64(limit)), limit)
}

// Usage is what a ledger holds, and what its limits have rejected.
type Usage struct {
	// Bytes is the size of all records, with what NATS needs for them. ReservedBytes is what attempts that run may need in addition.
	// LimitBytes is --ledger-bytes.
	Bytes, ReservedBytes, LimitBytes int64
	// Records is the number of records, including expired ones that NATS has not dropped yet.
	Records uint64
	// Callers is the number of callers whose records this process has written and counts.
	Callers int
	// RejectedFull and RejectedShare are the numbers of new ids that this process has rejected because the ledger is full, and because a
	// caller or an account holds its share of it.
	RejectedFull, RejectedShare int64
	// Dropped is the number of finished records that this process has dropped early, because the ledger was nearly full.
	Dropped int64
}

// Usage returns what the ledger holds. Bytes and Records are as of the latest check, which is at most a second ago while NATS answers.
func (l *KV) Usage() Usage {
	s := l.shares
	s.mu.Lock()
	defer s.mu.Unlock()
	return Usage{
		Bytes: s.used, ReservedBytes: s.reserved, LimitBytes: s.limit, Records: l.records.Load(), Callers: len(s.callers),
		RejectedFull: s.whenFull, RejectedShare: s.overShare, Dropped: l.dropped.Load(),
	}
}
