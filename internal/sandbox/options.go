package sandbox

import (
	"cmp"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/connector"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/fault"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/feed"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/journal"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/liveperson"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/swift"
)

// The types of the sandbox's parts, so that users need only this package.
type (
	Fault            = fault.Fault
	FaultState       = fault.State
	Call             = feed.Call
	Journal          = journal.Journal
	StoredObject     = journal.StoredObject
	PublishedFile    = journal.PublishedFile
	SignedURL        = journal.SignedURL
	DeliveredWebhook = journal.DeliveredWebhook
	Brand            = liveperson.Brand
	Frame            = liveperson.Frame
	AppInstall       = connector.AppInstall
	Exchange         = connector.Exchange
	Webhook          = connector.Webhook
	Webhooks         = connector.Webhooks
)

const (
	// DefaultAppID and DefaultAppSecret are the credentials of the app install in every account unless Options has others.
	DefaultAppID     = connector.DefaultAppID
	DefaultAppSecret = connector.DefaultAppSecret
	// HookDelivered is the outcome of a webhook that the endpoint accepted.
	HookDelivered = journal.HookDelivered
)

// AllEvents returns endpoints that send every type of event to url.
func AllEvents(url string) map[string]Webhook { return connector.AllEvents(url) }

// ParseFault reads a Fault from JSON. Unknown members, places and request types are errors.
func ParseFault(text []byte) (Fault, error) { return fault.Parse(text, liveperson.RequestTypes()) }

// Options configure a Sandbox. The zero value is a LivePerson with one account on a free port of loopback.
type Options struct {
	// Listen is the plaintext address, loopback only. Default "127.0.0.1:0".
	Listen string
	// TLSListen is the TLS address, loopback only. Empty: none.
	TLSListen string
	// CAFile is the file to which the certificate of the generated CA is written as PEM (mode 0644). Empty: none.
	CAFile string
	// Accounts are the ids of the accounts. Default: "12345678".
	Accounts []string
	// AdminUser and Password log in an administrator that is also an agent. Any other user name with the same password logs in an
	// agent without an administrator's rights. Defaults: "admin" and "sandbox".
	AdminUser, Password string
	// URLLifetime is how long a signed URL is valid. Default: 60 s, as LivePerson's.
	URLLifetime time.Duration
	// TokenLifetime is how long a consumer token is valid. Default: 24 h.
	TokenLifetime time.Duration
	// OwnKey signs tokens with a key of this sandbox's own. Otherwise all sandboxes of a process share a key, because to generate one
	// takes more CPU than the rest of a start.
	OwnKey bool
	// AppInstalls are the connectors that may use the Connector API. Default: one in every account, with DefaultAppID and
	// DefaultAppSecret, without webhooks.
	AppInstalls []AppInstall
	// WebhookUnit is the length of one second in the waits between attempts to deliver a webhook and in its retention. Default: 1 s;
	// tests use less.
	WebhookUnit time.Duration
	// WebhookTimeout is how long an endpoint may take to answer a webhook. Default: 5 s, as LivePerson's.
	WebhookTimeout time.Duration
	// WebhookTLS has the CAs to trust for https endpoints of webhooks. Nil: the system's.
	WebhookTLS *tls.Config
	// BearerLifetime is how long an agent's bearer is valid without a refresh. Default: 8 h.
	BearerLifetime time.Duration
	// OneLogin ends an agent's session, with its sockets, when the agent logs in again. LivePerson's messaging SDK documents that; by
	// default every login of an agent stays valid.
	OneLogin bool
	// Brands are the identity providers of accounts, by account. For other accounts the signature of a brand's JWT is not verified.
	Brands map[string]Brand
	// MaxFileSize is the largest fileSize, in bytes, for which an upload URL is issued. Default: 5 MiB.
	MaxFileSize int64
	// FileSharingOff sets the site property messaging.file.sharing.enabled to false at the start.
	FileSharingOff bool
	// SignAnyPath issues download URLs for any path of the account, published or not: LivePerson does not document a check.
	SignAnyPath bool
	// AutoAssign assigns a new conversation to an agent whose socket has subscribed to the agent's own conversations. Without it
	// agents must add themselves.
	AutoAssign bool
	// IdleTimeout is how long a socket may be idle before it is closed. Default: 120 s.
	IdleTimeout time.Duration
	// InitTimeout is how long a socket without an Authorization header may take to send InitConnection. Default: 5 s.
	InitTimeout time.Duration
	// SwiftURL (scheme, host, port) is another Swift that keeps the files, and SwiftKey signs its URLs. If SwiftURL is empty the
	// sandbox has its own store, and the default SwiftKey is random.
	SwiftURL, SwiftKey string
	// SwiftDigest is the digest of signed URLs, "sha1" or "sha256". Default: "sha1", as LivePerson's.
	SwiftDigest string
	// MaxObjectSize is the largest object, in bytes, that the sandbox's own store accepts. Default: 5 GiB, as Swift's.
	MaxObjectSize int64
	// StoreTimeout is how long the sandbox's own store waits for 64 KiB of a body. Default: 60 s, as Swift's.
	StoreTimeout time.Duration
	// OnRequest is called with every request before it is served, also with those that open sockets. It must not change it.
	OnRequest func(*http.Request)
	// OnFrame is called with every text frame in either direction, from several goroutines. It must not block.
	OnFrame func(Frame)
	// OnExchange is called with every request to the Connector API and every webhook, with their answers, from several goroutines.
	// It must not block.
	OnExchange func(Exchange)
	// Logger receives connections and refusals, without tokens or signatures. Default: none.
	Logger *slog.Logger
	// Now is the clock. Default: time.Now.
	Now func() time.Time

	// Limits that tests lower: bytes waiting for one socket, and webhooks waiting for delivery.
	maxQueued, maxWebhooks int
}

