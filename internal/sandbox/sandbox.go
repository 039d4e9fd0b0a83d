// Package sandbox is a stand-in for LivePerson and its OpenStack Swift on loopback, for tests and for a first look. It starts the
// three parts together: package liveperson (domain look-up, login, tokens, sockets), package connector (the Connector API with its
// webhooks) and package swift (the store behind signed URLs).
//
// LivePerson's own clients work against it unchanged, and it refuses what LivePerson refuses. It keeps everything in memory, listens
// on loopback only, and posts webhooks to loopback only. It has no post-conversation surveys.
//
// It shares no code with the server, so that both cannot share a misreading of the protocol.
package sandbox

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/httpguard"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/connector"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/fault"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/feed"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/journal"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/liveperson"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/swift"
)

// A Sandbox is a running LivePerson with its store. Its methods may be called from any goroutine. Callers must call Close.
type Sandbox struct {
	opts      Options
	faults    *fault.Set
	feed      *feed.Feed
	journal   *journal.Recorder
	signer    *liveperson.Signer
	platform  *liveperson.Service
	connector *connector.API
	store     *swift.Store  // nil if the files are elsewhere
	remote    *swift.Remote // nil if the files are here
	gateway   atomic.Pointer[Gateway]

	plain, secure net.Listener // secure is nil without TLSListen
	servers       []*http.Server
	ctx           context.Context // the parent of every request's context; ends when Close begins
	cancel        context.CancelFunc

	mu       sync.Mutex // guards closed, and orders work.Add before work.Wait
	closed   bool
	requests sync.WaitGroup
	serving  sync.WaitGroup
	closing  sync.Once
}

