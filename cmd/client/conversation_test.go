package main

import (
	"strings"
	"testing"
)

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

func TestConversation_DefaultOfExternalConsumer(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g)
	s.session = "" // a fresh home directory
	at := func(consumer string, args ...string) string {
		t.Helper()
		return s.ok(append([]string{"--address", g.address, "--external-consumer-id", consumer}, args...)...)
	}
	at("anna", "conversation", "create")
	anna := at("anna", "conversation", "create")
	bob := at("bob", "conversation", "create")
	elsewhere := at("anna", "conversation", "create", "--account", "87654321")
	write(t, "a.jpg", picture(10))
	for _, tc := range []struct{ consumer, account, want string }{
		{"anna", "12345678", anna}, {"bob", "12345678", bob}, {"anna", "87654321", elsewhere},
	} {
		if got := at(tc.consumer, "upload", "a.jpg", "--account", tc.account); !strings.HasPrefix(got, tc.want+"/files/") {
			t.Errorf("%s in %s sent %s, want it in %s", tc.consumer, tc.account, got, tc.want)
		}
	}
	s.ok("sign-in", "--address", g.address) // keeps the defaults of other callers
	if got := at("bob", "upload", "a.jpg"); !strings.HasPrefix(got, bob+"/files/") {
		t.Errorf("bob sent %s", got)
	}
	if got := s.fails(exitFailed, "upload", "a.jpg"); !strings.Contains(got, "no conversation is selected") {
		t.Errorf("got %s", got)
	}
}
