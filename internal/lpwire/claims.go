package lpwire

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Claims are what a LivePerson token says. Nothing verifies them here: LivePerson does, when the token is used.
type Claims struct {
	// Subject is "sub", the consumer.
	Subject string
	// Audience is "aud": "acc:" and the account's id.
	Audience []string
	// Issued, NotBefore and Expires are "iat", "nbf" and "exp", in whole seconds; zero where the token does not have them.
	Issued, NotBefore, Expires time.Time
	// Account, Consumer and ExternalConsumer are "account_id", "lp_consumer_id" and "ext_consumer_id" of the Connector API's tokens.
	Account, Consumer, ExternalConsumer string
}

// For reports whether the token was issued for account.
func (c Claims) For(account string) bool { return slices.Contains(c.Audience, "acc:"+account) }

// Leeway is how far the clocks of LivePerson and this server may differ. LivePerson decides whether a token is valid, so the server
// does not reject one for its times until it is sure.
const Leeway = 10 * time.Second

// Expired reports whether a token that expires at a time has certainly expired; false for a zero time, which means never.
func Expired(expires, now time.Time) bool {
	return !expires.IsZero() && !now.Before(expires.Add(Leeway))
}

// Early reports whether the token is certainly not valid yet.
func (c Claims) Early(now time.Time) bool { return now.Add(Leeway).Before(c.NotBefore) }

// ReadClaims reads the claims of a JWT without verifying its signature. It fails if token is not a JWT, or has a time that cannot be
// read: a token whose expiry cannot be read must not count as one without expiry.
func ReadClaims(token string) (Claims, error) {
	var raw struct {
		jwt.Claims `json:"-"` // for the parser, which does not call it
		Subject    Text       `json:"sub"`
		Audience   List[Text] `json:"aud"`
		Issued     epoch      `json:"iat"`
		NotBefore  epoch      `json:"nbf"`
		Expires    epoch      `json:"exp"`
		Account    Text       `json:"account_id"`
		Consumer   Text       `json:"lp_consumer_id"`
		External   Text       `json:"ext_consumer_id"`
	}
	// The error is not wrapped, because it may show parts of the token. An unknown algorithm is not an error: nothing is verified.
	_, _, err := jwt.NewParser(jwt.WithPaddingAllowed()).ParseUnverified(token, &raw)
	if err != nil && !errors.Is(err, jwt.ErrTokenUnverifiable) {
		return Claims{}, errors.New("not a JWT")
	}
	c := Claims{
		Subject: string(raw.Subject), Issued: raw.Issued.Time, NotBefore: raw.NotBefore.Time, Expires: raw.Expires.Time,
		Account: string(raw.Account), Consumer: string(raw.Consumer), ExternalConsumer: string(raw.External),
	}
	for _, audience := range raw.Audience {
		c.Audience = append(c.Audience, string(audience))
	}
	return c, nil
}

// epoch is a time in seconds, which may have a fraction or be a string.
type epoch struct{ time.Time }

// maxEpoch is the end of the year 9999, the last time that a Timestamp of protobuf can have.
const maxEpoch = 253402300799

// UnmarshalJSON cuts off fractions, so that a token never counts as valid for longer than it is. Times before 1970 become 1970, and
// those after the year 9999 its end. null is the zero time. It fails for anything that is not a number in JSON's syntax.
func (e *epoch) UnmarshalJSON(data []byte) error {
	if isNull(json.RawMessage(data)) {
		return nil
	}
	var t Text
	_ = t.UnmarshalJSON(data)
	seconds, err := strconv.ParseFloat(string(t), 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) || !json.Valid([]byte(t)) { // ParseFloat also knows NaN, Inf and hexadecimal
		return fmt.Errorf("not a time: %.20s", data)
	}
	e.Time = time.Unix(int64(min(max(seconds, 0), maxEpoch)), 0)
	return nil
}
