package callers

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"github.com/lpfileshare/lpfileshare/internal/netrules"
	"github.com/lpfileshare/lpfileshare/internal/retry"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

const (
	// refreshEvery is the interval of fetches. A key that the issuer has withdrawn is accepted at most twice as long.
	refreshEvery = 5 * time.Minute
	// firstRetry and lastRetry are the limits of the delay after a fetch that failed, while there are no keys.
	firstRetry, lastRetry = time.Second, 30 * time.Second
	// fetchTimeout limits a fetch of the discovery document or of the keys.
	fetchTimeout = 5 * time.Second
	// maxDocument is the maximum size of each, in bytes.
	maxDocument = 1 << 20
	// unknownEvery and unknownBurst limit the fetches that tokens with unknown key ids cause: anyone can make such tokens.
	unknownEvery, unknownBurst = time.Minute, 3
)

var errUnknownKey = errors.New("unknown key")

// keys are the public keys of an issuer.
type keys struct {
	config TokensConfig
	client *http.Client
	limit  *rate.Limiter
	flight singleflight.Group // of fetches for unknown key ids

	current atomic.Pointer[keySet] // nil: none were fetched yet

	ctx    context.Context // of fetches
	cancel context.CancelFunc
	ended  sync.WaitGroup
}

// A keySet is what one fetch returned.
type keySet struct {
	url string // of the JWK Set
	all []publicKey
}

type publicKey struct {
	id, algorithm string // algorithm is empty if the key may be used with any that fits
	key           crypto.PublicKey
}

func newKeys(c TokensConfig) *keys {
	ctx, cancel := context.WithCancel(context.Background())
	return &keys{
		config: c, limit: rate.NewLimiter(rate.Every(unknownEvery), unknownBurst), ctx: ctx, cancel: cancel,
		client: &http.Client{
			Timeout:       fetchTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // a redirect could lead anywhere
			Transport: &http.Transport{
				TLSClientConfig: c.TLS, Proxy: http.ProxyFromEnvironment, MaxResponseHeaderBytes: 64 << 10, MaxConnsPerHost: 2,
				IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
			},
		},
	}
}

// start fetches the keys in the background, until close.
func (k *keys) start() {
	k.ended.Go(func() {
		delay := firstRetry
		for {
			err := k.refresh(k.ctx)
			wait := refreshEvery
			if err != nil && k.ctx.Err() == nil {
				k.config.Log.Error("the keys of --jwt-issuer cannot be fetched; "+k.consequence(), "error", err)
				if !k.ready() {
					wait, delay = delay, min(2*delay, lastRetry)
				}
			}
			if retry.Sleep(k.ctx, wait) != nil {
				return
			}
		}
	})
}

// consequence says what a failed fetch means, for the log.
func (k *keys) consequence() string {
	if k.ready() {
		return "those fetched before stay in use"
	}
	return "until then calls with tokens are UNAVAILABLE"
}

func (k *keys) close() {
	k.cancel()
	k.ended.Wait()
	_, _, _ = k.flight.Do("", func() (any, error) { return nil, nil }) // waits for a fetch that runs
	k.client.CloseIdleConnections()
}

func (k *keys) ready() bool { return k.current.Load() != nil }

