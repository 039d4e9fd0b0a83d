package lpapi

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A ConnectorApp is an app install of the Connector API, as the operator configured it. It never prints its secret.
type ConnectorApp struct {
	// ID is the install's id, LivePerson's client_id.
	ID string
	// Secret is its client_secret, with which webhooks are signed too.
	Secret string
	// Webhooks tells that LivePerson delivers the account's events to this server.
	Webhooks bool
}

// String hides the secret.
func (a ConnectorApp) String() string { return "app install " + a.ID }

// GoString hides the secret from %#v.
func (a ConnectorApp) GoString() string { return a.String() }

// LogValue hides the secret from slog.
func (a ConnectorApp) LogValue() slog.Value { return slog.StringValue(a.String()) }

// An EventLog keeps what is known of conversations: what webhooks told, and what was done here. All servers share it. Events are
// kept once for each place in a dialog, and never changed. Errors are LedgerUnavailable.
type EventLog interface {
	// AddEvent keeps an event, unless one of its place in the dialog is kept: then that one stays, and added is false.
	AddEvent(ctx context.Context, account string, e share.LoggedEvent) (added bool, err error)
	// Bounds are the places of the first and the last event that is kept.
	Bounds(ctx context.Context) (first, last uint64, err error)
	// Read gives a conversation's events with places above after and up to upTo, by their places.
	Read(ctx context.Context, account, conversation string, after, upTo uint64) ([]share.LoggedEvent, error)
	// FindFile finds the first event of a dialog (empty: any of the conversation's) that shows a storage path.
	FindFile(ctx context.Context, account, conversation, dialog, storagePath string) (share.LoggedEvent, bool, error)
	// Conversation finds a conversation that a consumer takes part in.
	Conversation(ctx context.Context, account, consumer, id string) (share.LoggedConversation, bool, error)
	// Conversations gives all that a consumer takes part in.
	Conversations(ctx context.Context, account, consumer string) ([]share.LoggedConversation, error)
	// ChangeConversation changes what is kept of a conversation; change may be called again where others were faster.
	ChangeConversation(ctx context.Context, account, consumer, id string,
		change func(c share.LoggedConversation, known bool) (share.LoggedConversation, bool)) error
	// Follow tells of each event and conversation that is kept from now on, events by their places, and returns the place behind
	// which that begins. It is called once, and ends with the log.
	Follow(ctx context.Context, event func(account, conversation string, place uint64), conversation func(account, consumer string)) (uint64, error)
}

// ConnectorConfig says how a Connector behaves. Client, App, Log, GapWait and KeepFor are required.
type ConnectorConfig struct {
	// Client says where LivePerson is; its time-out, clock and log are the Connector's too.
	Client *Client
	// App is the app install of an account now; false if the account does not use the Connector API.
	App func(account string) (ConnectorApp, bool)
	// Log is what is known of conversations.
	Log EventLog
	// GapWait is how long a watch waits for an event that is missing between others, before it goes on without.
	GapWait time.Duration
	// KeepFor is how long the log keeps events: what is delivered later than that is dropped, since nobody could tell whether it
	// was there before.
	KeepFor time.Duration
	// MaxConsumers is for how many consumers their leave is remembered. Default 10,000.
	MaxConsumers int
}

const (
	serviceSentinel = "sentinel"
	// appLife is how long an AppJWT lives, where it does not say (LivePerson: Connector API, authorization).
	appLife = time.Hour
	// appMargin is how long before its end it is renewed.
	appMargin = 5 * time.Minute
	// cachedApps is how many AppJWTs are remembered.
	cachedApps = 1024
	// defaultConsumers is a ConnectorConfig's MaxConsumers.
	defaultConsumers = 10_000
)

// A Connector is LivePerson for accounts that use the Connector (Send) API: plain HTTPS with the server's own credentials, on
// behalf of consumers that the brand knows by ids of its own. What happens in conversations comes by webhook, see Connector.Webhook.
// It is safe for concurrent use.
//
// Two tokens go with every call. The AppJWT stands for the app install, and is renewed before it ends, or when LivePerson refuses
// it. The ConsumerJWS stands for a consumer, does not end, and is got anew only when LivePerson refuses it.
type Connector struct {
	cfg       ConnectorConfig
	client    *Client
	log       EventLog
	gets      singleflight.Group
	apps      *lru.Cache[appKey, appToken]
	consumers *lru.Cache[consumerKey, consumerToken]
	hub       hub
	receiving chan struct{} // one for each delivery that is being dealt with
	counts    connectorCounts
}

type appKey struct{ account, id, secret string }

type appToken struct {
	jwt string
	// renew is when it is renewed, ends when it is of no more use.
	renew, ends time.Time
}

type consumerKey struct {
	app      appKey
	external string
}

