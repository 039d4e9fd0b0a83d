// Package liveperson is a stand-in for LivePerson's Conversational Cloud: domain look-up, login, site properties, the identity
// provider, and the sockets of consumers and agents with their conversations. Package connector adds the Connector API.
package liveperson

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/fault"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/feed"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/journal"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/jsonhttp"
)

// Options configure a Service. Every field is required unless its comment says otherwise; sandbox.Options documents those that
// have the same name there.
type Options struct {
	Accounts            []string
	AdminUser, Password string
	URLLifetime         time.Duration
	TokenLifetime       time.Duration
	BearerLifetime      time.Duration
	OneLogin            bool
	Brands              map[string]Brand // optional
	MaxFileSize         int64
	FileSharingOff      bool
	SignAnyPath         bool
	AutoAssign          bool
	IdleTimeout         time.Duration
	InitTimeout         time.Duration
	OnFrame             func(Frame) // optional
	Logger              *slog.Logger
	Now                 func() time.Time

	Faults  *fault.Set
	Journal *journal.Recorder
	Feed    *feed.Feed // gets the frames; optional
	// Store keeps the files.
	Store Store
	// RemoteStore says that Store.Exists takes time. Publishes are then processed in the background, so that they do not hold up
	// other requests on the same socket.
	RemoteStore bool
	// Domain returns the host and port of a service.
	Domain func(service string) string
	// Listener returns the Listener for the new conversations of a consumer, or nil. It must not block.
	Listener func(account, consumer string) Listener
	// Signer signs the tokens of consumers.
	Signer *Signer
	// MaxQueued is the number of bytes that may wait for a client that does not read; a socket that exceeds it is reset.
	MaxQueued int
}

// A Store keeps the files of all accounts.
type Store interface {
	// Sign returns the parameters of a signed URL.
	Sign(method, path string, expires time.Time) (sig, exp string)
	// Exists reports whether an object is stored at path.
	Exists(ctx context.Context, path string) (bool, error)
}

// A Listener is notified of what happens in a conversation.
type Listener interface {
	// Notify reports an event of a type to which a webhook can subscribe. sequence is nil if the event has none; body returns the
	// notification. Calls for a conversation are in the order of its events. Notify must not block.
	Notify(conversation, event string, sequence *int, body func() []byte)
}

// A Service is a running LivePerson. Its methods may be called from any goroutine.
type Service struct {
	opts    Options
	log     *slog.Logger
	now     func() time.Time
	ctx     context.Context // ends when the sandbox closes
	sockets *sockets
	patrol  sync.WaitGroup

	mu        sync.Mutex // guards the fields below and everything reachable from them; never held during I/O
	accounts  map[string]*account
	sessions  map[string]*session   // by bearer
	anonymous map[string]*anonymous // by external token
}

// New returns a Service that runs until ctx ends.
func New(ctx context.Context, opts Options) *Service {
	s := &Service{
		opts:      opts,
		log:       opts.Logger,
		now:       opts.Now,
		ctx:       ctx,
		sockets:   newSockets(),
		accounts:  map[string]*account{},
		sessions:  map[string]*session{},
		anonymous: map[string]*anonymous{},
	}
	for _, id := range opts.Accounts {
		s.accounts[id] = newAccount(id, !opts.FileSharingOff)
	}
	s.patrol.Go(s.endExpiredSockets)
	return s
}

