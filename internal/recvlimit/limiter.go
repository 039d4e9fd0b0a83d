// Package recvlimit bounds the memory of gRPC messages that have not arrived completely.
//
// grpc-go has one receive limit for all methods, and keeps every DATA frame in memory until its message is complete. A client
// without any identity can therefore hold the receive limit once per stream. A Limiter counts what the unfinished messages of
// all connections hold, and ends calls when it is too much. docs/adr/0017 says why it does so in this way.
package recvlimit

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// slowAfter is the time in which an unfinished message must bring progressBytes: 3.2 KiB/s. Others are slow.
	slowAfter = 5 * time.Second
	// logEvery is how often the log says that calls were ended.
	logEvery = 10 * time.Second
)

// A Limiter bounds what the unfinished messages of a server hold. When they hold more than the limit, it ends calls. Only
// connections that hold more than an equal share of the limit are concerned; of their unfinished messages the slow ones come
// first, then the newest. Clients see UNAVAILABLE. Nothing waits for memory.
type Limiter struct {
	limit int64
	log   *slog.Logger
	begun time.Time

	held     atomic.Int64 // what unfinished messages hold, those about to be ended included
	pending  atomic.Int64 // of held: what is about to be ended
	endings  atomic.Int64
	closings atomic.Int64

	connsMu sync.Mutex
	conns   map[*conn]struct{} // those that have had a stream

	enforcing sync.Mutex // one goroutine at a time chooses
	lastLog   time.Time
	logged    int64 // endings at lastLog
}

// New returns a Limiter for limit bytes.
func New(limit int64, log *slog.Logger) *Limiter {
	return &Limiter{limit: limit, log: log, begun: time.Now(), conns: make(map[*conn]struct{})}
}

// Held returns how many bytes unfinished messages hold now.
func (l *Limiter) Held() int64 { return l.held.Load() }

// Ended returns how many calls were ended because unfinished messages held too much.
func (l *Limiter) Ended() int64 { return l.endings.Load() }

// Closed returns how many connections were closed because their calls could not be ended: the client had stopped within a frame,
// or did not read.
func (l *Limiter) Closed() int64 { return l.closings.Load() }

func (l *Limiter) now() int64 { return int64(time.Since(l.begun)) }

func (l *Limiter) add(c *conn) {
	l.connsMu.Lock()
	defer l.connsMu.Unlock()
	l.conns[c] = struct{}{}
}

func (l *Limiter) remove(c *conn) {
	l.connsMu.Lock()
	defer l.connsMu.Unlock()
	delete(l.conns, c)
}

// over reports whether calls must be ended, and whether those that are about to end must be ended by force: half of the limit
// may wait for a moment at which its streams can be reset.
func (l *Limiter) over() (end, force bool) {
	held := l.held.Load()
	return held-l.pending.Load() > l.limit, held > l.limit+l.limit/2
}

// enforce ends calls while unfinished messages hold too much.
func (l *Limiter) enforce() {
	if end, force := l.over(); !end && !force {
		return
	}
	l.enforcing.Lock()
	defer l.enforcing.Unlock()
	end, force := l.over() // another goroutine may have done it
	if end {
		l.endCalls()
	}
	if force {
		l.closeConns()
	}
	l.report()
}

// An unfinished message, as it was when the Limiter looked.
type unfinished struct {
	conn         *conn
	id           uint32
	begun, moved int64
}

// endCalls ends calls until an eighth of the limit is free, so that it need not look at every message for each frame.
func (l *Limiter) endCalls() {
	target := l.limit - l.limit/8
	conns := l.holding((*conn).staying)
	share := target / max(1, int64(len(conns)))
	var all []unfinished
	for _, c := range conns {
		if c.staying() <= share {
			continue
		}
		c.mu.Lock()
		for id, s := range c.account.streams {
			if s.held > 0 && !s.ending {
				all = append(all, unfinished{c, id, s.begun, s.moved})
			}
		}
		c.mu.Unlock()
	}
	order(all, l.now())
	for _, m := range all {
		if l.held.Load()-l.pending.Load() <= target {
			return
		}
		if m.conn.staying() > share {
			m.conn.reset(m.id)
		}
	}
}

// order sorts messages in the order in which they are ended. Slow ones come first, beginning with the one that has been slow for
// longest: an attack holds memory and need not send much. Of the others the newest come first. If the largest or the oldest did, an
// overloaded server would end every message just before it is complete.
func order(all []unfinished, now int64) {
	slow := now - int64(slowAfter)
	slices.SortFunc(all, func(a, b unfinished) int {
		if a.moved <= slow || b.moved <= slow {
			return cmp.Compare(a.moved, b.moved)
		}
		return cmp.Compare(b.begun, a.begun)
	})
}

// closeConns closes connections whose streams could not be reset yet, until held is within bounds. Those that have had most time for
// it come first: a connection that goes on needs milliseconds.
func (l *Limiter) closeConns() {
	conns := l.holding(func(c *conn) int64 { return c.pending.Load() })
	slices.SortFunc(conns, func(a, b *conn) int { return cmp.Compare(a.since.Load(), b.since.Load()) })
	for _, c := range conns {
		if _, force := l.over(); !force {
			return
		}
		l.closings.Add(1)
		_ = c.Close()
	}
}

// holding returns the connections for which of is not 0.
func (l *Limiter) holding(of func(*conn) int64) []*conn {
	l.connsMu.Lock()
	defer l.connsMu.Unlock()
	var conns []*conn
	for c := range l.conns {
		if of(c) > 0 {
			conns = append(conns, c)
		}
	}
	return conns
}

// report writes a line to the log, once in logEvery at most.
func (l *Limiter) report() {
	now := time.Now()
	n := l.Ended()
	if n == l.logged || now.Sub(l.lastLog) < logEvery {
		return
	}
	l.log.LogAttrs(context.Background(), slog.LevelWarn, "unfinished messages hold too much memory; calls were ended",
		slog.Int64("ended", n-l.logged), slog.Int64("ended_since_start", n), slog.Int64("closed_since_start", l.Closed()), slog.Int64("limit", l.limit))
	l.lastLog, l.logged = now, n
}
