package lpfileshare

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

func TestConnect_UnknownHost(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "")
	for _, target := range []string{"nohost.invalid:443", "dns:///nohost.invalid:443", "nohost.invalid:443,127.0.0.1:1"} {
		c, err := Dial(target)
		if err != nil {
			t.Fatal(err)
		}
		err = c.Connect(t.Context())
		c.Close()
		if err == nil || !strings.Contains(err.Error(), "the host nohost.invalid is not known") || !strings.Contains(err.Error(), "Check the name") {
			var dns *net.DNSError
			if _, lookup := net.DefaultResolver.LookupHost(t.Context(), "nohost.invalid"); errors.As(lookup, &dns) && !dns.IsNotFound {
				t.Skipf("the name service of this machine does not respond: %v", lookup)
			}
			t.Errorf("%s: %v", target, err)
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
		})
	}
}
