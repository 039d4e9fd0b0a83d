package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

var update = flag.Bool("update", false, "write the golden files")

// TestMain lets the test binary be the server that the demo starts.
func TestMain(m *testing.M) {
	if how := os.Getenv("LPFILESHARE_TEST_SERVER"); how != "" {
		os.Exit(serveForDemo(how))
	}
	os.Exit(m.Run())
}

func serveForDemo(how string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if got := strings.Join(os.Args[1:], " "); got != "--sandbox --listen 127.0.0.1:0" {
		fmt.Fprintln(os.Stderr, "called with", got)
		return 2
	}
	if how == "broken" {
		fmt.Fprintln(os.Stderr, "level=ERROR msg=\"no space left\"")
		return 1
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 1
	}
	g := &gateway{health: health.NewServer(), changed: make(chan struct{}), data: map[string][]byte{}, signInExpiry: time.Hour}
	server := grpc.NewServer()
	pb.RegisterFileSharingServiceServer(server, g)
	pb.RegisterConversationServiceServer(server, g)
	pb.RegisterIdentityServiceServer(server, g)
	healthpb.RegisterHealthServer(server, g.health)
	g.health.SetServingStatus("lpfileshare.v1.FileSharingService", healthpb.HealthCheckResponse_SERVING)
	context.AfterFunc(ctx, server.GracefulStop)
	fmt.Fprintf(os.Stderr, "level=INFO msg=starting grpc=nowhere\ntime=x level=INFO msg=ready grpc=%s sandbox=\"127.0.0.1:1\"\n", listener.Addr())
	server.Serve(listener)
	os.WriteFile(os.Getenv("LPFILESHARE_TEST_STOPPED"), nil, 0o600)
	return 0
}

func picture(size int) []byte {
	return append([]byte("\xff\xd8\xff\xe0"), bytes.Repeat([]byte("picture."), size/8+1)...)[:size]
}

func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func checkDir(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the directory contains %q, want %q", got, want)
	}
}

func TestUploadAndDownload(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	data := picture(200_000)
	write(t, "cat.jpg", data)

	name := s.ok("upload", "--caption", "my cat", "cat.jpg")
	if spec := g.specs[0]; spec.GetCaption() != "my cat" || spec.GetDisplayName() != "cat.jpg" || !spec.GetPreview().GetGenerate() ||
		spec.GetFileType() != pb.FileType_FILE_TYPE_JPEG || spec.GetSizeBytes() != 200_000 {
		t.Errorf("spec %v", spec)
	}
	if got := s.ok("ls"); !strings.Contains(got, "consumer\tjpeg\tmy cat\t"+name) {
		t.Errorf("ls: %s", got)
	}
	if got := s.ok("stat", name); !strings.Contains(got, "200000 bytes") {
		t.Errorf("stat: %s", got)
	}
	if got := s.fails(exitFailed, "download", name); !strings.Contains(got, "cat.jpg") || !strings.Contains(got, "--force") {
		t.Errorf("onto an existing file: %s", got)
	}
	if got := s.ok("download", name, "-o", "back.jpg"); got != "back.jpg" {
		t.Errorf("download: %s", got)
	}
	if got, _ := os.ReadFile("back.jpg"); !bytes.Equal(got, data) {
		t.Errorf("downloaded %d bytes", len(got))
	}
	if got := s.ok("download", name, "-o", "-"); got != strings.TrimSuffix(string(data), "\n") {
		t.Errorf("%d bytes on standard output", len(got))
	}
	write(t, "cat.jpg", []byte("old"))
	s.ok("download", name, "--force")
	if got, _ := os.ReadFile("cat.jpg"); !bytes.Equal(got, data) {
		t.Errorf("--force left %d bytes", len(got))
	}
	checkDir(t, s.dir, "back.jpg", "cat.jpg")
	if got := s.ok("conversation", "close"); !strings.Contains(got, "closed") {
		t.Errorf("close: %s", got)
	}
}

