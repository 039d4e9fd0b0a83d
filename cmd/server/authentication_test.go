package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
	bearer "github.com/lpfileshare/lpfileshare/test/issuer"
)

// dialBearer returns a client that sends a bearer token, unless that is empty.
func (w *world) dialBearer(token string, options ...lpfileshare.Option) *lpfileshare.Client {
	w.t.Helper()
	if token != "" {
		options = append(options, lpfileshare.WithBearerToken(lpfileshare.StaticToken(token)))
	}
	c, err := lpfileshare.Dial(w.grpc, options...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}

// capabilities makes a call as a consumer of the brand. headers are keys and values of metadata.
func capabilities(t *testing.T, c *lpfileshare.Client, consumer string, headers ...string) error {
	t.Helper()
	ctx := metadata.AppendToOutgoingContext(t.Context(), headers...)
	_, err := c.As(lpfileshare.ExternalConsumerID(consumer)).Raw().Files.GetCapabilities(ctx, &pb.GetCapabilitiesRequest{Account: accountPath})
	return err
}

// wantCaller checks the reason of a call's error, with its why; 0: no error.
func wantCaller(t *testing.T, what string, err error, reason pb.ErrorReason, why string) {
	t.Helper()
	got := ""
	for _, d := range status.Convert(err).Details() {
		if i, ok := d.(*errdetails.ErrorInfo); ok {
			got = i.GetMetadata()["why"]
		}
	}
	if lpfileshare.ErrorReason(err) != reason || got != why || (err == nil) != (reason == 0) {
		t.Errorf("%s: %v (%s), want %v (%s)", what, err, got, reason, why)
	}
}

const (
	notAuthenticated = pb.ErrorReason_ERROR_REASON_CALLER_NOT_AUTHENTICATED
	notPermitted     = pb.ErrorReason_ERROR_REASON_CALLER_NOT_PERMITTED
)

func TestTokens(t *testing.T) {
	t.Parallel()
	i := bearer.New(t)
	file, opts := accountsWithIssuer(t)
	file.write(withIssuer + `callers:
- subjects: ["jwt:chat", "jwt:bank/*"]
  accounts: all
  tokens: consumer
  consumers: ["pay-*"]
`)
	w := newWorld(t, opts, "--accounts="+file.path, "--jwt-issuer="+i.URL(), "--jwt-audience="+bearer.Audience)
	w.logged("the keys of --jwt-issuer were fetched")
	expired, audience, other := i.Claims("chat"), i.Claims("chat"), i.Claims("chat")
	expired["exp"] = time.Now().Add(-time.Hour).Unix()
	audience["aud"] = "another"
	other["iss"] = "https://issuer.example"
	for what, test := range map[string]struct {
		token, consumer string
		reason          pb.ErrorReason
		why             string
	}{
		"a permitted subject":  {i.Token("k1", i.Claims("chat")), "pay-1", 0, ""},
		"a pattern":            {i.Token("k1", i.Claims("bank/web")), "pay-1", 0, ""},
		"another consumer":     {i.Token("k1", i.Claims("chat")), "c-1", notPermitted, ""},
		"another subject":      {i.Token("k1", i.Claims("other")), "pay-1", notPermitted, ""},
		"no token, loopback":   {"", "pay-1", notAuthenticated, "missing"},
		"an expired one":       {i.Token("k1", expired), "pay-1", notAuthenticated, "expired"},
		"for another audience": {i.Token("k1", audience), "pay-1", notAuthenticated, "invalid"},
		"of another issuer":    {i.Token("k1", other), "pay-1", notAuthenticated, "invalid"},
		"of another key":       {i.Token("k1", i.Claims("chat"))[:40] + i.Token("k1", i.Claims("chat")), "pay-1", notAuthenticated, "invalid"},
	} {
		wantCaller(t, what, capabilities(t, w.dialBearer(test.token), test.consumer), test.reason, test.why)
		if test.token != "" && contains(w.logs.String(), test.token) {
			t.Errorf("%s: the token is in the log", what)
		}
	}
	chat := w.dialBearer(i.Token("k1", i.Claims("chat")))
	wantCaller(t, "with a forwarded certificate", capabilities(t, chat, "pay-1", "x-forwarded-client-cert", "URI=spiffe://mesh/admin"), notAuthenticated, "header")
	// Calls that carry no LivePerson identity need a token too, probes do not.
	in, err := harness.SignUp(t.Context(), chat, account)
	if err != nil {
		t.Fatal(err)
	}
	w.upload(in.Client, lpfileshare.UploadOptions{Conversation: w.conversation(in.Client), DisplayName: "a.jpg"}, photo(t, 20_000))
	_, err = harness.SignUp(t.Context(), w.dial(), account)
	wantCaller(t, "a sign-in without a token", err, notAuthenticated, "missing")
	for _, name := range []string{"", callersHealth, readyHealth} {
		if state, err := w.dial().Health(t.Context(), name); err != nil || state != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("health of %q: %v, %v", name, state, err)
		}
	}
}

