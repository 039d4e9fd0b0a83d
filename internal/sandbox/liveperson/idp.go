package liveperson

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/jsonhttp"
)

const (
	// issuer is the issuer of consumer tokens.
	issuer = "https://idp.liveperson.net"
	// externalLifetime is how long an anonymous external token can be exchanged for a LivePerson token; externalRenewal is how
	// long after the first token of a consumer it can be renewed.
	externalLifetime = 10 * time.Minute
	externalRenewal  = 730 * time.Hour
	// anonymousKind marks the tokens of anonymous consumers, whose sockets are closed with another code on expiry.
	anonymousKind = "anonymous"
)

// identityProvider issues the tokens of consumers.
type identityProvider struct{ *Service }

// An anonymous is the consumer that an anonymous external token identifies. Service.mu guards it.
type anonymous struct {
	account  string
	consumer string
	begun    time.Time // when the first token of this consumer was issued
	expires  time.Time
}

// consumerClaims is the content of a consumer's token.
type consumerClaims struct {
	jwt.RegisteredClaims
	// Kind is "anonymous" or absent. It is not LivePerson's: how LivePerson marks anonymous tokens is not known.
	Kind string `json:"sandbox_kind,omitempty"`
	// Ext is the part of the brand's own token that LivePerson passes on.
	Ext *extClaims `json:"lp.ext,omitempty"`
}

type extClaims struct {
	Subject string `json:"sub"`
	Issuer  string `json:"iss,omitempty"`
	SDES    any    `json:"lp_sdes,omitempty"`
}

// signUp answers POST .../signup and GET .../signup.jsonp with a token for a new consumer.
func (s identityProvider) signUp(w http.ResponseWriter, r *http.Request) {
	acct := s.accountOf(w, r)
	if acct == nil {
		return
	}
	s.giveToken(w, r, "jwt", acct, consumerClaims{RegisteredClaims: jwt.RegisteredClaims{Subject: uuid.NewString()}}, time.Time{})
}

