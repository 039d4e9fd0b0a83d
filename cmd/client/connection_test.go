package main

import (
	"net"
	"strings"
	"testing"
	"time"
)

func TestConnect_Unreachable(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	s := newShell(t, nil)
	began := time.Now()
	got := s.fails(exitTemporary, "--address", listener.Addr().String(), "sign-in")
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
	if code != exitTemporary || stdout != "NOT_SERVING\n" || !strings.Contains(stderr, "is not serving calls") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
}

func TestConnect_ClearErrors(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "")
	s := newShell(t, nil)
	for address, want := range map[string]string{
		"http://localhost:50051": "use HOST:PORT: localhost:50051\n", "https://files.example.com/x": "files.example.com:443; the connection uses TLS unless --plaintext is set",
		"http://[::1]": "[::1]:80", "a.example.com:1,grpcs://b.example.com": "b.example.com:443",
	} {
		if got := s.fails(exitUsage, "--address", address, "sign-in"); !strings.Contains(got, want) || !strings.Contains(got, "is a URL") {
			t.Errorf("%s: %s", address, got)
		}
	}
}
