package ledger

import (
	"cmp"
	"math/bits"
	"slices"
	"strconv"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// shares limits how much of the bucket each caller may use: one that would hold more bytes than are then free begins no new request
// id. One caller alone can use half of the bucket, two can use a third each, and there is always as much free as the largest caller
// holds. An account that is the only one to hold something may use everything; beside others it may use accountFactor times what is
// free. Records of ids that have begun are never rejected.
//
// Free bytes are those of the stream. What each caller holds is counted in this process: what it has written since its start, until
// that leaves the stream. Other servers, and this one before its start, are only seen in the free bytes.
type shares struct {
	now func() time.Time

	mu        sync.Mutex
	limit     int64 // size of the bucket; 0: unlimited
	used      int64 // by the latest check, and what was written since
	callers   map[caller]*holding
	byAccount map[string]*holding
	swept     time.Time
	ttl       time.Duration // how long the bucket keeps most records
	since     time.Time     // finished records that were written before were dropped early
	// latest has the charges of the records that were written last, because the next record of a key replaces the previous one. If
	// it has lost one, both count until the first would have expired.
	latest *lru.Cache[string, charge]
	// overShare and whenFull count rejections.
	overShare, whenFull int64
}

// A caller is whose share a record uses.
type caller struct {
	account, id, service string
	role                 share.Role
}

func callerOf(p share.Principal) caller {
	return caller{account: p.Account, id: p.ID, service: p.Caller, role: p.Role}
}

// A charge is the bytes of one record in the holdings of its caller and account, until the minute in which they leave the stream.
type charge struct {
	caller, account *holding // nil: not counted
	bytes, ends     int64
	early           bool // the stream drops it earlier than others
}

const (
	// maxCallers is the number of callers that are counted one by one. Further callers count for their account only.
	maxCallers = 1 << 16
	// maxLatest is the number of charges in latest. It is above the number of uploads that run at once.
	maxLatest = 1 << 15
	// accountFactor is how many times the free bytes an account may use beside others: one leaves them an eighth.
	accountFactor = 7
	// sweepInterval is the time between two searches for callers that hold nothing.
	sweepInterval = time.Minute
	// shareRetry is when a caller over its share may repeat: some of its records may have expired.
	shareRetry = time.Minute
)

// The limits that the metadata of LedgerShare names.
const (
	limitCaller  = "caller"
	limitAccount = "account"
)

func newShares(now func() time.Time) *shares {
	latest, err := lru.New[string, charge](maxLatest)
	if err != nil { // only a size of 0 or less causes it
		panic(err)
	}
	return &shares{
		now: now, latest: latest,
		callers: make(map[caller]*holding), byAccount: make(map[string]*holding),
	}
}

// part returns the used part of the bucket.
func (s *shares) part() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limit == 0 {
		return 0
	}
	return float64(s.used) / float64(s.limit)
}

// dropped stops counting records that were written at a time or before. size is that of one of them.
func (s *shares) dropped(size int64, written time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used -= size
	if written.After(s.since) {
		s.since = written
	}
}

// keptSince returns the time since which all records are kept.
func (s *shares) keptSince() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.since
}

// observe sets the state of the stream: its size, that of the bucket, and when its first record was written. Other servers may have
// dropped what is older.
func (s *shares) observe(used, limit int64, first time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if first.After(s.since) {
		s.since = first
	}
	s.used, s.limit = used, max(limit, 0)
	if now := s.now(); now.Sub(s.swept) >= sweepInterval {
		s.swept = now
		sweep(s.callers, s.gone())
		sweep(s.byAccount, s.gone())
	}
}

// admit returns an error if a new id of a caller must not begin, whose first record has the given size. A record without an owner is
// in no share.
func (s *shares) admit(owner share.Principal, size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.limit == 0:
		return nil
	case float64(s.used) > fullAt*float64(s.limit):
		s.whenFull++
		return unavailable(errFull)
	case owner.Account == "":
		return nil
	}
	free := max(s.limit-s.used, 0)
	if held := s.callers[callerOf(owner)].held(s.gone()); held > 0 && held+size > free-size {
		return s.reject(limitCaller, held, free)
	}
	held := s.byAccount[owner.Account].held(s.gone())
	if alone := len(s.byAccount) == 1 && held > 0; !alone && held+size > accountFactor*(free-size) {
		return s.reject(limitAccount, held, free)
	}
	return nil
}

