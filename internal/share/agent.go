package share

import (
	"encoding/base64"
	"encoding/json"
	"log/slog"
)

// An AgentGrant is the content of an "lp-agent-token": the login of an agent. Callers cannot read the token, but every server can,
// so that no table of logins is needed. It is not trusted before LivePerson has opened the agent's socket.
type AgentGrant struct {
	// Account is LivePerson's account id.
	Account string `json:"a"`
	// UserID is config.userId of the login. The agent's old id is "account.userId".
	UserID string `json:"u"`
	// UserPID is config.userPid of the login, the agent's id in messages.
	UserPID string `json:"p"`
	// Bearer is LivePerson's bearer: a secret.
	Bearer string `json:"b"`
	// Expires is when the bearer expires unless the login is refreshed, in epoch seconds; 0 if unknown.
	Expires int64 `json:"e,omitempty"`
	// Cookie is the login's Session_id and CSRF its csrf, which a refresh needs: secrets. Empty if it cannot be refreshed.
	Cookie string `json:"s,omitempty"`
	CSRF   string `json:"c,omitempty"`
	// Lifetime is the bearer's lifetime after a refresh, in seconds; 0 if unknown.
	Lifetime int64 `json:"t,omitempty"`
}

// MaxAgentGrant is the maximum length of AgentGrant.Token: encrypted by the service and encoded in base64 again, it must not be
// longer than MaxToken.
const MaxAgentGrant = (MaxToken - 64) * 3 / 4

// Token encodes the grant as an lp-agent-token.
func (g AgentGrant) Token() string {
	b, _ := json.Marshal(g) // strings and a number: cannot fail
	return base64.RawURLEncoding.EncodeToString(b)
}

// ParseAgentToken decodes an lp-agent-token. It fails with TokenInvalid for any other text.
func ParseAgentToken(token string) (AgentGrant, error) {
	var g AgentGrant
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err == nil {
		err = json.Unmarshal(b, &g)
	}
	if err != nil || g.Account == "" || g.UserID == "" || g.UserPID == "" || g.Bearer == "" {
		return AgentGrant{}, Errorf(TokenInvalid, "lp-agent-token was not issued by SignInAgent", nil)
	}
	return g, nil
}

// String hides the bearer.
func (g AgentGrant) String() string { return "agent of account " + g.Account }

// GoString hides the bearer from %#v.
func (g AgentGrant) GoString() string { return g.String() }

// LogValue hides the bearer from slog.
func (g AgentGrant) LogValue() slog.Value { return slog.StringValue(g.String()) }
