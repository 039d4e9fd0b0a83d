package lprest

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

const (
	// loginVersion is the API version of LivePerson's current login pages (LivePerson: Login Service API).
	loginVersion = "1.3"
	// loginRateWait is the wait that LivePerson requires after too many logins.
	loginRateWait = 5 * time.Second
	// sessionCookie is required by refresh and logout (LivePerson: Login Service API).
	sessionCookie = "Session_id"
	// longestSession is longer than any login is valid; a longer lifetime is ignored.
	longestSession = 366 * 24 * time.Hour
)

// SignInAgent logs in a user with name and password (LivePerson: Login Service API). The token is an AgentGrant's. It fails with
// LPCredentialsRejected for a rejected or blocked login, LPRateLimited with a wait of 5 seconds after too many, otherwise as
// BaseURL.
func (c *Client) SignInAgent(ctx context.Context, account, username, password string) (share.SignIn, error) {
	return c.login(ctx, account, struct {
		Username string `json:"username"`
		Password string `json:"password"`
	}{username, password})
}

// SignInBot logs in a bot user with its keys (LivePerson: Login Service API). It fails as SignInAgent.
func (c *Client) SignInBot(ctx context.Context, account string, keys share.BotKeys) (share.SignIn, error) {
	return c.login(ctx, account, struct {
		Username          string `json:"username"`
		AppKey            string `json:"appKey"`
		Secret            string `json:"secret"`
		AccessToken       string `json:"accessToken"`
		AccessTokenSecret string `json:"accessTokenSecret"`
	}(keys))
}

// A loginResponse has the members of the response that are needed.
type loginResponse struct {
	Bearer     string `json:"bearer"`
	CSRF       string `json:"csrf"`
	SessionTTL text   `json:"sessionTTl"` // milliseconds, as a string
	Config     struct {
		UserID  text `json:"userId"`
		UserPID text `json:"userPid"`
	} `json:"config"`
	// Error is set in some responses of status 200.
	Error json.RawMessage `json:"error"`
}

func (c *Client) login(ctx context.Context, account string, body any) (share.SignIn, error) {
	const hint = "LivePerson rejects the login; check account, user name and credentials"
	rejected := RejectedAs(share.LPCredentialsRejected, hint, 400, 401, 403, 404)
	rejected[http.StatusUnavailableForLegalReasons] = share.Errorf(share.LPCredentialsRejected,
		"LivePerson has blocked the account or the user; an administrator must contact LivePerson", nil)
	resp, err := c.callLogin(ctx, account, "/login", Call{
		Request: Request{Name: "log in", JSON: body}, Rejected: rejected,
	})
	if err != nil {
		return share.SignIn{}, err
	}
	var login loginResponse
	if json.Unmarshal(resp.Body, &login) != nil {
		return share.SignIn{}, Unreadable(ServiceLogin)
	}
	if len(login.Error) > 0 && string(login.Error) != "null" {
		return share.SignIn{}, rejected[http.StatusUnauthorized]
	}
	grant := share.AgentGrant{
		Account: account,
		UserID:  string(login.Config.UserID),
		UserPID: string(login.Config.UserPID),
		Bearer:  login.Bearer,
	}
	if !share.ValidToken(grant.UserID) || !share.ValidToken(grant.UserPID) || !share.ValidToken(grant.Bearer) {
		return share.SignIn{}, Unreadable(ServiceLogin)
	}
	in := share.SignIn{ID: grant.UserPID}
	if ms, err := strconv.ParseInt(string(login.SessionTTL), 10, 64); err == nil && ms > 0 && ms <= longestSession.Milliseconds() {
		in.Expires = c.cfg.Now().Add(time.Duration(ms) * time.Millisecond).Truncate(time.Second)
		grant.Expires, grant.Lifetime = in.Expires.Unix(), ms/1000
	}
	for _, k := range resp.Cookies() {
		if k.Name == sessionCookie && share.ValidToken(k.Value) && share.ValidToken(login.CSRF) {
			grant.Cookie, grant.CSRF = k.Value, login.CSRF
		}
	}
	in.Token = grant.Token()
	if len(in.Token) > share.MaxAgentGrant { // every later call would fail with TokenInvalid
		return share.SignIn{}, share.Errorf(share.LPProtocolError, "LivePerson's login is too long to be used as a token", nil)
	}
	return in, nil
}

// SignOutAgent ends a login (LivePerson: Login Service API). A login that has already ended is not an error. It fails with
// LPProtocolError if the login lacks what a logout needs, otherwise as BaseURL.
func (c *Client) SignOutAgent(ctx context.Context, agent share.AgentGrant) error {
	if err := CheckAccount(agent.Account); err != nil {
		return err
	}
	if !share.ValidToken(agent.Cookie) || !share.ValidToken(agent.CSRF) {
		return share.Errorf(share.LPProtocolError, "LivePerson's login has no cookie or csrf for a logout; it ends when it expires", nil)
	}
	ended := share.Errorf(share.TokenInvalid, "LivePerson has ended the agent's login", nil)
	err := c.callSession(ctx, agent, "/logout", "log out", map[int]*share.Error{http.StatusUnauthorized: ended})
	if share.Is(err, share.TokenInvalid) {
		return nil
	}
	return err
}

// RefreshAgent extends a login; LivePerson's own clients do so every 10 minutes (LivePerson: Login Service API). It fails with
// TokenInvalid if the login has ended or cannot be refreshed, otherwise as BaseURL.
func (c *Client) RefreshAgent(ctx context.Context, agent share.AgentGrant) error {
	if err := CheckAccount(agent.Account); err != nil {
		return err
	}
	const ended = "LivePerson has ended the agent's login; sign in again"
	if !share.ValidToken(agent.Cookie) || !share.ValidToken(agent.CSRF) {
		return share.Errorf(share.TokenInvalid, ended, nil)
	}
	return c.callSession(ctx, agent, "/refresh", "refresh a login", RejectedAs(share.TokenInvalid, ended, 400, 401, 403))
}

// callSession makes a call about a login, with its cookie and csrf.
func (c *Client) callSession(ctx context.Context, agent share.AgentGrant, path, name string, rejected map[int]*share.Error) error {
	cookie := &http.Cookie{Name: sessionCookie, Value: agent.Cookie}
	_, err := c.callLogin(ctx, agent.Account, path, Call{
		Request: Request{Name: name, Header: http.Header{"Cookie": {cookie.String()}}, JSON: struct {
			CSRF string `json:"csrf"`
		}{agent.CSRF}},
		Rejected: rejected,
	})
	return err
}

// callLogin posts to the login service. path starts after the account.
func (c *Client) callLogin(ctx context.Context, account, path string, k Call) (Response, error) {
	k.Method, k.Query, k.RateWait = http.MethodPost, url.Values{"v": {loginVersion}}, loginRateWait
	return c.CallService(ctx, account, ServiceLogin, AccountPath(account, path), k)
}
