package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
)

// Certificates are a certificate authority, and what it has signed, as PEM files in a folder: ca, server, wrong (for another name),
// client, and other-ca, which has signed nothing.
type Certificates struct{ dir string }

func newCertificates(dir string) (*Certificates, error) {
	c := &Certificates{dir}
	ca, key, err := c.make("ca", nil, nil, func(t *x509.Certificate) {
		t.IsCA, t.BasicConstraintsValid, t.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
	})
	if err != nil {
		return nil, err
	}
	if _, _, err := c.make("other-ca", nil, nil, func(t *x509.Certificate) {
		t.IsCA, t.BasicConstraintsValid, t.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
	}); err != nil {
		return nil, err
	}
	for name, change := range map[string]func(*x509.Certificate){
		"server": func(t *x509.Certificate) {
			t.IPAddresses, t.DNSNames = []net.IP{net.IPv4(127, 0, 0, 1)}, []string{"localhost"}
			t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		},
		"wrong": func(t *x509.Certificate) {
			t.DNSNames, t.ExtKeyUsage = []string{"files.example.com"}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		},
		"client": func(t *x509.Certificate) {
			t.DNSNames, t.ExtKeyUsage = []string{"client.example.com"}, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		},
	} {
		if _, _, err := c.make(name, ca, key, change); err != nil {
			return nil, err
		}
	}
	return c, os.WriteFile(c.Path("accounts"), []byte(accounts), 0o600)
}

// accounts is the accounts file of a server that requires client certificates.
const accounts = `others: allow
callers:
- certificates: ["dns:client.example.com"]
  accounts: all
  tokens: [consumer, agent]
  consumers: ["*"]
`

// make writes a certificate and its key. parent nil: it signs itself.
func (c *Certificates) make(name string, parent *x509.Certificate, parentKey *ecdsa.PrivateKey, change func(*x509.Certificate)) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "conformance " + name}, KeyUsage: x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	change(t)
	if parent == nil {
		parent, parentKey = t, key
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, &key.PublicKey, parentKey)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	if err := os.WriteFile(c.Path(name), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		return nil, nil, err
	}
	if err := os.WriteFile(c.Path(name+"-key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600); err != nil {
		return nil, nil, err
	}
	made, err := x509.ParseCertificate(der)
	return made, key, err
}

// Path is the file of a certificate, or of the key NAME-key.
func (c *Certificates) Path(name string) string { return filepath.Join(c.dir, name+".pem") }

func (c *Certificates) serverFlags(kind string) []string {
	switch kind {
	case "server":
		return []string{"--tls-cert=" + c.Path("server"), "--tls-key=" + c.Path("server-key")}
	case "mutual":
		return append(c.serverFlags("server"), "--tls-client-ca="+c.Path("ca"), "--accounts="+c.Path("accounts"))
	case "wrongName":
		return []string{"--tls-cert=" + c.Path("wrong"), "--tls-key=" + c.Path("wrong-key")}
	}
	return nil
}

// option is how the runner itself connects to such a server.
func (c *Certificates) option(kind string) (lpfileshare.Option, error) {
	if kind == "" {
		return lpfileshare.WithPlaintext(), nil
	}
	config, err := lpfileshare.TLSConfig(c.Path("ca"), c.Path("client"), c.Path("client-key"))
	if err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	if kind == "wrongName" {
		config.ServerName = "files.example.com"
	}
	return lpfileshare.WithTLS(config), nil
}