func TestUpload_Flags(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	write(t, "a.jpg", picture(10))
	write(t, "b.jpg", picture(20))
	write(t, "p.png", []byte("\x89PNG\r\n\x1a\nsmall"))

	code, stdout, stderr := s.run(t.Context(), "upload", "a.jpg", "b.jpg", "--preview", "p.png", "--store-only")
	if code != exitOK || strings.Count(stdout, "\n") != 2 || !strings.Contains(stderr, "b.jpg: stored, not published; publish it: lpfileshare publish ") {
		t.Errorf("two files: exit code %d\n%s%s", code, stdout, stderr)
	}
	spec := g.specs[0]
	if !strings.HasPrefix(spec.GetPreview().GetDataUri(), "data:image/png;base64,iVBOR") || spec.GetPublishMode() != pb.PublishMode_PUBLISH_MODE_STORE_ONLY {
		t.Errorf("spec %v", spec)
	}
	s.stdin = bytes.NewReader(picture(30))
	s.ok("upload", "-", "--type", "jpeg", "--name", "in.jpg", "--preview", "none", "--request-id", "6f8f57e0-79b8-4a4b-8a4c-5bd1a9d6e1c7")
	if spec = g.specs[2]; spec.GetPreview().GetSource() != nil || spec.GetDisplayName() != "in.jpg" || spec.GetRequestId()[:4] != "6f8f" {
		t.Errorf("spec %v", spec)
	}
	if got := s.ok("upload", "a.jpg", "--validate-only"); got != "a.jpg would be accepted" {
		t.Errorf("--validate-only: %s", got)
	}
	for _, args := range [][]string{
		{"a.jpg", "b.jpg", "--request-id", "6f8f57e0-79b8-4a4b-8a4c-5bd1a9d6e1c7"}, {"a.jpg", "--request-id", "7"}, {"-", "-"}, {},
		{"a.jpg", "--store-only", "--validate-only"}, {"a.jpg", "--type", "exe"}, {"a.jpg", "--no-such-flag"},
		{"a.jpg", "--conversation", "x/y"},
	} {
		s.fails(exitUsage, append([]string{"upload"}, args...)...)
	}
	write(t, "big.jpg", picture(3_000_001))
	code, stdout, stderr = s.run(t.Context(), "upload", "big.jpg", "missing.jpg", "a.jpg")
	if code != exitFailed || strings.Count(stdout, "\n") != 1 || !strings.Contains(stderr, "FILE_TOO_LARGE") ||
		!strings.Contains(stderr, "Send a smaller file") || strings.Contains(stderr, "--request-id ") || !strings.Contains(stderr, "missing.jpg") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
}

func TestUpload_PrintsImageChange(t *testing.T) {
	g := startGateway(t, &gateway{image: &pb.ImageChange{
		InputSizeBytes: 8_000_000, InputFileType: pb.FileType_FILE_TYPE_PNG, InputWidth: 4000, InputHeight: 3000, Width: 1500, Height: 2000,
		Recoded: true, Rotated: true, Scaled: true, JpegQuality: 82, TrailingBytesRemoved: 7,
		RemovedMetadata: []pb.ImageMetadata{pb.ImageMetadata_IMAGE_METADATA_EXIF, pb.ImageMetadata_IMAGE_METADATA_COMMENT, 99},
	}})
	s := newShell(t, g)
	s.ok("sign-in", "--address", g.address)
	s.ok("conversation", "create")
	write(t, "a.jpg", picture(1000))
	write(t, "a.txt", []byte("text"))
	code, stdout, stderr := s.run(t.Context(), "upload", "--fit", "--strip", "a.jpg")
	want := "a.jpg: 8000000 bytes became 1000: png became jpeg; rotated upright; scaled from 4000 x 3000 to 1500 x 2000 pixels; quality 82; without EXIF, comments, 99; without 7 trailing bytes\n"
	if code != exitOK || strings.Count(stdout, "\n") != 1 || !strings.Contains(stderr, want) {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	if got := g.specs[0].GetImage(); !got.GetFit() || !got.GetStripMetadata() {
		t.Errorf("asked was %v", got)
	}
	code, stdout, stderr = s.run(t.Context(), "--json", "upload", "a.jpg")
	if code != exitOK || !strings.Contains(stdout, `"jpegQuality":82`) || strings.Contains(stderr, "became") || g.specs[1].GetImage() != nil {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	g.image = nil
	if _, _, stderr = s.run(t.Context(), "upload", "--fit", "a.txt"); strings.Contains(stderr, "became") || g.specs[2].GetImage() != nil {
		t.Errorf("text: %s", stderr)
	}
}

// Every command's --json output is one JSON object to a line.
func TestJSON(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g)
	write(t, "a.jpg", picture(10))
	t.Setenv("LPFILESHARE_PASSWORD", "sandbox")
	name := ""
	for _, tc := range []struct{ args, key string }{
		{"sign-in --address " + g.address, "expireTime"}, {"sign-in agent --user admin", "id"},
		{"conversation create", "name"}, {"conversation list", "state"}, {"conversation get", "name"},
		{"upload a.jpg", "requestId"}, {"ls", "storagePath"}, {"stat NAME", "etag"}, {"download NAME -o b.jpg", "sha256"},
		{"watch --existing --count 1", "name"}, {"capabilities", "maxFileBytes"}, {"health", "status"},
		{"get-upload 6f8f57e0-79b8-4a4b-8a4c-5bd1a9d6e1c7", "state"}, {"publish 6f8f57e0-79b8-4a4b-8a4c-5bd1a9d6e1c7", "file"}, {"account file-sharing enable", "enabled"},
		{"account file-sharing get", "enabled"}, {"agent send a.jpg", "file"}, {"agent watch --existing --count 1", "name"},
		{"conversation close", "state"}, {"version", "version"}, {"sign-out", "signedOut"},
	} {
		out := s.ok(strings.Fields("--json " + strings.ReplaceAll(tc.args, "NAME", name))...)
		var object map[string]any
		if err := json.Unmarshal([]byte(out), &object); err != nil || object[tc.key] == nil || strings.Contains(out, "\n") {
			t.Errorf("%s: %v in %s", tc.args, err, out)
		}
		if strings.Contains(out, "-token") || strings.Contains(out, "secret") {
			t.Errorf("%s prints a secret: %s", tc.args, out)
		}
		if file, ok := object["file"].(map[string]any); ok {
			name, _ = file["name"].(string)
		}
	}
}

func TestSignIn(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g)
	write(t, "jwt", []byte("a.b.c\n"))
	write(t, "keys", []byte(`{"username":"bot","appKey":"k","secret":"sandbox","accessToken":"t","accessTokenSecret":"s"}`))
	write(t, "password", []byte("sandbox\n"))
	write(t, "wrong", []byte("s3cret"))
	for _, args := range []string{
		"sign-in", "sign-in --sign-up", "sign-in consumer", "sign-in --anonymous 77", "sign-in --customer-jwt-file jwt",
		"sign-in agent --user admin --password-file password", "sign-in agent --bot-keys-file keys",
	} {
		out := s.ok(append(strings.Fields(args), "--address", g.address)...)
		if !strings.Contains(out, "Signed in to account 12345678 at "+g.address) || strings.Contains(out, "-token") {
			t.Errorf("%s: %s", args, out)
		}
	}
	s.stdin = strings.NewReader("code\n")
	s.ok("sign-in", "--auth-code-file", "-")
	if got := s.fails(exitFailed, "sign-in", "agent", "--user", "admin", "--password-file", "wrong"); !strings.Contains(got, "LP_CREDENTIALS_REJECTED") || strings.Contains(got, "s3cret") {
		t.Errorf("a wrong password: %s", got)
	}
	if got := s.fails(exitFailed, "sign-in", "agent", "--bot-keys-file", "wrong"); strings.Contains(got, "s3cret") {
		t.Errorf("keys that are none: %s", got)
	}
	if got := s.fails(exitFailed, "sign-in", "agent", "--user", "admin"); !strings.Contains(got, "--password-file") {
		t.Errorf("without a password: %s", got)
	}
	for _, args := range []string{"sign-in --anonymous 77 --sign-up", "sign-in agent", "sign-in agent --password x"} {
		s.fails(exitUsage, strings.Fields(args)...)
	}
	s.ok("sign-out")
	if _, err := os.Stat(s.session); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the session file is still there: %v", err)
	}
	if got := s.fails(exitFailed, "--address", g.address, "capabilities"); !strings.Contains(got, "not signed in as consumer") {
		t.Errorf("signed out: %s", got)
	}
}

