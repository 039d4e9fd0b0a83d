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
// An attempt that is admitted reserves what its largest records need, until it has finished, so that it can record its file however
// many attempts run at once. Reserved bytes are not free, and count as held.
//
// Free bytes are those of the stream. What each caller holds is counted in this process: what it has written since its start, until
// that leaves the stream. Other servers, and this one before its start, are only seen in the free bytes.
type shares struct {
	now func() time.Time

	mu        sync.Mutex
	limit     int64 // size of the bucket; 0: unlimited
	used      int64 // by the latest observation, and what was written since
	reserved  int64 // by attempts
	callers   map[caller]*holding
	byAccount map[string]*holding
	swept     time.Time
	ttl       time.Duration // how long the bucket keeps most records
	since     time.Time     // finished records that were written before were dropped early
	// latest has the charges of the records that were written last, because the next record of a key replaces the previous one. If
	// it has lost one, both count until the first would have expired.
	latest     *lru.Cache[string, charge]
	maxCallers int                // number of callers that are counted one by one
	attempts   map[attempt]charge // what each attempt reserves
	// observed is the last revision that the latest observation includes. written are this process's writes after it: an observation
	// that began before they did must not undo them.
	observed uint64
	written  []write
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
	early           bool  // the stream drops it earlier than others
	until           int64 // Unix time in seconds until which the record is in the stream
}

// An attempt is one attempt under a key. Attempts under the same key reserve independently, because only one of them succeeds.
type attempt struct{ key, id string }

// A write is what one revision has added to the stream.
type write struct {
	rev   uint64
	bytes int64
}

const (
	// maxCallers is the number of callers that are counted one by one. Further callers count for their account only.
	maxCallers = 1 << 16
	// maxLatest is the number of charges in latest. It is above the number of uploads that run at once.
	maxLatest = 1 << 15
	// maxWritten bounds the writes between two observations. It is far above what a server makes in a second.
	maxWritten = 1 << 16
	// reservedFor is the longest time that a reservation counts for the share of its caller. An attempt takes minutes.
	reservedFor = 24 * time.Hour
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
		now: now, latest: latest, maxCallers: maxCallers,
		callers: make(map[caller]*holding), byAccount: make(map[string]*holding), attempts: make(map[attempt]charge),
	}
}

// part returns the part of the bucket that is used or reserved.
func (s *shares) part() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limit == 0 {
		return 0
	}
	return float64(s.used+s.reserved) / float64(s.limit)
}

