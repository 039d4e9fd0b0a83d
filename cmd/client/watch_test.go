package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// A trigger calls then when a text is written to it.
type trigger struct {
	bytes.Buffer
	text string
	then func()
}

func (w *trigger) Write(p []byte) (int, error) {
	if strings.Contains(string(p), w.text) {
		w.then()
	}
	return w.Buffer.Write(p)
}

func TestWatch_PrintsConnection(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	began := 0
	g := startGateway(t, &gateway{onWatch: func() error {
		if began++; began == 1 {
			return status.Error(codes.Unavailable, "lost")
		}
		return nil
	}})
	s := newShell(t, g).signIn()
	stderr := &trigger{text: "connected again", then: cancel}
	code := run(ctx, []string{"--session-file", s.session, "watch"}, strings.NewReader(""), io.Discard, stderr)
	want := "lpfileshare: watching accounts/12345678/conversations/c1 (Ctrl-C ends it)\n" +
		"lpfileshare: connection lost, retrying\nlpfileshare: connected again\n"
	if code != exitOK || stderr.String() != want {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
}

func TestWatch_Downloads(t *testing.T) {
	var g *gateway
	var spec *pb.UploadSpec
	g = startGateway(t, &gateway{onWatch: func() error { g.keep(spec, picture(600), true); return nil }})
	s := newShell(t, g).signIn()
	spec = &pb.UploadSpec{
		Conversation: "accounts/12345678/conversations/c1", DisplayName: "../..//\x1b[31mevil\\.cat.jpg", Caption: "\x1b]0;owned\a",
		FileType: pb.FileType_FILE_TYPE_JPEG,
	}
	g.keep(spec, picture(500), false)
	if err := os.Mkdir("in", 0o700); err != nil {
		t.Fatal(err)
	}
	out := s.ok("agent", "watch", "--existing", "--count", "2", "--download", "in")
	if lines := strings.Split(out, "\n"); len(lines) != 2 || !strings.Contains(lines[1], "assigned agent") || strings.ContainsAny(out, "\x1b\a") {
		t.Errorf("got %q", out)
	}
	checkDir(t, s.dir, "in")
	checkDir(t, "in", "cat-2.jpg", "cat.jpg")
	s.fails(exitUsage, "watch", "--download", "nowhere")
}

func TestWatch_DownloadsAsJSON(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	name := g.keep(&pb.UploadSpec{Conversation: "accounts/12345678/conversations/c1", Caption: "cat", FileType: pb.FileType_FILE_TYPE_JPEG}, picture(500), false).GetName()
	var got map[string]any
	if err := json.Unmarshal([]byte(s.ok("--json", "watch", "--existing", "--count", "1", "--download", ".")), &got); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"name": name, "caption": "cat", "fileType": "FILE_TYPE_JPEG", "senderRole": "PARTICIPANT_ROLE_CONSUMER", "path": "file-0.jpg", "sizeBytes": 500.0,
	} {
		if got[key] != want {
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
}

func TestWatch_FailedDownload(t *testing.T) {
	g := startGateway(t, &gateway{breakDownload: failure(codes.DataLoss, pb.ErrorReason_ERROR_REASON_STORAGE_CORRUPTED)})
	s := newShell(t, g).signIn()
	spec := &pb.UploadSpec{Conversation: "accounts/12345678/conversations/c1", FileType: pb.FileType_FILE_TYPE_JPEG}
	g.keep(spec, picture(50_000), false)
	if got := s.fails(exitFailed, "watch", "--existing", "--count", "1", "--download", "."); strings.Count(got, "STORAGE_CORRUPTED") != 1 {
		t.Errorf("got %s", got)
	}
	checkDir(t, s.dir)
}
