// Package connector is LivePerson for accounts that use the Connector (Send) API instead of the messaging socket: plain HTTPS with
// the server's own credentials, on behalf of consumers that the brand identifies. LivePerson reports what happens in
// conversations by webhook (Messenger.Webhook); an EventLog, which all servers share, keeps it.
//
// The package calls LivePerson through package lprest, whose rules for errors and secrets apply here too.
package connector

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/lpfileshare/lpfileshare/internal/filecache"
	"github.com/lpfileshare/lpfileshare/internal/lprest"
	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/rejections"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// An App is an app install of the Connector API, as the operator configured it. It never prints its secret.
type App struct {
	// ID is the install's id, LivePerson's client_id.
	ID string
	// Secret is its client_secret, which also signs webhooks.
	Secret string
	// Webhooks reports whether LivePerson delivers the account's events to this server.
	Webhooks bool
}

// String hides the secret.
func (a App) String() string { return "app install " + a.ID }

// GoString hides the secret from %#v.
func (a App) GoString() string { return a.String() }

// LogValue hides the secret from slog.
func (a App) LogValue() slog.Value { return slog.StringValue(a.String()) }

// An EventLog keeps what is known of conversations: what webhooks reported, and what was done here. All servers share it. An event
// is kept once per sequence of its dialog and never changed. Errors are LedgerUnavailable.
type EventLog interface {
	// AddEvent keeps an event. If the log has an event with the same sequence in the dialog, that one stays and added is false.
	AddEvent(ctx context.Context, account string, e share.LoggedEvent) (added bool, err error)
	// Bounds returns the positions of the first and the last event in the log.
	Bounds(ctx context.Context) (first, last uint64, err error)
	// Each calls f for a conversation's events with positions after after and up to upTo, by position. It stops at an error of f.
	Each(ctx context.Context, account, conversation string, after, upTo uint64, f func(share.LoggedEvent) error) error
	// Event finds the event of a dialog with a sequence.
	Event(ctx context.Context, account, conversation, dialog string, sequence int64) (share.LoggedEvent, bool, error)
	// FindFile finds the first event of a dialog (empty: any of the conversation's) that shows a storage path.
	FindFile(ctx context.Context, account, conversation, dialog, storagePath string) (share.LoggedEvent, bool, error)
	// Conversation finds a conversation that a consumer takes part in.
	Conversation(ctx context.Context, account, consumer, id string) (share.LoggedConversation, bool, error)
	// Conversations returns all conversations that a consumer takes part in.
	Conversations(ctx context.Context, account, consumer string) ([]share.LoggedConversation, error)
	// ChangeConversation replaces the record of a conversation by what change returns. change may be called again after a
	// concurrent change.
	ChangeConversation(ctx context.Context, account, consumer, id string,
		change func(c share.LoggedConversation, known bool) (share.LoggedConversation, bool)) error
	// Follow reports each event and conversation that is added from now on, events in the order of their positions. It returns the
	// position after which that begins. It is called once, and ends with the log.
	Follow(ctx context.Context, event func(account, conversation string, position uint64), conversation func(account, consumer string)) (uint64, error)
}

// Config configures a Messenger. Every field but MaxConsumers is required.
type Config struct {
	// Client calls LivePerson. Its timeout, clock and log are the Messenger's too.
	Client *lprest.Client
	// App returns the current app install of an account; false if the account does not use the Connector API.
	App func(account string) (App, bool)
	// Log keeps what is known of conversations.
	Log EventLog
	// GapWait is how long a watch waits for a missing event between others before it continues without it.
	GapWait time.Duration
	// KeepFor is how long the log keeps events. Events that are delivered later are dropped, since it is not known whether the log
	// had them before.
	KeepFor time.Duration
	// Rejections counts the webhooks that a limit rejects.
	Rejections *rejections.Tally
	// MaxConsumers is the number of consumers whose tokens are cached. Default 10,000.
	MaxConsumers int
	// Begin waits until the tokens of a consumer that is not cached may be requested. end is called once, with whether LivePerson has
	// accepted the consumer. Default: such requests are not limited.
	Begin func(ctx context.Context, cred share.Credential) (end func(accepted bool), err error)
	// Cache is the memory for the files of conversations, which other messengers may share. Default: one of 64 MiB.
	Cache *filecache.Cache
}

