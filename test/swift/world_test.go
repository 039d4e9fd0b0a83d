package swift

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
	"github.com/lpfileshare/lpfileshare/test/wire"
)

// frames are those of all sandboxes here, held against the schemas of test/wire.
var frames = wire.NewSuite("swift")

func TestMain(m *testing.M) { os.Exit(frames.Exit(m.Run())) }

// A world is a LivePerson that the sandbox plays, which signs for the real Swift, and our server, a process of its own that knows
// both by the domain look-up alone.
type world struct {
	t      *testing.T
	sb     *sandbox.Sandbox
	swift  *cluster
	server *harness.Server
}

func newWorld(t *testing.T, opts sandbox.Options, args ...string) *world {
	t.Helper()
	w := &world{t: t, swift: realSwift(t)}
	if opts.SwiftURL == "" {
		opts.SwiftURL = w.swift.endpoint
	}
	opts.SwiftKey = w.swift.key
	w.sb = harness.Sandbox(t, frames, opts)
	w.start(args...)
	return w
}

// start runs a server. It ends with the test, and must end with 0.
func (w *world) start(args ...string) {
	w.t.Helper()
	program := os.Getenv("LPFILESHARE_SERVER")
	if program == "" {
		w.t.Fatal("LPFILESHARE_SERVER must name the server's program, as test/swift/run does")
	}
	args = append([]string{"--log-level=debug", "--drain-time=2s", "--ledger=memory"}, args...)
	server, err := harness.Start(harness.Binary(program), append(harness.Before(w.sb), args...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	server.Stopped(w.t)
	w.server = server
	w.t.Cleanup(func() {
		if w.t.Failed() {
			w.t.Logf("the server's log ends with:\n%s", server.Logs.Tail())
		}
	})
}

// A consumer has signed up, and has a conversation.
type consumer struct{ harness.Consumer }

func (w *world) consumer() consumer { return w.consumerOf(account) }

func (w *world) consumerOf(account string) consumer {
	w.t.Helper()
	c, err := harness.SignUpAndTalk(w.t.Context(), w.server.Dial(w.t), account)
	if err != nil {
		w.t.Fatal(err)
	}
	return consumer{c}
}

// once uploads in one attempt: what goes wrong is seen.
func (c consumer) once(ctx context.Context, name string, r io.Reader) (*pb.UploadResponse, error) {
	return c.attempt(ctx, name, "", r)
}

func (c consumer) attempt(ctx context.Context, name, requestID string, r io.Reader) (*pb.UploadResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return c.Upload(ctx, lpfileshare.UploadOptions{Conversation: c.Conversation, DisplayName: name, Caption: name, RequestID: requestID, RetryFor: -1}, r)
}

func (w *world) upload(c consumer, name string, data []byte) *pb.File {
	w.t.Helper()
	resp, err := c.once(w.t.Context(), name, bytes.NewReader(data))
	if err != nil {
		w.t.Fatalf("%s: %v", name, err)
	}
	return resp.GetFile()
}

// same downloads a file in one attempt, and checks that it is data.
func (w *world) same(c consumer, file *pb.File, data []byte) {
	w.t.Helper()
	var got bytes.Buffer
	if _, err := c.Download(w.t.Context(), lpfileshare.DownloadOptions{Name: file.GetName(), RetryFor: -1}, &got); err != nil {
		w.t.Errorf("download of %s: %v", file.GetDisplayName(), err)
		return
	}
	if sum(got.Bytes()) != sum(data) {
		w.t.Errorf("%s: %d bytes came back that are not the %d that were sent", file.GetDisplayName(), got.Len(), len(data))
	}
}

func (w *world) reason(err error, want pb.ErrorReason) {
	w.t.Helper()
	if got := lpfileshare.ErrorReason(err); err == nil || got != want {
		w.t.Errorf("got %v (%v), want %v", err, got, want)
	}
}

// --- the auditor: what Swift itself says is there ---

// An audit compares LivePerson's journal with what is in Swift.
type audit struct {
	// published is how often a caption was published; stored the sum of what is in Swift under that message's path.
	published map[string]int
	stored    map[string][32]byte
	// orphans are paths that were signed for an upload and hold an object that no message names.
	orphans []string
}

// audit asks Swift by its own token, and not by signed URLs, for every path that was signed for an upload.
func (w *world) audit() audit {
	w.t.Helper()
	token := w.swift.token(w.t)
	objects := w.swift.list(w.t, token)
	j := w.sb.Journal()
	a := audit{published: map[string]int{}, stored: map[string][32]byte{}}
	named := map[string]bool{}
	for _, p := range j.Published {
		a.published[p.Caption]++
		named[p.Path] = true
		data, ok := w.swift.fetch(w.t, token, p.Path)
		if !ok {
			w.t.Errorf("%q was published, and nothing is at its path", p.Caption)
		}
		a.stored[p.Caption] = sum(data)
	}
	for _, s := range j.Signed {
		if s.Method != http.MethodPut || named[s.Path] {
			continue
		}
		_, there := w.swift.fetch(w.t, token, s.Path)
		// The other way round it may be: a listing misses what an object server stored just before it died.
		if objects[s.Path] && !there {
			w.t.Errorf("the container lists an object that is not there: %s", s.Path)
		}
		if there {
			a.orphans = append(a.orphans, s.Path)
		}
	}
	return a
}

// nothing checks that nothing was published, and that no object is there.
func (w *world) nothing() {
	w.t.Helper()
	if a := w.audit(); len(a.published) > 0 || len(a.orphans) > 0 {
		w.t.Errorf("published are %v, and stored without a message are %d files; want neither", a.published, len(a.orphans))
	}
}

// token signs in at Swift.
func (c *cluster) token(t *testing.T) string {
	t.Helper()
	resp := c.ask(t, "/auth/v1.0", "X-Auth-User", c.user, "X-Auth-Key", c.password)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("signing in at Swift: %s", resp.Status)
	}
	return resp.Header.Get("X-Auth-Token")
}

// list returns the paths of all objects that the container lists.
func (c *cluster) list(t *testing.T, token string) map[string]bool {
	t.Helper()
	objects := map[string]bool{}
	for marker := ""; ; {
		resp := c.ask(t, strings.TrimSuffix(c.folder, "/")+"?format=json&marker="+url.QueryEscape(marker), "X-Auth-Token", token)
		var page []struct{ Name string }
		err := json.NewDecoder(resp.Body).Decode(&page)
		resp.Body.Close()
		if err != nil {
			t.Fatalf("listing the container: %s, %v", resp.Status, err)
		}
		if len(page) == 0 {
			return objects
		}
		for _, o := range page {
			objects[c.folder+o.Name] = true
			marker = o.Name
		}
	}
}

// fetch reads an object with a token.
func (c *cluster) fetch(t *testing.T, token, path string) (data []byte, there bool) {
	t.Helper()
	resp := c.ask(t, escape(path), "X-Auth-Token", token)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNotFound {
		t.Fatalf("reading an object: %s, %v", resp.Status, err)
	}
	return data, resp.StatusCode == http.StatusOK
}

// sawDisconnect counts the PUTs to signed paths that Swift says its client has left in the middle.
func (c *cluster) sawDisconnect(t *testing.T, signed []sandbox.SignedURL) (n int) {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(c.dir, "log", "proxy"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		if !strings.Contains(line, " HTTP/1.1 499 ") && !strings.Contains(line, " HTTP/1.0 499 ") {
			continue
		}
		for _, s := range signed {
			if strings.Contains(line, " PUT "+s.Path) {
				n++
			}
		}
	}
	return n
}

// storeAt stores an object as of another time, at the object server itself: no proxy takes a time from its client.
func (c *cluster) storeAt(t *testing.T, path string, data []byte, at time.Time) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, "etc", "settings"))
	if err != nil {
		t.Fatal(err)
	}
	setting := func(name string) string {
		_, rest, _ := strings.Cut(string(text), "\n"+name+"=")
		value, _, _ := strings.Cut(rest, "\n")
		return value
	}
	name := strings.TrimPrefix(path, "/v1")
	hash := md5.Sum([]byte(name + setting("hash_suffix")))
	partition := hash[0] >> 6 // of four
	target := fmt.Sprintf("http://127.0.0.1:%s/one/%d%s", setting("object_port"), partition, name)
	r, err := http.NewRequest(http.MethodPut, target, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "image/jpeg")
	r.Header.Set("X-Timestamp", fmt.Sprintf("%.5f", float64(at.UnixMicro())/1e6))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("the object server: %s", resp.Status)
	}
}

