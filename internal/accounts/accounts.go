// Package accounts holds what the operator says of each LivePerson account: how it is reached, whose credentials are used, what
// its callers may send. It knows nothing of how any of that is done.
package accounts

import (
	"crypto"
	"log/slog"
	"time"
)

// A Messenger is a way into LivePerson.
type Messenger string

// The messengers.
const (
	// Messaging is the Messaging Window API: a WebSocket for each identity. The default.
	Messaging Messenger = "messaging"
	// Connector is the Connector (Send) API: plain HTTPS with the server's own credentials, and webhooks.
	Connector Messenger = "connector"
)

// An Account is one LivePerson account, as the operator wants it. It is read-only.
type Account struct {
	// ID is LivePerson's account id.
	ID string
	// Messenger is how its callers are connected.
	Messenger Messenger
	// Domains pin hosts of LivePerson's services: by service name, host[:port] or a base URL. What is missing is looked up.
	Domains map[string]string
	// DomainSuffixes are those that looked-up hosts must have.
	DomainSuffixes []string
	// Issuer lets this server sign consumers in by their lp-external-consumer-id over the messaging socket; nil: every call brings
	// a token of its own.
	Issuer *Issuer
	// App is the app install that the Connector API is used as; nil for Messaging.
	App *App

	// MaxFileBytes is the largest file that LivePerson takes.
	MaxFileBytes int64
	// MaxImagePixels is the largest image.
	MaxImagePixels int64
	// Documents are the types that are allowed beside images, in LivePerson's spelling: PDF, TXT, DOCX, XLSX, PPTX.
	Documents []string
	// CheckETag compares the store's ETag with the MD5 of what was sent.
	CheckETag bool
	// AcceptReceipts and AccessReceipts tell senders when a file was delivered to a watcher, and when it was downloaded.
	AcceptReceipts, AccessReceipts bool
	// FitImages lets callers ask for images to be made to fit, up to MaxImageInputBytes of what is sent.
	FitImages          bool
	MaxImageInputBytes int64
	// StripImages removes metadata from every image.
	StripImages bool
}

// HoldsCredentials reports whether the server itself can speak for consumers of the account.
func (a Account) HoldsCredentials() bool { return a.Issuer != nil || a.App != nil }

// An Issuer makes the JWTs by which a brand vouches for its customers (LivePerson: consumer authentication, implicit flow). It
// never prints its key.
type Issuer struct {
	// Name is the "iss" claim, as the brand registered it at LivePerson.
	Name string
	// KeyID is the "kid" header; empty: none.
	KeyID string
	// Key signs by RS256.
	Key crypto.Signer
	// Lifetime is how long a JWT is good for, and with it LivePerson's token.
	Lifetime time.Duration
}

// String hides the key.
func (i *Issuer) String() string { return "issuer " + i.Name }

// GoString hides the key from %#v.
func (i *Issuer) GoString() string { return i.String() }

// LogValue hides the key from slog.
func (i *Issuer) LogValue() slog.Value { return slog.StringValue(i.String()) }

// MarshalText hides the key from JSON, and so from slog where an Account is logged as a whole.
func (i *Issuer) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// An App is an app install of the Connector API. It never prints its secret.
type App struct {
	// ID is the install's id, which LivePerson calls client_id.
	ID string
	// Secret is its client_secret, with which webhooks are signed too.
	Secret string
	// Webhooks tells that LivePerson delivers the account's events to this server.
	Webhooks bool
}

// String hides the secret.
func (a *App) String() string { return "app install " + a.ID }

// GoString hides the secret from %#v.
func (a *App) GoString() string { return a.String() }

// LogValue hides the secret from slog.
func (a *App) LogValue() slog.Value { return slog.StringValue(a.String()) }

// MarshalText hides the secret from JSON, and so from slog where an Account is logged as a whole.
func (a *App) MarshalText() ([]byte, error) { return []byte(a.String()), nil }
