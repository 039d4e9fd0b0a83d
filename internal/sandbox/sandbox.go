// Package sandbox plays LivePerson and its OpenStack Swift on loopback: domain look-up, login, the file-sharing switch,
// consumer tokens, the sockets of consumers and of agents, the Connector API with its webhooks, and the store behind signed URLs.
// It is true enough for LivePerson's own clients to work against it unchanged, and it refuses what the real thing refuses.
//
// It is for tests and for a first look. It keeps everything in memory, knows no secret worth the name, and will not listen
// anywhere but on loopback, nor post webhooks anywhere else. It has no post-conversation surveys.
//
// It shares no code with the gateway, so that a misreading of the wire cannot hide by being made on both sides. Whoever
// starts a Sandbox must Close it.
package sandbox

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Sandbox is a running LivePerson. Its methods may be called from any goroutine.
type Sandbox struct {
	opts    Options
	log     *slog.Logger
	now     func() time.Time
	faults  *faults
	journal *journal
	store   *store
	swift   *url.URL     // where the files are kept if not here
	client  *http.Client // asks that other Swift
	key     *rsa.PrivateKey
	sockets *sockets
	hooks   *hooks
	// maxQueued is the constant of that name, a field so that a test can lower it.
	maxQueued int

	plain, secure net.Listener // secure is nil without TLSListen
	servers       []*http.Server
	ctx           context.Context // ends when Close begins; the parent of every request's
	cancel        context.CancelFunc

	doors   sync.Mutex // guards closed, and the first Add of work against Close's Wait
	closed  bool
	work    sync.WaitGroup // everything that runs for this sandbox
	closing sync.Once

	mu       sync.Mutex // guards all of LivePerson's memory, below and in what hangs from it; never held over I/O
	accounts map[string]*account
	sessions map[string]*session     // by bearer
	extTags  map[string]*externalTag // by anonymous external token
}

// Start binds the addresses of opts and serves in the background until Close.
func Start(opts Options) (*Sandbox, error) {
	if err := opts.complete(); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	s := &Sandbox{
		opts:      opts,
		maxQueued: maxQueued,
		log:       opts.Logger,
		now:       opts.Now,
		faults:    &faults{},
		journal:   newJournal(opts.Now),
		sockets:   newSockets(),
		accounts:  map[string]*account{},
		sessions:  map[string]*session{},
		extTags:   map[string]*externalTag{},
	}
	// Here, and not when it is first needed: it can take longer than a client waits for a sign-up.
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	s.key = key
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if opts.SwiftURL != "" {
		u, err := url.Parse(opts.SwiftURL)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return nil, errors.New("sandbox: SwiftURL must be http://host:port or https://host:port")
		}
		s.swift = u
		s.client = &http.Client{Transport: &http.Transport{}, Timeout: swiftTimeout}
	}
	s.store = newStore(storeOptions{
		Key: opts.SwiftKey, Digest: opts.SwiftDigest, Now: opts.Now, Faults: s.faults, Journal: s.journal, Log: opts.Logger,
	})
	for _, id := range opts.Accounts {
		s.accounts[id] = newAccount(id, !opts.FileSharingOff)
		s.store.createContainer(id)
	}
	if err := s.install(opts.AppInstalls); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	s.hooks = newHooks(s)
	if err := s.listen(); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	s.work.Go(s.patrol)
	return s, nil
}

