package web

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/lpfileshare/lpfileshare/internal/netrules"
)

// Origins returns a rule that allows the pages of these origins: see CheckOrigin.
func Origins(allowed []string) func(*http.Request) bool {
	set := make(map[string]bool, len(allowed))
	for _, origin := range allowed {
		set[origin] = true
	}
	return func(r *http.Request) bool { return set[r.Header.Get("Origin")] }
}

// SameOrigin is a rule that allows the pages of the address that is called, without TLS.
func SameOrigin(r *http.Request) bool {
	return r.Host != "" && r.Header.Get("Origin") == "http://"+r.Host
}

// CheckOrigin reports whether text is an origin as browsers send it: scheme://host, with a port unless it is the scheme's default.
func CheckOrigin(text string) error {
	u, err := url.Parse(text)
	const form = "write it as browsers send it, for example https://www.example.com or http://localhost:8080"
	switch {
	case text == "*" || text == "null":
		return fmt.Errorf("%q would allow pages of anybody; name each origin", text)
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return fmt.Errorf("%q is not an origin; %s", text, form)
	case text != strings.ToLower(text) || text != u.Scheme+"://"+u.Host || strings.Contains(text, "*"):
		return fmt.Errorf("%q is more than scheme, host and port, or has capital letters or a wildcard; %s", text, form)
	case u.Scheme == "https" && u.Port() == "443" || u.Scheme == "http" && u.Port() == "80":
		return fmt.Errorf("%q has the default port, which browsers leave out; leave it out", text)
	}
	return nil
}

// isLoopbackHost reports whether the Host of a request is this machine by its name alone. Another name can resolve to loopback, so that
// a page of any site reaches this server as its own origin (DNS rebinding).
func isLoopbackHost(r *http.Request) bool {
	return netrules.IsLoopback((&url.URL{Host: r.Host}).Hostname())
}
