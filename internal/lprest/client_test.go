package lprest

import (
	"strings"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/test/lpfake"
)

func TestNew_Config(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
		want string // in the error; "": none
	}{
		{"the real LivePerson", Config{}, ""},
		{"plain HTTP to nowhere", Config{PlainHTTP: true}, "set DomainAPI"},
		{"plain HTTP on loopback", Config{PlainHTTP: true, DomainAPI: "http://127.0.0.1:8080"}, ""},
		{"plain HTTP on loopback, short", Config{PlainHTTP: true, DomainAPI: "localhost:8080"}, ""},
		{"plain HTTP on loopback, IPv6", Config{PlainHTTP: true, DomainAPI: "http://[::1]:8080"}, ""},
		{"plain HTTP elsewhere", Config{PlainHTTP: true, DomainAPI: "http://10.0.0.1:8080"}, "use https"},
		{"http in the URL only, elsewhere", Config{DomainAPI: "http://api.liveperson.net"}, "use https"},
		{"another scheme", Config{DomainAPI: "ftp://api.liveperson.net"}, "neither http nor https"},
		{"a path", Config{DomainAPI: "https://api.liveperson.net/api"}, "without path"},
		{"a password", Config{DomainAPI: "https://user:hunter2@api.liveperson.net"}, "without path, query and user"},
		{"a slash at the end", Config{DomainAPI: "https://api.liveperson.net/"}, ""},
		{"no host", Config{DomainAPI: "https://"}, "not a host"},
		{"an override", Config{Overrides: map[string]string{"swift": "https://files.example:8443"}}, ""},
		{"an override of nothing", Config{Overrides: map[string]string{"sw/ift": "files.example"}}, "not a service name"},
		{"an override that is no host", Config{Overrides: map[string]string{"swift": "files example"}}, "Overrides: swift"},
		{"an override by plain HTTP", Config{Overrides: map[string]string{"swift": "http://files.example"}}, "use https"},
		{"an override by plain HTTP on loopback", Config{Overrides: map[string]string{"swift": "http://127.0.0.1:99"}}, ""},
		{"a suffix of everything", Config{Suffixes: []string{"."}}, "neither a suffix nor a host"},
		{"an empty suffix", Config{Suffixes: []string{""}}, "neither a suffix nor a host"},
		{"a suffix with a star", Config{Suffixes: []string{"*.example.com"}}, "neither a suffix nor a host"},
		{"a suffix with a port", Config{Suffixes: []string{".example.com:443"}}, "without scheme and port"},
		{"a negative timeout", Config{Timeout: -time.Second}, "Timeout"},
		{"a negative TTL", Config{CacheTTL: -time.Second}, "CacheTTL"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, err := New(c.cfg)
			if err == nil {
				client.Close()
			}
			switch {
			case c.want == "" && err != nil:
				t.Errorf("err = %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("err = %v, want it to say %q", err, c.want)
			case err != nil && strings.Contains(err.Error(), "hunter2"):
				t.Errorf("err shows a password: %v", err)
			}
		})
	}
}

func TestClose_EndsLookups(t *testing.T) {
	f := lpfake.New(t)
	entered, release := hang(f, "idp")
	defer close(release)
	c, err := New(Config{DomainAPI: f.URL, PlainHTTP: true})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := c.BaseURL(t.Context(), lpfake.Account, "idp")
		done <- err
	}()
	<-entered
	c.Close()
	if err := <-done; !share.Is(err, share.LPUnavailable) {
		t.Errorf("the look-up under way: %v", err)
	}
	if _, err := c.BaseURL(t.Context(), lpfake.Account, "idp"); !share.Is(err, share.LPUnavailable) {
		t.Errorf("a look-up afterwards: %v", err)
	}
	c.Close()
}