// find returns the key of a token's header. If the id is unknown, it fetches the keys once for all callers that wait, within the limit.
func (k *keys) find(ctx context.Context, id, algorithm string) (crypto.PublicKey, error) {
	set := k.current.Load()
	if set == nil {
		return nil, errNoKeys()
	}
	if key, ok := set.find(id, algorithm); ok {
		return key, nil
	}
	if id == "" {
		return nil, errUnknownKey
	}
	done := k.flight.DoChan("", func() (any, error) {
		if k.current.Load() != set { // another call has fetched them meanwhile
			return nil, nil
		}
		if !k.limit.Allow() {
			return nil, errUnknownKey // they were fetched a moment ago, and it was not among them
		}
		return nil, k.fetch(k.ctx, set.url)
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case result := <-done:
		if result.Err != nil && !errors.Is(result.Err, errUnknownKey) {
			k.config.Log.Warn("the keys of --jwt-issuer cannot be fetched for a token with an unknown key", "error", result.Err)
			return nil, errNoKeys()
		}
	}
	if key, ok := k.current.Load().find(id, algorithm); ok {
		return key, nil
	}
	return nil, errUnknownKey
}

func errNoKeys() error {
	return share.Reject(share.CallerKeysUnavailable, "the server cannot fetch the keys to verify the bearer token with; retry the call")
}

// find returns the key with an id; without an id the only one that fits the algorithm.
func (s *keySet) find(id, algorithm string) (found crypto.PublicKey, ok bool) {
	for _, k := range s.all {
		if k.algorithm != "" && k.algorithm != algorithm || id != "" && k.id != id {
			continue
		}
		if id != "" {
			return k.key, true
		}
		if ok {
			return nil, false
		}
		found, ok = k.key, true
	}
	return found, ok
}

// refresh finds the URL of the keys, and fetches them.
func (k *keys) refresh(ctx context.Context) error {
	at := k.config.KeysURL
	if at == "" {
		var err error
		if at, err = k.discover(ctx); err != nil {
			return err
		}
	}
	return k.fetch(ctx, at)
}

// discover reads the issuer's discovery document.
func (k *keys) discover(ctx context.Context) (string, error) {
	var document struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := k.get(ctx, strings.TrimSuffix(k.config.Issuer, "/")+"/.well-known/openid-configuration", &document); err != nil {
		return "", fmt.Errorf("discovery document: %w", err)
	}
	if document.Issuer != k.config.Issuer {
		return "", fmt.Errorf("the discovery document is of the issuer %.200q; set --jwt-issuer to the same text, or --jwt-keys", document.Issuer)
	}
	if err := CheckURL(document.Keys); err != nil {
		return "", fmt.Errorf("jwks_uri of the discovery document: %w", err)
	}
	return document.Keys, nil
}

// CheckURL rejects a URL of an issuer or of its keys unless it is https, or http on loopback.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" && (u.Scheme != "http" || !netrules.IsLoopback(u.Hostname())) {
		return fmt.Errorf("%.200q is not https://HOST/PATH", text)
	}
	return nil
}

// fetch replaces the keys by those at a URL. Keys of unknown types, and symmetric ones, are left out.
func (k *keys) fetch(ctx context.Context, at string) error {
	var document jwkset.JWKSMarshal
	if err := k.get(ctx, at, &document); err != nil {
		return fmt.Errorf("JWK Set: %w", err)
	}
	set := &keySet{url: at}
	for _, marshaled := range document.Keys {
		if marshaled.USE != "" && marshaled.USE != jwkset.UseSig {
			continue
		}
		jwk, err := jwkset.NewJWKFromMarshal(marshaled, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
		if err != nil {
			continue
		}
		set.all = append(set.all, publicKey{id: marshaled.KID, algorithm: string(marshaled.ALG), key: jwk.Key()})
	}
	if len(set.all) == 0 {
		return errors.New("JWK Set: it has no public key for signatures")
	}
	if k.current.Swap(set) == nil {
		k.config.Log.Info("the keys of --jwt-issuer were fetched", slog.Int("keys", len(set.all)))
		if k.config.Available != nil {
			k.config.Available()
		}
	}
	return nil
}

// get reads a JSON document.
func (k *keys) get(ctx context.Context, at string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return netrules.SafeError(err)
	}
	request.Header.Set("Accept", "application/json")
	answer, err := k.client.Do(request)
	if err != nil {
		return netrules.SafeError(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("the answer has the status %d; redirects are not followed", answer.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxDocument+1))
	if err != nil {
		return netrules.SafeError(err)
	}
	if len(body) > maxDocument {
		return fmt.Errorf("the answer has more than %d bytes", maxDocument)
	}
	if json.Unmarshal(body, into) != nil {
		return errors.New("the answer is not the expected JSON")
	}
	return nil
}