func TestSignOut_EndsAgentLogin(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	s.ok("sign-in", "--address", g.address)
	there := func() bool {
		_, err := os.Stat(s.session)
		return err == nil
	}
	reject := func(reason pb.ErrorReason) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.signOutFails = reason
	}
	t.Setenv("LPFILESHARE_PASSWORD", "sandbox")
	reject(pb.ErrorReason_ERROR_REASON_LP_PROTOCOL_ERROR)
	if got := s.fails(exitFailed, "sign-out"); !strings.Contains(got, "LP_PROTOCOL_ERROR") || !strings.Contains(got, "--local") || !there() {
		t.Errorf("LivePerson refuses: %s, and the file is there: %v", got, there())
	}
	reject(0)
	t.Setenv("LPFILESHARE_AGENT_TOKEN", "another") // sign-out uses the stored one
	if got := s.ok("sign-out"); !strings.Contains(got, "login at LivePerson has ended") || !strings.Contains(got, "consumer's token cannot be revoked") || there() {
		t.Errorf("said %q, and the file is there: %v", got, there())
	}
	t.Setenv("LPFILESHARE_AGENT_TOKEN", "")
	if g.signOuts != 2 {
		t.Errorf("%d sign-outs, want 2", g.signOuts)
	}

	s.ok("sign-in", "agent", "--user", "admin", "--address", g.address)
	reject(pb.ErrorReason_ERROR_REASON_TOKEN_INVALID)
	if got := s.ok("sign-out"); !strings.Contains(got, "no longer knows the agent's token") || there() {
		t.Errorf("an unknown token: %q, and the file is there: %v", got, there())
	}
	s.ok("sign-in", "agent", "--user", "admin", "--address", g.address)
	if got := s.ok("sign-out", "--local"); !strings.Contains(got, "ends when it expires") || there() || g.signOuts != 3 {
		t.Errorf("--local: %q, and the file is there: %v; %d sign-outs", got, there(), g.signOuts)
	}
	s.ok("sign-in", "--address", g.address)
	if got := s.ok("sign-out"); !strings.Contains(got, "cannot be revoked") || strings.Contains(got, "agent") || there() || g.signOuts != 3 {
		t.Errorf("a consumer: %q, and the file is there: %v; %d sign-outs", got, there(), g.signOuts)
	}
	if got := s.ok("--json", "sign-out"); got != `{"agentLoginEnded":false,"signedOut":false}` {
		t.Errorf("not signed in: %s", got)
	}
}

