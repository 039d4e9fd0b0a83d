// Package identity tests how callers are known where that needs time or other programs: keys and certificates that are replaced under
// load, and Envoy in front. `make test-identity` prints the numbers.
package identity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc/metadata"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
	"github.com/lpfileshare/lpfileshare/test/issuer"
	"github.com/lpfileshare/lpfileshare/test/wire"
)

var (
	// program is the server, without the race detector.
	program harness.Program
	// frames are those of all sandboxes here.
	frames = wire.NewSuite("identity")
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m, frames, &program)) }

// startServer starts a server before a sandbox, with an accounts file.
func startServer(t *testing.T, accounts string, args ...string) *harness.Server {
	t.Helper()
	file := filepath.Join(t.TempDir(), "accounts.yaml")
	if err := os.WriteFile(file, []byte(accounts), 0o600); err != nil {
		t.Fatal(err)
	}
	sb := harness.Sandbox(t, frames, sandbox.Options{})
	s, err := harness.Start(program, slices.Concat(harness.Before(sb), []string{"--ledger=memory", "--accounts=" + file}, args)...)
	if err != nil {
		t.Fatal(err)
	}
	s.Stopped(t)
	return s
}

// dial returns a client of an address. It ends with the test.
func dial(t *testing.T, address string, options ...lpfileshare.Option) *lpfileshare.Client {
	t.Helper()
	c, err := lpfileshare.Dial(address, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// ask makes a call that needs a permitted caller and no LivePerson. It makes one attempt.
func ask(ctx context.Context, c *lpfileshare.Client) error {
	_, err := c.SignInConsumer(ctx, &pb.SignInConsumerRequest{Account: harness.AccountPath, Grant: &pb.SignInConsumerRequest_SignUp{SignUp: &pb.SignUp{}}})
	return err
}

// A load is callers that make calls until end. A call that fails fails the test.
type load struct {
	calls []atomic.Int64 // of each caller
	end   func()
}

// startLoad runs callers, each of which calls call again and again.
func startLoad(t *testing.T, callers int, call func() error) *load {
	l, done := &load{calls: make([]atomic.Int64, callers)}, make(chan struct{})
	var running sync.WaitGroup
	l.end = sync.OnceFunc(func() { close(done); running.Wait() })
	t.Cleanup(l.end)
	for n := range callers {
		running.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := call(); err != nil {
					t.Errorf("a call failed: %v", err)
					return
				}
				l.calls[n].Add(1)
			}
		})
	}
	return l
}

// more waits until each caller has ended some more calls. All but its first have begun since.
func (l *load) more(t *testing.T) {
	t.Helper()
	const more = 5
	for n := range l.calls {
		at := l.calls[n].Load() + more
		harness.Eventually(t, "calls continue", func() bool { return l.calls[n].Load() >= at || t.Failed() })
	}
}

// sum returns the number of all calls.
func (l *load) sum() (sum int64) {
	for n := range l.calls {
		sum += l.calls[n].Load()
	}
	return sum
}

// A currentToken is a TokenSource that signs a token for each call, with the key of now.
type currentToken struct {
	issuer *issuer.Issuer
	key    atomic.Pointer[string]
	serial atomic.Int64
}

func (c *currentToken) Token(context.Context) (string, error) {
	claims := c.issuer.Claims("chat")
	claims["jti"] = fmt.Sprint(c.serial.Add(1)) // so that no verification is remembered
	return c.issuer.Token(*c.key.Load(), claims), nil
}

