package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

func TestUploadAndDownload(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	data := picture(200_000)
	write(t, "cat.jpg", data)

	name := s.ok("upload", "--caption", "my cat", "cat.jpg")
	if spec := g.specs[0]; spec.GetCaption() != "my cat" || spec.GetDisplayName() != "cat.jpg" || !spec.GetPreview().GetGenerate() ||
		spec.GetFileType() != pb.FileType_FILE_TYPE_JPEG || spec.GetSizeBytes() != 200_000 {
		t.Errorf("spec %v", spec)
	}
	if got := s.ok("ls"); !strings.Contains(got, "consumer\tjpeg\t200000\t"+shortName(name)+"\tmy cat") {
		t.Errorf("ls: %s", got)
	}
	if got := s.ok("stat", name); !strings.Contains(got, "200000 bytes") {
		t.Errorf("stat: %s", got)
	}
	if got := s.fails(exitFailed, "download", name); !strings.Contains(got, "cat.jpg") || !strings.Contains(got, "--force") {
		t.Errorf("onto an existing file: %s", got)
	}
	if got := s.ok("download", name, "-o", "back.jpg"); got != "back.jpg" {
		t.Errorf("download: %s", got)
	}
	if got, _ := os.ReadFile("back.jpg"); !bytes.Equal(got, data) {
		t.Errorf("downloaded %d bytes", len(got))
	}
	if got := s.ok("download", name, "-o", "-"); got != strings.TrimSuffix(string(data), "\n") {
		t.Errorf("%d bytes on standard output", len(got))
	}
	write(t, "cat.jpg", []byte("old"))
	s.ok("download", name, "--force")
	if got, _ := os.ReadFile("cat.jpg"); !bytes.Equal(got, data) {
		t.Errorf("--force left %d bytes", len(got))
	}
	checkDir(t, s.dir, "back.jpg", "cat.jpg")
	if got := s.ok("conversation", "close"); !strings.Contains(got, "closed") {
		t.Errorf("close: %s", got)
	}
}

func TestDownload_CompleteOrNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	for _, tc := range []struct {
		name string
		ctx  context.Context
		g    *gateway
		code int
		want string
	}{
		{"failed", t.Context(), &gateway{breakDownload: failure(codes.DataLoss, pb.ErrorReason_ERROR_REASON_STORAGE_CORRUPTED)}, exitFailed, "STORAGE_CORRUPTED"},
		{"interrupted", ctx, &gateway{onDownload: cancel}, exitInterrupted, "interrupted"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := startGateway(t, tc.g)
			s := newShell(t, g).signIn()
			name := g.keep(&pb.UploadSpec{Conversation: "accounts/12345678/conversations/c1"}, picture(50_000), false).GetName()
			code, stdout, stderr := s.run(tc.ctx, "download", name, "-o", "x.jpg")
			if code != tc.code || stdout != "" || !strings.Contains(stderr, tc.want) {
				t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
			}
			checkDir(t, s.dir)
		})
	}
}

func TestFileName(t *testing.T) {
	for display, want := range map[string]string{
		"cat.jpg": "cat.jpg", "../../etc/passwd": "passwd.jpg", `C:\x\y.png`: "y.png", "..": "file.jpg", ".bashrc": "bashrc.jpg",
		"-rf": "rf.jpg", "a\nb.gif": "a_b.gif", "": "stored.jpg", "/": "file.jpg", "a\u202egpj.exe": "a_gpj.exe",
		strings.Repeat("ä", 300) + ".jpg": strings.Repeat("ä", 98) + ".jpg", strings.Repeat("文", 120) + ".pdf": strings.Repeat("文", 65) + ".pdf",
		strings.Repeat("x", 300): strings.Repeat("x", 196) + ".jpg", "a." + strings.Repeat("x", 300): "a." + strings.Repeat("x", 198),
	} {
		f := &pb.File{DisplayName: display, StoragePath: "/v1/AUTH_x/stored.jpg", FileType: pb.FileType_FILE_TYPE_JPEG}
		if got := fileName(f); got != want {
			t.Errorf("%q becomes %q, want %q", display, got, want)
		}
	}
}
