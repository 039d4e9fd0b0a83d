package lpapi

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

var issuerKeys = sync.OnceValue(func() (keys [2]*rsa.PrivateKey) {
	for i := range keys {
		var err error
		if keys[i], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			panic(err)
		}
	}
	return keys
})

// issued makes IssuedTokens whose issuer can be changed.
func issued(t *testing.T, c *Client) (*IssuedTokens, *Issuer) {
	t.Helper()
	i := &Issuer{Name: "https://brand.example.com", KeyID: "k1", Key: issuerKeys()[0], Lifetime: time.Hour}
	tokens, err := NewIssuedTokens(c, func(account string) (Issuer, bool) { return *i, account == testAccount })
	if err != nil {
		t.Fatal(err)
	}
	return tokens, i
}

func TestAnIssuersJWTSaysWhatLivePersonWantsToRead(t *testing.T) {
	clk := newClock()
	i := Issuer{Name: "https://brand.example.com", KeyID: "k1", Key: issuerKeys()[0], Lifetime: 10 * time.Minute}
	text, err := i.Sign(testAccount, "c-4711", clk.Now())
	if err != nil {
		t.Fatal(err)
	}
	claims := jwt.MapClaims{}
	token, err := jwt.ParseWithClaims(text, claims, func(*jwt.Token) (any, error) { return issuerKeys()[0].Public(), nil },
		jwt.WithValidMethods([]string{"RS256"}), jwt.WithIssuer(i.Name), jwt.WithAudience("acc:"+testAccount), jwt.WithSubject("c-4711"),
		jwt.WithIssuedAt(), jwt.WithExpirationRequired(), jwt.WithTimeFunc(clk.Now))
	if err != nil || token.Header["kid"] != "k1" || token.Header["typ"] != "JWT" {
		t.Errorf("%v, %v", token, err)
	}
	if life := claims["exp"].(float64) - claims["iat"].(float64); life != 600 {
		t.Errorf("it lives for %v s", life)
	}
	i.KeyID = ""
	text, err = i.Sign(testAccount, "c-4711", clk.Now())
	if err != nil {
		t.Fatal(err)
	}
	if token, _, err = jwt.NewParser().ParseUnverified(text, claims); err != nil || token.Header["kid"] != nil {
		t.Errorf("without a key id: %v, %v", token.Header, err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(verb, i); strings.Contains(s, issuerKeys()[0].D.String()) {
			t.Errorf("%s shows the key", verb)
		}
	}
}

// exchanges answers /authenticate with tokens of a lifetime, numbered, and counts.
type exchanges struct {
	clk    *clock
	life   time.Duration
	mu     sync.Mutex
	n      int
	status int // instead of a token, unless 0
	block  chan struct{}
}

func (e *exchanges) answer(w http.ResponseWriter, _ *http.Request) {
	e.mu.Lock()
	e.n++
	n, status, block := e.n, e.status, e.block
	e.mu.Unlock()
	if block != nil {
		<-block
	}
	if status != 0 {
		w.WriteHeader(status)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]string{"jwt": testJWT(map[string]any{"sub": fmt.Sprintf("s%d", n), "exp": e.clk.Now().Add(e.life).Unix()})})
}

func (e *exchanges) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.n
}