func TestTokens_UnreachableIssuer(t *testing.T) {
	t.Parallel()
	i := bearer.New(t)
	i.Answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }, "")
	file := newAccountsFile(t, "others: allow\ncallers: [{subjects: any, accounts: all, tokens: consumer}]\n")
	w := newWorld(t, sandbox.Options{}, "--accounts="+file.path, "--jwt-issuer="+i.URL(), "--jwt-audience="+bearer.Audience)
	w.logged("the keys of --jwt-issuer cannot be fetched", "UNAVAILABLE")
	chat := w.dialBearer(i.Token("k1", i.Claims("chat")))
	_, err := chat.SignInConsumer(t.Context(), &pb.SignInConsumerRequest{Account: accountPath, Grant: &pb.SignInConsumerRequest_SignUp{SignUp: &pb.SignUp{}}})
	wantCaller(t, "without keys", err, pb.ErrorReason_ERROR_REASON_CALLER_KEYS_UNAVAILABLE, "")
	if _, ok := lpfileshare.RetryDelay(err); !ok {
		t.Error("the error has no RetryInfo")
	}
	for name, want := range map[string]healthpb.HealthCheckResponse_ServingStatus{
		"": healthpb.HealthCheckResponse_SERVING, callersHealth: healthpb.HealthCheckResponse_NOT_SERVING, readyHealth: healthpb.HealthCheckResponse_NOT_SERVING,
	} {
		if state, err := w.dial().Health(t.Context(), name); err != nil || state != want {
			t.Errorf("health of %q: %v, %v; want %v", name, state, err, want)
		}
	}
	// When the issuer answers, calls succeed.
	i.Answer(nil, "")
	w.logged("the keys of --jwt-issuer were fetched")
	if _, err := harness.SignUp(t.Context(), chat, account); err != nil {
		t.Error(err)
	}
}

