package share

import "strings"

// An ETag is the entity tag of a stored object, in the form that callers get: the text without quotes for a strong one, W/"text" for
// a weak one, empty if not known. ParseETag accepts its own results, so a caller can send an ETag back.
type ETag string

// maxETag is the maximum length of an ETag. Longer ones count as not known.
const maxETag = 128

// md5Digits is the length of an MD5 in hexadecimal.
const md5Digits = 32

// ParseETag reads the value of an ETag header, or an ETag that a caller sends back: quoted or, as Swift sends it, without quotes;
// with W/ before it if it is weak. What is no ETag, and an empty one, is "".
func ParseETag(s string) ETag {
	s = strings.TrimSpace(s)
	text, weak := strings.CutPrefix(s, "W/")
	if len(text) >= 2 && text[0] == '"' && text[len(text)-1] == '"' {
		text = text[1 : len(text)-1]
	}
	if text == "" || len(text) > maxETag-len(`W/""`) {
		return ""
	}
	for _, c := range []byte(text) {
		if c <= ' ' || c >= 0x7f || c == '"' {
			return ""
		}
	}
	switch {
	case weak:
		return ETag(`W/"` + text + `"`)
	case strings.HasPrefix(text, "W/"): // a strong one that would read as a weak one
		return ETag(`"` + text + `"`)
	}
	return ETag(text)
}

// Weak reports whether objects with this ETag may differ in bytes.
func (e ETag) Weak() bool { return strings.HasPrefix(string(e), "W/") }

// text returns e without its marks.
func (e ETag) text() string { return strings.Trim(strings.TrimPrefix(string(e), "W/"), `"`) }

// MD5 returns the MD5 of the stored bytes that e has, in lower-case hexadecimal, and the suffix of a proxy that compresses answers:
// "-gzip". If there is one, the answer may have other bytes than the object. A weak ETag can be an MD5 as well: proxies mark the
// store's ETag as weak without changing it. Of any other ETag sum is empty; "md5-3" is that of an object of three parts.
func (e ETag) MD5() (sum, suffix string) {
	text := e.text()
	if len(text) < md5Digits {
		return "", ""
	}
	sum, suffix = strings.ToLower(text[:md5Digits]), text[md5Digits:]
	if strings.Trim(sum, "0123456789abcdef") != "" || suffix != "" && (!strings.ContainsAny(suffix[:1], "-;") || isCount(suffix[1:])) {
		return "", ""
	}
	return sum, suffix
}

// isCount reports whether the rest of a suffix is a number of parts.
func isCount(s string) bool { return strings.Trim(s, "0123456789") == "" }

// IfMatch returns the value of an If-Match header that only an object with this ETag satisfies, or "" if there is none: a weak ETag
// never satisfies If-Match, and one with a suffix was changed by a proxy, so the store may not know it.
func (e ETag) IfMatch() string {
	if _, suffix := e.MD5(); e == "" || e.Weak() || suffix != "" {
		return ""
	}
	return `"` + e.text() + `"`
}

// Matches reports whether e and other are known and equal, weak or not. The letter case of an MD5 does not count.
func (e ETag) Matches(other ETag) bool {
	if e == "" || other == "" {
		return false
	}
	if e.text() == other.text() {
		return true
	}
	a, suffix := e.MD5()
	b, otherSuffix := other.MD5()
	return a != "" && a == b && suffix == otherSuffix
}