func TestKeys_RotatedUnderLoad(t *testing.T) {
	i := issuer.New(t)
	s := startServer(t, "others: allow\ncallers: [{subjects: \"jwt:chat\", accounts: all, tokens: consumer}]\n", "--jwt-issuer="+i.URL(), "--jwt-audience="+issuer.Audience)
	if err := s.Logs.Wait(t.Context(), 1, "the keys of --jwt-issuer were fetched"); err != nil {
		t.Fatal(err)
	}
	source := &currentToken{issuer: i}
	use := func(key string) { source.key.Store(&key) }
	use("k1")
	c := dial(t, s.Addr, lpfileshare.WithBearerToken(source))
	l := startLoad(t, 4, func() error { return ask(t.Context(), c) })
	const rotations = 2
	for n := 2; n < 2+rotations; n++ {
		l.more(t)
		i.Publish(fmt.Sprint("k", n), issuer.NewKey(t))
		use(fmt.Sprint("k", n))
		l.more(t)
		i.Withdraw(fmt.Sprint("k", n-1))
	}
	l.end()
	fetches := i.Fetches.Load()
	fmt.Printf("identity: %d rotations of keys under load: %d calls with a new token each, %d fetches of keys\n", rotations, l.sum(), fetches)
	if fetches > 1+rotations {
		t.Errorf("%d fetches for %d rotations", fetches, rotations)
	}
}

func TestKeys_ForgedIDs(t *testing.T) {
	i := issuer.New(t)
	s := startServer(t, "others: allow\ncallers: [{subjects: \"jwt:chat\", accounts: all, tokens: consumer}]\n", "--jwt-issuer="+i.URL(), "--jwt-audience="+issuer.Audience)
	if err := s.Logs.Wait(t.Context(), 1, "the keys of --jwt-issuer were fetched"); err != nil {
		t.Fatal(err)
	}
	good := dial(t, s.Addr, lpfileshare.WithBearerToken(lpfileshare.StaticToken(i.Token("k1", i.Claims("chat")))))
	l := startLoad(t, 1, func() error { return ask(t.Context(), good) })
	before, begin, forger := i.Fetches.Load(), time.Now(), issuer.NewKey(t)
	const forged = 50
	for n := range forged {
		token := issuer.Sign(t, jwt.SigningMethodES256, fmt.Sprint("forged", n), forger, i.Claims("chat"))
		err := ask(t.Context(), dial(t, s.Addr, lpfileshare.WithBearerToken(lpfileshare.StaticToken(token))))
		if got := lpfileshare.ErrorReason(err); got != pb.ErrorReason_ERROR_REASON_CALLER_NOT_AUTHENTICATED {
			t.Errorf("a forged token: %v", err)
		}
	}
	l.more(t)
	l.end()
	fetches := i.Fetches.Load() - before
	fmt.Printf("identity: %d forged key ids in %s: %d fetches of keys, %d honest calls meanwhile, 0 failed\n", forged, time.Since(begin).Round(time.Millisecond), fetches, l.sum())
	if fetches > 4 {
		t.Errorf("%d fetches", fetches)
	}
}

