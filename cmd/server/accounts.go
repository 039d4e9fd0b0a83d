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
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// account returns the settings that the flags have for every account.
func (f *flags) account() accounts.Account {
	l := &f.Limits
	a := accounts.Account{
		Messenger: accounts.Messaging,
		Domains:   f.LivePerson.Domain, DomainSuffixes: f.LivePerson.DomainSuffix,
		Settings: share.Settings{
			MaxFileBytes: int64(l.MaxFileBytes), MaxImagePixels: l.MaxImagePixels, MaxImageInputBytes: int64(l.MaxImageInput), StripImages: l.StripImages,
			CheckETag: f.Behaviour.CheckETag, AcceptReceipts: f.LivePerson.AcceptReceipts, AccessReceipts: f.LivePerson.AccessReceipts,
		},
		FitImages: l.FitImages,
	}
	if l.Documents {
		a.Documents = share.Documents()
	}
	return a
}

// accounts returns the accounts of the accounts file, or without one those of the flags, which then have equal settings.
func (f *flags) accounts() (*accounts.Set, error) {
	each := f.account()
	if file := f.LivePerson.Accounts; file != "" {
		var read []string
		s, err := accounts.Read(file, accounts.Rules{
			Reads: func(path string) { read = append(read, path) },
			Flags: each, Services: services,
			CheckDomain: func(host string) error { return lprest.CheckHost(host, f.plainHTTP()) },
			CheckSuffix: lprest.CheckSuffix,
			MaxBytes:    int64(f.Limits.MemoryBudget - oneBlock),
			CheckMemory: f.checkMemory,
		})
		f.read.Store(&read)
		if err != nil {
			return nil, err
		}
		if faults := append(f.checkCallersKnown(s), f.checkCallers(s)...); len(faults) > 0 {
			return nil, faults
		}
		return s, nil
	}
	if f.authenticatesCallers() {
		return nil, errors.New(f.rulesRequired() + "; start with --accounts FILE (docs/accounts.md), for example:\n\n" + f.exampleRules(f.LivePerson.Account))
	}
	if len(f.LivePerson.Account) == 0 {
		return &accounts.Set{Others: &each, Flags: each}, nil
	}
	s := &accounts.Set{Named: map[string]accounts.Account{}, Flags: each}
	for _, id := range f.LivePerson.Account {
		each.ID = id
		s.Named[id] = each
	}
	return s, nil
}

// accountsFiles returns the accounts file, and the files with secrets that it named when it was last read, valid or not.
func (f *flags) accountsFiles() []string {
	if read := f.read.Load(); read != nil {
		return *read
	}
	return nil
}

// plainHTTP reports whether LivePerson is reached without TLS.
func (f *flags) plainHTTP() bool { return f.LivePerson.PlainHTTP || f.Sandbox.On }

