package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
	"github.com/lpfileshare/lpfileshare/test/process"
	"github.com/lpfileshare/lpfileshare/test/wire"
)

// frames are validated against the schemas of test/wire.
var frames = wire.NewSuite("server")

// serverProcess is an environment variable that makes the test binary the server.
const serverProcess = "LPFILESHARE_TEST_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(serverProcess) != "" {
		main()
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) { os.Exit(frames.Exit(code)) }))
}

const (
	account     = harness.Account
	accountPath = harness.AccountPath
)

// A world is a sandbox and a server that uses it. The server runs in this process and gets the sandbox's addresses from its flags.
type world struct {
	t  *testing.T
	sb *sandbox.Sandbox
	// server is the one that was started last. grpc is its address, which a test may change, and logs is what it has logged.
	server *harness.Server
	grpc   string
	logs   *process.Log

	connector bool         // the account uses the Connector API: see over_test.go
	webhooks  string       // URL for the server's webhooks, or ""
	fixed     []string     // flags of every server of this world
	garbled   atomic.Bool  // the test damages webhooks
	frames    atomic.Int64 // number of frames so far

	mu        sync.Mutex
	receipts  map[string]int // sent by the server, by status
	consumers int            // number of consumers with an external id
}

// sawReceipt counts the receipts that the server sends.
func (w *world) sawReceipt(f sandbox.Frame) {
	if f.FromClient {
		w.sawRequest(f.Data)
	}
}

func (w *world) sawRequest(data []byte) {
	var request struct {
		Body struct{ Event struct{ Type, Status string } }
	}
	if json.Unmarshal(data, &request) == nil && request.Body.Event.Type == "AcceptStatusEvent" {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.receipts == nil {
			w.receipts = map[string]int{}
		}
		w.receipts[request.Body.Event.Status]++
	}
}

func (w *world) receiptsSent(status string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.receipts[status]
}

func newWorld(t *testing.T, opts sandbox.Options, args ...string) *world {
	t.Helper()
	w := newSandboxWorld(t, opts)
	w.start(args...)
	return w
}

// newConnectorWorld is a world whose account uses the Connector API.
func newConnectorWorld(t *testing.T, opts sandbox.Options, webhooks bool, args ...string) *world {
	t.Helper()
	w := newSandboxWorld(t, opts)
	w.connector = true
	w.fixed = w.connectorArgs(webhooks)
	w.start(args...)
	t.Cleanup(func() {
		for _, secret := range []string{sandbox.DefaultAppSecret, "eyJ", "temp_url_sig", "sha1=", "sha256="} { // eyJ: how a JWT begins
			if contains(w.logs.String(), secret) {
				t.Errorf("the log has %q in it", secret)
			}
		}
	})
	return w
}

// newSandboxWorld is a world before a server is in it.
func newSandboxWorld(t *testing.T, opts sandbox.Options) *world {
	t.Helper()
	w := &world{t: t}
	tap := frames.Watch(t)
	opts.OnExchange = func(x sandbox.Exchange) {
		if x.Endpoint == "send" {
			w.sawRequest(x.Request)
		}
		if x.Endpoint == "webhook" && w.garbled.Load() {
			tap.Exempt(wire.Frame{})
			return
		}
		tap.CheckExchange(wire.Exchange(x))
	}
	seen := opts.OnFrame
	opts.OnFrame = func(f sandbox.Frame) {
		if seen != nil {
			seen(f)
		}
		w.frames.Add(1)
		w.sawReceipt(f)
	}
	w.sb = harness.Sandbox(t, frames, opts)
	return w
}

// start runs a server before the sandbox. It ends with the test, and must end with 0.
func (w *world) start(args ...string) {
	w.t.Helper()
	w.run(slices.Concat(harness.Before(w.sb), []string{"--log-level=debug", "--drain-time=2s", "--drain-notice=0s", "--ledger=memory", "--reload-every=0"}, w.fixed, args)...)
}

// run is start with nothing but these flags.
func (w *world) run(args ...string) {
	w.t.Helper()
	s, err := harness.Start(harness.Func(run), args...)
	if err != nil {
		w.t.Fatal(err)
	}
	s.Stopped(w.t)
	w.server, w.grpc, w.logs = s, s.Addr, s.Logs
	w.hook()
}

