package liveperson

import (
	"crypto/rand"
	"crypto/rsa"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// A Signer signs and verifies LivePerson's JWTs.
type Signer struct{ key *rsa.PrivateKey }

// NewSigner generates a key.
func NewSigner() (*Signer, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	return &Signer{key}, nil
}

// Sign returns a token with the claims.
func (s *Signer) Sign(claims jwt.MapClaims) (string, error) {
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	token.Header["kid"] = "000001"
	return token.SignedString(s.key)
}

// Parse verifies the signature of a token and, at the time now, its validity, and decodes its claims. The claims are set even
// if only the time is wrong, in which case the error is jwt.ErrTokenExpired.
func (s *Signer) Parse(token string, claims jwt.Claims, now func() time.Time, options ...jwt.ParserOption) error {
	options = append(options, jwt.WithValidMethods([]string{"RS256"}), jwt.WithTimeFunc(now))
	_, err := jwt.ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return &s.key.PublicKey, nil }, options...)
	return err
}

// WholeSeconds rounds t up to a second, so that a token, whose times are whole seconds, does not expire early.
func WholeSeconds(t time.Time) time.Time {
	return t.Add(time.Second - time.Nanosecond).Truncate(time.Second)
}
