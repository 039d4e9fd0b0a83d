package accounts

import (
	"crypto"
	"maps"
	"reflect"
	"slices"
)

// A Change lists the differences between two Sets by account id. It does not show their contents.
type Change struct {
	Added, Removed, Changed []string
	// Others reports whether the settings of the accounts that are not named differ.
	Others bool
	// Callers reports whether the rules for callers differ.
	Callers bool
}

// Since returns the changes from old to s.
func (s *Set) Since(old *Set) Change {
	var c Change
	for _, id := range slices.Sorted(maps.Keys(s.Named)) {
		before, known := old.Named[id]
		switch {
		case !known:
			c.Added = append(c.Added, id)
		case !before.equal(s.Named[id]):
			c.Changed = append(c.Changed, id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(old.Named)) {
		if _, still := s.Named[id]; !still {
			c.Removed = append(c.Removed, id)
		}
	}
	c.Others = (s.Others == nil) != (old.Others == nil) || s.Others != nil && !s.Others.equal(*old.Others)
	c.Callers = !s.Callers.Equal(old.Callers)
	return c
}

// equal reports whether two accounts have the same settings, secrets included.
func (a Account) equal(b Account) bool {
	if !a.Issuer.equal(b.Issuer) {
		return false
	}
	a.Issuer, b.Issuer = nil, nil
	return reflect.DeepEqual(a, b)
}

func (i *Issuer) equal(o *Issuer) bool {
	if i == nil || o == nil {
		return i == o
	}
	return i.Name == o.Name && i.KeyID == o.KeyID && i.Lifetime == o.Lifetime && sameKey(i.Key, o.Key)
}

// sameKey compares the public keys; every key type of Go has Equal.
func sameKey(a, b crypto.Signer) bool {
	public, ok := a.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(b.Public())
}
