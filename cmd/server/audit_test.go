package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

// An auditFile is the file of a server's audit stream.
type auditFile struct {
	t    *testing.T
	path string
}

func newAuditFile(t *testing.T) auditFile {
	return auditFile{t, filepath.Join(t.TempDir(), "audit.log")}
}

func (f auditFile) text() string {
	f.t.Helper()
	text, err := os.ReadFile(f.path)
	if err != nil {
		f.t.Fatal(err)
	}
	return string(text)
}

// lines returns the lines of an event whose fields are those that are given.
func (f auditFile) lines(event string, want map[string]any) (found []map[string]any) {
	f.t.Helper()
	for line := range strings.Lines(f.text()) {
		var fields map[string]any
		if strings.HasSuffix(line, "\n") && json.Unmarshal([]byte(line), &fields) != nil {
			f.t.Fatalf("%q is not JSON", line)
		}
		matches := fields["event"] == event
		for key, value := range want {
			matches = matches && fields[key] == value
		}
		if matches {
			found = append(found, fields)
		}
	}
	return found
}

// secretsOf collects tokens and signatures from the frames of a sandbox.
type secretsOf struct {
	mu    sync.Mutex
	found map[string]bool
}

var secretFields = regexp.MustCompile(`"(?:temp_url_sig|token|jwt|bearer|brandId_token)"\s*:\s*"([^"]{16,})"`)

func (s *secretsOf) see(f sandbox.Frame) {
	for _, m := range secretFields.FindAllSubmatch(f.Data, -1) {
		s.add(string(m[1]))
	}
}

func (s *secretsOf) add(secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.found == nil {
		s.found = map[string]bool{}
	}
	s.found[secret] = true
}

// One line for each call, successful or not, and no secret and no content in any of them.
func TestAudit_OneLineForEachCall(t *testing.T) {
	t.Parallel()
	file := newAuditFile(t)
	var secrets secretsOf
	w := newWorld(t, sandbox.Options{OnFrame: secrets.see}, "--audit="+file.path, "--admin-listen=127.0.0.1:0", "--debug-listen=127.0.0.1:0")
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	c := w.consumer()
	secrets.add(c.token)
	conv := w.conversation(c.Client)
	o := lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a-display-name.jpg", Caption: "a-caption", RequestID: "5f0c6a3e-1f6b-4f5e-9d6b-1c2d3e4f5a6b"}
	uploaded := w.upload(c.Client, o, photo(t, 20_000))
	w.upload(c.Client, o, photo(t, 20_000))
	w.download(c.Client, uploaded.GetName())
	secrets.add(w.signInAgent("smith"))
	ctx := t.Context()
	if _, err := w.dial().Raw().Files.ListFiles(ctx, &pb.ListFilesRequest{Parent: conv}); err == nil {
		t.Error("a list without an identity succeeded")
	}
	if _, err := c.Raw().Files.ListFiles(ctx, &pb.ListFilesRequest{Parent: "no name"}); err == nil {
		t.Error("an invalid list succeeded")
	}
	large := make([]byte, 6<<20) // gRPC rejects it before any interceptor runs
	if _, err := c.Raw().Files.UploadSmallFile(ctx, &pb.UploadSmallFileRequest{Data: large}); err == nil {
		t.Error("a message of 6 MiB was accepted")
	}
	if status, _ := w.admin("/metrics"); status != http.StatusOK {
		t.Errorf("/metrics: %d", status)
	}
	if status, _ := w.admin("/readyz"); status != http.StatusOK {
		t.Errorf("/readyz: %d", status)
	}
	id := strings.TrimPrefix(conv, accountPath+"/conversations/")
	upload := map[string]any{
		"method": "FileSharingService/Upload", "code": "OK", "account": account, "consumer": c.id, "role": "CONSUMER", "conversation": id,
		"type": "JPEG", "request_id": o.RequestID, "caller_via": "loopback", "decision": "permitted", "peer_ip": "127.0.0.1",
	}
	first := maps.Clone(upload)
	first["bytes"] = 20_000.0
	again := maps.Clone(upload)
	again["replayed"] = true
	for name, want := range map[string]map[string]any{
		"an upload": first, "its repeat": again,
		"a download":            {"method": "FileSharingService/Download", "code": "OK", "conversation": id, "bytes": 20_000.0, "consumer": c.id},
		"a call without token":  {"method": "FileSharingService/ListFiles", "reason": "TOKEN_INVALID", "account": account},
		"an invalid call":       {"method": "FileSharingService/ListFiles", "reason": "INVALID_FIELD"},
		"a message too large":   {"method": "FileSharingService/UploadSmallFile", "reason": "REQUEST_NOT_RECEIVED", "peer_ip": "127.0.0.1"},
		"a sign-in of an agent": {"method": "IdentityService/SignInAgent", "code": "OK", "account": account},
	} {
		harness.Eventually(t, name+" has a line", func() bool { return len(file.lines("call", want)) > 0 })
		if n := len(file.lines("call", want)); n != 1 {
			t.Errorf("%s has %d lines", name, n)
		}
	}
	if a, b := file.lines("call", first), file.lines("call", map[string]any{"method": "FileSharingService/Download"}); a[0]["file"] == nil || a[0]["file"] != b[0]["file"] {
		t.Errorf("the upload is of file %v, the download of %v", a[0]["file"], b[0]["file"])
	}
	harness.Eventually(t, "the request to the admin listener has a line", func() bool { return len(file.lines("admin", map[string]any{"path": "/metrics"})) == 1 })
	w.stop()
	if len(file.lines("stop", nil)) != 1 || len(file.lines("admin", nil)) != 1 {
		t.Errorf("the stream is\n%s", file.text())
	}
	if len(secrets.found) < 4 { // two tokens, and the signatures of two URLs
		t.Errorf("only %d secrets are known", len(secrets.found))
	}
	text := file.text()
	for _, secret := range append(slices.Collect(maps.Keys(secrets.found)), "temp_url", "Bearer", "eyJ", "a-caption", "a-display-name", "ws://", "http://") {
		if strings.Contains(text, secret) {
			t.Errorf("the stream contains %q", secret)
		}
	}
}

