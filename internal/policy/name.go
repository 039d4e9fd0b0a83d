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

// The kinds of names: those in certificates, and the subject of a token.
const (
	// URI is a URI of the subject alternative name, such as a SPIFFE id.
	URI Kind = "uri"
	// DNS is a DNS name of the subject alternative name, in lower case.
	DNS Kind = "dns"
	// CN is the common name of the subject.
	CN Kind = "cn"
	// JWT is the subject ("sub") of a bearer token. The server accepts the tokens of one issuer, so a subject has one meaning.
	JWT Kind = "jwt"
)

// A Name is the name of a calling service. Names of different kinds differ, even if their values are equal: authorities check a URI
// in a certificate, but often not the common name, and the issuer of tokens is no authority for certificates. The zero Name is no name.
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
	parse := ParsePattern
	if strings.HasPrefix(text, string(JWT)+":") {
		parse = ParseSubject
	}
	pattern, err := parse(text)
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

// A Via is the proof by which a Caller is known.
type Via string

// The proofs.
const (
	// ViaNone stands for a caller that proves nothing.
	ViaNone Via = ""
	// ViaMTLS is the client certificate of the connection, signed by an authority that the operator named.
	ViaMTLS Via = "mtls"
	// ViaSPIFFE is an X.509-SVID of the connection, verified with bundles of the SPIFFE Workload API.
	ViaSPIFFE Via = "spiffe"
	// ViaJWT is a bearer token of the call.
	ViaJWT Via = "jwt"
	// ViaXFCC is the client certificate of a connection to a trusted proxy, as the proxy reports it in x-forwarded-client-cert.
	ViaXFCC Via = "xfcc"
	// ViaLoopback is a connection from this machine, to a server that accepts no others.
	ViaLoopback Via = "loopback"
)

// String returns the word for logs; "none" for ViaNone.
func (v Via) String() string {
	if v == ViaNone {
		return "none"
	}
	return string(v)
}

// A Caller is the service that makes a call, as far as the call or its connection proves it. The zero Caller is not authenticated.
type Caller struct {
	// Name is the name in its certificate or token. It is empty with ViaLoopback, and for a verified certificate without a name.
	Name Name
	// Via is how the Name, or the right to have none, was proved.
	Via Via
	// Proxy is the name in the certificate of the connection, if that is not the caller's own: with ViaXFCC always, with ViaJWT if the
	// connection has a certificate with a name. It permits nothing by itself.
	Proxy Name
}

// Authenticated reports whether the caller may use the server's own credentials, if a Policy does not forbid it.
func (c Caller) Authenticated() bool { return c.Via == ViaLoopback || c.Name != Name{} }
