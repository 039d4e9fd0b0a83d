package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/lpfileshare/lpfileshare/internal/accounts"
	"github.com/lpfileshare/lpfileshare/internal/connector"
	"github.com/lpfileshare/lpfileshare/internal/lprest"
	"github.com/lpfileshare/lpfileshare/internal/service"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// account is what the flags say of each account.
func (f *flags) account() accounts.Account {
	return accounts.Account{
		Messenger: accounts.Messaging,
		Domains:   f.Domain, DomainSuffixes: f.DomainSuffix,
		MaxFileBytes: int64(f.MaxFileBytes), MaxImagePixels: f.MaxImagePixels, Documents: f.documents(),
		FitImages: f.FitImages, MaxImageInputBytes: int64(f.MaxImageInput), StripImages: f.StripImages,
		CheckETag: f.CheckETag, AcceptReceipts: f.AcceptReceipts, AccessReceipts: f.AccessReceipts,
	}
}

// documents are the types that are allowed beside images.
func (f *flags) documents() []string {
	if !f.Documents {
		return nil
	}
	return documentTypes()
}

func documentTypes() []string {
	var types []string
	for _, t := range share.Documents() {
		types = append(types, string(t))
	}
	return types
}

// checkRoom says what an account's limits take that the memory budget has no room for: an image that is stripped or made to fit is
// held twice, as it came and as it is stored.
func (f *flags) checkRoom(a accounts.Account) error {
	const block = int64(oneBlock)
	if need := 2 * (a.MaxFileBytes + block); int64(f.MemoryBudget) < need {
		return fmt.Errorf("--memory-budget %d has no room for one file of %d bytes, and for it stripped: that takes %d", f.MemoryBudget, a.MaxFileBytes, need)
	}
	if !a.FitImages {
		return nil
	}
	if a.MaxImageInputBytes <= a.MaxFileBytes {
		return fmt.Errorf("images of up to %d bytes are to be made to fit, and files of %d bytes fit as they are; raise the one or lower the other", a.MaxImageInputBytes, a.MaxFileBytes)
	}
	if need := a.MaxImageInputBytes + a.MaxFileBytes + 2*block; int64(f.MemoryBudget) < need {
		return fmt.Errorf("--memory-budget %d has no room for one image of %d bytes and what is made of it; that takes %d", f.MemoryBudget, a.MaxImageInputBytes, need)
	}
	return nil
}

// accounts is what the flags say, the same of every account, or what the accounts file says.
func (f *flags) accounts() (*accounts.Set, error) {
	each := f.account()
	if f.Accounts != "" {
		s, err := accounts.Read(f.Accounts, accounts.Rules{
			Flags: each, Services: services,
			CheckDomain: func(host string) error { return lprest.CheckHost(host, f.plainHTTP()) },
			CheckSuffix: lprest.CheckSuffix,
			MaxBytes:    int64(f.MemoryBudget - oneBlock),
			Documents:   documentTypes(),
			CheckMemory: f.checkRoom,
		})
		if err != nil {
			return nil, err
		}
		return s, f.mayHold(s)
	}
	if len(f.Account) == 0 {
		return &accounts.Set{Others: &each}, nil
	}
	s := &accounts.Set{Named: map[string]accounts.Account{}}
	for _, id := range f.Account {
		each.ID = id
		s.Named[id] = each
	}
	return s, nil
}