// complete validates o and sets the defaults.
func (o *Options) complete() error {
	o.Listen = cmp.Or(o.Listen, "127.0.0.1:0")
	if len(o.Accounts) == 0 {
		o.Accounts = []string{"12345678"}
	}
	o.AdminUser = cmp.Or(o.AdminUser, "admin")
	o.Password = cmp.Or(o.Password, "sandbox")
	o.URLLifetime = cmp.Or(o.URLLifetime, time.Minute)
	o.TokenLifetime = cmp.Or(o.TokenLifetime, 24*time.Hour)
	o.AppInstalls = slices.Clone(o.AppInstalls) // the caller's slice is not modified
	if len(o.AppInstalls) == 0 {
		for _, id := range o.Accounts {
			o.AppInstalls = append(o.AppInstalls, AppInstall{Account: id, ID: DefaultAppID, Secret: DefaultAppSecret})
		}
	}
	for i := range o.AppInstalls {
		o.AppInstalls[i].Account = cmp.Or(o.AppInstalls[i].Account, o.Accounts[0])
	}
	o.WebhookUnit = cmp.Or(o.WebhookUnit, time.Second)
	o.WebhookTimeout = cmp.Or(o.WebhookTimeout, 5*time.Second)
	o.BearerLifetime = cmp.Or(o.BearerLifetime, 8*time.Hour)
	o.MaxFileSize = cmp.Or(o.MaxFileSize, 5<<20)
	o.IdleTimeout = cmp.Or(o.IdleTimeout, 120*time.Second)
	o.InitTimeout = cmp.Or(o.InitTimeout, 5*time.Second)
	o.SwiftDigest = cmp.Or(o.SwiftDigest, "sha1")
	if o.SwiftURL == "" {
		o.SwiftKey = cmp.Or(o.SwiftKey, rand.Text())
	}
	o.MaxObjectSize = cmp.Or(o.MaxObjectSize, swift.DefaultMaxObjectSize)
	o.StoreTimeout = cmp.Or(o.StoreTimeout, swift.DefaultClientTimeout)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.maxQueued = cmp.Or(o.maxQueued, 16<<20)
	o.maxWebhooks = cmp.Or(o.maxWebhooks, 20_000)
	return o.validate()
}

// validate checks options that are complete.
func (o *Options) validate() error {
	if o.SwiftDigest != "sha1" && o.SwiftDigest != "sha256" {
		return errors.New(`SwiftDigest must be "sha1" or "sha256"`)
	}
	if o.SwiftURL != "" && o.SwiftKey == "" {
		return errors.New("SwiftURL requires the SwiftKey that signs its URLs")
	}
	for _, id := range o.Accounts {
		if id == "" || strings.ContainsAny(id, "/?#. ") {
			return fmt.Errorf("%q is not a valid account id", id)
		}
	}
	return errors.Join(loopback(o.Listen), loopback(o.TLSListen))
}

// loopback returns an error unless addr is empty or on loopback.
func loopback(addr string) error {
	if addr == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if !isLoopback(host) {
		return fmt.Errorf("%s is not a loopback address; the sandbox listens on loopback only, because anyone can log in", addr)
	}
	return nil
}
