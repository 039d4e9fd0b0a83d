package callers

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

const (
	// maxToken is the maximum length of a bearer token, in bytes. gRPC accepts 16 KiB of metadata in all.
	maxToken = 8 << 10
	// maxSubject is the maximum length of a subject, in bytes.
	maxSubject = 1024
	// leeway is how much the clocks of the issuer and of this server may differ.
	leeway = 30 * time.Second
	// cachedTokens is the maximum number of tokens whose verification is remembered.
	cachedTokens = 8192
)

// algorithms are the signatures that are accepted. All are asymmetric: a public key can never be used as a shared secret.
var algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// TokensConfig says which tokens are accepted. Issuer and Audience are required.
type TokensConfig struct {
	// Issuer is the iss claim, and the URL below which OpenID Connect's discovery document is.
	Issuer string
	// Audience is the aud claim, or one of several.
	Audience string
	// KeysURL is the URL of the issuer's JWK Set. Empty: the discovery document names it.
	KeysURL string
	// TLS is for fetching both; nil means the system's authorities.
	TLS *tls.Config
	// Available, if set, is called once, when the keys have been fetched for the first time.
	Available func()
	Log       *slog.Logger
}

// Tokens verifies the bearer tokens of one issuer. It is safe for concurrent use.
type Tokens struct {
	keys     *keys
	parser   *jwt.Parser
	issuer   string
	verified *lru.Cache[[sha256.Size]byte, verifiedToken]
	now      func() time.Time
}

// A verifiedToken is remembered until it expires, or until its key may have been withdrawn.
type verifiedToken struct {
	subject string
	until   time.Time
}

// NewTokens returns a verifier. Until Identifier.Start has fetched keys, tokens are CallerKeysUnavailable.
func NewTokens(c TokensConfig) *Tokens {
	verified, err := lru.New[[sha256.Size]byte, verifiedToken](cachedTokens)
	if err != nil { // the size is not positive
		panic(err)
	}
	t := &Tokens{keys: newKeys(c), issuer: c.Issuer, verified: verified, now: time.Now}
	t.parser = jwt.NewParser(
		jwt.WithValidMethods(algorithms), jwt.WithIssuer(c.Issuer), jwt.WithAudience(c.Audience), jwt.WithExpirationRequired(), jwt.WithLeeway(leeway),
		jwt.WithTimeFunc(func() time.Time { return t.now() }),
	)
	return t
}

// verifyHeader returns the subject of the token in the values of authorization.
func (t *Tokens) verifyHeader(ctx context.Context, values []string) (string, error) {
	if len(values) > 1 {
		return "", reject("invalid", "the call carries authorization %d times; send one bearer token", len(values))
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "bearer") || token == "" {
		return "", reject("invalid", "authorization is not Bearer and a token, separated by one space")
	}
	if len(token) > maxToken {
		return "", reject("invalid", "the bearer token has %d bytes, the limit is %d", len(token), maxToken)
	}
	return t.verify(ctx, token)
}

// verify returns the subject of a token.
func (t *Tokens) verify(ctx context.Context, token string) (string, error) {
	hash := sha256.Sum256([]byte(token))
	if known, ok := t.verified.Get(hash); ok && t.now().Before(known.until) {
		return known.subject, nil
	}
	// A map, because fields of a structure would be filled from claims in any case: "Sub" would replace "sub".
	claims := jwt.MapClaims{}
	_, err := t.parser.ParseWithClaims(token, claims, func(parsed *jwt.Token) (any, error) {
		if issuer, _ := claims.GetIssuer(); issuer != t.issuer { // so that a token of another issuer causes no fetch
			return nil, jwt.ErrTokenInvalidIssuer
		}
		id, _ := parsed.Header["kid"].(string)
		return t.keys.find(ctx, id, parsed.Method.Alg())
	})
	if err != nil {
		return "", rejectToken(err)
	}
	subject, _ := claims.GetSubject()
	expires, _ := claims.GetExpirationTime() // it was required
	if !validSubject(subject) {
		return "", reject("invalid", "the bearer token has no usable subject; its sub claim must have 1 to %d printable ASCII characters", maxSubject)
	}
	until := expires.Add(leeway)
	if withdrawn := t.now().Add(refreshEvery); withdrawn.Before(until) {
		until = withdrawn
	}
	t.verified.Add(hash, verifiedToken{subject, until})
	return subject, nil
}

// validSubject reports whether a subject can be a name: it is compared with patterns, and logged.
func validSubject(s string) bool {
	return s != "" && len(s) <= maxSubject && !strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c > '~' })
}

// rejectToken returns the error of a token that was not verified. Errors of the parser are not shown: they can contain parts of the
// token.
func rejectToken(err error) error {
	if e, ok := errors.AsType[*share.Error](err); ok {
		return e
	}
	for _, fault := range []struct {
		is        error
		why, text string
	}{
		{jwt.ErrTokenInvalidIssuer, "invalid", "is of another issuer"},
		{errUnknownKey, "invalid", "is signed by a key that is not among the issuer's"},
		{jwt.ErrTokenUnverifiable, "invalid", "has an algorithm that is not accepted"},
		{jwt.ErrTokenSignatureInvalid, "invalid", "has an invalid signature"},
		{jwt.ErrTokenExpired, "expired", "has expired; get a new one"},
		{jwt.ErrTokenNotValidYet, "invalid", "is not valid yet; compare the clocks"},
		{jwt.ErrTokenInvalidAudience, "invalid", "is for another audience"},
		{jwt.ErrTokenRequiredClaimMissing, "invalid", "lacks a required claim: iss, aud, sub and exp are"},
	} {
		if errors.Is(err, fault.is) {
			return reject(fault.why, "the bearer token %s", fault.text)
		}
	}
	return reject("invalid", "the bearer token is malformed")
}
