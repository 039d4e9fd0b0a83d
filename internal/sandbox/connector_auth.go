package sandbox

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// DefaultAppID and DefaultAppSecret are those of the app install that every account has unless Options name others. No secret.
	DefaultAppID     = "sandbox-app"
	DefaultAppSecret = "sandbox-secret"

	// sentinelIssuer is who signs AppJWTs, connectorScope what they are good for.
	sentinelIssuer = "Sentinel"
	connectorScope = "msg.consumer"
)

// An AppInstall is a connector that a brand has installed: who may use the Connector API, and who is told by webhook of what
// happens in the conversations that it created.
type AppInstall struct {
	// Account is where it is installed. Default: the first of Options.Accounts.
	Account string
	// ID and Secret get its AppJWTs (client_id, client_secret); Secret signs its webhooks too.
	ID, Secret string
	// Webhooks are its endpoints. SetWebhooks changes them later.
	Webhooks Webhooks
}

// An install is an AppInstall at work. Sandbox.mu guards what changes.
type install struct {
	account    *account
	id, secret string
	webhooks   Webhooks
	pace       pace
}

// install adds the app installs of the options.
func (s *Sandbox) install(apps []AppInstall) error {
	for _, app := range apps {
		acct := s.account(app.Account)
		switch {
		case acct == nil:
			return errors.New("an app is installed in account " + app.Account + ", which does not exist")
		case app.ID == "" || app.Secret == "":
			return errors.New("an app install needs an ID and a Secret")
		case acct.apps[app.ID] != nil:
			return errors.New("app " + app.ID + " is installed twice in account " + app.Account)
		}
		if err := app.Webhooks.check(); err != nil {
			return err
		}
		acct.apps[app.ID] = &install{account: acct, id: app.ID, secret: app.Secret, webhooks: app.Webhooks.clone()}
	}
	return nil
}

// appToken answers POST /sentinel/api/account/{account}/app/token: an AppJWT for an app install's id and secret, which come in
// the form or, as LivePerson's demo app has it, in the query.
func (s *Sandbox) appToken(r *http.Request, _ []byte) (int, []byte) {
	if r.ParseForm() != nil {
		return failure(http.StatusBadRequest, "the form cannot be read")
	}
	id, secret := r.Form.Get("client_id"), r.Form.Get("client_secret")
	switch {
	case r.Form.Get("v") != "1.0":
		return failure(http.StatusBadRequest, "v must be 1.0")
	case r.Form.Get("grant_type") != "client_credentials":
		return failure(http.StatusBadRequest, "grant_type must be client_credentials")
	case id == "" || secret == "":
		return failure(http.StatusBadRequest, "client_id and client_secret are wanted")
	}
	acct := s.account(r.PathValue("account"))
	if acct == nil || acct.apps[id] == nil || subtle.ConstantTimeCompare([]byte(acct.apps[id].secret), []byte(secret)) != 1 {
		s.log.Info("app token refused", "account", r.PathValue("account"), "app", id)
		return failure(http.StatusUnauthorized, "site, client_id or client_secret are wrong")
	}
	now := s.now()
	token, err := s.sign(jwt.MapClaims{
		"aud":   acct.id,
		"azp":   id,
		"scope": connectorScope,
		"iss":   sentinelIssuer,
		"iat":   now.Unix(),
		"exp":   wholeSeconds(now.Add(s.opts.AppTokenLifetime)).Unix(),
	})
	if err != nil {
		return failure(http.StatusInternalServerError, err.Error())
	}
	return http.StatusOK, frame(struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
	}{token, "Bearer"})
}

// consumerToken answers POST /api/account/{account}/consumer: a ConsumerJWS for a consumer by the brand's own name for it. The
// same name is the same consumer, always.
func (s *Sandbox) consumerToken(r *http.Request, body []byte) (int, []byte) {
	app, refused := s.appOf(r)
	if refused != nil {
		return refusal("", *refused)
	}
	if r.URL.Query().Get("v") != "1.0" {
		return failure(http.StatusBadRequest, "v must be 1.0")
	}
	var wish struct {
		External string `json:"ext_consumer_id"`
	}
	if json.Unmarshal(body, &wish) != nil || wish.External == "" {
		return failure(http.StatusBadRequest, "ext_consumer_id is wanted")
	}
	sum := sha256.Sum256([]byte(app.account.id + "\x00consumer\x00" + wish.External))
	token, err := s.sign(jwt.MapClaims{
		"account_id":      app.account.id,
		"ext_consumer_id": wish.External,
		"lp_consumer_id":  hex.EncodeToString(sum[:]),
	})
	if err != nil {
		return failure(http.StatusInternalServerError, err.Error())
	}
	return http.StatusCreated, frame(map[string]string{"token": token})
}

