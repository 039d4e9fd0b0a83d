package swift

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// A Signer signs URLs.
type Signer struct {
	// Key is the secret.
	Key string
	// Digest is "sha1" or "sha256". A store accepts all of Swift's digests regardless.
	Digest string
}

// Sign returns the parameters temp_url_sig and temp_url_expires of a signed URL. path is the decoded path, from /v1/ on.
func (s Signer) Sign(method, path string, expires time.Time) (sig, exp string) {
	exp = strconv.FormatInt(expires.Unix(), 10)
	newHash := sha1.New
	if s.Digest == "sha256" {
		newHash = sha256.New
	}
	return hex.EncodeToString(hmacOf(newHash, s.Key, method, exp, path)), exp
}

// hmacOf returns Swift's signature of a method, expiry and path.
func hmacOf(newHash func() hash.Hash, key, method, expires, path string) []byte {
	h := hmac.New(newHash, []byte(key))
	h.Write([]byte(method + "\n" + expires + "\n" + path))
	return h.Sum(nil)
}

// signers lists, for each method of a request, the methods whose signature permits it.
var signers = map[string][]string{
	http.MethodGet:    {http.MethodGet},
	http.MethodHead:   {http.MethodHead, http.MethodGet, http.MethodPut, http.MethodPost},
	http.MethodPut:    {http.MethodPut},
	http.MethodPost:   {http.MethodPost},
	http.MethodDelete: {http.MethodDelete},
}

// authorize returns the refusal of a request whose signature does not permit it, and otherwise sets path, container, query and
// expires. Every refusal is the same answer, because Swift does not reveal which part was wrong; the log has the reason.
func (x *exchange) authorize() *answer {
	q := parseQuery(x.r.URL.RawQuery)
	sig, hasSig := q["temp_url_sig"]
	exp, hasExp := q["temp_url_expires"]
	if !hasSig && !hasExp {
		return x.needsToken()
	}
	refuse := func(why string) *answer {
		x.log("signed URL refused", "why", why)
		a := newAnswer(http.StatusUnauthorized)
		a.header.Set("Www-Authenticate", `Swift realm="unknown"`)
		a.html("401 Unauthorized: Temp URL invalid\n")
		return a
	}

	container, ok := objectPath(x.r.URL)
	if !ok {
		return refuse("no path of an object in " + account)
	}
	if _, ok := q["temp_url_prefix"]; ok {
		// LivePerson signs neither of the two parameters, and a plain signature does not cover them.
		return refuse("temp_url_prefix is not covered by the signature")
	}
	if _, ok := q["temp_url_ip_range"]; ok {
		return refuse("temp_url_ip_range is not covered by the signature")
	}
	signed, until, ok := parseExpiry(exp)
	if !ok {
		return refuse("temp_url_expires is not a time")
	}
	if x.fault.Expire || x.st.Now().After(until) {
		return refuse("expired")
	}
	newHash, given, ok := parseSignature(sig)
	if !ok {
		return refuse("temp_url_sig is malformed")
	}
	match := 0
	for _, method := range signers[x.r.Method] {
		match |= subtle.ConstantTimeCompare(given, hmacOf(newHash, x.st.Key, method, signed, x.r.URL.Path))
	}
	if match != 1 {
		return refuse("the signature does not match the method, expiry, path and key")
	}
	x.path, x.container, x.query, x.expires = x.r.URL.Path, container, q, until
	return nil
}

// needsToken returns the answer to a request without a signature. Swift would accept a token; the sandbox issues none.
func (x *exchange) needsToken() *answer {
	realm := "unknown"
	if parts := strings.SplitN(x.r.URL.Path, "/", 4); len(parts) > 2 && parts[1] == "v1" && parts[2] == account {
		realm = account
	}
	x.log("unsigned request refused")
	a := swiftError(http.StatusUnauthorized)
	a.header.Set("Www-Authenticate", `Swift realm="`+realm+`"`)
	return a
}

// objectPath returns the container of the object that u names, and false if u does not name an object of the store's account.
// Only the slashes that separate account, container and object matter: the rest is the object's name.
func objectPath(u *url.URL) (container string, ok bool) {
	parts := strings.SplitN(u.Path, "/", 5)
	if u.IsAbs() || len(parts) < 5 || parts[0] != "" || parts[1] != "v1" || parts[2] != account || parts[3] == "" || parts[4] == "" {
		return "", false
	}
	return strings.Join(parts[:4], "/"), true
}

// parseQuery parses a query as Swift's Python does: the first value of a name counts, a semicolon is not a separator, and a
// badly encoded string is kept as it is.
func parseQuery(raw string) map[string]string {
	q := map[string]string{}
	for pair := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(pair, "=")
		name = unescape(name)
		if _, given := q[name]; !given && name != "" {
			q[name] = unescape(value)
		}
	}
	return q
}

func unescape(s string) string {
	plain, err := url.QueryUnescape(s)
	if err != nil {
		return s
	}
	return plain
}

// isoTime is the only accepted form of temp_url_expires besides a number.
const isoTime = "2006-01-02T15:04:05Z"

// parseExpiry parses temp_url_expires. signed is the number that the signature covers, in decimal.
func parseExpiry(s string) (signed string, until time.Time, ok bool) {
	if t, err := time.Parse(isoTime, s); err == nil && len(s) == len(isoTime) {
		return strconv.FormatInt(t.Unix(), 10), t, true
	}
	if signed, ok = pythonInt(s); !ok {
		return "", time.Time{}, false
	}
	// Swift has no upper limit, but time.Time has one.
	const farAway = 1_000_000_000_000
	seconds, err := strconv.ParseInt(signed, 10, 64)
	if err != nil || seconds > farAway {
		seconds = farAway
	}
	return signed, time.Unix(seconds, 0), true
}

// pythonInt parses a non-negative number as Python's int() does, and returns its digits: spaces around it, a plus sign, leading
// zeros and single underscores between digits are allowed.
func pythonInt(s string) (plain string, ok bool) {
	digits := strings.TrimPrefix(strings.TrimSpace(s), "+")
	if strings.HasPrefix(digits, "_") || strings.HasSuffix(digits, "_") || strings.Contains(digits, "__") {
		return "", false
	}
	digits = strings.ReplaceAll(digits, "_", "")
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return "", false
	}
	if plain = strings.TrimLeft(digits, "0"); plain == "" {
		plain = "0"
	}
	return plain, true
}

// parseSignature parses temp_url_sig, whose length or prefix determines the digest.
func parseSignature(s string) (newHash func() hash.Hash, sum []byte, ok bool) {
	if name, text, ok := strings.Cut(s, ":"); ok {
		switch name {
		case "sha1":
			newHash = sha1.New
		case "sha256":
			newHash = sha256.New
		case "sha512":
			newHash = sha512.New
		default:
			return nil, nil, false
		}
		text = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
		sum, err := base64.RawStdEncoding.DecodeString(text)
		return newHash, sum, err == nil
	}
	switch len(s) {
	case 2 * sha1.Size:
		newHash = sha1.New
	case 2 * sha256.Size:
		newHash = sha256.New
	case 2 * sha512.Size:
		newHash = sha512.New
	default:
		return nil, nil, false
	}
	sum, err := hex.DecodeString(s)
	return newHash, sum, err == nil && s == strings.ToLower(s)
}
