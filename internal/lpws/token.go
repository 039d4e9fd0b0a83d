package lpws

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// maxToken is the maximum length of a credential, in bytes. LivePerson's tokens are shorter than 2,048.
const maxToken = 8 << 10

// checkToken rejects strings that cannot be a token. It prevents injection into headers and paths.
func checkToken(secret string) error {
	if secret == "" || len(secret) > maxToken {
		return share.Errorf(share.TokenInvalid, "the token is empty or too long", nil)
	}
	for _, c := range []byte(secret) {
		if c <= ' ' || c >= 0x7f {
			return share.Errorf(share.TokenInvalid, "the token contains invalid characters", nil)
		}
	}
	return nil
}

// claims are the claims of a consumer's token. The signature is not checked here: LivePerson checks it when the socket is opened.
type claims struct {
	Subject  string
	Audience []string
	Expires  time.Time // zero if absent
}

// readClaims reads the claims of a token, and reports whether it is a JWT. It must not be used to decide whether to trust the token.
func readClaims(token string) (claims, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return claims{}, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return claims{}, false
	}
	var raw struct {
		Sub lpwire.Text              `json:"sub"`
		Aud lpwire.List[lpwire.Text] `json:"aud"`
		Exp lpwire.Number            `json:"exp"`
	}
	if json.Unmarshal(payload, &raw) != nil {
		return claims{}, false
	}
	c := claims{Subject: string(raw.Sub)}
	for _, a := range raw.Aud {
		c.Audience = append(c.Audience, string(a))
	}
	if raw.Exp.OK && raw.Exp.N > 0 {
		c.Expires = time.Unix(raw.Exp.N, 0)
	}
	return c, true
}

// isFor reports whether the token was issued for account.
func (c claims) isFor(account string) bool { return slices.Contains(c.Audience, "acc:"+account) }

// errOtherAccount returns the error for a credential of another account than the requested one.
func errOtherAccount() error {
	return share.Errorf(share.NotAllowed, "the identity belongs to another account than the requested resource", nil)
}

// errExpired returns the error for an expired credential.
func errExpired() error {
	return share.Errorf(share.TokenInvalid, "the token has expired; renew it or sign in again", nil)
}
