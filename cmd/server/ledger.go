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

// ledgerFlags say where request ids are remembered; docs/ledger.md says what to choose.
type ledgerFlags struct {
	Ledger             string   `group:"Ledger:" default:"embedded" placeholder:"WHERE" help:"Where request_ids are remembered: embedded (files of this server's own), memory (forgotten with the process), or the NATS servers that several replicas share: nats://HOST:4222,... (tls:// to demand TLS)."`
	DataDir            string   `group:"Ledger:" placeholder:"DIR" help:"Directory for the files of an embedded ledger. Default: $STATE_DIRECTORY, or lpfileshare in the user's directory for state; with --sandbox none, and the ledger is in memory."`
	LedgerSync         bool     `group:"Ledger:" help:"Wait for the disk at every write of an embedded ledger, so that an answer survives a power cut too."`
	LedgerBytes        byteSize `group:"Ledger:" default:"1GiB" placeholder:"SIZE" help:"Room for request_ids, about 1 KB each (${default}). A full ledger refuses new uploads until old ids expire."`
	LedgerReplicas     int      `group:"Ledger:" placeholder:"N" help:"How many NATS servers hold each request_id, 1 to 5. Default: as it is; at first 3 in a cluster and 1 elsewhere."`
	LedgerCreds        string   `group:"Ledger:" placeholder:"FILE" help:"NATS credentials file."`
	LedgerUser         string   `group:"Ledger:" placeholder:"NAME" help:"NATS user, where there is no credentials file."`
	LedgerPasswordFile string   `group:"Ledger:" placeholder:"FILE" help:"File with the password of --ledger-user."`
	LedgerCA           string   `group:"Ledger:" name:"ledger-ca" placeholder:"FILE" help:"Certificates to trust for the NATS servers, in PEM, instead of the system's. Demands TLS."`
	LedgerCert         string   `group:"Ledger:" placeholder:"FILE" help:"Certificate to show to the NATS servers, in PEM. Demands TLS."`
	LedgerKey          string   `group:"Ledger:" placeholder:"FILE" help:"Private key of --ledger-cert."`
}

// The words of --ledger that are no URL.
const (
	ledgerEmbedded = "embedded"
	ledgerMemory   = "memory"
)

const (
	// ledgerTimeout bounds one use of the ledger; a little less than the service waits for a step.
	ledgerTimeout = 4 * time.Second
	// ledgerStart is how long NATS may take to be there when the server starts.
	ledgerStart = 10 * time.Second
	// ledgerHealth is the name under which the health service tells whether the ledger can be used.
	ledgerHealth = "lpfileshare.ledger"
)

func (f *ledgerFlags) check(bad func(format string, args ...any)) {
	if f.LedgerBytes < 1<<20 {
		bad("--ledger-bytes %d is less than 1 MiB; a request_id takes about 1 KB for as long as it is kept", f.LedgerBytes)
	}
	if f.Ledger == ledgerEmbedded || f.Ledger == ledgerMemory {
		for name, set := range map[string]bool{
			"replicas": f.LedgerReplicas != 0, "creds": f.LedgerCreds != "", "user": f.LedgerUser != "", "password-file": f.LedgerPasswordFile != "",
			"ca": f.LedgerCA != "", "cert": f.LedgerCert != "", "key": f.LedgerKey != "",
		} {
			if set {
				bad("--ledger-%s is about NATS servers; give these with --ledger nats://HOST:4222,...", name)
			}
		}
		if f.LedgerSync && f.Ledger == ledgerMemory {
			bad("--ledger-sync is about files, and --ledger memory has none")
		}
		return
	}
	servers, err := ledger.ParseServers(f.Ledger)
	if err != nil {
		bad("--ledger must be embedded, memory, or NATS servers: %w", err)
	}
	if f.LedgerSync {
		bad("--ledger-sync is about an embedded ledger; set sync_interval: always in the JetStream settings of the NATS servers")
	}
	if f.LedgerReplicas < 0 || f.LedgerReplicas > 5 {
		bad("--ledger-replicas must be 1 to 5")
	}
	if (f.LedgerUser == "") != (f.LedgerPasswordFile == "") {
		bad("--ledger-user and --ledger-password-file belong together")
	}
	if f.LedgerUser != "" && f.LedgerCreds != "" {
		bad("--ledger-user and --ledger-creds are two ways to log in; give one")
	}
	if (f.LedgerCert == "") != (f.LedgerKey == "") {
		bad("--ledger-cert and --ledger-key belong together")
	}
	for _, s := range servers {
		if u, err := url.Parse(s); f.LedgerUser != "" && f.LedgerCA == "" && f.LedgerCert == "" && err == nil && u.Scheme != "tls" && !netrules.IsLoopback(u.Hostname()) {
			bad("--ledger-user would send its password to %s in the clear; say tls:// instead of nats://", u.Host)
		}
	}
}

