package lpapi

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

// The services that are asked for (LivePerson: Domain API). Their names have case.
const (
	serviceLogin         = "agentVep"
	serviceIDP           = "idp"
	serviceConfig        = "accountConfigReadWrite"
	serviceConsumerWS    = "asyncMessagingEnt"
	serviceBrandWS       = "facadeMsg"
	serviceStore         = "swift"
	serviceDomains       = "the Domain API"
	domainVersion        = "1.0"
	staleRetry           = 10 * time.Second // how long a stale host is used before the Domain API is asked again
	refusalTTL           = 30 * time.Second // how long a service that does not exist is not asked for again
	forgetFloor          = 5 * time.Second  // a host that was looked up just now is not forgotten
	maxQuotedHost        = 100
	lookupTimeoutReserve = time.Second
)

// A serviceKey is a look-up: of a service of an account, under the suffixes that held then.
type serviceKey struct{ account, service, suffixes string }

func (c *Client) key(account, service string, reach Reach) serviceKey {
	return serviceKey{account, service, strings.Join(reach.Suffixes, " ")}
}

type knownHost struct {
	base string
	// looked is when LivePerson named it; until then it is believed.
	looked, until time.Time
}

type refusal struct {
	err   *share.Error
	until time.Time
}

var (
	// errNoService says that the Domain API knows no such service of the account.
	errNoService = errors.New("no such service of this account")
	errGoingDown = share.Errorf(share.LPUnavailable, "the gateway is going down; try another", nil)
)

// BaseURL returns where a service of an account is, as "https://host[:port]" (LivePerson: Domain API): what Config.Overrides (or Reach) says,
// else what the Domain API says, which is remembered for Config.CacheTTL. Calls that need the same look-up share one. When the
// Domain API does not answer, or not sensibly, the last host known is used.
//
// InvalidField for what cannot be an account; LPCredentialsRejected for an account or service that LivePerson does not know;
// LPProtocolError for a host that may not be used; LPUnavailable, LPTimeout and LPRateLimited.
func (c *Client) BaseURL(ctx context.Context, account, service string) (string, error) {
	if err := checkAccount(account); err != nil {
		return "", err
	}
	if !serviceName.MatchString(service) {
		return "", share.Errorf(share.Internal, "not the name of a LivePerson service", nil)
	}
	reach := c.cfg.Reach(account)
	if where, ok := reach.Overrides[service]; ok {
		base, err := configuredBase(where, c.cfg.PlainHTTP)
		if err != nil {
			return "", share.Errorf(share.Internal, "the host that is set for "+service+" cannot be used", err)
		}
		return base, nil
	}
	key := c.key(account, service, reach)
	now := c.cfg.Now()
	if k, ok := c.known.Get(key); ok && now.Before(k.until) {
		return k.base, nil
	}
	if r, ok := c.refused.Get(key); ok && now.Before(r.until) {
		return "", r.err
	}
	// The look-up belongs to all who wait for it, so that none of their contexts may end it.
	answer := c.lookups.DoChan(account+"/"+service+"/"+key.suffixes, func() (any, error) {
		if !c.begin() {
			return "", errGoingDown
		}
		defer c.work.Done()
		return c.refresh(key, reach)
	})
	select {
	case <-ctx.Done():
		return "", fmt.Errorf("lpapi: looking up %s: %w", service, ctx.Err())
	case a := <-answer:
		if a.Err != nil {
			return "", a.Err
		}
		return a.Val.(string), nil
	}
}

// begin notes that work begins, unless the client is closed.
func (c *Client) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.work.Add(1)
	}
	return !c.closed
}

// Forget says that the host of a service stopped answering: the next BaseURL asks LivePerson again. A host that was looked up
// within the last 5 seconds stays, so that many callers who fail together cause one look-up.
func (c *Client) Forget(account, service string) {
	key := c.key(account, service, c.cfg.Reach(account))
	c.refused.Remove(key)
	k, ok := c.known.Peek(key)
	if now := c.cfg.Now(); ok && now.Sub(k.looked) >= forgetFloor && now.Before(k.until) {
		k.until = time.Time{} // kept, for when the Domain API is down as well
		c.known.Add(key, k)
	}
}

// SocketURL returns the origin of the messaging socket for callers of a scheme, "wss://host[:port]": for consumers of
// asyncMessagingEnt, for agents of facadeMsg, or of asyncMessagingEnt where the account has no facadeMsg (LivePerson: Domain API). MethodNotImplemented for schemes that have no socket; else as BaseURL.
func (c *Client) SocketURL(ctx context.Context, account string, scheme share.Scheme) (string, error) {
	var base string
	var err error
	switch scheme {
	case share.ConsumerToken:
		base, err = c.BaseURL(ctx, account, serviceConsumerWS)
	case share.AgentToken:
		base, err = c.BaseURL(ctx, account, serviceBrandWS)
		if errors.Is(err, errNoService) {
			base, err = c.BaseURL(ctx, account, serviceConsumerWS)
		}
	default:
		err = share.Errorf(share.MethodNotImplemented, "there is no messaging socket for "+string(scheme), nil)
	}
	if err != nil {
		return "", err
	}
	return "ws" + strings.TrimPrefix(base, "http"), nil
}

