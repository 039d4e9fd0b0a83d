package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// An authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// A pair is a certificate and its key, in PEM.
type pair struct{ cert, key []byte }

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t}
	p, cert, key := a.issue(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, Subject: pkix.Name{CommonName: name}})
	a.cert, a.key, a.pem = cert, key, p.cert
	return a
}

func (a *authority) issue(template *x509.Certificate) (pair, *x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		a.t.Fatal(err)
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return pair{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})}, cert, key
}

// leaf issues the certificate of a server on this machine, or of a client, or of both, as proxies have it.
func (a *authority) leaf(template *x509.Certificate) pair {
	a.t.Helper()
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	p, _, _ := a.issue(template)
	return p
}

func (a *authority) server() pair { a.t.Helper(); return a.leaf(&x509.Certificate{}) }

func (a *authority) client(id string) pair {
	a.t.Helper()
	u, err := url.Parse(id)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.leaf(&x509.Certificate{URIs: []*url.URL{u}})
}

func (a *authority) common(name string) pair {
	a.t.Helper()
	return a.leaf(&x509.Certificate{Subject: pkix.Name{CommonName: name}})
}

// anonymous is the configuration of a client without a certificate.
func (a *authority) anonymous() *tls.Config {
	c := &tls.Config{RootCAs: x509.NewCertPool()}
	c.RootCAs.AddCert(a.cert)
	return c
}

// write writes the certificate of the authority as ca.pem.
func (a *authority) write(t *testing.T, dir string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), a.pem, 0o600); err != nil {
		t.Fatal(err)
	}
}

// config is that of a client with the pair, which trusts authorities.
func (p pair) config(t *testing.T, trusted ...*authority) *tls.Config {
	t.Helper()
	own, err := tls.X509KeyPair(p.cert, p.key)
	if err != nil {
		t.Fatal(err)
	}
	c := &tls.Config{RootCAs: x509.NewCertPool(), Certificates: []tls.Certificate{own}}
	for _, a := range trusted {
		c.RootCAs.AddCert(a.cert)
	}
	return c
}

// write writes NAME.pem and NAME.key.
func (p pair) write(t *testing.T, dir, name string) {
	t.Helper()
	for file, content := range map[string][]byte{name + ".pem": p.cert, name + ".key": p.key} {
		if err := os.WriteFile(filepath.Join(dir, file), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
