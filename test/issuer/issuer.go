// Package issuer issues bearer tokens of services for tests, and serves the keys to verify them, as an OpenID Connect provider does.
package issuer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

// Audience is the audience of Claims.
const Audience = "files"

// An Issuer signs tokens with ES256. It is safe for concurrent use.
type Issuer struct {
	// Fetches is the number of requests for the keys.
	Fetches atomic.Int64

	tb     testing.TB
	server *httptest.Server

	mu   sync.Mutex
	keys map[string]crypto.Signer
	more []jwkset.JWKMarshal
	fail http.HandlerFunc
	name string
}

// New starts an Issuer with the key "k1". It ends with the test.
func New(tb testing.TB) *Issuer {
	tb.Helper()
	i := &Issuer{tb: tb}
	i.server = httptest.NewServer(http.HandlerFunc(i.serve))
	tb.Cleanup(i.server.Close)
	i.Rotate("k1")
	return i
}

// URL is the issuer's name, below which it serves the discovery document.
func (i *Issuer) URL() string { return i.server.URL }

// KeysURL is the URL of its JWK Set.
func (i *Issuer) KeysURL() string { return i.server.URL + "/keys" }

// Close makes it unreachable.
func (i *Issuer) Close() { i.server.Close() }

func (i *Issuer) serve(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if r.URL.Path != "/keys" {
		name := i.name
		if name == "" {
			name = i.URL()
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": name, "jwks_uri": i.KeysURL()})
		return
	}
	i.Fetches.Add(1)
	if i.fail != nil {
		i.fail(w, r)
		return
	}
	set := jwkset.JWKSMarshal{Keys: i.more}
	for id, key := range i.keys {
		jwk, err := jwkset.NewJWKFromKey(key.Public(), jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: id, USE: jwkset.UseSig}})
		if err != nil {
			i.tb.Error(err)
		}
		set.Keys = append(set.Keys, jwk.Marshal())
	}
	_ = json.NewEncoder(w).Encode(set)
}

// Answer makes requests for keys answered by fail, nil: by the keys, and the discovery document name an issuer, empty: this one.
func (i *Issuer) Answer(fail http.HandlerFunc, name string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fail, i.name = fail, name
}

// Rotate replaces all keys by a new one.
func (i *Issuer) Rotate(id string) {
	key := NewKey(i.tb)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = map[string]crypto.Signer{id: key}
}

// Publish adds a key, and others that are published as they are.
func (i *Issuer) Publish(id string, key crypto.Signer, more ...jwkset.JWKMarshal) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys[id] = key
	i.more = append(i.more, more...)
}

// Withdraw removes a key.
func (i *Issuer) Withdraw(id string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.keys, id)
}

// NewKey returns a key that nobody publishes.
func NewKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// Claims returns the claims of a valid token.
func (i *Issuer) Claims(subject string) jwt.MapClaims {
	return jwt.MapClaims{"iss": i.URL(), "aud": Audience, "sub": subject, "exp": time.Now().Add(time.Hour).Unix()}
}

// Token signs claims with a key of the issuer.
func (i *Issuer) Token(id string, claims jwt.MapClaims) string {
	i.tb.Helper()
	i.mu.Lock()
	key := i.keys[id]
	i.mu.Unlock()
	return Sign(i.tb, jwt.SigningMethodES256, id, key, claims)
}

// Sign signs claims with any key. Without an id the token names no key.
func Sign(tb testing.TB, method jwt.SigningMethod, id string, key any, claims jwt.MapClaims) string {
	tb.Helper()
	token := jwt.NewWithClaims(method, claims)
	if id != "" {
		token.Header["kid"] = id
	}
	text, err := token.SignedString(key)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}
