package policy

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// A Kind is the type of a Name.
type Kind string

// The kinds of names in certificates.
const (
	// URI is a URI of the subject alternative name, such as a SPIFFE id.
	URI Kind = "uri"
	// DNS is a DNS name of the subject alternative name, in lower case.
	DNS Kind = "dns"
	// CN is the common name of the subject.
	CN Kind = "cn"
)

// A Name is the name of a calling service. Names of different kinds differ, even if their values are equal: authorities check a URI
// in a certificate, but often not the common name. The zero Name is no name.
type Name struct {
	Kind  Kind
	Value string
}

// String returns the kind and the value, as in "uri:spiffe://example.com/chat"; empty for no name. Different names have different
// strings, since no kind contains a colon.
func (n Name) String() string {
	if n == (Name{}) {
		return ""
	}
	return string(n.Kind) + ":" + n.Value
}

// ParseName reads what Name.String returns.
func ParseName(text string) (Name, error) {
	pattern, err := ParsePattern(text)
	if err != nil {
		return Name{}, err
	}
	name, ok := pattern.name()
	if !ok {
		return Name{}, fmt.Errorf("%.128q stands for several names; write one", text)
	}
	return name, nil
}

// NameOf returns the name in a verified client certificate: its first SPIFFE id, else its first other URI, else its first DNS name,
// else its common name. It returns no name if the certificate has none of them.
func NameOf(c *x509.Certificate) Name {
	spiffe := slices.IndexFunc(c.URIs, func(u *url.URL) bool { return u.Scheme == "spiffe" })
	switch {
	case spiffe >= 0:
		return Name{URI, c.URIs[spiffe].String()}
	case len(c.URIs) > 0:
		return Name{URI, c.URIs[0].String()}
	case len(c.DNSNames) > 0:
		return Name{DNS, strings.ToLower(c.DNSNames[0])}
	case c.Subject.CommonName != "":
		return Name{CN, c.Subject.CommonName}
	}
	return Name{}
}

// A Caller is the service that makes a call, as far as its connection proves it. The zero Caller is not authenticated.
type Caller struct {
	// Name is the name in its certificate.
	Name Name
	// Loopback reports that the connection comes from this machine, to a server that accepts no others.
	Loopback bool
}

// Authenticated reports whether the caller may use the server's own credentials, if a Policy does not forbid it.
func (c Caller) Authenticated() bool { return c.Loopback || c.Name != Name{} }
