package accounts

import "sync/atomic"

// A Registry tells what holds for an account now. It is safe for concurrent use; Replace takes effect for the calls that begin
// afterwards.
type Registry struct{ now atomic.Pointer[Set] }

// A Set is what was said of all accounts together. It is read-only.
type Set struct {
	// Named are the accounts that were named, by id.
	Named map[string]Account
	// Others is what holds for every other account, but for its ID; nil: there are no others.
	Others *Account
}

// NewRegistry makes a Registry of a Set.
func NewRegistry(s *Set) *Registry {
	r := &Registry{}
	r.Replace(s)
	return r
}

// Replace puts another Set in the place of the one that held.
func (r *Registry) Replace(s *Set) { r.now.Store(s) }

// Set is the one that holds.
func (r *Registry) Set() *Set { return r.now.Load() }

// Account is what holds for an account; false if this server does not serve it.
func (r *Registry) Account(id string) (Account, bool) {
	s := r.now.Load()
	if a, ok := s.Named[id]; ok {
		return a, true
	}
	if s.Others == nil {
		return Account{}, false
	}
	a := *s.Others
	a.ID = id
	return a, true
}
