package lpwire

import (
	"encoding/base64"
	"reflect"
	"strings"
	"testing"
	"time"
)

func token(header, claims string) string {
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(header)) + "." + enc([]byte(claims)) + "." + enc([]byte("signature"))
}

func TestReadClaims(t *testing.T) {
	const header = `{"alg":"RS256","typ":"JWT"}`
	for claims, want := range map[string]Claims{
		`{"sub":"s","aud":"acc:1","iat":1800000000,"exp":1900000000}`: {
			Subject: "s", Audience: []string{"acc:1"}, Issued: time.Unix(1_800_000_000, 0), Expires: time.Unix(1_900_000_000, 0),
		},
		`{"sub":7,"aud":["acc:1","acc:2"]}`: {Subject: "7", Audience: []string{"acc:1", "acc:2"}},
		`{"exp":1900000000.75}`:             {Expires: time.Unix(1_900_000_000, 0)},
		`{"exp":1.9e9}`:                     {Expires: time.Unix(1_900_000_000, 0)},
		`{"exp":"1900000000"}`:              {Expires: time.Unix(1_900_000_000, 0)},
		`{"exp":0.5}`:                       {Expires: time.Unix(0, 0)},
		`{"exp":null}`:                      {},
		`{}`:                                {},
		`{"account_id":"1","lp_consumer_id":"c","ext_consumer_id":5}`: {Account: "1", Consumer: "c", ExternalConsumer: "5"},
	} {
		for _, header := range []string{header, `{"alg":"none"}`, `{"alg":"PRIVATE"}`, `{}`} {
			if got, err := ReadClaims(token(header, claims)); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s of %s: %+v, %v; want %+v", claims, header, got, err, want)
			}
		}
		padded := strings.Split(token(header, claims), ".")
		padded[1] += strings.Repeat("=", (4-len(padded[1])%4)%4)
		if got, err := ReadClaims(strings.Join(padded, ".")); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s with padding: %+v, %v", claims, got, err)
		}
	}
	for name, bad := range map[string]string{
		"nothing":           "",
		"one part":          "abc",
		"two parts":         "e30.e30",
		"four parts":        token(header, `{}`) + ".x",
		"no JSON":           token(header, `x`),
		"a list":            token(header, `[]`),
		"no header":         "x." + strings.SplitN(token(header, `{}`), ".", 2)[1],
		"no base64":         strings.Replace(token(header, `{}`), ".", ".$", 1),
		"expiry of nothing": token(header, `{"exp":0}`),
		"negative expiry":   token(header, `{"exp":-1}`),
		"absurd expiry":     token(header, `{"exp":1e300}`),
		"expiry in words":   token(header, `{"exp":"soon"}`),
		"expiry as a list":  token(header, `{"exp":[1900000000]}`),
		"unreadable issue":  token(header, `{"iat":true}`),
	} {
		if got, err := ReadClaims(bad); err == nil || strings.Contains(err.Error(), "sign") {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestClaims_For(t *testing.T) {
	c := Claims{Audience: []string{"acc:1", "2"}}
	if !c.For("1") || c.For("2") || c.For("") {
		t.Error("a token is for the accounts of its audience only")
	}
}