const (
	// appLife is the lifetime of an AppJWT that does not state its own (LivePerson: Connector API, authorization).
	appLife = time.Hour
	// appMargin is how long before its expiry an AppJWT is renewed.
	appMargin = 5 * time.Minute
	// cachedApps is how many AppJWTs are cached.
	cachedApps = 1024
	// defaultConsumers is the default of Config.MaxConsumers.
	defaultConsumers = 10_000
	// tokenReserve is what getting a token may take in addition to its exchanges.
	tokenReserve = time.Second
)

// A Messenger opens sessions with LivePerson's Connector API, and takes its webhooks. It is safe for concurrent use.
//
// Each call carries two tokens. The AppJWT stands for the app install; it is renewed before it expires, or when LivePerson rejects
// it. The ConsumerJWS stands for a consumer; it does not expire, and is replaced only when LivePerson rejects it.
type Messenger struct {
	cfg       Config
	client    *lprest.Client
	events    EventLog
	log       *slog.Logger
	getApp    *lprest.Shared[appToken]
	getJWS    *lprest.Shared[consumerToken]
	apps      *lru.Cache[appKey, appToken]
	consumers *lru.Cache[consumerKey, consumerToken]
	kept      *lru.Cache[string, *keptFiles] // by account and conversation
	hub       hub
	bodies    unverified
	keeping   chan struct{} // one element per verified delivery that is being put into the log
	counts    counts
}

type appKey struct{ account, id, secret string }

type appToken struct {
	jwt string
	// renew is when it is renewed, ends when it expires.
	renew, ends time.Time
}

type consumerKey struct {
	app      appKey
	external string
}

type consumerToken struct{ jws, id string }

// New returns a Messenger. It opens no connection and does not have to be closed: its shared operations end with the Client.
func New(cfg Config) (*Messenger, error) {
	if cfg.Client == nil || cfg.App == nil || cfg.Log == nil || cfg.Rejections == nil || cfg.GapWait <= 0 || cfg.KeepFor <= 0 {
		return nil, errors.New("connector: Client, App, Log, Rejections, GapWait and KeepFor are required")
	}
	cfg.MaxConsumers = cmp.Or(cfg.MaxConsumers, defaultConsumers)
	if cfg.Cache == nil {
		cfg.Cache = filecache.New(64 << 20)
	}
	m := &Messenger{
		cfg: cfg, client: cfg.Client, events: cfg.Log, log: cfg.Client.Logger(),
		getApp: lprest.NewShared[appToken](cfg.Client, "getting an AppJWT"), getJWS: lprest.NewShared[consumerToken](cfg.Client, "getting a ConsumerJWS"),
		keeping: make(chan struct{}, maxKeeping),
	}
	var err error
	if m.apps, err = lru.New[appKey, appToken](cachedApps); err != nil {
		return nil, fmt.Errorf("connector: %w", err)
	}
	if m.consumers, err = lru.New[consumerKey, consumerToken](cfg.MaxConsumers); err != nil {
		return nil, fmt.Errorf("connector: MaxConsumers: %w", err)
	}
	if m.kept, err = lru.NewWithEvict(maxKept, func(_ string, k *keptFiles) { k.files.Drop() }); err != nil {
		return nil, fmt.Errorf("connector: %w", err)
	}
	return m, nil
}

