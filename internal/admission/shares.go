package admission

import "github.com/lpfileshare/lpfileshare/internal/share"

// A Holder is a caller within a group. The groups are accounts or the addresses of peers: see Grouping.
type Holder struct {
	Group  string
	Caller Caller
}

// HolderOf returns the Holder of a proved identity, in the group of its account.
func HolderOf(p share.Principal) Holder { return Holder{p.Account, ByPrincipal(p)} }

// A Grouping says what the groups of Shares are, and so how much each may hold.
type Grouping int

const (
	// ByAccount: a group that is the only one to hold something may hold everything, because what is kept for an absent account is
	// of use to nobody, and most servers have one account. Beside others it may hold accountFactor times what is free.
	ByAccount Grouping = iota
	// ByPeer: a group may hold as much as is free. Peers have proved nothing, so even a single one leaves half for others.
	ByPeer
)

// accountFactor leaves an eighth for further accounts.
const accountFactor = 7

// Shares divides a limited quantity by the load, not by fixed parts. A caller may hold at most as much as is still free, so one
// caller alone can have half, and each of n callers 1/(n+1). What is free is then as much as the largest caller holds, so a new
// caller finds something. Groups of callers are limited in the same way, and what is free for a caller is what is left to its group.
//
// A caller that holds nothing is given what it asks for, if there is as much: every request is possible on a quiet server.
//
// Shares only counts, and is not safe for concurrent use.
type Shares struct {
	grouping Grouping
	free     int64
	callers  map[Holder]int64
	groups   map[string]int64
}

// NewShares returns Shares of a total that nobody holds yet.
func NewShares(total int64, g Grouping) *Shares {
	return &Shares{grouping: g, free: total, callers: make(map[Holder]int64), groups: make(map[string]int64)}
}

// Free returns how much nobody holds.
func (s *Shares) Free() int64 { return s.free }

// Held returns how much a caller holds.
func (s *Shares) Held(h Holder) int64 { return s.callers[h] }

// Callers returns the number of callers that hold something.
func (s *Shares) Callers() int { return len(s.callers) }

// Fits reports whether a caller may take n more: there is as much, and it stays within its share.
func (s *Shares) Fits(h Holder, n int64) bool { return n <= s.free && s.Within(h, n) }

// Within reports whether a caller stays within its share if it takes n more, whether or not there is as much.
func (s *Shares) Within(h Holder, n int64) bool {
	held := s.callers[h]
	left, limited := s.leftTo(h.Group)
	if held == 0 {
		return !limited || n <= left
	}
	return held+n <= left-n
}

// leftTo returns how much more a group may take: if it takes n it holds group+n, and free-n is left. A group that holds nothing, or
// that no other limits, may take what is free.
func (s *Shares) leftTo(group string) (left int64, limited bool) {
	held, factor := s.groups[group], int64(1)
	if s.grouping == ByAccount {
		factor = accountFactor
	}
	if held == 0 || s.grouping == ByAccount && len(s.groups) == 1 {
		return s.free, false
	}
	return max(0, (factor*s.free-held)/(factor+1)), true
}

// Take counts n for a caller, negative to return it, whether or not it is within the caller's share.
func (s *Shares) Take(h Holder, n int64) {
	s.free -= n
	if s.callers[h] += n; s.callers[h] == 0 {
		delete(s.callers, h)
	}
	if s.groups[h.Group] += n; s.groups[h.Group] == 0 {
		delete(s.groups, h.Group)
	}
}
