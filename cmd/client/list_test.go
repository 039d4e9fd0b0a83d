package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

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
	s.terminal = true
	out := s.ok("ls")
	if lines := strings.Split(out, "\n"); !strings.HasPrefix(lines[0], "#  TIME") || !strings.HasPrefix(lines[1], "1  ") ||
		!strings.HasSuffix(lines[1], "jpeg  1000  "+shortName(name)+"  cat.jpg") || strings.Contains(lines[1], "\t") {
		t.Errorf("got\n%s", out)
	}
	if out := s.ok("ls", "--long"); !strings.HasSuffix(out, name+"  cat.jpg") {
		t.Errorf("--long: %s", out)
	}
	s.terminal = false
	for _, arg := range []string{"1", name, shortName(name)} {
		if got := s.ok("stat", arg); !strings.Contains(got, name) {
			t.Errorf("stat %s: %s", arg, got)
		}
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
	if len(got) != 3 || !strings.Contains(got[1], shortName(names[2])) || !strings.Contains(got[2], shortName(names[1])) {
		t.Errorf("listed %q of %q", got, names)
	}
	s.fails(exitUsage, "ls", "--limit", "-1")
}

func TestShortNames(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	write(t, "a.jpg", picture(10))
	name := s.ok("upload", "a.jpg")
	short := shortName(name)
	// Neither this session file nor another one has listed it.
	if got := s.ok("stat", short); !strings.Contains(got, name) {
		t.Errorf("stat: %s", got)
	}
	if got := s.ok("watch", "--existing", "--count", "1"); !strings.HasSuffix(got, "\t"+short+"\ta.jpg") {
		t.Errorf("watch: %s", got)
	}
	if got := s.ok("watch", "--existing", "--count", "1", "--long"); !strings.Contains(got, name) {
		t.Errorf("watch --long: %s", got)
	}
	if got := s.ok("--as", "agent", "download", short, "-o", "b.jpg"); got != "b.jpg" {
		t.Errorf("download: %s", got)
	}
	if got := s.fails(exitFailed, "stat", "f00000000"); !strings.Contains(got, "no file of your conversations has the short name f00000000") {
		t.Errorf("got %s", got)
	}
	if got := s.fails(exitUsage, "stat", "a.jpg"); !strings.Contains(got, "lpfileshare ls prints both") {
		t.Errorf("got %s", got)
	}
	if _, err := onlyNamed(short, []string{name, "other", name}); err != nil {
		t.Error(err)
	}
}

func TestLs_InAPipe(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	write(t, "a.jpg", picture(10))
	long := strings.Repeat("x", 300)
	s.ok("upload", "a.jpg", "--caption", long)
	lines := strings.Split(s.ok("ls"), "\n")
	if len(lines) != 2 || lines[0] != "#\tTIME\tSENDER\tTYPE\tSIZE\tNAME\tTEXT" || !strings.HasPrefix(lines[1], "1\t") || !strings.HasSuffix(lines[1], "\t"+long) {
		t.Errorf("got %q", lines)
	}
	s.terminal = true
	if out := s.ok("ls"); len(strings.Split(out, "\n")[1]) > 120 {
		t.Errorf("a line is too wide for a terminal:\n%s", out)
	}
}

func TestLs_SizesOfManyFilesOnRequest(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	for range maxSized + 1 {
		g.keep(&pb.UploadSpec{Conversation: "accounts/12345678/conversations/c1"}, picture(77), false)
	}
	code, stdout, stderr := s.run(t.Context(), "ls")
	if code != exitOK || strings.Contains(stdout, "\t77\t") || !strings.Contains(stderr, "--sizes") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
	if got := strings.Count(s.ok("ls", "--sizes"), "\t77\t"); got != maxSized+1 {
		t.Errorf("%d sizes, want %d", got, maxSized+1)
	}
}

func TestStat(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	write(t, "a.jpg", picture(10))
	s.ok("upload", "a.jpg", "--caption", "my cat")
	s.ok("ls")
	out := s.ok("stat", "1")
	when := formatTime(g.files[0].GetCreateTime().AsTime())
	for _, want := range []string{"time                   " + when, "caption                my cat", "size                   10 bytes", "preview                27 characters"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	for _, args := range []string{"stat 1", "ls", "watch --existing --count 1", "upload a.jpg"} {
		if got := s.ok(append([]string{"--json"}, strings.Fields(args)...)...); strings.Contains(got, "previewDataUri") {
			t.Errorf("%s: %s", args, got)
		}
		if got := s.ok(append([]string{"--json", "--previews"}, strings.Fields(args)...)...); !strings.Contains(got, `"previewDataUri":"data:`) {
			t.Errorf("%s --previews: %s", args, got)
		}
	}
}