// mayHold refuses credentials that callers could use without saying who they are. It is asked at the start and at each reload.
func (f *flags) mayHold(s *accounts.Set) error {
	if f.listensOnLoopback() || f.TLSClientCA != "" {
		return nil
	}
	var ids []string
	for _, id := range slices.Sorted(maps.Keys(s.Named)) {
		if s.Named[id].HoldsCredentials() {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return accounts.Faults{{File: f.Accounts, Text: fmt.Sprintf("the server would hold credentials of %s, and on --listen %s it could not tell who uses them; "+
		"demand client certificates with --tls-client-ca (and --tls-cert, --tls-key), listen on 127.0.0.1, or take identity and app out of those accounts",
		strings.Join(ids, ", "), f.Listen)}}
}

// checkAccounts says whether the accounts file can be used, and returns the exit code.
func checkAccounts(f *flags, stdout, stderr io.Writer) int {
	s, err := f.accounts()
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	others := "all others are refused"
	if s.Others != nil {
		others = "all others are served too"
	}
	fmt.Fprintf(stdout, "%s can be used: it names %d accounts, and %s\n", f.Accounts, len(s.Named), others)
	return 0
}

// reloadAccounts reads the accounts file again. Calls that run keep what they began with. A file that cannot be used changes
// nothing; then, as when it can, there is one line in the log that says so.
func reloadAccounts(f *flags, r *accounts.Registry, log *slog.Logger) {
	next, err := f.accounts()
	if err != nil {
		reason := err.Error()
		if faults, ok := errors.AsType[accounts.Faults](err); ok {
			reason = faults.OneLine()
		}
		log.Error("the accounts file cannot be used, and what held before still does; mend it and send SIGHUP again", "file", f.Accounts, "faults", reason)
		return
	}
	change := next.Since(r.Set())
	r.Replace(next)
	log.Info("the accounts file was read again", "file", f.Accounts, "accounts", len(next.Named),
		"added", someOf(change.Added), "removed", someOf(change.Removed), "changed", someOf(change.Changed), "others_changed", change.Others)
}

// someOf lists ids for a line of the log, which has an end.
func someOf(ids []string) string {
	const shown = 50
	if len(ids) > shown {
		return fmt.Sprintf("%s and %d more", strings.Join(ids[:shown], " "), len(ids)-shown)
	}
	return strings.Join(ids, " ")
}

// reach is which hosts serve an account. One that is not served any more has those of the flags, for the calls that still run.
func reach(r *accounts.Registry, flags accounts.Account) func(string) lprest.Reach {
	return func(id string) lprest.Reach {
		a, ok := r.Account(id)
		if !ok {
			a = flags
		}
		return lprest.Reach{Overrides: a.Domains, Suffixes: a.DomainSuffixes}
	}
}

// under names the settings that an account's sessions depend on. It is asked with each call and of each idle session, so the names
// are made once for each Set.
func under(r *accounts.Registry, flags accounts.Account) func(string) string {
	type names struct {
		of     *accounts.Set
		named  map[string]string
		others string // of those that are not served too
	}
	var last atomic.Pointer[names]
	return func(id string) string {
		set := r.Set()
		n := last.Load()
		if n == nil || n.of != set {
			n = &names{of: set, named: make(map[string]string, len(set.Named)), others: sessionSettings(flags)}
			if set.Others != nil {
				n.others = sessionSettings(*set.Others)
			}
			for id, a := range set.Named {
				n.named[id] = sessionSettings(a)
			}
			last.Store(n)
		}
		if name, ok := n.named[id]; ok {
			return name
		}
		return n.others
	}
}

// sessionSettings is all of an account that a session is opened with, in a word.
func sessionSettings(a accounts.Account) string {
	name := fmt.Sprint(a.Domains, a.DomainSuffixes) // maps print in the order of their keys
	if a.Issuer != nil {
		name += issuerOf(a).Fingerprint()
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(name)))
}

func issuerOf(a accounts.Account) lprest.Issuer {
	return lprest.Issuer{Name: a.Issuer.Name, KeyID: a.Issuer.KeyID, Key: a.Issuer.Key, Lifetime: a.Issuer.Lifetime}
}

// issuer is who vouches for an account's customers, if this server may.
func issuer(r *accounts.Registry) func(string) (lprest.Issuer, bool) {
	return func(id string) (lprest.Issuer, bool) {
		a, ok := r.Account(id)
		if !ok || a.Issuer == nil {
			return lprest.Issuer{}, false
		}
		return issuerOf(a), true
	}
}

// connectorApp is the app install of an account that uses the Connector API.
func connectorApp(r *accounts.Registry) func(string) (connector.App, bool) {
	return func(id string) (connector.App, bool) {
		a, ok := r.Account(id)
		if !ok || a.Messenger != accounts.Connector || a.App == nil {
			return connector.App{}, false
		}
		return connector.App{ID: a.App.ID, Secret: a.App.Secret, Webhooks: a.App.Webhooks}, true
	}
}

// usesConnector tells whether any account does, and whether any is told of by webhook.
func usesConnector(s *accounts.Set) (any, told bool) {
	for _, a := range s.Named {
		if a.Messenger == accounts.Connector && a.App != nil {
			any, told = true, told || a.App.Webhooks
		}
	}
	return any, told
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
			MaxFileBytes: a.MaxFileBytes, MaxImagePixels: a.MaxImagePixels, StripImages: a.StripImages,
			CheckETag: a.CheckETag, AcceptReceipts: a.AcceptReceipts, AccessReceipts: a.AccessReceipts,
		}
		for _, t := range a.Documents {
			set.Documents = append(set.Documents, share.FileType(t))
		}
		if a.FitImages {
			set.MaxImageInputBytes = a.MaxImageInputBytes
		}
		return set
	}
}