// appOf returns the app install whose AppJWT a request bears. Unlike other tokens it stands there bare, without a scheme.
func (s *Sandbox) appOf(r *http.Request) (*install, *reply) {
	refused := func(a reply) (*install, *reply) {
		s.log.Info("connector refused", "account", r.PathValue("account"), "why", a.body.(errorBody).Title)
		return nil, &a
	}
	token := strings.TrimSpace(r.Header.Get("Authorization"))
	if token == "" {
		return refused(refuseTitled(errNoAppJWT, "AppJWT is missing", "AUTHORIZATION header is not present"))
	}
	invalid := refuseTitled(errAppJWT, "Invalid AppJWT", "AppJWT has expired or is invalid")
	var claims struct {
		jwt.RegisteredClaims
		App   string `json:"azp"`
		Scope string `json:"scope"`
	}
	_, err := jwt.ParseWithClaims(token, &claims, s.publicKey, jwt.WithValidMethods([]string{"RS256"}), jwt.WithTimeFunc(s.now))
	acct := s.account(r.PathValue("account"))
	switch {
	case err != nil || acct == nil:
		return refused(invalid)
	case len(claims.Audience) == 0:
		return refused(refuseTitled(errMissing, "Missing parameter", "Brand Id is missing"))
	case claims.App == "" || claims.ExpiresAt == nil || claims.Issuer == "" || claims.Scope == "":
		return refused(refuseTitled(errMissing, "Missing parameter", "a mandatory claim of the AppJWT is missing"))
	case claims.Issuer != sentinelIssuer || !slices.Contains(claims.Audience, acct.id) || acct.apps[claims.App] == nil,
		!slices.Contains(strings.Fields(claims.Scope), connectorScope):
		return refused(invalid)
	}
	return acct.apps[claims.App], nil
}

// onBehalf returns the consumer for whom a request of the Send API is made.
func (s *Sandbox) onBehalf(r *http.Request) (*caller, *reply) {
	refused := func(a reply) (*caller, *reply) { return nil, &a }
	if r.URL.Query().Get("v") != "3" {
		return refused(refuse(errVersion, "v must be 3"))
	}
	app, a := s.appOf(r)
	if a != nil {
		return nil, a
	}
	token := strings.TrimSpace(r.Header.Get("X-LP-ON-BEHALF"))
	if token == "" {
		return refused(refuseTitled(errNoConsumerJWS, "ConsumerJWS is missing", "X_ON_BEHALF_HEADER is not present"))
	}
	var claims struct {
		jwt.RegisteredClaims
		Account  string `json:"account_id"`
		Consumer string `json:"lp_consumer_id"`
	}
	_, err := jwt.ParseWithClaims(token, &claims, s.publicKey, jwt.WithValidMethods([]string{"RS256"}), jwt.WithTimeFunc(s.now))
	if err != nil || claims.Account != app.account.id || claims.Consumer == "" {
		return refused(refuseTitled(errConsumerJWS, "Invalid ConsumerJWS", "ConsumerJWS is invalid"))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !app.pace.admit(s.opts.MaxRequestsPerSecond) {
		return refused(refuse(errThrottled, "too many requests: wait a second"))
	}
	app.account.appOf[claims.Consumer] = app
	return &caller{
		s: s, account: app.account, dialect: consumerDialect, version: "3",
		who:        &person{id: claims.Consumer, oldID: claims.Consumer},
		properties: asClientProperties([]byte(r.Header.Get("Client-Properties"))),
	}, nil
}

// sign makes a token of LivePerson's.
func (s *Sandbox) sign(claims jwt.MapClaims) (string, error) {
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	token.Header["kid"] = "000001"
	return token.SignedString(s.key)
}

func (s *Sandbox) publicKey(*jwt.Token) (any, error) { return &s.key.PublicKey, nil }

// wholeSeconds rounds up, so that a token, whose times have whole seconds, never lives shorter than was asked for.
func wholeSeconds(t time.Time) time.Time {
	return t.Add(time.Second - time.Nanosecond).Truncate(time.Second)
}
