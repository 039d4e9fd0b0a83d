// Package swift is the gateway's side of the object store: it stores and reads one object at a time by a signed URL
// (OpenStack Swift's TempURL), as a stream.
//
// It does not ask for URLs, does not repeat anything, and does not compare what was stored with what was sent: its caller does,
// by the ETag that it reports. The host comes from the configuration alone, the path only after it has been checked, redirects
// are not followed, and no error has a signature in it. Time-outs go by progress: slow is fine, stuck is not.
//
// Every error is a *share.Error. The caller closes what Get gives it, and the Client when it is done with it.
package swift

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Config says how a Client reaches the store. Only BaseURL is required.
type Config struct {
	// BaseURL gives the store's scheme and host for an account: "https://host" or "https://host:port", nothing more. It is the
	// only place that a host comes from.
	BaseURL func(ctx context.Context, account string) (string, error)
	// TLS configures TLS. nil: the system's roots.
	TLS *tls.Config
	// Proxy picks a proxy for a request. nil: none; the environment is not looked at.
	Proxy func(*http.Request) (*url.URL, error)

	// ConnectTimeout bounds the TCP connection and, once more, the TLS handshake. Default 5 s.
	ConnectTimeout time.Duration
	// ResponseHeaderTimeout bounds the wait for the answer once the request has been written. Default 30 s.
	ResponseHeaderTimeout time.Duration
	// StallTimeout bounds the time in which the store takes no byte that is there for it, or sends none that is waited for.
	// Time in which the other side, ours, is the slow one does not count. Default 30 s.
	StallTimeout time.Duration

	// MaxIdleConns is how many connections to the store are kept for later. Default 128.
	MaxIdleConns int
	// MaxConns is how many connections there are at most; more requests wait for one. 0: no limit.
	MaxConns int
	// IdleTimeout is how long a connection is kept for later. It must be shorter than the store's own, which is often 60 s: a
	// streamed PUT cannot be repeated when its connection turns out to be dead. Default 30 s.
	IdleTimeout time.Duration
}

// A Client stores and reads objects. It is safe for concurrent use.
type Client struct {
	baseURL       func(ctx context.Context, account string) (string, error)
	transport     *http.Transport
	stall, header time.Duration
}

// Static is a Config.BaseURL that is the same for all accounts.
func Static(base string) func(context.Context, string) (string, error) {
	return func(context.Context, string) (string, error) { return base, nil }
}

// New returns a Client. It connects to nothing yet.
func New(c Config) *Client {
	connect := cmp.Or(c.ConnectTimeout, 5*time.Second)
	dialer := &net.Dialer{Timeout: connect, KeepAlive: 15 * time.Second}
	idle := cmp.Or(c.MaxIdleConns, 128)
	header := cmp.Or(c.ResponseHeaderTimeout, 30*time.Second)
	// HTTP/1.1 alone: in HTTP/2 uploads to one store would share one TCP connection, and a Swift does not speak it anyway.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &Client{
		baseURL: c.BaseURL,
		stall:   cmp.Or(c.StallTimeout, 30*time.Second),
		header:  header,
		transport: &http.Transport{
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
			// The bytes of an object must come as they are.
			DisableCompression: true,
			Protocols:          protocols,
			// The write buffer stays at net/http's small default: what a PUT sends first goes out early, so that a refusal comes
			// early, and whatever follows passes by the buffer.
			ReadBufferSize: 32 << 10,
		},
	}
}

// Close gives up the connections that are kept for later.
func (c *Client) Close() error {
	c.transport.CloseIdleConnections()
	return nil
}

// request builds a request for what u allows.
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

// base is where the store is for account. The text of what is wrong with it stays out of errors: there may be a password in it.
func (c *Client) base(ctx context.Context, account string) (*url.URL, error) {
	text, err := c.baseURL(ctx, account)
	if err != nil {
		if _, ok := errors.AsType[*share.Error](err); ok {
			return nil, err
		}
		return nil, share.Errorf(share.StorageUnavailable, "it is not known where the account's files are stored", err)
	}
	base, err := url.Parse(text)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Hostname() == "" || base.User != nil ||
		base.Path != "" && base.Path != "/" || base.RawQuery != "" || base.Fragment != "" {
		return nil, share.Errorf(share.Internal, "internal error", errors.New("the store's base URL must be https://host or https://host:port"))
	}
	return base, nil
}
