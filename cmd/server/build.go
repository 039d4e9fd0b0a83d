package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/accounts"
	"github.com/lpfileshare/lpfileshare/internal/connector"
	"github.com/lpfileshare/lpfileshare/internal/images"
	"github.com/lpfileshare/lpfileshare/internal/ledger"
	"github.com/lpfileshare/lpfileshare/internal/lprest"
	"github.com/lpfileshare/lpfileshare/internal/lpws"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/internal/service"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/internal/swift"
)

// What the adapters promise to the service.
var (
	_ service.Accounts   = (*lprest.Client)(nil)
	_ service.Ledger     = (*ledger.KV)(nil)
	_ connector.EventLog = (*ledger.Events)(nil)
	_ service.Images     = (*images.Processor)(nil)
)

// house is the server's parts, in the order in which they are closed.
type house struct {
	service   *service.Server
	accounts  *accounts.Registry
	sandbox   *sandbox.Sandbox // nil without --sandbox
	ledger    *ledger.KV
	connector *connector.Messenger
	kept      string         // where the ledger has its records
	debug     string         // address of the debug server, "" for none
	webhooks  *webhookServer // nil without --webhook-listen
	closers   []func()
}

func (h *house) close() {
	for _, c := range h.closers {
		c()
	}
}

// build puts the parts together. Nothing is connected to yet but the ledger.
func build(ctx context.Context, f *flags, log *slog.Logger) (_ *house, err error) {
	h := &house{}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	closeLast := func(c func()) { h.closers = slices.Insert(h.closers, 0, c) }

	served, err := f.accounts()
	if err != nil {
		return nil, fmt.Errorf("--accounts: this file cannot be used:\n%w", err)
	}
	h.accounts = accounts.NewRegistry(served)
	trust, err := f.trust()
	if err != nil {
		return nil, err
	}
	at := lprest.Config{
		DomainAPI: f.DomainAPI, Overrides: f.Domain, Suffixes: f.DomainSuffix, Reach: reach(h.accounts, f.account()), PlainHTTP: f.plainHTTP(),
		TLS: trust, Timeout: f.LPTimeout, Logger: log,
	}
	if f.Sandbox {
		var onFrame func(sandbox.Frame)
		if f.SandboxFrames != "" {
			frames, err := openFrameLog(f.SandboxFrames)
			if err != nil {
				return nil, fmt.Errorf("--sandbox-frames: %w", err)
			}
			closeLast(func() {
				if err := frames.close(); err != nil {
					log.Error("frames of the sandbox were lost", "error", err)
				}
			})
			onFrame = frames.add
		}
		h.sandbox, err = sandbox.Start(sandbox.Options{
			Accounts: sandboxAccounts(served), Brands: sandboxBrands(served), Listen: f.SandboxListen, TLSListen: f.SandboxTLSListen, CAFile: f.SandboxCA,
			AutoAssign: true, AdminUser: f.SandboxUser, Password: f.SandboxPassword, OnFrame: onFrame, Logger: log,
		})
		if err != nil {
			return nil, fmt.Errorf("--sandbox: %w", err)
		}
		closeLast(func() { h.sandbox.Close() })
		for _, text := range f.SandboxFault {
			fault, err := sandbox.ParseFault([]byte(text))
			if err != nil {
				return nil, fmt.Errorf("--sandbox-fault %s: %w", text, err)
			}
			h.sandbox.Inject(fault)
		}
		if f.SandboxWebhook != "" {
			if err := h.sandbox.SetWebhooks("", "", sandbox.Webhooks{Endpoints: sandbox.AllEvents(f.SandboxWebhook), Retention: 24 * time.Hour}); err != nil {
				return nil, fmt.Errorf("--sandbox-webhook: %w", err)
			}
		}
		at.DomainAPI = h.sandbox.URL()
	}
	api, err := lprest.New(at)
	if err != nil {
		return nil, err
	}
	closeLast(api.Close)
	issued, err := lprest.NewIssuedTokens(api, issuer(h.accounts))
	if err != nil {
		return nil, err
	}
	objects := swift.New(swift.Config{
		BaseURL: api.SwiftURL, TLS: trust, Proxy: http.ProxyFromEnvironment, StallTimeout: f.StoreStall, ResponseHeaderTimeout: f.StoreStall,
	})
	closeLast(func() { objects.Close() })
	pool := lpws.New(lpws.Config{
		SocketURL: func(ctx context.Context, account string, scheme share.Scheme) (string, error) {
			return api.SocketURL(ctx, account, scheme)
		},
		SettingsKey: under(h.accounts, f.account()),
		Token: func(ctx context.Context, c share.Credential, instead string) (share.SignIn, error) {
			return issued.Token(ctx, c.Account, c.Secret, instead)
		},
		Unreachable: api.ForgetSocket, RefreshAgent: api.RefreshAgent, RefreshEvery: f.AgentRefresh,
		TLS: trust, Logger: log, CallTimeout: f.LPTimeout, IdleClose: f.SessionIdle, MaxSessions: f.MaxSessions,
	})
	closeLast(func() { pool.Close() })

	key, err := f.agentTokenKey()
	if err != nil {
		return nil, err
	}
	if h.webhooks, err = newWebhookServer(f); err != nil {
		return nil, err
	}
	if h.webhooks != nil {
		closeLast(h.webhooks.close) // where it does not come to serving; later it is closed before what it writes into
	}
	records, err := f.ledgerConfig(log)
	if err != nil {
		return nil, err
	}
	records.Grown = func(heap int64) { boundMemory(f, heap) }
	h.kept = whereLedger(records)
	if h.ledger, err = ledger.Open(ctx, records); err != nil {
		return nil, err
	}
	closeLast(func() {
		if err := h.ledger.Close(); err != nil {
			log.Warn("closing the ledger", "error", err)
		}
	})

	events := h.ledger.Events(ledger.EventsConfig{TTL: f.EventTTL, MaxBytes: int64(f.EventBytes)})
	closeLast(events.Close)
	connects, told := usesConnector(served)
	if connects { // else it is opened when a reload has brought an account that needs it
		if err := events.Open(ctx); err != nil {
			return nil, err
		}
	}
	if told && f.WebhookListen == "" {
		log.Warn("the accounts file says that LivePerson delivers events to this server, and without --webhook-listen another one must take them")
	}
	h.connector, err = connector.New(connector.Config{
		Client: api, App: connectorApp(h.accounts), Log: events, GapWait: f.EventGap, KeepFor: f.EventTTL, MaxConsumers: f.MaxSessions,
	})
	if err != nil {
		return nil, err
	}
	if h.webhooks != nil {
		h.webhooks.serve(h.connector.Webhook(), log)
		closeLast(h.webhooks.close)
	}

	h.service = service.New(service.Config{
		Caller:       f.caller,
		Serves:       func(id string) bool { _, ok := h.accounts.Account(id); return ok },
		Settings:     settings(h.accounts, f.account()),
		MemoryBudget: int64(f.MemoryBudget), QueueLength: f.QueueLength, QueueWait: f.QueueTime,
		MaxUploadsPerCaller: f.MaxUploadsPerCaller, MaxStreamsPerCaller: f.MaxStreamsPerCaller,
		IdleTimeout: f.UploadIdleTimeout, MinUploadRate: int64(f.MinUploadRate), UploadTimeout: f.UploadTimeout, UnaryTimeout: 3 * f.LPTimeout,
		RequestIDTTL:   f.RequestIDTTL,
		PublishTimeout: f.LPTimeout, Settle: f.Settle, Heartbeat: f.HeartbeatInterval, ReadStall: f.ReadStall,
		AgentTokenKey: key, Version: version(), Now: time.Now, Log: log,
	}, service.Ports{
		Messenger: messenger{pool, h.connector, h.accounts},
		Accounts:  api,
		Store:     store{objects, api},
		Ledger:    h.ledger,
		Images:    images.New(images.Config{MaxPixels: f.MaxImagePixels, MaxMemory: int64(f.PreviewMemory)}),
	})
	closeLast(h.service.Close)
	return h, nil
}

// sandboxAccounts are those that the sandbox plays: its usual one, and what the accounts file names.
func sandboxAccounts(s *accounts.Set) []string {
	ids := slices.Collect(maps.Keys(s.Named))
	if !slices.Contains(ids, sandboxAccount) {
		ids = append(ids, sandboxAccount)
	}
	return ids
}

// sandboxBrands are the issuers of the accounts file, as their accounts would know them.
func sandboxBrands(s *accounts.Set) map[string]sandbox.Brand {
	brands := map[string]sandbox.Brand{}
	for id, a := range s.Named {
		if a.Issuer != nil {
			brands[id] = sandbox.Brand{Issuer: a.Issuer.Name, Key: a.Issuer.Key.Public()}
		}
	}
	return brands
}

const sandboxAccount = "12345678"

// newLogger logs to w. Nothing that is logged anywhere in this program has a token, a signature or a socket's URL in it.
func newLogger(f *flags, w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: f.LogLevel}
	if f.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
