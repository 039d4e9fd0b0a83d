package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// livePersonFlags say which accounts are served, and how LivePerson is reached for them.
type livePersonFlags struct {
	Account        []string          `name:"serve-account" placeholder:"ID" help:"Accounts to serve. Default: every account that a caller has a token for."`
	Accounts       string            `placeholder:"FILE" help:"YAML file with the accounts to serve and their settings, instead of --serve-account; see docs/accounts.md. It is reloaded: see --reload-every."`
	CheckAccounts  bool              `env:"-" help:"Check --accounts FILE and its secrets, and exit: 0 if it is valid, 1 if not."`
	DomainAPI      string            `name:"domain-api" default:"https://api.liveperson.net" placeholder:"URL" help:"URL of the API that looks up LivePerson's hosts (${default})."`
	Domain         map[string]string `placeholder:"SERVICE=HOST" help:"Host of a LivePerson service that is not to be looked up: agentVep, asyncMessagingEnt, facadeMsg, idp, sentinel, swift, accountConfigReadWrite, accountConfigReadOnly."`
	DomainSuffix   []string          `placeholder:".SUFFIX" default:".liveperson.net,.lpsnmedia.net,.liveperson.com" help:"Suffixes of which a looked-up host must have one (${default})."`
	PlainHTTP      bool              `name:"lp-plain-http" help:"Use http and ws instead of https and wss, with loopback hosts only: for a sandbox in another process."`
	CA             string            `name:"lp-ca" placeholder:"FILE" help:"PEM file of certificates to trust for LivePerson, in addition to the system's. It is reloaded: see --reload-every. Default: none."`
	Timeout        time.Duration     `name:"lp-timeout" default:"10s" help:"Maximum time of a request to LivePerson (${default})."`
	Settle         time.Duration     `default:"10s" help:"Time after --lp-timeout in which a message without an answer may still appear, before it is sent again (${default})."`
	MaxSessions    int               `default:"10000" help:"Maximum concurrent LivePerson sessions (${default})."`
	MaxOpenings    int               `default:"256" help:"Maximum number of LivePerson sessions and sign-ins that are being opened at once; each address has a share (${default})."`
	SessionIdle    time.Duration     `default:"5m" help:"Time after which an unused LivePerson session is closed (${default})."`
	AgentRefresh   time.Duration     `default:"10m" help:"Interval at which the logins of agents with an open session are refreshed (${default})."`
	AcceptReceipts bool              `default:"true" negatable:"" help:"Notify senders when a file was delivered to a watcher, as ACCEPT (${default})."`
	AccessReceipts bool              `default:"true" negatable:"" help:"Notify senders when a file was downloaded, as ACCESS (${default})."`
}

const defaultDomainAPI = "https://api.liveperson.net"

// services are the LivePerson services that this server uses.
var services = []string{"agentVep", "asyncMessagingEnt", "facadeMsg", "idp", "sentinel", "swift", "accountConfigReadWrite", "accountConfigReadOnly"}

// Validate checks the accounts, the hosts and the times. Files are checked when they are read.
func (f *livePersonFlags) Validate() error {
	return errors.Join(
		f.validateAccounts(), f.validateHosts(),
		positive("lp-timeout", f.Timeout), notNegative("settle", f.Settle),
		positive("max-sessions", f.MaxSessions), positive("max-openings", f.MaxOpenings), positive("session-idle", f.SessionIdle), positive("agent-refresh", f.AgentRefresh),
	)
}

func (f *livePersonFlags) validateAccounts() error {
	var errs []error
	for _, a := range f.Account {
		if !share.ValidAccountID(a) {
			errs = append(errs, fmt.Errorf("--serve-account %q is not an account id; use %s", a, share.AccountIDRule))
		}
	}
	if f.Accounts != "" && len(f.Account) > 0 {
		errs = append(errs, fmt.Errorf("--serve-account and --accounts exclude each other; move the ids of --serve-account to %s, or leave --accounts out", f.Accounts))
	}
	if f.CheckAccounts && f.Accounts == "" {
		errs = append(errs, errors.New("--check-accounts has no file to check; add --accounts FILE"))
	}
	return errors.Join(errs...)
}

func (f *livePersonFlags) validateHosts() error {
	var errs []error
	if u, err := url.Parse(f.DomainAPI); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		errs = append(errs, fmt.Errorf("--domain-api %q is not a URL; give https://HOST", f.DomainAPI))
	}
	if f.PlainHTTP && f.DomainAPI == defaultDomainAPI {
		errs = append(errs, errors.New("--lp-plain-http works with loopback only; set --domain-api to the sandbox, for example http://127.0.0.1:8080"))
	}
	for _, name := range slices.Sorted(maps.Keys(f.Domain)) {
		if !slices.Contains(services, name) {
			errs = append(errs, fmt.Errorf("--domain %s=%s: there is no service %[1]s; use one of %[3]s", name, f.Domain[name], strings.Join(services, ", ")))
		}
	}
	return errors.Join(errs...)
}

// choosesHosts reports whether a flag is set that says where LivePerson is, or which of its accounts are served.
func (f *livePersonFlags) choosesHosts() bool {
	return len(f.Account) > 0 || len(f.Domain) > 0 || f.PlainHTTP || f.CA != "" || f.DomainAPI != defaultDomainAPI
}

// trust returns the TLS configuration for LivePerson and its store; nil means the system's.
func (f *livePersonFlags) trust() (*tls.Config, error) {
	if f.CA == "" {
		return nil, nil
	}
	return readTrust("--lp-ca", f.CA)
}

// readTrust returns a TLS configuration that trusts the certificates in the file of a flag, and the system's.
func readTrust(flag, file string) (*tls.Config, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: %s has no certificate in PEM", flag, file)
	}
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, nil
}

// reloadTrust reads --lp-ca again, and passes the result to the clients of LivePerson and its store, for their later connections. If the
// file is invalid, the previous authorities stay trusted.
func reloadTrust(f *livePersonFlags, clients []trustUser, log *slog.Logger) error {
	trust, err := f.trust()
	if err != nil {
		log.Error("the file of --lp-ca is invalid, the previous one stays in use; correct it, and send SIGHUP if --reload-every is 0", "error", err)
		return err
	}
	for _, c := range clients {
		c.SetTLS(trust)
	}
	log.Info("the file of --lp-ca was reloaded")
	return nil
}

// A trustUser connects to LivePerson or its store.
type trustUser interface{ SetTLS(*tls.Config) }
