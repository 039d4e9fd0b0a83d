package sandbox

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
)

// services are the names that a client may look up. All of them are the sandbox itself, but for swift, which may be elsewhere.
var services = [...]string{
	"acCdnDomain",
	"accountConfigReadOnly",
	"accountConfigReadWrite",
	"adminArea",
	"agentVep",
	"asyncMessagingEnt",
	"facadeMsg",
	"idp",
	"sentinel",
	"swift",
}

// A baseURI is one line of the domain service's answer.
type baseURI struct {
	Service string `json:"service"`
	Account string `json:"account"`
	BaseURI string `json:"baseURI"`
}

// domain returns the host of a service, without scheme or path, as seen by the client of r: a client that came by TLS must be
// able to go on by TLS.
func (s *Sandbox) domain(r *http.Request, service string) string {
	switch {
	case service == "swift" && s.swift != nil:
		return s.swift.Host
	case r.TLS != nil:
		return s.secure.Addr().String()
	default:
		return s.plain.Addr().String()
	}
}

func (s *Sandbox) baseURIs(r *http.Request, account string) []baseURI {
	all := make([]baseURI, 0, len(services))
	for _, name := range services {
		all = append(all, baseURI{Service: name, Account: account, BaseURI: s.domain(r, name)})
	}
	return all
}

// allDomains answers GET .../service/baseURI.json.
func (s *Sandbox) allDomains(w http.ResponseWriter, r *http.Request) {
	account := r.PathValue("account")
	if !s.domainsAsked(w, r, account) {
		return
	}
	respondJSONP(w, r, map[string]any{"baseURIs": s.baseURIs(r, account)})
}

// oneDomain answers GET .../service/{service}/baseURI.json.
func (s *Sandbox) oneDomain(w http.ResponseWriter, r *http.Request) {
	account, service := r.PathValue("account"), r.PathValue("service")
	if !s.domainsAsked(w, r, account) {
		return
	}
	if !slices.Contains(services[:], service) {
		respond(w, http.StatusNotFound, struct{}{})
		return
	}
	respondJSONP(w, r, baseURI{Service: service, Account: account, BaseURI: s.domain(r, service)})
}

// domainsAsked refuses look-ups without the one version there is, and those for an account that does not exist.
func (s *Sandbox) domainsAsked(w http.ResponseWriter, r *http.Request, account string) bool {
	if r.URL.Query().Get("version") != "1.0" {
		fail(w, http.StatusBadRequest, "version must be 1.0")
		return false
	}
	if s.account(account) == nil {
		respond(w, http.StatusNotFound, struct{}{})
		return false
	}
	return true
}

// callbackName is what may be called: anything else would let a link run a script of its own.
var callbackName = regexp.MustCompile(`^[A-Za-z_$][\w$.]{0,127}$`)

// respondJSONP answers with v as JSON, or as a call of the function that the query names: LivePerson's web clients ask from
// pages of other origins.
func respondJSONP(w http.ResponseWriter, r *http.Request, v any) {
	q := r.URL.Query()
	name := q.Get("cb")
	if name == "" {
		name = q.Get("callback")
	}
	if name == "" {
		respond(w, http.StatusOK, v)
		return
	}
	if !callbackName.MatchString(name) {
		fail(w, http.StatusBadRequest, "the callback is not a function's name")
		return
	}
	data, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/javascript;charset=UTF-8")
	_, _ = w.Write([]byte(name + "(" + string(data) + ");"))
}
