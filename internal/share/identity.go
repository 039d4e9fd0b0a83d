package share

import (
	"log/slog"
	"time"
)

// A Scheme is the type of a Credential.
type Scheme string

// The schemes, by the names of their metadata keys.
const (
	ConsumerToken      Scheme = "lp-consumer-token"
	AgentToken         Scheme = "lp-agent-token"
	ExternalConsumerID Scheme = "lp-external-consumer-id"
)

// A Credential is what a call carries. It proves nothing until LivePerson has accepted it. It never prints its secret.
type Credential struct {
	Scheme Scheme
	// Account is the account of the requested resource. The credential must belong to the same account.
	Account string
	// Secret is the token; with ExternalConsumerID, the brand's id of the consumer, for whom the server's own credentials vouch.
	Secret string
	// Caller is the name of the calling service with its kind, as policy.Name prints it, if its connection proves it; otherwise
	// empty. It is used with ExternalConsumerID only, because any other credential is a proof by itself.
	Caller string
	// Peer is the address, or the network of one subscriber, from which the call came: see netrules.Peer. It says whose share of the
	// server's limits a call uses before its credential is proved, and is not part of the identity.
	Peer string
}

// String hides the secret.
func (c Credential) String() string { return string(c.Scheme) + " of account " + c.Account }

// GoString hides the secret from %#v.
func (c Credential) GoString() string { return c.String() }

// LogValue hides the secret from slog.
func (c Credential) LogValue() slog.Value { return slog.StringValue(c.String()) }

// A Principal is a caller as LivePerson identifies it, after it has accepted the caller's credential.
type Principal struct {
	// Account is LivePerson's account id.
	Account string
	// ID is a consumer's "sub" or an agent's userPid, as in originatorId. It stays the same when the token is renewed.
	ID string
	// Caller is the identity of the service that calls on the principal's behalf; empty if there is none.
	Caller string
	// Role is RoleConsumer or RoleAgent.
	Role Role
	// Expires is when the credential expires; zero if unknown.
	Expires time.Time
}

// A Role is a participant's role in a conversation, in LivePerson's spelling.
type Role string

// The roles that LivePerson documents.
const (
	RoleConsumer      Role = "CONSUMER"
	RoleAssignedAgent Role = "ASSIGNED_AGENT"
	RoleManager       Role = "MANAGER"
	RoleReader        Role = "READER"
	RoleController    Role = "CONTROLLER"
	RoleAgent         Role = "AGENT"
)

// A SignIn is an identity issued by LivePerson's services.
type SignIn struct {
	// Token is the consumer JWT, or the opaque agent token (see AgentGrant).
	Token string
	// RenewalSecret gets the next token for the same identity; empty if the identity cannot be renewed.
	RenewalSecret string
	// Expires is when the token expires; zero if unknown.
	Expires time.Time
	// ID is the Principal's ID.
	ID string
}

// String hides the secrets.
func (SignIn) String() string { return "sign-in" }

// GoString hides the secrets from %#v.
func (SignIn) GoString() string { return "sign-in" }

// LogValue hides the secrets from slog.
func (SignIn) LogValue() slog.Value { return slog.StringValue("sign-in") }

// BotKeys are the API keys of a LivePerson bot user: secrets.
type BotKeys struct {
	Username, AppKey, Secret, AccessToken, AccessTokenSecret string
}

// String hides the secrets.
func (k BotKeys) String() string { return "keys of a bot" }

// GoString hides the secrets from %#v.
func (k BotKeys) GoString() string { return k.String() }

// LogValue hides the secrets from slog.
func (k BotKeys) LogValue() slog.Value { return slog.StringValue(k.String()) }