func TestSessionFile_OwnerOnly(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows keeps permissions otherwise")
	}
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	for path, want := range map[string]os.FileMode{s.session: 0o600, filepath.Dir(s.session): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
	checkDir(t, filepath.Dir(s.session), "session.json")
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620} {
		if err := os.Chmod(s.session, mode); err != nil {
			t.Fatal(err)
		}
		seen := len(g.seen)
		if got := s.fails(exitFailed, "ls"); !strings.Contains(got, "accessible to other users") || !strings.Contains(got, "chmod 600") {
			t.Errorf("%v: %s", mode, got)
		}
		if got := s.fails(exitFailed, "sign-in"); !strings.Contains(got, "accessible to other users") {
			t.Errorf("%v: sign-in: %s", mode, got)
		}
		if len(g.seen) != seen {
			t.Errorf("%v: a token of such a file was sent", mode)
		}
	}
	s.ok("sign-out")
}

func TestIdentity_StoredTokenOnlyToItsAddress(t *testing.T) {
	g, elsewhere := startGateway(t, &gateway{}), startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	write(t, "a.jpg", picture(10))
	for _, args := range []string{
		"ls", "capabilities", "watch", "upload a.jpg", "conversation create", "account file-sharing get", "ls --as agent", "agent watch",
	} {
		got := s.fails(exitFailed, append(strings.Fields(args), "--address", elsewhere.address)...)
		if !strings.Contains(got, "is not sent to "+elsewhere.address) || !strings.Contains(got, "--address "+g.address) {
			t.Errorf("%s: %s", args, got)
		}
	}
	if len(elsewhere.seen) != 0 {
		t.Errorf("the other server saw %v", elsewhere.seen)
	}
	// Signing in there moves the consumer, and leaves the agent's token where it belongs.
	s.ok("sign-in", "--address", elsewhere.address)
	s.ok("capabilities")
	s.fails(exitFailed, "account", "file-sharing", "get")
	s.ok("account", "file-sharing", "get", "--address", g.address)
	if len(elsewhere.seen) != 1 {
		t.Errorf("the other server saw %v", elsewhere.seen)
	}
}

func TestIdentity_FlagsAndEnvironment(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g)
	write(t, "token", []byte("consumer-token-from-file\n"))
	s.ok("--address", g.address, "--token-file", "token", "capabilities")
	s.ok("--address", g.address, "--external-consumer-id", "customer-7", "capabilities")
	t.Setenv("LPFILESHARE_AGENT_TOKEN", "agent-token")
	t.Setenv("LPFILESHARE_ADDRESS", g.address)
	s.ok("account", "file-sharing", "get")
	s.fails(exitUsage, "--as", "agent", "--external-consumer-id", "x", "capabilities")
	t.Setenv("LPFILESHARE_TOKEN", "consumer-token-from-environment")
	s.ok("capabilities") // as consumer, the default if both are set
	s.ok("--as", "agent", "capabilities")
	if got := fmt.Sprint(g.seen); got != "[consumer-token-from-file customer-7 agent-token consumer-token-from-environment agent-token]" {
		t.Errorf("the server saw %s", got)
	}
}

func TestIdentity_StoresRenewedToken(t *testing.T) {
	g := startGateway(t, &gateway{signInExpiry: 10 * time.Second})
	s := newShell(t, g)
	s.ok("sign-in", "--address", g.address)
	s.ok("capabilities")
	s.ok("capabilities")
	if got := fmt.Sprint(g.seen); got != "[consumer-token-2 consumer-token-2]" {
		t.Errorf("the server saw %s", got)
	}
}

func TestDownload_CompleteOrNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	for _, tc := range []struct {
		name string
		ctx  context.Context
		g    *gateway
		want string
	}{
		{"failed", t.Context(), &gateway{breakDownload: failure(codes.DataLoss, pb.ErrorReason_ERROR_REASON_STORAGE_CORRUPTED)}, "STORAGE_CORRUPTED"},
		{"interrupted", ctx, &gateway{onDownload: cancel}, "interrupted"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := startGateway(t, tc.g)
			s := newShell(t, g).signIn()
			name := g.keep(&pb.UploadSpec{Conversation: "accounts/12345678/conversations/c1"}, picture(50_000), false).GetName()
			code, stdout, stderr := s.run(tc.ctx, "download", name, "-o", "x.jpg")
			if code != exitFailed || stdout != "" || !strings.Contains(stderr, tc.want) {
				t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
			}
			checkDir(t, s.dir)
		})
	}
}

func TestUpload_Interrupted(t *testing.T) {
	for _, tc := range []struct {
		name, want, not string
		finish          bool
	}{
		{"before finish", "interrupted: nothing was published; repeat the command", "get-upload", false},
		{"after finish", "lpfileshare get-upload ", "nothing", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			g := startGateway(t, &gateway{upload: func(s grpc.ClientStreamingServer[pb.UploadRequest, pb.UploadResponse]) error {
				m, err := s.Recv()
				if tc.finish {
					s.SendHeader(metadata.Pairs("lpfs-request-id", m.GetSpec().GetRequestId()))
				}
				for tc.finish && err == nil && m.GetFinish() == nil {
					m, err = s.Recv()
				}
				cancel()
				<-s.Context().Done()
				return s.Context().Err()
			}})
			s := newShell(t, g).signIn()
			write(t, "a.jpg", picture(10))
			code, _, stderr := s.run(ctx, "upload", "a.jpg", "a.jpg")
			if code != exitFailed || !strings.Contains(stderr, tc.want) || strings.Contains(stderr, tc.not) || strings.Count(stderr, "interrupted") != 1 {
				t.Errorf("exit code %d\n%s", code, stderr)
			}
		})
	}
}

