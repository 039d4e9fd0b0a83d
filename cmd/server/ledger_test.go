package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
)

func TestLedger_RemembersRequestIDAcrossRestart(t *testing.T) {
	overBoth(t, testLedger_RemembersRequestIDAcrossRestart)
}

func testLedger_RemembersRequestIDAcrossRestart(t *testing.T, newWorld worldFunc) {
	dir := t.TempDir()
	w := newWorld(t, sandbox.Options{}, "--ledger=embedded", "--data-dir="+dir)
	who := w.consumer()
	o := lpfileshare.UploadOptions{Conversation: w.conversation(who.Client), DisplayName: "a.jpg", RequestID: "6f0c3a52-7d9e-4b1c-9d0a-3c1d2e4f5a6b"}
	data := photo(t, 10_000)
	first, err := who.Upload(t.Context(), o, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	w.stop()
	w.start("--ledger=embedded", "--data-dir="+dir, "--ledger-sync")
	again := w.again(who)
	second, err := again.Upload(t.Context(), o, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if !second.GetReplayed() || second.GetFile().GetName() != first.GetFile().GetName() || len(w.sb.Journal().Published) != 1 {
		t.Errorf("replayed %v, %d messages", second.GetReplayed(), len(w.sb.Journal().Published))
	}

	// Another server uses the directory, and the error names the flag.
	var logs bytes.Buffer
	if code := run(t.Context(), []string{"--listen=127.0.0.1:0", "--sandbox", "--data-dir=" + dir}, &logs, &logs); code != 1 || !strings.Contains(logs.String(), "--data-dir") {
		t.Errorf("code %d, %s", code, logs.String())
	}
}

func TestHealth_ReportsLedger(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	conn, err := grpc.NewClient(w.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	resp, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: ledgerHealth})
	if err != nil || resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("%v, %v", resp, err)
	}
}

func TestLedger_RequiredAtStart(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond) // SIGTERM ends the wait
	defer cancel()
	var logs bytes.Buffer
	code := run(ctx, []string{"--listen=127.0.0.1:0", "--sandbox", "--ledger=nats://127.0.0.1:1"}, &logs, &logs)
	if code != 1 || !strings.Contains(logs.String(), "the ledger at nats://127.0.0.1:1 cannot be reached") {
		t.Errorf("code %d, %s", code, logs.String())
	}
}

func TestFlags_RejectLedgerSettings(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"--ledger=etcd://a":                                               "nats://HOST:4222",
		"--ledger=nats://somebody:Hunter2@a":                              "--ledger-creds",
		"--ledger-creds=f":                                                "--ledger to nats://",
		"--ledger-bytes=1000":                                             "at least 1MiB",
		"--ledger=nats://a --ledger-sync":                                 "sync_interval",
		"--ledger=memory --ledger-sync":                                   "--ledger is memory",
		"--ledger=nats://a --ledger-replicas=6":                           "is 6; set it to 1 to 5",
		"--ledger=nats://a --ledger-user=x":                               "belong together",
		"--ledger=nats://a --ledger-cert=x":                               "belong together",
		"--ledger=nats://a --ledger-user=x --ledger-password-file=f":      "unencrypted",
		"--ledger=tls://a,nats://b --ledger-user=x --ledger-creds=f":      "give one",
		"--ledger=tls://a --ledger-user=x --ledger-password-file=/no/one": "--ledger-password-file",
		"--ledger=nats://a --ledger-ca=/no/one":                           "--ledger-ca",
		"--ledger=nats://a --ledger-cert=/no/one --ledger-key=/no/one":    "--ledger-cert",
	} {
		var logs bytes.Buffer
		code := run(t.Context(), append([]string{"--listen=127.0.0.1:0", "--sandbox"}, strings.Fields(args)...), &logs, &logs)
		if code == 0 || !strings.Contains(logs.String(), want) || strings.Contains(logs.String(), "Hunter2") {
			t.Errorf("%s: code %d, %s; want %q in the error", args, code, logs.String(), want)
		}
	}
}

func TestLedger_Directory(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("other systems have other directories")
	}
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("STATE_DIRECTORY", "")
	t.Setenv("XDG_STATE_HOME", "")
	dir := func(args ...string) string {
		f, code, done := parse(args, os.Stdout, os.Stderr)
		if done {
			t.Fatalf("%v: code %d", args, code)
		}
		c, err := f.ledgerConfig(nil)
		if err != nil {
			return err.Error()
		}
		return c.Dir
	}
	for _, c := range []struct {
		what, got, want string
	}{
		{"by default", dir(), filepath.Join(home, ".local/state/lpfileshare/ledger")},
		{"with the sandbox", dir("--sandbox"), ""},
		{"in memory", dir("--ledger=memory"), ""},
		{"set", dir("--data-dir=/x"), "/x/ledger"},
		{"set, with the sandbox", dir("--sandbox", "--data-dir=/x"), "/x/ledger"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %q, want %q", c.what, c.got, c.want)
		}
	}
	t.Setenv("XDG_STATE_HOME", "/state")
	if got := dir(); got != "/state/lpfileshare/ledger" {
		t.Errorf("XDG_STATE_HOME: %q", got)
	}
	t.Setenv("STATE_DIRECTORY", "/var/lib/lpfileshare:/var/lib/more")
	if got := dir(); got != "/var/lib/lpfileshare/ledger" {
		t.Errorf("STATE_DIRECTORY: %q", got)
	}
	t.Setenv("STATE_DIRECTORY", "")
	t.Setenv("XDG_STATE_HOME", "")
	t.Setenv("HOME", "")
	if got := dir(); !strings.Contains(got, "--data-dir") {
		t.Errorf("nowhere: %q", got)
	}
}
