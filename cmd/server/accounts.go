package main

import (
	"github.com/lpfileshare/lpfileshare/internal/accounts"
	"github.com/lpfileshare/lpfileshare/internal/service"
)

// account is what the flags say of each account.
func (f *flags) account() accounts.Account {
	return accounts.Account{
		Messenger: accounts.Messaging,
		Domains:   f.Domain, DomainSuffixes: f.DomainSuffix,
		MaxFileBytes: int64(f.MaxFileBytes), MaxImagePixels: f.MaxImagePixels, Documents: f.Documents,
		FitImages: f.FitImages, MaxImageInputBytes: int64(f.MaxImageInput), StripImages: f.StripImages,
		CheckETag: f.CheckETag, AcceptReceipts: f.AcceptReceipts, AccessReceipts: f.AccessReceipts,
	}
}

// accounts is what the flags say: the same of every account.
func (f *flags) accounts() *accounts.Set {
	each := f.account()
	if len(f.Account) == 0 {
		return &accounts.Set{Others: &each}
	}
	s := &accounts.Set{Named: map[string]accounts.Account{}}
	for _, id := range f.Account {
		each.ID = id
		s.Named[id] = each
	}
	return s
}

// settings is what the service needs to know of an account. One that is not served has those of the flags: its calls end where
// their session would begin, and not before with talk of a limit.
func settings(r *accounts.Registry, flags accounts.Account) func(string) service.Settings {
	return func(id string) service.Settings {
		a, ok := r.Account(id)
		if !ok {
			a = flags
		}
		set := service.Settings{
			MaxFileBytes: a.MaxFileBytes, MaxImagePixels: a.MaxImagePixels, Documents: a.Documents, StripImages: a.StripImages,
			CheckETag: a.CheckETag, AcceptReceipts: a.AcceptReceipts, AccessReceipts: a.AccessReceipts,
		}
		if a.FitImages {
			set.MaxImageInputBytes = a.MaxImageInputBytes
		}
		return set
	}
}
