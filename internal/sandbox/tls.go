package sandbox

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// certificateLife is the validity of the generated certificates. Some clients refuse certificates that are valid for more than 398
// days.
const certificateLife = 397 * 24 * time.Hour

// newTLSConfig generates a CA and a server certificate for loopback, and writes the CA's certificate as PEM to caFile if that is not
// empty. Every sandbox has its own CA, and the keys exist only in memory. The protocol is HTTP/1.1 only, because HTTP/2 has neither a
// WebSocket upgrade nor a TCP reset.
func newTLSConfig(caFile string) (*tls.Config, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("CA key: %w", err)
	}
	// The certificates use the real clock, as their verifiers do, regardless of Options.Now.
	from := time.Now().Add(-time.Hour)
	ca := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "lpfileshare sandbox CA"},
		NotBefore:             from,
		NotAfter:              from.Add(certificateLife),
		IsCA:                  true,
		MaxPathLenZero:        true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	caDER, err := issue(ca, ca, caKey, caKey)
	if err != nil {
		return nil, fmt.Errorf("CA certificate: %w", err)
	}
	// Only the parsed certificate has the key identifier, which strict verifiers require in the leaf.
	if ca, err = x509.ParseCertificate(caDER); err != nil {
		return nil, fmt.Errorf("CA certificate: %w", err)
	}

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("server key: %w", err)
	}
	leaf := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "localhost"},
		NotBefore:             from,
		NotAfter:              from.Add(certificateLife),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	der, err := issue(leaf, ca, key, caKey)
	if err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}

	if caFile != "" {
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
		if err := writeWhole(caFile, text); err != nil {
			return nil, fmt.Errorf("write the CA certificate: %w", err)
		}
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"http/1.1"},
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}, nil
}

// issue signs cert for key's public half with the issuer's key, under a random serial number.
func issue(cert, issuer *x509.Certificate, key, issuerKey *ecdsa.PrivateKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	cert.SerialNumber = serial
	return x509.CreateCertificate(rand.Reader, cert, issuer, key.Public(), issuerKey)
}

// writeWhole writes a file atomically, so that a client that waits for it never reads a part.
func writeWhole(name string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
