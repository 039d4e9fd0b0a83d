package lprest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// The names of LivePerson's services (LivePerson: Domain API), which are case-sensitive.
const (
	ServiceLogin      = "agentVep"
	ServiceIDP        = "idp"
	ServiceConfig     = "accountConfigReadWrite"
	ServiceConsumerWS = "asyncMessagingEnt"
	ServiceBrandWS    = "facadeMsg"
	ServiceStore      = "swift"
	ServiceSentinel   = "sentinel"
)

const (
	domainAPIName = "the Domain API"
	domainVersion = "1.0"
	staleRetry    = 10 * time.Second // how long a stale host is used before the Domain API is called again
	unknownTTL    = 30 * time.Second // how long a service that does not exist is not looked up again
	forgetFloor   = 5 * time.Second  // a host that was looked up more recently is not forgotten
	maxQuotedHost = 100
	// lookupReserve is what a shared look-up may take in addition to its exchange.
	lookupReserve = time.Second
)

// serviceKey identifies a look-up: of a service of an account, under the suffixes in force.
type serviceKey struct{ account, service, suffixes string }

func newServiceKey(account, service string, reach Reach) serviceKey {
	return serviceKey{account, service, strings.Join(reach.Suffixes, " ")}
}

type knownHost struct {
	base string
	// looked is when the host was looked up; it is used until until.
	looked, until time.Time
}

type unknownService struct {
	err   *share.Error
	until time.Time
}

var (
	// errNoService says that the Domain API does not know the service, or not for the account.
	errNoService = errors.New("no such service of this account")
	errClosed    = share.Errorf(share.LPUnavailable, "the server is shutting down; use another one", nil)
)

// BaseURL returns the origin of an account's service, "https://host[:port]" (LivePerson: Domain API): the value of
// Config.Overrides or Reach, otherwise that of the Domain API, which is cached for Config.CacheTTL. Concurrent calls share a
// look-up. If the Domain API fails, the last known host is used.
//
// Errors are InvalidField for a malformed account id, LPCredentialsRejected for an account or service that LivePerson does not
// know, LPProtocolError for a host that may not be used, LPUnavailable, LPTimeout and LPRateLimited.
func (c *Client) BaseURL(ctx context.Context, account, service string) (string, error) {
	if err := CheckAccount(account); err != nil {
		return "", err
	}
	if !serviceName.MatchString(service) {
		return "", share.Errorf(share.Internal, "not the name of a LivePerson service", nil)
	}
	reach := c.cfg.Reach(account)
	if where, ok := reach.Overrides[service]; ok {
		base, err := configuredBase(where, c.cfg.PlainHTTP)
		if err != nil {
			return "", share.Errorf(share.Internal, "the configured host of "+service+" cannot be used", err)
		}
		return base, nil
	}
	key := newServiceKey(account, service, reach)
	now := c.cfg.Now()
	if k, ok := c.known.Get(key); ok && now.Before(k.until) {
		return k.base, nil
	}
	if r, ok := c.unknown.Get(key); ok && now.Before(r.until) {
		return "", r.err
	}
	return c.lookups.Do(ctx, account+"/"+service+"/"+key.suffixes, func(ctx context.Context) (string, error) {
		return c.refresh(ctx, key, reach)
	})
}

// Forget reports that the host of a service stopped responding: the next BaseURL looks it up again. A host that was looked up
// within the last 5 seconds is kept, so that many callers that fail together cause one look-up.
func (c *Client) Forget(account, service string) {
	key := newServiceKey(account, service, c.cfg.Reach(account))
	c.unknown.Remove(key)
	k, ok := c.known.Peek(key)
	if now := c.cfg.Now(); ok && now.Sub(k.looked) >= forgetFloor && now.Before(k.until) {
		k.until = time.Time{} // kept as a fallback for a failing Domain API
		c.known.Add(key, k)
	}
}

// SocketURL returns the origin of the messaging socket for callers with a scheme, "wss://host[:port]" (LivePerson: Domain API):
// asyncMessagingEnt for consumers; facadeMsg for agents, or asyncMessagingEnt if the account has no facadeMsg. It fails with
// MethodNotImplemented for other schemes, otherwise as BaseURL.
func (c *Client) SocketURL(ctx context.Context, account string, scheme share.Scheme) (string, error) {
	var base string
	var err error
	switch scheme {
	case share.ConsumerToken:
		base, err = c.BaseURL(ctx, account, ServiceConsumerWS)
	case share.AgentToken:
		base, err = c.BaseURL(ctx, account, ServiceBrandWS)
		if errors.Is(err, errNoService) {
			base, err = c.BaseURL(ctx, account, ServiceConsumerWS)
		}
	default:
		err = share.Errorf(share.MethodNotImplemented, "there is no messaging socket for "+string(scheme), nil)
	}
	if err != nil {
		return "", err
	}
	return "ws" + strings.TrimPrefix(base, "http"), nil
}

