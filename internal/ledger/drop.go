package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A ledger above dropAbove of its limit drops the oldest finished records until it is below dropTo (docs/adr/0022). It drops none that
// is younger than keptAtLeast: clients repeat within minutes, and a repeat of a forgotten upload publishes again.
const (
	dropAbove   = 0.90
	dropTo      = 0.88
	keptAtLeast = time.Hour
)

const (
	// dropTTL is how long the marker of a dropped record exists, the least that NATS allows.
	dropTTL = time.Second
	// dropPause is the time until dropping is tried again after it failed.
	dropPause = time.Minute
)

// dropPeriodically drops finished records while the ledger is nearly full, until Close. It requires per-message TTLs.
func (l *KV) dropPeriodically() {
	tick := time.NewTicker(l.interval)
	defer tick.Stop()
	var next uint64 // position from which records have not been looked at
	var pausedUntil time.Time
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-tick.C:
		}
		if l.now().Before(pausedUntil) || l.shares.part() <= dropAbove {
			continue
		}
		var dropped int
		var err error
		if next, dropped, err = l.dropFinished(next); err != nil && l.ctx.Err() == nil {
			pausedUntil = l.now().Add(dropPause)
			l.log.Warn("the ledger is nearly full and cannot drop old records", "error", err)
		}
		if dropped > 0 {
			l.dropped.Add(int64(dropped))
			l.rejections.Add(limitRecords, slog.Int("records", dropped), slog.Duration("kept", l.now().Sub(l.shares.keptSince()).Round(time.Second)))
		}
	}
}

// limitRecords is the name in rejections of the records that are dropped.
const limitRecords = "LEDGER_RECORDS"

// dropFinished drops finished records from position next on, until the ledger is small enough or the next record is too young. It
// returns the position at which to continue. A record that is not finished is passed over for good: if it changes it gets a later
// position.
func (l *KV) dropFinished(next uint64) (_ uint64, dropped int, err error) {
	for l.shares.part() > dropTo && l.ctx.Err() == nil {
		m, err := l.record(next)
		if errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && l.now().Sub(m.Time) < keptAtLeast {
			return next, dropped, nil
		} else if err != nil {
			return next, dropped, err
		}
		next = m.Sequence + 1
		if !finished(m.Data) {
			continue
		}
		rev, err := l.drop(m)
		if err != nil {
			return next, dropped, err
		}
		if rev == 0 {
			continue
		}
		dropped++
		l.shares.dropped(rev, l.stored(m.Subject[len(subjectPrefix):], m.Data), m.Time)
	}
	return next, dropped, nil
}

// record returns the first record at a position or after it.
func (l *KV) record(position uint64) (*jetstream.RawStreamMsg, error) {
	ctx, cancel := context.WithTimeout(l.ctx, l.timeout/4)
	defer cancel()
	return l.stream.GetMsg(ctx, max(position, 1), jetstream.WithGetMsgSubject(">"))
}

// drop removes a record, unless it has changed: it writes a marker of the key-value bucket in its place, which NATS drops in turn after
// dropTTL. Until then the key has no record, and a new one waits. It returns the revision of the marker; 0: the record has changed.
func (l *KV) drop(m *jetstream.RawStreamMsg) (uint64, error) {
	ctx, cancel := context.WithTimeout(l.ctx, l.timeout/4)
	defer cancel()
	marker := &nats.Msg{Subject: m.Subject, Header: nats.Header{"KV-Operation": []string{"PURGE"}}}
	ack, err := l.js.PublishMsg(ctx, marker, jetstream.WithExpectLastSequencePerSubject(m.Sequence), jetstream.WithMsgTTL(dropTTL))
	switch {
	case conflict(err):
		return 0, nil
	case err != nil:
		return 0, err
	}
	return ack.Sequence, nil
}

// finished reports whether no attempt works on a record, so that nothing is published twice unless a request is repeated. Those of
// RECEIVING and PUBLISHING are kept, and so is what cannot be read, and the claim of a conversation: without it another request id could
// get the conversation too.
func finished(value []byte) bool {
	var header envelope[json.RawMessage]
	if json.Unmarshal(value, &header) != nil || header.Kind != "" || header.Version < requests.oldest || header.Version > requests.version {
		return false
	}
	var claim share.CreationRecord
	if header.Version == creations.version && json.Unmarshal(header.Record, &claim) == nil && claim.Claimant != "" {
		return false
	}
	r, err := inflateRecord(header.Version, header.Record) // of a conversation too: both have State
	return err == nil && r.State != share.Receiving && r.State != share.Publishing
}