func (c *cluster) ask(t *testing.T, target string, header ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, c.endpoint+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	client := http.Client{Timeout: 20 * time.Second}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// --- trouble ---

// kill ends Swift's object server as a power cut would, and waits until it is gone.
func (c *cluster) kill(t *testing.T) {
	t.Helper()
	c.script(t, "down", "--kill", "object")
}

// repair brings up whatever of Swift does not run, and waits until all of it works. It returns the output of the script.
func (c *cluster) repair(t *testing.T) string {
	t.Helper()
	return c.script(t, "up")
}

func (c *cluster) script(t *testing.T, name string, args ...string) string {
	t.Helper()
	here, err := filepath.Abs(name)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(here, append([]string{c.dir}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// pause stops the object server without ending it: it takes connections, and answers nothing. goOn lets it run again.
func (c *cluster) pause(t *testing.T) (goOn func()) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, "run", "object.pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.Fields(string(text))[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	goOn = sync.OnceFunc(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	t.Cleanup(goOn)
	return goOn
}

// --- files ---

func sum(data []byte) [32]byte { return sha256.Sum256(data) }

// photo is a JPEG of n bytes, another each time.
func photo(t testing.TB, n int) []byte {
	t.Helper()
	return harness.Photo(t, rand.Uint64(), n)
}

// A gated reader gives data, and calls meanwhile once, in the middle. It can seek as files can, so that its size is known beforehand
// and the server streams it to Swift from the first byte on.
type gated struct {
	data      *bytes.Reader
	armed     bool // it has been measured, and is read to be sent
	meanwhile func()
}

func halfway(data []byte, meanwhile func()) io.ReadSeeker {
	return &gated{data: bytes.NewReader(data), meanwhile: meanwhile}
}

func (g *gated) Seek(offset int64, whence int) (int64, error) {
	g.armed = g.armed || whence == io.SeekStart
	return g.data.Seek(offset, whence)
}

func (g *gated) Read(p []byte) (int, error) {
	half := g.data.Size() / 2
	at := g.data.Size() - int64(g.data.Len())
	if at < half {
		p = p[:min(int64(len(p)), half-at)]
	} else if g.armed && at == half && g.meanwhile != nil {
		g.meanwhile()
		g.meanwhile = nil
	}
	return g.data.Read(p)
}
