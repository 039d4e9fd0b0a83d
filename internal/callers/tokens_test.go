package callers

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"

	"github.com/lpfileshare/lpfileshare/internal/policy"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/test/issuer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tokensOf returns a verifier that has fetched the keys of an issuer.
func tokensOf(tb testing.TB, i *issuer.Issuer) *Tokens {
	tb.Helper()
	available := make(chan struct{})
	tokens := NewTokens(TokensConfig{Issuer: i.URL(), Audience: issuer.Audience, Available: func() { close(available) }, Log: quiet})
	tokens.keys.start()
	tb.Cleanup(tokens.keys.close)
	<-available
	return tokens
}

var quiet = slog.New(slog.DiscardHandler)

func wantWhy(t *testing.T, what string, err error, kind share.Kind, why string) {
	t.Helper()
	e, _ := err.(*share.Error)
	if e == nil || e.Kind != kind || e.Metadata["why"] != why {
		t.Errorf("%s: %v, want %s %s", what, err, kind, why)
	}
	if err != nil && strings.Contains(err.Error(), "eyJ") { // how a token begins
		t.Errorf("%s: the error has the token in it: %v", what, err)
	}
}

func TestTokens(t *testing.T) {
	i := issuer.New(t)
	with := func(key string, value any) jwt.MapClaims {
		c := i.Claims("chat")
		if c[key] = value; value == nil {
			delete(c, key)
		}
		return c
	}
	other := issuer.NewKey(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i.Publish("rsa", rsaKey, jwkset.JWKMarshal{KTY: jwkset.KtyOct, KID: "shared", K: "c2VjcmV0"}, jwkset.JWKMarshal{KTY: "new", KID: "unknown type"})
	public, err := x509.MarshalPKIXPublicKey(rsaKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	tokens := tokensOf(t, i)
	now := time.Now()
	tokens.now = func() time.Time { return now }

	for what, token := range map[string]string{
		"a token":                   i.Token("k1", i.Claims("chat")),
		"one of several audiences":  i.Token("k1", with("aud", []string{"other", "files"})),
		"RSA":                       issuer.Sign(t, jwt.SigningMethodRS256, "rsa", rsaKey, i.Claims("chat")),
		"expired within the leeway": i.Token("k1", with("exp", now.Add(-leeway/2).Unix())),
		"claims of other names":     i.Token("k1", with("Sub", "admin")),
	} {
		for range 2 { // the second time from the cache
			if subject, err := tokens.verify(t.Context(), token); err != nil || subject != "chat" {
				t.Errorf("%s: %q, %v", what, subject, err)
			}
		}
	}
	for what, token := range map[string]string{
		"another issuer":         i.Token("k1", with("iss", i.URL()+"/")),
		"no issuer":              i.Token("k1", with("iss", nil)),
		"another audience":       i.Token("k1", with("aud", "file")),
		"no audience":            i.Token("k1", with("aud", nil)),
		"no expiry":              i.Token("k1", with("exp", nil)),
		"not valid yet":          i.Token("k1", with("nbf", time.Now().Add(time.Hour).Unix())),
		"no subject":             i.Token("k1", with("sub", nil)),
		"an empty subject":       i.Token("k1", with("sub", "")),
		"a subject with a line":  i.Token("k1", with("sub", "chat\nbilling")),
		"a long subject":         i.Token("k1", with("sub", strings.Repeat("a", maxSubject+1))),
		"another key":            issuer.Sign(t, jwt.SigningMethodES256, "k1", other, i.Claims("chat")),
		"a key of another type":  issuer.Sign(t, jwt.SigningMethodES256, "rsa", other, i.Claims("chat")),
		"no algorithm":           issuer.Sign(t, jwt.SigningMethodNone, "k1", jwt.UnsafeAllowNoneSignatureType, i.Claims("chat")),
		"a public key as secret": issuer.Sign(t, jwt.SigningMethodHS256, "rsa", publicPEM, i.Claims("chat")),
		"a shared secret":        issuer.Sign(t, jwt.SigningMethodHS256, "shared", []byte("secret"), i.Claims("chat")),
		"no key id, of two keys": issuer.Sign(t, jwt.SigningMethodES256, "", other, i.Claims("chat")),
		"no token":               "eyJ",
		"a changed token":        strings.Replace(i.Token("k1", i.Claims("chat")), ".", ".e30", 1),
	} {
		subject, err := tokens.verify(t.Context(), token)
		if subject != "" {
			t.Errorf("%s: the subject is %q", what, subject)
		}
		wantWhy(t, what, err, share.CallerNotAuthenticated, "invalid")
	}
	_, err = tokens.verify(t.Context(), i.Token("k1", with("exp", time.Now().Add(-2*leeway).Unix())))
	wantWhy(t, "expired", err, share.CallerNotAuthenticated, "expired")
	if n := i.Fetches.Load(); n != 1 {
		t.Errorf("%d fetches of keys, want 1", n)
	}
}

func TestTokens_Header(t *testing.T) {
	i := issuer.New(t)
	id := &Identifier{Tokens: tokensOf(t, i)}
	token := i.Token("k1", i.Claims("chat"))
	for _, scheme := range []string{"Bearer ", "bearer "} {
		if subject, err := id.Tokens.verifyHeader(t.Context(), []string{scheme + token}); err != nil || subject != "chat" {
			t.Errorf("%q: %s, %v", scheme, subject, err)
		}
	}
	for what, values := range map[string][]string{
		"two":            {"Bearer " + token, "Bearer " + token},
		"no scheme":      {token},
		"another scheme": {"Basic " + token},
		"no token":       {"Bearer "},
		"two spaces":     {"Bearer  " + token},
		"too long":       {"Bearer " + strings.Repeat("e", maxToken+1)},
	} {
		_, err := id.Tokens.verifyHeader(t.Context(), values)
		wantWhy(t, what, err, share.CallerNotAuthenticated, "invalid")
	}
	_, err := id.Identify(t.Context())
	wantWhy(t, "no header", err, share.CallerNotAuthenticated, "missing")
}

// A verification is remembered until the token expires, and no longer than a withdrawn key may stay in use.
func TestTokens_CacheExpires(t *testing.T) {
	i := issuer.New(t)
	tokens := tokensOf(t, i)
	now := time.Now()
	tokens.now = func() time.Time { return now }
	short, long := i.Claims("short"), i.Claims("long")
	short["exp"] = now.Add(time.Minute).Unix()
	shortToken, longToken := i.Token("k1", short), i.Token("k1", long)
	verify := func(token string) error {
		_, err := tokens.verify(t.Context(), token)
		return err
	}
	if err := verify(shortToken); err != nil {
		t.Fatal(err)
	}
	if err := verify(longToken); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute + leeway + time.Second)
	wantWhy(t, "after its expiry", verify(shortToken), share.CallerNotAuthenticated, "expired")
	i.Rotate("k2")
	if err := tokens.keys.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := verify(longToken); err != nil {
		t.Errorf("before the cache expires: %v", err)
	}
	now = now.Add(refreshEvery)
	wantWhy(t, "after its key was withdrawn", verify(longToken), share.CallerNotAuthenticated, "invalid")
}

// Concurrent calls with the first tokens of a new key cause one fetch, and none fails.
func TestTokens_Rotation(t *testing.T) {
	i := issuer.New(t)
	tokens := tokensOf(t, i)
	i.Rotate("k2")
	before := i.Fetches.Load()
	var wg sync.WaitGroup
	for n := range 50 {
		token := i.Token("k2", i.Claims(fmt.Sprint("chat", n)))
		wg.Go(func() {
			if _, err := tokens.verify(t.Context(), token); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := i.Fetches.Load() - before; n != 1 {
		t.Errorf("%d fetches, want 1", n)
	}
}

// Forged key ids cause no more fetches than the limit, and keep no valid token from being accepted.
func TestTokens_ForgedKeyIDs(t *testing.T) {
	i := issuer.New(t)
	tokens := tokensOf(t, i)
	forger := issuer.NewKey(t)
	before := i.Fetches.Load()
	for n := range 50 {
		_, err := tokens.verify(t.Context(), issuer.Sign(t, jwt.SigningMethodES256, fmt.Sprint("forged", n), forger, i.Claims("chat")))
		wantWhy(t, "forged", err, share.CallerNotAuthenticated, "invalid")
		if _, err := tokens.verify(t.Context(), i.Token("k1", i.Claims(fmt.Sprint("chat", n)))); err != nil {
			t.Fatal(err)
		}
	}
	if n := i.Fetches.Load() - before; n != unknownBurst {
		t.Errorf("50 forged key ids caused %d fetches, want %d", n, unknownBurst)
	}
	other := i.Claims("chat")
	other["iss"] = "https://other.example"
	fresh := tokensOf(t, i)
	before = i.Fetches.Load()
	_, err := fresh.verify(t.Context(), issuer.Sign(t, jwt.SigningMethodES256, "theirs", forger, other))
	wantWhy(t, "another issuer", err, share.CallerNotAuthenticated, "invalid")
	if n := i.Fetches.Load() - before; n != 0 {
		t.Errorf("a token of another issuer caused %d fetches", n)
	}
}

// Without keys no token is accepted, and the calls may be repeated. What was fetched stays in use while the issuer is unreachable.
func TestTokens_UnreachableIssuer(t *testing.T) {
	i := issuer.New(t)
	for what, fail := range map[string]http.HandlerFunc{
		"an error":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"a redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		"no JSON":    func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"no keys":    func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"keys": []}`) },
		"a huge body": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, strings.Repeat(" ", maxDocument+1), `{"keys": []}`)
		},
	} {
		i.Answer(fail, "")
		tokens := NewTokens(TokensConfig{Issuer: i.URL(), Audience: "files", Log: quiet})
		if err := tokens.keys.refresh(t.Context()); err == nil || tokens.keys.ready() {
			t.Errorf("%s: %v", what, err)
		}
		_, err := tokens.verify(t.Context(), i.Token("k1", i.Claims("chat")))
		wantWhy(t, what, err, share.CallerKeysUnavailable, "")
		tokens.keys.close()
	}
	i.Answer(nil, "https://other.example")
	tokens := NewTokens(TokensConfig{Issuer: i.URL(), Audience: "files", Log: quiet})
	defer tokens.keys.close()
	if err := tokens.keys.refresh(t.Context()); err == nil || !strings.Contains(err.Error(), "other.example") {
		t.Errorf("the discovery document is of another issuer: %v", err)
	}
	i.Answer(nil, "")
	if err := tokens.keys.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	i.Close()
	if err := tokens.keys.refresh(t.Context()); err == nil {
		t.Error("a closed issuer answered")
	}
	if _, err := tokens.verify(t.Context(), i.Token("k1", i.Claims("chat"))); err != nil {
		t.Errorf("with keys from before: %v", err)
	}
	i.Rotate("k2")
	_, err := tokens.verify(t.Context(), i.Token("k2", i.Claims("chat")))
	wantWhy(t, "a new key of an unreachable issuer", err, share.CallerKeysUnavailable, "")
}

func TestTokens_KeysURL(t *testing.T) {
	i := issuer.New(t)
	tokens := NewTokens(TokensConfig{
		Issuer: "https://issuer.example", Audience: "files", KeysURL: i.KeysURL(), Log: quiet,
	})
	defer tokens.keys.close()
	if err := tokens.keys.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	claims := i.Claims("chat")
	claims["iss"] = "https://issuer.example"
	if _, err := tokens.verify(t.Context(), i.Token("k1", claims)); err != nil {
		t.Error(err)
	}
}

func TestCheckURL(t *testing.T) {
	for text, ok := range map[string]bool{
		"https://issuer.example": true, "https://issuer.example/realms/bank": true, "http://127.0.0.1:8080": true, "http://localhost:8080/keys": true,
		"http://issuer.example": false, "issuer.example": false, "": false, "file:///etc/passwd": false, "https://": false,
		"https://user:secret@issuer.example": false, "https://issuer.example/#x": false,
	} {
		if err := CheckURL(text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestOf(t *testing.T) {
	c := policy.Caller{Name: policy.Name{Kind: policy.JWT, Value: "chat"}, Via: policy.ViaJWT}
	if got := Of(With(t.Context(), c)); got != c {
		t.Errorf("got %+v", got)
	}
	if got := Of(context.Background()); got.Authenticated() {
		t.Errorf("without With: %+v", got)
	}
}

func BenchmarkTokens(b *testing.B) {
	i := issuer.New(b)
	tokens := tokensOf(b, i)
	token := i.Token("k1", i.Claims("chat"))
	b.Run("verified before", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := tokens.verify(b.Context(), token); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("new", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			tokens.verified.Purge()
			if _, err := tokens.verify(b.Context(), token); err != nil {
				b.Fatal(err)
			}
		}
	})
}
