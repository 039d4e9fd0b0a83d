package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

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

func TestWhoamiAndToken(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g)
	if got := s.fails(exitFailed, "whoami"); !strings.Contains(got, "not signed in as consumer") {
		t.Errorf("got %s", got)
	}
	s.signIn()
	if got := s.ok("whoami"); !strings.Contains(got, "consumer sub-1") || !strings.Contains(got, g.address) || !strings.Contains(got, "accounts/12345678/conversations/c1") || strings.Contains(got, "-token") {
		t.Errorf("whoami: %s", got)
	}
	if got := s.ok("--json", "--as", "agent", "whoami"); !strings.Contains(got, `"as":"agent","id":"agent-1","account":"12345678"`) || strings.Contains(got, "-token") {
		t.Errorf("whoami: %s", got)
	}
	if got := s.ok("token"); got != "consumer-token-1" {
		t.Errorf("token: %s", got)
	}
	if got := s.ok("--as", "agent", "token"); got != "agent-token" {
		t.Errorf("token: %s", got)
	}
	if got := s.fails(exitFailed, "--external-consumer-id", "anna", "token"); !strings.Contains(got, "has no token") {
		t.Errorf("got %s", got)
	}
	if got := s.ok("--external-consumer-id", "anna", "whoami"); !strings.Contains(got, "consumer anna") {
		t.Errorf("whoami: %s", got)
	}
	t.Setenv("LPFILESHARE_TOKEN", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJzdWItNyIsImV4cCI6NDEwMjQ0NDgwMH0.")
	if got := s.ok("--json", "whoami"); !strings.Contains(got, `"id":"sub-7"`) || !strings.Contains(got, `"expireTime":"2100-01-01T00:00:00Z"`) {
		t.Errorf("whoami: %s", got)
	}
}

func TestToken_IsRenewed(t *testing.T) {
	g := startGateway(t, &gateway{signInExpiry: 10 * time.Second})
	s := newShell(t, g)
	s.ok("sign-in", "--address", g.address)
	if got := s.ok("token"); got != "consumer-token-2" {
		t.Errorf("token: %s", got)
	}
}

func TestProfiles(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g)
	s.session = ""
	if _, _, stderr := s.run(t.Context(), "profiles"); !strings.Contains(stderr, "No profiles") {
		t.Errorf("got %s", stderr)
	}
	s.ok("--profile", "work", "sign-in", "--address", g.address)
	s.ok("--profile", "home", "sign-in", "--address", g.address)
	if got := s.ok("--profile", "work", "token") + " " + s.ok("--profile", "home", "token"); got != "consumer-token-1 consumer-token-2" {
		t.Errorf("tokens %s", got)
	}
	if got := s.ok("profiles"); got != "home\nwork" {
		t.Errorf("profiles: %s", got)
	}
	if got := s.fails(exitFailed, "token"); !strings.Contains(got, "not signed in") {
		t.Errorf("without a profile: %s", got)
	}
	s.ok("--profile", "work", "sign-out")
	if got := s.ok("profiles"); got != "home" {
		t.Errorf("profiles: %s", got)
	}
	for _, name := range []string{"../x", "a/b", ".."} {
		s.fails(exitUsage, "--profile", name, "whoami")
	}
	s.fails(exitUsage, "--profile", "work", "--session-file", "x", "whoami")
}