func TestTrustedProxy(t *testing.T) {
	t.Parallel()
	ours := newAuthority(t, "ours")
	ours.client("edge", "spiffe://mesh/edge")
	ours.client("chat", "spiffe://mesh/chat")
	ours.issue("common", &x509.Certificate{Subject: pkix.Name{CommonName: "spiffe://mesh/edge"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	file, opts := accountsWithIssuer(t)
	file.write(withIssuer + "callers: [{certificates: \"uri:spiffe://mesh/chat\", accounts: all, tokens: consumer, consumers: \"pay-*\"}]\n")
	i := bearer.New(t)
	w := newWorld(t, opts, append(ours.server("server"), "--tls-client-ca="+ours.ca(), "--accounts="+file.path, "--trusted-proxy=uri:spiffe://mesh/edge",
		"--jwt-issuer="+i.URL(), "--jwt-audience="+bearer.Audience)...)
	w.logged("the keys of --jwt-issuer were fetched")
	clients := map[string]*lpfileshare.Client{}
	for _, name := range []string{"edge", "chat", "common"} {
		clients[name] = w.dialTLS(ours.config(name))
	}
	const header, by = "x-forwarded-client-cert", "By=spiffe://mesh/edge;Hash=0a;"
	for _, test := range []struct {
		what, client string
		headers      []string
		reason       pb.ErrorReason
		why          string
	}{
		{"a permitted client of the proxy", "edge", []string{header, by + `Subject="CN=x";URI=spiffe://mesh/chat`}, 0, ""},
		{"the same without the proxy", "chat", nil, 0, ""},
		{"another client of the proxy", "edge", []string{header, by + "URI=spiffe://mesh/other"}, notPermitted, ""},
		{"the proxy itself", "edge", []string{header, by + "URI=spiffe://mesh/edge"}, notPermitted, ""},
		{"a client without a certificate", "edge", nil, notAuthenticated, "missing"},
		{"a common name that looks like a URI", "edge", []string{header, by + `Subject="CN=spiffe://mesh/chat"`}, notAuthenticated, "header"},
		{"a header that the client sent too", "edge", []string{header, "URI=spiffe://mesh/chat", header, by + "URI=spiffe://mesh/other"}, notAuthenticated, "header"},
		{"an element before that of the proxy", "edge", []string{header, "URI=spiffe://mesh/chat," + by + "URI=spiffe://mesh/other"}, notPermitted, ""},
		{"a header of another proxy", "edge", []string{header, "By=spiffe://mesh/other;URI=spiffe://mesh/chat"}, notAuthenticated, "header"},
		{"a client that is no proxy", "chat", []string{header, by + "URI=spiffe://mesh/chat"}, notAuthenticated, "header"},
		{"a common name like the proxy's URI", "common", []string{header, by + "URI=spiffe://mesh/chat"}, notAuthenticated, "header"},
		{"a token beside a certificate", "chat", []string{"authorization", "Bearer " + i.Token("k1", i.Claims("spiffe://mesh/chat"))}, notPermitted, ""},
		{"an invalid token beside a certificate", "chat", []string{"authorization", "Bearer x"}, notAuthenticated, "invalid"},
	} {
		wantCaller(t, test.what, capabilities(t, clients[test.client], "pay-1", test.headers...), test.reason, test.why)
	}
}

func TestSidecar(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{}, "--sidecar")
	wantCaller(t, "over loopback", capabilities(t, w.dial(), "pay-1"), notAuthenticated, "")
	if _, err := harness.SignUp(t.Context(), w.dial(), account); err != nil {
		t.Errorf("a caller with a proof of LivePerson: %v", err)
	}
}

// A server whose callers have names requires rules, and shows some that it accepts. One that cannot know its callers keeps no
// credentials.
func TestAuthentication_RulesAreRequired(t *testing.T) {
	t.Parallel()
	i := bearer.New(t)
	token := []string{"--jwt-issuer=" + i.URL(), "--jwt-audience=files"}
	start := func(args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if code := run(t.Context(), append([]string{"--ledger=memory", "--listen=127.0.0.1:0"}, args...), &out, &errs); code == 0 {
			t.Errorf("%q starts", args)
		}
		return errs.String()
	}
	accepted := func(text string, args ...string) {
		t.Helper()
		var out, errs bytes.Buffer
		f, _, done := parse(append(args, "--accounts="+newAccountsFile(t, text).path), &out, &errs)
		if done {
			t.Fatal(errs.String())
		}
		if _, err := f.accounts(); err != nil {
			t.Error(err)
		}
	}
	said := start(token...)
	_, example, _ := strings.Cut(said, "for example:\n\n")
	if !strings.Contains(said, "--jwt-issuer requires rules that say which subjects of tokens may call") || !strings.Contains(example, "jwt:") {
		t.Errorf("it says %s", said)
	}
	accepted(example, token...)
	ours := newAuthority(t, "ours")
	both := slices.Concat(token, ours.server("server"), []string{"--tls-client-ca=" + ours.ca()})
	_, example, _ = strings.Cut(start(both...), "for example:\n\n")
	if !strings.Contains(example, "jwt:") || !strings.Contains(example, "uri:") {
		t.Errorf("the example is %s", example)
	}
	accepted(example, both...)
	without := newAccountsFile(t, "others: allow\n")
	_, example, _ = strings.Cut(strings.TrimSpace(start(append(token, "--accounts="+without.path)...)), "for example ")
	accepted("others: allow\n"+example+"\n", token...)

	file, _ := accountsWithIssuer(t)
	if said := start("--accounts="+file.path, "--sidecar"); !strings.Contains(said, "cannot be authenticated") {
		t.Errorf("credentials behind a sidecar: %s", said)
	}
	for _, test := range []struct {
		want string
		args []string
	}{
		{"--jwt-issuer requires --jwt-audience", token[:1]},
		{"--jwt-audience requires an issuer", []string{"--jwt-audience=files"}},
		{"--jwt-keys requires an issuer", []string{"--jwt-keys=https://issuer.example/keys"}},
		{"is not https://HOST/PATH", []string{"--jwt-issuer=http://issuer.example", "--jwt-audience=files"}},
		{"--trusted-proxy requires certificates", append(slices.Clone(token), "--trusted-proxy=uri:spiffe://mesh/edge")},
		{"any client could then name itself", append(slices.Clone(both), "--trusted-proxy=any")},
		{"does not begin with a kind of names", append(slices.Clone(both), "--trusted-proxy=jwt:edge")},
		{"--spiffe-socket replaces the TLS files", append(slices.Clone(both), "--spiffe-socket=unix:///s")},
		{"is not the address of a Workload API", []string{"--spiffe-socket=/run/spire.sock"}},
		{"--spiffe-trust-domain requires the Workload API", []string{"--spiffe-trust-domain=mesh"}},
		{"is not a trust domain", []string{"--spiffe-socket=unix:///s", "--spiffe-trust-domain=a b"}},
	} {
		if said := start(test.args...); !strings.Contains(said, test.want) {
			t.Errorf("%q: %s, want %q", test.args, said, test.want)
		}
	}
}

// Files that have changed are loaded without a signal. A pair that does not fit has no effect and is logged once.
func TestTLS_PollsFiles(t *testing.T) {
	t.Parallel()
	ours := newAuthority(t, "ours")
	w := newWorld(t, sandbox.Options{}, append(ours.server("server"), "--reload-every=10ms")...)
	serial := func() int64 {
		t.Helper()
		c := ours.config("")
		c.NextProtos = []string{"h2"}
		conn, err := tls.Dial("tcp", w.grpc, c)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	before := serial()
	ours.server("next") // a pair of other files
	replace := func(name, with string) {
		t.Helper()
		text, err := os.ReadFile(ours.file(with))
		if err == nil {
			err = os.WriteFile(ours.file(name+".new"), text, 0o600)
		}
		if err == nil {
			err = os.Rename(ours.file(name+".new"), ours.file(name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	replace("server.pem", "next.pem") // half of the pair
	w.logged("TLS files are invalid")
	if serial() != before {
		t.Error("half a pair has an effect")
	}
	replace("server.key", "next.key")
	w.logged("TLS files reloaded")
	if serial() == before {
		t.Error("the previous certificate is still shown")
	}
	if n := w.logs.Count("TLS files are invalid"); n != 1 {
		t.Errorf("%d lines about one invalid pair", n)
	}
}

// A workloadAPI is a SPIFFE Workload API that sends what it gets.
type workloadAPI struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	updates chan *workload.X509SVIDResponse
}

func (a *workloadAPI) FetchX509SVID(_ *workload.X509SVIDRequest, stream workload.SpiffeWorkloadAPI_FetchX509SVIDServer) error {
	for {
		select {
		case r := <-a.updates:
			if err := stream.Send(r); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return nil
		}
	}
}

// startWorkloadAPI serves one, and returns its address.
func startWorkloadAPI(t *testing.T) (*workloadAPI, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "spiffe") // short: the path of a Unix socket has about 100 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	listener, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	api, server := &workloadAPI{updates: make(chan *workload.X509SVIDResponse, 1)}, grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(server, api)
	go func() { _ = server.Serve(listener) }() // ends with Stop
	t.Cleanup(server.Stop)
	return api, "unix://" + filepath.Join(dir, "s")
}

// svid issues an X.509-SVID, and returns it as a Workload API sends it, with the bundles of other trust domains.
func (a *authority) svid(id string, federated map[string][]byte) *workload.X509SVIDResponse {
	a.t.Helper()
	u, err := url.Parse(id)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, key := a.issue(filepath.Base(id), &x509.Certificate{
		URIs: []*url.URL{u}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return &workload.X509SVIDResponse{
		Svids:            []*workload.X509SVID{{SpiffeId: id, X509Svid: cert.Raw, X509SvidKey: der, Bundle: a.cert.Raw}},
		FederatedBundles: federated,
	}
}

func TestSPIFFE(t *testing.T) {
	t.Parallel()
	mesh, partner := newAuthority(t, "mesh"), newAuthority(t, "partner")
	federated := map[string][]byte{"spiffe://partner": partner.cert.Raw}
	mesh.svid("spiffe://mesh/chat", nil)
	partner.svid("spiffe://partner/chat", nil)
	file, opts := accountsWithIssuer(t)
	file.write(withIssuer + "callers: [{certificates: [\"uri:spiffe://mesh/*\", \"uri:spiffe://partner/*\"], accounts: all, consumers: \"pay-*\"}]\n")
	connect := func(w *world, a *authority, id string) *lpfileshare.Client {
		c := a.config(id)
		c.InsecureSkipVerify = true // the server's certificate has a SPIFFE id, and no address
		return w.dialTLS(c)
	}
	t.Run("own trust domain", func(t *testing.T) {
		api, address := startWorkloadAPI(t)
		api.updates <- mesh.svid("spiffe://mesh/server", federated)
		w := newWorld(t, opts, "--accounts="+file.path, "--spiffe-socket="+address)
		chat := connect(w, mesh, "chat")
		wantCaller(t, "a member", capabilities(t, chat, "pay-1"), 0, "")
		wantCaller(t, "another consumer", capabilities(t, chat, "c-1"), notPermitted, "")
		if err := connect(w, partner, "chat").Connect(t.Context()); err == nil {
			t.Error("a member of another trust domain connects")
		}
		// The certificate is replaced, and the authority with it.
		serial := func() int64 {
			t.Helper()
			conn, err := tls.Dial("tcp", w.grpc, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, Certificates: mesh.config("chat").Certificates})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
		}
		before := serial()
		next := newAuthority(t, "next")
		next.svid("spiffe://mesh/chat", nil)
		rotated := mesh.svid("spiffe://mesh/server", nil)
		rotated.Svids[0].Bundle = next.cert.Raw
		w.logged("certificate received from the Workload API")
		updates := w.logs.Count("certificate received from the Workload API")
		api.updates <- rotated
		harness.Eventually(t, "the server has the next certificate", func() bool { return w.logs.Count("certificate received from the Workload API") > updates })
		if serial() == before {
			t.Error("the previous certificate is still shown")
		}
		wantCaller(t, "over the open connection", capabilities(t, chat, "pay-1"), 0, "")
		wantCaller(t, "a certificate of the next authority", capabilities(t, connect(w, next, "chat"), "pay-1"), 0, "")
		if err := connect(w, mesh, "chat").Connect(t.Context()); err == nil {
			t.Error("a certificate of the previous authority is accepted")
		}
	})
	t.Run("named trust domains", func(t *testing.T) {
		api, address := startWorkloadAPI(t)
		api.updates <- mesh.svid("spiffe://mesh/server", federated)
		w := newWorld(t, opts, "--accounts="+file.path, "--spiffe-socket="+address, "--spiffe-trust-domain=partner")
		wantCaller(t, "a member", capabilities(t, connect(w, partner, "chat"), "pay-1"), 0, "")
		if err := connect(w, mesh, "chat").Connect(t.Context()); err == nil {
			t.Error("a member of the server's trust domain connects, which is not named")
		}
		forged := newAuthority(t, "forged")
		forged.svid("spiffe://partner/chat", nil)
		if err := connect(w, forged, "chat").Connect(t.Context()); err == nil {
			t.Error("a certificate of an unknown authority is accepted")
		}
	})
}
