package sandbox

import (
	"crypto"
	"crypto/tls"
	"log/slog"
	"time"
)

// Options say how a Sandbox behaves. The zero value is a LivePerson with one account, on a free port of loopback.
type Options struct {
	// Listen is the plaintext address, loopback only. Default "127.0.0.1:0".
	Listen string
	// TLSListen is the address that serves the same over TLS, loopback only. Empty: none.
	TLSListen string
	// CAFile is where the certificate of the generated CA is written as PEM (mode 0644). Empty: nowhere.
	CAFile string
	// Accounts are the account ids that exist. Default: "12345678".
	Accounts []string
	// AdminUser and Password open the login service. The administrator is an agent too, any other user name with the same
	// password is an agent without administrator's rights. Defaults "admin" and "sandbox".
	AdminUser, Password string
	// URLLifetime is how long a signed URL lives. Default 60 s, as LivePerson's.
	URLLifetime time.Duration
	// TokenLifetime is how long a consumer token lives. Default 24 h.
	TokenLifetime time.Duration
	// AppInstalls are the connectors that may use the Connector API. Default: in every account one with DefaultAppID and
	// DefaultAppSecret, without webhooks.
	AppInstalls []AppInstall
	// AppTokenLifetime is how long an AppJWT lives. Default 1 h, as LivePerson's.
	AppTokenLifetime time.Duration
	// WebhookUnit is how long a second of the waits between tries to deliver a webhook takes, and one of its retention. Default
	// 1 s; a test takes less.
	WebhookUnit time.Duration
	// WebhookTimeout is how long an endpoint may take to answer a webhook. Default 5 s, as LivePerson's.
	WebhookTimeout time.Duration
	// WebhookTLS says whom to trust where webhooks go to https endpoints. Nil: the system's.
	WebhookTLS *tls.Config
	// BearerLifetime is how long an agent's bearer lives without a refresh. Default 8 h.
	BearerLifetime time.Duration
	// Brands are those that have registered the key that they sign their customers' JWTs with, by account. Of any other account every
	// key is taken.
	Brands map[string]Brand
	// MaxFileSize is the largest fileSize that an upload URL is given for, in bytes. Default 5 MiB.
	MaxFileSize int64
	// FileSharingOff starts with the site property messaging.file.sharing.enabled false.
	FileSharingOff bool
	// SignAnyPath gives a download URL for any path of the account, published or not: LivePerson does not say that it checks.
	SignAnyPath bool
	// AutoAssign gives a conversation that nobody looks after to an agent who is at hand: one whose socket subscribed to its own
	// conversations, and not to rings. Without it agents have to take conversations as LivePerson's do: by a ring, or by adding
	// themselves.
	AutoAssign bool
	// IdleTimeout closes a socket on which nothing came for so long. Default 120 s.
	IdleTimeout time.Duration
	// InitTimeout is how long a socket without an Authorization header may take to send InitConnection. Default 5 s.
	InitTimeout time.Duration
	// MaxRequestsPerSecond per socket, and per app install of the Connector API; over it requests are answered with code 429. 0:
	// no limit.
	MaxRequestsPerSecond int
	// SwiftURL and SwiftKey let another Swift keep the files: URLs are signed with SwiftKey and the domain "swift" is SwiftURL
	// (scheme, host, port). Empty: the sandbox's own store.
	SwiftURL, SwiftKey string
	// SwiftDigest is "sha1" (as LivePerson's) or "sha256". Default "sha1".
	SwiftDigest string
	// OnFrame sees every text frame, both ways, as it was on the wire. Called from several goroutines; must not block.
	OnFrame func(Frame)
	// OnExchange sees every request to the Connector API with its answer, and every webhook, as they were on the wire. Called from
	// several goroutines; must not block.
	OnExchange func(Exchange)
	// Logger hears of connections and refusals, never of tokens or signatures. Default: silent.
	Logger *slog.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// A Brand is an identity provider as an account knows it.
type Brand struct {
	// Issuer is the "iss" that its JWTs must have.
	Issuer string
	// Key is the *rsa.PublicKey that they must be signed for.
	Key crypto.PublicKey
}

// A Frame is one text frame of a socket.
type Frame struct {
	// FromClient tells a frame that the client sent from one that the sandbox sent.
	FromClient bool
	// Dialect is "consumer" or "brand".
	Dialect string
	// Data is the frame's text. The receiver must not change it.
	Data []byte
}

// An Exchange is one HTTP request of the Connector API and its answer.
type Exchange struct {
	// Endpoint is "token" (AppJWT), "consumer" (ConsumerJWS), "conversation" (the batch that creates one), "send", or "webhook",
	// which is a request of the sandbox's own.
	Endpoint string
	// Request is the body that was sent. The receiver must not change it, nor Answer.
	Request []byte
	// Status and Answer are what was answered; 0 and nothing if a fault lost it, or no answer came.
	Status int
	Answer []byte
}