func TestGetUpload(t *testing.T) {
	const id = "6f8f57e0-79b8-4a4b-8a4c-5bd1a9d6e1c7"
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	for state, want := range map[pb.UploadState]string{
		pb.UploadState_UPLOAD_STATE_RECEIVING:  "receiving\tnot finished: ",
		pb.UploadState_UPLOAD_STATE_STORED:     "stored\tnot published; publish it: lpfileshare publish " + id,
		pb.UploadState_UPLOAD_STATE_PUBLISHING: "--request-id " + id,
		pb.UploadState_UPLOAD_STATE_PUBLISHED:  "published\tf",
		pb.UploadState_UPLOAD_STATE_FAILED:     "failed\tnothing was published: too big",
	} {
		g.state = &pb.Upload{RequestId: id, State: state, File: &pb.File{Name: "f"}, Failure: &pb.UploadFailure{Message: "too big"}}
		if got := s.ok("get-upload", id); !strings.Contains(got, want) || strings.HasSuffix(got, "\t") {
			t.Errorf("%v: %q", state, got)
		}
	}
	if got := s.fails(exitUsage, "get-upload", "x"); !strings.Contains(got, "which is a UUID") {
		t.Errorf("got %s", got)
	}
}

func TestUpload_PreviewOfImagesOnly(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	write(t, "t.txt", []byte("text"))
	s.ok("upload", "t.txt")
	s.stdin = io.MultiReader(strings.NewReader("te"), strings.NewReader("xt")) // which cannot go back
	s.ok("upload", "-")
	s.ok("demo", "--address", g.address, "t.txt")
	for i, spec := range g.specs {
		if spec.GetPreview() != nil || spec.GetFileType() != pb.FileType_FILE_TYPE_TXT {
			t.Errorf("spec %d: %v", i, spec)
		}
	}
	if got := g.data[g.files[1].GetName()]; string(got) != "text" {
		t.Errorf("standard input was uploaded as %q", got)
	}
	write(t, "what", []byte{0, 1})
	if got := s.fails(exitFailed, "upload", "what"); !strings.Contains(got, "--type") {
		t.Errorf("got %s", got)
	}
}

func TestConversation_OfAnotherConsumer(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	s.ok("sign-in")
	if got := s.fails(exitFailed, "ls"); !strings.Contains(got, "lpfileshare conversation create") {
		t.Errorf("got %s", got)
	}
	s.ok("conversation", "create")
	g.conversations = nil
	if got := s.fails(exitFailed, "conversation", "get"); !strings.Contains(got, "lpfileshare conversation create") || strings.Contains(got, "GetConversation") {
		t.Errorf("got %s", got)
	}
}

func TestIdentity_OnlyAgent(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g)
	t.Setenv("LPFILESHARE_PASSWORD", "sandbox")
	s.ok("sign-in", "agent", "--user", "admin", "--address", g.address)
	s.ok("capabilities")
	if got := s.fails(exitFailed, "--as", "consumer", "capabilities"); !strings.Contains(got, "not signed in as consumer") {
		t.Errorf("got %s", got)
	}
	write(t, "a.jpg", picture(10))
	if got := s.fails(exitFailed, "agent", "send", "a.jpg"); !strings.Contains(got, "-c") || strings.Contains(got, "create") {
		t.Errorf("got %s", got)
	}
}

// A trigger calls then when a text is written to it.
type trigger struct {
	bytes.Buffer
	text string
	then func()
}

func (w *trigger) Write(p []byte) (int, error) {
	if strings.Contains(string(p), w.text) {
		w.then()
	}
	return w.Buffer.Write(p)
}

