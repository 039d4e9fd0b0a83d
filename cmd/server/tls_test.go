package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
)

// An authority signs certificates, and keeps all that it makes as PEM files in one folder.
type authority struct {
	t    *testing.T
	dir  string
	name string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	made int64
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir(), name: name}
	a.cert, a.key = a.issue(name, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, Subject: pkix.Name{CommonName: name}})
	return a
}

// issue makes a certificate of a template, and writes NAME.pem and NAME.key.
func (a *authority) issue(name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.made++
	template.SerialNumber = big.NewInt(a.made)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{
		a.file(name + ".pem"): {Type: "CERTIFICATE", Bytes: der}, a.file(name + ".key"): {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return cert, key
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }
func (a *authority) ca() string              { return a.file(a.name + ".pem") }

func (a *authority) server(name string) []string {
	a.issue(name, &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	return []string{"--tls-cert=" + a.file(name+".pem"), "--tls-key=" + a.file(name+".key")}
}

func (a *authority) client(name, uri string) {
	u, err := url.Parse(uri)
	if err != nil {
		a.t.Fatal(err)
	}
	a.issue(name, &x509.Certificate{URIs: []*url.URL{u}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

// config is that of a client that trusts a, and shows the certificate of a name, unless that is empty.
func (a *authority) config(name string) *tls.Config {
	a.t.Helper()
	c := &tls.Config{RootCAs: x509.NewCertPool()}
	c.RootCAs.AddCert(a.cert)
	if name != "" {
		pair, err := tls.LoadX509KeyPair(a.file(name+".pem"), a.file(name+".key"))
		if err != nil {
			a.t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c
}

// dialTLS returns a client without an identity, by TLS.
func (w *world) dialTLS(c *tls.Config) *lpfileshare.Client {
	w.t.Helper()
	client, err := lpfileshare.Dial(w.grpc, lpfileshare.WithTLS(c))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { client.Close() })
	return client
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	server := ours.server("server")
	w := newWorld(t, sandbox.Options{}, append(server, "--tls-client-ca="+ours.ca(), "--listen=127.0.0.1:0", "--accounts="+newAccountsFile(t, "others: allow\n"+anyCaller).path)...)
	ours.client("orders", "spiffe://mesh/orders")
	theirs.client("stranger", "spiffe://mesh/orders")

	connect := func(c *tls.Config) error {
		conn, err := tls.Dial("tcp", w.grpc, c)
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		_, err = conn.Read(make([]byte, 1)) // TLS 1.3 reports a rejected certificate only now
		return err
	}
	good := ours.config("orders")
	good.NextProtos = []string{"h2"}
	if err := connect(good); err != nil { // the server's first frame comes
		t.Errorf("a certificate of ours: %v", err)
	}
	old := good.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if err := connect(old); err == nil {
		t.Error("TLS 1.1 was taken")
	}
	nobody := ours.config("")
	nobody.NextProtos = []string{"h2"}
	if err := connect(nobody); err == nil {
		t.Error("a client without a certificate was accepted")
	}
	stranger := theirs.config("stranger")
	stranger.NextProtos, stranger.RootCAs = []string{"h2"}, good.RootCAs
	if err := connect(stranger); err == nil {
		t.Error("a certificate of another authority was accepted")
	}
	plain, err := net.Dial("tcp", w.grpc)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	_ = plain.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprint(plain, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	answer := make([]byte, 9)
	if n, _ := plain.Read(answer); n == 9 && answer[3] == 4 { // a SETTINGS frame
		t.Error("plaintext was served")
	}
}

func TestTLS_ReloadsFiles(t *testing.T) {
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	server := ours.server("server")
	w := newWorld(t, sandbox.Options{}, append(server, "--tls-client-ca="+ours.ca(), "--accounts="+newAccountsFile(t, "others: allow\n"+anyCaller).path)...)
	ours.client("orders", "spiffe://mesh/orders")
	theirs.client("billing", "spiffe://mesh/billing")
	serial := func() int64 {
		t.Helper()
		c := ours.config("orders")
		c.NextProtos = []string{"h2"}
		conn, err := tls.Dial("tcp", w.grpc, c)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	open := w.dialTLS(ours.config("orders"))
	alive := func() {
		t.Helper()
		_, err := open.SignInConsumer(t.Context(), &pb.SignInConsumerRequest{Account: accountPath, Grant: &pb.SignInConsumerRequest_SignUp{SignUp: &pb.SignUp{}}})
		if err != nil {
			t.Errorf("over the connection from before: %v", err)
		}
	}
	alive()
	before := serial()
	ours.server("server")
	w.hangUp("TLS files reloaded")
	after := serial()
	if after == before {
		t.Error("the certificate of before is still shown")
	}
	alive()

	if err := os.WriteFile(ours.file("server.key"), []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.hangUp("TLS files are invalid")
	if serial() != after {
		t.Error("a file that cannot be used had an effect")
	}
	lineWith(t, w, "TLS files are invalid", 1)
	alive()

	// Another authority for the callers.
	ours.server("server")
	pem, err := os.ReadFile(theirs.ca())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ours.ca(), pem, 0o600); err != nil {
		t.Fatal(err)
	}
	w.hangUp("TLS files reloaded")
	c := theirs.config("billing")
	c.RootCAs = ours.config("").RootCAs
	if err := w.dialTLS(c).Connect(t.Context()); err != nil {
		t.Errorf("a caller of the new authority: %v", err)
	}
	if err := w.dialTLS(ours.config("orders")).Connect(t.Context()); err == nil {
		t.Error("a caller of the authority of before still gets in")
	}
}

func TestTLS_NotAfter(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "ours")
	first, _ := a.issue("server", &x509.Certificate{})
	served, err := newServerTLS(&tlsFlags{Cert: a.file("server.pem"), Key: a.file("server.key")}, "", &reloader{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if got := served.notAfter(); got != float64(first.NotAfter.Unix()) {
		t.Errorf("got %.0f, want %d", got, first.NotAfter.Unix())
	}
}

// buildClient builds cmd/client.
func buildClient(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lpfileshare")
	if out, err := exec.Command("go", "build", "-o", path, "../client").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

func TestTLS_ClientProgram(t *testing.T) {
	t.Parallel()
	ours := newAuthority(t, "ours")
	ours.client("orders", "spiffe://mesh/orders")
	file, opts := accountsWithIssuer(t)
	file.write(withIssuer + anyCaller)
	w := newWorld(t, opts, append(ours.server("server"), "--tls-client-ca="+ours.ca(), "--accounts="+file.path)...)
	program, dir := buildClient(t), t.TempDir()
	picture := filepath.Join(dir, "cat.jpg")
	if err := os.WriteFile(picture, photo(t, 50_000), 0o600); err != nil {
		t.Fatal(err)
	}
	lp := func(args ...string) (string, error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "LPFILESHARE_SESSION_FILE="+filepath.Join(dir, "session.json"), "LPFILESHARE_ADDRESS="+w.grpc)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	must := func(args ...string) string {
		t.Helper()
		out, err := lp(args...)
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return out
	}
	same := func(path string) {
		t.Helper()
		got, err := os.ReadFile(path)
		want, _ := os.ReadFile(picture)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s has %d bytes, %v", path, len(got), err)
		}
	}
	secure := []string{"--tls-ca=" + ours.ca(), "--client-cert=" + ours.file("orders.pem"), "--client-key=" + ours.file("orders.key")}
	with := func(args ...string) []string { return append(append([]string{}, secure...), args...) }

	// As a consumer with a token: the session file remembers the TLS files.
	must(with("sign-in")...)
	must("conversation", "create")
	must("upload", picture)
	must("ls")
	must("download", "1", "-o", filepath.Join(dir, "back.jpg"))
	same(filepath.Join(dir, "back.jpg"))

	// As a service that calls for a consumer.
	external := func(args ...string) []string {
		return with(append([]string{"--external-consumer-id=c-4711"}, args...)...)
	}
	created := must(external("--json", "conversation", "create")...)
	_, rest, _ := strings.Cut(created, `"name":"`)
	conv, _, ok := strings.Cut(rest, `"`)
	if !ok {
		t.Fatalf("a conversation: %s", created)
	}
	must(external("upload", "-c", conv, picture)...)
	listed := must(external("--json", "ls", "-c", conv)...)
	_, rest, _ = strings.Cut(listed, `"name":"`)
	name, _, _ := strings.Cut(rest, `"`)
	must(external("download", name, "-o", filepath.Join(dir, "back2.jpg"))...)
	same(filepath.Join(dir, "back2.jpg"))

	// Wrongly.
	for what, args := range map[string][]string{
		"no certificate":         {"--tls-ca=" + ours.ca(), "capabilities"},
		"plaintext":              {"--plaintext", "--session-file=" + filepath.Join(dir, "none"), "sign-in"},
		"a certificate, no key":  {"--client-cert=" + ours.file("orders.pem"), "capabilities"},
		"no such certificate":    {"--client-cert=nowhere", "--client-key=nowhere", "capabilities"},
		"an authority of others": {"--tls-ca=" + newAuthority(t, "theirs").ca(), "--client-cert=" + ours.file("orders.pem"), "--client-key=" + ours.file("orders.key"), "capabilities"},
	} {
		if out, err := lp(append([]string{"--timeout=10s"}, args...)...); err == nil {
			t.Errorf("%s: it worked: %s", what, out)
		}
	}
	fmt.Printf("the client program over mutual TLS: consumer and external consumer id, %d files published\n", len(w.sb.Journal().Published))
}