// ForgetSocket is Forget for the hosts of SocketURL.
func (c *Client) ForgetSocket(account string, scheme share.Scheme) {
	if scheme == share.AgentToken {
		c.Forget(account, ServiceBrandWS)
	}
	c.Forget(account, ServiceConsumerWS)
}

// SwiftURL returns the origin of the account's store, "https://host[:port]". It fails as BaseURL.
func (c *Client) SwiftURL(ctx context.Context, account string) (string, error) {
	return c.BaseURL(ctx, account, ServiceStore)
}

// refresh looks up a host, and falls back to the last known one.
func (c *Client) refresh(ctx context.Context, key serviceKey, reach Reach) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout+lookupReserve)
	defer cancel()
	base, err := c.lookUp(ctx, key, reach)
	now := c.cfg.Now()
	if err == nil {
		c.known.Add(key, knownHost{base: base, looked: now, until: now.Add(c.cfg.CacheTTL)})
		c.unknown.Remove(key)
		return base, nil
	}
	e, ok := errors.AsType[*share.Error](err)
	if !ok { // only Close ends ctx
		return "", errClosed
	}
	if errors.Is(e, errNoService) { // the Domain API works, so there is no reason to fall back
		c.known.Remove(key)
		c.unknown.Add(key, unknownService{err: e, until: now.Add(unknownTTL)})
		return "", e
	}
	if old, ok := c.known.Peek(key); ok {
		c.log.Warn("LivePerson's Domain API failed; using the last known host",
			"account", key.account, "service", key.service, "since", old.looked, "error", e)
		old.until = now.Add(min(staleRetry, c.cfg.CacheTTL))
		c.known.Add(key, old)
		return old.base, nil
	}
	return "", e
}

// A domainEntry is one entry of a response.
type domainEntry struct {
	Service string `json:"service"`
	Account string `json:"account"`
	BaseURI string `json:"baseURI"`
}

// lookUp requests the host of one service from the Domain API (LivePerson: Domain API).
func (c *Client) lookUp(ctx context.Context, key serviceKey, reach Reach) (string, error) {
	allowed, err := newHostRule(reach.Suffixes, c.cfg.PlainHTTP)
	if err != nil {
		return "", share.Errorf(share.Internal, "the configured host suffixes cannot be used", err)
	}
	k := Call{
		Request: Request{
			Name: "look up " + key.service, Service: domainAPIName, Method: http.MethodGet,
			URL:   c.domainAPI + "/api/account/" + key.account + "/service/" + key.service + "/baseURI.json",
			Query: url.Values{"version": {domainVersion}},
		},
		Rejected: map[int]*share.Error{400: noService(key), 401: noService(key), 404: noService(key)},
	}
	resp, _, err := c.Send(ctx, k.Request)
	if err == nil {
		err = k.statusError(resp)
	}
	if err != nil {
		return "", err
	}
	entry, err := findEntry(resp.Body, key)
	if err != nil {
		return "", err
	}
	base, err := allowed.base(entry.BaseURI)
	if err != nil {
		return "", share.Errorf(share.LPProtocolError, "LivePerson names a host for "+key.service+
			" that this server may not use; if the host is right, the operator must add its suffix to the allowed ones",
			fmt.Errorf("%.*q: %w", maxQuotedHost, entry.BaseURI, err))
	}
	return base, nil
}

// findEntry finds key in a response of any form that is documented or was seen: one entry, an array of entries, or
// {"baseURIs": array} (LivePerson: Domain API). A single entry does not have to name its service and account.
func findEntry(data []byte, key serviceKey) (domainEntry, error) {
	var list []domainEntry
	if json.Unmarshal(data, &list) != nil || list == nil {
		var answer struct {
			domainEntry
			BaseURIs []domainEntry `json:"baseURIs"`
		}
		if json.Unmarshal(data, &answer) != nil {
			return domainEntry{}, Unreadable(domainAPIName)
		}
		list = answer.BaseURIs
		if one := answer.domainEntry; list == nil {
			one.Service, one.Account = cmp.Or(one.Service, key.service), cmp.Or(one.Account, key.account)
			if one.BaseURI == "" || one.Service != key.service || one.Account != key.account {
				return domainEntry{}, Unreadable(domainAPIName)
			}
			return one, nil
		}
	}
	for _, e := range list {
		if e.Service == key.service && cmp.Or(e.Account, key.account) == key.account && e.BaseURI != "" {
			return e, nil
		}
	}
	return domainEntry{}, noService(key)
}

func noService(key serviceKey) *share.Error {
	return share.Errorf(share.LPCredentialsRejected, fmt.Sprintf(
		"LivePerson does not know account %s, or the account has no %s; check the account id", key.account, key.service), errNoService)
}
