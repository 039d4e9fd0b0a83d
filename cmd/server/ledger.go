package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/ledger"
	"github.com/lpfileshare/lpfileshare/internal/netrules"
)

// ledgerFlags say where request_ids are stored; docs/ledger.md says what to choose.
type ledgerFlags struct {
	Where        string   `name:"ledger" default:"embedded" placeholder:"WHERE" help:"Where request_ids are stored (${default}): embedded, in this server's files; memory, until the process ends; or the NATS servers that several replicas share, nats://HOST:4222,... (tls:// to require TLS)."`
	DataDir      string   `placeholder:"DIR" help:"Directory for the files of an embedded ledger. Default: $STATE_DIRECTORY, or lpfileshare in the user's state directory; with --sandbox none, and the ledger is in memory."`
	Sync         bool     `name:"ledger-sync" help:"Wait for the disk at every write of an embedded ledger, so that results also survive a power failure."`
	Bytes        byteSize `name:"ledger-bytes" default:"1GiB" placeholder:"SIZE" help:"Maximum size of all request_ids, about 500 bytes each (${default}). Above 90% of it, finished ids are dropped before --request-id-ttl."`
	AcceptLoss   bool     `name:"ledger-accept-loss" help:"Continue with a ledger that has lost records, instead of rejecting uploads: repeated requests may then publish files a second time. For one start after a loss; see docs/ledger.md."`
	Replicas     int      `name:"ledger-replicas" placeholder:"N" help:"Number of NATS servers that store each request_id, 1 to 5. Default: the existing number; for a new ledger 3 in a cluster and 1 elsewhere."`
	Creds        string   `name:"ledger-creds" placeholder:"FILE" help:"NATS credentials file. Default: none."`
	User         string   `name:"ledger-user" placeholder:"NAME" help:"NATS user, instead of a credentials file. Default: none."`
	PasswordFile string   `name:"ledger-password-file" placeholder:"FILE" help:"File with the password of --ledger-user. Credentials, password, certificates and key are read whenever a connection is made."`
	CA           string   `name:"ledger-ca" placeholder:"FILE" help:"PEM file of certificates to trust for the NATS servers, instead of the system's. Requires TLS. Default: none."`
	Cert         string   `name:"ledger-cert" placeholder:"FILE" help:"PEM file of the certificate to present to the NATS servers. Requires TLS. Default: none."`
	Key          string   `name:"ledger-key" placeholder:"FILE" help:"PEM file of the private key of --ledger-cert."`
}

// The values of --ledger that are not URLs.
const (
	ledgerEmbedded = "embedded"
	ledgerMemory   = "memory"
)

const (
	// ledgerTimeout is the maximum time of one operation; a little less than the service waits for a step.
	ledgerTimeout = 4 * time.Second
	// ledgerStart is the maximum time until NATS is available when the server starts. A cluster that has just started elects leaders first.
	ledgerStart = 30 * time.Second
)

// Validate checks which flags are set for which kind of ledger. The files are checked when they are read.
func (f *ledgerFlags) Validate() error {
	var errs []error
	if f.Bytes < 1<<20 {
		errs = append(errs, fmt.Errorf("--ledger-bytes is %d, and each request_id takes about 500 bytes; set it to at least 1MiB", f.Bytes))
	}
	switch f.Where {
	case ledgerEmbedded:
		return errors.Join(append(errs, f.validateWithoutNATS())...)
	case ledgerMemory:
		if f.Sync {
			errs = append(errs, errors.New("--ledger-sync applies to an embedded ledger, and --ledger is memory; leave one out"))
		}
		return errors.Join(append(errs, f.validateWithoutNATS())...)
	}
	return errors.Join(append(errs, f.validateNATS())...)
}

// validateWithoutNATS rejects the flags that apply to NATS servers only.
func (f *ledgerFlags) validateWithoutNATS() error {
	var errs []error
	for _, flag := range []struct {
		name string
		set  bool
	}{
		{"replicas", f.Replicas != 0}, {"creds", f.Creds != ""}, {"user", f.User != ""}, {"password-file", f.PasswordFile != ""},
		{"ca", f.CA != ""}, {"cert", f.Cert != ""}, {"key", f.Key != ""},
	} {
		if flag.set {
			errs = append(errs, fmt.Errorf("--ledger-%s applies to NATS servers, and --ledger is %s; set --ledger to nats://HOST:4222, or leave the flag out", flag.name, f.Where))
		}
	}
	return errors.Join(errs...)
}

