package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"unicode/utf8"

	"github.com/google/uuid"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// maxPreviewFileBytes is the largest preview file: a data URI can have 30 KiB, and base64 encodes three bytes as four characters.
const maxPreviewFileBytes = 30 << 10 * 3 / 4

type uploadCmd struct {
	Files        []string `arg:"" name:"file" sep:"none" predictor:"path" help:"Files to send, patterns such as 'photos/*.jpg', and with --recursive folders; - is standard input."`
	Conversation string   `short:"c" placeholder:"NAME" help:"Name or id of the conversation. Default: the one that was created last, else your only open one."`
	Dialog       string   `placeholder:"ID" help:"Dialog of the conversation. Default: the main dialog."`
	Caption      string   `help:"Text that is shown with each file."`
	Preview      string   `default:"auto" placeholder:"WHAT" help:"Small image shown before a file is opened: auto (the server generates one from an image), none, or a FILE (auto)."`
	Type         fileType `placeholder:"TYPE" help:"Type of the files: ${file_types}. Default: detected."`
	Fit          bool     `help:"Make images that are too large fit: upright, with lower quality, then with fewer pixels. Only on servers with --fit-images."`
	Strip        bool     `help:"Remove metadata (EXIF with the location, XMP, comments) and trailing bytes from images."`
	Name         string   `placeholder:"NAME" help:"Display name, with one file. Default: the name of the file."`
	RequestID    string   `placeholder:"UUID" help:"Repeat an upload whose result is not known, with one file: it is never published twice."`
	Recursive    bool     `short:"r" help:"Upload the files in folders too, except hidden ones."`
	Parallel     int      `short:"j" default:"1" placeholder:"N" help:"Upload this many files at once, up to 64. Their order in the conversation is then not certain (${default})."`
	StoreOnly    bool     `xor:"effect" help:"Only store the files. Publish them later: lpfileshare publish REQUEST-ID."`
	ValidateOnly bool     `xor:"effect" help:"Only check what can be checked without the bytes. Nothing is stored or published."`

	preview *pb.Preview // of --preview; nil: the server generates one
}

// maxParallel is the number of uploads of one caller that a server accepts at once.
const maxParallel = 64

func (cmd *uploadCmd) Run(ctx context.Context, a *app) error {
	files, err := cmd.validate()
	if err != nil {
		return err
	}
	if cmd.preview, err = readPreview(cmd.Preview); err != nil {
		return err
	}
	connect, cancel := a.limit(ctx, callTimeout)
	defer cancel()
	client, c, err := a.client(connect)
	if err != nil {
		return err
	}
	defer client.Close()
	conversation, err := a.conversation(connect, client, c, cmd.Conversation)
	if err != nil {
		return err
	}
	b := &batch{app: a, cmd: cmd, client: client, conversation: conversation, progress: a.newProgress(), files: files}
	return b.run(ctx)
}

// validate checks the flags, and returns the files to send.
func (cmd *uploadCmd) validate() ([]string, error) {
	files, err := expand(cmd.Files, cmd.Recursive)
	if err != nil {
		return nil, err
	}
	if len(files) > 1 && (cmd.RequestID != "" || cmd.Name != "") {
		return nil, &usageError{"--request-id and --name require a single file"}
	}
	if first := slices.Index(files, "-"); first >= 0 && slices.Contains(files[first+1:], "-") {
		return nil, &usageError{"standard input can be sent only once"}
	}
	if cmd.RequestID != "" && uuid.Validate(cmd.RequestID) != nil {
		return nil, &usageError{"--request-id must be a UUID"}
	}
	if cmd.Parallel < 1 || cmd.Parallel > maxParallel {
		return nil, &usageError{fmt.Sprintf("--parallel is %d, must be 1 to %d", cmd.Parallel, maxParallel)}
	}
	for flag, text := range map[string]string{"--caption": cmd.Caption, "--name": cmd.Name} {
		if !utf8.ValidString(text) {
			return nil, &usageError{flag + " must be UTF-8"}
		}
	}
	return files, nil
}

// readPreview returns the preview of --preview. Nil: the server generates one.
func readPreview(flag string) (*pb.Preview, error) {
	switch flag {
	case "auto":
		return nil, nil
	case "none", "":
		return &pb.Preview{}, nil
	}
	f, err := os.Open(flag)
	if err != nil {
		return nil, fmt.Errorf("preview: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPreviewFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("preview: %w", err)
	}
	mime := http.DetectContentType(b)
	if len(b) > maxPreviewFileBytes {
		return nil, &adviceError{fmt.Errorf("the preview %s is larger than %d bytes", flag, maxPreviewFileBytes),
			"Use a smaller one, or let the server generate one: --preview auto."}
	}
	if !slices.Contains([]string{"image/jpeg", "image/png", "image/gif"}, mime) {
		return nil, fmt.Errorf("the preview %s is not a JPEG, PNG or GIF image", flag)
	}
	uri := "data:" + mime + ";base64," + base64.StdEncoding.EncodeToString(b)
	return &pb.Preview{Source: &pb.Preview_DataUri{DataUri: uri}}, nil
}
