// Package lprest is a client of LivePerson's plain HTTPS services: which host serves an account (Domain API), consumer identities
// (IDP), the logins of agents and bots (agentVep), and the account's file-sharing switch (site property). It also signs for
// consumers whom the brand vouches for (Issuer). Package lpws speaks the messaging socket, package connector the Connector API and
// package swift the store; all of them find their hosts through this package.
//
// The wire follows LivePerson's developer pages: Domain API, Login Service API, account configuration and consumer
// authentication. All errors are *share.Error, except that the end of a caller's context returns the context's own error,
// wrapped. No error and no log line contains a token, a password, a URL's query or a peer's own text.
//
// LivePerson's responses do not decide where secrets go: a host that LivePerson names is used only if it is within the configured
// suffixes, redirects are never followed, and bodies are bounded.
package lprest

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Config sets the LivePerson environment that a Client uses. The zero value is the real one.
type Config struct {
	// DomainAPI is the base URL of the Domain API, "https://host[:port]". Default "https://api.liveperson.net".
	DomainAPI string
	// Overrides sets the hosts of services that are not looked up: by service name, a base URL or host[:port]. The operator chose
	// them, so Suffixes do not apply.
	Overrides map[string]string
	// Suffixes are the hosts that a looked-up service may have: ".example.com" is every host below example.com,
	// "host.example.com" or "127.0.0.1" exactly that one. IP addresses are rejected unless listed.
	// Default ".liveperson.net", ".lpsnmedia.net", ".liveperson.com".
	Suffixes []string
	// Reach, if set, replaces Overrides and Suffixes by those of one account. It is called each time and may return other values
	// from one call to the next; hosts that were looked up under other Suffixes are then not used.
	Reach func(account string) Reach
	// PlainHTTP uses http and ws instead of https and wss, for tests and the sandbox. Only loopback hosts can be reached then, and
	// they need no suffix.
	PlainHTTP bool
	// TLS is the configuration for connections to LivePerson, for example to trust a test's CA. nil means the system's roots.
	TLS *tls.Config
	// CacheTTL is how long a looked-up host is used. Default 5 minutes.
	CacheTTL time.Duration
	// Timeout limits each exchange, body included. Default 10 seconds.
	Timeout time.Duration
	// Step observes each exchange. nil: none.
	Step share.BeginStep
	// Logger receives failures and, at level debug, every exchange. nil logs nothing.
	Logger *slog.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Reach is the operator's choice of hosts for an account: see Config.Overrides and Config.Suffixes.
type Reach struct {
	Overrides map[string]string
	Suffixes  []string
}

const (
	defaultDomainAPI = "https://api.liveperson.net"
	// cachedHosts is how many hosts are remembered: five for each of some 800 accounts.
	cachedHosts = 4096
	// cachedUnknown is how many services that do not exist are remembered.
	cachedUnknown = 1024
)

// A Client calls LivePerson's services. It is safe for concurrent use. Its owner must close it.
type Client struct {
	cfg       Config
	log       *slog.Logger
	domainAPI string // a base URL
	http      *http.Client
	transport transport // of http

	lookups *Shared[string]
	known   *lru.Cache[serviceKey, knownHost]
	unknown *lru.Cache[serviceKey, unknownService]

	ctx    context.Context // the parent of shared operations; ends with Close
	cancel context.CancelFunc
	mu     sync.Mutex // guards closed, and the Add of work against Close's Wait
	closed bool
	work   sync.WaitGroup // running shared operations
}

// New checks cfg and returns a Client. It opens no connection. The error says what to change.
func New(cfg Config) (*Client, error) {
	switch {
	case cfg.Timeout < 0:
		return nil, errors.New("lprest: Timeout is negative; set a duration, or 0 for 10 s")
	case cfg.CacheTTL < 0:
		return nil, errors.New("lprest: CacheTTL is negative; set a duration, or 0 for 5 minutes")
	case cfg.PlainHTTP && cfg.DomainAPI == "":
		return nil, errors.New(`lprest: PlainHTTP is for loopback, and the default Domain API is not on loopback; set DomainAPI, for example "http://127.0.0.1:8080"`)
	}
	c := &Client{cfg: cfg, log: cfg.Logger}
	c.cfg.DomainAPI = cmp.Or(cfg.DomainAPI, defaultDomainAPI)
	c.cfg.CacheTTL = cmp.Or(cfg.CacheTTL, 5*time.Minute)
	c.cfg.Timeout = cmp.Or(cfg.Timeout, 10*time.Second)
	if c.cfg.Now == nil {
		c.cfg.Now = time.Now
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if c.cfg.Reach == nil {
		each := Reach{cfg.Overrides, cfg.Suffixes}
		c.cfg.Reach = func(string) Reach { return each }
	}
	if _, err := newHostRule(cfg.Suffixes, cfg.PlainHTTP); err != nil {
		return nil, fmt.Errorf("lprest: Suffixes: %w", err)
	}
	if c.domainAPI, err = configuredBase(c.cfg.DomainAPI, cfg.PlainHTTP); err != nil {
		return nil, fmt.Errorf("lprest: DomainAPI: %w", err)
	}
	for service, where := range cfg.Overrides {
		if !serviceName.MatchString(service) {
			return nil, fmt.Errorf("lprest: Overrides: %q is not a service name; names are like asyncMessagingEnt", service)
		}
		if err := CheckHost(where, cfg.PlainHTTP); err != nil {
			return nil, fmt.Errorf("lprest: Overrides: %s: %w", service, err)
		}
	}
	if c.known, err = lru.New[serviceKey, knownHost](cachedHosts); err != nil {
		return nil, fmt.Errorf("lprest: %w", err)
	}
	if c.unknown, err = lru.New[serviceKey, unknownService](cachedUnknown); err != nil {
		return nil, fmt.Errorf("lprest: %w", err)
	}
	c.lookups = NewShared[string](c, "looking up a host")
	c.transport.Store(newTransport(c.cfg))
	c.http = &http.Client{
		Transport:     &c.transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

// Close ends shared operations, waits for them, and closes idle connections. Later calls fail with LPUnavailable if they need a
// host that is not known.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.work.Wait()
	c.http.CloseIdleConnections()
}

// SetTLS replaces Config.TLS for connections that are opened later. Running requests continue.
func (c *Client) SetTLS(config *tls.Config) {
	next := c.cfg
	next.TLS = config
	c.transport.Swap(newTransport(next)).CloseIdleConnections()
}

// RoundTrip sends a request by the current transport.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) { return t.Load().RoundTrip(r) }

// CloseIdleConnections closes those of the current transport.
func (t *transport) CloseIdleConnections() { t.Load().CloseIdleConnections() }

// transport is an http.Transport that can be replaced.
type transport struct{ atomic.Pointer[http.Transport] }

// begin counts a shared operation, unless the client is closed.
func (c *Client) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.work.Add(1)
	}
	return !c.closed
}

// Now returns the time by the client's clock.
func (c *Client) Now() time.Time { return c.cfg.Now() }

// Timeout returns the limit of one exchange.
func (c *Client) Timeout() time.Duration { return c.cfg.Timeout }

// Logger returns the client's log.
func (c *Client) Logger() *slog.Logger { return c.log }

// newTransport returns a transport for connections to LivePerson.
func newTransport(cfg Config) *http.Transport {
	t := &http.Transport{
		DialContext:            (&net.Dialer{Timeout: min(cfg.Timeout, 5*time.Second), KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    min(cfg.Timeout, 5*time.Second),
		ResponseHeaderTimeout:  cfg.Timeout,
		MaxResponseHeaderBytes: 64 << 10,
		MaxIdleConns:           64,
		MaxIdleConnsPerHost:    8,
		IdleConnTimeout:        90 * time.Second,
	}
	if cfg.TLS != nil {
		t.TLSClientConfig = cfg.TLS.Clone()
	}
	if !cfg.PlainHTTP {
		t.Proxy = http.ProxyFromEnvironment
	}
	return t
}
