package sandbox

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestTLSConfig connects to a server by every name in its certificate, with the written CA as the only root.
func TestTLSConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ca.pem")
	config, err := newTLSConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Fatalf("%v %v", info, err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		t.Fatalf("no certificate in %q", text)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto)
	}), ReadHeaderTimeout: time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(tls.NewListener(ln, config)) }()
	t.Cleanup(func() { _ = server.Close(); <-served })

	for _, name := range []string{"127.0.0.1", "::1", "localhost"} {
		transport := &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: name, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
		}
		client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
		resp, err := client.Get("https://" + ln.Addr().String())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if string(got) != "HTTP/1.1" {
			t.Errorf("%s: %s", name, got)
		}
		transport.CloseIdleConnections()
	}
	if _, err := newTLSConfig(filepath.Join(t.TempDir(), "none", "ca.pem")); err == nil {
		t.Error("no error for a file that cannot be written")
	}
}
