package sandbox

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/httpguard"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/fault"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/feed"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/jsonhttp"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/liveperson"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/page"
)

// A Gateway is the server in front of the sandbox, with which the console page sends files.
type Gateway struct {
	// Handler serves /lpfileshare.v1.SERVICE/METHOD in Connect's protocol with JSON. It may be nil: the page then only shows what
	// happens.
	Handler http.Handler
	// Address is the server's gRPC address, and TLS reports whether clients must use TLS. The page puts them in commands to copy.
	Address string
	TLS     bool
	// Version is the server's.
	Version string
}

// gatewayPrefix is how the paths of the gateway's methods begin.
const gatewayPrefix = "/lpfileshare.v1."

// SetGateway makes the gateway known to the console page.
func (s *Sandbox) SetGateway(g Gateway) { s.gateway.Store(&g) }

// registerPage adds the console page and the endpoints that only it needs.
func (s *Sandbox) registerPage(outer, admin *http.ServeMux) {
	// No check of Sec-Fetch-Site: a link on any page may lead here.
	outer.Handle("GET /{$}", httpguard.LoopbackHost(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page.ServeFile(w, r, "index.html")
	})))
	admin.HandleFunc("GET /_sandbox/page/{file}", func(w http.ResponseWriter, r *http.Request) { page.ServeFile(w, r, r.PathValue("file")) })
	admin.HandleFunc("GET /_sandbox/info", s.adminInfo)
	admin.HandleFunc("GET /_sandbox/faults/places", s.adminPlaces)
	admin.HandleFunc("GET /_sandbox/conversations", s.adminConversations)
	admin.HandleFunc("GET /_sandbox/conversations/{id}", s.adminConversation)
	admin.HandleFunc("GET /_sandbox/objects/{path...}", s.adminObject)
}

// serveGateway passes a call of the console page to the gateway.
func (s *Sandbox) serveGateway(w http.ResponseWriter, r *http.Request) {
	if g := s.gateway.Load(); g != nil && g.Handler != nil {
		g.Handler.ServeHTTP(w, r)
		return
	}
	http.Error(w, "no server is in front of this sandbox in the same process", http.StatusNotFound)
}

// adminInfo answers GET /_sandbox/info with what the page must know. The password is the one that every agent of the sandbox has and
// that the server's first line of the log prints.
func (s *Sandbox) adminInfo(w http.ResponseWriter, _ *http.Request) {
	info := struct {
		Accounts    []string `json:"accounts"`
		User        string   `json:"user"`
		Password    string   `json:"password"`
		URLLifetime string   `json:"urlLifetime"`
		MaxFileSize int64    `json:"maxFileSize"`
		// Now is the sandbox's time, for the remaining time of URLs.
		Now     time.Time `json:"now"`
		Sends   bool      `json:"sends"` // whether files can be sent by this page
		GRPC    string    `json:"grpc,omitempty"`
		TLS     bool      `json:"tls,omitempty"`
		Version string    `json:"version,omitempty"`
	}{
		Accounts: s.opts.Accounts, User: s.opts.AdminUser, Password: s.opts.Password, URLLifetime: s.opts.URLLifetime.String(),
		MaxFileSize: s.opts.MaxFileSize, Now: s.opts.Now(),
	}
	if g := s.gateway.Load(); g != nil {
		info.Sends, info.GRPC, info.TLS, info.Version = g.Handler != nil, g.Address, g.TLS, g.Version
	}
	jsonhttp.Respond(w, http.StatusOK, info)
}

// adminPlaces answers GET /_sandbox/faults/places with the valid values of "on".
func (s *Sandbox) adminPlaces(w http.ResponseWriter, _ *http.Request) {
	jsonhttp.Respond(w, http.StatusOK, map[string][]string{"places": fault.Places(), "requests": liveperson.RequestTypes()})
}

// adminConversations answers GET /_sandbox/conversations with all conversations, the newest first.
func (s *Sandbox) adminConversations(w http.ResponseWriter, _ *http.Request) {
	jsonhttp.Respond(w, http.StatusOK, s.platform.Conversations())
}

// adminConversation answers GET /_sandbox/conversations/{id}?limit=N with the conversation's latest messages. The default is 50.
func (s *Sandbox) adminConversation(w http.ResponseWriter, r *http.Request) {
	limit := 50
	if text := r.URL.Query().Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			http.Error(w, "limit must be a positive number", http.StatusBadRequest)
			return
		}
		limit = n
	}
	record, ok := s.platform.Conversation(r.PathValue("id"), limit)
	if !ok {
		http.Error(w, "no conversation has this id", http.StatusNotFound)
		return
	}
	jsonhttp.Write(w, http.StatusOK, []byte(feed.Mask(string(jsonhttp.Encode(record)))))
}

// adminObject answers GET /_sandbox/objects/v1/... with the bytes of an object of the sandbox's own store. The headers keep a browser from
// interpreting them.
func (s *Sandbox) adminObject(w http.ResponseWriter, r *http.Request) {
	var data []byte
	ok := false
	if s.store != nil {
		data, ok = s.store.Object("/" + r.PathValue("path"))
	}
	if !ok {
		http.Error(w, "no object is stored at this path", http.StatusNotFound)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", "attachment")
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(data)
}

// isGateway reports whether a request is a call of the gateway.
func isGateway(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, gatewayPrefix) }