func TestWatch_PrintsConnection(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	began := 0
	g := startGateway(t, &gateway{onWatch: func() error {
		if began++; began == 1 {
			return status.Error(codes.Unavailable, "lost")
		}
		return nil
	}})
	s := newShell(t, g).signIn()
	stderr := &trigger{text: "connected again", then: cancel}
	code := run(ctx, []string{"--session-file", s.session, "watch"}, strings.NewReader(""), io.Discard, stderr)
	want := "lpfileshare: watching accounts/12345678/conversations/c1 (Ctrl-C ends it)\n" +
		"lpfileshare: connection lost, retrying\nlpfileshare: connected again\n"
	if code != exitOK || stderr.String() != want {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
}

func TestLsAndWatch_PrintWhatIsLeftOut(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	g := startGateway(t, &gateway{unreadable: []*pb.UnreadableConversation{{
		Name: "accounts/12345678/conversations/c9", DialogId: "c9", Reason: pb.ErrorReason_ERROR_REASON_CONVERSATION_TOO_LARGE, Message: "too many\x1b files",
	}}})
	s := newShell(t, g).signIn()
	const line = "lpfileshare: left out accounts/12345678/conversations/c9: too many\uFFFD files (CONVERSATION_TOO_LARGE)\n"
	var stderr bytes.Buffer
	code := run(ctx, []string{"--session-file", s.session, "ls", "--all"}, strings.NewReader(""), io.Discard, &stderr)
	if code != exitOK || strings.Count(stderr.String(), line) != 1 {
		t.Errorf("ls: exit code %d\n%s", code, stderr.String())
	}
	lines := 0
	both := &trigger{text: line, then: func() { // from the listing, and from the watch
		if lines++; lines == 2 {
			cancel()
		}
	}}
	code = run(ctx, []string{"--session-file", s.session, "watch", "--all"}, strings.NewReader(""), io.Discard, both)
	if code != exitOK || strings.Count(both.String(), line) != 2 {
		t.Errorf("watch: exit code %d\n%s", code, both.String())
	}
}

func TestLs_Table(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	write(t, "cat.jpg", picture(1000))
	name := s.ok("upload", "cat.jpg")
	var line cli
	var stdout, stderr bytes.Buffer
	a := &app{globals: &line.globals, stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, getenv: os.Getenv,
		terminal: func(any) bool { return true }}
	if code := runWith(t.Context(), a, &line, []string{"--session-file", s.session, "ls"}); code != exitOK {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	if lines := strings.Split(stdout.String(), "\n"); !strings.HasPrefix(lines[0], "#  TIME") || !strings.HasPrefix(lines[1], "1  ") ||
		!strings.HasSuffix(lines[1], "jpeg  1000  cat.jpg  "+name) || strings.Contains(lines[1], "\t") {
		t.Errorf("got\n%s", &stdout)
	}
	if got := s.ok("stat", "1"); !strings.Contains(got, name) {
		t.Errorf("stat 1: %s", got)
	}
	s.ok("download", "1", "-o", "back.jpg")
	if info, err := os.Stat("back.jpg"); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o666&^umask {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	for _, n := range []string{"0", "2"} {
		s.fails(exitUsage, "download", n)
	}
	if got := s.fails(exitFailed, "download", "1", "-o", "nowhere/x.jpg"); !strings.Contains(got, "nowhere/x.jpg") || strings.Contains(got, ".part") {
		t.Errorf("got %s", got)
	}
}

func TestLs_NewestAndLimit(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	write(t, "a.jpg", picture(10))
	names := strings.Split(s.ok("upload", "a.jpg", "a.jpg", "a.jpg"), "\n")
	got := strings.Split(s.ok("ls", "--newest", "--limit", "2"), "\n")
	if len(got) != 2 || !strings.HasSuffix(got[0], names[2]) || !strings.HasSuffix(got[1], names[1]) {
		t.Errorf("listed %q of %q", got, names)
	}
	s.fails(exitUsage, "ls", "--limit", "-1")
}

func TestPublish(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	for _, upload := range []string{"6f8f57e0-79b8-4a4b-8a4c-5bd1a9d6e1c7", "accounts/12345678/uploads/6f8f57e0-79b8-4a4b-8a4c-5bd1a9d6e1c7"} {
		if got := s.ok("publish", upload); got != "accounts/12345678/conversations/c1/files/f" {
			t.Errorf("%s: %s", upload, got)
		}
	}
	if got := s.fails(exitFailed, "publish", "6f8f57e0-79b8-4a4b-8a4c-5bd1a9d6e1c8"); !strings.Contains(got, "publish upload: ") || !strings.Contains(got, "UPLOAD_NOT_FOUND") {
		t.Errorf("got %s", got)
	}
	s.fails(exitUsage, "publish", "x")
}

func TestUsage(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g)
	if got := s.ok("sign-out"); !strings.Contains(got, "Not signed in") {
		t.Errorf("sign-out: %s", got)
	}
	if got := s.ok("--version"); !strings.HasPrefix(got, "lpfileshare ") {
		t.Errorf("--version: %s", got)
	}
	var out, errs bytes.Buffer
	if code := run(t.Context(), nil, nil, &out, &errs); code != exitUsage || out.Len() > 0 || !strings.Contains(errs.String(), "Commands:") {
		t.Errorf("bare: exit code %d\n%s%s", code, &out, &errs)
	}
	s.signIn()
	for args, want := range map[string]string{
		"--address localhost capabilities": "no port",
		"--address ::1 capabilities":       "[::1]:50051",
		"demo missing.txt":                 "missing.txt: no such file",
		"demo .":                           "is a directory",
		"upload --type exe a":              "must be one of jpeg",
	} {
		if got := s.fails(exitUsage, strings.Fields(args)...); !strings.Contains(got, want) || strings.Contains(got, "[<") {
			t.Errorf("%s: %s", args, got)
		}
	}
	if got := s.fails(exitFailed, "--tls-ca", "nofile", "capabilities"); !strings.Contains(got, "nofile: no such file") {
		t.Errorf("--tls-ca: %s", got)
	}
	write(t, "ca", nil)
	if got := s.fails(exitFailed, "--tls-ca", "ca", "capabilities"); !strings.Contains(got, "ca contains no certificate") {
		t.Errorf("--tls-ca: %s", got)
	}
	web := httptest.NewTLSServer(nil) // for its certificate
	write(t, "ca", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}))
	web.Close()
	if got := s.fails(exitFailed, "--tls-ca", "ca", "capabilities"); !strings.Contains(got, "without TLS") || !strings.Contains(got, "over TLS") {
		t.Errorf("--tls-ca: %s", got)
	}
	for _, args := range []string{"--client-cert ca", "--plaintext --tls-ca ca"} {
		s.fails(exitUsage, append(strings.Fields(args), "capabilities")...)
	}
	if got := s.fails(exitFailed, "sign-in", "--anonymous", "78"); !strings.Contains(got, "connector id") || strings.Contains(got, "password") {
		t.Errorf("sign-in: %s", got)
	}
}