// With a key, no identifier of a person is in the stream.
func TestAudit_Key(t *testing.T) {
	t.Parallel()
	file := newAuditFile(t)
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(strings.Repeat("5f", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, sandbox.Options{}, "--audit="+file.path, "--audit-key-file="+key)
	c := w.consumer()
	conv := w.conversation(c.Client)
	w.upload(c.Client, lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.jpg"}, photo(t, 5000))
	w.stop()
	lines := file.lines("call", map[string]any{"method": "FileSharingService/Upload"})
	if len(lines) != 1 || len(lines[0]["consumer"].(string)) != 32 || len(lines[0]["conversation"].(string)) != 32 {
		t.Errorf("the lines are %v", lines)
	}
	if id := strings.TrimPrefix(conv, accountPath+"/conversations/"); strings.Contains(file.text(), id) || strings.Contains(file.text(), c.id) {
		t.Errorf("the stream contains an identifier:\n%s", file.text())
	}
}

// SIGHUP opens the file again, as logrotate needs it.
func TestAudit_Rotation(t *testing.T) { // not parallel: the signal is for all servers of this process
	file := newAuditFile(t)
	w := newWorld(t, sandbox.Options{}, "--audit="+file.path)
	c := w.consumer()
	if err := os.Rename(file.path, file.path+".1"); err != nil {
		t.Fatal(err)
	}
	w.hangUp("the audit file was opened again")
	w.conversation(c.Client)
	w.stop()
	// A line from about the time of the signal is in either file.
	before := auditFile{t, file.path + ".1"}
	if len(before.lines("start", nil)) != 1 {
		t.Errorf("the previous file is\n%s", before.text())
	}
	for _, want := range []struct {
		event  string
		fields map[string]any
	}{
		{"call", map[string]any{"method": "IdentityService/SignInConsumer"}},
		{"call", map[string]any{"method": "ConversationService/CreateConversation"}},
		{"reload", map[string]any{"file": "audit", "by": "signal", "result": "loaded"}},
		{"stop", nil},
	} {
		if n := len(before.lines(want.event, want.fields)) + len(file.lines(want.event, want.fields)); n != 1 {
			t.Errorf("%d lines of %v", n, want)
		}
	}
}

// On a full disk calls are refused, health says so, and with --audit-full=continue nothing of that happens.
func TestAudit_FullDisk(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("this system has no /dev/full")
	}
	t.Run("refuse", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, sandbox.Options{}, "--audit=/dev/full", "--admin-listen=127.0.0.1:0")
		t.Cleanup(http.DefaultClient.CloseIdleConnections)
		for _, name := range []string{"", readyHealth, auditHealth} {
			w.watchHealth(name).becomes(notServing)
		}
		w.wantHealth(map[string]healthpb.HealthCheckResponse_ServingStatus{ledgerHealth: serving})
		conn, err := grpc.NewClient(w.grpc, grpc.WithTransportCredentials(insecure.NewCredentials())) // which does not ask for the health
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, err = pb.NewIdentityServiceClient(conn).SignInConsumer(t.Context(), &pb.SignInConsumerRequest{Account: accountPath, Grant: &pb.SignInConsumerRequest_SignUp{SignUp: &pb.SignUp{}}})
		wantReason(t, err, pb.ErrorReason_ERROR_REASON_SERVER_DRAINING)
		if status, text := w.admin("/readyz?verbose"); status != http.StatusServiceUnavailable || !strings.Contains(text, "[-] audit\n") {
			t.Errorf("/readyz: %d %s", status, text)
		}
		if _, text := w.admin("/metrics"); !strings.Contains(text, "\nlpfs_audit_usable 0\n") || !strings.Contains(text, "\nlpfs_audit_lost_total 0\n") {
			t.Error("the metrics do not say that the stream cannot be written")
		}
		w.logged("the audit stream cannot be written", "no space left on device")
	})
	t.Run("continue", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, sandbox.Options{}, "--audit=/dev/full", "--audit-full=continue")
		w.logged("the audit stream cannot be written")
		c := w.consumer()
		w.upload(c.Client, lpfileshare.UploadOptions{Conversation: w.conversation(c.Client), DisplayName: "a.jpg"}, photo(t, 5000))
		w.wantHealth(map[string]healthpb.HealthCheckResponse_ServingStatus{"": serving, readyHealth: serving, auditHealth: serving})
	})
}