func TestIssuedTokensAreKeptWhileTheyAreGood(t *testing.T) {
	clk := newClock()
	f := newFakeLP(t)
	e := &exchanges{clk: clk, life: time.Hour}
	f.on("/authenticate", e.answer)
	tokens, issuer := issued(t, newClient(t, Config{DomainAPI: f.URL, PlainHTTP: true, Now: clk.Now}))
	get := func(customer, instead string) string {
		t.Helper()
		in, err := tokens.Token(t.Context(), testAccount, customer, instead)
		if err != nil {
			t.Fatal(err)
		}
		return in.Token
	}
	wantCount := func(n int, what string) {
		t.Helper()
		if got := e.count(); got != n {
			t.Errorf("%s: %d exchanges, want %d", what, got, n)
		}
	}
	first := get("a", "")
	if get("a", "") != first {
		t.Error("another token, though the first is good")
	}
	wantCount(1, "the same again")
	get("b", "")
	wantCount(2, "another customer")
	second := get("a", first)
	if second == first {
		t.Error("the token that was not wanted")
	}
	if get("a", first) != second {
		t.Error("who comes late with the same wish gets yet another")
	}
	wantCount(3, "instead of one")
	clk.pass(44 * time.Minute)
	get("a", "")
	wantCount(3, "in its first three quarters")
	clk.pass(8 * time.Minute)
	third := get("a", "")
	wantCount(4, "in its last quarter")

	// LivePerson is away: one that lives yet will do, but for the one that is not wanted.
	clk.pass(52 * time.Minute)
	e.mu.Lock()
	e.status = 503
	e.mu.Unlock()
	if get("a", "") != third {
		t.Error("not the one that lives")
	}
	_, err := tokens.Token(t.Context(), testAccount, "a", third)
	wantKind(t, "instead of the last one", err, share.LPUnavailable)
	clk.pass(10 * time.Minute)
	_, err = tokens.Token(t.Context(), testAccount, "a", "")
	wantKind(t, "when it has ended", err, share.LPUnavailable)
	e.mu.Lock()
	e.status = 0
	e.mu.Unlock()

	// What another key vouched for is not used.
	last := get("a", "")
	issuer.Key = issuerKeys()[1]
	if get("a", "") == last {
		t.Error("the token that the other key got")
	}
	_, err = tokens.Token(t.Context(), "87654321", "a", "")
	wantKind(t, "an account without issuer", err, share.IdentityNotConfigured)
}

func TestIssuedTokensAreGotOnceForManyAndRememberedForFew(t *testing.T) {
	clk := newClock()
	f := newFakeLP(t)
	e := &exchanges{clk: clk, life: time.Hour, block: make(chan struct{})}
	f.on("/authenticate", e.answer)
	tokens, _ := issued(t, newClient(t, Config{DomainAPI: f.URL, PlainHTTP: true, Now: clk.Now}))
	var callers sync.WaitGroup
	for range 50 {
		callers.Go(func() {
			if _, err := tokens.Token(t.Context(), testAccount, "a", ""); err != nil {
				t.Error(err)
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	close(e.block)
	callers.Wait()
	if n := e.count(); n != 1 {
		t.Errorf("%d exchanges for fifty callers", n)
	}
	for i := range keptTokens + 100 {
		tokens.known.Add(customerKey{testAccount, fmt.Sprint(i), ""}, issuedToken{})
	}
	if n := tokens.known.Len(); n != keptTokens {
		t.Errorf("%d tokens are remembered", n)
	}
}

func TestLivePersonKnowsAnIssuerByItsKey(t *testing.T) {
	brand := sandbox.Brand{Issuer: "https://brand.example.com", Key: issuerKeys()[0].Public()}
	eachSandbox(t, sandbox.Options{Brands: map[string]sandbox.Brand{testAccount: brand}}, func(t *testing.T, sb *sandbox.Sandbox, c *Client) {
		tokens, issuer := issued(t, c)
		a, err := tokens.Token(t.Context(), testAccount, "a", "")
		wantKind(t, "the right key", err, "")
		again, err := tokens.Token(t.Context(), testAccount, "a", a.Token)
		wantKind(t, "again", err, "")
		b, err := tokens.Token(t.Context(), testAccount, "b", "")
		wantKind(t, "another customer", err, "")
		if a.ID == "" || again.ID != a.ID || b.ID == a.ID || a.Expires.IsZero() {
			t.Errorf("%q, again %q, and %q; expires %v", a.ID, again.ID, b.ID, a.Expires)
		}
		issuer.Key = issuerKeys()[1]
		_, err = tokens.Token(t.Context(), testAccount, "a", "")
		wantKind(t, "another key", err, share.LPCredentialsRejected)
		issuer.Key, issuer.Name = issuerKeys()[0], "https://other.example.com"
		_, err = tokens.Token(t.Context(), testAccount, "a", "")
		wantKind(t, "another issuer", err, share.LPCredentialsRejected)
	})
}
