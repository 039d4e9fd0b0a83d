package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

func TestUpload_Flags(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	write(t, "a.jpg", picture(10))
	write(t, "b.jpg", picture(20))
	write(t, "p.png", []byte("\x89PNG\r\n\x1a\nsmall"))

	code, stdout, stderr := s.run(t.Context(), "upload", "a.jpg", "b.jpg", "--preview", "p.png", "--store-only")
	if code != exitOK || strings.Count(stdout, "\n") != 2 || !strings.Contains(stderr, "b.jpg: stored, not published; publish it: lpfileshare publish ") {
		t.Errorf("two files: exit code %d\n%s%s", code, stdout, stderr)
	}
	spec := g.specs[0]
	if !strings.HasPrefix(spec.GetPreview().GetDataUri(), "data:image/png;base64,iVBOR") || spec.GetPublishMode() != pb.PublishMode_PUBLISH_MODE_STORE_ONLY {
		t.Errorf("spec %v", spec)
	}
	s.stdin = bytes.NewReader(picture(30))
	s.ok("upload", "-", "--type", "jpeg", "--name", "in.jpg", "--preview", "none", "--request-id", "6f8f57e0-79b8-4a4b-8a4c-5bd1a9d6e1c7")
	if spec = g.specs[2]; spec.GetPreview().GetSource() != nil || spec.GetDisplayName() != "in.jpg" || spec.GetRequestId()[:4] != "6f8f" {
		t.Errorf("spec %v", spec)
	}
	if got := s.ok("upload", "a.jpg", "--validate-only"); got != "a.jpg would be accepted" {
		t.Errorf("--validate-only: %s", got)
	}
	for _, args := range [][]string{
		{"a.jpg", "b.jpg", "--request-id", "6f8f57e0-79b8-4a4b-8a4c-5bd1a9d6e1c7"}, {"a.jpg", "--request-id", "7"}, {"-", "-"}, {},
		{"a.jpg", "--store-only", "--validate-only"}, {"a.jpg", "--type", "exe"}, {"a.jpg", "--no-such-flag"},
		{"a.jpg", "--conversation", "x/y"},
	} {
		s.fails(exitUsage, append([]string{"upload"}, args...)...)
	}
	write(t, "big.jpg", picture(3_000_001))
	code, stdout, stderr = s.run(t.Context(), "upload", "big.jpg", "missing.jpg", "a.jpg")
	if code != exitFailed || strings.Count(stdout, "\n") != 1 || !strings.Contains(stderr, "FILE_TOO_LARGE") ||
		!strings.Contains(stderr, "does not make images fit") || !strings.Contains(stderr, "2 of 3 files failed") || strings.Contains(stderr, "--request-id ") || !strings.Contains(stderr, "missing.jpg") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
}