// A client without a certificate, and one that does not speak TLS, each have a line. A connection that says nothing has none.
func TestAudit_DeniedHandshakes(t *testing.T) {
	t.Parallel()
	file := newAuditFile(t)
	ours := newAuthority(t, "ours")
	rules := newAccountsFile(t, "others: allow\ncallers:\n  - certificates: [\"uri:spiffe://example.com/chat\"]\n    accounts: all\n    tokens: [consumer]\n")
	w := newWorld(t, sandbox.Options{}, append(ours.server("server"), "--tls-client-ca="+ours.ca(), "--accounts="+rules.path, "--audit="+file.path)...)
	probe, err := net.Dial("tcp", w.grpc)
	if err != nil {
		t.Fatal(err)
	}
	probe.Close()
	client := w.dialTLS(ours.config(""))
	if _, err := client.Raw().Files.ListFiles(t.Context(), &pb.ListFilesRequest{Parent: accountPath}); err == nil {
		t.Error("a client without a certificate made a call")
	}
	conn, err := net.Dial("tcp", w.grpc)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 10)); err != nil {
		t.Fatal(err)
	}
	denied := func(word string) int {
		n := 0
		for _, line := range file.lines("handshake_denied", map[string]any{"peer_ip": "127.0.0.1"}) {
			if strings.Contains(line["error"].(string), word) {
				n++
			}
		}
		return n
	}
	harness.Eventually(t, "both have a line", func() bool { return denied("certificate") > 0 && denied("TLS handshake") > 0 })
	if n := denied("EOF"); n != 0 {
		t.Errorf("%d lines of a connection that was only closed", n)
	}
}

// gRPC ends a stream with a compression that it does not know before any interceptor runs.
func TestAudit_StreamsThatGRPCEnds(t *testing.T) {
	t.Parallel()
	file := newAuditFile(t)
	w := newWorld(t, sandbox.Options{}, "--audit="+file.path)
	client := plaintextHTTP2(t)
	for _, method := range []string{pb.FileSharingService_Upload_FullMethodName, pb.FileSharingService_Download_FullMethodName} {
		if code, _ := rawCall(t, client, w.grpc, method, "unknown", grpcFrame(1, []byte("x"))); code != codes.Unimplemented {
			t.Errorf("%s: %s", method, code)
		}
		want := map[string]any{"method": strings.TrimPrefix(method, "/lpfileshare.v1."), "peer_ip": "127.0.0.1"}
		harness.Eventually(t, method+" has a line", func() bool { return len(file.lines("call", want)) > 0 })
		if lines := file.lines("call", want); len(lines) != 1 {
			t.Errorf("%s has the lines %v", method, lines)
		}
	}
}
