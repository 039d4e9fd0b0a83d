package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

// An accountsFile is the accounts file of a server. Tests replace it while the server runs.
type accountsFile struct {
	t    *testing.T
	path string
}

func newAccountsFile(t *testing.T, text string) accountsFile {
	f := accountsFile{t, filepath.Join(t.TempDir(), "accounts.yaml")}
	f.write(text)
	return f
}

// write replaces the whole file at once.
func (f accountsFile) write(text string) {
	f.t.Helper()
	if err := os.WriteFile(f.path+".new", []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(f.path+".new", f.path); err != nil {
		f.t.Fatal(err)
	}
}

// hangUp sends this process, and with it the server in it, a SIGHUP, and waits until the log has one more line with mark.
func (w *world) hangUp(mark string) {
	w.t.Helper()
	before := w.logs.Count(mark)
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Signal(syscall.SIGHUP)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	if err := w.logs.Wait(ctx, before+1, mark); err != nil {
		w.t.Fatalf("the log does not say %q: %v", mark, err)
	}
}

const (
	readAgain = "accounts file reloaded"
	notUsable = "accounts file is invalid"
)

// A load is callers that upload and download until end is called. They do not repeat failed calls.
type load struct {
	uploads, downloads, failed atomic.Int64
	end                        func()
}

func (w *world) load(callers int) *load {
	l := &load{}
	ctx, cancel := context.WithCancel(w.t.Context())
	var running sync.WaitGroup
	l.end = func() { cancel(); running.Wait() }
	w.t.Cleanup(l.end)
	for n := range callers {
		c := w.consumer()
		conv := w.conversation(c.Client)
		data := photo(w.t, 20_000+n*40_000)
		running.Go(func() {
			for ctx.Err() == nil { // the calls themselves are not cut off, so that each must succeed
				resp, err := c.Upload(context.WithoutCancel(ctx), lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.jpg", RetryFor: -1}, bytes.NewReader(data))
				if err != nil {
					l.failed.Add(1)
					w.t.Errorf("an upload: %v", err)
					return
				}
				l.uploads.Add(1)
				var back bytes.Buffer
				if _, err := c.Download(context.WithoutCancel(ctx), lpfileshare.DownloadOptions{Name: resp.GetFile().GetName(), RetryFor: -1}, &back); err != nil || sha(back.Bytes()) != sha(data) {
					l.failed.Add(1)
					w.t.Errorf("a download of %d bytes: %v", back.Len(), err)
					return
				}
				l.downloads.Add(1)
			}
		})
	}
	return l
}

func TestReload_UnderLoadFailsNoCall(t *testing.T) {
	const reloads, callers = 10, 3
	// Each differs from the one before in what may differ, the account's own hosts included.
	content := func(n int) string {
		return fmt.Sprintf("accounts:\n  %q:\n    limits: {max_file_bytes: %dMB}\n    check_etag: %v\n    domain_suffixes: [.n%d.example.com]\n  other%d:\n",
			account, 3+n%3, n%2 == 0, n/5, n)
	}
	file := newAccountsFile(t, content(0))
	w := newWorld(t, sandbox.Options{}, "--accounts="+file.path)
	watcher := w.consumer()
	watched := w.conversation(watcher.Client)
	seen := make(chan *pb.File, 10)
	ctx, stop := context.WithCancel(t.Context())
	watching := make(chan error, 1)
	go func() { watching <- watchInto(watcher.Watch(ctx, lpfileshare.WatchOptions{Parent: watched}), seen) }()

	l := w.load(callers)
	begin := time.Now()
	for n := 1; n <= reloads; n++ {
		file.write(content(n))
		before := l.uploads.Load()
		w.hangUp(readAgain)
		harness.Eventually(t, "calls continue", func() bool { return l.uploads.Load() > before || t.Failed() })
	}
	took := time.Since(begin)
	uploads, downloads := l.uploads.Load(), l.downloads.Load()
	if line := lineWith(t, w, readAgain, reloads); !strings.Contains(line, fmt.Sprintf("added=other%d removed=other%d changed=%s", reloads, reloads-1, account)) {
		t.Errorf("the line of the last reload is %s", line)
	}

	// Now one that is broken in three places.
	file.write("accounts:\n  \"" + account + "\":\n    check_etag: perhaps\n    messenger: connector\n    limits: {max_file_bites: 3MB}\n  12/34:\n")
	w.hangUp(notUsable)
	before := l.uploads.Load()
	harness.Eventually(t, "calls continue", func() bool { return l.uploads.Load() > before+5 || t.Failed() })
	broken := lineWith(t, w, notUsable, 1)
	for _, want := range []string{"accounts.yaml:3: ", "accounts.yaml:5: ", "did you mean max_file_bytes?", "accounts.yaml:6: "} {
		if !strings.Contains(broken, want) {
			t.Errorf("the line about the broken file lacks %q: %s", want, broken)
		}
	}
	if errs := strings.Count(w.logs.String(), "level=ERROR"); errs != 1 {
		t.Errorf("%d lines of level ERROR, want the one about the file", errs)
	}
	caps, err := watcher.Raw().Files.GetCapabilities(t.Context(), &pb.GetCapabilitiesRequest{Account: accountPath})
	if want := int64(3+reloads%3) * 1_000_000; err != nil || caps.GetMaxFileBytes() != want {
		t.Errorf("after the broken file the limit is %d, %v; want %d from the last good one", caps.GetMaxFileBytes(), err, want)
	}

	// The watch from before the reloads is still open.
	sent := w.upload(watcher.Client, lpfileshare.UploadOptions{Conversation: watched, DisplayName: "a.png"}, tinyPNG(t))
	if got := next(t, seen); got.GetName() != sent.GetName() {
		t.Errorf("the watch gave %v", got)
	}
	select {
	case err := <-watching:
		t.Errorf("the watch ended: %v", err)
	default:
	}
	l.end()
	stop()
	if err := <-watching; !errors.Is(err, context.Canceled) {
		t.Errorf("the watch ended by %v", err)
	}
	fmt.Printf("reloads under load: %d in %s, %d callers, %d uploads and %d downloads meanwhile, %d failed; then a broken file: %d uploads more, %d failed, 1 log line\n",
		reloads, took.Round(time.Millisecond), callers, uploads, downloads, l.failed.Load(), l.uploads.Load()-uploads, l.failed.Load())
}

// lineWith is the last line of the log with mark, of which there must be so many.
func lineWith(t *testing.T, w *world, mark string, count int) (last string) {
	t.Helper()
	n := 0
	for line := range strings.Lines(w.logs.String()) {
		if strings.Contains(line, mark) {
			last, n = line, n+1
		}
	}
	if n != count {
		t.Errorf("%d lines say %q, want %d", n, mark, count)
	}
	return last
}

func TestReload_TakesEffectForTheNextCall(t *testing.T) {
	file := newAccountsFile(t, "accounts: {"+account+": }\n")
	w := newWorld(t, sandbox.Options{}, "--accounts="+file.path)
	c, admin := w.consumer(), w.agent("admin")
	conv := w.conversation(c.Client)
	signUp := func() error {
		_, err := c.Raw().Identity.SignInConsumer(t.Context(), &pb.SignInConsumerRequest{Account: accountPath, Grant: &pb.SignInConsumerRequest_SignUp{SignUp: &pb.SignUp{}}})
		return err
	}
	up := func(size int) error {
		_, err := c.Upload(t.Context(), lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.jpg", RetryFor: -1}, bytes.NewReader(photo(t, size)))
		return err
	}
	if err := up(60_000); err != nil {
		t.Fatal(err)
	}

	// An upload that has begun keeps its limit.
	data := photo(t, 90_000)
	half, rest, result := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := c.Upload(t.Context(), lpfileshare.UploadOptions{Conversation: conv, DisplayName: "b.jpg", FileType: pb.FileType_FILE_TYPE_JPEG, RetryFor: -1},
			&gated{data: data, at: len(data) / 2, half: half, rest: rest})
		result <- err
	}()
	<-half
	file.write("accounts: {" + account + ": {limits: {max_file_bytes: 50KB}}}\n")
	w.hangUp(readAgain)
	wantReason(t, up(60_000), pb.ErrorReason_ERROR_REASON_FILE_TOO_LARGE)
	close(rest)
	if err := <-result; err != nil {
		t.Errorf("an upload that had begun: %v", err)
	}

	file.write("accounts: {" + account + ": {limits: {max_image_pixels: 100}}}\n")
	w.hangUp(readAgain)
	_, err := c.Upload(t.Context(), lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.png", RetryFor: -1}, bytes.NewReader(tinyPNG(t)))
	wantReason(t, err, pb.ErrorReason_ERROR_REASON_IMAGE_TOO_MANY_PIXELS)

	// A host that is pinned since is asked at once, by new sockets and for new look-ups.
	file.write("accounts: {" + account + ": {domains: {asyncMessagingEnt: '127.0.0.1:1'}}}\n")
	w.hangUp(readAgain)
	wantReason(t, up(20_000), pb.ErrorReason_ERROR_REASON_LP_UNAVAILABLE)

	file.write("accounts: {another: }\n")
	w.hangUp(readAgain)
	wantReason(t, up(20_000), pb.ErrorReason_ERROR_REASON_NOT_ALLOWED)
	wantReason(t, signUp(), pb.ErrorReason_ERROR_REASON_NOT_ALLOWED)
	_, err = admin.Raw().Accounts.GetFileSharing(t.Context(), &pb.GetFileSharingRequest{Account: accountPath})
	wantReason(t, err, pb.ErrorReason_ERROR_REASON_NOT_ALLOWED)
	_, err = w.dial().Raw().Identity.SignInAgent(t.Context(), &pb.SignInAgentRequest{
		Account: accountPath, Credentials: &pb.SignInAgentRequest_Password{Password: &pb.PasswordCredentials{Username: "ann", Password: "sandbox"}},
	})
	wantReason(t, err, pb.ErrorReason_ERROR_REASON_NOT_ALLOWED)

	file.write("others: allow\n")
	w.hangUp(readAgain)
	if err := signUp(); err != nil {
		t.Errorf("others: allow, and %v", err)
	}
	if err := up(20_000); err != nil {
		t.Errorf("others: allow, and %v", err)
	}
}

func TestAccountsFile_IsCheckedWithoutServing(t *testing.T) {
	t.Parallel()
	good := newAccountsFile(t, "accounts: {1: , 2: }\n")
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"--check-accounts", "--accounts=" + good.path}, &out, &errs); code != 0 || !strings.Contains(out.String(), "names 2 accounts") || errs.Len() != 0 {
		t.Errorf("%d %q %q", code, out.String(), errs.String())
	}
	bad := newAccountsFile(t, "accounts: {1: {domains: {idp: 'http://example.com', swft: x}}}\nother: allow\n")
	out.Reset()
	code := run(t.Context(), []string{"--check-accounts", "--accounts=" + bad.path}, &out, &errs)
	if code != 1 || out.Len() != 0 || strings.Count(errs.String(), "\n") != 3 {
		t.Errorf("%d %q %q", code, out.String(), errs.String())
	}
	for _, want := range []string{"accounts.yaml:1: account 1: domains.idp: example.com is not on loopback", "did you mean swift?", "accounts.yaml:2: "} {
		if !strings.Contains(errs.String(), want) {
			t.Errorf("%q lacks %q", errs.String(), want)
		}
	}
}

func TestReload_AuthoritiesOfLivePerson(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	w := newSandboxWorld(t, sandbox.Options{TLSListen: "127.0.0.1:0", CAFile: ca})
	right, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := os.ReadFile(newAuthority(t, "another").ca())
	if err != nil {
		t.Fatal(err)
	}
	trust := func(pem []byte) {
		t.Helper()
		if err := os.WriteFile(ca, pem, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	trust(wrong)
	w.run("--domain-api="+w.sb.TLSURL(), "--domain-suffix=127.0.0.1", "--lp-ca="+ca, "--ledger=memory", "--reload-every=0", "--drain-time=2s", "--drain-notice=0s", "--log-level=debug")
	signUp := func() error {
		_, err := w.dial().Raw().Identity.SignInConsumer(t.Context(), &pb.SignInConsumerRequest{Account: accountPath, Grant: &pb.SignInConsumerRequest_SignUp{SignUp: &pb.SignUp{}}})
		return err
	}
	if err := signUp(); err == nil {
		t.Fatal("a wrong authority is trusted")
	}
	trust([]byte("none"))
	w.hangUp("file of --lp-ca is invalid")
	trust(right)
	w.hangUp("file of --lp-ca was reloaded")
	who := w.consumer()                                                                                                                       // by the REST client
	file := w.upload(who.Client, lpfileshare.UploadOptions{Conversation: w.conversation(who.Client), DisplayName: "a.jpg"}, photo(t, 10_000)) // by socket and store
	trust(wrong)
	w.hangUp("file of --lp-ca was reloaded")
	if err := signUp(); err == nil {
		t.Error("the previous authority is still trusted")
	}
	_, err = who.Download(t.Context(), lpfileshare.DownloadOptions{Name: file.GetName(), RetryFor: -1}, &bytes.Buffer{})
	if err == nil {
		t.Error("the previous authority is still trusted for the store")
	}
}

// Without a signal, the server reads files again when they have changed, those with secrets too.
func TestReload_ChangedFiles(t *testing.T) {
	t.Parallel()
	file, opts := accountsWithIssuer(t)
	key := filepath.Join(filepath.Dir(file.path), "later.pem")
	w := newWorld(t, opts, "--accounts="+file.path, "--reload-every=2ms", "--admin-listen=127.0.0.1:0")
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	lines := func(mark string, count int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := w.logs.Wait(ctx, count, mark); err != nil {
			t.Fatalf("the log does not say %q %d times: %v", mark, count, err)
		}
	}
	succeeded := func(want string) {
		t.Helper()
		harness.Eventually(t, "the metric is "+want, func() bool {
			_, text := w.admin("/metrics")
			return strings.Contains(text, `lpfs_config_last_reload_success{file="accounts"} `+want+"\n")
		})
	}
	file.write(withIssuer + "  \"87654321\":\n")
	lines(readAgain, 1)
	succeeded("1")
	file.write("accounts: {" + account + ": {check_etag: perhaps}}\n")
	lines(notUsable, 1)
	succeeded("0")
	if line := lineWith(t, w, notUsable, 1); !strings.Contains(line, "accounts.yaml:1: ") {
		t.Errorf("the log does not say where the error is: %s", line)
	}
	// A file that is valid once its secret has arrived.
	file.write(strings.Replace(withIssuer, "issuer.pem", "later.pem", 1))
	lines(notUsable, 2)
	pem, err := os.ReadFile(filepath.Join(filepath.Dir(file.path), "issuer.pem"))
	if err == nil {
		err = os.WriteFile(key, pem, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	lines(readAgain, 2)
	succeeded("1")
}
