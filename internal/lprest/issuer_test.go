package lprest

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
	"github.com/lpfileshare/lpfileshare/test/lpfake"
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

// issued returns IssuedTokens and its issuer, which the test may change.
func issued(t *testing.T, c *Client) (*IssuedTokens, *Issuer) {
	t.Helper()
	i := &Issuer{Name: "https://brand.example.com", KeyID: "k1", Key: issuerKeys()[0], Lifetime: time.Hour}
	tokens, err := NewIssuedTokens(c, func(account string) (Issuer, bool) { return *i, account == lpfake.Account })
	if err != nil {
		t.Fatal(err)
	}
	return tokens, i
}

func TestIssuer_Sign(t *testing.T) {
	clk := newClock()
	i := Issuer{Name: "https://brand.example.com", KeyID: "k1", Key: issuerKeys()[0], Lifetime: 10 * time.Minute}
	text, err := i.Sign(lpfake.Account, "c-4711", clk.Now())
	if err != nil {
		t.Fatal(err)
	}
	claims := jwt.MapClaims{}
	token, err := jwt.ParseWithClaims(text, claims, func(*jwt.Token) (any, error) { return issuerKeys()[0].Public(), nil },
		jwt.WithValidMethods([]string{"RS256"}), jwt.WithIssuer(i.Name), jwt.WithAudience("acc:"+lpfake.Account), jwt.WithSubject("c-4711"),
		jwt.WithIssuedAt(), jwt.WithExpirationRequired(), jwt.WithTimeFunc(clk.Now))
	if err != nil || token.Header["kid"] != "k1" || token.Header["typ"] != "JWT" {
		t.Errorf("%v, %v", token, err)
	}
	if life := claims["exp"].(float64) - claims["iat"].(float64); life != 600 {
		t.Errorf("the lifetime is %v s", life)
	}
	i.KeyID = ""
	text, err = i.Sign(lpfake.Account, "c-4711", clk.Now())
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

// exchanges responds to /authenticate with numbered tokens, and counts them.
type exchanges struct {
	clk     *clock
	life    time.Duration
	mu      sync.Mutex
	n       int
	status  int           // instead of a token, unless 0
	entered chan struct{} // gets one element per request, unless nil
	block   chan struct{}
}

func (e *exchanges) answer(w http.ResponseWriter, _ *http.Request) {
	e.mu.Lock()
	e.n++
	n, status, entered, block := e.n, e.status, e.entered, e.block
	e.mu.Unlock()
	if entered != nil {
		entered <- struct{}{}
	}
	if block != nil {
		<-block
	}
	if status != 0 {
		w.WriteHeader(status)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]string{"jwt": lpfake.JWT(map[string]any{"sub": fmt.Sprintf("s%d", n), "exp": e.clk.Now().Add(e.life).Unix()})})
}

func (e *exchanges) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.n
}

func TestIssuedTokens_Cache(t *testing.T) {
	clk := newClock()
	f := lpfake.New(t)
	e := &exchanges{clk: clk, life: time.Hour}
	f.On("/authenticate", e.answer)
	tokens, issuer := issued(t, newClient(t, Config{DomainAPI: f.URL, PlainHTTP: true, Now: clk.Now}))
	get := func(customer, instead string) string {
		t.Helper()
		in, err := tokens.Token(t.Context(), lpfake.Account, customer, instead)
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
		t.Error("another token, although the first is valid")
	}
	wantCount(1, "the same again")
	get("b", "")
	wantCount(2, "another customer")
	second := get("a", first)
	if second == first {
		t.Error("the rejected token")
	}
	if get("a", first) != second {
		t.Error("a second caller with the same rejected token got another one")
	}
	wantCount(3, "a rejected token")
	clk.pass(44 * time.Minute)
	get("a", "")
	wantCount(3, "in its first three quarters")
	clk.pass(8 * time.Minute)
	third := get("a", "")
	wantCount(4, "in its last quarter")

	// LivePerson is unavailable: a valid token is used, but not the rejected one.
	clk.pass(52 * time.Minute)
	e.mu.Lock()
	e.status = 503
	e.mu.Unlock()
	if get("a", "") != third {
		t.Error("not the token that is still valid")
	}
	_, err := tokens.Token(t.Context(), lpfake.Account, "a", third)
	wantKind(t, "the last one was rejected", err, share.LPUnavailable)
	clk.pass(10 * time.Minute)
	_, err = tokens.Token(t.Context(), lpfake.Account, "a", "")
	wantKind(t, "after it has expired", err, share.LPUnavailable)
	e.mu.Lock()
	e.status = 0
	e.mu.Unlock()

	// Tokens obtained with another key are not used.
	last := get("a", "")
	issuer.Key = issuerKeys()[1]
	if get("a", "") == last {
		t.Error("the token obtained with the other key")
	}
	_, err = tokens.Token(t.Context(), "87654321", "a", "")
	wantKind(t, "an account without issuer", err, share.IdentityNotConfigured)
}

func TestIssuedTokens_ConcurrentCalls(t *testing.T) {
	clk := newClock()
	f := lpfake.New(t)
	e := &exchanges{clk: clk, life: time.Hour, entered: make(chan struct{}, 50), block: make(chan struct{})}
	f.On("/authenticate", e.answer)
	tokens, _ := issued(t, newClient(t, Config{DomainAPI: f.URL, PlainHTTP: true, Now: clk.Now}))
	var callers, started sync.WaitGroup
	started.Add(50)
	for range 50 {
		callers.Go(func() {
			started.Done()
			if _, err := tokens.Token(t.Context(), lpfake.Account, "a", ""); err != nil {
				t.Error(err)
			}
		})
	}
	started.Wait()
	<-e.entered
	close(e.block)
	callers.Wait()
	if n := e.count(); n != 1 {
		t.Errorf("%d exchanges for fifty callers", n)
	}
	for i := range keptTokens + 100 {
		tokens.known.Add(customerKey{lpfake.Account, fmt.Sprint(i), ""}, issuedToken{})
	}
	if n := tokens.known.Len(); n != keptTokens {
		t.Errorf("%d tokens are cached", n)
	}
}

func TestSandbox_Issuer(t *testing.T) {
	brand := sandbox.Brand{Issuer: "https://brand.example.com", Key: issuerKeys()[0].Public()}
	eachSandbox(t, sandbox.Options{Brands: map[string]sandbox.Brand{lpfake.Account: brand}}, func(t *testing.T, sb *sandbox.Sandbox, c *Client) {
		tokens, issuer := issued(t, c)
		a, err := tokens.Token(t.Context(), lpfake.Account, "a", "")
		wantKind(t, "the right key", err, "")
		again, err := tokens.Token(t.Context(), lpfake.Account, "a", a.Token)
		wantKind(t, "again", err, "")
		b, err := tokens.Token(t.Context(), lpfake.Account, "b", "")
		wantKind(t, "another customer", err, "")
		if a.ID == "" || again.ID != a.ID || b.ID == a.ID || a.Expires.IsZero() {
			t.Errorf("%q, again %q, and %q; expires %v", a.ID, again.ID, b.ID, a.Expires)
		}
		issuer.Key = issuerKeys()[1]
		_, err = tokens.Token(t.Context(), lpfake.Account, "a", "")
		wantKind(t, "another key", err, share.LPCredentialsRejected)
		issuer.Key, issuer.Name = issuerKeys()[0], "https://other.example.com"
		_, err = tokens.Token(t.Context(), lpfake.Account, "a", "")
		wantKind(t, "another issuer", err, share.LPCredentialsRejected)
	})
}