type consumerToken struct{ jws, id string }

// NewConnector makes a Connector. It connects to nothing, and needs no closing: what it asks for together ends with the Client.
func NewConnector(cfg ConnectorConfig) (*Connector, error) {
	if cfg.Client == nil || cfg.App == nil || cfg.Log == nil || cfg.GapWait <= 0 || cfg.KeepFor <= 0 {
		return nil, errors.New("lpapi: a Connector wants Client, App, Log, GapWait and KeepFor")
	}
	cfg.MaxConsumers = cmp.Or(cfg.MaxConsumers, defaultConsumers)
	c := &Connector{cfg: cfg, client: cfg.Client, log: cfg.Log, receiving: make(chan struct{}, maxDeliveries)}
	var err error
	if c.apps, err = lru.New[appKey, appToken](cachedApps); err != nil {
		return nil, fmt.Errorf("lpapi: %w", err)
	}
	if c.consumers, err = lru.New[consumerKey, consumerToken](cfg.MaxConsumers); err != nil {
		return nil, fmt.Errorf("lpapi: MaxConsumers: %w", err)
	}
	return c, nil
}

// Session gives LivePerson as a consumer of the brand's sees it. The credential's secret is the brand's own id of the consumer;
// that the caller may speak for that consumer is for others to see to. LPCredentialsRejected where LivePerson refuses the app
// install; NotAllowed for an account without one, or for another credential; else as BaseURL.
func (c *Connector) Session(ctx context.Context, cred share.Credential) (*ConnectorSession, error) {
	if err := checkAccount(cred.Account); err != nil {
		return nil, err
	}
	app, ok := c.cfg.App(cred.Account)
	if !ok || cred.Scheme != share.ExternalConsumerID {
		return nil, share.Errorf(share.NotAllowed, "account "+cred.Account+" does not use the Connector API", nil)
	}
	if !isToken(cred.Secret) {
		return nil, share.Errorf(share.TokenInvalid, string(share.ExternalConsumerID)+" is malformed", nil)
	}
	s := &ConnectorSession{c: c, account: cred.Account, app: app, external: cred.Secret}
	_, consumer, err := s.tokens(ctx, "", "")
	if err != nil {
		return nil, err
	}
	s.who = share.Principal{Account: cred.Account, ID: consumer.id, Caller: cred.Caller, Role: share.RoleConsumer}
	return s, nil
}

// shared does something for all who want it at the same time. None of their contexts may end it.
func (c *Connector) shared(ctx context.Context, key string, do func(ctx context.Context) (any, error)) (any, error) {
	answer := c.gets.DoChan(key, func() (any, error) {
		if !c.client.begin() {
			return nil, errGoingDown
		}
		defer c.client.work.Done()
		ctx, cancel := context.WithTimeout(c.client.ctx, 2*c.client.cfg.Timeout+lookupTimeoutReserve)
		defer cancel()
		v, err := do(ctx)
		if err != nil && c.client.ctx.Err() != nil {
			return nil, errGoingDown
		}
		return v, err
	})
	select {
	case a := <-answer:
		return a.Val, a.Err
	case <-ctx.Done():
		return nil, fmt.Errorf("lpapi: waiting for a token: %w", ctx.Err())
	}
}

// appJWT is the app install's token. One that LivePerson has refused is not given again.
func (c *Connector) appJWT(ctx context.Context, key appKey, refused string) (string, error) {
	now := c.client.cfg.Now()
	t, ok := c.apps.Get(key)
	if ok && t.jwt != refused && now.Before(t.renew) {
		return t.jwt, nil
	}
	v, err := c.shared(ctx, "app\n"+key.account+"\n"+key.id+"\n"+key.secret, func(ctx context.Context) (any, error) {
		if again, ok := c.apps.Get(key); ok && again.jwt != refused && c.client.cfg.Now().Before(again.renew) {
			return again, nil // somebody was faster
		}
		t, err := c.askSentinel(ctx, key)
		if err == nil {
			c.apps.Add(key, t)
		}
		return t, err
	})
	switch {
	case err == nil:
		return v.(appToken).jwt, nil
	case ok && t.jwt != refused && now.Before(t.ends) && share.Is(err, share.LPUnavailable, share.LPTimeout, share.LPRateLimited):
		return t.jwt, nil // it is still good, and the next call tries again
	}
	return "", err
}