// Session opens a session for a consumer of the brand. The credential's secret is the brand's own id of the consumer; the caller
// must have checked that it may act for that consumer. Session fails with LPCredentialsRejected if LivePerson rejects the app
// install, NotAllowed for an account without one or for another credential, otherwise as lprest.Client.BaseURL.
func (m *Messenger) Session(ctx context.Context, cred share.Credential) (_ *Session, err error) {
	if err := lprest.CheckAccount(cred.Account); err != nil {
		return nil, err
	}
	app, ok := m.cfg.App(cred.Account)
	if !ok || cred.Scheme != share.ExternalConsumerID {
		return nil, share.Errorf(share.NotAllowed, "account "+cred.Account+" does not use the Connector API", nil)
	}
	if !share.ValidToken(cred.Secret) {
		return nil, share.Errorf(share.TokenInvalid, string(share.ExternalConsumerID)+" is malformed", nil)
	}
	s := &Session{m: m, account: cred.Account, app: app, external: cred.Secret}
	if m.cfg.Begin != nil && !m.consumers.Contains(s.key()) {
		end, begin := m.cfg.Begin(ctx, cred)
		if begin != nil {
			return nil, begin
		}
		defer func() { end(err == nil) }()
	}
	_, consumer, err := s.tokens(ctx, "", "")
	if err != nil {
		return nil, err
	}
	s.principal = share.Principal{Account: cred.Account, ID: consumer.id, Caller: cred.Caller, Role: share.RoleConsumer}
	return s, nil
}

// Opened reports whether the tokens of a consumer are cached.
func (m *Messenger) Opened(cred share.Credential) bool {
	app, ok := m.cfg.App(cred.Account)
	return ok && m.consumers.Contains((&Session{account: cred.Account, app: app, external: cred.Secret}).key())
}

// limit bounds a shared operation: waiting for another token, a look-up and an exchange.
func (m *Messenger) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, 2*m.client.Timeout()+tokenReserve)
}

// appJWT returns the app install's token, but not the one that LivePerson rejected.
func (m *Messenger) appJWT(ctx context.Context, key appKey, rejected string) (string, error) {
	now := m.client.Now()
	cached, ok := m.apps.Get(key)
	if ok && cached.jwt != rejected && now.Before(cached.renew) {
		return cached.jwt, nil
	}
	t, err := m.getApp.Do(ctx, key.account+"\n"+key.id+"\n"+key.secret, func(ctx context.Context) (appToken, error) {
		if t, ok := m.apps.Get(key); ok && t.jwt != rejected && m.client.Now().Before(t.renew) {
			return t, nil // obtained by another call since this one looked
		}
		ctx, cancel := m.limit(ctx)
		defer cancel()
		t, err := m.requestAppJWT(ctx, key)
		if err == nil {
			m.apps.Add(key, t)
		}
		return t, err
	})
	if ok && cached.jwt != rejected && now.Before(cached.ends) && share.Is(err, share.LPUnavailable, share.LPTimeout, share.LPRateLimited) {
		return cached.jwt, nil // still valid; the next call tries to renew it again
	}
	return t.jwt, err
}

// requestAppJWT gets an AppJWT (LivePerson: Connector API, authorization).
func (m *Messenger) requestAppJWT(ctx context.Context, key appKey) (appToken, error) {
	resp, err := m.client.CallService(ctx, key.account, lprest.ServiceSentinel, "/sentinel"+lprest.AccountPath(key.account, "/app/token"), lprest.Call{
		Request: lprest.Request{
			Name: "get an AppJWT", Method: http.MethodPost,
			Query: url.Values{"v": {"1.0"}, "grant_type": {"client_credentials"}},
			Form:  url.Values{"client_id": {key.id}, "client_secret": {key.secret}},
		},
		Rejected: lprest.RejectedAs(share.LPCredentialsRejected, "LivePerson rejects the app install that this server has for the account; the operator must "+
			"check its id and secret, and that it is enabled", 400, 401, 403, 404),
	})
	if err != nil {
		return appToken{}, err
	}
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if json.Unmarshal(resp.Body, &answer) != nil || !share.ValidToken(answer.AccessToken) {
		return appToken{}, lprest.Unreadable(lprest.ServiceSentinel)
	}
	now := m.client.Now()
	life := appLifetime(answer.AccessToken)
	return appToken{jwt: answer.AccessToken, renew: now.Add(life - min(appMargin, life/2)), ends: now.Add(life)}, nil
}

