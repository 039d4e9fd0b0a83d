// Package swift is the client of the object store. It stores and reads one object at a time, as a stream, by a signed URL
// (OpenStack Swift's TempURL).
//
// It does not request signed URLs, does not retry, and does not compare the stored object with the bytes sent: the caller
// does that with the reported ETag. The host comes from the configuration only, the path is validated, redirects are not
// followed, and no error contains a signature. Timeouts measure progress: a slow transfer continues, a stalled one ends.
//
// Every error is a *share.Error. Callers must close the body that Get returns, and the Client.
package swift

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Config configures a Client. Only BaseURL is required.
type Config struct {
	// BaseURL returns the store's scheme and host for an account: "https://host" or "https://host:port", nothing more. No other
	// input selects the host.
	BaseURL func(ctx context.Context, account string) (string, error)
	// TLS configures TLS. nil: the system's roots.
	TLS *tls.Config
	// Proxy selects the proxy for a request. nil: none; the environment is ignored.
	Proxy func(*http.Request) (*url.URL, error)

	// ConnectTimeout bounds the TCP connection and, separately, the TLS handshake. Default 5 s.
	ConnectTimeout time.Duration
	// ResponseHeaderTimeout bounds the time between the last byte of a request and the response header. Default 30 s.
	ResponseHeaderTimeout time.Duration
	// StallTimeout bounds the time in which the store accepts no pending byte, or sends no expected byte. Time spent waiting
	// for the upload's source or for the reader of a download does not count. Default 30 s.
	StallTimeout time.Duration

	// Step observes each PUT, each HEAD, and each GET up to its first byte. nil: none.
	Step share.BeginStep

	// MaxIdleConns is the number of idle connections kept to each store. Default 128.
	MaxIdleConns int
	// MaxConns is the maximum number of connections to each store; further requests wait for one. 0: no limit.
	MaxConns int
	// IdleTimeout is how long an idle connection is kept. It must be shorter than the store's own limit, often 60 s: a
	// streamed PUT cannot be repeated when its connection turns out to be dead. Default 30 s.
	IdleTimeout time.Duration
}

// A Client stores and reads objects. It is safe for concurrent use.
type Client struct {
	baseURL       func(ctx context.Context, account string) (string, error)
	step          share.BeginStep
	stall, header time.Duration
	template      *http.Transport

	mu         sync.Mutex
	transports map[string]*http.Transport // by scheme and host
}

// New returns a Client. It does not connect yet.
func New(c Config) *Client {
	connect := cmp.Or(c.ConnectTimeout, 5*time.Second)
	dialer := &net.Dialer{Timeout: connect, KeepAlive: 15 * time.Second}
	idle := cmp.Or(c.MaxIdleConns, 128)
	header := cmp.Or(c.ResponseHeaderTimeout, 30*time.Second)
	// HTTP/1.1 only: HTTP/2 would send all uploads to a store over one TCP connection, and Swift does not support it.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &Client{
		baseURL:    c.BaseURL,
		step:       c.Step,
		stall:      cmp.Or(c.StallTimeout, 30*time.Second),
		header:     header,
		transports: map[string]*http.Transport{},
		template: &http.Transport{
			Proxy:                  c.Proxy,
			DialContext:            watchedDial(dialer),
			TLSClientConfig:        c.TLS.Clone(),
			TLSHandshakeTimeout:    connect,
			ResponseHeaderTimeout:  header,
			MaxIdleConns:           idle,
			MaxIdleConnsPerHost:    idle,
			MaxConnsPerHost:        c.MaxConns,
			IdleConnTimeout:        cmp.Or(c.IdleTimeout, 30*time.Second),
			MaxResponseHeaderBytes: 64 << 10,
			// The bytes of an object must arrive unchanged.
			DisableCompression: true,
			Protocols:          protocols,
			// The write buffer keeps net/http's small default: the first bytes of a PUT are sent early, so that a rejection
			// arrives early. Larger writes bypass the buffer.
		},
	}
}

// Close closes the idle connections. The Client must not be used afterwards.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.transports {
		t.CloseIdleConnections()
	}
	return nil
}

// SetTLS replaces Config.TLS for connections that are opened later. Running transfers continue.
func (c *Client) SetTLS(config *tls.Config) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.template.TLSClientConfig = config.Clone()
	for _, t := range c.transports {
		t.CloseIdleConnections()
	}
	clear(c.transports)
}

// transport returns the transport of the store that r is sent to. Each store has its own, so that a fault of one does not
// close connections to the others. Stores are few: their hosts come from Config.BaseURL.
func (c *Client) transport(r *http.Request) *http.Transport {
	store := r.URL.Scheme + "://" + r.URL.Host
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.transports[store]
	if t == nil {
		t = c.template.Clone()
		c.transports[store] = t
	}
	return t
}

// dropIdle closes the idle connections to the store of r after a failure. They were opened beside the failed one and are likely
// to be dead as well (a restarted proxy or firewall), and a streamed PUT that starts on a dead connection is lost.
func (c *Client) dropIdle(r *http.Request) { c.transport(r).CloseIdleConnections() }

// request returns a request that u permits.
func (c *Client) request(ctx context.Context, method, account string, u share.TempURL) (*http.Request, error) {
	if err := share.CheckStoragePath(account, u.Path); err != nil {
		return nil, err
	}
	if u.Sig == "" || u.Expires == "" {
		return nil, share.Errorf(share.StorageProtocolError, "the signed URL has no signature or no expiry", nil)
	}
	base, err := c.base(ctx, account)
	if err != nil {
		return nil, err
	}
	target := &url.URL{
		Scheme: base.Scheme, Host: base.Host, Path: u.Path,
		RawQuery: "temp_url_sig=" + url.QueryEscape(u.Sig) + "&temp_url_expires=" + url.QueryEscape(u.Expires),
	}
	r := &http.Request{
		Method: method, URL: target, Host: target.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"User-Agent": {"lpfileshare"}},
	}
	return r.WithContext(ctx), nil
}

// base returns the address of the account's store. Errors do not quote an invalid one, because it may contain a password.
func (c *Client) base(ctx context.Context, account string) (*url.URL, error) {
	text, err := c.baseURL(ctx, account)
	if err != nil {
		if _, ok := errors.AsType[*share.Error](err); ok {
			return nil, err
		}
		return nil, share.Errorf(share.StorageUnavailable, "the address of the account's store is unknown", err)
	}
	base, err := url.Parse(text)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Hostname() == "" || base.User != nil ||
		base.Path != "" && base.Path != "/" || base.RawQuery != "" || base.Fragment != "" {
		return nil, share.Errorf(share.Internal, "internal error", errors.New("the store's base URL must be https://host or https://host:port"))
	}
	return base, nil
}
