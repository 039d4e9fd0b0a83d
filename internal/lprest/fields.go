package lprest

import (
	"bytes"
	"encoding/json"
	"errors"
	"regexp"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

var connectorID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// CheckAccount fails with InvalidField for text that cannot be an account id, which could change the path of a URL.
func CheckAccount(account string) error {
	if share.ValidAccountID(account) {
		return nil
	}
	return invalid("account", "not a LivePerson account id: "+share.AccountIDRule)
}

func invalid(field, description string) *share.Error {
	e := share.Errorf(share.InvalidField, field+" is "+description, nil)
	e.Violations = []share.Violation{{Field: field, Description: description}}
	return e
}

// text is a JSON member that LivePerson writes as a string, and that may also be a number or a boolean. Unlike lpwire.Text it
// rejects anything else: a login or a setting must be read exactly.
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