// appLifetime is the token's lifetime, at most a day. It does not use the expiry itself, because LivePerson's clock may differ.
func appLifetime(token string) time.Duration {
	claims, err := lpwire.ReadClaims(token)
	if life := claims.Expires.Sub(claims.Issued); err == nil && !claims.Issued.IsZero() && life > 0 {
		return min(life, 24*time.Hour)
	}
	return appLife
}

// consumerJWS returns a consumer's token, but not the one that LivePerson rejected.
func (m *Messenger) consumerJWS(ctx context.Context, key consumerKey, rejected string) (consumerToken, error) {
	if t, ok := m.consumers.Get(key); ok && t.jws != rejected {
		return t, nil
	}
	return m.getJWS.Do(ctx, key.app.account+"\n"+key.app.id+"\n"+key.app.secret+"\n"+key.external, func(ctx context.Context) (consumerToken, error) {
		if t, ok := m.consumers.Get(key); ok && t.jws != rejected {
			return t, nil // obtained by another call since this one looked
		}
		ctx, cancel := m.limit(ctx)
		defer cancel()
		t, err := m.requestConsumerJWS(ctx, key)
		if err == nil {
			m.consumers.Add(key, t)
		}
		return t, err
	})
}

// errAppRejected is the error for status 401 of a call that carries only the AppJWT.
var errAppRejected = share.Errorf(share.LPCredentialsRejected, "LivePerson does not accept this server's own credentials for the account", nil)

// requestConsumerJWS gets a ConsumerJWS (LivePerson: Connector API, authorization). If LivePerson rejects the AppJWT, it tries once
// more with a new one.
func (m *Messenger) requestConsumerJWS(ctx context.Context, key consumerKey) (consumerToken, error) {
	app, err := m.appJWT(ctx, key.app, "")
	if err != nil {
		return consumerToken{}, err
	}
	t, err := m.requestConsumerJWSWith(ctx, key, app)
	if errors.Is(err, errAppRejected) {
		if app, err = m.appJWT(ctx, key.app, app); err != nil {
			return consumerToken{}, err
		}
		t, err = m.requestConsumerJWSWith(ctx, key, app)
	}
	return t, err
}

func (m *Messenger) requestConsumerJWSWith(ctx context.Context, key consumerKey, app string) (consumerToken, error) {
	rejected := lprest.RejectedAs(share.LPCredentialsRejected, "LivePerson does not let this server act for the consumer", 400, 403, 404)
	rejected[http.StatusUnauthorized] = errAppRejected
	resp, err := m.client.CallService(ctx, key.app.account, lprest.ServiceIDP, lprest.AccountPath(key.app.account, "/consumer"), lprest.Call{
		Request: lprest.Request{
			Name: "get a ConsumerJWS", Method: http.MethodPost, Query: url.Values{"v": {"1.0"}}, Header: http.Header{"Authorization": {app}},
			JSON: struct {
				External string `json:"ext_consumer_id"`
			}{key.external},
		},
		Rejected: rejected,
	})
	if err != nil {
		return consumerToken{}, err
	}
	var answer struct {
		Token string `json:"token"`
	}
	if json.Unmarshal(resp.Body, &answer) != nil || !share.ValidToken(answer.Token) {
		return consumerToken{}, lprest.Unreadable(lprest.ServiceIDP)
	}
	claims, err := lpwire.ReadClaims(answer.Token)
	id := cmp.Or(claims.Consumer, claims.Subject, claims.ExternalConsumer)
	if err != nil || id == "" || claims.ExternalConsumer != "" && claims.ExternalConsumer != key.external ||
		claims.Account != "" && claims.Account != key.app.account {
		return consumerToken{}, lprest.Unreadable(lprest.ServiceIDP)
	}
	return consumerToken{jws: answer.Token, id: id}, nil
}
