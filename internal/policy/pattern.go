package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// anyName is the pattern of all names: of those in certificates, or of all subjects of tokens.
const anyName = "any"

// maxPattern is the maximum length of a pattern, in bytes: that of a SPIFFE id, and more than other names need.
const maxPattern = 2048

// A Pattern matches names of one kind: one name, or several with "*" in place of a part. It cannot match parts of parts or several
// parts, so that "uri:spiffe://example.com/chat/*" does not match "uri:spiffe://example.com/chat/a/b".
type Pattern struct {
	kind  Kind     // empty for the names in all certificates
	parts []string // separated by separator; "*" matches any part; nil for any name
}

// separator returns what separates the parts of a name.
func (k Kind) separator() string {
	if k == DNS {
		return "."
	}
	return "/"
}

// ParsePattern reads a pattern for certificates: "any", or a kind, a colon and a value, in which a segment of the path of a URI and a
// label of a DNS name may be "*". It matches no subject of a token.
func ParsePattern(text string) (Pattern, error) {
	if text == anyName {
		return Pattern{}, nil
	}
	const forms = "write uri:, dns: or cn: and the name in the certificate, for example uri:spiffe://example.com/chat, or any for all certificates"
	return parse(text, forms, URI, DNS, CN)
}

// ParseSubject reads a pattern for subjects of tokens: "any", or "jwt:" and a subject, of which each segment but the first may be "*".
func ParseSubject(text string) (Pattern, error) {
	if text == anyName {
		return Pattern{kind: JWT}, nil
	}
	return parse(text, "write jwt: and the sub claim of the token, for example jwt:chat, or any for all tokens", JWT)
}

// parse reads a pattern of one of the kinds. forms says how patterns are written.
func parse(text, forms string, kinds ...Kind) (Pattern, error) {
	prefix, value, ok := strings.Cut(text, ":")
	kind := Kind(prefix)
	switch {
	case !ok || !slices.Contains(kinds, kind):
		return Pattern{}, fmt.Errorf("%.128q does not begin with a kind of names; %s", text, forms)
	case value == "" || len(text) > maxPattern || strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c == 0x7f }):
		return Pattern{}, fmt.Errorf("%.128q is not a name; %s", text, forms)
	}
	if kind == DNS {
		value = strings.ToLower(value)
	}
	p := Pattern{kind: kind, parts: strings.Split(value, kind.separator())}
	return p, p.check()
}

// check rejects "*" where it is not allowed.
func (p Pattern) check() error {
	fixed := 0 // parts at the beginning that must not be "*"
	switch p.kind {
	case CN:
		fixed = len(p.parts)
	case JWT:
		fixed = 1
	case URI:
		fixed = len(p.parts)
		if len(p.parts) > 3 && strings.HasSuffix(p.parts[0], ":") && p.parts[1] == "" {
			fixed = 3 // "scheme:", "" and the authority
		}
	}
	for i, part := range p.parts {
		switch {
		case !strings.Contains(part, "*"):
		case p.kind == CN:
			return errors.New("a cn has no patterns; write the whole common name without *")
		case part != "*":
			return fmt.Errorf("in %.128q the * must be a whole part, between two %q", part, p.kind.separator())
		case p.kind == JWT && i < fixed:
			return errors.New("* may replace segments of a subject, but not the first; write any for all tokens")
		case i < fixed:
			return errors.New("* may replace segments of the path of a URI, but not its scheme and authority")
		case len(p.parts) == 1:
			return errors.New("* alone matches every name; write any for all certificates")
		}
	}
	return nil
}

// IsAny reports whether the pattern matches every name of a certificate, or every subject.
func (p Pattern) IsAny() bool { return p.parts == nil }

// name returns the only name that the pattern matches; false if there are more.
func (p Pattern) name() (Name, bool) {
	for _, part := range p.parts {
		if part == "*" {
			return Name{}, false
		}
	}
	return Name{p.kind, strings.Join(p.parts, p.kind.separator())}, p.parts != nil
}

// Matches reports whether the pattern matches a name. No pattern matches no name.
func (p Pattern) Matches(n Name) bool {
	if p.kind == "" {
		return n != Name{} && n.Kind != JWT
	}
	if n.Kind != p.kind {
		return false
	}
	if p.parts == nil {
		return true
	}
	rest, separator := n.Value, p.kind.separator()
	for i, want := range p.parts {
		part, after, more := strings.Cut(rest, separator)
		if more != (i < len(p.parts)-1) {
			return false
		}
		if want == "*" && (part == "" || part == "." || part == "..") || want != "*" && part != want {
			return false
		}
		rest = after
	}
	return true
}
