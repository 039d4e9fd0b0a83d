package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
)

// defaultIdentity is the consumer, unless only an agent's token is known.
func (a *app) defaultIdentity(s *session) identityOf {
	consumer := s.Consumer != nil || a.TokenFile != "" || a.ExternalConsumerID != "" || a.getenv(envToken) != ""
	agent := s.Agent != nil || a.getenv(envAgentToken) != ""
	if agent && !consumer {
		return asAgent
	}
	return asConsumer
}

// A caller is the identity of calls, with what is known of it.
type caller struct {
	as      identityOf
	id      string // LivePerson's id, or the brand's; empty: not known
	from    string // where the identity comes from
	expires time.Time
	tokens  lpfileshare.TokenSource // nil: an external consumer id, which has no token
}

// identity returns what the calls of a client carry.
func (k *caller) identity() lpfileshare.Identity {
	switch {
	case k.tokens == nil:
		return lpfileshare.ExternalConsumerID(k.id)
	case k.as == asAgent:
		return lpfileshare.AgentToken(k.tokens)
	default:
		return lpfileshare.ConsumerToken(k.tokens)
	}
}

// identity returns the identity of calls.
func (a *app) identity(c *connection) (lpfileshare.Identity, error) {
	k, err := a.caller(c)
	if err != nil {
		return lpfileshare.Identity{}, err
	}
	return k.identity(), nil
}

// caller returns the caller of the flags and the environment, or else of the session file.
func (a *app) caller(c *connection) (*caller, error) {
	k, err := a.givenCaller()
	if k == nil && err == nil {
		k, err = a.storedCaller(c)
	}
	if err != nil {
		return nil, err
	}
	kind := string(k.as)
	if k.tokens == nil {
		kind = "external"
	}
	c.caller = kind + ":" + k.id
	return k, nil
}

// givenCaller returns the caller of the flags and the environment. Nil: none.
func (a *app) givenCaller() (*caller, error) {
	token, from, err := a.givenToken()
	switch {
	case err != nil:
		return nil, err
	case a.ExternalConsumerID != "" && token != "":
		return nil, &usageError{"--external-consumer-id and a token exclude each other; a call carries one identity"}
	case a.ExternalConsumerID != "" && a.As == asAgent:
		return nil, &usageError{"--external-consumer-id names a consumer; it excludes --as agent"}
	case a.ExternalConsumerID != "":
		return &caller{as: asConsumer, id: a.ExternalConsumerID, from: "--external-consumer-id"}, nil
	case token == "":
		return nil, nil
	}
	k := &caller{as: a.As, from: from, tokens: lpfileshare.StaticToken(token)}
	k.id, k.expires = readToken(token)
	return k, nil
}

// givenToken returns the token of --token-file, or of the environment variable for the identity, and where it comes from.
func (a *app) givenToken() (token, from string, err error) {
	if a.TokenFile != "" {
		token, err = a.secret(a.TokenFile)
		return token, "--token-file", err
	}
	from = envToken
	if a.As == asAgent {
		from = envAgentToken
	}
	return strings.TrimSpace(a.getenv(from)), from, nil
}

// readToken returns the subject and the expiry of a token without verifying it. If it is no JWT, the subject is a part of its hash.
func readToken(token string) (subject string, expires time.Time) {
	var claims jwt.RegisteredClaims
	if _, _, err := jwt.NewParser().ParseUnverified(token, &claims); err == nil && claims.Subject != "" {
		if claims.ExpiresAt != nil {
			expires = claims.ExpiresAt.Time
		}
		return claims.Subject, expires
	}
	hash := sha256.Sum256([]byte(token))
	return "token-" + hex.EncodeToString(hash[:4]), time.Time{}
}

