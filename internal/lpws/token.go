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

// maxToken is the longest credential that is taken, in bytes. LivePerson's tokens stay well under 2,048.
const maxToken = 8 << 10

// checkToken refuses what cannot be a token at all, and what could break out of a header or a path.
func checkToken(secret string) error {
	if secret == "" || len(secret) > maxToken {
		return share.Errorf(share.TokenInvalid, "the token is empty or too long", nil)
	}
	for _, c := range []byte(secret) {
		if c <= ' ' || c >= 0x7f {
			return share.Errorf(share.TokenInvalid, "the token has characters that tokens do not have", nil)
		}
	}
	return nil
}

// claims are what a consumer's token says. Nothing checks its signature here: LivePerson does, by opening the socket.
type claims struct {
	Subject  string
	Audience []string
	Expires  time.Time // zero: not said
}

// readClaims reads a token that LivePerson has accepted.
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

// of reports whether the token was issued for account.
func (c claims) of(account string) bool { return slices.Contains(c.Audience, "acc:"+account) }

// errOtherAccount answers a credential that is good, if at all, for another account than the one that is asked for.
func errOtherAccount() error {
	return share.Errorf(share.NotAllowed, "the identity belongs to another account than the resource that was named", nil)
}

// errExpired answers a credential whose time is up.
func errExpired() error {
	return share.Errorf(share.TokenInvalid, "the token has expired; renew it or sign in again", nil)
}
