package sandbox

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

// sign makes what stands in a signed URL: temp_url_sig and temp_url_expires. path is the decoded path, from /v1/ on.
func (st *store) sign(method, path string, expires time.Time) (sig, exp string) {
	exp = strconv.FormatInt(expires.Unix(), 10)
	newHash := sha1.New
	if st.Digest == "sha256" {
		newHash = sha256.New
	}
	return hex.EncodeToString(hmacOf(newHash, st.Key, method, exp, path)), exp
}

// hmacOf is Swift's signature of one method, expiry and path.
func hmacOf(newHash func() hash.Hash, key, method, expires, path string) []byte {
	h := hmac.New(newHash, []byte(key))
	h.Write([]byte(method + "\n" + expires + "\n" + path))
	return h.Sum(nil)
}

// signers names the methods whose signature opens a request of each method. HEAD tells less than any of the others.
var signers = map[string][]string{
	http.MethodGet:    {http.MethodGet},
	http.MethodHead:   {http.MethodHead, http.MethodGet, http.MethodPut, http.MethodPost},
	http.MethodPut:    {http.MethodPut},
	http.MethodPost:   {http.MethodPost},
	http.MethodDelete: {http.MethodDelete},
}

// authorize answers a request that is not signed for what it asks, and otherwise fills in where it leads. Every refusal of a
// signature is the same answer, as a Swift tells nobody which part was wrong; the log does.
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
		return refuse("no path of an object in " + swiftAccount)
	}
	if _, ok := q["temp_url_prefix"]; ok {
		// LivePerson signs neither of the two, and a plain signature with one of them added is a bad one.
		return refuse("temp_url_prefix was added")
	}
	if _, ok := q["temp_url_ip_range"]; ok {
		return refuse("temp_url_ip_range was added")
	}
	signed, until, ok := parseExpiry(exp)
	if !ok {
		return refuse("temp_url_expires is no time")
	}
	if x.fault.Expire || x.st.Now().After(until) {
		return refuse("expired")
	}
	newHash, given, ok := parseSignature(sig)
	if !ok {
		return refuse("temp_url_sig is no signature")
	}
	match := 0
	for _, method := range signers[x.r.Method] {
		match |= subtle.ConstantTimeCompare(given, hmacOf(newHash, x.st.Key, method, signed, x.r.URL.Path))
	}
	if match != 1 {
		return refuse("the signature is for another method, expiry or path, or by another key")
	}
	x.path, x.container, x.query, x.expires = x.r.URL.Path, container, q, until
	return nil
}

// needsToken is the answer to a request without a signature: only a token would help, and the sandbox gives none out.
func (x *exchange) needsToken() *answer {
	realm := "unknown"
	if parts := strings.SplitN(x.r.URL.Path, "/", 4); len(parts) > 2 && parts[1] == "v1" && parts[2] == swiftAccount {
		realm = swiftAccount
	}
	x.log("unsigned request refused")
	a := swiftError(http.StatusUnauthorized)
	a.header.Set("Www-Authenticate", `Swift realm="`+realm+`"`)
	return a
}

// objectPath reports whether u leads to an object of the store's account, and the container that it would be in. Only the
// slashes that divide account, container and object count: everything behind them is a plain name.
func objectPath(u *url.URL) (container string, ok bool) {
	parts := strings.SplitN(u.Path, "/", 5)
	if u.IsAbs() || len(parts) < 5 || parts[0] != "" || parts[1] != "v1" || parts[2] != swiftAccount || parts[3] == "" || parts[4] == "" {
		return "", false
	}
	return strings.Join(parts[:4], "/"), true
}

// parseQuery reads a query as Swift's Python does: the first of a name counts, a semicolon divides nothing, and what is badly
// encoded stands for itself.
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

// isoTime is the only form of temp_url_expires that is not a number.
const isoTime = "2006-01-02T15:04:05Z"

// parseExpiry reads temp_url_expires: the number that was signed, in its plain form, and the time that it means.
func parseExpiry(s string) (signed string, until time.Time, ok bool) {
	if t, err := time.Parse(isoTime, s); err == nil && len(s) == len(isoTime) {
		return strconv.FormatInt(t.Unix(), 10), t, true
	}
	if signed, ok = pythonInt(s); !ok {
		return "", time.Time{}, false
	}
	// There is no upper limit, but a time.Time has one: whatever is beyond the year 30000 is simply far away.
	const farAway = 1_000_000_000_000
	seconds, err := strconv.ParseInt(signed, 10, 64)
	if err != nil || seconds > farAway {
		seconds = farAway
	}
	return signed, time.Unix(seconds, 0), true
}

// pythonInt reads what Python's int() takes for a number that is not negative, and returns it in its plain form: there may be
// blanks around it, a plus, leading zeros, and single underscores between digits.
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

// parseSignature reads temp_url_sig, whose length or prefix tells the digest.
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
