package sandbox

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
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

// TestTLSListen_ServesPlaintext sends requests with and without TLS to the address that domain answers name.
func TestTLSListen_ServesPlaintext(t *testing.T) {
	c := newTLSClient(t)
	for _, scheme := range []string{"http", "https"} {
		resp, err := c.http.Get(scheme + "://" + c.host + "/api/account/" + acct + "/service/swift/baseURI.json?version=1.0")
		if err != nil {
			t.Fatal(err)
		}
		data, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if want := `"baseURI":"` + c.host + `"`; resp.StatusCode != 200 || !strings.Contains(string(data), want) {
			t.Errorf("%s: %s %s, want %s", scheme, resp.Status, data, want)
		}
	}
	token := c.post("/api/account/"+acct+"/signup", "").text("jwt")
	for _, scheme := range []string{"ws", "wss"} {
		w, _, err := dialURL(t, scheme+"://"+c.host+consumerPath, c.config.Clone(), "Authorization", "jwt "+token)
		if err != nil {
			t.Fatalf("%s: %v", scheme, err)
		}
		w.ok("GetClock", "")
	}

	conn, err := net.Dial("tcp", c.host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "\x00\x01\x02\r\n\r\n") // neither of the protocols
	if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != 400 {
		t.Errorf("garbage: %v %v", resp, err)
	}
}

// TestTLSListen_Reset resets a connection of either protocol, on demand.
func TestTLSListen_Reset(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	s := start(t, Options{TLSListen: "127.0.0.1:0", CAFile: ca})
	for _, config := range []*tls.Config{nil, {InsecureSkipVerify: true}} {
		conn, err := net.Dial("tcp", s.secure.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if config != nil {
			conn = tls.Client(conn, config)
		}
		s.Inject(Fault{On: "http:signup", Drop: true, Count: 1})
		_, _ = io.WriteString(conn, "POST /api/account/"+acct+"/signup HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
		if _, err := io.ReadAll(conn); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("TLS %v: %v, want a reset", config != nil, err)
		}
		_ = conn.Close()
	}
}

// TestTLSListen_Close closes a listener while clients have sent nothing, and while nobody accepts them.
func TestTLSListen_Close(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := newEitherListener(ln, &tls.Config{})
	var conns []net.Conn
	for _, said := range []string{"", "", "G", "\x16"} {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, said)
		conns = append(conns, conn)
	}
	eventually(t, "two clients are silent", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return len(e.pending) == 2
	})
	for range 2 {
		_ = e.Close() // returns when all goroutines have ended
	}
	for i, conn := range conns {
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("connection %d is still open: %v", i, err)
		}
	}
	if _, err := e.Accept(); err == nil {
		t.Error("a closed listener accepts")
	}
}