// ledgerConfig is what the flags say of the ledger, with the files that they name.
func (f *flags) ledgerConfig(log *slog.Logger) (ledger.Config, error) {
	c := ledger.Config{
		Sync: f.LedgerSync, Replicas: f.LedgerReplicas, CredsFile: f.LedgerCreds, User: f.LedgerUser,
		TTL: f.RequestIDTTL, MaxBytes: int64(f.LedgerBytes), Timeout: ledgerTimeout, StartTimeout: ledgerStart, Now: time.Now, Log: log,
	}
	switch {
	case f.Ledger == ledgerMemory, f.Ledger == ledgerEmbedded && f.Sandbox && f.DataDir == "":
		return c, nil
	case f.Ledger == ledgerEmbedded:
		dir := f.DataDir
		if dir == "" {
			var err error
			if dir, err = stateDir(); err != nil {
				return c, fmt.Errorf("%w; say with --data-dir where the ledger's files are to be, or --ledger memory to do without", err)
			}
		}
		c.Dir = filepath.Join(dir, "ledger")
		return c, nil
	}
	var err error
	if c.Servers, err = ledger.ParseServers(f.Ledger); err != nil {
		return c, err
	}
	if f.LedgerPasswordFile != "" {
		password, err := os.ReadFile(f.LedgerPasswordFile)
		if err != nil {
			return c, fmt.Errorf("--ledger-password-file: %w", err)
		}
		c.Password = string(bytes.TrimRight(password, "\r\n"))
	}
	if f.LedgerCA == "" && f.LedgerCert == "" {
		return c, nil // tls:// alone: the system's certificates
	}
	c.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	if f.LedgerCA != "" {
		pem, err := os.ReadFile(f.LedgerCA)
		if err != nil {
			return c, fmt.Errorf("--ledger-ca: %w", err)
		}
		c.TLS.RootCAs = x509.NewCertPool()
		if !c.TLS.RootCAs.AppendCertsFromPEM(pem) {
			return c, fmt.Errorf("--ledger-ca: %s has no certificate in PEM", f.LedgerCA)
		}
	}
	if f.LedgerCert != "" {
		cert, err := tls.LoadX509KeyPair(f.LedgerCert, f.LedgerKey)
		if err != nil {
			return c, fmt.Errorf("--ledger-cert: %w", err)
		}
		c.TLS.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}

// stateDir is where a program of this user keeps what must outlive it.
func stateDir() (string, error) {
	if dir, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":"); dir != "" { // from systemd's StateDirectory=
		return dir, nil
	}
	switch runtime.GOOS {
	case "windows", "darwin":
		dir, err := os.UserConfigDir()
		if runtime.GOOS == "windows" {
			dir, err = os.UserCacheDir() // %LocalAppData%: it does not travel from machine to machine
		}
		return filepath.Join(dir, "lpfileshare"), err
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "lpfileshare"), nil
	}
	home := os.Getenv("HOME")
	if !filepath.IsAbs(home) {
		return "", errors.New("the environment names no directory for state")
	}
	return filepath.Join(home, ".local", "state", "lpfileshare"), nil
}

// whereLedger tells people where the records are.
func whereLedger(c ledger.Config) string {
	switch {
	case len(c.Servers) > 0:
		return strings.Join(c.Servers, ",")
	case c.Dir != "":
		return c.Dir
	}
	return ledgerMemory
}
