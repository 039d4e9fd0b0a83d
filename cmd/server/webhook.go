package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"

	"github.com/lpfileshare/lpfileshare/internal/netrules"
)

// connectorFlags say how the accounts that use the Connector API are told of; docs/connector.md has the rest.
type connectorFlags struct {
	WebhookListen    string        `group:"Connector API:" placeholder:"ADDR" help:"Take LivePerson's webhooks here: POST /webhooks. By TLS with --webhook-cert; else on loopback, or behind something that adds TLS (--webhook-plaintext)."`
	WebhookCert      string        `group:"Connector API:" name:"webhook-cert" placeholder:"FILE" help:"Certificate for --webhook-listen, in PEM, the chain behind it. SIGHUP reads it again."`
	WebhookKey       string        `group:"Connector API:" name:"webhook-key" placeholder:"FILE" help:"The key of --webhook-cert, in PEM."`
	WebhookPlaintext bool          `group:"Connector API:" help:"Take webhooks without TLS on an address that is not loopback: only behind something that adds it."`
	EventGap         time.Duration `group:"Connector API:" default:"10s" help:"How long a watch waits for an event that is missing between others, before it goes on without."`
	EventTTL         time.Duration `group:"Connector API:" name:"event-ttl" default:"720h" help:"How long events, and conversations of which nothing is heard, are kept in the ledger's NATS."`
	EventBytes       byteSize      `group:"Connector API:" default:"256MiB" placeholder:"SIZE" help:"Room for them (${default}); when it is full the oldest go."`
}

func (f *flags) checkConnector(bad func(format string, args ...any)) {
	if (f.WebhookCert == "") != (f.WebhookKey == "") {
		bad("--webhook-cert and --webhook-key go together; give both, or neither")
	}
	if f.WebhookListen == "" {
		if f.WebhookCert != "" {
			bad("--webhook-cert is for --webhook-listen; say where webhooks are to be taken")
		}
	} else if host, _, err := net.SplitHostPort(f.WebhookListen); err != nil {
		bad("--webhook-listen %q is no address; give HOST:PORT", f.WebhookListen)
	} else if !netrules.IsLoopback(host) && f.WebhookCert == "" && !f.WebhookPlaintext {
		bad("--webhook-listen %s is not loopback, and LivePerson delivers by TLS alone; give --webhook-cert and --webhook-key, or say --webhook-plaintext if "+
			"something in front adds TLS", f.WebhookListen)
	}
	if f.EventGap <= 0 || f.EventTTL <= 0 {
		bad("--event-gap and --event-ttl must be more than 0")
	}
	if f.EventBytes < 4<<20 {
		bad("--event-bytes %d is less than 4 MiB; an event has up to 50 KB", f.EventBytes)
	}
}

// A webhookServer takes LivePerson's deliveries.
type webhookServer struct {
	flags    *connectorFlags
	cert     atomic.Pointer[tls.Certificate]
	listener net.Listener
	http     *http.Server
	ended    chan struct{}
}

// newWebhookServer listens; serve answers. nil without --webhook-listen.
func newWebhookServer(f *flags) (*webhookServer, error) {
	if f.WebhookListen == "" {
		return nil, nil
	}
	s := &webhookServer{flags: &f.connectorFlags}
	if f.WebhookCert != "" {
		if err := s.loadCert(); err != nil {
			return nil, err
		}
	}
	listener, err := net.Listen("tcp", f.WebhookListen)
	if err != nil {
		return nil, fmt.Errorf("--webhook-listen: %w", err)
	}
	s.listener = netutil.LimitListener(listener, f.MaxConnections)
	return s, nil
}

func (s *webhookServer) serve(handler http.Handler, log *slog.Logger) {
	s.http = &http.Server{
		Handler: handler, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 20 * time.Second, IdleTimeout: 2 * time.Minute,
	}
	serve := s.http.Serve
	if s.flags.WebhookCert != "" {
		s.http.TLSConfig = &tls.Config{
			MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.cert.Load(), nil },
		}
		serve = func(l net.Listener) error { return s.http.ServeTLS(l, "", "") }
	}
	s.ended = make(chan struct{})
	go func() {
		defer close(s.ended)
		if err := serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the webhook server ended", "error", err)
		}
	}()
}

func (s *webhookServer) loadCert() error {
	cert, err := tls.LoadX509KeyPair(s.flags.WebhookCert, s.flags.WebhookKey)
	if err != nil {
		return fmt.Errorf("--webhook-cert: %w", err)
	}
	s.cert.Store(&cert)
	return nil
}

// reload reads the certificate again; one that cannot be used changes nothing.
func (s *webhookServer) reload(log *slog.Logger) {
	if err := s.loadCert(); err != nil {
		log.Error("the webhooks' certificate cannot be used, and the one from before still is", "error", err)
	}
}

// close lets the deliveries that run end, each of which has its own bound. What comes later LivePerson delivers elsewhere, or again.
func (s *webhookServer) close() {
	if s.http == nil { // it never came to serving
		s.listener.Close()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		s.http.Close()
	}
	<-s.ended
}
