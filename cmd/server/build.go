package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/accounts"
	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/buildinfo"
	"github.com/lpfileshare/lpfileshare/internal/callers"
	"github.com/lpfileshare/lpfileshare/internal/connector"
	"github.com/lpfileshare/lpfileshare/internal/connlimit"
	"github.com/lpfileshare/lpfileshare/internal/filecache"
	"github.com/lpfileshare/lpfileshare/internal/images"
	"github.com/lpfileshare/lpfileshare/internal/ledger"
	"github.com/lpfileshare/lpfileshare/internal/lprest"
	"github.com/lpfileshare/lpfileshare/internal/lpws"
	"github.com/lpfileshare/lpfileshare/internal/recvlimit"
	"github.com/lpfileshare/lpfileshare/internal/rejections"
	"github.com/lpfileshare/lpfileshare/internal/scan"
	"github.com/lpfileshare/lpfileshare/internal/service"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/internal/swift"
)

// The interfaces that the adapters implement.
var (
	_ service.Accounts   = (*lprest.Client)(nil)
	_ service.Ledger     = (*ledger.KV)(nil)
	_ connector.EventLog = (*ledger.Events)(nil)
	_ service.Images     = (*images.Processor)(nil)
)

// parts are the parts of the server that outlive build.
type parts struct {
	accounts    *accounts.Registry
	sandbox     *localSandbox // nil without --sandbox
	sessions    *lpws.Pool
	ledger      *ledger.KV
	ledgerPlace string // where the ledger stores its records
	connector   *connector.Messenger
	trustUsers  []trustUser
	webhooks    *webhookServer // nil without --webhook-listen
	scanner     *scan.Scanner  // nil without --scan
	service     *service.Server
	closers     []func() // in the order of construction
}

// close closes the parts in reverse order of construction, so that each part can use the earlier ones until it is closed.
func (p *parts) close() {
	for _, c := range slices.Backward(p.closers) {
		c()
	}
}

// build constructs the parts: first it reads all files that the flags name, then the parts follow in the order of their
// dependencies. It connects to nothing but the ledger and the scanner. It adds files to reloads, which must be read again only until the
// parts are closed. The caller closes the parts.
func build(ctx context.Context, f *flags, reloads *reloader, step share.BeginStep, rejected *rejections.Tally, log *slog.Logger) (_ *parts, err error) {
	p := &parts{}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	onClose := func(c func()) { p.closers = append(p.closers, c) }

	served, err := f.accounts()
	if err != nil {
		return nil, fmt.Errorf("--accounts: the file is invalid:\n%w", err)
	}
	p.accounts = accounts.NewRegistry(served)
	if f.LivePerson.Accounts != "" {
		reloads.add("accounts", f.accountsFiles, func() error { return reloadAccounts(f, p.accounts, log) })
	}
	trust, err := f.LivePerson.trust()
	if err != nil {
		return nil, err
	}
	if f.LivePerson.CA != "" {
		reloads.add("lp-ca", files(f.LivePerson.CA), func() error { return reloadTrust(&f.LivePerson, p.trustUsers, log) })
	}
	key, err := f.Behaviour.agentTokenKey()
	if err != nil {
		return nil, err
	}
	if p.webhooks, err = newWebhookServer(&f.Connector, connlimit.New(f.Limits.MaxConnections, rejected.Add)); err != nil {
		return nil, err
	}
	if f.Connector.WebhookCert != "" {
		reloads.add("webhook-cert", files(f.Connector.WebhookCert, f.Connector.WebhookKey), func() error { return p.webhooks.cert.reload(log) })
	}
	records, err := f.ledgerConfig(log)
	if err != nil {
		return nil, err
	}
	records.Rejections, records.Step = rejected, step
	p.ledgerPlace = ledgerPlace(records)

	domainAPI := f.LivePerson.DomainAPI
	if f.Sandbox.On {
		if p.sandbox, err = startSandbox(&f.Sandbox, served, log); err != nil {
			return nil, err
		}
		onClose(p.sandbox.close)
		domainAPI = p.sandbox.URL()
	}
	rest, err := newREST(f, p.accounts, domainAPI, trust, step, log)
	if err != nil {
		return nil, err
	}
	onClose(rest.Close)
	objects := newStore(f, rest, trust, step)
	onClose(func() { objects.Close() })
	openings := newOpenings(f)
	lists := filecache.New(int64(f.Limits.ListMemory))
	if p.sessions, err = newSessions(f, p.accounts, rest, openings, lists, trust, step, log); err != nil {
		return nil, err
	}
	onClose(p.sessions.Close)
	p.trustUsers = []trustUser{rest, objects, p.sessions}
	if p.ledger, err = ledger.Open(ctx, records); err != nil {
		return nil, err
	}
	onClose(func() { closeLedger(p.ledger, log) })
	events, err := newEvents(ctx, f, p.ledger, served)
	if err != nil {
		return nil, err
	}
	onClose(events.Close)
	if p.connector, err = newConnector(f, p.accounts, rest, openings, events, lists, rejected); err != nil {
		return nil, err
	}
	if p.webhooks != nil {
		if err := p.webhooks.start(p.connector.Webhook(), log); err != nil {
			return nil, err
		}
		onClose(p.webhooks.close)
	} else if anyAccount(served, receivesWebhooks) {
		log.Warn("the accounts file has app.webhooks, but this server receives none; set --webhook-listen here or on another replica")
	}

	p.scanner = newScanner(ctx, &f.Scan, step, log)
	p.service = newService(f, p.accounts, openings, key, rejected, log, service.Ports{
		Messenger: messenger{p.sessions, p.connector, p.accounts},
		Accounts:  rest,
		Store:     objects,
		Ledger:    p.ledger,
		Images:    images.New(images.Config{MaxPixels: f.Limits.MaxImagePixels, MaxMemory: int64(f.Limits.PreviewMemory), Log: log}),
		Scanner:   uploadScanner(p.scanner),
	})
	onClose(p.service.Close)
	return p, nil
}