func TestUpload_PrintsImageChange(t *testing.T) {
	g := startGateway(t, &gateway{image: &pb.ImageChange{
		InputSizeBytes: 8_000_000, InputFileType: pb.FileType_FILE_TYPE_PNG, InputWidth: 4000, InputHeight: 3000, Width: 1500, Height: 2000,
		Recoded: true, Rotated: true, Scaled: true, JpegQuality: 82, TrailingBytesRemoved: 7,
		RemovedMetadata: []pb.ImageMetadata{pb.ImageMetadata_IMAGE_METADATA_EXIF, pb.ImageMetadata_IMAGE_METADATA_COMMENT, 99},
	}})
	s := newShell(t, g)
	s.ok("sign-in", "--address", g.address)
	s.ok("conversation", "create")
	write(t, "a.jpg", picture(1000))
	write(t, "a.txt", []byte("text"))
	code, stdout, stderr := s.run(t.Context(), "upload", "--fit", "--strip", "a.jpg")
	want := "a.jpg: 8000000 bytes became 1000: png became jpeg; rotated upright; scaled from 4000 x 3000 to 1500 x 2000 pixels; quality 82; without EXIF, comments, 99; without 7 trailing bytes\n"
	if code != exitOK || strings.Count(stdout, "\n") != 1 || !strings.Contains(stderr, want) {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	if got := g.specs[0].GetImage(); !got.GetFit() || !got.GetStripMetadata() {
		t.Errorf("asked was %v", got)
	}
	code, stdout, stderr = s.run(t.Context(), "--json", "upload", "a.jpg")
	if code != exitOK || !strings.Contains(stdout, `"jpegQuality":82`) || strings.Contains(stderr, "became") || g.specs[1].GetImage() != nil {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	g.image = nil
	if _, _, stderr = s.run(t.Context(), "upload", "--fit", "a.txt"); strings.Contains(stderr, "became") || g.specs[2].GetImage() != nil {
		t.Errorf("text: %s", stderr)
	}
}

func TestUpload_Interrupted(t *testing.T) {
	for _, tc := range []struct {
		name, want, not string
		finish          bool
	}{
		{"before finish", "interrupted: nothing was published; repeat the command", "get-upload", false},
		{"after finish", "lpfileshare get-upload ", "nothing", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			g := startGateway(t, &gateway{upload: func(s grpc.ClientStreamingServer[pb.UploadRequest, pb.UploadResponse]) error {
				m, err := s.Recv()
				if tc.finish {
					s.SendHeader(metadata.Pairs("lpfs-request-id", m.GetSpec().GetRequestId()))
				}
				for tc.finish && err == nil && m.GetFinish() == nil {
					m, err = s.Recv()
				}
				cancel()
				<-s.Context().Done()
				return s.Context().Err()
			}})
			s := newShell(t, g).signIn()
			write(t, "a.jpg", picture(10))
			code, _, stderr := s.run(ctx, "upload", "a.jpg", "a.jpg")
			if code != exitInterrupted || !strings.Contains(stderr, tc.want) || strings.Contains(stderr, tc.not) || strings.Count(stderr, "interrupted") != 1 {
				t.Errorf("exit code %d\n%s", code, stderr)
			}
		})
	}
}

// An interruption must not hide an upload that may have been published, nor the failure of another file.
func TestUpload_InterruptedInParallel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var finished atomic.Int32
	g := startGateway(t, &gateway{upload: func(s grpc.ClientStreamingServer[pb.UploadRequest, pb.UploadResponse]) error {
		m, err := s.Recv()
		s.SendHeader(metadata.Pairs("lpfs-request-id", m.GetSpec().GetRequestId()))
		for err == nil && m.GetFinish() == nil {
			m, err = s.Recv()
		}
		if finished.Add(1) == 2 {
			cancel()
		}
		<-s.Context().Done()
		return s.Context().Err()
	}})
	s := newShell(t, g).signIn()
	for _, name := range []string{"a.jpg", "b.jpg", "c.jpg"} {
		write(t, name, picture(10))
	}
	code, _, stderr := s.run(ctx, "upload", "-j", "2", "a.jpg", "missing.jpg", "b.jpg", "c.jpg") // b.jpg begins when missing.jpg has failed
	if code != exitInterrupted || strings.Count(stderr, "--request-id ") != 2 || strings.Contains(stderr, "c.jpg") {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
	for _, want := range []string{
		"a.jpg was sent and may have been published\n", "missing.jpg: no such file", "b.jpg was sent and may have been published\n",
		"interrupted: 0 of 4 files were uploaded, and 2 may have been; repeat the command with the rest\n",
	} {
		if !strings.Contains(stderr, want) {
			t.Errorf("%q is not in\n%s", want, stderr)
		}
	}
}

func TestGetUpload(t *testing.T) {
	const id = "6f8f57e0-79b8-4a4b-8a4c-5bd1a9d6e1c7"
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	for state, want := range map[pb.UploadState]string{
		pb.UploadState_UPLOAD_STATE_RECEIVING:  "receiving\tnot finished: ",
		pb.UploadState_UPLOAD_STATE_STORED:     "stored\tnot published; publish it: lpfileshare publish " + id,
		pb.UploadState_UPLOAD_STATE_PUBLISHING: "--request-id " + id,
		pb.UploadState_UPLOAD_STATE_PUBLISHED:  "published\tf",
		pb.UploadState_UPLOAD_STATE_FAILED:     "failed\tnothing was published: too big",
	} {
		g.state = &pb.Upload{RequestId: id, State: state, File: &pb.File{Name: "f"}, Failure: &pb.UploadFailure{Message: "too big"}}
		if got := s.ok("get-upload", id); !strings.Contains(got, want) || strings.HasSuffix(got, "\t") {
			t.Errorf("%v: %q", state, got)
		}
	}
	if got := s.fails(exitUsage, "get-upload", "x"); !strings.Contains(got, "which is a UUID") {
		t.Errorf("got %s", got)
	}
}

func TestUpload_PreviewOfImagesOnly(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	write(t, "t.txt", []byte("text"))
	s.ok("upload", "t.txt")
	s.stdin = io.MultiReader(strings.NewReader("te"), strings.NewReader("xt")) // which cannot go back
	s.ok("upload", "-")
	s.ok("demo", "--address", g.address, "t.txt")
	for i, spec := range g.specs {
		if spec.GetPreview() != nil || spec.GetFileType() != pb.FileType_FILE_TYPE_TXT {
			t.Errorf("spec %d: %v", i, spec)
		}
	}
	if got := g.data[g.files[1].GetName()]; string(got) != "text" {
		t.Errorf("standard input was uploaded as %q", got)
	}
	write(t, "what", []byte{0, 1})
	if got := s.fails(exitFailed, "upload", "what"); !strings.Contains(got, "--type") {
		t.Errorf("got %s", got)
	}
}

func TestPublish(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	for _, upload := range []string{"6f8f57e0-79b8-4a4b-8a4c-5bd1a9d6e1c7", "accounts/12345678/uploads/6f8f57e0-79b8-4a4b-8a4c-5bd1a9d6e1c7"} {
		if got := s.ok("publish", upload); got != "accounts/12345678/conversations/c1/files/f" {
			t.Errorf("%s: %s", upload, got)
		}
	}
	if got := s.fails(exitFailed, "publish", "6f8f57e0-79b8-4a4b-8a4c-5bd1a9d6e1c8"); !strings.Contains(got, "publish upload: ") || !strings.Contains(got, "UPLOAD_NOT_FOUND") {
		t.Errorf("got %s", got)
	}
	s.fails(exitUsage, "publish", "x")
}

func TestUpload_PrintsHowToRepeat(t *testing.T) {
	g := startGateway(t, &gateway{upload: func(s grpc.ClientStreamingServer[pb.UploadRequest, pb.UploadResponse]) error {
		s.Recv()
		return failure(codes.Internal, pb.ErrorReason_ERROR_REASON_INTERNAL)
	}})
	s := newShell(t, g).signIn()
	write(t, "a.jpg", picture(10))
	if got := s.fails(exitFailed, "upload", "a.jpg"); !strings.Contains(got, "--request-id ") || !strings.Contains(got, "Report this") {
		t.Errorf("got %s", got)
	}
}

func TestProgress(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	write(t, "a.jpg", picture(100_000))
	write(t, "b.jpg", picture(200_000))
	s.ok("upload", "a.jpg")
	s.ok("ls")
	for _, tc := range []struct {
		name, args string
		terminal   bool
		shown      []string // in the last picture of the progress; nil: no progress
		not        string
	}{
		{"a file", "upload a.jpg", true, []string{"a.jpg", "100 kB / 100 kB"}, "0 B"},
		{"a stream of unknown size", "upload - --name in.jpg", true, []string{"standard input", "50 kB"}, "/"},
		{"several files", "upload -j 2 a.jpg b.jpg", true, []string{"2 / 2 files"}, ""},
		{"a download", "download 1 -o back.jpg -f", true, []string{"back.jpg", "100 kB / 100 kB"}, ""},
		{"not a terminal", "upload a.jpg", false, nil, ""},
		{"quiet", "upload --quiet a.jpg", true, nil, ""},
		{"JSON", "--json upload a.jpg", true, nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s.stdin = struct{ io.Reader }{bytes.NewReader(picture(50_000))}
			s.terminal = tc.terminal
			code, _, stderr := s.run(t.Context(), strings.Fields(tc.args)...)
			s.terminal = false
			last := stderr[strings.LastIndex(stderr, "\x1b[J")+1:]
			for _, want := range tc.shown {
				if !strings.Contains(last, want) {
					t.Errorf("%q is not in %q", want, last)
				}
			}
			if code != exitOK || tc.shown == nil && stderr != "" || tc.not != "" && strings.Contains(last, tc.not) {
				t.Errorf("exit code %d: %q", code, stderr)
			}
		})
	}
}

