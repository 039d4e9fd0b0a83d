// Package versions runs the server that first served the released contract beside this one, on one NATS server: what callers begin on one
// of them is repeated, read and published on the other. The older server is built from the history of the repository.
package versions

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
	"github.com/lpfileshare/lpfileshare/test/process"
	"github.com/lpfileshare/lpfileshare/test/wire"
)

var (
	// older and newer are the programs. newer is of this checkout.
	older, newer harness.Program
	natsServer   string
	// frames are those of all sandboxes here.
	frames = wire.NewSuite("versions")
)

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "lpfileshare-versions")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	natsServer = filepath.Join(dir, "nats-server")
	file := filepath.Join(dir, "older")
	err = errors.Join(process.Build(natsServer, "github.com/nats-io/nats-server/v2"), buildOlder(filepath.Join(dir, "src"), file))
	if errors.Is(err, errNoHistory) {
		fmt.Println("versions: skipped:", err)
		return 0
	} else if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	older = harness.Binary(file)
	return harness.Main(m, frames, &newer)
}

var errNoHistory = errors.New("the history of this checkout does not have the commit that released the contract; fetch all of it: git fetch --unshallow")

// buildOlder builds the server of the commit that released the contract.
func buildOlder(src, file string) error {
	git := func(args ...string) (string, error) {
		out, err := exec.Command("git", append([]string{"-C", "../.."}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	shallow, err := git("rev-parse", "--is-shallow-repository")
	if err != nil {
		return fmt.Errorf("%w (%w)", errNoHistory, err)
	}
	commit, err := git("log", "--diff-filter=A", "--format=%H", "--", "proto/released.binpb")
	if err != nil || commit == "" || shallow == "true" {
		return errNoHistory
	}
	commit = strings.Fields(commit)[0]
	if err := os.MkdirAll(src, 0o755); err != nil {
		return err
	}
	archive := src + ".tar"
	if _, err := git("archive", "--format=tar", "-o", archive, commit); err != nil {
		return fmt.Errorf("git archive %s: %w", commit, err)
	}
	if out, err := exec.Command("tar", "-C", src, "-xf", archive).CombinedOutput(); err != nil {
		return fmt.Errorf("tar: %w: %s", err, out)
	}
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", file, "./cmd/server")
	build.Dir, build.Stderr = src, os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("building the server of %s: %w", commit, err)
	}
	fmt.Println("versions: the older server is that of", commit)
	return nil
}

// The two servers.
const (
	onOld = iota
	onNew
)

// size is that of the files.
const size = 300_000

var names = [2]string{"older", "newer"}

// A world is one LivePerson and one NATS server with both servers.
type world struct {
	*testing.T
	sb       *sandbox.Sandbox
	programs [2]harness.Program
	servers  *[2]*harness.Server // those that run now, the same for all cases
	args     []string
	token    string // of a consumer
	in       string // a conversation
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, sb: harness.Sandbox(t, frames, sandbox.Options{}), programs: [2]harness.Program{older, newer}, servers: new([2]*harness.Server)}
	ports, err := process.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	nats, _, err := process.Start(regexp.MustCompile("Server is ready"), natsServer, "-a", "127.0.0.1", "-p", fmt.Sprint(ports[0]), "-js", "-sd", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nats.Kill)
	key := filepath.Join(t.TempDir(), "agent-token.key")
	if err := os.WriteFile(key, []byte(strings.Repeat("a1", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	w.args = append(harness.Before(w.sb), fmt.Sprintf("--ledger=nats://127.0.0.1:%d", ports[0]), "--ledger-bytes=64MiB", "--agent-token-key="+key,
		"--documents", "--lp-timeout=10s", "--settle=1s")
	w.start(onOld) // as in an upgrade, the older server creates the bucket
	w.start(onNew)
	c := w.servers[onOld].Consumer(t)
	w.token, w.in = c.Token, c.Conversation
	return w
}

// start starts a server. It ends with the test.
func (w *world) start(n int) {
	w.Helper()
	s, err := harness.Start(w.programs[n], w.args...)
	if err != nil {
		w.Fatalf("the %s server: %v", names[n], err)
	}
	w.servers[n] = s
	s.Stopped(w)
}

// client returns a client of a server with the consumer's identity.
func (w *world) client(n int) *lpfileshare.Client {
	w.Helper()
	return w.servers[n].Dial(w).As(lpfileshare.ConsumerToken(lpfileshare.StaticToken(w.token)))
}

// An attempt is an upload that can be repeated on both servers.
type attempt struct {
	w       *world
	id      string
	data    []byte
	publish pb.PublishMode
}

func (w *world) attempt(mode pb.PublishMode) *attempt {
	id := uuid.New()
	return &attempt{w: w, id: id.String(), data: harness.Text(uint64(id.ID()), size), publish: mode}
}

// on makes one call on a server.
func (a *attempt) on(n int) (*pb.UploadResponse, error) {
	a.w.Helper()
	return a.w.client(n).Upload(a.w.Context(), lpfileshare.UploadOptions{
		Conversation: a.w.in, FileType: pb.FileType_FILE_TYPE_TXT, DisplayName: "case.txt", Caption: a.id, RequestID: a.id, PublishMode: a.publish, RetryFor: -1,
	}, bytes.NewReader(a.data))
}

// must makes a call that succeeds.
func (a *attempt) must(n int) *pb.UploadResponse {
	a.w.Helper()
	resp, err := a.on(n)
	if err != nil {
		a.w.Fatalf("on the %s server: %v", names[n], err)
	}
	return resp
}

// begin sends part of the file, waits until the upload is accepted and so recorded, and leaves.
func (a *attempt) begin(n int) {
	a.w.Helper()
	ctx, cancel := context.WithCancel(a.w.Context())
	defer cancel()
	stream, err := a.w.client(n).Raw().Files.Upload(ctx)
	if err != nil {
		a.w.Fatal(err)
	}
	err = stream.Send(&pb.UploadRequest{FirstMessage: &pb.UploadRequest_Spec{Spec: &pb.UploadSpec{
		Conversation: a.w.in, FileType: pb.FileType_FILE_TYPE_TXT, DisplayName: "case.txt", Caption: a.id, RequestId: a.id, PublishMode: a.publish,
	}}})
	if err != nil {
		a.w.Fatal(err)
	}
	if _, err := stream.Header(); err != nil {
		a.w.Fatalf("the upload is not accepted: %v", err)
	}
}

// state returns what a server says of the upload.
func (a *attempt) state(n int) (*pb.Upload, error) {
	a.w.Helper()
	resp, err := a.w.client(n).Raw().Files.GetUpload(a.w.Context(), &pb.GetUploadRequest{Name: harness.AccountPath + "/uploads/" + a.id})
	return resp.GetUpload(), err
}

// published checks the number of messages.
func (a *attempt) published(want int) {
	a.w.Helper()
	count := 0
	for _, m := range a.w.sb.Journal().Published {
		if m.Caption == a.id {
			count++
		}
	}
	if count != want {
		a.w.Errorf("%d messages, want %d", count, want)
	}
}

// unreadable checks that a server rejects a record whose format it does not know: the caller is to repeat.
func (w *world) unreadable(what string, err error) {
	w.Helper()
	if _, again := lpfileshare.RetryDelay(err); lpfileshare.ErrorReason(err) != pb.ErrorReason_ERROR_REASON_LEDGER_UNAVAILABLE || !again {
		w.Errorf("%s: %v; want LEDGER_UNAVAILABLE with RetryInfo", what, err)
	}
}

// same checks that a repeat got the first result.
func (w *world) same(first, again *pb.File) {
	w.Helper()
	if first.GetName() == "" || first.GetName() != again.GetName() || first.GetMessageSequence() != again.GetMessageSequence() {
		w.Errorf("the first result is %v, that of the repeat %v", first, again)
	}
}

// TestOlderThenNewer repeats on the newer server what began on the older one.
func TestOlderThenNewer(t *testing.T) {
	w := newWorld(t)
	t.Run("a published upload", func(t *testing.T) {
		a := w.with(t).attempt(pb.PublishMode_PUBLISH_MODE_UNSPECIFIED)
		first := a.must(onOld)
		if u, err := a.state(onNew); err != nil || u.GetState() != pb.UploadState_UPLOAD_STATE_PUBLISHED {
			t.Errorf("the newer server says %v, %v", u, err)
		}
		again := a.must(onNew)
		a.w.same(first.GetFile(), again.GetFile())
		a.published(1)
	})
	t.Run("an interrupted upload", func(t *testing.T) {
		a := w.with(t).attempt(pb.PublishMode_PUBLISH_MODE_UNSPECIFIED)
		a.begin(onOld)
		a.must(onNew)
		a.published(1)
	})
	t.Run("a stored upload", func(t *testing.T) {
		a := w.with(t).attempt(pb.PublishMode_PUBLISH_MODE_STORE_ONLY)
		first := a.must(onOld)
		a.published(0)
		resp, err := a.w.client(onNew).Raw().Files.PublishUpload(t.Context(), &pb.PublishUploadRequest{Name: first.GetUpload()})
		if err != nil {
			t.Fatal(err)
		}
		if resp.GetFile().GetStoragePath() != first.GetFile().GetStoragePath() {
			t.Errorf("stored %v, published %v", first.GetFile(), resp.GetFile())
		}
		a.published(1)
	})
	t.Run("a conversation", func(t *testing.T) { w.with(t).conversation(onOld, onNew) })
	t.Run("an agent's token", func(t *testing.T) { w.with(t).agent(onOld, onNew) })
	t.Run("an upload whose server is killed while it publishes", func(t *testing.T) {
		a := w.with(t).attempt(pb.PublishMode_PUBLISH_MODE_UNSPECIFIED)
		a.killed(onOld)
		a.must(onNew)
		a.published(1)
		w.start(onOld)
	})
}

// TestNewerThenOlder repeats on the older server what began on the newer one. The older one must not act on records that it cannot read.
func TestNewerThenOlder(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name  string
		mode  pb.PublishMode
		begin func(*attempt)
	}{
		{"a published upload", pb.PublishMode_PUBLISH_MODE_UNSPECIFIED, func(a *attempt) { a.must(onNew) }},
		{"an interrupted upload", pb.PublishMode_PUBLISH_MODE_UNSPECIFIED, func(a *attempt) { a.begin(onNew) }},
		{"a stored upload", pb.PublishMode_PUBLISH_MODE_STORE_ONLY, func(a *attempt) { a.must(onNew) }},
		{"an upload whose server is killed while it publishes", pb.PublishMode_PUBLISH_MODE_UNSPECIFIED, func(a *attempt) {
			a.killed(onNew)
			w.start(onNew)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := w.with(t).attempt(c.mode)
			c.begin(a)
			_, err := a.on(onOld)
			a.w.unreadable("a repeat on the older server", err)
			_, err = a.state(onOld)
			a.w.unreadable("GetUpload on the older server", err)
			first := a.must(onNew)
			if c.mode == pb.PublishMode_PUBLISH_MODE_STORE_ONLY {
				a.published(0)
				_, err := a.w.client(onOld).Raw().Files.PublishUpload(t.Context(), &pb.PublishUploadRequest{Name: first.GetUpload()})
				a.w.unreadable("PublishUpload on the older server", err)
				if _, err := a.w.client(onNew).Raw().Files.PublishUpload(t.Context(), &pb.PublishUploadRequest{Name: first.GetUpload()}); err != nil {
					t.Error(err)
				}
			}
			a.published(1)
		})
	}
	t.Run("a conversation", func(t *testing.T) { w.with(t).conversation(onNew, onOld) })
	t.Run("an agent's token", func(t *testing.T) { w.with(t).agent(onNew, onOld) })
}

// TestRollback ends the newer server and starts the older one again, on a ledger that the newer one has changed.
func TestRollback(t *testing.T) {
	w := newWorld(t)
	before := w.attempt(pb.PublishMode_PUBLISH_MODE_UNSPECIFIED)
	first := before.must(onOld)
	if err := w.servers[onOld].Stop(); err != nil {
		t.Fatal(err)
	}
	meanwhile := w.attempt(pb.PublishMode_PUBLISH_MODE_UNSPECIFIED)
	meanwhile.must(onNew)
	if err := w.servers[onNew].Stop(); err != nil {
		t.Fatal(err)
	}
	w.start(onOld)
	w.same(first.GetFile(), before.must(onOld).GetFile())
	before.published(1)
	_, err := meanwhile.on(onOld)
	w.unreadable("a repeat of an upload of the newer server", err)
	meanwhile.published(1)
	after := w.attempt(pb.PublishMode_PUBLISH_MODE_UNSPECIFIED)
	after.must(onOld)
	after.published(1)
}

// with returns the world for one case.
func (w *world) with(t *testing.T) *world {
	c := *w
	c.T = t
	return &c
}

// killed makes a call on a server that is killed when LivePerson has the message, but before its answer.
func (a *attempt) killed(n int) {
	a.w.Helper()
	a.w.sb.Inject(sandbox.Fault{On: "ms.PublishEvent", Mute: true, Count: 1})
	ended := make(chan error, 1)
	go func() {
		_, err := a.on(n)
		ended <- err
	}()
	harness.Eventually(a.w, "the message is published", func() bool {
		for _, m := range a.w.sb.Journal().Published {
			if m.Caption == a.id {
				return true
			}
		}
		return false
	})
	a.w.servers[n].Kill()
	if err := harness.Next(a.w, ended); err == nil {
		a.w.Error("the upload was answered")
	}
}

// conversation creates a conversation on one server, and repeats the request on the other.
func (w *world) conversation(first, then int) {
	w.Helper()
	request := &pb.CreateConversationRequest{Account: harness.AccountPath, RequestId: uuid.NewString()}
	created, err := w.client(first).CreateConversation(w.Context(), request)
	if err != nil {
		w.Fatal(err)
	}
	again, err := w.client(then).CreateConversation(w.Context(), request)
	if err != nil || again.GetName() != created.GetName() {
		w.Errorf("the %s server created %s; the %s one answers %s, %v", names[first], created.GetName(), names[then], again.GetName(), err)
	}
}

// agent signs an agent in on one server, and uses the token on the other.
func (w *world) agent(first, then int) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
	defer cancel()
	in, err := w.servers[first].Dial(w).Raw().Identity.SignInAgent(ctx, &pb.SignInAgentRequest{Account: harness.AccountPath,
		Credentials: &pb.SignInAgentRequest_Password{Password: &pb.PasswordCredentials{Username: "admin", Password: "sandbox"}}})
	if err != nil {
		w.Fatal(err)
	}
	c := w.servers[then].Dial(w).As(lpfileshare.AgentToken(lpfileshare.StaticToken(in.GetAgentToken())))
	if _, err := c.Raw().Conversations.ListConversations(ctx, &pb.ListConversationsRequest{Account: harness.AccountPath}); err != nil {
		w.Errorf("the %s server rejects the token of the %s one: %v", names[then], names[first], err)
	}
}
