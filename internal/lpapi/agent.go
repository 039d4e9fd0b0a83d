package lpapi

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
	// loginVersion is that of LivePerson's current login pages (LivePerson: Login Service API).
	loginVersion = "1.3"
	// loginRateWait is what LivePerson asks for after too many logins.
	loginRateWait = 5 * time.Second
	// sessionCookie goes with refresh (LivePerson: Login Service API).
	sessionCookie = "Session_id"
	// longestSession is more than any login lives; what says more is not believed.
	longestSession = 366 * 24 * time.Hour
)

// SignInAgent logs a user in with name and password (LivePerson: Login Service API). The token is an AgentGrant's. LPCredentialsRejected
// for a login refused or blocked, LPRateLimited with a wait of 5 seconds after too many; else as BaseURL.
func (c *Client) SignInAgent(ctx context.Context, account, username, password string) (share.SignIn, error) {
	return c.login(ctx, account, struct {
		Username string `json:"username"`
		Password string `json:"password"`
	}{username, password})
}

// SignInBot logs a bot user in with its keys (LivePerson: Login Service API). As SignInAgent.
func (c *Client) SignInBot(ctx context.Context, account string, keys share.BotKeys) (share.SignIn, error) {
	return c.login(ctx, account, struct {
		Username          string `json:"username"`
		AppKey            string `json:"appKey"`
		Secret            string `json:"secret"`
		AccessToken       string `json:"accessToken"`
		AccessTokenSecret string `json:"accessTokenSecret"`
	}(keys))
}

// A loginAnswer is what of a login's answer is needed.
type loginAnswer struct {
	Bearer     string `json:"bearer"`
	CSRF       string `json:"csrf"`
	SessionTTL text   `json:"sessionTTl"` // milliseconds, as a string
	Config     struct {
		UserID  text `json:"userId"`
		UserPID text `json:"userPid"`
	} `json:"config"`
	// Error stands in some answers of status 200.
	Error json.RawMessage `json:"error"`
}

func (c *Client) login(ctx context.Context, account string, body any) (share.SignIn, error) {
	const hint = "LivePerson refuses the login; check account, user name and credentials"
	refused := refusedAs(share.LPCredentialsRejected, hint, 400, 401, 403, 404)
	refused[http.StatusUnavailableForLegalReasons] = share.Errorf(share.LPCredentialsRejected,
		"LivePerson has blocked the account or the user; an administrator must talk to LivePerson", nil)
	var cookies []*http.Cookie
	data, err := c.ask(ctx, account, serviceLogin, "/login", call{
		name: "log in", method: http.MethodPost, query: url.Values{"v": {loginVersion}},
		body: body, refused: refused, rateWait: loginRateWait, cookies: &cookies,
	})
	if err != nil {
		return share.SignIn{}, err
	}
	var answer loginAnswer
	if json.Unmarshal(data, &answer) != nil {
		return share.SignIn{}, unreadable(serviceLogin)
	}
	if len(answer.Error) > 0 && string(answer.Error) != "null" {
		return share.SignIn{}, refused[http.StatusUnauthorized]
	}
	grant := share.AgentGrant{
		Account: account,
		UserID:  string(answer.Config.UserID),
		UserPID: string(answer.Config.UserPID),
		Bearer:  answer.Bearer,
	}
	if !isToken(grant.UserID) || !isToken(grant.UserPID) || !isToken(grant.Bearer) {
		return share.SignIn{}, unreadable(serviceLogin)
	}
	in := share.SignIn{ID: grant.UserPID}
	if ms, err := strconv.ParseInt(string(answer.SessionTTL), 10, 64); err == nil && ms > 0 && ms <= longestSession.Milliseconds() {
		in.Expires = c.cfg.Now().Add(time.Duration(ms) * time.Millisecond).Truncate(time.Second)
		grant.Expires, grant.Lifetime = in.Expires.Unix(), ms/1000
	}
	for _, k := range cookies {
		if k.Name == sessionCookie && isToken(k.Value) && isToken(answer.CSRF) {
			grant.Cookie, grant.CSRF = k.Value, answer.CSRF
		}
	}
	in.Token = grant.Token()
	return in, nil
}

// SignOutAgent ends a login (LivePerson: Login Service API). A login that has ended already is no error. LPProtocolError where the
// login came without what a logout wants; else as BaseURL.
func (c *Client) SignOutAgent(ctx context.Context, agent share.AgentGrant) error {
	if err := checkAccount(agent.Account); err != nil {
		return err
	}
	if !isToken(agent.Cookie) || !isToken(agent.CSRF) {
		return share.Errorf(share.LPProtocolError, "LivePerson's login came without what a logout wants; it ends when it expires", nil)
	}
	ended := share.Errorf(share.TokenInvalid, "LivePerson has ended the agent's login", nil)
	_, err := c.ask(ctx, agent.Account, serviceLogin, "/logout", sessionCall("log out", agent, map[int]*share.Error{http.StatusUnauthorized: ended}))
	if share.Is(err, share.TokenInvalid) {
		return nil
	}
	return err
}

// sessionCall is a call about the login that a grant is of: it goes with the login's cookie and csrf.
func sessionCall(name string, agent share.AgentGrant, refused map[int]*share.Error) call {
	cookie := &http.Cookie{Name: sessionCookie, Value: agent.Cookie}
	return call{
		name: name, method: http.MethodPost, query: url.Values{"v": {loginVersion}},
		header: http.Header{"Cookie": {cookie.String()}},
		body: struct {
			CSRF string `json:"csrf"`
		}{agent.CSRF},
		refused: refused, rateWait: loginRateWait,
	}
}

// RefreshAgent keeps a login alive: LivePerson's own clients do it every 10 minutes (LivePerson: Login Service API). TokenInvalid where the
// login has ended, or cannot be refreshed; else as BaseURL.
func (c *Client) RefreshAgent(ctx context.Context, agent share.AgentGrant) error {
	if err := checkAccount(agent.Account); err != nil {
		return err
	}
	const ended = "LivePerson has ended the agent's login; sign in again"
	if !isToken(agent.Cookie) || !isToken(agent.CSRF) {
		return share.Errorf(share.TokenInvalid, ended, nil)
	}
	_, err := c.ask(ctx, agent.Account, serviceLogin, "/refresh",
		sessionCall("refresh a login", agent, refusedAs(share.TokenInvalid, ended, 400, 401, 403)))
	return err
}
