package liveperson

import (
	"net/http"
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

// domains is the domain API. It has the same answers under /api, which is documented, and under /csdr, which older clients use.
type domains struct{ *Service }

// register adds the domain API to mux.
func (d domains) register(mux *http.ServeMux) {
	for _, root := range []string{"/api", "/csdr"} {
		const all, one = "/account/{account}/service/", "/account/{account}/service/{service}/"
		for _, name := range []string{"baseURI.json", "baseURI"} {
			d.public(mux, "GET", root+all+name, "http:domains", d.all)
			d.public(mux, "GET", root+one+name, "http:domains", d.one)
		}
		d.public(mux, "GET", root+all+"baseURI.lpCsds", "http:domains", d.allScript)
		d.public(mux, "GET", root+one+"baseURI.lpCsds", "http:domains", d.oneScript)
	}
}

// A baseURI is one entry of the domain API's answer.
type baseURI struct {
	Service string `json:"service"`
	Account string `json:"account"`
	BaseURI string `json:"baseURI"`
}

// baseURIs returns the domains of all services of an account.
func (s *Service) baseURIs(account string) []baseURI {
	all := make([]baseURI, 0, len(services))
	for _, name := range services {
		all = append(all, baseURI{Service: name, Account: account, BaseURI: s.opts.Domain(name)})
	}
	return all
}

// all answers GET .../service/baseURI.json.
func (d domains) all(w http.ResponseWriter, r *http.Request) {
	if status, why := d.refusal(r); status != 0 {
		refuseLookUp(w, status, why)
		return
	}
	respondScriptable(w, r, map[string]any{"baseURIs": d.baseURIs(r.PathValue("account"))})
}

// one answers GET .../service/{service}/baseURI.json.
func (d domains) one(w http.ResponseWriter, r *http.Request) {
	if status, why := d.refusal(r); status != 0 {
		refuseLookUp(w, status, why)
		return
	}
	account, service := r.PathValue("account"), r.PathValue("service")
	respondScriptable(w, r, baseURI{Service: service, Account: account, BaseURI: d.opts.Domain(service)})
}

// refuseLookUp answers a look-up that failed. LivePerson documents no body for an unknown account or service.
func refuseLookUp(w http.ResponseWriter, status int, why string) {
	if status == http.StatusNotFound {
		jsonhttp.Respond(w, status, struct{}{})
		return
	}
	jsonhttp.Fail(w, status, why)
}

// A resultSet is the content of an answer in the form lpCsds, which is a script.
type resultSet struct {
	CallID string `json:"lpCallId,omitempty"`
	Data   any    `json:"lpData,omitempty"`
	Error  string `json:"lpCallError,omitempty"`
}

// defaultCallback is the function that the form lpCsds calls if the query names none: that of LivePerson's connection library.
const defaultCallback = "lpConnLib.Process"

// allScript answers GET .../service/baseURI.lpCsds.
func (d domains) allScript(w http.ResponseWriter, r *http.Request) {
	d.script(w, r, func() any { return map[string]any{"baseURIs": d.baseURIs(r.PathValue("account"))} })
}

// oneScript answers GET .../service/{service}/baseURI.lpCsds.
func (d domains) oneScript(w http.ResponseWriter, r *http.Request) {
	d.script(w, r, func() any { return []any{map[string]string{"lpServer": d.opts.Domain(r.PathValue("service"))}} })
}

// script answers in the form lpCsds. The status is 200 even if the look-up fails, because a browser runs no script of another status.
func (d domains) script(w http.ResponseWriter, r *http.Request, data func() any) {
	set := resultSet{CallID: r.URL.Query().Get("lpCallId")}
	if _, why := d.refusal(r); why != "" {
		set.Error = why
	} else {
		set.Data = data()
	}
	respondScript(w, callback(r, defaultCallback), map[string]any{"ResultSet": set})
}

// refusal returns the status and the reason with which a look-up is refused, or 0: it needs version 1.0, a known account and, if it
// names a service, a known one.
func (d domains) refusal(r *http.Request) (status int, why string) {
	service := r.PathValue("service")
	switch {
	case r.URL.Query().Get("version") != "1.0":
		return http.StatusBadRequest, "version must be 1.0"
	case d.account(r.PathValue("account")) == nil:
		return http.StatusNotFound, "no such account"
	case service != "" && !slices.Contains(services[:], service):
		return http.StatusNotFound, "no such service"
	}
	return 0, ""
}
