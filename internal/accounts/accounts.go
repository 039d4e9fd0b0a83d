// Package accounts holds the operator's settings for each LivePerson account: how it is reached, whose credentials are used, what
// its callers may send. It reads them from the accounts file; other packages act on them.
package accounts

import (
	"crypto"
	"log/slog"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A Messenger is one of LivePerson's messaging APIs.
type Messenger string

// The messengers.
const (
	// Messaging is the Messaging Window API: a WebSocket for each identity. The default.
	Messaging Messenger = "messaging"
	// Connector is the Connector (Send) API: plain HTTPS with the server's own credentials, and webhooks.
	Connector Messenger = "connector"
)

// An Account has the operator's settings for one LivePerson account. It must not be modified.
type Account struct {
	// ID is LivePerson's account id.
	ID string
	// Messenger is the API that its callers use.
	Messenger Messenger
	// Domains sets hosts of LivePerson's services: by service name, host[:port] or a base URL. Other hosts are looked up.
	Domains map[string]string
	// DomainSuffixes are the suffixes that looked-up hosts must have.
	DomainSuffixes []string
	// Issuer lets this server sign in consumers by their lp-external-consumer-id over the messaging socket. nil means that every
	// call needs a token.
	Issuer *Issuer
	// App is the app install for the Connector API; nil for Messaging.
	App *App

	// Settings apply to the calls of its clients. MaxImageInputBytes counts only with FitImages: see Registry.Settings.
	share.Settings
	// FitImages allows callers to have images reduced to MaxFileBytes, if they send at most MaxImageInputBytes.
	FitImages bool
}

// HoldsCredentials reports whether the server itself can act for consumers of the account.
func (a Account) HoldsCredentials() bool { return a.Issuer != nil || a.App != nil }

// An Issuer signs JWTs for a brand's customers (LivePerson: consumer authentication, implicit flow). It never prints its key.
type Issuer struct {
	// Name is the "iss" claim, as the brand registered it with LivePerson.
	Name string
	// KeyID is the "kid" header; empty means none.
	KeyID string
	// Key is an RSA key, for RS256.
	Key crypto.Signer
	// Lifetime is the lifetime of a JWT, and with it of LivePerson's token.
	Lifetime time.Duration
}

// String hides the key.
func (i *Issuer) String() string { return "issuer " + i.Name }

// GoString hides the key from %#v.
func (i *Issuer) GoString() string { return i.String() }

// LogValue hides the key from slog.
func (i *Issuer) LogValue() slog.Value { return slog.StringValue(i.String()) }

// MarshalText hides the key from JSON, and so from slog when a whole Account is logged.
func (i *Issuer) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// An App is an app install of the Connector API. It never prints its secret.
type App struct {
	// ID is the install's id, which LivePerson calls client_id.
	ID string
	// Secret is its client_secret, which also signs webhooks.
	Secret string
	// Webhooks reports whether LivePerson delivers the account's events to this server.
	Webhooks bool
}

// String hides the secret.
func (a *App) String() string { return "app install " + a.ID }

// GoString hides the secret from %#v.
func (a *App) GoString() string { return a.String() }

// LogValue hides the secret from slog.
func (a *App) LogValue() slog.Value { return slog.StringValue(a.String()) }

// MarshalText hides the secret from JSON, and so from slog when a whole Account is logged.
func (a *App) MarshalText() ([]byte, error) { return []byte(a.String()), nil }
