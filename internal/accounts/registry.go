package accounts

import (
	"sync/atomic"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/policy"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A Registry has the current settings of all accounts. It is safe for concurrent use. Replace takes effect for calls that begin
// afterwards.
type Registry struct {
	current atomic.Pointer[Set]
	readAt  atomic.Pointer[time.Time]
}

// A Set has the settings of all accounts. It must not be modified.
type Set struct {
	// Named are the accounts with settings of their own, by id.
	Named map[string]Account
	// Others has the settings of every other account, without its ID; nil means that the server handles no others.
	Others *Account
	// Flags has the settings for accounts that the server does not handle: see Registry.AccountOrFlags.
	Flags Account
	// Callers has the rules for callers with client certificates; nil if the file has none.
	Callers *policy.Policy
}

// NewRegistry returns a Registry with a Set.
func NewRegistry(s *Set) *Registry {
	r := &Registry{}
	r.Replace(s)
	return r
}

// Replace replaces the current Set.
func (r *Registry) Replace(s *Set) {
	now := time.Now()
	r.readAt.Store(&now)
	r.current.Store(s)
}

// ReadAt returns when the current Set was made the current one.
func (r *Registry) ReadAt() time.Time { return *r.readAt.Load() }

// Set returns the current Set.
func (r *Registry) Set() *Set { return r.current.Load() }

// Account returns the settings of an account; false if this server does not handle it.
func (r *Registry) Account(id string) (Account, bool) {
	s := r.current.Load()
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

// AccountOrFlags returns the settings of an account. If the server does not handle it, they are those of the flags: calls that were
// running when a reload removed the account still need some, and new calls are rejected when they ask for a session.
func (r *Registry) AccountOrFlags(id string) Account {
	if a, ok := r.Account(id); ok {
		return a
	}
	return r.Set().Flags
}

// Settings returns the settings for calls of an account's clients, as AccountOrFlags does. MaxImageInputBytes is 0 without FitImages.
func (r *Registry) Settings(id string) share.Settings {
	a := r.AccountOrFlags(id)
	if !a.FitImages {
		a.MaxImageInputBytes = 0
	}
	return a.Settings
}
