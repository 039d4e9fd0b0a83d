package lpfileshare

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

func TestUnreachable_UnknownHost(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "")
	t.Setenv("https_proxy", "")
	lookup := func(_ context.Context, host string) ([]string, error) {
		switch host {
		case "nohost.invalid":
			return nil, &net.DNSError{Name: host, IsNotFound: true}
		case "slow.invalid":
			return nil, &net.DNSError{Name: host, IsTimeout: true}
		}
		return []string{"192.0.2.1"}, nil
	}
	for target, want := range map[string]string{
		"nohost.invalid:443": "the host nohost.invalid is not known", "dns:///nohost.invalid:443": "the host nohost.invalid is not known",
		"host.invalid:1, nohost.invalid:443": "the host nohost.invalid is not known", "192.0.2.1:443": "no children", "host.invalid:443": "no children",
		"slow.invalid:443": "no children", "unix:/run/x": "no children",
	} {
		c, err := Dial(target)
		if err != nil {
			t.Fatal(err)
		}
		err = c.unreachable(t.Context(), status.Error(codes.Unavailable, "no children to pick from"), lookup)
		c.Close()
		if text := err.Error(); !strings.Contains(text, want) || strings.Contains(text, "Check the name") != strings.Contains(text, "not known") {
			t.Errorf("%s: %v, want %s", target, err, want)
		}
	}
}

func TestUnreachable_NamesTheCertificateOnlyAfterTheDial(t *testing.T) {
	c, err := Dial("192.0.2.1:443")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.certificateAsked.Store(true)
	lookup := func(context.Context, string) ([]string, error) { return []string{"192.0.2.1"}, nil }
	for text, want := range map[string]bool{
		`connection error: desc = "error reading server preface: remote error: tls: certificate required"`:               true,
		`connection error: desc = "transport: authentication handshake failed: EOF"`:                                     true,
		`connection error: desc = "error reading from server: EOF"`:                                                      true,
		`connection error: desc = "transport: Error while dialing: dial tcp 192.0.2.1:443: connect: connection refused"`: false,
		`write tcp 127.0.0.1:1234->192.0.2.1:443: write: broken pipe`:                                                    true,
		`name resolver error: produced zero addresses`:                                                                   false,
		`dns: A record lookup error: server misbehaving`:                                                                 false,
		`unexpected HTTP status code received from server: 503 (Service Unavailable)`:                                    false,
	} {
		err := c.unreachable(t.Context(), status.Error(codes.Unavailable, text), lookup)
		if strings.Contains(err.Error(), "asked for a client certificate") != want {
			t.Errorf("%v, the certificate should be named: %v", err, want)
		}
	}
}

func TestConnect_MissingClientCertificate(t *testing.T) {
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	for _, test := range []struct {
		name   string
		policy tls.ClientAuthType
		want   string // in the error; empty: none
	}{
		{"required", tls.RequireAnyClientCert, "the server asked for a client certificate, and none was given"},
		{"optional", tls.VerifyClientCertIfGiven, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
				Certificates: web.TLS.Certificates, ClientAuth: test.policy,
			})))
			healthpb.RegisterHealthServer(server, health.NewServer())
			done := make(chan struct{})
			go func() { defer close(done); server.Serve(listener) }()
			defer func() { server.Stop(); <-done }()
			roots := x509.NewCertPool()
			roots.AddCert(web.Certificate())
			c, err := Dial(listener.Addr().String(), WithTLS(&tls.Config{RootCAs: roots}))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			err = c.As(ConsumerToken(StaticToken("x"))).Connect(t.Context())
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), EnvClientCert)) {
				t.Errorf("got %v, want %s", err, test.want)
			}
			server.Stop()
			if err = c.Connect(t.Context()); test.want == "" && (err == nil || strings.Contains(err.Error(), "certificate")) {
				t.Errorf("after the server's end: got %v, want an error that names no certificate", err)
			}
		})
	}
}