func TestUpload_PrintsHowToRepeat(t *testing.T) {
	g := startGateway(t, &gateway{upload: func(s grpc.ClientStreamingServer[pb.UploadRequest, pb.UploadResponse]) error {
		s.Recv()
		return failure(codes.Internal, pb.ErrorReason_ERROR_REASON_INTERNAL)
	}})
	s := newShell(t, g).signIn()
	write(t, "a.jpg", picture(10))
	if got := s.fails(exitFailed, "upload", "a.jpg"); !strings.Contains(got, "--request-id ") || !strings.Contains(got, "Report this") {
		t.Errorf("got %s", got)
	}
}

func TestWatch_Downloads(t *testing.T) {
	var g *gateway
	var spec *pb.UploadSpec
	g = startGateway(t, &gateway{onWatch: func() error { g.keep(spec, picture(600), true); return nil }})
	s := newShell(t, g).signIn()
	spec = &pb.UploadSpec{
		Conversation: "accounts/12345678/conversations/c1", DisplayName: "../..//\x1b[31mevil\\.cat.jpg", Caption: "\x1b]0;owned\a",
		FileType: pb.FileType_FILE_TYPE_JPEG,
	}
	g.keep(spec, picture(500), false)
	if err := os.Mkdir("in", 0o700); err != nil {
		t.Fatal(err)
	}
	out := s.ok("agent", "watch", "--existing", "--count", "2", "--download", "in")
	if lines := strings.Split(out, "\n"); len(lines) != 2 || !strings.Contains(lines[1], "assigned agent") || strings.ContainsAny(out, "\x1b\a") {
		t.Errorf("got %q", out)
	}
	checkDir(t, s.dir, "in")
	checkDir(t, "in", "cat-2.jpg", "cat.jpg")
	s.fails(exitUsage, "watch", "--download", "nowhere")
}

func TestFileName(t *testing.T) {
	for display, want := range map[string]string{
		"cat.jpg": "cat.jpg", "../../etc/passwd": "passwd.jpg", `C:\x\y.png`: "y.png", "..": "file.jpg", ".bashrc": "bashrc.jpg",
		"-rf": "rf.jpg", "a\nb.gif": "a_b.gif", "": "stored.jpg", "/": "file.jpg", "a\u202egpj.exe": "a_gpj.exe",
		strings.Repeat("ä", 300) + ".jpg": strings.Repeat("ä", 96) + ".jpg",
	} {
		f := &pb.File{DisplayName: display, StoragePath: "/v1/AUTH_x/stored.jpg", FileType: pb.FileType_FILE_TYPE_JPEG}
		if got := fileName(f); got != want {
			t.Errorf("%q becomes %q, want %q", display, got, want)
		}
	}
}

func TestProgress_OnTerminalOnly(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	write(t, "a.jpg", picture(100_000))
	for _, terminal := range []bool{true, false} {
		var line cli
		var stdout, stderr bytes.Buffer
		a := &app{globals: &line.globals, stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, getenv: os.Getenv,
			terminal: func(any) bool { return terminal }}
		if code := runWith(t.Context(), a, &line, []string{"--session-file", s.session, "upload", "a.jpg"}); code != exitOK {
			t.Fatalf("exit code %d: %s", code, &stderr)
		}
		if shown := strings.Contains(stderr.String(), "a.jpg") && strings.Contains(stderr.String(), "100.0 KB"); shown != terminal {
			t.Errorf("terminal %v: %q", terminal, &stderr)
		}
	}
}

func TestConnect_Unreachable(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	s := newShell(t, nil)
	began := time.Now()
	got := s.fails(exitFailed, "--address", listener.Addr().String(), "sign-in")
	if !strings.Contains(got, "refused") || !strings.Contains(got, "Check the address") || time.Since(began) > time.Minute {
		t.Errorf("after %v: %s", time.Since(began), got)
	}
}

func TestHealth_NotServing(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g)
	if got := s.ok("--address", g.address, "health"); got != "SERVING" {
		t.Errorf("got %s", got)
	}
	g.health.Shutdown() // as a server does that is going down
	code, stdout, stderr := s.run(t.Context(), "--address", g.address, "health")
	if code != exitFailed || stdout != "NOT_SERVING\n" || !strings.Contains(stderr, "is not serving calls") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
}