// newREST returns the client of LivePerson's REST services.
func newREST(f *flags, r *accounts.Registry, domainAPI string, trust *tls.Config, step share.BeginStep, log *slog.Logger) (*lprest.Client, error) {
	lp := &f.LivePerson
	return lprest.New(lprest.Config{
		DomainAPI: domainAPI, Overrides: lp.Domain, Suffixes: lp.DomainSuffix, Reach: reach(r), PlainHTTP: f.plainHTTP(),
		TLS: trust, Timeout: lp.Timeout, Step: step, Logger: log,
	})
}

// newStore returns the client of LivePerson's file store.
func newStore(f *flags, rest *lprest.Client, trust *tls.Config, step share.BeginStep) store {
	stall := f.Behaviour.StoreStall
	return store{swift.New(swift.Config{
		BaseURL: rest.SwiftURL, TLS: trust, Proxy: http.ProxyFromEnvironment, StallTimeout: stall, ResponseHeaderTimeout: stall, Step: step,
	}), rest}
}

// newOpenings returns the limits of what callers use before their identity is proved.
func newOpenings(f *flags) *admission.Openings {
	return admission.NewOpenings(admission.OpeningLimits{
		InFlight: f.LivePerson.MaxOpenings, Queue: f.Limits.QueueLength, Timeout: f.Limits.QueueTime,
		FirstBytes: f.Limits.firstBytes(), Now: time.Now,
	})
}

// newSessions returns the pool of messaging sessions.
func newSessions(f *flags, r *accounts.Registry, rest *lprest.Client, openings *admission.Openings, lists *filecache.Cache, trust *tls.Config, step share.BeginStep, log *slog.Logger) (*lpws.Pool, error) {
	issued, err := lprest.NewIssuedTokens(rest, issuer(r))
	if err != nil {
		return nil, err
	}
	lp := &f.LivePerson
	return lpws.New(lpws.Config{
		SocketURL: rest.SocketURL, Unreachable: rest.ForgetSocket, SettingsKey: settingsKey(r),
		Token: func(ctx context.Context, c share.Credential, instead string) (share.SignIn, error) {
			return issued.Token(ctx, c.Account, c.Secret, instead)
		},
		RefreshAgent: rest.RefreshAgent, RefreshEvery: lp.AgentRefresh,
		TLS: trust, Step: step, Logger: log, CallTimeout: lp.Timeout, IdleClose: lp.SessionIdle, MaxSessions: lp.MaxSessions,
		Begin: openings.Begin, Cache: lists,
	}), nil
}

func closeLedger(l *ledger.KV, log *slog.Logger) {
	if err := l.Close(); err != nil {
		log.Warn("closing the ledger failed", "error", err)
	}
}

// newEvents returns the log of the Connector API's events. It is opened if an account needs it now, else when a reload adds one.
func newEvents(ctx context.Context, f *flags, l *ledger.KV, served *accounts.Set) (*ledger.Events, error) {
	events := l.Events(ledger.EventsConfig{TTL: f.Connector.EventTTL, MaxBytes: int64(f.Connector.EventBytes)})
	if !anyAccount(served, usesConnector) {
		return events, nil
	}
	if err := events.Open(ctx); err != nil {
		events.Close()
		return nil, err
	}
	return events, nil
}

// newConnector returns the messenger for accounts that use the Connector API.
func newConnector(f *flags, r *accounts.Registry, rest *lprest.Client, openings *admission.Openings, events *ledger.Events, lists *filecache.Cache, rejected *rejections.Tally) (*connector.Messenger, error) {
	return connector.New(connector.Config{
		Client: rest, App: connectorApp(r), Log: events,
		GapWait: f.Connector.EventGap, KeepFor: f.Connector.EventTTL, MaxConsumers: f.LivePerson.MaxSessions,
		Begin: openings.Begin, Cache: lists, Rejections: rejected,
	})
}

// newService returns the gRPC service.
func newService(f *flags, r *accounts.Registry, openings *admission.Openings, agentTokenKey [32]byte, rejected *rejections.Tally, log *slog.Logger, ports service.Ports) *service.Server {
	l, b, lp := &f.Limits, &f.Behaviour, &f.LivePerson
	return service.New(service.Config{
		Caller:       callers.Of,
		Permit:       permit(f, r),
		Serves:       func(id string) bool { _, ok := r.Account(id); return ok },
		Settings:     r.Settings,
		Connection:   recvlimit.Connection,
		MemoryBudget: int64(l.MemoryBudget), DownloadMemory: int64(l.DownloadMemory), Buffers: &messageBuffers, QueueLength: l.QueueLength, QueueWait: l.QueueTime,
		MaxUploadsPerCaller: l.MaxUploadsPerCaller, MaxStreamsPerCaller: l.MaxStreamsPerCaller, MaxWatches: l.MaxWatches,
		IdleTimeout: l.UploadIdleTimeout, MinUploadRate: int64(l.MinUploadRate), UploadTimeout: l.UploadTimeout, UnaryTimeout: 3 * lp.Timeout,
		RequestIDTTL:   b.RequestIDTTL,
		PublishTimeout: lp.Timeout, Settle: lp.Settle, Heartbeat: b.HeartbeatInterval, ReadStall: l.ReadStall,
		AgentTokenKey: agentTokenKey, Version: buildinfo.Version(), Openings: openings, ScanDownloads: f.Scan.Downloads, Now: time.Now,
		Rejections: rejected, Log: log,
	}, ports)
}