// Register adds LivePerson's endpoints to mux.
func (s *Service) Register(mux *http.ServeMux) {
	domains, login, properties, idp := domains{s}, loginService{s}, properties{s}, identityProvider{s}

	domains.register(mux)

	mux.HandleFunc("POST /api/account/{account}/login", s.endpoint("http:login", login.logIn))
	mux.HandleFunc("POST /api/account/{account}/refresh", s.endpoint("http:refresh", login.refresh))
	mux.HandleFunc("POST /api/account/{account}/logout", s.endpoint("http:logout", login.logOut))

	const path = "/api/account/{account}/configuration/setting/properties"
	mux.HandleFunc("GET "+path, s.endpoint("http:property", properties.readAll))
	mux.HandleFunc("GET "+path+"/{property}", s.endpoint("http:property", properties.read))
	mux.HandleFunc("PUT "+path+"/{property}", s.endpoint("http:property", properties.write))
	// The script in LivePerson's documentation omits the id in the path and names it in the body only.
	mux.HandleFunc("PUT "+path+"/{$}", s.endpoint("http:property", properties.write))

	s.public(mux, "POST", "/api/account/{account}/signup", "http:signup", idp.signUp)
	s.public(mux, "GET", "/api/account/{account}/signup.jsonp", "http:signup", idp.signUp)
	s.public(mux, "POST", "/api/account/{account}/anonymous/authorize", "http:authorize", idp.authorizeAnonymous)
	s.public(mux, "POST", "/api/account/{account}/app/{connector}/authenticate", "http:authenticate", idp.authenticateApp)
	s.public(mux, "POST", "/api/account/{account}/authenticate", "http:authenticate", idp.authenticate)

	s.public(mux, "GET", "/api/account/{account}/configuration/le-users/users/{agent}", "http:users", s.publicProfile)

	mux.HandleFunc("GET /ws_api/account/{account}/messaging/consumer", s.upgradeConsumer)
	mux.HandleFunc("GET /ws_api/account/{account}/messaging/consumer/{token}", s.upgradeConsumer)
	mux.HandleFunc("GET /ws_api/account/{account}/messaging/brand/{bearer}", s.upgradeBrand)
}

// DropSockets ends every open socket, with a close frame of closeCode, or with a TCP reset if that is 0, and returns how many
// there were. It does not wait until they have ended.
func (s *Service) DropSockets(closeCode int) int {
	return s.endSockets(closeCode, "dropped by the sandbox")
}

func (s *Service) endSockets(closeCode int, reason string) int {
	open := s.sockets.all()
	for _, k := range open {
		if closeCode == 0 {
			k.cut()
		} else {
			k.shut(closeCode, reason)
		}
	}
	return len(open)
}

// Sockets returns the number of open sockets.
func (s *Service) Sockets() int { return s.sockets.count() }

// CloseSockets begins to close all sockets. Call it after the context has ended, when no new ones are accepted.
func (s *Service) CloseSockets() { s.endSockets(closeGoingAway, "the sandbox closes") }

// Wait returns when the background work has ended. The caller must first have ended the context and all requests.
func (s *Service) Wait() { s.patrol.Wait() }

// account returns the account with that id, or nil. The set of accounts never changes.
func (s *Service) account(id string) *account { return s.accounts[id] }

// endpoint wraps an HTTP endpoint with the faults for on.
func (s *Service) endpoint(on string, serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f, _ := s.opts.Faults.Take(on)
		fault.Serve(f, w, r, func(w http.ResponseWriter, r *http.Request) {
			if f.Status == 0 {
				serve(w, r)
				return
			}
			failOnDemand(w, f)
		})
	}
}

// failOnDemand answers with the status of a fault.
func failOnDemand(w http.ResponseWriter, f fault.Fault) {
	if f.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(f.RetryAfter))
	}
	jsonhttp.Fail(w, f.Status, "made on demand")
}

// patrolInterval is the maximum delay with which an expired socket is closed.
const patrolInterval = 50 * time.Millisecond

// endExpiredSockets closes sockets that are idle, not identified in time, or whose token has expired.
func (s *Service) endExpiredSockets() {
	tick := time.NewTicker(patrolInterval)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
			now := s.now()
			for _, k := range s.sockets.all() {
				k.endIfExpired(now)
			}
		}
	}
}

// schemeToken returns the token of an Authorization header with that scheme, in any case.
func schemeToken(r *http.Request, scheme string) (string, bool) {
	given, token, ok := strings.Cut(strings.TrimSpace(r.Header.Get("Authorization")), " ")
	if !ok || !strings.EqualFold(given, scheme) {
		return "", false
	}
	token = strings.TrimSpace(token)
	return token, token != ""
}

// hexString returns n random bytes as 2n hexadecimal digits.
func hexString(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
