package liveperson

import (
	"net/http"
	"regexp"
	"strings"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/jsonhttp"
)

// LivePerson's web clients run on its customers' pages, so they read answers from another origin: by JSONP, which is a script that
// calls a function of the page, or by CORS.

// callbackName is the form of a callback: the path of a function. It cannot contain code.
var callbackName = regexp.MustCompile(`^[A-Za-z_$][\w$]*(\.[A-Za-z_$][\w$]*)*$`)

// maxCallback is the maximum length of a callback's name.
const maxCallback = 128

// callback returns the name of the function that the query of a GET asks to be called, in "cb" or "callback"; without it, missing.
func callback(r *http.Request, missing string) string {
	if r.Method != http.MethodGet {
		return missing
	}
	for _, name := range []string{"cb", "callback"} {
		if r.URL.Query().Has(name) {
			return r.URL.Query().Get(name)
		}
	}
	return missing
}

// respondScriptable answers with v as JSON, or as a script if the query names a callback.
func respondScriptable(w http.ResponseWriter, r *http.Request, v any) {
	if name := callback(r, ""); name != "" {
		respondScript(w, name, v)
		return
	}
	jsonhttp.Respond(w, http.StatusOK, v)
}

// respondScript answers with a call of the named function. It refuses anything else than a name, so that a link cannot make the
// answer run a script of its own.
func respondScript(w http.ResponseWriter, name string, v any) {
	if len(name) > maxCallback || !callbackName.MatchString(name) {
		jsonhttp.Fail(w, http.StatusBadRequest, "the callback is not the name of a function")
		return
	}
	w.Header().Set("Content-Type", "application/javascript;charset=UTF-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write([]byte(name + "(" + string(jsonhttp.Encode(v)) + ");"))
}

// public adds an endpoint to mux that pages of any origin may call, with the answer to their preflight request.
func (s *Service) public(mux *http.ServeMux, method, path, on string, serve http.HandlerFunc) {
	mux.HandleFunc(method+" "+path, s.endpoint(on, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		serve(w, r)
	}))
	mux.HandleFunc("OPTIONS "+path, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Access-Control-Allow-Methods", method)
		if asked := r.Header.Values("Access-Control-Request-Headers"); len(asked) > 0 {
			w.Header().Set("Access-Control-Allow-Headers", strings.Join(asked, ", "))
		}
		w.WriteHeader(http.StatusNoContent)
	})
}
