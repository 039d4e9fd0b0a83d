package lprest

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A tokenResponse is the IDP's response: jwt from sign-up and authenticate, token from the anonymous forms (LivePerson: consumer
// authentication). Either is accepted for the other.
type tokenResponse struct {
	JWT   string `json:"jwt"`
	Token string `json:"token"`
}

// SignUp creates a consumer (LivePerson: consumer authentication; LivePerson offers it for trials only). There is no renewal
// secret. It fails with LPCredentialsRejected if the account does not allow it, otherwise as BaseURL.
func (c *Client) SignUp(ctx context.Context, account string) (share.SignIn, error) {
	token, err := c.callIDP(ctx, account, "/signup", Call{
		Request: Request{Name: "sign up"},
		Rejected: RejectedAs(share.LPCredentialsRejected,
			"LivePerson rejects the sign-up; the account may not allow it", 400, 401, 403, 404),
	})
	if err != nil {
		return share.SignIn{}, err
	}
	return consumerSignIn(token, "")
}

// SignInAnonymous signs in an unauthenticated consumer through the account's connector (LivePerson: consumer authentication,
// anonymous, steps 1 and 2). It fails with InvalidField for a malformed connector id, LPCredentialsRejected for one that LivePerson
// does not know, otherwise as BaseURL.
func (c *Client) SignInAnonymous(ctx context.Context, account, connector string) (share.SignIn, error) {
	if !connectorID.MatchString(connector) {
		return share.SignIn{}, invalid("anonymous.connector_id", "not a connector id: 1 to 64 letters, digits, _ and -")
	}
	const hint = "LivePerson rejects the connector; check its id, and that unauthenticated messaging is enabled for the account"
	return c.anonymous(ctx, account, connector, "", RejectedAs(share.LPCredentialsRejected, hint, 400, 401, 403, 404))
}

// Authenticate exchanges the brand's JWT for its customer, or an OAuth 2.0 authorization code, for a consumer token (LivePerson:
// consumer authentication, authenticated). There is no renewal secret: the brand issues the next JWT. It fails with
// LPCredentialsRejected for a JWT or code that LivePerson rejects, otherwise as BaseURL.
func (c *Client) Authenticate(ctx context.Context, account, authCode string) (share.SignIn, error) {
	const hint = "LivePerson rejects the customer's JWT or authorization code; get a new one from the brand's identity provider"
	token, err := c.callIDP(ctx, account, "/authenticate", Call{
		Request: Request{Name: "authenticate", JSON: struct {
			AuthCode string `json:"authCode"`
		}{authCode}},
		Rejected: RejectedAs(share.LPCredentialsRejected, hint, 400, 401, 403, 404),
	})
	if err != nil {
		return share.SignIn{}, err
	}
	return consumerSignIn(token, "")
}

// Renew gets the next token of an anonymous consumer, and the next renewal secret (LivePerson: consumer authentication, anonymous,
// refresh). It fails with TokenInvalid for a malformed renewal secret and for one that LivePerson no longer accepts, after which
// the consumer must sign in again; with NotAllowed for a secret of another account; otherwise as BaseURL.
func (c *Client) Renew(ctx context.Context, account, renewalSecret string) (share.SignIn, error) {
	if err := CheckAccount(account); err != nil {
		return share.SignIn{}, err
	}
	s, ok := parseRenewal(renewalSecret)
	if !ok {
		return share.SignIn{}, share.Errorf(share.TokenInvalid,
			"the renewal secret is not from an anonymous sign-in; other identities cannot be renewed: sign in again", nil)
	}
	if s.Account != account {
		return share.SignIn{}, share.Errorf(share.NotAllowed, "the renewal secret belongs to another account", nil)
	}
	const hint = "LivePerson no longer renews this identity; sign in again"
	return c.anonymous(ctx, account, s.Connector, s.External, RejectedAs(share.TokenInvalid, hint, 400, 401, 403, 404))
}

// anonymous performs both steps. external is the external token to renew, or empty for a new consumer.
func (c *Client) anonymous(ctx context.Context, account, connector, external string, rejected map[int]*share.Error) (share.SignIn, error) {
	authorize := Call{Request: Request{Name: "authorize"}, Rejected: rejected}
	if external != "" {
		authorize.JSON = idToken{external}
	}
	external, err := c.callIDP(ctx, account, "/anonymous/authorize", authorize)
	if err != nil {
		return share.SignIn{}, err
	}
	token, err := c.callIDP(ctx, account, "/app/"+connector+"/authenticate", Call{
		Request:  Request{Name: "authenticate by connector", Query: url.Values{"v": {"3.0"}}, JSON: idToken{external}},
		Rejected: rejected,
	})
	if err != nil {
		return share.SignIn{}, err
	}
	return consumerSignIn(token, renewal{Account: account, Connector: connector, External: external}.secret())
}

type idToken struct {
	IDToken string `json:"id_token"`
}

// callIDP posts to the IDP and returns the token of its response. path starts after the account.
func (c *Client) callIDP(ctx context.Context, account, path string, k Call) (string, error) {
	k.Method = http.MethodPost
	resp, err := c.CallService(ctx, account, ServiceIDP, AccountPath(account, path), k)
	if err != nil {
		return "", err
	}
	var tokens tokenResponse
	if json.Unmarshal(resp.Body, &tokens) != nil {
		return "", Unreadable(ServiceIDP)
	}
	token := cmp.Or(tokens.JWT, tokens.Token)
	if !share.ValidToken(token) {
		return "", Unreadable(ServiceIDP)
	}
	return token, nil
}

// AccountPath returns the URL path of an account's resource, as most services have it. account must be a valid id.
func AccountPath(account, resource string) string { return "/api/account/" + account + resource }

// consumerSignIn reads the consumer and the expiry from a token that LivePerson issued.
func consumerSignIn(token, renewalSecret string) (share.SignIn, error) {
	claims, err := lpwire.ReadClaims(token)
	if err != nil || claims.Subject == "" {
		return share.SignIn{}, share.Errorf(share.LPProtocolError, "LivePerson's consumer token cannot be read", err)
	}
	return share.SignIn{Token: token, RenewalSecret: renewalSecret, Expires: claims.Expires, ID: claims.Subject}, nil
}

// A renewal is the content of a renewal secret: what LivePerson needs for the next token. It is kept by the client, so that any
// server can renew an identity that another server signed in.
type renewal struct {
	Account   string `json:"a"`
	Connector string `json:"c"`
	External  string `json:"t"`
}

// secret encodes r.
func (r renewal) secret() string {
	b, _ := json.Marshal(r) // three strings: cannot fail
	return base64.RawURLEncoding.EncodeToString(b)
}

// parseRenewal decodes a secret and checks that each part is safe in the requests that it becomes part of.
func parseRenewal(secret string) (renewal, bool) {
	var r renewal
	if len(secret) > 2*share.MaxToken { // longer than base64 of the longest token
		return r, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(secret)
	if err != nil || json.Unmarshal(b, &r) != nil {
		return r, false
	}
	return r, share.ValidAccountID(r.Account) && connectorID.MatchString(r.Connector) && share.ValidToken(r.External)
}