func TestUpload_ShortNameOnTerminal(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	write(t, "a.jpg", picture(10))
	s.terminal = true
	if got := s.ok("--quiet", "upload", "a.jpg"); got != shortName(g.files[0].GetName()) {
		t.Errorf("printed %s", got)
	}
	if got := s.ok("--quiet", "upload", "--store-only", "a.jpg"); got != g.files[1].GetName() {
		t.Errorf("printed %s", got)
	}
}

func TestUpload_Parallel(t *testing.T) {
	const files = 8
	g := startGateway(t, &gateway{})
	var running atomic.Int32
	together := make(chan struct{}) // closed when all uploads run at once
	g.upload = func(stream grpc.ClientStreamingServer[pb.UploadRequest, pb.UploadResponse]) error {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if running.Add(1) == files {
			close(together)
		}
		select {
		case <-together:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
		if strings.HasPrefix(m.GetSpec().GetDisplayName(), "3") {
			return failure(codes.InvalidArgument, pb.ErrorReason_ERROR_REASON_FILE_EMPTY)
		}
		return stream.SendAndClose(&pb.UploadResponse{File: &pb.File{Name: m.GetSpec().GetDisplayName()}})
	}
	s := newShell(t, g).signIn()
	args := []string{"upload", "--parallel", fmt.Sprint(files)}
	for i := range files {
		args = append(args, write(t, fmt.Sprint(i, ".jpg"), picture(10)))
	}
	code, stdout, stderr := s.run(t.Context(), args...)
	if code != exitFailed || stdout != "0.jpg\n1.jpg\n2.jpg\n4.jpg\n5.jpg\n6.jpg\n7.jpg\n" || !strings.Contains(stderr, "upload 3.jpg: ") ||
		!strings.Contains(stderr, "1 of 8 files failed") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	for _, n := range []string{"0", "65"} {
		s.fails(exitUsage, "upload", "--parallel", n, "0.jpg")
	}
}

func TestUpload_FoldersAndPatterns(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	for _, dir := range []string{"d/below", "d/.hidden", "empty"} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"d/b.jpg", "d/a.jpg", "d/below/c.jpg", "d/.d.jpg", "d/.hidden/e.jpg", "x[1].jpg"} {
		write(t, name, picture(10))
	}
	for _, tc := range []struct{ args, want string }{
		{"-r d", "a.jpg b.jpg c.jpg"}, {"d/*.jpg", "a.jpg b.jpg"}, {"d/?.jpg d/below/c.jpg", "a.jpg b.jpg c.jpg"}, {"d/*", "a.jpg b.jpg"},
		{"-r d/b*", "b.jpg c.jpg"}, {"x[1].jpg", "x[1].jpg"},
	} {
		g.specs = nil
		s.ok(append([]string{"upload"}, strings.Fields(tc.args)...)...)
		var got []string
		for _, spec := range g.specs {
			got = append(got, spec.GetDisplayName())
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%s: uploaded %q, want %s", tc.args, got, tc.want)
		}
	}
	for args, want := range map[string]string{
		"d": "with --recursive", "-r empty": "has no files", "*.png": "no file matches *.png", "d/[": "syntax error",
	} {
		if got := s.fails(exitUsage, append([]string{"upload"}, strings.Fields(args)...)...); !strings.Contains(got, want) {
			t.Errorf("%s: %s", args, got)
		}
	}
}

