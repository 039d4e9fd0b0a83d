package sandbox

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
)

const (
	// issuer is who signs consumer tokens.
	issuer = "https://idp.liveperson.net"
	// externalLifetime is how long an anonymous external token is good for, externalRenewal how long after the first one it
	// may still be exchanged for a new one.
	externalLifetime = 10 * time.Minute
	externalRenewal  = 730 * time.Hour
	// anonymousKind marks the tokens of anonymous consumers, whose sockets are closed with another code when they expire.
	anonymousKind = "anonymous"
)

// An externalTag is what an anonymous external token stands for. Sandbox.mu guards it.
type externalTag struct {
	account  string
	consumer string
	begun    time.Time // when the first token of this consumer was given
	expires  time.Time
}

// consumerClaims is the content of a consumer's token.
type consumerClaims struct {
	jwt.RegisteredClaims
	// Kind is "anonymous" or absent. Not LivePerson's: what tells its anonymous tokens apart is not known.
	Kind string `json:"sandbox_kind,omitempty"`
	// Ext is what LivePerson passes on of the customer's own token.
	Ext *extClaims `json:"lp.ext,omitempty"`
}

type extClaims struct {
	Subject string `json:"sub"`
	Issuer  string `json:"iss,omitempty"`
	SDES    any    `json:"lp_sdes,omitempty"`
}

// signUp answers POST .../signup: a new consumer, and a token for it.
func (s *Sandbox) signUp(w http.ResponseWriter, r *http.Request) {
	acct := s.idpAccount(w, r)
	if acct == nil {
		return
	}
	s.giveToken(w, "jwt", acct, consumerClaims{RegisteredClaims: jwt.RegisteredClaims{Subject: uuid.NewString()}}, time.Time{})
}

// authorizeAnonymous answers POST .../anonymous/authorize: an external token, for a new consumer or, with the last one that was
// given, for the same.
func (s *Sandbox) authorizeAnonymous(w http.ResponseWriter, r *http.Request) {
	acct := s.idpAccount(w, r)
	if acct == nil {
		return
	}
	var body struct {
		IDToken string `json:"id_token"`
	}
	if err := readBody(r, &body); err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	tag := externalTag{account: acct.id, consumer: uuid.NewString(), begun: now}
	if body.IDToken != "" {
		old := s.extTags[body.IDToken]
		if old == nil || old.account != acct.id || now.After(old.begun.Add(externalRenewal)) {
			fail(w, http.StatusUnauthorized, "id_token is not one that can be renewed")
			return
		}
		tag = *old
	}
	tag.expires = now.Add(externalLifetime)
	token := "ext." + randomHex(32)
	s.extTags[token] = &tag
	respond(w, http.StatusOK, map[string]string{"token": token})
}

// authenticateApp answers POST .../app/{connector}/authenticate: LivePerson's token for an external one.
func (s *Sandbox) authenticateApp(w http.ResponseWriter, r *http.Request) {
	acct := s.idpAccount(w, r)
	if acct == nil {
		return
	}
	if v := r.URL.Query().Get("v"); v != "3.0" {
		fail(w, http.StatusBadRequest, "v must be 3.0")
		return
	}
	var body struct {
		IDToken string `json:"id_token"`
	}
	if err := readBody(r, &body); err != nil || body.IDToken == "" {
		fail(w, http.StatusBadRequest, "id_token is wanted")
		return
	}
	if strings.Count(body.IDToken, ".") == 2 {
		s.exchange(w, "token", acct, body.IDToken)
		return
	}
	s.mu.Lock()
	tag := s.extTags[body.IDToken]
	good := tag != nil && tag.account == acct.id && s.now().Before(tag.expires)
	s.mu.Unlock()
	if !good {
		fail(w, http.StatusUnauthorized, "id_token is unknown or has expired")
		return
	}
	s.giveToken(w, "token", acct, consumerClaims{
		RegisteredClaims: jwt.RegisteredClaims{Subject: tag.consumer},
		Kind:             anonymousKind,
	}, time.Time{})
}

// authenticate answers POST .../authenticate: LivePerson's token for a customer's own, or for an authorization code.
func (s *Sandbox) authenticate(w http.ResponseWriter, r *http.Request) {
	acct := s.idpAccount(w, r)
	if acct == nil {
		return
	}
	var body struct {
		AuthCode string `json:"authCode"`
	}
	if err := readBody(r, &body); err != nil || body.AuthCode == "" {
		fail(w, http.StatusBadRequest, "authCode is wanted")
		return
	}
	s.exchange(w, "jwt", acct, body.AuthCode)
}

