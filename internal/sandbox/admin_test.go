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
		"GET /_sandbox/sockets", "POST /_sandbox/sockets/drop",
	} {
		method, path, _ := strings.Cut(endpoint, " ")
		for _, test := range []struct {
			host, header, value string
			rejected            bool
		}{
			{host: address},
			{host: "localhost:" + port},
			{host: "[::1]:" + port},
			{host: "rebound.example:" + port, rejected: true},
			{host: "10.0.0.1:" + port, rejected: true},
			{address, "Origin", s.URL(), false},
			{address, "Origin", "http://rebound.example", true},
			{address, "Origin", "http://127.0.0.1:1", true},
			{address, "Origin", "https://" + address, true},
			{address, "Origin", "null", true},
			{address, "Sec-Fetch-Site", "same-origin", false},
			{address, "Sec-Fetch-Site", "cross-site", true},
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
			if rejected := resp.StatusCode == http.StatusForbidden; rejected != test.rejected {
				t.Errorf("%s, Host %q, %s %q: %s", endpoint, test.host, test.header, test.value, resp.Status)
			}
		}
	}
	http.DefaultClient.CloseIdleConnections()
}
