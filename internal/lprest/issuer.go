package lprest

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	randv2 "math/rand/v2"
	"time"

	"github.com/golang-jwt/jwt/v5"
	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// keptTokens is how many issued tokens are cached: about 8 MB.
const keptTokens = 4096

// An Issuer signs JWTs for a brand's customers, and is registered with LivePerson (consumer authentication, implicit flow). It
// never prints its key.
type Issuer struct {
	// Name is the "iss" claim. KeyID is the "kid" header; empty means none.
	Name, KeyID string
	// Key is an RSA key, for RS256.
	Key crypto.Signer
	// Lifetime is the lifetime of a JWT, and with it of LivePerson's token.
	Lifetime time.Duration
}

// String hides the key.
func (i Issuer) String() string { return "issuer " + i.Name }

// GoString hides the key from %#v.
func (i Issuer) GoString() string { return i.String() }

// Fingerprint identifies the issuer and its key without revealing the key.
func (i Issuer) Fingerprint() string {
	public, err := x509.MarshalPKIXPublicKey(i.Key.Public())
	if err != nil { // such a key cannot sign by RS256 either: see Sign
		return ""
	}
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(public, "\x00%s\x00%s\x00%s", i.Name, i.KeyID, i.Lifetime)))
}

// Sign returns the JWT that vouches for a customer of an account.
func (i Issuer) Sign(account, customer string, now time.Time) (string, error) {
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iss": i.Name, "sub": customer, "aud": "acc:" + account, "iat": now.Unix(), "exp": now.Add(i.Lifetime).Unix(),
	})
	if i.KeyID != "" {
		token.Header["kid"] = i.KeyID
	}
	text, err := token.SigningString()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(text))
	signature, err := i.Key.Sign(rand.Reader, sum[:], crypto.SHA256) // PKCS #1 v1.5, as RS256 requires
	if err != nil {
		return "", errors.New("the issuer's key cannot sign")
	}
	return text + "." + token.EncodeSegment(signature), nil
}

// IssuedTokens gets LivePerson's tokens for customers for whom an Issuer vouches, and caches them in memory while they are valid.
// It is safe for concurrent use, until its Client is closed.
type IssuedTokens struct {
	client   *Client
	issuer   func(account string) (Issuer, bool)
	known    *lru.Cache[customerKey, issuedToken]
	exchange *Shared[share.SignIn]
}

// A customerKey identifies a customer vouched for by one issuer with one key: tokens obtained with another key are not used.
type customerKey struct{ account, customer, issuer string }

type issuedToken struct {
	share.SignIn
	// renew is the time from which the token is not returned any more, although it may still be valid.
	renew time.Time
}

// NewIssuedTokens returns an IssuedTokens that calls issuer for the issuer of an account each time.
func NewIssuedTokens(c *Client, issuer func(account string) (Issuer, bool)) (*IssuedTokens, error) {
	known, err := lru.New[customerKey, issuedToken](keptTokens)
	if err != nil {
		return nil, fmt.Errorf("lprest: %w", err)
	}
	return &IssuedTokens{client: c, issuer: issuer, known: known, exchange: NewShared[share.SignIn](c, "getting a token")}, nil
}

// Token returns a consumer token for a customer that stays valid for a while. It is not the token rejected, unless that is empty.
// Concurrent calls for the same token share one exchange.
//
// It fails with IdentityNotConfigured if the account has no issuer, LPCredentialsRejected if LivePerson rejects what it signed,
// otherwise as BaseURL.
func (t *IssuedTokens) Token(ctx context.Context, account, customer, rejected string) (share.SignIn, error) {
	issuer, ok := t.issuer(account)
	if !ok {
		return share.SignIn{}, share.Errorf(share.IdentityNotConfigured, "this server no longer signs for account "+account, nil)
	}
	key := customerKey{account, customer, issuer.Fingerprint()}
	if k, ok := t.usable(key, rejected); ok {
		return k, nil
	}
	return t.exchange.Do(ctx, fmt.Sprintf("%s/%s/%x", key.account, key.issuer, key.customer), func(ctx context.Context) (share.SignIn, error) {
		return t.obtain(ctx, key, issuer, rejected)
	})
}

func (t *IssuedTokens) usable(key customerKey, rejected string) (share.SignIn, bool) {
	k, ok := t.known.Get(key)
	return k.SignIn, ok && k.Token != rejected && t.client.cfg.Now().Before(k.renew)
}

// obtain signs a JWT and exchanges it for a token.
func (t *IssuedTokens) obtain(ctx context.Context, key customerKey, issuer Issuer, rejected string) (share.SignIn, error) {
	if k, ok := t.usable(key, rejected); ok { // obtained by another call since this one looked
		return k, nil
	}
	now := t.client.cfg.Now()
	vouched, err := issuer.Sign(key.account, key.customer, now)
	if err != nil {
		return share.SignIn{}, share.Errorf(share.Internal, "the server's key for account "+key.account+" cannot sign", err)
	}
	in, err := t.client.Authenticate(ctx, key.account, vouched)
	if old, ok := t.known.Get(key); err != nil && ok && old.Token != rejected && now.Before(old.Expires) {
		t.client.log.Warn("no new token for a consumer; using the previous one", "account", key.account, "error", err)
		return old.SignIn, nil
	}
	switch {
	case share.Is(err, share.LPCredentialsRejected) && !errors.Is(err, errNoService):
		return share.SignIn{}, share.Errorf(share.LPCredentialsRejected, "LivePerson rejects what this server signs for account "+key.account+
			"; the operator must check that issuer, key and key id match those registered with LivePerson", err)
	case err != nil:
		return share.SignIn{}, err
	}
	k := issuedToken{SignIn: in, renew: now.Add(issuer.Lifetime / 2)}
	if !in.Expires.IsZero() {
		left := in.Expires.Sub(now)
		k.renew = now.Add(left/4*3 + randv2.N(max(left/10, 1))) // spread, so that renewals do not coincide; divided before it can overflow
	}
	t.known.Add(key, k)
	return in, nil
}
