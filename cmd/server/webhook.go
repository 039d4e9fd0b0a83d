package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/connlimit"
	"github.com/lpfileshare/lpfileshare/internal/netrules"
)

// connectorFlags are the settings for accounts that use the Connector API; docs/connector.md describes it.
type connectorFlags struct {
	WebhookListen    string        `placeholder:"ADDR" help:"Address to receive LivePerson's webhooks on, as POST /webhooks: with --webhook-cert, on loopback, or behind a proxy that adds TLS (--webhook-plaintext). Default: none."`
	WebhookCert      string        `name:"webhook-cert" placeholder:"FILE" help:"PEM file of the certificate for --webhook-listen, followed by its chain. It is reloaded: see --reload-every. Default: none, no TLS."`
	WebhookKey       string        `name:"webhook-key" placeholder:"FILE" help:"PEM file of the key of --webhook-cert."`
	WebhookPlaintext bool          `help:"Receive webhooks without TLS on an address that is not loopback. Requires a proxy in front that adds TLS."`
	EventGap         time.Duration `default:"10s" help:"Maximum time that a watch waits for a missing event before it continues without it (${default})."`
	EventTTL         time.Duration `name:"event-ttl" default:"720h" help:"How long events, and conversations without events, are kept in the ledger (${default})."`
	EventBytes       byteSize      `default:"256MiB" placeholder:"SIZE" help:"Maximum size of all stored events; beyond it the oldest are deleted (${default})."`
}

// Validate checks the address, the TLS flags and the limits. The files are checked when they are read.
func (f *connectorFlags) Validate() error {
	errs := []error{positive("event-gap", f.EventGap), positive("event-ttl", f.EventTTL)}
	if (f.WebhookCert == "") != (f.WebhookKey == "") {
		errs = append(errs, errors.New("--webhook-cert and --webhook-key belong together; give both or neither"))
	}
	if f.WebhookListen == "" {
		if f.WebhookCert != "" {
			errs = append(errs, errors.New("--webhook-cert is set, but no webhooks are received; add --webhook-listen"))
		}
	} else if host, _, err := net.SplitHostPort(f.WebhookListen); err != nil {
		errs = append(errs, fmt.Errorf("--webhook-listen %q is not an address; give HOST:PORT, for example 0.0.0.0:8443", f.WebhookListen))
	} else if !netrules.IsLoopback(host) && f.WebhookCert == "" && !f.WebhookPlaintext {
		errs = append(errs, fmt.Errorf("--webhook-listen %s is not loopback, and LivePerson delivers with TLS only; set --webhook-cert and --webhook-key, or "+
			"--webhook-plaintext if a proxy in front adds TLS", f.WebhookListen))
	}
	if f.EventBytes < 4<<20 {
		errs = append(errs, fmt.Errorf("--event-bytes is %d, and an event has up to 50 KB; set it to at least 4MiB", f.EventBytes))
	}
	return errors.Join(errs...)
}

// A webhookServer receives LivePerson's webhooks.
type webhookServer struct {
	flags       *connectorFlags
	connections *connlimit.Limiter
	cert        servedCert
	listener    net.Listener
	http        *http.Server
	ended       chan struct{}
}

// newWebhookServer loads the certificate; it returns nil without --webhook-listen. connections limits what start accepts, and belongs
// to this server only.
func newWebhookServer(f *connectorFlags, connections *connlimit.Limiter) (*webhookServer, error) {
	if f.WebhookListen == "" {
		return nil, nil
	}
	s := &webhookServer{flags: f, connections: connections, ended: make(chan struct{}), cert: servedCert{of: "webhook", cert: f.WebhookCert, key: f.WebhookKey}}
	if f.WebhookCert != "" {
		if err := s.cert.load(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// start listens, and serves with handler until close.
func (s *webhookServer) start(handler http.Handler, log *slog.Logger) error {
	listener, err := net.Listen("tcp", s.flags.WebhookListen)
	if err != nil {
		return fmt.Errorf("--webhook-listen: %w", err)
	}
	s.listener = s.connections.Listener(listener)
	s.http = &http.Server{
		Handler: handler, ConnState: s.connections.ConnState, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 20 * time.Second, IdleTimeout: 2 * time.Minute,
	}
	serve := s.http.Serve
	if s.flags.WebhookCert != "" {
		s.http.TLSConfig = s.cert.config()
		serve = func(l net.Listener) error { return s.http.ServeTLS(l, "", "") }
	}
	go func() {
		defer close(s.ended)
		if err := serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("webhook server failed", "error", err)
		}
	}()
	return nil
}

// close ends a started server. It waits up to 5 s for running deliveries. LivePerson delivers later events to another server, or again.
func (s *webhookServer) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		s.http.Close()
	}
	<-s.ended
}