// ForgetSocket is Forget for what SocketURL gave.
func (c *Client) ForgetSocket(account string, scheme share.Scheme) {
	if scheme == share.AgentToken {
		c.Forget(account, serviceBrandWS)
	}
	c.Forget(account, serviceConsumerWS)
}

// SwiftURL returns the origin of the account's store, "https://host[:port]". Errors as BaseURL.
func (c *Client) SwiftURL(ctx context.Context, account string) (string, error) {
	return c.BaseURL(ctx, account, serviceStore)
}

// refresh looks a host up, and falls back on the last one known.
func (c *Client) refresh(key serviceKey, reach Reach) (string, error) {
	ctx, cancel := context.WithTimeout(c.ctx, c.cfg.Timeout+lookupTimeoutReserve)
	defer cancel()
	base, err := c.lookUp(ctx, key, reach)
	now := c.cfg.Now()
	if err == nil {
		c.known.Add(key, knownHost{base: base, looked: now, until: now.Add(c.cfg.CacheTTL)})
		c.refused.Remove(key)
		return base, nil
	}
	e, ok := errors.AsType[*share.Error](err)
	if !ok { // only Close ends c.ctx
		return "", errGoingDown
	}
	if errors.Is(e, errNoService) { // a clear answer
		c.known.Remove(key)
		c.refused.Add(key, refusal{err: e, until: now.Add(refusalTTL)})
		return "", e
	}
	if old, ok := c.known.Peek(key); ok {
		c.log.Warn("LivePerson's Domain API failed; going on with the host known from before",
			"account", key.account, "service", key.service, "since", old.looked, "error", e)
		old.until = now.Add(min(staleRetry, c.cfg.CacheTTL))
		c.known.Add(key, old)
		return old.base, nil
	}
	return "", e
}

// A domainEntry is one line of an answer.
type domainEntry struct {
	Service string `json:"service"`
	Account string `json:"account"`
	BaseURI string `json:"baseURI"`
}

// lookUp asks the Domain API for one service (LivePerson: Domain API).
func (c *Client) lookUp(ctx context.Context, key serviceKey, reach Reach) (string, error) {
	allowed, err := newHostRule(reach.Suffixes, c.cfg.PlainHTTP)
	if err != nil {
		return "", share.Errorf(share.Internal, "the host suffixes that are set cannot be used", err)
	}
	data, err := c.exchange(ctx, call{
		name: "look up " + key.service, service: serviceDomains, method: http.MethodGet,
		url:     c.domainAPI + "/api/account/" + key.account + "/service/" + key.service + "/baseURI.json",
		query:   url.Values{"version": {domainVersion}},
		refused: map[int]*share.Error{400: noService(key), 401: noService(key), 404: noService(key)},
	})
	if err != nil {
		return "", err
	}
	entry, err := findEntry(data, key)
	if err != nil {
		return "", err
	}
	base, err := allowed.base(entry.BaseURI)
	if err != nil {
		return "", share.Errorf(share.LPProtocolError, "LivePerson names a host for "+key.service+
			" that this gateway may not use; if it is right, the operator adds its suffix to the allowed ones",
			fmt.Errorf("%.*q: %w", maxQuotedHost, entry.BaseURI, err))
	}
	return base, nil
}

// findEntry finds key in an answer of any of the forms that are documented or seen: one entry, an array of entries, or
// {"baseURIs": array} (LivePerson: Domain API). One that stands alone need not name its service and account.
func findEntry(data []byte, key serviceKey) (domainEntry, error) {
	var list []domainEntry
	if json.Unmarshal(data, &list) != nil || list == nil {
		var answer struct {
			domainEntry
			BaseURIs []domainEntry `json:"baseURIs"`
		}
		if json.Unmarshal(data, &answer) != nil {
			return domainEntry{}, unreadable(serviceDomains)
		}
		list = answer.BaseURIs
		if one := answer.domainEntry; list == nil {
			one.Service, one.Account = cmp.Or(one.Service, key.service), cmp.Or(one.Account, key.account)
			if one.BaseURI == "" || one.Service != key.service || one.Account != key.account {
				return domainEntry{}, unreadable(serviceDomains)
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
		"LivePerson knows no account %s, or has no %s for it; check the account's number", key.account, key.service), errNoService)
}