// Certificates of the server and of callers, and their authority, are replaced one after the other while each call has a connection of
// its own. Both authorities are trusted meanwhile, as in any rotation.
func TestCertificates_RotatedUnderLoad(t *testing.T) {
	dir := t.TempDir()
	certs := newAuthority(t, "first")
	server, client := certs.server(), certs.client("spiffe://bank/chat")
	write := func(name string, content ...[]byte) {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file+".new", bytes.Join(content, nil), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	write("cert", server.cert)
	write("key", server.key)
	write("ca", certs.pem)
	s := startServer(t, "others: allow\ncallers: [{certificates: \"uri:spiffe://bank/chat\", accounts: all, tokens: consumer}]\n",
		"--tls-cert="+filepath.Join(dir, "cert"), "--tls-key="+filepath.Join(dir, "key"), "--tls-client-ca="+filepath.Join(dir, "ca"), "--reload-every=20ms")
	var config atomic.Pointer[tls.Config]
	config.Store(client.config(t, certs))
	l := startLoad(t, 4, func() error {
		c, err := lpfileshare.Dial(s.Addr, lpfileshare.WithTLS(config.Load()))
		if err != nil {
			return err
		}
		defer c.Close()
		return ask(t.Context(), c)
	})
	reloads := 0
	reloaded := func() {
		t.Helper()
		reloads++
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Logs.Wait(ctx, reloads, "TLS files reloaded"); err != nil {
			t.Fatalf("no reload: %v\n%s", err, s.Logs.Tail())
		}
	}
	const rotations = 3
	for n := range rotations {
		l.more(t)
		next := newAuthority(t, fmt.Sprint("next", n))
		write("ca", certs.pem, next.pem)
		reloaded()
		config.Store(next.client("spiffe://bank/chat").config(t, certs, next))
		l.more(t)
		pair := next.server()
		write("key", pair.key) // half of the pair is no reason to reject a connection
		write("cert", pair.cert)
		reloaded()
		l.more(t)
		write("ca", next.pem)
		reloaded()
		certs = next
	}
	l.more(t)
	l.end()
	fmt.Printf("identity: %d rotations of all certificates under load: %d calls, each with a connection of its own, %d reloads\n", rotations, l.sum(), reloads)
}

// Envoy authenticates its clients by certificates, and itself to the server, which believes what Envoy forwards and nothing else.
func TestEnvoy(t *testing.T) {
	certs := newAuthority(t, "bank")
	server := certs.server()
	dir := t.TempDir()
	server.write(t, dir, "server")
	certs.client("spiffe://bank/edge").write(t, dir, "edge")
	certs.write(t, dir)
	s := startServer(t, "others: allow\ncallers: [{certificates: \"uri:spiffe://bank/chat\", accounts: all, tokens: consumer}]\n",
		"--tls-cert="+filepath.Join(dir, "server.pem"), "--tls-key="+filepath.Join(dir, "server.key"), "--tls-client-ca="+filepath.Join(dir, "ca.pem"),
		"--trusted-proxy=uri:spiffe://bank/edge")
	address := startEnvoy(t, dir, s.Addr)
	as := func(id string) *lpfileshare.Client {
		return dial(t, address, lpfileshare.WithTLS(certs.client(id).config(t, certs)))
	}
	chat := as("spiffe://bank/chat")
	if err := chat.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantReason := func(what string, err error, want pb.ErrorReason) {
		t.Helper()
		if got := lpfileshare.ErrorReason(err); got != want {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	const denied = pb.ErrorReason_ERROR_REASON_CALLER_NOT_PERMITTED
	if err := ask(t.Context(), chat); err != nil {
		t.Fatalf("a permitted caller: %v", err)
	}
	other := as("spiffe://bank/other")
	wantReason("another caller", ask(t.Context(), other), denied)
	spoofed := metadata.AppendToOutgoingContext(t.Context(), "x-forwarded-client-cert", "By=spiffe://bank/edge;URI=spiffe://bank/chat")
	wantReason("a header of the client through Envoy", ask(spoofed, other), denied)
	wantReason("a common name that looks like a URI", ask(t.Context(), dial(t, address, lpfileshare.WithTLS(certs.common("spiffe://bank/chat").config(t, certs)))),
		pb.ErrorReason_ERROR_REASON_CALLER_NOT_AUTHENTICATED)
	direct := dial(t, s.Addr, lpfileshare.WithTLS(certs.client("spiffe://bank/other").config(t, certs)))
	wantReason("a header without Envoy", ask(spoofed, direct), pb.ErrorReason_ERROR_REASON_CALLER_NOT_AUTHENTICATED)
	if err := dial(t, address, lpfileshare.WithTLS(certs.anonymous())).Connect(t.Context()); err == nil {
		t.Error("Envoy accepts a client without a certificate")
	}

	caller, err := harness.SignUpAndTalk(t.Context(), chat, harness.Account)
	if err != nil {
		t.Fatal(err)
	}
	data := harness.Photo(t, 1, 2_700_000)
	begin := time.Now()
	resp, err := caller.Upload(t.Context(), lpfileshare.UploadOptions{Conversation: caller.Conversation, DisplayName: "a.jpg"}, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	var back bytes.Buffer
	if _, err := caller.Download(t.Context(), lpfileshare.DownloadOptions{Name: resp.GetFile().GetName()}, &back); err != nil || sha256.Sum256(back.Bytes()) != sha256.Sum256(data) {
		t.Errorf("the download has %d bytes, %v", back.Len(), err)
	}
	fmt.Printf("identity: through Envoy with mTLS on both sides: an upload of 2.7 MB in %s, and the same bytes back\n", took.Round(time.Millisecond))
}
