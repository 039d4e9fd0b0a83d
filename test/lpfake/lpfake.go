// Package lpfake is a LivePerson for tests of failures: an HTTP server with one response per path, which a test sets. Package
// internal/sandbox plays a LivePerson that works.
package lpfake

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// Account is the account that a Server knows.
const Account = "12345678"

// A Request is a request that a Server received.
type Request struct {
	Method, Target string
	Header         http.Header
	Body           string
}

// A Server responds to each path as the test sets it, and with 404 to others. As the Domain API it names itself as the host of
// every service.
type Server struct {
	*httptest.Server

	mu        sync.Mutex
	responses map[string]http.HandlerFunc // by path
	requests  []Request
}

// New returns a Server that serves plain HTTP until the end of the test.
func New(t testing.TB) *Server { return start(t, httptest.NewServer) }

// NewTLS returns a Server that serves HTTPS until the end of the test.
func NewTLS(t testing.TB) *Server { return start(t, httptest.NewTLSServer) }

func start(t testing.TB, serve func(http.Handler) *httptest.Server) *Server {
	s := &Server{responses: map[string]http.HandlerFunc{}}
	s.Server = serve(s)
	t.Cleanup(s.Close)
	return s
}

// Host returns the server's host:port.
func (s *Server) Host() string { return s.Listener.Addr().String() }

// On sets the response to a path under /api/account/{Account}; nil removes it.
func (s *Server) On(path string, respond http.HandlerFunc) {
	s.OnPath("/api/account/"+Account+path, respond)
}

// OnPath sets the response to a whole path.
func (s *Server) OnPath(path string, respond http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.responses[path] = respond
}

// Says responds with a status and a body.
func Says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// ServeHTTP records the request and responds.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.requests = append(s.requests, Request{r.Method, r.URL.RequestURI(), r.Header, string(body)})
	respond := s.responses[r.URL.Path]
	s.mu.Unlock()
	service, isLookup := strings.CutSuffix(r.URL.Path, "/baseURI.json")
	switch {
	case respond != nil:
		respond(w, r)
	case isLookup:
		fmt.Fprintf(w, `{"service":%q,"account":%q,"baseURI":%q}`, service[strings.LastIndex(service, "/")+1:], Account, s.Host())
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// Requests returns the requests so far, without look-ups, and forgets all of them.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	var rest []Request
	for _, r := range s.requests {
		if !strings.Contains(r.Target, "/baseURI.json") {
			rest = append(rest, r)
		}
	}
	s.requests = nil
	return rest
}

// Lookups returns the number of look-ups of a service.
func (s *Server) Lookups(service string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		if strings.Contains(r.Target, "/service/"+service+"/baseURI.json?version=1.0") {
			n++
		}
	}
	return n
}

// JWT returns a token with the form of LivePerson's and a meaningless signature.
func JWT(claims map[string]any) string {
	body, _ := json.Marshal(claims)
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"kid":"k","typ":"JWT","alg":"RS256"}`)) + "." + enc(body) + "." + enc([]byte("signature"))
}
