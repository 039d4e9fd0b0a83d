// Package lpapi speaks LivePerson's plain HTTPS: which host serves an account (the Domain API), who a caller is (the IDP for
// consumers, agentVep for agents and bots), the account's file-sharing switch, and the Connector API with its webhooks, which stands
// in for the messaging socket where an account uses it (see Connector). What travels over the socket is package lpws's, what travels
// to the store is package swift's; both ask here where to go.
//
// The facts about the wire are those of LivePerson's developer pages: Domain API, Login Service API, account configuration and
// consumer authentication. All errors are *share.Error but for the caller's own end: a context that ended gives its own error,
// wrapped. No error and no log line holds a token, a password, a
// URL's query or a peer's own text.
//
// LivePerson's answers are not trusted with where secrets go: a host that it names is used only if it lies within the
// configured suffixes, redirects are never followed, and bodies are bounded.
package lpapi

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
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"
)

// Config says which LivePerson is spoken to, and how. The zero value is the real one.
type Config struct {
	// DomainAPI is where hosts are looked up: a base URL, "https://host[:port]". Default "https://api.liveperson.net".
	DomainAPI string
	// Overrides name services that are not looked up: by service name, a base URL or host[:port]. They are the operator's own
	// words, so Suffixes do not apply to them.
	Overrides map[string]string
	// Suffixes are the hosts that a looked-up service may have: ".example.com" stands for every host below example.com,
	// "host.example.com" or "127.0.0.1" for exactly that one. IP addresses are refused unless they stand here.
	// Default ".liveperson.net", ".lpsnmedia.net", ".liveperson.com".
	Suffixes []string
	// Reach, if set, says instead of Overrides and Suffixes what holds for an account; it is asked each time, and may answer
	// otherwise from one call to the next. What was looked up under other Suffixes is then not used any more.
	Reach func(account string) Reach
	// PlainHTTP speaks http and ws instead of https and wss, with loopback only, which then needs no suffix: for tests and the
	// sandbox.
	PlainHTTP bool
	// TLS is for connections to LivePerson, for example to trust a test's CA. nil: the system's roots.
	TLS *tls.Config
	// CacheTTL is how long a looked-up host is believed. Default 5 minutes.
	CacheTTL time.Duration
	// Timeout bounds each exchange, body included. Default 10 seconds.
	Timeout time.Duration
	// Logger hears of trouble and, at debug level, of every exchange. Default: silent.
	Logger *slog.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// A Reach is which hosts serve an account, as the operator wants it: see Config.Overrides and Config.Suffixes.
type Reach struct {
	Overrides map[string]string
	Suffixes  []string
}

const (
	defaultDomainAPI = "https://api.liveperson.net"
	// cachedHosts is how many hosts are remembered: five for each of some 800 accounts.
	cachedHosts = 4096
	// cachedRefusals is how many services that do not exist are remembered.
	cachedRefusals = 1024
)

// A Client speaks to LivePerson. It is safe for concurrent use. Whoever made it closes it.
type Client struct {
	cfg       Config
	log       *slog.Logger
	domainAPI string // a base URL
	http      *http.Client

	lookups singleflight.Group
	known   *lru.Cache[serviceKey, knownHost]
	refused *lru.Cache[serviceKey, refusal]

	ctx    context.Context // the parent of every look-up, which callers share; ends with Close
	cancel context.CancelFunc
	mu     sync.Mutex // guards closed, and the Add of work against Close's Wait
	closed bool
	work   sync.WaitGroup // running look-ups
}

// New checks cfg and makes a Client. It connects to nothing. The error says what to change.
func New(cfg Config) (*Client, error) {
	switch {
	case cfg.Timeout < 0:
		return nil, errors.New("lpapi: Timeout is negative; give a duration, or 0 for 10 s")
	case cfg.CacheTTL < 0:
		return nil, errors.New("lpapi: CacheTTL is negative; give a duration, or 0 for 5 minutes")
	case cfg.PlainHTTP && cfg.DomainAPI == "":
		return nil, errors.New(`lpapi: PlainHTTP is for loopback, and the default Domain API is not there; set DomainAPI, for example "http://127.0.0.1:8080"`)
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
		return nil, fmt.Errorf("lpapi: Suffixes: %w", err)
	}
	if c.domainAPI, err = configuredBase(c.cfg.DomainAPI, cfg.PlainHTTP); err != nil {
		return nil, fmt.Errorf("lpapi: DomainAPI: %w", err)
	}
	for service, where := range cfg.Overrides {
		if !serviceName.MatchString(service) {
			return nil, fmt.Errorf("lpapi: Overrides: %q is no service's name; names are like asyncMessagingEnt", service)
		}
		if err := CheckHost(where, cfg.PlainHTTP); err != nil {
			return nil, fmt.Errorf("lpapi: Overrides: %s: %w", service, err)
		}
	}
	if c.known, err = lru.New[serviceKey, knownHost](cachedHosts); err != nil {
		return nil, fmt.Errorf("lpapi: %w", err)
	}
	if c.refused, err = lru.New[serviceKey, refusal](cachedRefusals); err != nil {
		return nil, fmt.Errorf("lpapi: %w", err)
	}
	c.http = newHTTPClient(c.cfg)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

// Close ends look-ups that are under way, waits for them, and closes idle connections. Calls that come later fail with
// LPUnavailable where they would have to look up a host.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.work.Wait()
	c.http.CloseIdleConnections()
}

// newHTTPClient is one that goes nowhere but where it is sent.
func newHTTPClient(cfg Config) *http.Client {
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
	return &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