// complete checks o and fills in the defaults.
func (o *Options) complete() error {
	o.Listen = cmp.Or(o.Listen, "127.0.0.1:0")
	if len(o.Accounts) == 0 {
		o.Accounts = []string{"12345678"}
	}
	o.AdminUser = cmp.Or(o.AdminUser, "admin")
	o.Password = cmp.Or(o.Password, "sandbox")
	o.URLLifetime = cmp.Or(o.URLLifetime, time.Minute)
	o.TokenLifetime = cmp.Or(o.TokenLifetime, 24*time.Hour)
	o.AppInstalls = slices.Clone(o.AppInstalls) // the caller's own is left alone
	if len(o.AppInstalls) == 0 {
		for _, id := range o.Accounts {
			o.AppInstalls = append(o.AppInstalls, AppInstall{Account: id, ID: DefaultAppID, Secret: DefaultAppSecret})
		}
	}
	for i := range o.AppInstalls {
		o.AppInstalls[i].Account = cmp.Or(o.AppInstalls[i].Account, o.Accounts[0])
	}
	o.AppTokenLifetime = cmp.Or(o.AppTokenLifetime, time.Hour)
	o.WebhookUnit = cmp.Or(o.WebhookUnit, time.Second)
	o.WebhookTimeout = cmp.Or(o.WebhookTimeout, 5*time.Second)
	o.BearerLifetime = cmp.Or(o.BearerLifetime, 8*time.Hour)
	o.MaxFileSize = cmp.Or(o.MaxFileSize, 5<<20)
	o.IdleTimeout = cmp.Or(o.IdleTimeout, 120*time.Second)
	o.InitTimeout = cmp.Or(o.InitTimeout, 5*time.Second)
	o.SwiftDigest = cmp.Or(o.SwiftDigest, "sha1")
	if o.SwiftDigest != "sha1" && o.SwiftDigest != "sha256" {
		return errors.New(`SwiftDigest must be "sha1" or "sha256"`)
	}
	if o.SwiftURL != "" && o.SwiftKey == "" {
		return errors.New("SwiftURL needs the SwiftKey that its URLs are signed with")
	}
	if o.SwiftKey == "" {
		o.SwiftKey = randomHex(16)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	for _, id := range o.Accounts {
		if id == "" || strings.ContainsAny(id, "/?#. ") {
			return fmt.Errorf("%q cannot be an account id", id)
		}
	}
	for _, addr := range []string{o.Listen, o.TLSListen} {
		if addr == "" {
			continue
		}
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return err
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return fmt.Errorf("%s is not a loopback address, and a sandbox that anybody can log in to listens nowhere else", addr)
		}
	}
	return nil
}

// listen binds the plaintext listener and, if asked for, the one with TLS, and starts a server on each.
func (s *Sandbox) listen() (err error) {
	defer func() {
		if err != nil && s.plain != nil {
			_ = s.plain.Close()
		}
	}()
	if s.plain, err = net.Listen("tcp", s.opts.Listen); err != nil {
		return err
	}
	listeners := []net.Listener{s.plain}
	if s.opts.TLSListen != "" {
		conf, err := newTLSConfig(s.opts.CAFile)
		if err != nil {
			return err
		}
		bound, err := net.Listen("tcp", s.opts.TLSListen)
		if err != nil {
			return err
		}
		s.secure = bound
		listeners = append(listeners, tls.NewListener(bound, conf))
	}
	handler := s.whole(s.routes())
	for _, l := range listeners {
		server := &http.Server{
			Handler:           handler,
			ReadHeaderTimeout: 10 * time.Second,
			BaseContext:       func(net.Listener) context.Context { return s.ctx },
			ErrorLog:          log.New(io.Discard, "", 0), // failed handshakes and the like: the client's own report is better
		}
		s.servers = append(s.servers, server)
		s.work.Go(func() { _ = server.Serve(l) }) // ends by Close
	}
	return nil
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

// Inject arms a fault: it strikes from the next occasion on.
func (s *Sandbox) Inject(f Fault) { s.faults.inject(f) }

// FaultsStruck counts how often faults have struck: a test of trouble checks that there was any.
func (s *Sandbox) FaultsStruck() int { return s.faults.struck() }

// ClearFaults disarms every fault.
func (s *Sandbox) ClearFaults() { s.faults.clear() }

// Journal returns a copy of all that was noted so far.
func (s *Sandbox) Journal() Journal { return s.journal.snapshot() }

// DropSockets ends every open socket, with a close frame of closeCode, or with a TCP reset if that is 0, and returns how many
// there were. It does not wait until they are gone.
func (s *Sandbox) DropSockets(closeCode int) int {
	open := s.sockets.all()
	for _, k := range open {
		if closeCode == 0 {
			k.cut()
		} else {
			k.shut(closeCode, "dropped by the sandbox")
		}
	}
	return len(open)
}

// Sockets returns how many sockets are open.
func (s *Sandbox) Sockets() int { return s.sockets.count() }

// Close stops serving, ends every connection, and returns when nothing of the sandbox runs any more. It always succeeds, and
// may be called more than once.
func (s *Sandbox) Close() error {
	s.closing.Do(func() {
		s.doors.Lock()
		s.closed = true
		s.doors.Unlock()
		s.cancel()
		s.store.close()
		for _, k := range s.sockets.all() {
			k.shut(1001, "the sandbox closes")
		}
		for _, server := range s.servers {
			_ = server.Close()
		}
	})
	s.work.Wait()
	s.hooks.close()
	if s.client != nil {
		s.client.CloseIdleConnections()
	}
	return nil
}

// whole lets a request in unless the sandbox is closing, and makes Close wait for it. Connections that were hijacked are out
// of the server's sight, so its own Shutdown would not do.
func (s *Sandbox) whole(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.doors.Lock()
		if s.closed {
			s.doors.Unlock()
			http.Error(w, "closing", http.StatusServiceUnavailable)
			return
		}
		s.work.Add(1)
		s.doors.Unlock()
		defer s.work.Done()
		next.ServeHTTP(w, r)
	})
}

