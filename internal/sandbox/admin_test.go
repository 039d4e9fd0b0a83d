package sandbox

import (
	"net"
	"net/http"
	"strings"
	"testing"
)

func TestAdmin_RejectsOtherOrigins(t *testing.T) {
	s, err := Start(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	address := strings.TrimPrefix(s.URL(), "http://")
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	for _, endpoint := range []string{
		"POST /_sandbox/faults", "DELETE /_sandbox/faults", "GET /_sandbox/journal", "GET /_sandbox/webhooks", "PUT /_sandbox/webhooks",
		"GET /_sandbox/sockets", "GET /_sandbox/events", "POST /_sandbox/sockets/drop",
	} {
		method, path, _ := strings.Cut(endpoint, " ")
		for _, test := range []struct {
			host, header, value string
			want                int // status; 0: accepted
		}{
			{host: address},
			{host: "localhost:" + port},
			{host: "[::1]:" + port},
			{host: "rebound.example:" + port, want: http.StatusMisdirectedRequest},
			{host: "10.0.0.1:" + port, want: http.StatusMisdirectedRequest},
			{address, "Origin", s.URL(), 0},
			{address, "Origin", "http://rebound.example", http.StatusForbidden},
			{address, "Origin", "http://127.0.0.1:1", http.StatusForbidden},
			{address, "Origin", "https://" + address, http.StatusForbidden},
			{address, "Origin", "null", http.StatusForbidden},
			{address, "Sec-Fetch-Site", "same-origin", 0},
			{address, "Sec-Fetch-Site", "cross-site", http.StatusForbidden},
		} {
			req, err := http.NewRequestWithContext(t.Context(), method, s.URL()+path, strings.NewReader(`{"on":"store:PUT","status":503}`))
			if err != nil {
				t.Fatal(err)
			}
			req.Host = test.host
			if test.header != "" {
				req.Header.Set(test.header, test.value)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if test.want == 0 && (resp.StatusCode == 403 || resp.StatusCode == 421) || test.want != 0 && resp.StatusCode != test.want {
				t.Errorf("%s, Host %q, %s %q: %s", endpoint, test.host, test.header, test.value, resp.Status)
			}
		}
	}
	http.DefaultClient.CloseIdleConnections()
}
