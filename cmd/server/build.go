package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/accounts"
	"github.com/lpfileshare/lpfileshare/internal/ledger"
	"github.com/lpfileshare/lpfileshare/internal/lpapi"
	"github.com/lpfileshare/lpfileshare/internal/lpws"
	"github.com/lpfileshare/lpfileshare/internal/preview"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/internal/service"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/internal/swift"
)

// What the adapters promise to the service.
var (
	_ service.Accounts  = (*lpapi.Client)(nil)
	_ service.Ledger    = (*ledger.KV)(nil)
	_ service.Previewer = (*preview.Previewer)(nil)
)

// house is the server's parts, in the order in which they are closed.
type house struct {
	service  *service.Server
	accounts *accounts.Registry
	sandbox  *sandbox.Sandbox // nil without --sandbox
	ledger   *ledger.KV
	kept     string // where the ledger has its records
	debug    string // address of the debug server, "" for none
	closers  []func()
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

	h.accounts = accounts.NewRegistry(f.accounts())
	trust, err := f.trust()
	if err != nil {
		return nil, err
	}
	at := lpapi.Config{
		DomainAPI: f.DomainAPI, Overrides: f.Domain, Suffixes: f.DomainSuffix, PlainHTTP: f.LPPlainHTTP,
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
			Listen: f.SandboxListen, TLSListen: f.SandboxTLSListen, CAFile: f.SandboxCA,
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
		at.DomainAPI, at.PlainHTTP = h.sandbox.URL(), true
	}
	api, err := lpapi.New(at)
	if err != nil {
		return nil, err
	}
	closeLast(api.Close)
	objects := swift.New(swift.Config{
		BaseURL: api.SwiftURL, TLS: trust, Proxy: http.ProxyFromEnvironment, StallTimeout: f.StoreStall, ResponseHeaderTimeout: f.StoreStall,
	})
	closeLast(func() { objects.Close() })
	pool := lpws.New(lpws.Config{
		SocketURL: func(ctx context.Context, account string, scheme share.Scheme) (string, error) {
			return api.SocketURL(ctx, account, scheme)
		},
		Unreachable: api.ForgetSocket, RefreshAgent: api.RefreshAgent, RefreshEvery: f.AgentRefresh,
		TLS: trust, Logger: log, CallTimeout: f.LPTimeout, IdleClose: f.SessionIdle, MaxSessions: f.MaxSessions,
	})
	closeLast(func() { pool.Close() })

	key, err := f.agentTokenKey()
	if err != nil {
		return nil, err
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

	h.service = service.New(service.Config{
		Settings:     settings(h.accounts, f.account()),
		MemoryBudget: int64(f.MemoryBudget), QueueLength: f.QueueLength, QueueWait: f.QueueTime,
		IdleTimeout: f.UploadIdleTimeout, UploadTimeout: f.UploadTimeout, UnaryTimeout: 3 * f.LPTimeout,
		RequestIDTTL:   f.RequestIDTTL,
		PublishTimeout: f.LPTimeout, Settle: f.Settle, Heartbeat: f.HeartbeatInterval, ReadStall: f.ReadStall,
		AgentTokenKey: key, Now: time.Now, Log: log,
	}, service.Ports{
		Messenger: messenger{pool, h.accounts},
		Accounts:  api,
		Store:     store{objects, api},
		Ledger:    h.ledger,
		Previewer: preview.New(preview.Config{MaxPixels: f.MaxImagePixels, MaxMemory: int64(f.PreviewMemory)}),
	})
	closeLast(h.service.Close)
	return h, nil
}

// newLogger logs to w. Nothing that is logged anywhere in this program has a token, a signature or a socket's URL in it.
func newLogger(f *flags, w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: f.LogLevel}
	if f.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
