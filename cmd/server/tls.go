package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// tlsFlags are the files for serving gRPC with TLS.
type tlsFlags struct {
	Cert     string `name:"tls-cert" placeholder:"FILE" help:"PEM file of the certificate to serve with, followed by its chain. SIGHUP reloads all three files. Default: none, no TLS."`
	Key      string `name:"tls-key" placeholder:"FILE" help:"PEM file of the key of --tls-cert."`
	ClientCA string `name:"tls-client-ca" placeholder:"FILE" help:"PEM file of the authorities that sign client certificates, which are then required. callers in the accounts file says what each may do. Default: none."`
}

// Validate checks which of the flags are set. The files are checked when they are read.
func (f *tlsFlags) Validate() error {
	var errs []error
	if (f.Cert == "") != (f.Key == "") {
		errs = append(errs, errors.New("--tls-cert and --tls-key belong together; give both or neither"))
	}
	if f.ClientCA != "" && f.Cert == "" {
		errs = append(errs, errors.New("--tls-client-ca requires TLS; add --tls-cert and --tls-key"))
	}
	return errors.Join(errs...)
}

// kind names the authentication of connections, for the log.
func (f *tlsFlags) kind() string {
	switch {
	case f.Cert == "":
		return "off"
	case f.ClientCA == "":
		return "server"
	}
	return "mutual"
}

// serverTLS has the TLS configuration for gRPC. A load affects later handshakes; open connections stay open.
type serverTLS struct {
	flags *tlsFlags
	now   atomic.Pointer[tls.Config]
}

// newServerTLS loads the files. It returns nil without --tls-cert.
func newServerTLS(f *tlsFlags) (*serverTLS, error) {
	if f.Cert == "" {
		return nil, nil
	}
	s := &serverTLS{flags: f}
	return s, s.load()
}

// load reads the files. If it fails, the previous configuration stays in use.
func (s *serverTLS) load() error {
	pair, err := readKeyPair("--tls-cert", s.flags.Cert, "--tls-key", s.flags.Key)
	if err != nil {
		return err
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"},
		SessionTicketsDisabled: true, // a resumed session would not be checked against authorities that have changed since
	}
	if s.flags.ClientCA != "" {
		pem, err := os.ReadFile(s.flags.ClientCA)
		if err != nil {
			return fmt.Errorf("--tls-client-ca: %w", err)
		}
		config.ClientCAs, config.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !config.ClientCAs.AppendCertsFromPEM(pem) {
			return errors.New("--tls-client-ca: " + s.flags.ClientCA + " has no certificate in PEM")
		}
	}
	s.now.Store(config)
	return nil
}

// notAfter returns when the certificate in use expires, in seconds since 1970.
func (s *serverTLS) notAfter() float64 {
	return float64(s.now.Load().Certificates[0].Leaf.NotAfter.Unix())
}

// reload calls load and logs the result.
func (s *serverTLS) reload(log *slog.Logger) error {
	if err := s.load(); err != nil {
		log.Error("TLS files are invalid, the previous ones stay in use; correct them and send SIGHUP again", "error", err)
		return err
	}
	log.Info("TLS files reloaded")
	return nil
}

// credentials returns the credentials of the gRPC server: plaintext if s is nil.
func (s *serverTLS) credentials() credentials.TransportCredentials {
	if s == nil {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.now.Load(), nil },
	})
}