// routes says who serves which path.
func (s *Sandbox) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/account/{account}/service/baseURI.json", s.endpoint("http:domains", s.allDomains))
	mux.HandleFunc("GET /api/account/{account}/service/{service}/baseURI.json", s.endpoint("http:domains", s.oneDomain))

	mux.HandleFunc("POST /api/account/{account}/login", s.endpoint("http:login", s.login))
	mux.HandleFunc("POST /api/account/{account}/refresh", s.endpoint("http:refresh", s.refresh))
	mux.HandleFunc("POST /api/account/{account}/logout", s.endpoint("http:logout", s.logout))

	const properties = "/api/account/{account}/configuration/setting/properties"
	mux.HandleFunc("GET "+properties, s.endpoint("http:property", s.readProperties))
	mux.HandleFunc("GET "+properties+"/{property}", s.endpoint("http:property", s.readProperty))
	mux.HandleFunc("PUT "+properties+"/{property}", s.endpoint("http:property", s.writeProperty))
	// The script that LivePerson's pages call forgets the id in the path and names it in the body only.
	mux.HandleFunc("PUT "+properties+"/{$}", s.endpoint("http:property", s.writeProperty))

	mux.HandleFunc("POST /api/account/{account}/signup", s.endpoint("http:signup", s.signUp))
	mux.HandleFunc("POST /api/account/{account}/anonymous/authorize", s.endpoint("http:authorize", s.authorizeAnonymous))
	mux.HandleFunc("POST /api/account/{account}/app/{connector}/authenticate", s.endpoint("http:authenticate", s.authenticateApp))
	mux.HandleFunc("POST /api/account/{account}/authenticate", s.endpoint("http:authenticate", s.authenticate))

	mux.HandleFunc("POST /sentinel/api/account/{account}/app/token", s.connector("http:token", nil, s.appToken))
	mux.HandleFunc("POST /api/account/{account}/consumer", s.connector("http:consumer", nil, s.consumerToken))
	const conversations = "/api/account/{account}/messaging/consumer/conversation"
	mux.HandleFunc("POST "+conversations, s.connector("http:conversation", requestTypes, s.createConversation))
	mux.HandleFunc("POST "+conversations+"/send", s.connector("http:send", requestTypes, s.sendRequest))

	mux.HandleFunc("GET /ws_api/account/{account}/messaging/consumer", s.upgradeConsumer)
	mux.HandleFunc("GET /ws_api/account/{account}/messaging/brand/{bearer}", s.upgradeBrand)

	mux.HandleFunc("POST /_sandbox/faults", s.adminInject)
	mux.HandleFunc("DELETE /_sandbox/faults", s.adminClear)
	mux.HandleFunc("GET /_sandbox/journal", s.adminJournal)
	mux.HandleFunc("GET /_sandbox/webhooks", s.adminWebhooks)
	mux.HandleFunc("PUT /_sandbox/webhooks", s.adminSetWebhooks)
	mux.HandleFunc("GET /_sandbox/sockets", s.adminSockets)
	mux.HandleFunc("POST /_sandbox/sockets/drop", s.adminDrop)

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A mux tidies paths up, and in the store every byte of a path is signed: a doubled slash must reach it to be refused.
		if strings.HasPrefix(strings.TrimLeft(r.URL.Path, "/"), "v1/") && s.swift == nil {
			s.store.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// patrolInterval is how late, at most, a socket learns that its time is up.
const patrolInterval = 50 * time.Millisecond

// patrol ends what has run out: idle sockets, sockets without a name, tokens, bearers, rings.
func (s *Sandbox) patrol() {
	tick := time.NewTicker(patrolInterval)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
			now := s.now()
			for _, k := range s.sockets.all() {
				k.inspect(now)
			}
			s.expireRings(now)
		}
	}
}

// randomHex returns n random bytes as 2n hex digits.
func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
