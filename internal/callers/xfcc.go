package callers

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/lpfileshare/lpfileshare/internal/policy"
)

// maxXFCC is the maximum length of x-forwarded-client-cert, in bytes.
const maxXFCC = 8 << 10

// An element is what one proxy reports of its client, in x-forwarded-client-cert. A certificate can have several names of each kind.
type element struct {
	by, uri, dns []string
}

// forwardedName returns the name of the client that a trusted proxy reports, by the rule of policy.NameOf. The subject is not read,
// because proxies write distinguished names in different ways, and a common name can have any text.
func (i *Identifier) forwardedName(values []string) (policy.Name, error) {
	const hint = "configure the proxy to require client certificates, and to replace the header by one with URI or DNS names"
	if len(values) == 0 {
		return policy.Name{}, reject("missing", "the connection is of a trusted proxy, and the call names no client certificate and carries no bearer token; %s", hint)
	}
	if len(values) > 1 {
		return policy.Name{}, reject("header", "the call carries x-forwarded-client-cert %d times; %s", len(values), hint)
	}
	e, err := lastElement(values[0])
	if err != nil {
		return policy.Name{}, reject("header", "x-forwarded-client-cert is malformed: %s; %s", err, hint)
	}
	if len(e.by) > 0 && !i.anyProxy(e.by) {
		return policy.Name{}, reject("header", "x-forwarded-client-cert was written by a proxy that is not trusted; name its By with --trusted-proxy, or %s", hint)
	}
	n, err := e.name()
	if err != nil {
		return policy.Name{}, reject("header", "x-forwarded-client-cert has %s; %s", err, hint)
	}
	return n, nil
}

// anyProxy reports whether one of the URIs is of a trusted proxy.
func (i *Identifier) anyProxy(uris []string) bool {
	for _, u := range uris {
		if i.isProxy(policy.Name{Kind: policy.URI, Value: u}) {
			return true
		}
	}
	return false
}

// name returns the first URI, else the first DNS name. A certificate with a SPIFFE id has no other URI, so one in a list of several
// is not believed.
func (e element) name() (policy.Name, error) {
	for _, text := range e.uri {
		u, err := url.Parse(text)
		if err != nil || u.Scheme == "" {
			return policy.Name{}, errors.New("a URI that is none")
		}
		if u.Scheme == "spiffe" && len(e.uri) > 1 {
			return policy.Name{}, errors.New("a SPIFFE id beside other URIs")
		}
	}
	switch {
	case len(e.uri) > 0:
		return policy.Name{Kind: policy.URI, Value: e.uri[0]}, nil
	case len(e.dns) > 0:
		return policy.Name{Kind: policy.DNS, Value: strings.ToLower(e.dns[0])}, nil
	}
	return policy.Name{}, errors.New("neither a URI nor a DNS name")
}

// lastElement reads the whole header, and returns the last of its elements, which the nearest proxy has appended. Elements are
// separated by commas, and their KEY=VALUE pairs by semicolons. A value that contains one of `,;="` is in quotes, with \ before a
// quote.
func lastElement(text string) (last element, err error) {
	if len(text) > maxXFCC {
		return element{}, fmt.Errorf("it has %d bytes, the limit is %d", len(text), maxXFCC)
	}
	var current element
	for {
		key, rest, ok := strings.Cut(text, "=")
		if !ok || key == "" || strings.ContainsAny(key, "\",; \t") {
			return element{}, errors.New("a pair has no key")
		}
		value, rest, err := xfccValue(rest)
		if err != nil {
			return element{}, err
		}
		if err := current.add(key, value); err != nil {
			return element{}, err
		}
		if rest == "" {
			return current, nil
		}
		if rest[0] == ',' { // what earlier proxies reported is not used, but it must be well formed
			current = element{}
			text = strings.TrimLeft(rest[1:], " ")
		} else {
			text = rest[1:]
		}
	}
}

// xfccValue reads a value, and returns what follows it: nothing, or a text that begins with "," or ";".
func xfccValue(text string) (value, rest string, err error) {
	if !strings.HasPrefix(text, `"`) {
		end := strings.IndexAny(text, `,;`)
		if end < 0 {
			end = len(text)
		}
		value = text[:end]
		if strings.ContainsAny(value, "\"= \t") {
			return "", "", errors.New("a value needs quotes")
		}
		return value, text[end:], nil
	}
	var b strings.Builder
	for at := 1; at < len(text); at++ {
		switch c := text[at]; c {
		case '\\':
			if at++; at == len(text) {
				return "", "", errors.New("a quote is not closed")
			}
			b.WriteByte(text[at])
		case '"':
			rest = text[at+1:]
			if rest != "" && rest[0] != ',' && rest[0] != ';' {
				return "", "", errors.New("text follows a quoted value")
			}
			return b.String(), rest, nil
		default:
			b.WriteByte(c)
		}
	}
	return "", "", errors.New("a quote is not closed")
}

// add adds a pair. Keys are not case-sensitive.
func (e *element) add(key, value string) error {
	var to *[]string
	switch strings.ToLower(key) {
	case "by":
		to = &e.by
	case "uri":
		to = &e.uri
	case "dns":
		to = &e.dns
	case "hash", "cert", "chain", "subject":
		return nil
	default:
		return errors.New("a pair has an unknown key")
	}
	if value == "" {
		return nil // Envoy writes URI= for a certificate without one
	}
	if strings.ContainsFunc(value, func(c rune) bool { return c <= ' ' || c == 0x7f || c > 0x7f }) {
		return errors.New("a name has a character that is not allowed")
	}
	*to = append(*to, value)
	return nil
}
