package share

import (
	"log/slog"
	"time"
)

// A Scheme says what a Credential is.
type Scheme string

// The schemes, named as in the metadata of a call.
const (
	ConsumerToken      Scheme = "lp-consumer-token"
	AgentToken         Scheme = "lp-agent-token"
	ExternalConsumerID Scheme = "lp-external-consumer-id"
)

// A Credential is what a caller brought along. It proves nothing until LivePerson has accepted it. It never prints its secret.
type Credential struct {
	Scheme Scheme
	// Account is the account of the resource that the caller names; the credential must turn out to be of the same.
	Account string
	// Secret is the token as it came; with ExternalConsumerID, the consumer's id, for whom the server's own credentials vouch.
	Secret string
	// Caller is the service that calls, where its connection proves who it is; empty where it does not. It counts with
	// ExternalConsumerID alone: any other credential is a proof by itself.
	Caller string
}

// String hides the secret.
func (c Credential) String() string { return string(c.Scheme) + " of account " + c.Account }

// GoString hides the secret from %#v.
func (c Credential) GoString() string { return c.String() }

// LogValue hides the secret from slog.
func (c Credential) LogValue() slog.Value { return slog.StringValue(c.String()) }

// A Principal is who LivePerson says that a caller is. There is one only once LivePerson has accepted the caller's credential.
type Principal struct {
	// Account is LivePerson's account id.
	Account string
	// ID is a consumer's "sub" or an agent's id (userPid), as originatorId shows it. A renewed token has the same.
	ID string
	// Caller is the mesh's identity of the service that calls on the principal's behalf; empty where there is none.
	Caller string
	// Role is RoleConsumer or RoleAgent.
	Role Role
	// Expires is when the credential ends; zero where it does not say.
	Expires time.Time
}

// A Role is what somebody is in a conversation, in LivePerson's spelling.
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

// A SignIn is what LivePerson's identity services gave out.
type SignIn struct {
	// Token is the consumer JWT, or the opaque agent token (see AgentGrant).
	Token string
	// RenewalSecret gets the next token for the same identity; empty where that cannot be.
	RenewalSecret string
	// Expires is when the token ends; zero where it does not say.
	Expires time.Time
	// ID is as Principal.ID.
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
