package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	"github.com/lpfileshare/lpfileshare/internal/buildinfo"
)

const (
	defaultAddress = "127.0.0.1:50051"
	defaultAccount = "12345678"
)

// A connection is how to reach the server, and with which identity.
type connection struct {
	address   string
	plaintext bool
	files     tlsFiles
	tls       *tls.Config // nil: without files
	bearer    string      // file of the bearer token; empty: none
	as        identityOf
	account   string
	session   *session
	file      sessionFile
	caller    string // says which conversation is the caller's default; empty: not known yet

	usedStored bool // the conversation is the one of the session file
}

// tlsFiles are the PEM files of a TLS connection. Each may be empty.
type tlsFiles struct{ ca, cert, key string }

func (f tlsFiles) any() bool { return f.ca != "" || f.cert != "" }

// connection combines flags and session file.
func (a *app) connection() (*connection, error) {
	file, err := a.openSessionFile()
	if err != nil {
		return nil, err
	}
	s, err := file.load()
	if err != nil {
		return nil, err
	}
	c := &connection{
		address: cmp.Or(a.Address, s.Address, defaultAddress), account: cmp.Or(a.Account, s.Account, defaultAccount),
		files: tlsFiles{a.TLSCA, a.ClientCert, a.ClientKey}, plaintext: a.Plaintext, bearer: a.BearerTokenFile, session: s, file: file,
	}
	if c.address == s.Address && c.bearer == "" {
		c.bearer = s.BearerTokenFile
	}
	if c.address == s.Address && !c.files.any() && !c.plaintext {
		c.files, c.plaintext = tlsFiles{s.TLSCA, s.TLSCert, s.TLSKey}, s.Plaintext
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	c.plaintext = !c.files.any() && (c.plaintext || lpfileshare.IsLoopback(c.address))
	if c.tls, err = lpfileshare.TLSConfig(c.files.ca, c.files.cert, c.files.key); err != nil {
		return nil, err
	}
	if a.As == "" {
		a.As = a.defaultIdentity(s)
	}
	c.as, a.conn = a.As, c
	return c, nil
}

func (c *connection) validate() error {
	if c.files.any() && c.plaintext {
		return &usageError{"--plaintext excludes --tls-ca and --client-cert"}
	}
	if (c.files.cert == "") != (c.files.key == "") {
		return &usageError{"--client-cert and --client-key must be given together"}
	}
	return validateAddress(c.address)
}

// webPorts are the ports that addresses with the scheme of a URL mean.
var webPorts = map[string]string{"http": "80", "https": "443", "grpc": "50051", "grpcs": "443"}

// validateAddress rejects a URL, and an address without a port. gRPC parses addresses with the schemes of its own.
func validateAddress(address string) error {
	if first, others, several := strings.Cut(address, ","); several {
		return errors.Join(validateAddress(strings.TrimSpace(first)), validateAddress(strings.TrimSpace(others)))
	}
	scheme, rest, _ := strings.Cut(address, "://")
	if port := webPorts[strings.ToLower(scheme)]; port != "" {
		host, _, _ := strings.Cut(rest, "/")
		if _, _, err := net.SplitHostPort(host); err != nil {
			host = net.JoinHostPort(strings.Trim(host, "[]"), port)
		}
		how := "; the connection uses TLS unless --plaintext is set"
		if lpfileshare.IsLoopback(host) {
			how = ""
		}
		return &usageError{fmt.Sprintf("the address %s is a URL; use HOST:PORT: %s%s", address, host, how)}
	}
	if strings.Contains(address, "/") || strings.HasPrefix(address, "unix") {
		return nil
	}
	if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
		if ip := net.ParseIP(address); ip != nil {
			address = strings.TrimSuffix(net.JoinHostPort(address, ""), ":")
		}
		return &usageError{fmt.Sprintf("the address %s has no port; use HOST:PORT, for example %s:50051", address, strings.TrimSuffix(address, ":"))}
	}
	return nil
}

func (c *connection) parent() string { return "accounts/" + c.account }

// place returns the address with how it is reached.
func place(address string, plaintext bool) string {
	if plaintext && !lpfileshare.IsLoopback(address) {
		return address + " (plaintext)"
	}
	return address
}

// dial connects without an identity. It fails at once if the server cannot be reached.
func (a *app) dial(ctx context.Context, c *connection) (*lpfileshare.Client, error) {
	client, err := a.newClient(c)
	if err != nil {
		return nil, err
	}
	if err := client.Connect(ctx); err != nil {
		client.Close()
		return nil, err
	}
	return client, nil
}

// newClient returns a client without an identity. It does not connect yet.
func (a *app) newClient(c *connection) (*lpfileshare.Client, error) {
	options := []lpfileshare.Option{lpfileshare.WithUserAgent("lpfileshare-cli/" + buildinfo.Version()), lpfileshare.WithAccount(c.account)}
	switch {
	case c.tls != nil:
		options = append(options, lpfileshare.WithTLS(c.tls))
	case c.plaintext:
		options = append(options, lpfileshare.WithPlaintext())
	}
	if c.bearer != "" {
		options = append(options, lpfileshare.WithBearerToken(lpfileshare.TokenFile(c.bearer)))
	}
	return lpfileshare.Dial(c.address, options...)
}

// call connects as client does, runs f, and closes the client. callTimeout bounds all of it.
func (a *app) call(ctx context.Context, f func(context.Context, *lpfileshare.Client, *connection) error) error {
	ctx, cancel := a.limit(ctx, callTimeout)
	defer cancel()
	client, c, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	return f(ctx, client, c)
}

// client connects with the identity of the flags, the environment or the session file. The caller must close it.
func (a *app) client(ctx context.Context) (*lpfileshare.Client, *connection, error) {
	c, err := a.connection()
	if err != nil {
		return nil, nil, err
	}
	id, err := a.identity(c)
	if err != nil {
		return nil, nil, err
	}
	client, err := a.dial(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	return client.As(id), c, nil
}