// storedCaller returns the caller of the session file. A stored token is sent only to the address that it was stored for.
func (a *app) storedCaller(c *connection) (*caller, error) {
	stored, signIn := c.session.Consumer, "lpfileshare sign-in"
	if a.As == asAgent {
		stored, signIn = c.session.Agent, "lpfileshare sign-in agent --user NAME"
	}
	if stored == nil {
		return nil, &adviceError{fmt.Errorf("not signed in as %s", a.As), "Sign in first: " + signIn}
	}
	if stored.Address == c.address && stored.Plaintext != c.plaintext {
		how := map[bool]string{true: "without TLS", false: "over TLS"}
		return nil, &adviceError{
			fmt.Errorf("the stored %s token was received %s from %s, and is not sent there %s", a.As, how[stored.Plaintext], c.address, how[c.plaintext]),
			fmt.Sprintf("Sign in again that way (%s), or connect as before: check --plaintext and --tls-ca.", signIn),
		}
	}
	if stored.Address != c.address {
		return nil, &adviceError{
			fmt.Errorf("the stored %s token is for %s, and is not sent to %s", a.As, place(stored.Address, stored.Plaintext), place(c.address, c.plaintext)),
			fmt.Sprintf("Sign in there (%s), or use the server that you are signed in to (--address %s).", signIn, stored.Address),
		}
	}
	k := &caller{as: a.As, id: stored.ID, from: string(c.file), expires: stored.Expires, tokens: lpfileshare.StaticToken(stored.Token)}
	if a.As == asConsumer {
		k.tokens = a.renewedTokens(c.file, stored)
	}
	return k, nil
}

// renewedTokens returns the token of a stored consumer, which is renewed in time, and stored again then.
func (a *app) renewedTokens(file sessionFile, stored *stored) lpfileshare.TokenSource {
	return lpfileshare.NewConsumerTokens(stored.Account, lpfileshare.ConsumerSession{
		Token: stored.Token, Expires: stored.Expires, RenewalSecret: stored.RenewalSecret, ConsumerID: stored.ID,
	}, func(renewed lpfileshare.ConsumerSession) {
		err := file.update(func(s *session) {
			if s.Consumer != nil && s.Consumer.ID == stored.ID && s.Consumer.Address == stored.Address {
				s.Consumer.Token, s.Consumer.Expires, s.Consumer.RenewalSecret = renewed.Token, renewed.Expires, renewed.RenewalSecret
			}
		})
		if err != nil {
			fmt.Fprintf(a.stderr, "lpfileshare: the renewed token could not be stored: %v\n", err)
		}
	})
}

type whoamiCmd struct{}

// Run shows the identity of the next command. It contacts no server.
func (whoamiCmd) Run(a *app) error {
	c, err := a.connection()
	if err != nil {
		return err
	}
	k, err := a.caller(c)
	if err != nil {
		return err
	}
	expires := ""
	if !k.expires.IsZero() {
		expires = k.expires.UTC().Format(time.RFC3339)
	}
	conversation := c.storedConversation()
	if a.JSON {
		return a.printJSON(struct {
			As           identityOf `json:"as"`
			ID           string     `json:"id"`
			Account      string     `json:"account"`
			Address      string     `json:"address"`
			ExpireTime   string     `json:"expireTime,omitempty"`
			Conversation string     `json:"conversation,omitempty"`
			Profile      string     `json:"profile,omitempty"`
			From         string     `json:"from"`
		}{k.as, k.id, c.account, c.address, expires, conversation, a.Profile, k.from})
	}
	if expires != "" {
		expires = formatTime(k.expires)
	}
	return a.rows([][2]string{
		{"identity", string(k.as) + " " + k.id}, {"account", c.account}, {"server", place(c.address, c.plaintext)},
		{"token expires", expires}, {"conversation", conversation}, {"profile", a.Profile}, {"from", k.from},
	})
}

type tokenCmd struct{}

// Run prints the token, which is renewed first if it is about to expire.
func (tokenCmd) Run(ctx context.Context, a *app) error {
	c, err := a.connection()
	if err != nil {
		return err
	}
	k, err := a.caller(c)
	if err != nil {
		return err
	}
	if k.tokens == nil {
		return &adviceError{errors.New("an external consumer id has no token"), "Send the id itself, as the metadata lp-external-consumer-id."}
	}
	ctx, cancel := a.limit(ctx, callTimeout)
	defer cancel()
	client, err := a.newClient(c) // connects only to renew the token
	if err != nil {
		return err
	}
	defer client.Close()
	client.As(k.identity())
	token, err := k.tokens.Token(ctx)
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(map[string]string{"as": string(k.as), "token": token})
	}
	_, err = fmt.Fprintln(a.stdout, token)
	return err
}
