package lpfileshare

import (
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// certificateFile writes a PEM file with a certificate.
func certificateFile(t *testing.T) string {
	web := httptest.NewTLSServer(nil)
	defer web.Close()
	path := filepath.Join(t.TempDir(), "ca.pem")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDialEnv(t *testing.T) {
	ca := certificateFile(t)
	for _, tc := range []struct {
		name    string
		env     map[string]string
		options []Option
		want    string // in the error; empty: none
		key     string // of the identity
		tls     bool
	}{
		{"address only", map[string]string{EnvAddress: "127.0.0.1:1"}, nil, "", "", false},
		{"no address", nil, nil, "LPFILESHARE_ADDRESS is not set", "", false},
		{"consumer", map[string]string{EnvAddress: "127.0.0.1:1", EnvToken: "t", EnvAccount: "7"}, nil, "", keyConsumer, false},
		{"agent", map[string]string{EnvAddress: "files.example.com:443", EnvAgentToken: "t"}, nil, "", keyAgent, true},
		{"external", map[string]string{EnvAddress: "files.example.com:443", EnvExternalConsumerID: "e", EnvPlaintext: "true"}, nil, "", keyExternal, false},
		{"two identities", map[string]string{EnvAddress: "a:1", EnvToken: "s3cret", EnvAgentToken: "s3cret"}, nil, "exactly one", "", false},
		{"options win", map[string]string{EnvAddress: "127.0.0.1:1", EnvToken: "t", EnvAgentToken: "t", EnvPlaintext: "x"},
			[]Option{WithExternalConsumerID("e"), WithPlaintext(), WithAccount("8")}, "", keyExternal, false},
		{"half a certificate", map[string]string{EnvAddress: "a:1", EnvClientCert: "c.pem"}, nil, "must be set together", "", false},
		{"no such file", map[string]string{EnvAddress: "a:1", EnvTLSCA: "/nowhere"}, nil, "/nowhere", "", false},
		{"TLS and plaintext", map[string]string{EnvAddress: "a:1", EnvTLSCA: ca, EnvPlaintext: "1"}, nil, "excludes", "", false},
		{"private authority", map[string]string{EnvAddress: "127.0.0.1:1", EnvTLSCA: ca}, nil, "", "", true},
		{"not a boolean", map[string]string{EnvAddress: "a:1", EnvPlaintext: "maybe"}, nil, "must be true or false", "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, name := range []string{EnvAddress, EnvAccount, EnvToken, EnvAgentToken, EnvExternalConsumerID, EnvTLSCA, EnvClientCert, EnvClientKey, EnvPlaintext, EnvBearerTokenFile} {
				t.Setenv(name, tc.env[name])
			}
			c, err := DialEnv(tc.options...)
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "s3cret") {
					t.Errorf("got %v, want %q", err, tc.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if c.id.key != tc.key {
				t.Errorf("identity %q, want %q", c.id.key, tc.key)
			}
			want := map[string]string{"consumer": "accounts/7", "options win": "accounts/8"}[tc.name]
			if c.Account() != want {
				t.Errorf("account %q, want %q", c.Account(), want)
			}
			var s settings
			if err := s.apply(tc.options); err != nil {
				t.Fatal(err)
			}
			if err := s.fromEnvironment(func(name string) string { return tc.env[name] }); err != nil {
				t.Fatal(err)
			}
			if got := s.credentials(tc.env[EnvAddress], new(atomic.Bool)).Info().SecurityProtocol == "tls"; got != tc.tls {
				t.Errorf("TLS %v, want %v", got, tc.tls)
			}
		})
	}
}
