package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// The admin endpoint makes faults and reads the journal from outside the process. It is on the sandbox's own port, which is
// on loopback only.

// adminInject answers POST /_sandbox/faults.
func (s *Sandbox) adminInject(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequestBody))
	if err != nil {
		http.Error(w, "the body cannot be read", http.StatusBadRequest)
		return
	}
	f, err := ParseFault(text)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.Inject(f)
	w.WriteHeader(http.StatusNoContent)
}

// ParseFault reads a Fault from JSON, with the members that its fields' tags name and no others: a misspelt fault would never
// strike, and the test that wants it pass.
func ParseFault(text []byte) (Fault, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	var f Fault
	if err := dec.Decode(&f); err != nil {
		return Fault{}, fmt.Errorf("this is not one fault: %w", err)
	}
	if f.On == "" {
		return Fault{}, errors.New(`a fault needs an "on"`)
	}
	if kind, _, place := strings.Cut(f.On, ":"); place && !slices.Contains(places, f.On) {
		return Fault{}, fmt.Errorf("there is no %s; of that kind there are %s", f.On, strings.Join(slices.DeleteFunc(slices.Clone(places), func(p string) bool {
			return !strings.HasPrefix(p, kind+":")
		}), ", "))
	}
	return f, nil
}

// places are where faults strike, but for the types of requests.
var places = []string{
	"store:PUT", "store:GET", "store:HEAD", "store:POST", "store:DELETE", "ws:upgrade", "ws:idle", "http:domains", "http:login",
	"http:logout", "http:signup", "http:authorize", "http:authenticate", "http:refresh", "http:property", "http:token",
	"http:consumer", "http:conversation", "http:send", "webhook:POST", "webhook:ContentEvent", "webhook:RichContentEvent",
	"webhook:AcceptStatusEvent", "webhook:ChatStateEvent", "webhook:ExConversationChangeNotification",
}

// adminClear answers DELETE /_sandbox/faults.
func (s *Sandbox) adminClear(w http.ResponseWriter, _ *http.Request) {
	s.ClearFaults()
	w.WriteHeader(http.StatusNoContent)
}

// adminJournal answers GET /_sandbox/journal.
func (s *Sandbox) adminJournal(w http.ResponseWriter, _ *http.Request) {
	respond(w, http.StatusOK, s.Journal())
}

// adminWebhooks answers GET /_sandbox/webhooks?account=ID&app=ID: the webhooks of an app install, as a manifest has them. Without
// the query it is the one that there is by default.
func (s *Sandbox) adminWebhooks(w http.ResponseWriter, r *http.Request) {
	hooks, err := s.Webhooks(r.URL.Query().Get("account"), r.URL.Query().Get("app"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	respond(w, http.StatusOK, hooks)
}

// adminSetWebhooks answers PUT /_sandbox/webhooks, with the same query: {"endpoint":URL} sends everything there, {} nothing
// anywhere.
func (s *Sandbox) adminSetWebhooks(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequestBody))
	if err != nil {
		http.Error(w, "the body cannot be read", http.StatusBadRequest)
		return
	}
	var hooks Webhooks
	if err := json.Unmarshal(text, &hooks); err != nil {
		http.Error(w, "these are no webhooks: "+err.Error(), http.StatusBadRequest)
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
	respond(w, http.StatusOK, map[string]int{"open": s.Sockets()})
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
	respond(w, http.StatusOK, map[string]int{"dropped": s.DropSockets(code)})
}
