package connector

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

	"github.com/lpfileshare/lpfileshare/internal/sandbox/jsonhttp"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/liveperson"
)

const (
	// DefaultAppID and DefaultAppSecret are the credentials of the app install in every account unless Options has others.
	DefaultAppID     = "sandbox-app"
	DefaultAppSecret = "sandbox-secret"

	// appTokenLifetime is how long an AppJWT is valid, as LivePerson's.
	appTokenLifetime = time.Hour
	// sentinelIssuer is the issuer of AppJWTs, connectorScope their scope.
	sentinelIssuer = "Sentinel"
	connectorScope = "msg.consumer"
)

// Error codes that LivePerson has published for the Connector API.
const (
	codeAppJWT        = 40102 // the AppJWT is invalid
	codeConsumerJWS   = 40103 // the ConsumerJWS is invalid
	codeNoConsumerJWS = 40104 // no X-LP-ON-BEHALF header
	codeNoAppJWT      = 40105 // no Authorization header
)

// An AppInstall is a connector that a brand has installed. It may use the Connector API, and webhooks notify it of what happens in
// the conversations that it created.
type AppInstall struct {
	// Account is the account in which it is installed. Default: the first of Options.Accounts.
	Account string
	// ID and Secret are its client_id and client_secret. Secret also signs its webhooks.
	ID, Secret string
	// Webhooks are its endpoints. SetWebhooks changes them.
	Webhooks Webhooks
}

// An install is an AppInstall in use. API.mu guards webhooks.
type install struct {
	account    string
	id, secret string
	webhooks   Webhooks
}

// install adds the app installs of the options.
func (a *API) install(apps []AppInstall) error {
	for _, account := range a.opts.Accounts {
		a.apps[account] = map[string]*install{}
	}
	for _, app := range apps {
		installed := a.apps[app.Account]
		switch {
		case installed == nil:
			return errors.New("an app is installed in account " + app.Account + ", which does not exist")
		case app.ID == "" || app.Secret == "":
			return errors.New("an app install needs an ID and a Secret")
		case installed[app.ID] != nil:
			return errors.New("app " + app.ID + " is installed twice in account " + app.Account)
		}
		if err := app.Webhooks.check(); err != nil {
			return err
		}
		installed[app.ID] = &install{account: app.Account, id: app.ID, secret: app.Secret, webhooks: app.Webhooks.clone()}
	}
	return nil
}

// appToken answers POST /sentinel/api/account/{account}/app/token with an AppJWT for an app install's id and secret. They are in the
// form or, as LivePerson's demo app sends them, in the query.
func (a *API) appToken(r *http.Request, _ []byte) (int, []byte) {
	if r.ParseForm() != nil {
		return jsonhttp.Failure(http.StatusBadRequest, "the form cannot be read")
	}
	id, secret := r.Form.Get("client_id"), r.Form.Get("client_secret")
	switch {
	case r.Form.Get("v") != "1.0":
		return jsonhttp.Failure(http.StatusBadRequest, "v must be 1.0")
	case r.Form.Get("grant_type") != "client_credentials":
		return jsonhttp.Failure(http.StatusBadRequest, "grant_type must be client_credentials")
	case id == "" || secret == "":
		return jsonhttp.Failure(http.StatusBadRequest, "client_id and client_secret are required")
	}
	account := r.PathValue("account")
	app := a.apps[account][id]
	if app == nil || subtle.ConstantTimeCompare([]byte(app.secret), []byte(secret)) != 1 {
		a.log.Info("app token refused", "account", account, "app", id)
		return jsonhttp.Failure(http.StatusUnauthorized, "site, client_id or client_secret are invalid")
	}
	now := a.now()
	token, err := a.opts.Signer.Sign(jwt.MapClaims{
		"aud":   account,
		"azp":   id,
		"scope": connectorScope,
		"iss":   sentinelIssuer,
		"iat":   now.Unix(),
		"exp":   liveperson.WholeSeconds(now.Add(appTokenLifetime)).Unix(),
	})
	if err != nil {
		return jsonhttp.Failure(http.StatusInternalServerError, err.Error())
	}
	return http.StatusOK, jsonhttp.Encode(struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
	}{token, "Bearer"})
}

