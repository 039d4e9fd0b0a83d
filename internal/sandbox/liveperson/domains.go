package liveperson

import (
	"net/http"
	"regexp"
	"slices"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/jsonhttp"
)

// services are the names that a client can look up. All are the sandbox itself, except that swift may be elsewhere.
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

// domains is the domain API.
type domains struct{ *Service }

// A baseURI is one entry of the domain API's answer.
type baseURI struct {
	Service string `json:"service"`
	Account string `json:"account"`
	BaseURI string `json:"baseURI"`
}

// baseURIs returns the domains of all services of an account.
func (s *Service) baseURIs(r *http.Request, account string) []baseURI {
	all := make([]baseURI, 0, len(services))
	for _, name := range services {
		all = append(all, baseURI{Service: name, Account: account, BaseURI: s.opts.Domain(r, name)})
	}
	return all
}

// all answers GET .../service/baseURI.json.
func (d domains) all(w http.ResponseWriter, r *http.Request) {
	account := r.PathValue("account")
	if !d.valid(w, r, account) {
		return
	}
	respondJSONP(w, r, map[string]any{"baseURIs": d.baseURIs(r, account)})
}

// one answers GET .../service/{service}/baseURI.json.
func (d domains) one(w http.ResponseWriter, r *http.Request) {
	account, service := r.PathValue("account"), r.PathValue("service")
	if !d.valid(w, r, account) {
		return
	}
	if !slices.Contains(services[:], service) {
		jsonhttp.Respond(w, http.StatusNotFound, struct{}{})
		return
	}
	respondJSONP(w, r, baseURI{Service: service, Account: account, BaseURI: d.opts.Domain(r, service)})
}

// valid refuses look-ups with a version other than 1.0 and those for unknown accounts.
func (d domains) valid(w http.ResponseWriter, r *http.Request, account string) bool {
	if r.URL.Query().Get("version") != "1.0" {
		jsonhttp.Fail(w, http.StatusBadRequest, "version must be 1.0")
		return false
	}
	if d.account(account) == nil {
		jsonhttp.Respond(w, http.StatusNotFound, struct{}{})
		return false
	}
	return true
}

// callbackName restricts the callback, so that a link cannot make the answer run a script.
var callbackName = regexp.MustCompile(`^[A-Za-z_$][\w$.]{0,127}$`)

// respondJSONP answers with v as JSON, or as a call of the function that the query names: LivePerson's web clients send requests
// from pages of other origins.
func respondJSONP(w http.ResponseWriter, r *http.Request, v any) {
	q := r.URL.Query()
	name := q.Get("cb")
	if name == "" {
		name = q.Get("callback")
	}
	if name == "" {
		jsonhttp.Respond(w, http.StatusOK, v)
		return
	}
	if !callbackName.MatchString(name) {
		jsonhttp.Fail(w, http.StatusBadRequest, "the callback is not the name of a function")
		return
	}
	w.Header().Set("Content-Type", "application/javascript;charset=UTF-8")
	_, _ = w.Write([]byte(name + "(" + string(jsonhttp.Encode(v)) + ");"))
}