func TestDemo(t *testing.T) {
	for name, g := range map[string]*gateway{"with an agent": {}, "with a second connection": {noAgents: true}} {
		t.Run(name, func(t *testing.T) {
			startGateway(t, g)
			s := newShell(t, g)
			out := s.ok("demo", "--address", g.address)
			last := out[strings.LastIndexByte(out, '\n')+1:]
			if !strings.HasPrefix(last, "demo: ok sha256=") || !strings.Contains(last, fmt.Sprintf(" bytes=%d ", len(demoPicture))) {
				t.Errorf("got\n%s", out)
			}
			if agent := strings.Contains(out, "agent agent-1 received"); agent == g.noAgents {
				t.Errorf("got\n%s", out)
			}
			if state := g.conversations[0].GetState(); state != pb.ConversationState_CONVERSATION_STATE_CLOSED {
				t.Errorf("the conversation is %v", state)
			}
			write(t, "mine.jpg", picture(777))
			if out := s.ok("demo", "--address", g.address, "mine.jpg"); !strings.Contains(out, " bytes=777 ") {
				t.Errorf("got\n%s", out)
			}
		})
	}
}

func TestDemo_Fails(t *testing.T) {
	g := startGateway(t, &gateway{corrupt: true})
	s := newShell(t, g)
	code, stdout, _ := s.run(t.Context(), "demo", "--address", g.address)
	last := stdout[strings.LastIndexByte(strings.TrimSuffix(stdout, "\n"), '\n')+1:]
	if code != exitFailed || !strings.HasPrefix(last, "demo: failed: the downloaded file has SHA-256") {
		t.Errorf("exit code %d\n%s", code, stdout)
	}
	if state := g.conversations[0].GetState(); state != pb.ConversationState_CONVERSATION_STATE_CLOSED {
		t.Errorf("the conversation is %v", state)
	}
}

func TestDemo_StartsAndStopsServer(t *testing.T) {
	s := newShell(t, nil)
	stopped := filepath.Join(t.TempDir(), "stopped")
	t.Setenv("LPFILESHARE_TEST_STOPPED", stopped)
	t.Setenv("LPFILESHARE_TEST_SERVER", "good")
	out := s.ok("demo", "--server", os.Args[0])
	if !strings.Contains(out, "server stopped\ndemo: ok sha256=") {
		t.Errorf("got\n%s", out)
	}
	if _, err := os.Stat(stopped); err != nil {
		t.Errorf("the server did not stop by SIGTERM: %v", err)
	}

	os.Remove(stopped)
	code, stdout, _ := s.run(t.Context(), "demo", "--server", os.Args[0], write(t, "empty", nil))
	if _, err := os.Stat(stopped); err != nil || code != exitFailed || !strings.Contains(stdout, "\ndemo: failed: ") {
		t.Errorf("a failed demo: %v, exit code %d\n%s", err, code, stdout)
	}

	t.Setenv("LPFILESHARE_TEST_SERVER", "broken")
	code, stdout, _ = s.run(t.Context(), "demo", "--server", os.Args[0])
	if code != exitFailed || !strings.HasPrefix(stdout, "demo: failed: start the server: the server ended before it was ready") || !strings.Contains(stdout, "no space left") {
		t.Errorf("exit code %d\n%s", code, stdout)
	}
}

func TestHelp(t *testing.T) {
	golden, err := filepath.Abs("testdata/help.txt") // shells change the working directory
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("COLUMNS", "80")
	s := newShell(t, nil)
	var all bytes.Buffer
	for _, command := range []string{
		"", "demo", "sign-in", "sign-in consumer", "sign-in agent", "sign-out", "conversation", "conversation create", "conversation list",
		"conversation get", "conversation close", "upload", "download", "ls", "stat", "watch", "publish", "get-upload", "capabilities", "health",
		"account file-sharing", "agent watch", "agent send", "version",
	} {
		code, stdout, stderr := s.run(t.Context(), append(strings.Fields(command), "--help")...)
		if code != exitOK || stderr != "" {
			t.Errorf("%s --help: exit code %d: %s", command, code, stderr)
		}
		fmt.Fprintf(&all, "$ lpfileshare %s\n%s\n", strings.TrimSpace(command+" --help"), stdout)
	}
	if *update {
		if err := os.WriteFile(golden, all.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || !bytes.Equal(all.Bytes(), want) {
		t.Errorf("%v: the help has changed; if that is intended, run go test ./cmd/client -update. It is now:\n%s", err, &all)
	}
}

func TestSecrets_AreNotFlags(t *testing.T) {
	s := newShell(t, nil)
	for _, args := range []string{"--token x ls", "sign-in --customer-jwt x", "sign-in --auth-code x", "sign-in agent --user u --password x"} {
		s.fails(exitUsage, strings.Fields(args)...)
	}
	write(t, "nothing", nil)
	if got := s.fails(exitFailed, "sign-in", "--customer-jwt-file", "nothing"); !strings.Contains(got, "does not contain a secret") {
		t.Errorf("got %s", got)
	}
}
