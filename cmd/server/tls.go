package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"sync/atomic"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// tlsFlags say how gRPC is served by TLS.
type tlsFlags struct {
	TLSCert     string `group:"TLS:" name:"tls-cert" placeholder:"FILE" help:"Serve by TLS with the certificate in this PEM file, the chain behind it. SIGHUP reads all three files again."`
	TLSKey      string `group:"TLS:" name:"tls-key" placeholder:"FILE" help:"The key of --tls-cert, in PEM."`
	TLSClientCA string `group:"TLS:" name:"tls-client-ca" placeholder:"FILE" help:"Demand of every caller a certificate that one of the authorities in this PEM file has signed. Its name is then who calls: the first URI (SPIFFE), else the first DNS name, else the common name."`
}

func (f *tlsFlags) check(plaintext bool, bad func(format string, args ...any)) {
	if (f.TLSCert == "") != (f.TLSKey == "") {
		bad("--tls-cert and --tls-key go together; give both, or neither")
	}
	if f.TLSCert != "" && plaintext {
		bad("--allow-plaintext and --tls-cert exclude each other; with TLS there is no plaintext")
	}
	if f.TLSClientCA != "" && f.TLSCert == "" {
		bad("--tls-client-ca wants TLS; give --tls-cert and --tls-key too")
	}
}

// tlsKind says in a word how callers connect.
func (f *tlsFlags) tlsKind() string {
	switch {
	case f.TLSCert == "":
		return "off"
	case f.TLSClientCA == "":
		return "server"
	}
	return "mutual"
}

// serverTLS is what gRPC is served by. Handshakes that begin after a load see what it brought; connections that are open stay.
type serverTLS struct {
	flags *tlsFlags
	now   atomic.Pointer[tls.Config]
}

// newServerTLS loads the files; nil if there are none.
func newServerTLS(f *tlsFlags) (*serverTLS, error) {
	if f.TLSCert == "" {
		return nil, nil
	}
	s := &serverTLS{flags: f}
	return s, s.load()
}

// load reads the files. On an error what was read before holds.
func (s *serverTLS) load() error {
	pair, err := tls.LoadX509KeyPair(s.flags.TLSCert, s.flags.TLSKey)
	if err != nil {
		return fmt.Errorf("--tls-cert %s and --tls-key %s cannot be used: %w", s.flags.TLSCert, s.flags.TLSKey, err)
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"},
		SessionTicketsDisabled: true, // a resumed session would not be held against authorities that were changed since
	}
	if s.flags.TLSClientCA != "" {
		pem, err := os.ReadFile(s.flags.TLSClientCA)
		if err != nil {
			return fmt.Errorf("--tls-client-ca: %w", err)
		}
		config.ClientCAs, config.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !config.ClientCAs.AppendCertsFromPEM(pem) {
			return errors.New("--tls-client-ca: " + s.flags.TLSClientCA + " has no certificate in PEM")
		}
	}
	s.now.Store(config)
	return nil
}

// reload is load with a line in the log, whatever comes of it.
func (s *serverTLS) reload(log *slog.Logger) {
	if err := s.load(); err != nil {
		log.Error("the TLS files cannot be used, and what held before still does; mend them and send SIGHUP again", "error", err)
		return
	}
	log.Info("the TLS files were read again")
}

// credentials returns what gRPC is served with: TLS, or nothing if there are no files.
func (s *serverTLS) credentials() credentials.TransportCredentials {
	if s == nil {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.now.Load(), nil },
	})
}

// certificateName is who a client certificate says its holder is; "" if it does not say.
func certificateName(c *x509.Certificate) string {
	// A workload's SPIFFE id goes before other URIs.
	spiffe := slices.IndexFunc(c.URIs, func(u *url.URL) bool { return u.Scheme == "spiffe" })
	switch {
	case spiffe >= 0:
		return c.URIs[spiffe].String()
	case len(c.URIs) > 0:
		return c.URIs[0].String()
	case len(c.DNSNames) > 0:
		return c.DNSNames[0]
	}
	return c.Subject.CommonName
}
