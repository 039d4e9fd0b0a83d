package main

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

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
