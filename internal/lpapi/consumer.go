package lpapi

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A tokenAnswer is what the IDP answers: jwt from sign-up and authenticate, token from the anonymous forms (LivePerson: consumer authentication).
// Either is taken for the other.
type tokenAnswer struct {
	JWT   string `json:"jwt"`
	Token string `json:"token"`
}

// SignUp makes a new consumer (LivePerson: consumer authentication; LivePerson means it for trying out only). There is no renewal secret.
// LPCredentialsRejected where the account does not allow it; else as BaseURL.
func (c *Client) SignUp(ctx context.Context, account string) (share.SignIn, error) {
	token, err := c.askIDP(ctx, account, "/signup", call{
		name: "sign up",
		refused: refusedAs(share.LPCredentialsRejected,
			"LivePerson refuses the sign-up; the account may not allow it", 400, 401, 403, 404),
	})
	if err != nil {
		return share.SignIn{}, err
	}
	return consumerSignIn(token, "")
}

// SignInAnonymous signs in an unauthenticated consumer by the account's connector (LivePerson: consumer authentication, anonymous, steps 1 and
// 2). InvalidField for what is no connector id; LPCredentialsRejected for one that LivePerson does not know; else as BaseURL.
func (c *Client) SignInAnonymous(ctx context.Context, account, connector string) (share.SignIn, error) {
	if !connectorID.MatchString(connector) {
		return share.SignIn{}, invalid("anonymous.connector_id", "not a connector's id: letters, digits, _ and -, 64 at most")
	}
	const hint = "LivePerson refuses the connector; check its id, and that the account has unauthenticated messaging"
	return c.anonymous(ctx, account, connector, "", refusedAs(share.LPCredentialsRejected, hint, 400, 401, 403, 404))
}

// Authenticate trades the brand's JWT for its customer, or an OAuth 2.0 authorization code, for a consumer token (LivePerson:
// consumer authentication, authenticated). There is no renewal secret: the brand's side gives the next JWT. LPCredentialsRejected for a JWT or code
// that LivePerson does not take; else as BaseURL.
func (c *Client) Authenticate(ctx context.Context, account, authCode string) (share.SignIn, error) {
	const hint = "LivePerson refuses the customer's JWT or authorization code; get a fresh one from the brand's identity provider"
	token, err := c.askIDP(ctx, account, "/authenticate", call{
		name: "authenticate",
		body: struct {
			AuthCode string `json:"authCode"`
		}{authCode},
		refused: refusedAs(share.LPCredentialsRejected, hint, 400, 401, 403, 404),
	})
	if err != nil {
		return share.SignIn{}, err
	}
	return consumerSignIn(token, "")
}

// Renew gets the next token of an anonymous consumer, and the next renewal secret (LivePerson: consumer authentication, anonymous, refresh).
// TokenInvalid for what is no renewal secret, and for one that LivePerson no longer takes: the remedy is to sign in again.
// NotAllowed for the secret of another account; else as BaseURL.
func (c *Client) Renew(ctx context.Context, account, renewalSecret string) (share.SignIn, error) {
	if err := checkAccount(account); err != nil {
		return share.SignIn{}, err
	}
	s, ok := parseRenewal(renewalSecret)
	if !ok {
		return share.SignIn{}, share.Errorf(share.TokenInvalid,
			"the renewal secret is not one that an anonymous sign-in gave out; other identities are not renewed: sign in again", nil)
	}
	if s.Account != account {
		return share.SignIn{}, share.Errorf(share.NotAllowed, "the renewal secret is of another account", nil)
	}
	const hint = "LivePerson does not renew this identity any more; sign in again"
	return c.anonymous(ctx, account, s.Connector, s.External, refusedAs(share.TokenInvalid, hint, 400, 401, 403, 404))
}

// anonymous does both steps. external is the external token to be renewed, or empty for a new consumer.
func (c *Client) anonymous(ctx context.Context, account, connector, external string, refused map[int]*share.Error) (share.SignIn, error) {
	authorize := call{name: "authorize", refused: refused}
	if external != "" {
		authorize.body = idToken{external}
	}
	external, err := c.askIDP(ctx, account, "/anonymous/authorize", authorize)
	if err != nil {
		return share.SignIn{}, err
	}
	token, err := c.askIDP(ctx, account, "/app/"+connector+"/authenticate", call{
		name:    "authenticate by connector",
		query:   url.Values{"v": {"3.0"}},
		body:    idToken{external},
		refused: refused,
	})
	if err != nil {
		return share.SignIn{}, err
	}
	return consumerSignIn(token, renewal{Account: account, Connector: connector, External: external}.secret())
}

type idToken struct {
	IDToken string `json:"id_token"`
}

// askIDP posts to the IDP and returns the token that it answers.
func (c *Client) askIDP(ctx context.Context, account, path string, k call) (string, error) {
	k.method = http.MethodPost
	data, err := c.ask(ctx, account, serviceIDP, path, k)
	if err != nil {
		return "", err
	}
	var answer tokenAnswer
	if json.Unmarshal(data, &answer) != nil {
		return "", unreadable(serviceIDP)
	}
	token := cmp.Or(answer.JWT, answer.Token)
	if !isToken(token) {
		return "", unreadable(serviceIDP)
	}
	return token, nil
}

// consumerSignIn reads what a token says of itself.
func consumerSignIn(token, renewalSecret string) (share.SignIn, error) {
	sub, expires, err := readJWT(token)
	if err != nil {
		return share.SignIn{}, share.Errorf(share.LPProtocolError, "LivePerson's consumer token is not readable", err)
	}
	return share.SignIn{Token: token, RenewalSecret: renewalSecret, Expires: expires, ID: sub}, nil
}

// refusedAs makes statuses mean one thing.
func refusedAs(kind share.Kind, message string, statuses ...int) map[int]*share.Error {
	m := make(map[int]*share.Error, len(statuses))
	for _, s := range statuses {
		m[s] = share.Errorf(kind, message, nil)
	}
	return m
}

// A renewal is what a renewal secret holds: what LivePerson wants to see again. It needs no table here, so that any server can
// renew what another signed in.
type renewal struct {
	Account   string `json:"a"`
	Connector string `json:"c"`
	External  string `json:"t"`
}

// secret writes r.
func (r renewal) secret() string {
	b, _ := json.Marshal(r) // three strings: cannot fail
	return base64.RawURLEncoding.EncodeToString(b)
}

// parseRenewal reads a secret and checks that each part may go where it goes.
func parseRenewal(secret string) (renewal, bool) {
	var r renewal
	if len(secret) > 2*maxToken {
		return r, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(secret)
	if err != nil || json.Unmarshal(b, &r) != nil {
		return r, false
	}
	return r, accountID.MatchString(r.Account) && connectorID.MatchString(r.Connector) && isToken(r.External)
}
