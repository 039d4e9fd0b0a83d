// Package httpguard rejects requests that web pages make a browser send to a server on its machine or in its network.
package httpguard

import (
	"net/http"
	"net/url"

	"github.com/lpfileshare/lpfileshare/internal/netrules"
)

// LocalOnly rejects what LoopbackHost and SameOrigin reject.
func LocalOnly(next http.Handler) http.Handler { return LoopbackHost(SameOrigin(next)) }

// LoopbackHost rejects requests whose Host is not loopback: its name can resolve to loopback (DNS rebinding).
func LoopbackHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !netrules.IsLoopback((&url.URL{Host: r.Host}).Hostname()) {
			http.Error(w, "the Host header must be localhost or a loopback address", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// SameOrigin rejects requests whose Origin or Sec-Fetch-Site names another origin. Programs other than browsers send neither.
func SameOrigin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		own := "http://" + r.Host
		if r.TLS != nil {
			own = "https://" + r.Host
		}
		origin, site := r.Header.Get("Origin"), r.Header.Get("Sec-Fetch-Site")
		if origin != "" && origin != own || site != "" && site != "same-origin" && site != "none" {
			http.Error(w, "requests of other origins are rejected", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}
