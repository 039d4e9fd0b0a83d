package sandbox

import (
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// A session is one login of an agent. Sandbox.mu guards it.
type session struct {
	account *account
	agent   *person
	bearer  string
	csrf    string
	cookie  string // Session_id
	expires time.Time
}

// sessionCookie is the cookie that refresh and logout want back.
const sessionCookie = "Session_id"

// credentials is the body of a login, in all its forms.
type credentials struct {
	Username          string `json:"username"`
	Password          string `json:"password"`
	AppKey            string `json:"appKey"`
	Secret            string `json:"secret"`
	AccessToken       string `json:"accessToken"`
	AccessTokenSecret string `json:"accessTokenSecret"`
	Assertion         string `json:"assertion"`
}

// open reports whether c opens the account, and whether it is complete at all. A SAML assertion never does: there is nobody
// here who could have signed it.
func (c credentials) open(password string) (complete, opens bool) {
	same := func(s string) bool { return subtle.ConstantTimeCompare([]byte(s), []byte(password)) == 1 }
	switch {
	case c.Username != "" && c.Password != "":
		return true, same(c.Password)
	case c.Username != "" && c.AppKey != "" && c.Secret != "" && c.AccessToken != "" && c.AccessTokenSecret != "":
		return true, same(c.Secret) || c.Secret == "sandbox"
	default:
		return c.Assertion != "", false
	}
}

// login answers POST .../login.
func (s *Sandbox) login(w http.ResponseWriter, r *http.Request) {
	if v := r.URL.Query().Get("v"); !slices.Contains([]string{"1.1", "1.2", "1.3"}, v) {
		fail(w, http.StatusBadRequest, "v must be 1.1, 1.2 or 1.3")
		return
	}
	var c credentials
	if err := readBody(r, &c); err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	complete, opens := c.open(s.opts.Password)
	if !complete {
		fail(w, http.StatusBadRequest, "username and password, or a bot's four keys, are wanted")
		return
	}
	acct := s.account(r.PathValue("account"))
	if acct == nil || !opens {
		s.log.Info("login refused", "account", r.PathValue("account"), "user", c.Username)
		fail(w, http.StatusUnauthorized, "site, user or credentials are wrong")
		return
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	agent := acct.agentNamed(c.Username, c.Username == s.opts.AdminUser)
	in := &session{
		account: acct,
		agent:   agent,
		bearer:  randomHex(32),
		csrf:    randomHex(16),
		cookie:  randomHex(16),
		expires: s.now().Add(s.opts.BearerLifetime),
	}
	s.sessions[in.bearer] = in
	s.log.Info("logged in", "account", acct.id, "user", agent.name, "administrator", agent.admin)
	s.setSessionCookie(w, r, in.cookie, 0)
	respond(w, http.StatusOK, s.loginAnswer(r, in))
}

// loginAnswer tells an agent what it needs: everything that LivePerson documents or that a known client reads.
func (s *Sandbox) loginAnswer(r *http.Request, in *session) map[string]any {
	return map[string]any{
		"csrf": in.csrf,
		"wsuk": strconv.FormatUint(uint64(uuid.NewSHA1(uuid.NameSpaceOID, []byte(in.agent.id)).ID())+766_900_000_000_000_000, 10),
		"config": map[string]any{
			"loginName":          in.agent.name,
			"userId":             in.agent.userID,
			"userPid":            in.agent.id,
			"userPrivileges":     []int{100, 101},
			"serverCurrentTime":  s.now().UnixMilli(),
			"timeDiff":           0,
			"serverTimeZoneName": "UTC",
			"serverTimeGMTDiff":  0,
			"isLPA":              false,
			"isAdmin":            in.agent.admin,
			"accountTimeZoneId":  "UTC",
		},
		"csdsCollectionResponse": map[string]any{"baseURIs": s.baseURIs(r, in.account.id)},
		"accountData": map[string]any{"agentGroupsData": map[string]any{
			"items":    []any{map[string]any{"id": -1, "deleted": false, "name": "Main Group"}},
			"revision": 1,
		}},
		"sessionTTl": strconv.FormatInt(s.opts.BearerLifetime.Milliseconds(), 10),
		"bearer":     in.bearer,
	}
}

// refresh answers POST .../refresh: the bearer of the session lives on.
func (s *Sandbox) refresh(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.sessionOf(w, r)
	if in == nil {
		return
	}
	in.expires = s.now().Add(s.opts.BearerLifetime)
	for k := range in.account.here[in.agent.id] {
		if k.bearer == in.bearer {
			k.renew(in.expires)
		}
	}
	respond(w, http.StatusOK, map[string]any{
		"csrf":       in.csrf,
		"sessionTTl": strconv.FormatInt(s.opts.BearerLifetime.Milliseconds(), 10),
	})
}

// logout answers POST .../logout: the bearer is no good any more, not even on the sockets that it opened.
func (s *Sandbox) logout(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.sessionOf(w, r)
	if in == nil {
		return
	}
	delete(s.sessions, in.bearer)
	for k := range in.account.here[in.agent.id] {
		if k.bearer == in.bearer {
			k.shut(closeAuthenticate, "logged out")
		}
	}
	s.setSessionCookie(w, r, "", -1)
	respond(w, http.StatusOK, struct{}{})
}

// sessionOf returns the session that r's cookie and csrf belong to; if there is none it answers 401 and returns nil.
func (s *Sandbox) sessionOf(w http.ResponseWriter, r *http.Request) *session {
	var body struct {
		CSRF string `json:"csrf"`
	}
	if err := readBody(r, &body); err != nil || body.CSRF == "" {
		fail(w, http.StatusBadRequest, "csrf is wanted")
		return nil
	}
	cookie, err := r.Cookie(sessionCookie)
	if err == nil && cookie.Value != "" {
		for _, in := range s.sessions {
			if in.cookie == cookie.Value && in.csrf == body.CSRF && in.account.id == r.PathValue("account") && s.now().Before(in.expires) {
				return in
			}
		}
	}
	fail(w, http.StatusUnauthorized, "no such session")
	return nil
}

// setSessionCookie sets the session's cookie; only a client that came by TLS is told to keep it to TLS.
func (s *Sandbox) setSessionCookie(w http.ResponseWriter, r *http.Request, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{
		Name: sessionCookie, Value: value, Path: "/", HttpOnly: true, Secure: r.TLS != nil, MaxAge: maxAge,
	})
}

// sessionByBearer returns the session that bearer opens in that account, or nil. Call with mu held.
func (s *Sandbox) sessionByBearer(account, bearer string) *session {
	in := s.sessions[bearer]
	if in == nil || in.account.id != account || !s.now().Before(in.expires) {
		return nil
	}
	return in
}

// jsonText is a member that is text, whether the client wrote it as a string or as a number.
type jsonText string

// UnmarshalJSON takes a string or a number; null leaves the text empty.
func (t *jsonText) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil
	}
	if data[0] == '"' {
		return json.Unmarshal(data, (*string)(t))
	}
	var n json.Number
	if err := json.Unmarshal(data, &n); err != nil {
		return err
	}
	*t = jsonText(n)
	return nil
}