func (s *shares) reject(of string, held, free int64) error {
	s.overShare++
	err := share.Reject(share.LedgerShare, "the %s's request ids use %d bytes of the ledger, and %d are free; retry when some have expired", of, held, free)
	err.RetryAfter = shareRetry
	return err.With("limit", of, "heldBytes", strconv.FormatInt(held, 10), "freeBytes", strconv.FormatInt(free, 10))
}

// wrote counts the record that was written to a key, in place of the key's previous one. size includes what NATS needs. The record
// leaves the stream after keep; early, if that is earlier than others.
func (s *shares) wrote(key string, owner share.Principal, size int64, keep time.Duration, early bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	gone := s.gone()
	s.used += size
	if old, ok := s.latest.Get(key); ok {
		s.used -= old.bytes
		old.caller.add(old, -old.bytes, gone)
		old.account.add(old, -old.bytes, gone)
	}
	next := charge{bytes: size, ends: slotOf(s.now(), keep), early: early}
	if owner.Account != "" {
		next.caller = holdingOf(s.callers, callerOf(owner), maxCallers)
		next.account = holdingOf(s.byAccount, owner.Account, maxCallers)
	}
	next.caller.add(next, size, gone)
	next.account.add(next, size, gone)
	s.latest.Add(key, next)
}

// holdingOf returns the holding of k, and creates it unless there are limit others: nil.
func holdingOf[K comparable](holdings map[K]*holding, k K, limit int) *holding {
	h := holdings[k]
	if h == nil && len(holdings) < limit {
		h = &holding{}
		holdings[k] = h
	}
	return h
}

// A holding is the bytes of a caller or an account. nil holds nothing.
type holding struct{ usual, early slots }

// slots are bytes by the minute in which they leave the stream.
type slots struct {
	bytes int64
	list  []slot // by ends
}

type slot struct{ ends, bytes int64 }

// gone are the minutes until which records have left the stream: the usual ones, and those that it drops early.
type gone struct{ usual, early int64 }

// gone returns what has left the stream by now.
func (s *shares) gone() gone {
	now := minute(s.now())
	return gone{usual: max(now, minute(s.since.Add(s.ttl))), early: now}
}

// held returns the bytes that are held, and forgets those that have left the stream.
func (h *holding) held(g gone) int64 {
	if h == nil {
		return 0
	}
	return h.usual.trim(g.usual) + h.early.trim(g.early)
}

// add adds bytes of a charge, or subtracts them, unless they have left the stream.
func (h *holding) add(c charge, bytes int64, g gone) {
	switch {
	case h == nil:
	case c.early:
		h.early.add(c.ends, bytes, g.early)
	default:
		h.usual.add(c.ends, bytes, g.usual)
	}
}

// trim removes the slots that end by a minute, and returns the bytes of the others.
func (s *slots) trim(minute int64) int64 {
	n := 0
	for ; n < len(s.list) && s.list[n].ends <= minute; n++ {
		s.bytes -= s.list[n].bytes
	}
	s.list = slices.Delete(s.list, 0, n)
	return s.bytes
}

func (s *slots) add(ends, bytes, minute int64) {
	if ends <= minute {
		return
	}
	s.trim(minute)
	i, found := slices.BinarySearchFunc(s.list, ends, func(s slot, ends int64) int { return cmp.Compare(s.ends, ends) })
	if !found {
		s.list = slices.Insert(s.list, i, slot{ends: ends})
	}
	s.list[i].bytes += bytes
	s.bytes += bytes
}

func minute(t time.Time) int64 { return t.Unix() / 60 }

// slotOf returns the minute until which a record counts that leaves the stream after keep. It is rounded up, by at most a sixteenth of
// keep, so that a caller has few slots.
func slotOf(now time.Time, keep time.Duration) int64 {
	width := int64(1) << bits.Len64(uint64(keep/time.Minute)/32)
	return (now.Add(keep).Unix()/60/width + 1) * width
}

// sweep removes the holdings that are empty.
func sweep[K comparable](holdings map[K]*holding, g gone) {
	for k, h := range holdings {
		if h.held(g) == 0 {
			delete(holdings, k)
		}
	}
}