// exchange gives LivePerson's token for a customer's. Its signature is checked where Options.Brands has a key to do it with;
// audience and times are always. Anything that is no JWT is taken for an authorization code, which always belongs to the same consumer.
func (s *Sandbox) exchange(w http.ResponseWriter, member string, acct *account, code string) {
	ext := &extClaims{Subject: code}
	var until time.Time
	if strings.Count(code, ".") == 2 {
		claims := jwt.MapClaims{}
		if _, _, err := jwt.NewParser().ParseUnverified(code, claims); err != nil {
			fail(w, http.StatusUnauthorized, "authCode is not a JWT")
			return
		}
		if brand, ok := s.opts.Brands[acct.id]; ok && !brand.signed(code) {
			fail(w, http.StatusUnauthorized, "authCode is not signed by the account's issuer")
			return
		}
		sub, _ := claims.GetSubject()
		audience, _ := claims.GetAudience()
		expires, err := claims.GetExpirationTime()
		switch {
		case sub == "":
			fail(w, http.StatusUnauthorized, "authCode has no sub")
			return
		case !slices.Contains(audience, "acc:"+acct.id):
			fail(w, http.StatusUnauthorized, "authCode is for another audience than acc:"+acct.id)
			return
		case err != nil || expires == nil || !s.now().Before(expires.Time):
			fail(w, http.StatusUnauthorized, "authCode has expired, or never does")
			return
		}
		iss, _ := claims.GetIssuer()
		ext = &extClaims{Subject: sub, Issuer: iss, SDES: claims["lp_sdes"]}
		if ext.SDES != nil {
			ext.SDES = randomHex(64) // LivePerson's are encrypted
		}
		until = expires.Time
	}
	sum := sha256.Sum256([]byte(acct.id + "\x00" + ext.Issuer + "\x00" + ext.Subject))
	if until.IsZero() {
		ext = nil
	}
	s.giveToken(w, member, acct, consumerClaims{
		RegisteredClaims: jwt.RegisteredClaims{Subject: hex.EncodeToString(sum[:])},
		Ext:              ext,
	}, until)
}

// signed reports whether the brand has signed a JWT. Its times are not looked at.
func (b Brand) signed(text string) bool {
	_, err := jwt.Parse(text, func(*jwt.Token) (any, error) { return b.Key, nil },
		jwt.WithValidMethods([]string{"RS256"}), jwt.WithIssuer(b.Issuer), jwt.WithTimeFunc(func() time.Time { return time.Unix(0, 0) }))
	return err == nil
}

// giveToken completes the claims, signs them and answers with the token, in the member that clients of this endpoint read.
// It does not outlive until, unless that is zero.
func (s *Sandbox) giveToken(w http.ResponseWriter, member string, acct *account, claims consumerClaims, until time.Time) {
	now := s.now()
	expires := wholeSeconds(now.Add(s.opts.TokenLifetime))
	if !until.IsZero() && until.Before(expires) {
		expires = until
	}
	// Not the claims type itself: its audience would become a list, and LivePerson's is one string.
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
	text, err := s.sign(content)
	if err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	respond(w, http.StatusOK, map[string]string{member: text})
}

// errForeignToken is the one reason that is given for every token that is no good.
var errForeignToken = errors.New("the token is not a valid consumer token of this account")

// consumerOf returns who a token stands for.
func (s *Sandbox) consumerOf(acct *account, token string) (*consumerClaims, error) {
	claims := &consumerClaims{}
	parsed, err := jwt.ParseWithClaims(token, claims,
		s.publicKey,
		jwt.WithValidMethods([]string{"RS256"}),
		jwt.WithIssuer(issuer),
		jwt.WithAudience("acc:"+acct.id),
		jwt.WithExpirationRequired(),
		jwt.WithTimeFunc(s.now),
	)
	if errors.Is(err, jwt.ErrTokenExpired) && claims.Subject != "" {
		return claims, err
	}
	if err != nil || !parsed.Valid || claims.Subject == "" {
		return nil, errForeignToken
	}
	return claims, nil
}

// idpAccount returns the account of r's path; if there is none it answers 404 and returns nil.
func (s *Sandbox) idpAccount(w http.ResponseWriter, r *http.Request) *account {
	acct := s.account(r.PathValue("account"))
	if acct == nil {
		fail(w, http.StatusNotFound, "no such account")
	}
	return acct
}