// authorizeAnonymous answers POST .../anonymous/authorize with an external token, for a new consumer or, if id_token is a previous
// one, for the same consumer.
func (s identityProvider) authorizeAnonymous(w http.ResponseWriter, r *http.Request) {
	acct := s.accountOf(w, r)
	if acct == nil {
		return
	}
	var body struct {
		IDToken string `json:"id_token"`
	}
	if err := jsonhttp.Read(r, &body); err != nil {
		jsonhttp.Fail(w, http.StatusBadRequest, err.Error())
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	who := anonymous{account: acct.id, consumer: uuid.NewString(), begun: now}
	if body.IDToken != "" {
		old := s.anonymous[body.IDToken]
		if old == nil || old.account != acct.id || now.After(old.begun.Add(externalRenewal)) {
			jsonhttp.Fail(w, http.StatusUnauthorized, "id_token cannot be renewed")
			return
		}
		who = *old
	}
	who.expires = now.Add(externalLifetime)
	token := "ext." + hexString(32)
	s.anonymous[token] = &who
	jsonhttp.Respond(w, http.StatusOK, map[string]string{"token": token})
}

// authenticateApp answers POST .../app/{connector}/authenticate with LivePerson's token for an external one.
func (s identityProvider) authenticateApp(w http.ResponseWriter, r *http.Request) {
	acct := s.accountOf(w, r)
	if acct == nil {
		return
	}
	if v := r.URL.Query().Get("v"); v != "3.0" {
		jsonhttp.Fail(w, http.StatusBadRequest, "v must be 3.0")
		return
	}
	var body struct {
		IDToken string `json:"id_token"`
	}
	if err := jsonhttp.Read(r, &body); err != nil || body.IDToken == "" {
		jsonhttp.Fail(w, http.StatusBadRequest, "id_token is required")
		return
	}
	if strings.Count(body.IDToken, ".") == 2 {
		s.exchange(w, r, "token", acct, body.IDToken)
		return
	}
	s.mu.Lock()
	who := s.anonymous[body.IDToken]
	good := who != nil && who.account == acct.id && s.now().Before(who.expires)
	s.mu.Unlock()
	if !good {
		jsonhttp.Fail(w, http.StatusUnauthorized, "id_token is unknown or has expired")
		return
	}
	s.giveToken(w, r, "token", acct, consumerClaims{
		RegisteredClaims: jwt.RegisteredClaims{Subject: who.consumer},
		Kind:             anonymousKind,
	}, time.Time{})
}

// authenticate answers POST .../authenticate with LivePerson's token for a brand's own token or an authorization code.
func (s identityProvider) authenticate(w http.ResponseWriter, r *http.Request) {
	acct := s.accountOf(w, r)
	if acct == nil {
		return
	}
	var body struct {
		AuthCode string `json:"authCode"`
	}
	if err := jsonhttp.Read(r, &body); err != nil || body.AuthCode == "" {
		jsonhttp.Fail(w, http.StatusBadRequest, "authCode is required")
		return
	}
	s.exchange(w, r, "jwt", acct, body.AuthCode)
}

// exchange answers with LivePerson's token for a brand's token. It verifies audience and expiry and, if Options.Brands has a key
// for the account, the signature. A code that is not a JWT is an authorization code; equal codes identify the same consumer.
func (s identityProvider) exchange(w http.ResponseWriter, r *http.Request, member string, acct *account, code string) {
	ext := &extClaims{Subject: code}
	var until time.Time
	if strings.Count(code, ".") == 2 {
		claims := jwt.MapClaims{}
		if _, _, err := jwt.NewParser().ParseUnverified(code, claims); err != nil {
			jsonhttp.Fail(w, http.StatusUnauthorized, "authCode is not a JWT")
			return
		}
		if brand, ok := s.opts.Brands[acct.id]; ok && !brand.signed(code) {
			jsonhttp.Fail(w, http.StatusUnauthorized, "authCode is not signed by the account's issuer")
			return
		}
		sub, _ := claims.GetSubject()
		audience, _ := claims.GetAudience()
		expires, err := claims.GetExpirationTime()
		switch {
		case sub == "":
			jsonhttp.Fail(w, http.StatusUnauthorized, "authCode has no sub")
			return
		case !slices.Contains(audience, "acc:"+acct.id):
			jsonhttp.Fail(w, http.StatusUnauthorized, "authCode is for another audience than acc:"+acct.id)
			return
		case err != nil || expires == nil || !s.now().Before(expires.Time):
			jsonhttp.Fail(w, http.StatusUnauthorized, "authCode has expired or has no expiry")
			return
		}
		iss, _ := claims.GetIssuer()
		ext = &extClaims{Subject: sub, Issuer: iss, SDES: claims["lp_sdes"]}
		if ext.SDES != nil {
			ext.SDES = hexString(64) // LivePerson's are encrypted
		}
		until = expires.Time
	}
	sum := sha256.Sum256([]byte(acct.id + "\x00" + ext.Issuer + "\x00" + ext.Subject))
	if until.IsZero() {
		ext = nil
	}
	s.giveToken(w, r, member, acct, consumerClaims{
		RegisteredClaims: jwt.RegisteredClaims{Subject: hex.EncodeToString(sum[:])},
		Ext:              ext,
	}, until)
}

// signed reports whether the brand has signed a JWT, regardless of its validity period.
func (b Brand) signed(text string) bool {
	_, err := jwt.Parse(text, func(*jwt.Token) (any, error) { return b.Key, nil },
		jwt.WithValidMethods([]string{"RS256"}), jwt.WithIssuer(b.Issuer), jwt.WithTimeFunc(func() time.Time { return time.Unix(0, 0) }))
	return err == nil
}

// giveToken completes and signs the claims and answers with the token in the named member. The token expires at until at the
// latest, unless until is zero.
func (s identityProvider) giveToken(w http.ResponseWriter, r *http.Request, member string, acct *account, claims consumerClaims, until time.Time) {
	now := s.now()
	expires := WholeSeconds(now.Add(s.opts.TokenLifetime))
	if !until.IsZero() && until.Before(expires) {
		expires = until
	}
	// Not the claims type: it would encode the audience as a list, and LivePerson's is a string.
	content := jwt.MapClaims{
		"sub": claims.Subject,
		"aud": "acc:" + acct.id,
		"iss": issuer,
		"iat": now.Unix(),
		"exp": expires.Unix(),
		"jti": uuid.NewString(),
	}
	if claims.Kind != "" {
		content["sandbox_kind"] = claims.Kind
	}
	if claims.Ext != nil {
		content["lp.ext"] = claims.Ext
	}
	text, err := s.opts.Signer.Sign(content)
	if err != nil {
		jsonhttp.Fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	respondScriptable(w, r, map[string]string{member: text})
}

// errForeignToken is the error for every invalid token.
var errForeignToken = errors.New("the token is not a valid consumer token of this account")

// consumerOf returns the claims of a consumer's token. If only its validity has ended it returns them with jwt.ErrTokenExpired.
func (s *Service) consumerOf(acct *account, token string) (*consumerClaims, error) {
	claims := &consumerClaims{}
	err := s.opts.Signer.Parse(token, claims, s.now,
		jwt.WithIssuer(issuer), jwt.WithAudience("acc:"+acct.id), jwt.WithExpirationRequired())
	if errors.Is(err, jwt.ErrTokenExpired) && claims.Subject != "" {
		return claims, err
	}
	if err != nil || claims.Subject == "" {
		return nil, errForeignToken
	}
	return claims, nil
}

// accountOf returns the account in r's path; if there is none it answers 404 and returns nil.
func (s identityProvider) accountOf(w http.ResponseWriter, r *http.Request) *account {
	acct := s.account(r.PathValue("account"))
	if acct == nil {
		jsonhttp.Fail(w, http.StatusNotFound, "no such account")
	}
	return acct
}