func TestUpload_NameThatIsNotUTF8(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only file systems of Linux have such names")
	}
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	s.ok("upload", write(t, "lat\xe9,b.jpg", picture(10)))
	if got := g.specs[0].GetDisplayName(); got != "lat\uFFFD,b.jpg" {
		t.Errorf("the display name is %q", got)
	}
	if got := s.fails(exitUsage, "upload", "lat\xe9,b.jpg", "--caption", "lat\xe9"); !strings.Contains(got, "--caption must be UTF-8") {
		t.Errorf("got %s", got)
	}
}

func TestUpload_SaysWhatAFileIs(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	write(t, "a.heic", []byte("\x00\x00\x00\x24ftypheic\x00\x00\x00\x00"))
	write(t, "b.jpg", []byte("RIFF\x24\x00\x00\x00WEBPVP8 "))
	write(t, "c.doc", []byte("\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\x00"))
	for file, want := range map[string]string{
		"a.heic": "a HEIC image, which LivePerson does not accept; save it as JPEG", "b.jpg": "a WebP image", "c.doc": "legacy format (.doc, .xls, .ppt)",
	} {
		got := s.fails(exitFailed, "upload", file)
		if !strings.Contains(got, want) || strings.Contains(got, "--type") || !strings.Contains(got, "jpeg, png") {
			t.Errorf("%s: %s", file, got)
		}
	}
	if len(g.specs) > 0 {
		t.Errorf("sent %v", g.specs)
	}
}

