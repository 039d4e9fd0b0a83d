package main

import (
	"bytes"
	"encoding/pem"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

var update = flag.Bool("update", false, "write the golden files")

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
		"account file-sharing", "agent watch", "agent send", "whoami", "token", "profiles", "completion", "man", "exit-codes", "version",
	} {
		code, stdout, stderr := s.run(t.Context(), append(strings.Fields(command), "--help")...)
		if code != exitOK || stderr != "" {
			t.Errorf("%s --help: exit code %d: %s", command, code, stderr)
		}
		fmt.Fprintf(&all, "$ lpfileshare %s\n%s\n", strings.TrimSpace(command+" --help"), stdout)
	}
	compareGolden(t, golden, all.String())
}

// compareGolden compares a text with a file, or writes the file with -update.
func compareGolden(t *testing.T, golden, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || got != string(want) {
		t.Errorf("%v: %s is stale; if the change is intended, run go test ./cmd/client -update. It is now:\n%s", err, filepath.Base(golden), got)
	}
}

func TestMan(t *testing.T) {
	golden, err := filepath.Abs("../../docs/lpfileshare.1")
	if err != nil {
		t.Fatal(err)
	}
	page := newShell(t, nil).ok("man") + "\n"
	for _, want := range []string{"EXIT STATUS", "75: Temporary failure", "conversation create", "LPFILESHARE_TOKEN", "\\-\\-parallel"} {
		if !strings.Contains(page, want) && !strings.Contains(page, strings.ReplaceAll(want, "\\", "")) {
			t.Errorf("%q is not in the man page", want)
		}
	}
	compareGolden(t, golden, page)
}

func TestExitCodes(t *testing.T) {
	doc, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range exitCodes {
		row := fmt.Sprintf("| %d | %s |", e.code, strings.ToLower(e.meaning[:1])+strings.TrimSuffix(e.meaning[1:], "."))
		if !strings.Contains(string(doc), row) {
			t.Errorf("docs/cli.md has no row %s", row)
		}
	}
	out := newShell(t, nil).ok("exit-codes")
	for _, want := range []string{"0    Success", "1    Permanent", "2    Wrong usage", "75   Temporary", "130  Interrupted"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
}

func TestExitCodeOf(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	write(t, "a.jpg", picture(10))
	for _, tc := range []struct {
		err  error
		code int
	}{
		{failure(codes.InvalidArgument, pb.ErrorReason_ERROR_REASON_FILE_EMPTY), exitFailed},
		{failure(codes.Unavailable, pb.ErrorReason_ERROR_REASON_STORAGE_DENIED), exitFailed}, // without RetryInfo
		{retriable(codes.ResourceExhausted, pb.ErrorReason_ERROR_REASON_TOO_MANY_UPLOADS, time.Hour), exitTemporary},
	} {
		g.upload = func(grpc.ClientStreamingServer[pb.UploadRequest, pb.UploadResponse]) error { return tc.err }
		s.fails(tc.code, "upload", "a.jpg")
		s.fails(exitFailed, "upload", "a.jpg", "missing.jpg") // the permanent failure decides
	}
	s.fails(exitTemporary, "--timeout", "1ns", "ls")
}
