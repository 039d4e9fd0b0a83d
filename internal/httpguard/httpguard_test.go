package httpguard

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestGuards_RejectOtherOrigins(t *testing.T) {
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	local, remote := LocalOnly(page), SameOrigin(page)
	for _, test := range []struct {
		host, header, value string
		local, remote       int // status of each guard
	}{
		{host: "127.0.0.1:6060", local: 204, remote: 204},
		{host: "localhost:6060", local: 204, remote: 204},
		{host: "[::1]:6060", local: 204, remote: 204},
		{host: "127.0.0.1", local: 204, remote: 204},
		{host: "rebound.example:6060", local: 421, remote: 204},
		{host: "localhost.example:6060", local: 421, remote: 204},
		{host: "127.0.0.1.nip.example", local: 421, remote: 204},
		{host: "10.0.0.1:6060", local: 421, remote: 204},
		{host: "", local: 421, remote: 204},
		{"127.0.0.1:6060", "Origin", "http://127.0.0.1:6060", 204, 204},
		{"127.0.0.1:6060", "Origin", "https://127.0.0.1:6060", 403, 403},
		{"127.0.0.1:6060", "Origin", "http://127.0.0.1:8000", 403, 403},
		{"127.0.0.1:6060", "Origin", "http://rebound.example", 403, 403},
		{"127.0.0.1:6060", "Origin", "null", 403, 403},
		{"127.0.0.1:6060", "Sec-Fetch-Site", "none", 204, 204},
		{"127.0.0.1:6060", "Sec-Fetch-Site", "same-origin", 204, 204},
		{"127.0.0.1:6060", "Sec-Fetch-Site", "cross-site", 403, 403},
		{"127.0.0.1:6060", "Sec-Fetch-Site", "same-site", 403, 403}, // another port of this machine
	} {
		for _, guard := range []struct {
			handler http.Handler
			want    int
		}{{local, test.local}, {remote, test.remote}} {
			r := httptest.NewRequest(http.MethodGet, "/debug/gc", nil)
			r.Host = test.host
			if test.header != "" {
				r.Header.Set(test.header, test.value)
			}
			w := httptest.NewRecorder()
			guard.handler.ServeHTTP(w, r)
			if w.Code != guard.want {
				t.Errorf("Host %q, %s %q: %d, want %d", test.host, test.header, test.value, w.Code, guard.want)
			}
		}
	}
}

func TestSameOrigin_OverTLS(t *testing.T) {
	page := SameOrigin(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	for origin, want := range map[string]int{"https://a.example": 204, "http://a.example": 403} {
		r := httptest.NewRequest(http.MethodPut, "/log-level", nil)
		r.Host, r.TLS = "a.example", &tls.ConnectionState{}
		r.Header.Set("Origin", origin)
		w := httptest.NewRecorder()
		page.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("Origin %s: %d, want %d", origin, w.Code, want)
		}
	}
}