func TestUpload_TooLargeAdvice(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	write(t, "big.jpg", picture(3_000_001))
	for _, tc := range []struct {
		fits int64
		args string
		want string
	}{
		{0, "", "Retry with --strip"},
		{0, "--fit", "does not make images fit; its operator can enable that (--fit-images). Retry with --strip"},
		{0, "--strip", "Send a smaller image."},
		{25_000_000, "", "Retry with --fit"},
		{25_000_000, "--fit", "at most 25000000 bytes"},
	} {
		g.maxInput = tc.fits
		got := s.fails(exitFailed, append(strings.Fields("upload big.jpg"), strings.Fields(tc.args)...)...)
		if !strings.Contains(got, tc.want) || tc.args != "" && strings.Contains(got, "Retry with "+tc.args) {
			t.Errorf("%s, server fits %d bytes: %s", tc.args, tc.fits, got)
		}
	}
}

func TestUpload_SendOfAgent(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g).signIn()
	consumer := s.session
	write(t, "a.jpg", picture(10))
	s.ok("agent", "send", "a.jpg") // into the conversation that the session file's consumer created

	s.session = s.session + ".agent"
	t.Setenv("LPFILESHARE_PASSWORD", "sandbox")
	s.ok("sign-in", "agent", "--user", "admin", "--address", g.address)
	code, stdout, stderr := s.run(t.Context(), "agent", "send", "a.jpg")
	if code != exitOK || !strings.HasPrefix(stdout, "accounts/12345678/conversations/c1/files/") ||
		stderr != "lpfileshare: using accounts/12345678/conversations/c1, your only open conversation\n" {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	s.ok("--quiet", "agent", "send", "a.jpg")
	other := *s
	other.session = consumer
	other.ok("conversation", "create")
	if got := s.fails(exitFailed, "agent", "send", "a.jpg"); !strings.Contains(got, "several open ones; name one with -c") {
		t.Errorf("got %s", got)
	}
	other.ok("conversation", "close")
	s.ok("--quiet", "agent", "send", "a.jpg")
	if n := len(g.specs); n != 4 {
		t.Errorf("%d uploads, want 4", n)
	}
}
