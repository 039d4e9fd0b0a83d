package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// A shell runs command lines against one session file.
type shell struct {
	t        *testing.T
	dir      string // an empty directory
	session  string // empty: the default session file, in a home directory of its own
	gateway  *gateway
	address  string
	stdin    io.Reader
	terminal bool // the streams are terminals
}

func newShell(t *testing.T, g *gateway) *shell {
	for _, name := range []string{
		"ADDRESS", "ACCOUNT", "AS", "TOKEN", "AGENT_TOKEN", "TOKEN_FILE", "PASSWORD", "SESSION_FILE", "TLS_CA", "CLIENT_CERT", "CLIENT_KEY",
		"EXTERNAL_CONSUMER_ID", "TIMEOUT", "PROFILE",
	} {
		t.Setenv("LPFILESHARE_"+name, "")
	}
	t.Setenv("LPFILESHARE_PLAINTEXT", "false")
	for _, name := range []string{"JSON", "PREVIEWS", "QUIET"} {
		t.Setenv("LPFILESHARE_"+name, "false")
	}
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(dir, "config"))
	s := &shell{t: t, dir: t.TempDir(), session: filepath.Join(dir, "sub", "session.json")}
	if g != nil {
		s.gateway, s.address = g, g.address
	}
	t.Chdir(s.dir)
	return s
}

// run runs a command line and returns its results.
func (s *shell) run(ctx context.Context, args ...string) (code int, stdout, stderr string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var out, errs bytes.Buffer
	in := s.stdin
	if in == nil {
		in = strings.NewReader("")
	}
	if s.session != "" {
		args = append([]string{"--session-file", s.session}, args...)
	}
	var line cli
	a := &app{globals: &line.globals, stdin: in, stdout: &out, stderr: &errs, getenv: os.Getenv, terminal: func(any) bool { return s.terminal }}
	code = runWith(ctx, a, &line, args)
	return code, out.String(), errs.String()
}

// ok runs a command line that must succeed and print nothing to standard error, except that a watch is open. It returns the output
// without the last newline.
func (s *shell) ok(args ...string) string {
	s.t.Helper()
	code, stdout, stderr := s.run(s.t.Context(), args...)
	if strings.HasPrefix(stderr, "lpfileshare: watching ") && strings.Count(stderr, "\n") == 1 {
		stderr = ""
	}
	if code != exitOK || stderr != "" {
		s.t.Fatalf("%v: exit code %d\n%s%s", args, code, stdout, stderr)
	}
	return strings.TrimSuffix(stdout, "\n")
}

// fails runs a command line that must fail with an exit code, and returns its standard error.
func (s *shell) fails(code int, args ...string) string {
	s.t.Helper()
	got, stdout, stderr := s.run(s.t.Context(), args...)
	if got != code || stderr == "" {
		s.t.Fatalf("%v: exit code %d, want %d\n%s%s", args, got, code, stdout, stderr)
	}
	return stderr
}

// signIn writes the session file that sign-in as a consumer and as an agent, and conversation create leave.
func (s *shell) signIn() *shell {
	s.t.Helper()
	token, secret, expires := s.gateway.session()
	ctx := metadata.NewIncomingContext(s.t.Context(), metadata.Pairs("lp-consumer-token", token))
	r, err := s.gateway.CreateConversation(ctx, &pb.CreateConversationRequest{Account: "accounts/" + defaultAccount})
	if err != nil {
		s.t.Fatal(err)
	}
	at := stored{Address: s.address, Plaintext: true, Account: defaultAccount}
	consumer, agent := at, at
	consumer.ID, consumer.Token, consumer.RenewalSecret, consumer.Expires = "sub-"+strings.TrimPrefix(token, "consumer-token-"), token, secret, expires.AsTime()
	agent.ID, agent.Token = "agent-1", "agent-token"
	signedIn := &session{Address: s.address, Plaintext: true, Account: defaultAccount, Consumer: &consumer, Agent: &agent}
	signedIn.setConversation(s.address, "consumer:"+consumer.ID, r.GetConversation().GetName())
	file, err := (&app{globals: &globals{SessionFile: s.session}}).openSessionFile()
	if err == nil {
		err = file.save(signedIn)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return s
}
