package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"

	"github.com/lpfileshare/lpfileshare/internal/accounts"
	"github.com/lpfileshare/lpfileshare/internal/callers"
	"github.com/lpfileshare/lpfileshare/internal/policy"
	"github.com/lpfileshare/lpfileshare/internal/web"
)

// callerFlags say by what the server knows the services that call it, besides the certificates of the TLS flags; docs/callers.md
// describes them.
type callerFlags struct {
	JWTIssuer      string   `name:"jwt-issuer" placeholder:"URL" help:"Issuer whose bearer tokens name callers, in the metadata authorization. Calls need one, unless the connection has a client certificate. Default: none."`
	JWTAudience    string   `name:"jwt-audience" placeholder:"TEXT" help:"The aud claim that these tokens must have. Required with --jwt-issuer."`
	JWTKeys        string   `name:"jwt-keys" placeholder:"URL" help:"URL of the issuer's JWK Set. Default: that of OpenID Connect's discovery document below --jwt-issuer."`
	JWTCA          string   `name:"jwt-ca" placeholder:"FILE" help:"PEM file of certificates to trust for the issuer, in addition to the system's. Default: none."`
	TrustedProxies []string `name:"trusted-proxy" sep:"none" placeholder:"NAME" help:"Name or pattern of a proxy's certificate, as in the accounts file: uri:spiffe://example.com/edge. Such proxies name the caller in x-forwarded-client-cert, and only they may send it. Can be repeated. Default: none."`
	Sidecar        bool     `help:"A proxy on this machine forwards calls of others: a connection over loopback does not authenticate the caller."`

	proxies []policy.Pattern
}

// Validate checks which of the flags are set, and the names.
func (f *callerFlags) Validate() error {
	var errs []error
	if f.JWTIssuer == "" {
		for flag, value := range map[string]string{"--jwt-audience": f.JWTAudience, "--jwt-keys": f.JWTKeys, "--jwt-ca": f.JWTCA} {
			if value != "" {
				errs = append(errs, fmt.Errorf("%s requires an issuer; add --jwt-issuer", flag))
			}
		}
	} else {
		if err := callers.CheckURL(f.JWTIssuer); err != nil {
			errs = append(errs, fmt.Errorf("--jwt-issuer: %w", err))
		}
		if f.JWTAudience == "" {
			errs = append(errs, errors.New("--jwt-issuer requires --jwt-audience: otherwise a token that was issued for another service could be used here"))
		}
		if f.JWTKeys != "" {
			if err := callers.CheckURL(f.JWTKeys); err != nil {
				errs = append(errs, fmt.Errorf("--jwt-keys: %w", err))
			}
		}
	}
	f.proxies = nil
	for _, text := range f.TrustedProxies {
		p, err := policy.ParsePattern(text)
		if err == nil && p.IsAny() {
			err = errors.New("any client could then name itself as it likes; write the name of the proxy's certificate")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("--trusted-proxy %s: %w", text, err))
		}
		f.proxies = append(f.proxies, p)
	}
	return errors.Join(errs...)
}

// validateCallers checks the flags of callers against those of the listener.
func (f *flags) validateCallers() error {
	if len(f.Callers.TrustedProxies) > 0 && !f.Server.TLS.requiresCertificates() {
		return errors.New("--trusted-proxy requires certificates, by which proxies are known; add --tls-client-ca or --spiffe-socket")
	}
	return nil
}

// authenticatesCallers reports whether callers have names: by certificates or tokens. Then rules say what each may do.
func (f *flags) authenticatesCallers() bool {
	return f.Server.TLS.requiresCertificates() || f.Callers.JWTIssuer != ""
}

// trustsLoopback reports whether callers are authenticated by calling from this machine.
func (f *flags) trustsLoopback() bool {
	return f.Server.listensOnLoopback() && !f.Callers.Sidecar && !f.authenticatesCallers()
}

// identifier returns what finds out who calls. The caller starts and closes its tokens, which may be nil.
func (f *flags) identifier(available func(), log *slog.Logger) (*callers.Identifier, error) {
	id := &callers.Identifier{SPIFFE: f.Server.TLS.SPIFFESocket != "", Loopback: f.trustsLoopback(), Anonymous: web.IsBrowser, Proxies: f.Callers.proxies}
	if c := &f.Callers; c.JWTIssuer != "" {
		var trust *tls.Config
		if c.JWTCA != "" {
			var err error
			if trust, err = readTrust("--jwt-ca", c.JWTCA); err != nil {
				return nil, err
			}
		}
		id.Tokens = callers.NewTokens(callers.TokensConfig{
			Issuer: c.JWTIssuer, Audience: c.JWTAudience, KeysURL: c.JWTKeys, TLS: trust, Available: available, Log: log,
		})
	}
	return id, nil
}

// authenticate adds the caller of a call to its context.
func authenticate(id *callers.Identifier) func(context.Context) (context.Context, error) {
	return func(ctx context.Context) (context.Context, error) {
		c, err := id.Identify(ctx)
		return callers.With(ctx, c), err
	}
}

// permit returns what decides whether a caller may make a call. If callers have names, the rules of the accounts file do; otherwise
// nothing is known of callers that rules could be about.
func permit(f *flags, r *accounts.Registry) func(policy.Request) error {
	if !f.authenticatesCallers() {
		return func(policy.Request) error { return nil }
	}
	return func(q policy.Request) error { return r.Set().Callers.Check(q) }
}