// dropped stops counting records that were written at a time or before. One of them, of the given size, was dropped by the write rev.
func (s *shares) dropped(rev uint64, size int64, written time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(rev, -size)
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

// observe sets the state of the stream: its size, that of the bucket, its last revision, and when its first record was written. Other
// servers may have dropped what is older.
func (s *shares) observe(used, limit int64, last uint64, first time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if first.After(s.since) {
		s.since = first
	}
	if last < s.observed { // it is another stream
		s.written = nil
	}
	s.used, s.limit, s.observed = used, max(limit, 0), last
	s.written = slices.DeleteFunc(s.written, func(w write) bool { return w.rev <= last })
	for _, w := range s.written {
		s.used += w.bytes
	}
	if now := s.now(); now.Sub(s.swept) >= sweepInterval {
		s.swept = now
		sweep(s.callers, s.gone())
		sweep(s.byAccount, s.gone())
	}
}

// A demand is what a write needs of its owner's share: the size of its record, and more for later ones of its attempt.
type demand struct {
	attempt    attempt
	owner      share.Principal
	size, more int64
	// begins reports whether it begins a new id, and again whether it begins an upload under an id that has a record. Any other write
	// is admitted.
	begins, again bool
}

// admit reserves what a write needs, unless its attempt has reserved it. It returns an error if the write must not begin, and whether the
// attempt had reserved nothing. A record without an owner is in no share.
func (s *shares) admit(d demand) (first bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if has, ok := s.attempts[d.attempt]; ok {
		s.reserve(d.attempt, d.owner, max(has.bytes, d.size))
		return false, nil
	}
	if err := s.rejects(d); err != nil {
		return false, err
	}
	s.reserve(d.attempt, d.owner, d.size+d.more)
	return true, nil
}

func (s *shares) rejects(d demand) error {
	taken, limit, bytes := float64(s.used+s.reserved), float64(s.limit), d.size+d.more
	switch {
	case s.limit == 0 || !d.begins && !d.again:
		return nil
	case d.begins && taken > fullAt*limit, taken+float64(bytes) > reserveAt*limit:
		s.whenFull++
		return unavailable(errFull)
	case d.again || d.owner.Account == "":
		return nil
	}
	free := max(s.limit-s.used-s.reserved, 0)
	if held := s.callers[callerOf(d.owner)].held(s.gone()); held > 0 && held+bytes > free-bytes {
		return s.reject(limitCaller, held, free)
	}
	held := s.byAccount[d.owner.Account].held(s.gone())
	if alone := len(s.byAccount) == 1 && held > 0; !alone && held+bytes > accountFactor*(free-bytes) {
		return s.reject(limitAccount, held, free)
	}
	return nil
}

// reserve sets what an attempt reserves; 0: nothing any more.
func (s *shares) reserve(a attempt, owner share.Principal, bytes int64) {
	if old, ok := s.attempts[a]; ok {
		s.reserved -= old.bytes
		s.count(old, -old.bytes)
		delete(s.attempts, a)
	}
	if bytes > 0 {
		next := s.charge(owner, bytes, reservedFor, true)
		s.reserved += bytes
		s.count(next, bytes)
		s.attempts[a] = next
	}
}

// finish ends what an attempt reserves.
func (s *shares) finish(a attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserve(a, share.Principal{}, 0)
}

func (s *shares) reject(of string, held, free int64) error {
	s.overShare++
	err := share.Reject(share.LedgerShare, "the %s's request ids use %d bytes of the ledger, and %d are free; retry when some have expired", of, held, free)
	err.RetryAfter = shareRetry
	return err.With("limit", of, "heldBytes", strconv.FormatInt(held, 10), "freeBytes", strconv.FormatInt(free, 10))
}

// wrote counts the record that the write rev has written to the key of an attempt, in place of the key's previous one. size includes
// what NATS needs. The record leaves the stream after keep; early, if that is earlier than others. The attempt reserves more from now on.
func (s *shares) wrote(rev uint64, a attempt, owner share.Principal, size, more int64, keep time.Duration, early bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	grown := size
	if old, ok := s.latest.Get(a.key); ok {
		if s.now().Unix() < old.until {
			grown -= old.bytes
		}
		s.count(old, -old.bytes)
	}
	s.add(rev, grown)
	next := s.charge(owner, size, keep, early)
	s.count(next, size)
	s.latest.Add(a.key, next)
	s.reserve(a, owner, more)
}

// add counts what a write has added to the stream, unless the latest observation includes it.
func (s *shares) add(rev uint64, bytes int64) {
	if rev <= s.observed {
		return
	}
	s.used += bytes
	if len(s.written) == maxWritten {
		s.written = slices.Delete(s.written, 0, maxWritten/2)
	}
	s.written = append(s.written, write{rev, bytes})
}

// charge returns the charge of bytes that an owner uses for a time.
func (s *shares) charge(owner share.Principal, bytes int64, keep time.Duration, early bool) charge {
	now := s.now()
	c := charge{bytes: bytes, ends: slotOf(now, keep), early: early, until: now.Add(keep).Unix()}
	if owner.Account != "" {
		c.caller = holdingOf(s.callers, callerOf(owner), s.maxCallers)
		c.account = holdingOf(s.byAccount, owner.Account, s.maxCallers)
	}
	return c
}

// count adds bytes to what the owner of a charge holds.
func (s *shares) count(c charge, bytes int64) {
	c.caller.add(c, bytes, s.gone())
	c.account.add(c, bytes, s.gone())
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