// validateNATS checks a ledger in NATS and the credentials for it.
func (f *ledgerFlags) validateNATS() error {
	var errs []error
	servers, err := ledger.ParseServers(f.Where)
	if err != nil {
		errs = append(errs, fmt.Errorf("--ledger must be embedded, memory, or NATS servers: %w", err))
	}
	if f.Sync {
		errs = append(errs, errors.New("--ledger-sync applies to an embedded ledger; set sync_interval: always in the JetStream settings of the NATS servers"))
	}
	if f.Replicas < 0 || f.Replicas > 5 {
		errs = append(errs, fmt.Errorf("--ledger-replicas is %d; set it to 1 to 5", f.Replicas))
	}
	if (f.User == "") != (f.PasswordFile == "") {
		errs = append(errs, errors.New("--ledger-user and --ledger-password-file belong together; give both or neither"))
	}
	if f.User != "" && f.Creds != "" {
		errs = append(errs, errors.New("--ledger-user and --ledger-creds are two ways to authenticate; give one"))
	}
	if (f.Cert == "") != (f.Key == "") {
		errs = append(errs, errors.New("--ledger-cert and --ledger-key belong together; give both or neither"))
	}
	if f.User == "" || f.CA != "" || f.Cert != "" {
		return errors.Join(errs...)
	}
	for _, s := range servers {
		if u, err := url.Parse(s); err == nil && u.Scheme != "tls" && !netrules.IsLoopback(u.Hostname()) {
			errs = append(errs, fmt.Errorf("the password of --ledger-user would be sent to %s unencrypted; use tls:// instead of nats://", u.Host))
		}
	}
	return errors.Join(errs...)
}

// ledgerConfig returns the ledger's configuration, including the contents of the files that the flags name.
func (f *flags) ledgerConfig(log *slog.Logger) (ledger.Config, error) {
	l := &f.Ledger
	c := ledger.Config{
		Sync: l.Sync, AcceptLoss: l.AcceptLoss, Replicas: l.Replicas, CredsFile: l.Creds, User: l.User,
		TTL: f.Behaviour.RequestIDTTL, MaxBytes: int64(l.Bytes), Timeout: ledgerTimeout, StartTimeout: ledgerStart, Now: time.Now, Log: log,
		Grown: func(heap int64) { limitMemory(f, heap) },
	}
	var err error
	switch {
	case l.Where == ledgerMemory, l.Where == ledgerEmbedded && f.Sandbox.On && l.DataDir == "":
		return c, nil
	case l.Where == ledgerEmbedded:
		dir := l.DataDir
		if dir == "" {
			if dir, err = stateDir(); err != nil {
				return c, fmt.Errorf("%w; set --data-dir to a directory for the ledger's files, or --ledger memory to store nothing", err)
			}
		}
		c.Dir = filepath.Join(dir, "ledger")
		return c, nil
	}
	if c.Servers, err = ledger.ParseServers(l.Where); err != nil {
		return c, err
	}
	return c, l.credentials(&c)
}

// credentials sets the functions that read the files with the credentials for the NATS servers. The ledger calls them whenever it
// connects; here each is called once, so that a mistake ends the start with the name of the flag.
func (f *ledgerFlags) credentials(c *ledger.Config) error {
	var errs []error
	if f.Creds != "" {
		_, err := readSecret("--ledger-creds", f.Creds)
		errs = append(errs, err)
	}
	if f.PasswordFile != "" {
		c.Password = func() (string, error) {
			password, err := readSecret("--ledger-password-file", f.PasswordFile)
			return string(bytes.TrimRight(password, "\r\n")), err
		}
		_, err := c.Password()
		errs = append(errs, err)
	}
	if f.CA != "" {
		c.RootCAs = func() (*x509.CertPool, error) {
			pem, err := os.ReadFile(f.CA)
			if err != nil {
				return nil, fmt.Errorf("--ledger-ca: %w", err)
			}
			roots := x509.NewCertPool()
			if !roots.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("--ledger-ca: %s has no certificate in PEM", f.CA)
			}
			return roots, nil
		}
		_, err := c.RootCAs()
		errs = append(errs, err)
	}
	if f.Cert != "" {
		c.Certificate = func() (tls.Certificate, error) { return readKeyPair("--ledger-cert", f.Cert, "--ledger-key", f.Key) }
		_, err := c.Certificate()
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// stateDir returns the directory for data that a program of this user keeps between runs.
func stateDir() (string, error) {
	if dir, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":"); dir != "" { // from systemd's StateDirectory=
		return dir, nil
	}
	switch runtime.GOOS {
	case "windows", "darwin":
		dir, err := os.UserConfigDir()
		if runtime.GOOS == "windows" {
			dir, err = os.UserCacheDir() // %LocalAppData%, which is not copied to other machines
		}
		return filepath.Join(dir, "lpfileshare"), err
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "lpfileshare"), nil
	}
	home := os.Getenv("HOME")
	if !filepath.IsAbs(home) {
		return "", errors.New("the environment names no state directory")
	}
	return filepath.Join(home, ".local", "state", "lpfileshare"), nil
}

// ledgerPlace says where the records are, for the log.
func ledgerPlace(c ledger.Config) string {
	switch {
	case len(c.Servers) > 0:
		return strings.Join(c.Servers, ",")
	case c.Dir != "":
		return c.Dir
	}
	return ledgerMemory
}