// stop ends the server as SIGTERM would.
func (w *world) stop() {
	w.t.Helper()
	if err := w.server.Stop(); err != nil {
		w.t.Fatalf("the server ended with %v\n%s", err, w.logs.Tail())
	}
}

// logged waits for a line of the log that contains all of the words.
func (w *world) logged(words ...string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	if err := w.logs.Wait(ctx, 1, words...); err != nil {
		w.t.Fatalf("the log does not say %q: %v", words, err)
	}
}

// dial returns a client without an identity.
func (w *world) dial() *lpfileshare.Client {
	w.t.Helper()
	c, err := lpfileshare.Dial(w.grpc)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}

// A consumer is a client that has signed up.
type consumer struct {
	*lpfileshare.Client
	token, id string // token: the brand's own id, over the Connector API
}

func (w *world) consumer() consumer {
	w.t.Helper()
	c := w.dial()
	if w.connector {
		w.mu.Lock()
		w.consumers++
		external := fmt.Sprintf("consumer-%d", w.consumers)
		w.mu.Unlock()
		return consumer{c.As(lpfileshare.ExternalConsumerID(external)), external, externalID(external)}
	}
	in, err := harness.SignUp(w.t.Context(), c, account)
	if err != nil {
		w.t.Fatal(err)
	}
	return consumer{in.Client, in.Token, in.ID}
}

// again returns a client of the current server for a consumer that signed up at an earlier one.
func (w *world) again(c consumer) *lpfileshare.Client {
	w.t.Helper()
	if w.connector {
		return w.dial().As(lpfileshare.ExternalConsumerID(c.token))
	}
	return w.dial().As(lpfileshare.ConsumerToken(lpfileshare.StaticToken(c.token)))
}

func (w *world) agent(user string) *lpfileshare.Client {
	w.t.Helper()
	return w.dial().As(lpfileshare.AgentToken(lpfileshare.StaticToken(w.signInAgent(user))))
}

// signInAgent gives an agent's token.
func (w *world) signInAgent(user string) string {
	w.t.Helper()
	in, err := w.dial().Raw().Identity.SignInAgent(w.t.Context(), &pb.SignInAgentRequest{
		Account:     accountPath,
		Credentials: &pb.SignInAgentRequest_Password{Password: &pb.PasswordCredentials{Username: user, Password: "sandbox"}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return in.GetAgentToken()
}

// conversation opens one, and returns its name.
func (w *world) conversation(c *lpfileshare.Client) string {
	w.t.Helper()
	conv, err := harness.Open(w.t.Context(), c, account)
	if err != nil {
		w.t.Fatal(err)
	}
	return conv
}

func (w *world) upload(c *lpfileshare.Client, o lpfileshare.UploadOptions, data []byte) *pb.File {
	w.t.Helper()
	resp, err := c.Upload(w.t.Context(), o, bytes.NewReader(data))
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.GetFile()
}

func (w *world) download(c *lpfileshare.Client, name string) []byte {
	w.t.Helper()
	var b bytes.Buffer
	if _, err := c.Download(w.t.Context(), lpfileshare.DownloadOptions{Name: name}, &b); err != nil {
		w.t.Fatal(err)
	}
	return b.Bytes()
}

// wantReason checks that a call failed with a condition, and that nothing of it was published or stored.
func wantReason(t *testing.T, err error, want pb.ErrorReason) {
	t.Helper()
	if got := lpfileshare.ErrorReason(err); err == nil || got != want {
		t.Errorf("got %v (%v), want %v", err, got, want)
	}
}

// photo is a JPEG of n bytes, the same each time.
func photo(t testing.TB, n int) []byte {
	t.Helper()
	return harness.Photo(t, 1, n)
}

func tinyPNG(t testing.TB) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, 16, 16))
	img.Set(3, 3, color.RGBA{255, 0, 0, 255})
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func sha(b []byte) [32]byte { return sha256.Sum256(b) }

func contains(haystack, needle string) bool {
	return needle != "" && strings.Contains(haystack, needle)
}
