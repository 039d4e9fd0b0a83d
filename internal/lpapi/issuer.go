package lpapi

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
	"golang.org/x/sync/singleflight"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// keptTokens is how many issued tokens are remembered: some 8 MB.
const keptTokens = 4096

// An Issuer is a brand as LivePerson knows it: who signs the JWTs of its customers (LivePerson: consumer authentication, implicit
// flow). It never prints its key.
type Issuer struct {
	// Name is the "iss" claim, KeyID the "kid" header; empty: none.
	Name, KeyID string
	// Key is an RSA key, which signs by RS256.
	Key crypto.Signer
	// Lifetime is how long a JWT is good for, and with it LivePerson's token.
	Lifetime time.Duration
}

// String hides the key.
func (i Issuer) String() string { return "issuer " + i.Name }

// GoString hides the key from %#v.
func (i Issuer) GoString() string { return i.String() }

// Fingerprint names the issuer and its key, and gives nothing of the key away.
func (i Issuer) Fingerprint() string {
	public, err := x509.MarshalPKIXPublicKey(i.Key.Public())
	if err != nil { // of no kind that signs by RS256 either: see Sign
		return ""
	}
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(public, "\x00%s\x00%s\x00%s", i.Name, i.KeyID, i.Lifetime)))
}

// Sign makes the JWT by which the brand vouches for a customer of an account.
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
	signature, err := i.Key.Sign(rand.Reader, sum[:], crypto.SHA256) // PKCS #1 v1.5, as RS256 wants
	if err != nil {
		return "", errors.New("the issuer's key does not sign")
	}
	return text + "." + token.EncodeSegment(signature), nil
}

// IssuedTokens gets LivePerson's tokens for customers for whom an Issuer vouches, and remembers them for as long as they are good,
// in memory alone. It is safe for concurrent use, and works until its Client is closed.
type IssuedTokens struct {
	client *Client
	issuer func(account string) (Issuer, bool)
	known  *lru.Cache[customerKey, issuedToken]
	asking singleflight.Group
}

// A customerKey is a customer as one issuer with one key knows it: another key's tokens are not used any more.
type customerKey struct{ account, customer, issuer string }

type issuedToken struct {
	share.SignIn
	// renew is when it is not given out any more, though it may still be good.
	renew time.Time
}

// NewIssuedTokens makes one for the issuers that issuer names, which is asked each time.
func NewIssuedTokens(c *Client, issuer func(account string) (Issuer, bool)) (*IssuedTokens, error) {
	known, err := lru.New[customerKey, issuedToken](keptTokens)
	if err != nil {
		return nil, fmt.Errorf("lpapi: %w", err)
	}
	return &IssuedTokens{client: c, issuer: issuer, known: known}, nil
}

// Token gives a consumer token of LivePerson's for a customer: one that is good for a good while yet, and another than instead,
// unless that is empty. Calls that need the same one share one exchange.
//
// IdentityNotConfigured where the account has no issuer; LPCredentialsRejected where LivePerson does not take what it signed; else as
// BaseURL.
func (t *IssuedTokens) Token(ctx context.Context, account, customer, instead string) (share.SignIn, error) {
	issuer, ok := t.issuer(account)
	if !ok {
		return share.SignIn{}, share.Errorf(share.IdentityNotConfigured, "this server does not sign for account "+account+" any more", nil)
	}
	key := customerKey{account, customer, issuer.Fingerprint()}
	if k, ok := t.usable(key, instead); ok {
		return k, nil
	}
	// The exchange belongs to all who wait for it, so that none of their contexts may end it.
	answer := t.asking.DoChan(fmt.Sprintf("%s/%s/%x", key.account, key.issuer, key.customer), func() (any, error) {
		if !t.client.begin() {
			return share.SignIn{}, errGoingDown
		}
		defer t.client.work.Done()
		return t.exchange(key, issuer, instead)
	})
	select {
	case <-ctx.Done():
		return share.SignIn{}, fmt.Errorf("lpapi: getting a token: %w", context.Cause(ctx))
	case a := <-answer:
		if a.Err != nil {
			return share.SignIn{}, a.Err
		}
		return a.Val.(share.SignIn), nil
	}
}

func (t *IssuedTokens) usable(key customerKey, instead string) (share.SignIn, bool) {
	k, ok := t.known.Get(key)
	return k.SignIn, ok && k.Token != instead && t.client.cfg.Now().Before(k.renew)
}

// exchange signs a JWT and trades it.
func (t *IssuedTokens) exchange(key customerKey, issuer Issuer, instead string) (share.SignIn, error) {
	if k, ok := t.usable(key, instead); ok { // got while this call was on its way here
		return k, nil
	}
	now := t.client.cfg.Now()
	vouched, err := issuer.Sign(key.account, key.customer, now)
	if err != nil {
		return share.SignIn{}, share.Errorf(share.Internal, "the server's key for account "+key.account+" cannot sign", err)
	}
	in, err := t.client.Authenticate(t.client.ctx, key.account, vouched)
	if old, ok := t.known.Get(key); err != nil && ok && old.Token != instead && now.Before(old.Expires) {
		t.client.log.Warn("the next token of a consumer could not be got; going on with the one from before", "account", key.account, "error", err)
		return old.SignIn, nil
	}
	switch {
	case share.Is(err, share.LPCredentialsRejected) && !errors.Is(err, errNoService):
		return share.SignIn{}, share.Errorf(share.LPCredentialsRejected, "LivePerson does not take what this server signs for account "+key.account+
			"; the operator checks that issuer, key and key id are those that are registered there", err)
	case err != nil && share.KindOf(err) == "": // only Close ends the client's context
		return share.SignIn{}, errGoingDown
	case err != nil:
		return share.SignIn{}, err
	}
	k := issuedToken{SignIn: in, renew: now.Add(issuer.Lifetime / 2)}
	if !in.Expires.IsZero() {
		left := in.Expires.Sub(now)
		k.renew = now.Add(left*3/4 + randv2.N(max(left/10, 1))) // not all at once
	}
	t.known.Add(key, k)
	return in, nil
}