// askSentinel gets an AppJWT (LivePerson: Connector API, authorization).
func (c *Connector) askSentinel(ctx context.Context, key appKey) (appToken, error) {
	base, err := c.client.BaseURL(ctx, key.account, serviceSentinel)
	if err != nil {
		return appToken{}, err
	}
	data, err := c.client.exchange(ctx, call{
		name: "get an AppJWT", service: serviceSentinel, method: http.MethodPost,
		url:   base + "/sentinel/api/account/" + key.account + "/app/token",
		query: url.Values{"v": {"1.0"}, "grant_type": {"client_credentials"}},
		form:  url.Values{"client_id": {key.id}, "client_secret": {key.secret}},
		refused: refusedAs(share.LPCredentialsRejected, "LivePerson refuses the app install that this server has for the account; the operator checks its id "+
			"and secret, and that it is enabled", 400, 401, 403, 404),
	})
	if share.Is(err, share.LPUnavailable, share.LPTimeout) {
		c.client.Forget(key.account, serviceSentinel)
	}
	if err != nil {
		return appToken{}, err
	}
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if json.Unmarshal(data, &answer) != nil || !isToken(answer.AccessToken) {
		return appToken{}, unreadable(serviceSentinel)
	}
	// By how long it says that it lives, not by when it says that it ends: clocks differ.
	life := appLife
	claims := readClaims(answer.AccessToken)
	if claims.Expires.OK && claims.Issued.OK && claims.Expires.N > claims.Issued.N {
		life = min(time.Duration(min(claims.Expires.N-claims.Issued.N, 1<<20))*time.Second, 24*time.Hour)
	}
	now := c.client.cfg.Now()
	return appToken{jwt: answer.AccessToken, renew: now.Add(life - min(appMargin, life/2)), ends: now.Add(life)}, nil
}

// consumerJWS is the token of a consumer. One that LivePerson has refused is not given again.
func (c *Connector) consumerJWS(ctx context.Context, key consumerKey, refused string) (consumerToken, error) {
	if t, ok := c.consumers.Get(key); ok && t.jws != refused {
		return t, nil
	}
	v, err := c.shared(ctx, "consumer\n"+key.app.account+"\n"+key.app.id+"\n"+key.app.secret+"\n"+key.external, func(ctx context.Context) (any, error) {
		if again, ok := c.consumers.Get(key); ok && again.jws != refused {
			return again, nil
		}
		t, err := c.askConsumer(ctx, key)
		if err == nil {
			c.consumers.Add(key, t)
		}
		return t, err
	})
	if err != nil {
		return consumerToken{}, err
	}
	return v.(consumerToken), nil
}

// errAppRefused is the 401 of a call that goes with the AppJWT alone.
var errAppRefused = share.Errorf(share.LPCredentialsRejected, "LivePerson does not accept this server's own credentials for the account", nil)

// askConsumer gets a ConsumerJWS (LivePerson: Connector API, authorization).
func (c *Connector) askConsumer(ctx context.Context, key consumerKey) (consumerToken, error) {
	var data []byte
	app := ""
	for try := 1; ; try++ {
		var err error
		if app, err = c.appJWT(ctx, key.app, app); err != nil {
			return consumerToken{}, err
		}
		refused := refusedAs(share.LPCredentialsRejected, "LivePerson refuses to speak to this server on the consumer's behalf", 400, 403, 404)
		refused[http.StatusUnauthorized] = errAppRefused
		data, err = c.client.ask(ctx, key.app.account, serviceIDP, "/consumer", call{
			name: "get a ConsumerJWS", method: http.MethodPost, query: url.Values{"v": {"1.0"}}, header: http.Header{"Authorization": {app}},
			body: struct {
				External string `json:"ext_consumer_id"`
			}{key.external},
			refused: refused,
		})
		if errors.Is(err, errAppRefused) && try == 1 {
			continue
		}
		if err != nil {
			return consumerToken{}, err
		}
		break
	}
	var answer struct {
		Token string `json:"token"`
	}
	if json.Unmarshal(data, &answer) != nil || !isToken(answer.Token) {
		return consumerToken{}, unreadable(serviceIDP)
	}
	claims := readClaims(answer.Token)
	id := cmp.Or(claims.Consumer, claims.Subject, claims.External)
	if id == "" || claims.External != "" && string(claims.External) != key.external || claims.Account != "" && string(claims.Account) != key.app.account {
		return consumerToken{}, unreadable(serviceIDP)
	}
	return consumerToken{jws: answer.Token, id: string(id)}, nil
}

// connectorClaims are what the tokens of the Connector API say. Nothing is verified: they came from LivePerson, and LivePerson
// judges them.
type connectorClaims struct {
	Account  lpwire.Text   `json:"account_id"`
	External lpwire.Text   `json:"ext_consumer_id"`
	Consumer lpwire.Text   `json:"lp_consumer_id"`
	Subject  lpwire.Text   `json:"sub"`
	Expires  lpwire.Number `json:"exp"`
	Issued   lpwire.Number `json:"iat"`
}

func readClaims(token string) (claims connectorClaims) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return claims
	}
	if raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "=")); err == nil {
		_ = json.Unmarshal(raw, &claims)
	}
	return claims
}