// consumerToken answers POST /api/account/{account}/consumer with a ConsumerJWS for the consumer whom the brand calls
// ext_consumer_id. The same ext_consumer_id is always the same consumer.
func (a *API) consumerToken(r *http.Request, body []byte) (int, []byte) {
	app, refused := a.appFrom(r)
	if refused != nil {
		return refusal("", *refused)
	}
	if r.URL.Query().Get("v") != "1.0" {
		return jsonhttp.Failure(http.StatusBadRequest, "v must be 1.0")
	}
	var request struct {
		External string `json:"ext_consumer_id"`
	}
	if json.Unmarshal(body, &request) != nil || request.External == "" {
		return jsonhttp.Failure(http.StatusBadRequest, "ext_consumer_id is required")
	}
	sum := sha256.Sum256([]byte(app.account + "\x00consumer\x00" + request.External))
	token, err := a.opts.Signer.Sign(jwt.MapClaims{
		"account_id":      app.account,
		"ext_consumer_id": request.External,
		"lp_consumer_id":  hex.EncodeToString(sum[:]),
	})
	if err != nil {
		return jsonhttp.Failure(http.StatusInternalServerError, err.Error())
	}
	return http.StatusCreated, jsonhttp.Encode(map[string]string{"token": token})
}

// appFrom returns the app install whose AppJWT is in the Authorization header. Unlike other tokens an AppJWT has no scheme.
func (a *API) appFrom(r *http.Request) (*install, *liveperson.Reply) {
	account := r.PathValue("account")
	refused := func(code int, title, details string) (*install, *liveperson.Reply) {
		a.log.Info("connector refused", "account", account, "reason", title)
		reply := liveperson.RefuseTitled(code, title, details)
		return nil, &reply
	}
	token := strings.TrimSpace(r.Header.Get("Authorization"))
	if token == "" {
		return refused(codeNoAppJWT, "AppJWT is missing", "AUTHORIZATION header is not present")
	}
	var claims struct {
		jwt.RegisteredClaims
		App   string `json:"azp"`
		Scope string `json:"scope"`
	}
	err := a.opts.Signer.Parse(token, &claims, a.now)
	app := a.apps[account][claims.App]
	switch {
	case err != nil || a.apps[account] == nil:
	case len(claims.Audience) == 0:
		return refused(liveperson.CodeMissing, "Missing parameter", "Brand Id is missing")
	case claims.App == "" || claims.ExpiresAt == nil || claims.Issuer == "" || claims.Scope == "":
		return refused(liveperson.CodeMissing, "Missing parameter", "a mandatory claim of the AppJWT is missing")
	case claims.Issuer == sentinelIssuer && slices.Contains(claims.Audience, account) && app != nil &&
		slices.Contains(strings.Fields(claims.Scope), connectorScope):
		return app, nil
	}
	return refused(codeAppJWT, "Invalid AppJWT", "AppJWT has expired or is invalid")
}

// onBehalf returns the consumer for whom a request of the Send API is made, and makes the app install the one that speaks for the
// consumer.
func (a *API) onBehalf(r *http.Request) (liveperson.Consumer, *liveperson.Reply) {
	refused := func(reply liveperson.Reply) (liveperson.Consumer, *liveperson.Reply) {
		return liveperson.Consumer{}, &reply
	}
	if r.URL.Query().Get("v") != "3" {
		return refused(liveperson.Refuse(liveperson.CodeVersion, "v must be 3"))
	}
	app, refusal := a.appFrom(r)
	if refusal != nil {
		return refused(*refusal)
	}
	token := strings.TrimSpace(r.Header.Get("X-LP-ON-BEHALF"))
	if token == "" {
		return refused(liveperson.RefuseTitled(codeNoConsumerJWS, "ConsumerJWS is missing", "X_ON_BEHALF_HEADER is not present"))
	}
	var claims struct {
		jwt.RegisteredClaims
		Account  string `json:"account_id"`
		Consumer string `json:"lp_consumer_id"`
	}
	err := a.opts.Signer.Parse(token, &claims, a.now)
	if err != nil || claims.Account != app.account || claims.Consumer == "" {
		return refused(liveperson.RefuseTitled(codeConsumerJWS, "Invalid ConsumerJWS", "ConsumerJWS is invalid"))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.appOf[consumer{app.account, claims.Consumer}] = app
	return liveperson.Consumer{Account: app.account, ID: claims.Consumer, ClientProperties: r.Header.Get("Client-Properties")}, nil
}
