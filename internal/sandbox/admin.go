package sandbox

import (
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/lpfileshare/lpfileshare/internal/httpguard"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/jsonhttp"
)

// registerAdmin adds the endpoints that control the sandbox from outside the process: faults, the journal, webhooks and sockets.
func (s *Sandbox) registerAdmin(outer *http.ServeMux) {
	mux := http.NewServeMux()
	outer.Handle("/_sandbox/", httpguard.LocalOnly(mux))
	s.registerPage(outer, mux)
	mux.Handle("GET /_sandbox/events", s.feed)
	mux.HandleFunc("GET /_sandbox/faults", s.adminFaults)
	mux.HandleFunc("POST /_sandbox/faults", s.adminInject)
	mux.HandleFunc("DELETE /_sandbox/faults/{id}", s.adminRemove)
	mux.HandleFunc("DELETE /_sandbox/faults", s.adminClear)
	mux.HandleFunc("GET /_sandbox/journal", s.adminJournal)
	mux.HandleFunc("GET /_sandbox/webhooks", s.adminWebhooks)
	mux.HandleFunc("PUT /_sandbox/webhooks", s.adminSetWebhooks)
	mux.HandleFunc("GET /_sandbox/sockets", s.adminSockets)
	mux.HandleFunc("POST /_sandbox/sockets/drop", s.adminDrop)
}

// isLoopback reports whether a host is this machine by its name alone.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// adminFaults answers GET /_sandbox/faults with the armed faults and what is left of them.
func (s *Sandbox) adminFaults(w http.ResponseWriter, _ *http.Request) {
	jsonhttp.Respond(w, http.StatusOK, s.Faults())
}

// adminRemove answers DELETE /_sandbox/faults/{id}.
func (s *Sandbox) adminRemove(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil || !s.RemoveFault(id) {
		http.Error(w, "no armed fault has this id", http.StatusNotFound)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// adminInject answers POST /_sandbox/faults. The header Location has the fault's id.
func (s *Sandbox) adminInject(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, jsonhttp.MaxBody))
	if err != nil {
		http.Error(w, "the body cannot be read", http.StatusBadRequest)
		return
	}
	f, err := ParseFault(text)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Location", "/_sandbox/faults/"+strconv.Itoa(s.Inject(f)))
	w.WriteHeader(http.StatusNoContent)
}

// adminClear answers DELETE /_sandbox/faults.
func (s *Sandbox) adminClear(w http.ResponseWriter, _ *http.Request) {
	s.ClearFaults()
	w.WriteHeader(http.StatusNoContent)
}

// adminJournal answers GET /_sandbox/journal.
func (s *Sandbox) adminJournal(w http.ResponseWriter, _ *http.Request) {
	jsonhttp.Respond(w, http.StatusOK, s.Journal())
}

// adminWebhooks answers GET /_sandbox/webhooks?account=ID&app=ID with the webhooks of an app install in the form of a manifest. The
// defaults are the first account and DefaultAppID.
func (s *Sandbox) adminWebhooks(w http.ResponseWriter, r *http.Request) {
	hooks, err := s.connector.Webhooks(r.URL.Query().Get("account"), r.URL.Query().Get("app"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	jsonhttp.Respond(w, http.StatusOK, hooks)
}

// adminSetWebhooks answers PUT /_sandbox/webhooks with the same query: {"endpoint":URL} sends every event to URL, {} ends the
// webhooks.
func (s *Sandbox) adminSetWebhooks(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, jsonhttp.MaxBody))
	if err != nil {
		http.Error(w, "the body cannot be read", http.StatusBadRequest)
		return
	}
	var hooks Webhooks
	if err := json.Unmarshal(text, &hooks); err != nil {
		http.Error(w, "invalid webhooks: "+err.Error(), http.StatusBadRequest)
		return
	}
	if err := s.SetWebhooks(r.URL.Query().Get("account"), r.URL.Query().Get("app"), hooks); err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// adminSockets answers GET /_sandbox/sockets.
func (s *Sandbox) adminSockets(w http.ResponseWriter, _ *http.Request) {
	jsonhttp.Respond(w, http.StatusOK, map[string]int{"open": s.Sockets()})
}

// adminDrop answers POST /_sandbox/sockets/drop?code=N.
func (s *Sandbox) adminDrop(w http.ResponseWriter, r *http.Request) {
	code := 0
	if text := r.URL.Query().Get("code"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n != 0 && (n < 1000 || n > 4999) {
			http.Error(w, "code must be a WebSocket close code, or 0 for a reset", http.StatusBadRequest)
			return
		}
		code = n
	}
	jsonhttp.Respond(w, http.StatusOK, map[string]int{"dropped": s.DropSockets(code)})
}