// checkCallersKnown rejects accounts with credentials if the server cannot authenticate the callers that would use them. It is
// called at the start and at each reload.
func (f *flags) checkCallersKnown(s *accounts.Set) accounts.Faults {
	if f.trustsLoopback() || f.authenticatesCallers() {
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
	return accounts.Faults{{File: f.LivePerson.Accounts, Text: fmt.Sprintf("accounts %s have credentials, and callers of --listen %s cannot be authenticated; "+
		"require client certificates with --tls-client-ca (and --tls-cert, --tls-key) or --spiffe-socket, or bearer tokens with --jwt-issuer (and callers in this file), listen on "+
		"127.0.0.1 without --sidecar, or remove identity and app from those accounts",
		strings.Join(ids, ", "), f.Server.Listen)}}
}

// rulesRequired says what is missing if callers have names and there are no rules.
func (f *flags) rulesRequired() string {
	flag, names := "--tls-client-ca", "certificates"
	switch {
	case f.Server.TLS.SPIFFESocket != "":
		flag = "--spiffe-socket"
	case f.Server.TLS.ClientCA == "":
		flag, names = "--jwt-issuer", "subjects of tokens"
	}
	return fmt.Sprintf("%s requires rules that say which %s may call, for which accounts and for whom", flag, names)
}

// exampleNames are the keys of an example rule that name callers.
func (f *flags) exampleNames() []string {
	var names []string
	switch {
	case f.Server.TLS.SPIFFESocket != "":
		names = append(names, `certificates: ["uri:spiffe://example.com/ns/chat/sa/*"]`)
	case f.Server.TLS.ClientCA != "":
		names = append(names, `certificates: ["uri:spiffe://example.com/ns/chat/sa/*", "dns:chat.example.com"]`)
	}
	if f.Callers.JWTIssuer != "" {
		names = append(names, `subjects: ["jwt:chat", "jwt:services/*"]`)
	}
	return names
}

// exampleRules returns an accounts file for the given accounts (none: all), whose rules permit what was permitted before there were
// rules.
func (f *flags) exampleRules(served []string) string {
	text := "others: allow\n"
	if len(served) > 0 {
		text = "accounts:\n"
		for _, id := range served {
			text += fmt.Sprintf("  %q:\n", id)
		}
	}
	return text + "callers:\n- " + strings.Join(f.exampleNames(), "\n  ") + "\n" +
		"  accounts: all\n  tokens: [consumer, agent]\n  consumers: [\"*\"]\n"
}

// checkCallers requires rules for callers if they have names, and rejects rules that would have no effect.
func (f *flags) checkCallers(s *accounts.Set) accounts.Faults {
	var text string
	switch named := f.authenticatesCallers(); {
	case named && s.Callers == nil:
		text = f.rulesRequired() + `; add them, for example callers: [{` + strings.Join(f.exampleNames(), ", ") +
			`, accounts: all, tokens: [consumer, agent], consumers: ["*"]}]`
	case !named && s.Callers != nil && !f.trustsLoopback():
		text = "callers has rules for names of callers, and the server requires neither certificates nor tokens; add --tls-client-ca, --spiffe-socket or --jwt-issuer, or remove callers"
	default:
		return nil
	}
	return accounts.Faults{{File: f.LivePerson.Accounts, Text: text}}
}

// checkAccounts reports whether the accounts file is valid, and returns the exit code.
func checkAccounts(f *flags, stdout, stderr io.Writer) int {
	s, err := f.accounts()
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	others := "all others are rejected"
	if s.Others != nil {
		others = "all others are served too"
	}
	fmt.Fprintf(stdout, "%s is valid: it names %d accounts, and %s\n", f.LivePerson.Accounts, len(s.Named), others)
	return 0
}

// reloadAccounts reads the accounts file again. Running calls keep their settings. An invalid file has no effect. Both results are
// logged in one line.
func reloadAccounts(f *flags, r *accounts.Registry, log *slog.Logger) error {
	file := f.LivePerson.Accounts
	next, err := f.accounts()
	if err != nil {
		reason := err.Error()
		if faults, ok := errors.AsType[accounts.Faults](err); ok {
			reason = faults.OneLine()
		}
		log.Error("accounts file is invalid, the previous settings stay in use; correct it, and send SIGHUP if --reload-every is 0", "file", file, "faults", reason)
		return err
	}
	change := next.Since(r.Set())
	r.Replace(next)
	log.Info("accounts file reloaded", "file", file, "accounts", len(next.Named),
		"added", someOf(change.Added), "removed", someOf(change.Removed), "changed", someOf(change.Changed), "others_changed", change.Others, "callers_changed", change.Callers)
	return nil
}

// someOf joins ids for a log line of limited length.
func someOf(ids []string) string {
	const shown = 50
	if len(ids) > shown {
		return fmt.Sprintf("%s and %d more", strings.Join(ids[:shown], " "), len(ids)-shown)
	}
	return strings.Join(ids, " ")
}

// reach returns which hosts serve an account.
func reach(r *accounts.Registry) func(string) lprest.Reach {
	return func(id string) lprest.Reach {
		a := r.AccountOrFlags(id)
		return lprest.Reach{Overrides: a.Domains, Suffixes: a.DomainSuffixes}
	}
}

// settingsKey identifies the settings that an account's sessions depend on. It is called for each call and each idle session, so the
// keys are computed once per Set.
func settingsKey(r *accounts.Registry) func(string) string {
	type keys struct {
		of     *accounts.Set
		named  map[string]string
		others string // of accounts that are not named
	}
	var last atomic.Pointer[keys]
	return func(id string) string {
		set := r.Set()
		k := last.Load()
		if k == nil || k.of != set {
			k = &keys{of: set, named: make(map[string]string, len(set.Named)), others: sessionKey(set.Flags)}
			if set.Others != nil {
				k.others = sessionKey(*set.Others)
			}
			for id, a := range set.Named {
				k.named[id] = sessionKey(a)
			}
			last.Store(k)
		}
		if key, ok := k.named[id]; ok {
			return key
		}
		return k.others
	}
}

// sessionKey is a hash of everything in an account that a session is opened with.
func sessionKey(a accounts.Account) string {
	text := fmt.Sprint(a.Domains, a.DomainSuffixes) // maps are printed in the order of their keys
	if a.Issuer != nil {
		text += issuerOf(a).Fingerprint()
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
}

func issuerOf(a accounts.Account) lprest.Issuer {
	return lprest.Issuer{Name: a.Issuer.Name, KeyID: a.Issuer.KeyID, Key: a.Issuer.Key, Lifetime: a.Issuer.Lifetime}
}

// issuer returns the issuer that signs in an account's consumers; false if the account has none.
func issuer(r *accounts.Registry) func(string) (lprest.Issuer, bool) {
	return func(id string) (lprest.Issuer, bool) {
		a, ok := r.Account(id)
		if !ok || a.Issuer == nil {
			return lprest.Issuer{}, false
		}
		return issuerOf(a), true
	}
}

// connectorApp returns the app install of an account; false if the account does not use the Connector API.
func connectorApp(r *accounts.Registry) func(string) (connector.App, bool) {
	return func(id string) (connector.App, bool) {
		a, ok := r.Account(id)
		if !ok || !usesConnector(a) {
			return connector.App{}, false
		}
		return connector.App{ID: a.App.ID, Secret: a.App.Secret, Webhooks: a.App.Webhooks}, true
	}
}

func usesConnector(a accounts.Account) bool { return a.Messenger == accounts.Connector && a.App != nil }

func receivesWebhooks(a accounts.Account) bool { return usesConnector(a) && a.App.Webhooks }

// anyAccount reports whether a named account has a property. Only named accounts can use the Connector API.
func anyAccount(s *accounts.Set, has func(accounts.Account) bool) bool {
	for _, a := range s.Named {
		if has(a) {
			return true
		}
	}
	return false
}
