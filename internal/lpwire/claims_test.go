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
		`{"exp":0}`:                         {Expires: time.Unix(0, 0)},
		`{"exp":-1}`:                        {Expires: time.Unix(0, 0)},
		`{"exp":"-1.5"}`:                    {Expires: time.Unix(0, 0)},
		`{"exp":-1e300}`:                    {Expires: time.Unix(0, 0)},
		`{"exp":1900000000000}`:             {Expires: time.Unix(maxEpoch, 0)}, // milliseconds
		`{"exp":1e300}`:                     {Expires: time.Unix(maxEpoch, 0)},
		`{"exp":1e999}`:                     {Expires: time.Unix(maxEpoch, 0)},
		`{"exp":18446744073709551616}`:      {Expires: time.Unix(maxEpoch, 0)},
		`{"exp":"9223372036854775807"}`:     {Expires: time.Unix(maxEpoch, 0)},
		`{"exp":"1900000000.9"}`:            {Expires: time.Unix(1_900_000_000, 0)},
		`{"nbf":1900000000.5,"iat":"1800000000.5"}`: {
			NotBefore: time.Unix(1_900_000_000, 0), Issued: time.Unix(1_800_000_000, 0),
		},
		`{"nbf":null,"iat":null}`: {},
		`{"exp":null}`:            {},
		`{}`:                      {},
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
		"expiry in words":   token(header, `{"exp":"soon"}`),
		"empty expiry":      token(header, `{"exp":""}`),
		"expiry of NaN":     token(header, `{"exp":"NaN"}`),
		"infinite expiry":   token(header, `{"exp":"Infinity"}`),
		"expiry in hex":     token(header, `{"exp":"0x71fed000"}`),
		"expiry and blank":  token(header, `{"exp":" 1900000000"}`),
		"expiry as a date":  token(header, `{"exp":"2030-03-17T17:46:40Z"}`),
		"expiry of objects": token(header, `{"exp":{"seconds":1900000000}}`),
		"expiry as a list":  token(header, `{"exp":[1900000000]}`),
		"unreadable issue":  token(header, `{"iat":true}`),
		"unreadable start":  token(header, `{"nbf":"now"}`),
	} {
		if got, err := ReadClaims(bad); err == nil || strings.Contains(err.Error(), "sign") {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestLeeway(t *testing.T) {
	now := time.Unix(1_900_000_000, 0)
	for _, test := range []struct {
		at             time.Time
		expired, early bool // of a token that expires, or begins, then
	}{
		{time.Time{}, false, false},
		{time.Unix(0, 0), true, false},
		{now.Add(-Leeway), true, false},
		{now.Add(-Leeway + time.Nanosecond), false, false},
		{now, false, false},
		{now.Add(Leeway), false, false},
		{now.Add(Leeway + time.Nanosecond), false, true},
		{time.Unix(maxEpoch, 0), false, true},
	} {
		if got := Expired(test.at, now); got != test.expired {
			t.Errorf("expires %v: %v", test.at, got)
		}
		if got := (Claims{NotBefore: test.at}).Early(now); got != test.early {
			t.Errorf("begins %v: %v", test.at, got)
		}
	}
}

func TestClaims_For(t *testing.T) {
	c := Claims{Audience: []string{"acc:1", "2"}}
	if !c.For("1") || c.For("2") || c.For("") {
		t.Error("a token is for the accounts of its audience only")
	}
}
