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
)

// A shell runs command lines against one session file.
type shell struct {
	t        *testing.T
	dir      string // an empty directory
	session  string // empty: the default session file, in a home directory of its own
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
		s.address = g.address
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

// signIn signs in a consumer and an agent, and creates a conversation.
func (s *shell) signIn() *shell {
	s.t.Helper()
	s.ok("sign-in", "--address", s.address)
	s.t.Setenv("LPFILESHARE_PASSWORD", "sandbox")
	s.ok("sign-in", "agent", "--user", "admin")
	s.t.Setenv("LPFILESHARE_PASSWORD", "")
	s.ok("conversation", "create")
	return s
}
