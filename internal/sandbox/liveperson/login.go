package liveperson

import (
	"crypto/subtle"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/jsonhttp"
)

// loginService is the agents' login API.
type loginService struct{ *Service }

// A session is one login of an agent. Service.mu guards it.
type session struct {
	account *account
	agent   *person
	bearer  string
	csrf    string
	cookie  string // Session_id
	expires time.Time
}

// sessionCookie is the cookie that refresh and logout require.
const sessionCookie = "Session_id"

// credentials is the body of a login in any of its forms.
type credentials struct {
	Username          string `json:"username"`
	Password          string `json:"password"`
	AppKey            string `json:"appKey"`
	Secret            string `json:"secret"`
	AccessToken       string `json:"accessToken"`
	AccessTokenSecret string `json:"accessTokenSecret"`
	Assertion         string `json:"assertion"`
}

// check reports whether c is complete and whether it is valid. A SAML assertion is never valid: there is no issuer for it.
func (c credentials) check(password string) (complete, valid bool) {
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

// logIn answers POST .../login.
func (s loginService) logIn(w http.ResponseWriter, r *http.Request) {
	// LivePerson's demo app for the Connector API sends no version.
	if v := r.URL.Query().Get("v"); !slices.Contains([]string{"", "1.1", "1.2", "1.3"}, v) {
		jsonhttp.Fail(w, http.StatusBadRequest, "v must be 1.1, 1.2, 1.3 or absent")
		return
	}
	var c credentials
	if err := jsonhttp.Read(r, &c); err != nil {
		jsonhttp.Fail(w, http.StatusBadRequest, err.Error())
		return
	}
	complete, valid := c.check(s.opts.Password)
	if !complete {
		jsonhttp.Fail(w, http.StatusBadRequest, "username and password, or the four keys of a bot, are required")
		return
	}
	acct := s.account(r.PathValue("account"))
	if acct == nil || !valid {
		s.log.Info("login refused", "account", r.PathValue("account"), "user", c.Username)
		jsonhttp.Fail(w, http.StatusUnauthorized, "site, user or credentials are invalid")
		return
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	agent := acct.agentNamed(c.Username, c.Username == s.opts.AdminUser)
	if s.opts.OneLogin {
		for _, other := range s.sessions {
			if other.agent == agent {
				s.end(other, "logged in again")
			}
		}
	}
	in := &session{
		account: acct,
		agent:   agent,
		bearer:  hexString(32),
		csrf:    hexString(16),
		cookie:  hexString(16),
		expires: s.now().Add(s.opts.BearerLifetime),
	}
	s.sessions[in.bearer] = in
	s.log.Info("logged in", "account", acct.id, "user", agent.name, "administrator", agent.admin)
	s.setCookie(w, r, in.cookie, 0)
	jsonhttp.Respond(w, http.StatusOK, s.answer(in))
}

// answer returns the body of the answer to a login: every member that LivePerson documents or that a known client reads.
func (s loginService) answer(in *session) map[string]any {
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
		"csdsCollectionResponse": map[string]any{"baseURIs": s.baseURIs(in.account.id)},
		"accountData": map[string]any{"agentGroupsData": map[string]any{
			"items":    []any{map[string]any{"id": -1, "deleted": false, "name": "Main Group"}},
			"revision": 1,
		}},
		"sessionTTl": strconv.FormatInt(s.opts.BearerLifetime.Milliseconds(), 10),
		"bearer":     in.bearer,
	}
}

// refresh answers POST .../refresh, which extends the life of the session's bearer.
func (s loginService) refresh(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.sessionOf(w, r)
	if in == nil {
		return
	}
	in.expires = s.now().Add(s.opts.BearerLifetime)
	for k := range in.account.present[in.agent.id] {
		if k.bearer == in.bearer {
			k.setExpiry(in.expires)
		}
	}
	jsonhttp.Respond(w, http.StatusOK, map[string]any{
		"csrf":       in.csrf,
		"sessionTTl": strconv.FormatInt(s.opts.BearerLifetime.Milliseconds(), 10),
	})
}

// logOut answers POST .../logout, which revokes the bearer and closes its sockets.
func (s loginService) logOut(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.sessionOf(w, r)
	if in == nil {
		return
	}
	s.end(in, "logged out")
	s.setCookie(w, r, "", -1)
	jsonhttp.Respond(w, http.StatusOK, struct{}{})
}

// end revokes a session's bearer and closes its sockets. Service.mu is held.
func (s loginService) end(in *session, reason string) {
	delete(s.sessions, in.bearer)
	for k := range in.account.present[in.agent.id] {
		if k.bearer == in.bearer {
			k.shut(closeAuthenticate, reason)
		}
	}
}

// sessionOf returns the session of r's cookie and csrf token; if there is none it answers 400 or 401 and returns nil.
func (s loginService) sessionOf(w http.ResponseWriter, r *http.Request) *session {
	var body struct {
		CSRF string `json:"csrf"`
	}
	if err := jsonhttp.Read(r, &body); err != nil || body.CSRF == "" {
		jsonhttp.Fail(w, http.StatusBadRequest, "csrf is required")
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
	jsonhttp.Fail(w, http.StatusUnauthorized, "no such session")
	return nil
}

// setCookie sets the session's cookie, with Secure if the client uses TLS.
func (s loginService) setCookie(w http.ResponseWriter, r *http.Request, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{
		Name: sessionCookie, Value: value, Path: "/", HttpOnly: true, Secure: r.TLS != nil, MaxAge: maxAge,
	})
}

// sessionByBearer returns the session of bearer in that account, or nil. Service.mu is held.
func (s *Service) sessionByBearer(account, bearer string) *session {
	in := s.sessions[bearer]
	if in == nil || in.account.id != account || !s.now().Before(in.expires) {
		return nil
	}
	return in
}
