package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/lpfileshare/lpfileshare/internal/audit"
	"github.com/lpfileshare/lpfileshare/internal/metrics"
)

// tlsFlags are the files for serving gRPC with TLS, or the SPIFFE Workload API that provides what they contain.
type tlsFlags struct {
	Cert     string `name:"tls-cert" placeholder:"FILE" help:"PEM file of the certificate to serve with, followed by its chain. All three files are reloaded: see --reload-every. Default: none, no TLS."`
	Key      string `name:"tls-key" placeholder:"FILE" help:"PEM file of the key of --tls-cert."`
	ClientCA string `name:"tls-client-ca" placeholder:"FILE" help:"PEM file of the authorities that sign client certificates, which are then required. callers in the accounts file says what each may do. Default: none."`

	SPIFFESocket       string   `name:"spiffe-socket" placeholder:"URL" help:"SPIFFE Workload API that provides the certificate to serve with and the authorities of client certificates, which are required: unix:///PATH. Replaces the TLS files. Default: none."`
	SPIFFETrustDomains []string `name:"spiffe-trust-domain" placeholder:"NAME" help:"SPIFFE trust domains whose members may connect. Default: that of the server."`
}

// Validate checks which of the flags are set. The files are checked when they are read.
func (f *tlsFlags) Validate() error {
	var errs []error
	if (f.Cert == "") != (f.Key == "") {
		errs = append(errs, errors.New("--tls-cert and --tls-key belong together; give both or neither"))
	}
	if f.ClientCA != "" && f.Cert == "" && f.SPIFFESocket == "" {
		errs = append(errs, errors.New("--tls-client-ca requires TLS; add --tls-cert and --tls-key"))
	}
	return errors.Join(append(errs, f.validateSPIFFE())...)
}

// requiresCertificates reports whether each client must have a certificate.
func (f *tlsFlags) requiresCertificates() bool { return f.ClientCA != "" || f.SPIFFESocket != "" }

// secure reports whether connections are encrypted.
func (f *tlsFlags) secure() bool { return f.Cert != "" || f.SPIFFESocket != "" }

// kind names the authentication of connections, for the log.
func (f *tlsFlags) kind() string {
	switch {
	case f.SPIFFESocket != "":
		return "spiffe"
	case f.Cert == "":
		return "off"
	case f.ClientCA == "":
		return "server"
	}
	return "mutual"
}

// serverTLS has the TLS configuration for gRPC. A load affects later handshakes; open connections stay open.
type serverTLS struct {
	flags   *tlsFlags
	adminCA string // file, or "": then admin stays nil
	now     atomic.Pointer[tls.Config]
	admin   atomic.Pointer[tls.Config] // for the admin server, which asks for client certificates and does not require them
}

// newServerTLS loads the files, with those of the authorities for the admin server if adminCA is not empty, and adds them to reloads. It
// returns nil without --tls-cert.
func newServerTLS(f *tlsFlags, adminCA string, reloads *reloader, log *slog.Logger) (*serverTLS, error) {
	if f.Cert == "" {
		return nil, nil
	}
	s := &serverTLS{flags: f, adminCA: adminCA}
	reloads.add("tls-cert", files(f.Cert, f.Key, f.ClientCA, adminCA), func() error { return s.reload(log) })
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
		config.ClientAuth = tls.RequireAndVerifyClientCert
		if config.ClientCAs, err = readAuthorities("--tls-client-ca", s.flags.ClientCA); err != nil {
			return err
		}
	}
	if s.adminCA != "" {
		admin := config.Clone()
		admin.NextProtos, admin.ClientAuth = []string{"h2", "http/1.1"}, tls.VerifyClientCertIfGiven
		if admin.ClientCAs, err = readAuthorities("--admin-client-ca", s.adminCA); err != nil {
			return err
		}
		s.admin.Store(admin)
	}
	s.now.Store(config)
	return nil
}

// readAuthorities reads the certificates of authorities from the file that a flag names.
func readAuthorities(flag, file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: %s has no certificate in PEM", flag, file)
	}
	return pool, nil
}

// notAfter returns when the certificate in use expires, in seconds since 1970.
func (s *serverTLS) notAfter() float64 {
	return float64(s.now.Load().Certificates[0].Leaf.NotAfter.Unix())
}

// reload calls load and logs the result.
func (s *serverTLS) reload(log *slog.Logger) error {
	if err := s.load(); err != nil {
		log.Error("TLS files are invalid, the previous ones stay in use; correct them, and send SIGHUP if --reload-every is 0", "error", err)
		return err
	}
	log.Info("TLS files reloaded")
	return nil
}

func (s *serverTLS) credentials() credentials.TransportCredentials {
	return credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.now.Load(), nil },
	})
}

// A transport is how connections of gRPC are secured: by files, by the SPIFFE Workload API, or not at all.
type transport struct {
	files  *serverTLS    // nil without --tls-cert
	spiffe *spiffeSource // nil without --spiffe-socket
}

// newTransport loads the files, or waits for the first certificate of the Workload API. The caller must close it.
func newTransport(ctx context.Context, f *tlsFlags, adminCA string, reloads *reloader, m *metrics.Metrics, trail *audit.Log, log *slog.Logger) (t transport, err error) {
	if t.files, err = newServerTLS(f, adminCA, reloads, log); err != nil {
		return t, err
	}
	t.spiffe, err = newSPIFFE(ctx, f, func() {
		m.Reloaded("spiffe-socket", nil)
		trail.Reloaded("spiffe-socket", "workload-api", nil)
	}, log)
	return t, err
}

// credentials returns the credentials of the gRPC server.
func (t transport) credentials() credentials.TransportCredentials {
	switch {
	case t.spiffe != nil:
		return t.spiffe.credentials()
	case t.files != nil:
		return t.files.credentials()
	}
	return insecure.NewCredentials()
}

func (t transport) close() {
	if t.spiffe != nil {
		t.spiffe.close()
	}
}

// forAdmin returns the configuration of the admin server.
func (s *serverTLS) forAdmin() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.admin.Load(), nil },
	}
}

// A servedCert is the certificate of an HTTP server. It affects later handshakes; open connections stay open.
type servedCert struct {
	of        string // the server: --OF-cert and --OF-key name the files
	cert, key string
	now       atomic.Pointer[tls.Certificate]
}

// load reads the files. If it fails, the previous certificate stays in use.
func (c *servedCert) load() error {
	pair, err := readKeyPair("--"+c.of+"-cert", c.cert, "--"+c.of+"-key", c.key)
	if err == nil {
		c.now.Store(&pair)
	}
	return err
}

// reload calls load and logs the result.
func (c *servedCert) reload(log *slog.Logger) error {
	err := c.load()
	if err != nil {
		log.Error(c.of+" certificate is invalid, the previous one stays in use; correct it, and send SIGHUP if --reload-every is 0", "error", err)
	} else {
		log.Info(c.of + " certificate reloaded")
	}
	return err
}

// config returns the configuration of the server.
func (c *servedCert) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.now.Load(), nil },
	}
}
