package policy

import (
	"errors"
	"fmt"
	"strings"
)

// anyName is the pattern of all names.
const anyName = "any"

// maxPattern is the maximum length of a pattern, in bytes: that of a SPIFFE id, and more than names in certificates need.
const maxPattern = 2048

// A Pattern matches names of one kind: one name, or several with "*" in place of a part. It cannot match parts of parts or several
// parts, so that "uri:spiffe://example.com/chat/*" does not match "uri:spiffe://example.com/chat/a/b".
type Pattern struct {
	kind  Kind     // empty for all names
	parts []string // separated by separator; "*" matches any part
}

// separator returns what separates the parts of a name.
func (k Kind) separator() string {
	if k == DNS {
		return "."
	}
	return "/"
}

// ParsePattern reads "any", or a kind, a colon and a value, in which a segment of the path of a URI and a label of a DNS name may be
// "*".
func ParsePattern(text string) (Pattern, error) {
	if text == anyName {
		return Pattern{}, nil
	}
	const forms = "write uri:, dns: or cn: and the name in the certificate, for example uri:spiffe://example.com/chat, or any for all certificates"
	prefix, value, ok := strings.Cut(text, ":")
	kind := Kind(prefix)
	switch {
	case !ok || kind != URI && kind != DNS && kind != CN:
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
		case i < fixed:
			return errors.New("* may replace segments of the path of a URI, but not its scheme and authority")
		case len(p.parts) == 1:
			return errors.New("* alone matches every name; write any for all certificates")
		}
	}
	return nil
}

// name returns the only name that the pattern matches; false if there are more.
func (p Pattern) name() (Name, bool) {
	for _, part := range p.parts {
		if part == "*" {
			return Name{}, false
		}
	}
	return Name{p.kind, strings.Join(p.parts, p.kind.separator())}, p.kind != ""
}

// matches reports whether the pattern matches a name. No pattern matches no name.
func (p Pattern) matches(n Name) bool {
	if p.kind == "" {
		return n != Name{}
	}
	if n.Kind != p.kind {
		return false
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