// Start listens on the addresses of opts and serves in the background until Close.
func Start(opts Options) (*Sandbox, error) {
	if err := opts.complete(); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	events := feed.New(opts.Now)
	s := &Sandbox{opts: opts, feed: events, faults: &fault.Set{Feed: events}, journal: journal.NewRecorder(opts.Now, events)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.start(); err != nil {
		s.cancel()
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	return s, nil
}

// sharedSigner is the signer of all sandboxes without a key of their own.
var sharedSigner = sync.OnceValues(liveperson.NewSigner)

// start starts the parts of the sandbox.
func (s *Sandbox) start() error {
	opts := s.opts
	// The key is generated at the start because that can take longer than a client waits for a sign-up.
	var err error
	newSigner := sharedSigner
	if opts.OwnKey {
		newSigner = liveperson.NewSigner
	}
	if s.signer, err = newSigner(); err != nil {
		return err
	}
	store, err := s.openStore()
	if err != nil {
		return err
	}
	s.connector, err = connector.New(s.ctx, connector.Options{
		Accounts: opts.Accounts, AppInstalls: opts.AppInstalls,
		WebhookUnit: opts.WebhookUnit, WebhookTimeout: opts.WebhookTimeout, WebhookTLS: opts.WebhookTLS,
		OnExchange: opts.OnExchange, Logger: opts.Logger, Now: opts.Now,
		Faults: s.faults, Journal: s.journal, Feed: s.feed, Signer: s.signer, MaxWaiting: opts.maxWebhooks,
	})
	if err != nil {
		return err
	}
	if err := s.listen(); err != nil {
		return err
	}
	s.platform = liveperson.New(s.ctx, liveperson.Options{
		Accounts: opts.Accounts, AdminUser: opts.AdminUser, Password: opts.Password, URLLifetime: opts.URLLifetime,
		TokenLifetime: opts.TokenLifetime, BearerLifetime: opts.BearerLifetime, OneLogin: opts.OneLogin, Brands: opts.Brands, MaxFileSize: opts.MaxFileSize,
		FileSharingOff: opts.FileSharingOff, SignAnyPath: opts.SignAnyPath, AutoAssign: opts.AutoAssign,
		IdleTimeout: opts.IdleTimeout, InitTimeout: opts.InitTimeout,
		OnFrame: opts.OnFrame, Logger: opts.Logger, Now: opts.Now,
		Faults: s.faults, Journal: s.journal, Feed: s.feed, Store: store, RemoteStore: s.remote != nil, Domain: s.domain,
		Listener: s.connector.Listener, Signer: s.signer, MaxQueued: opts.maxQueued,
	})
	s.serve()
	return nil
}

// openStore sets s.store or s.remote, and returns it.
func (s *Sandbox) openStore() (liveperson.Store, error) {
	signer := swift.Signer{Key: s.opts.SwiftKey, Digest: s.opts.SwiftDigest}
	if s.opts.SwiftURL != "" {
		var err error
		s.remote, err = swift.NewRemote(s.opts.SwiftURL, signer, s.opts.Now)
		return s.remote, err
	}
	s.store = swift.New(swift.Options{
		Signer: signer, MaxObjectSize: s.opts.MaxObjectSize, ClientTimeout: s.opts.StoreTimeout,
		Now: s.opts.Now, Faults: s.faults, Journal: s.journal, Feed: s.feed, Log: s.opts.Logger,
	})
	for _, id := range s.opts.Accounts {
		s.store.CreateContainer(id)
	}
	return s.store, nil
}

// listen binds the plaintext listener and, if requested, the TLS listener.
func (s *Sandbox) listen() (err error) {
	if s.plain, err = net.Listen("tcp", s.opts.Listen); err != nil {
		return err
	}
	if s.opts.TLSListen == "" {
		return nil
	}
	config, err := newTLSConfig(s.opts.CAFile)
	if err == nil {
		s.secure, err = net.Listen("tcp", s.opts.TLSListen)
	}
	if err != nil {
		_ = s.plain.Close()
		return err
	}
	s.secure = newEitherListener(s.secure, config)
	return nil
}

// serve starts a server on each listener.
func (s *Sandbox) serve() {
	handler := s.admit(s.routes())
	for _, l := range []net.Listener{s.plain, s.secure} {
		if l == nil {
			continue
		}
		server := &http.Server{
			Handler:           handler,
			ReadHeaderTimeout: 10 * time.Second,
			BaseContext:       func(net.Listener) context.Context { return s.ctx },
			ErrorLog:          log.New(io.Discard, "", 0), // failed handshakes and the like; the client reports them better
		}
		s.servers = append(s.servers, server)
		s.serving.Go(func() { _ = server.Serve(l) })
	}
}

// URL returns the base of the plaintext address, "http://127.0.0.1:PORT".
func (s *Sandbox) URL() string { return "http://" + s.plain.Addr().String() }

// TLSURL returns the base of the TLS address, "https://127.0.0.1:PORT", or "" if there is none.
func (s *Sandbox) TLSURL() string {
	if s.secure == nil {
		return ""
	}
	return "https://" + s.secure.Addr().String()
}

// domain returns the host and port of a service: the TLS address if there is one, which serves plaintext as well. LivePerson's own
// clients look it up by http and continue by https.
func (s *Sandbox) domain(service string) string {
	switch {
	case service == "swift" && s.remote != nil:
		return s.remote.Host()
	case s.secure != nil:
		return s.secure.Addr().String()
	default:
		return s.plain.Addr().String()
	}
}

// Inject arms a fault and returns its id. It takes effect from the next occasion on.
func (s *Sandbox) Inject(f Fault) int { return s.faults.Inject(f) }

// Faults returns the armed faults with what is left of them. A fault that has struck for the last time is no longer armed.
func (s *Sandbox) Faults() []FaultState { return s.faults.List() }

// RemoveFault disarms one fault, and reports whether it was armed.
func (s *Sandbox) RemoveFault(id int) bool { return s.faults.Remove(id) }

// FaultsStruck returns how many times faults have struck.
func (s *Sandbox) FaultsStruck() int { return s.faults.Struck() }

// ClearFaults disarms every fault.
func (s *Sandbox) ClearFaults() { s.faults.Clear() }

// Journal returns a copy of the journal.
func (s *Sandbox) Journal() Journal { return s.journal.Snapshot() }

// ReportCall adds an event about a call to the server in front of the sandbox to the event stream.
func (s *Sandbox) ReportCall(c Call) { s.feed.Add("call", c) }

// DropSockets ends every open socket, with a close frame of closeCode, or with a TCP reset if that is 0, and returns how many
// there were. It does not wait until they have ended.
func (s *Sandbox) DropSockets(closeCode int) int { return s.platform.DropSockets(closeCode) }

// Sockets returns the number of open sockets.
func (s *Sandbox) Sockets() int { return s.platform.Sockets() }

// SetWebhooks replaces the webhooks of an app install from the next event on. Webhooks that wait to be delivered keep their
// endpoint. An empty account is the first of Options.Accounts, an empty app is DefaultAppID.
func (s *Sandbox) SetWebhooks(account, app string, hooks Webhooks) error {
	if err := s.connector.SetWebhooks(account, app, hooks); err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	return nil
}

// WebhooksWaiting returns the number of webhooks that have been neither delivered nor abandoned.
func (s *Sandbox) WebhooksWaiting() int { return s.connector.WebhooksWaiting() }

// Close stops serving, ends every connection, and returns when all goroutines of the sandbox have ended. It always returns nil and
// may be called more than once.
func (s *Sandbox) Close() error {
	s.closing.Do(func() {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		s.cancel()
		s.feed.Close()
		if s.store != nil {
			s.store.Close()
		}
		s.platform.CloseSockets()
		for _, server := range s.servers {
			_ = server.Close()
		}
	})
	s.serving.Wait()
	s.requests.Wait()
	s.platform.Wait()
	s.connector.Wait()
	if s.remote != nil {
		s.remote.Close()
	}
	return nil
}

// admit rejects requests while the sandbox closes, and makes Close wait for the others. http.Server.Shutdown does not wait for
// hijacked connections.
func (s *Sandbox) admit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			http.Error(w, "closing", http.StatusServiceUnavailable)
			return
		}
		s.requests.Add(1)
		s.mu.Unlock()
		defer s.requests.Done()
		if s.opts.OnRequest != nil {
			s.opts.OnRequest(r)
		}
		next.ServeHTTP(w, r)
	})
}

// routes returns the handler of all requests.
func (s *Sandbox) routes() http.Handler {
	mux := http.NewServeMux()
	s.platform.Register(mux)
	s.connector.Register(mux, s.platform)
	s.registerAdmin(mux)
	gateway := httpguard.LocalOnly(http.HandlerFunc(s.serveGateway))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A ServeMux cleans paths, but the store's signatures cover every byte of a path, so the store must get doubled slashes.
		if s.store != nil && strings.HasPrefix(strings.TrimLeft(r.URL.Path, "/"), "v1/") {
			s.store.ServeHTTP(w, r)
			return
		}
		if isGateway(r) {
			gateway.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}
