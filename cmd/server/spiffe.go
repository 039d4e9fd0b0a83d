package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/credentials"
)

// spiffeStartTime is how long the start of the server waits for its first certificate. Without one it cannot serve.
const spiffeStartTime = 30 * time.Second

// validateSPIFFE checks the address and the trust domains.
func (f *tlsFlags) validateSPIFFE() error {
	if f.SPIFFESocket == "" {
		if len(f.SPIFFETrustDomains) > 0 {
			return errors.New("--spiffe-trust-domain requires the Workload API; add --spiffe-socket")
		}
		return nil
	}
	var errs []error
	if f.Cert != "" || f.ClientCA != "" {
		errs = append(errs, errors.New("--spiffe-socket replaces the TLS files; leave out --tls-cert, --tls-key and --tls-client-ca"))
	}
	if err := workloadapi.ValidateAddress(f.SPIFFESocket); err != nil {
		errs = append(errs, fmt.Errorf("--spiffe-socket %q is not the address of a Workload API; give unix:///PATH", f.SPIFFESocket))
	}
	for _, d := range f.SPIFFETrustDomains {
		if _, err := spiffeid.TrustDomainFromString(d); err != nil {
			errs = append(errs, fmt.Errorf("--spiffe-trust-domain %q is not a trust domain; give a name such as example.com", d))
		}
	}
	return errors.Join(errs...)
}

// A spiffeSource has the server's certificate and the authorities of its callers, which the Workload API replaces as it likes. A
// change affects later handshakes; open connections stay open.
type spiffeSource struct {
	source  *workloadapi.X509Source
	domains []spiffeid.TrustDomain // empty: the server's own
	ended   chan struct{}
	cancel  context.CancelFunc
}

// newSPIFFE waits for the first certificate. It returns nil without --spiffe-socket. updated is called at each further certificate. The
// caller must close it.
func newSPIFFE(ctx context.Context, f *tlsFlags, updated func(), log *slog.Logger) (*spiffeSource, error) {
	if f.SPIFFESocket == "" {
		return nil, nil
	}
	starting, cancel := context.WithTimeout(ctx, spiffeStartTime)
	defer cancel()
	source, err := workloadapi.NewX509Source(starting, workloadapi.WithClientOptions(workloadapi.WithAddr(f.SPIFFESocket), workloadapi.WithLogger(spiffeLog{log})))
	if err != nil {
		return nil, fmt.Errorf("--spiffe-socket %s: no certificate within %s: %w", f.SPIFFESocket, spiffeStartTime, err)
	}
	s := &spiffeSource{source: source, ended: make(chan struct{})}
	for _, d := range f.SPIFFETrustDomains {
		s.domains = append(s.domains, spiffeid.RequireTrustDomainFromString(d)) // the flags were validated
	}
	watching, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go s.watch(watching, updated, log)
	return s, nil
}

// watch logs each new certificate, until ctx ends.
func (s *spiffeSource) watch(ctx context.Context, updated func(), log *slog.Logger) {
	defer close(s.ended)
	for {
		if svid, err := s.source.GetX509SVID(); err == nil {
			log.Info("certificate received from the Workload API", "spiffe_id", svid.ID.String(), "expires", svid.Certificates[0].NotAfter)
			updated()
		}
		select {
		case <-ctx.Done():
			return
		case <-s.source.Updated():
		}
	}
}

func (s *spiffeSource) close() {
	s.cancel()
	<-s.ended
	_ = s.source.Close()
}

// credentials returns the credentials of the gRPC server.
func (s *spiffeSource) credentials() credentials.TransportCredentials {
	config := tlsconfig.MTLSServerConfig(s.source, s.source, tlsconfig.AdaptMatcher(s.mayConnect))
	config.NextProtos = []string{"h2"}
	config.SessionTicketsDisabled = true // go-spiffe does not verify the certificate of a resumed session
	return credentials.NewTLS(config)
}

// mayConnect rejects ids of other trust domains, for which the Workload API may have authorities too.
func (s *spiffeSource) mayConnect(id spiffeid.ID) error {
	if len(s.domains) > 0 {
		if !slices.Contains(s.domains, id.TrustDomain()) {
			return fmt.Errorf("%s is not of a trust domain of --spiffe-trust-domain", id)
		}
		return nil
	}
	own, err := s.source.GetX509SVID()
	if err == nil && !id.MemberOf(own.ID.TrustDomain()) {
		err = fmt.Errorf("%s is not of the server's trust domain", id)
	}
	return err
}

// spiffeLog has the messages of the library in the server's log.
type spiffeLog struct{ log *slog.Logger }

func (l spiffeLog) write(level slog.Level, format string, args []any) {
	l.log.Log(context.Background(), level, "Workload API", "message", fmt.Sprintf(format, args...))
}

func (l spiffeLog) Debugf(format string, args ...any) { l.write(slog.LevelDebug, format, args) }
func (l spiffeLog) Infof(format string, args ...any)  { l.write(slog.LevelDebug, format, args) }
func (l spiffeLog) Warnf(format string, args ...any)  { l.write(slog.LevelWarn, format, args) }
func (l spiffeLog) Errorf(format string, args ...any) { l.write(slog.LevelError, format, args) }
