package lpapi

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

var (
	accountID   = regexp.MustCompile(`^[A-Za-z0-9]{1,32}$`)
	connectorID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
)

// maxToken is the longest token that is taken from LivePerson or sent there, in bytes.
const maxToken = 16 << 10

// checkAccount refuses what could change the path of a URL.
func checkAccount(account string) error {
	if accountID.MatchString(account) {
		return nil
	}
	return invalid("account", "not the number of a LivePerson account: letters and digits, 32 at most")
}

func invalid(field, description string) *share.Error {
	e := share.Errorf(share.InvalidField, field+" is "+description, nil)
	e.Violations = []share.Violation{{Field: field, Description: description}}
	return e
}

// isToken reports whether s can be a token: printable ASCII without blanks, as it must go into headers and paths.
func isToken(s string) bool {
	for _, b := range []byte(s) {
		if b <= ' ' || b >= 0x7f {
			return false
		}
	}
	return s != "" && len(s) <= maxToken
}

// text is a member that LivePerson writes as a string, and a careful reader takes as a number or boolean too.
type text string

// UnmarshalJSON reads a string, a number or a boolean; null leaves the text empty.
func (t *text) UnmarshalJSON(data []byte) error {
	switch {
	case string(data) == "null":
		return nil
	case data[0] == '"':
		return json.Unmarshal(data, (*string)(t))
	case bytes.ContainsAny(data[:1], "[{"):
		return errors.New("not a text")
	}
	*t = text(data)
	return nil
}

// readJWT reads from a consumer token that LivePerson has just given who it is for and when it ends (LivePerson: consumer authentication). Nothing
// is verified: it came from LivePerson, and LivePerson will judge it. Expires is zero where the token does not say.
func readJWT(token string) (sub string, expires time.Time, err error) {
	bad := errors.New("not a JWT with a subject")
	parts := strings.Split(token, ".")
	if len(parts) != 3 || !isToken(token) {
		return "", time.Time{}, bad
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return "", time.Time{}, bad
	}
	var claims struct {
		Sub string   `json:"sub"`
		Exp *float64 `json:"exp"`
	}
	if json.Unmarshal(raw, &claims) != nil || claims.Sub == "" {
		return "", time.Time{}, bad
	}
	if claims.Exp != nil {
		if *claims.Exp <= 0 || *claims.Exp > 1<<40 {
			return "", time.Time{}, bad
		}
		expires = time.Unix(int64(*claims.Exp), 0)
	}
	return claims.Sub, expires, nil
}
